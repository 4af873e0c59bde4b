//! What others do to the filter rules, in the words of nf_tables.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use traffic::netlink::{Batch, NetlinkError, Protocol, Socket};
use traffic::rules::Installed;

pub const NEW_TABLE: u16 = 0x0a00;
pub const LIST_TABLES: u16 = 0x0a01;
pub const DELETE_TABLE: u16 = 0x0a02;
pub const NEW_CHAIN: u16 = 0x0a03;
pub const DELETE_CHAIN: u16 = 0x0a05;
pub const NEW_RULE: u16 = 0x0a06;
pub const GET_RULE: u16 = 0x0a07;
pub const DELETE_RULE: u16 = 0x0a08;
pub const NEW_ELEMENT: u16 = 0x0a0c;
pub const DELETE_ELEMENT: u16 = 0x0a0e;

pub const IPV4: [u8; 4] = [2, 0, 0, 0];
pub const IPV6: [u8; 4] = [10, 0, 0, 0];

/// The tables of either family stand.
pub const STANDS: Installed = Installed { ipv4: true, ipv6: true };

/// Changes that the kernel makes in one piece or not at all.
pub fn in_one_piece(name: &str, fill: impl FnOnce(&mut Batch)) -> Batch {
    const BEGIN: u16 = 0x10;
    const END: u16 = 0x11;
    const NFTABLES: [u8; 4] = [0, 0, 0, 10];
    let mut batch = Batch::new(name);
    batch.unanswered(BEGIN, &NFTABLES);
    fill(&mut batch);
    batch.unanswered(END, &NFTABLES);
    batch
}

/// One change by somebody else.
pub fn change(make: impl FnOnce(&mut Batch)) -> Result<(), NetlinkError> {
    change_through(&Socket::open(Protocol::Netfilter).unwrap(), make)
}

/// The same through a socket of theirs.
pub fn change_through(socket: &Socket, make: impl FnOnce(&mut Batch)) -> Result<(), NetlinkError> {
    socket.transact(in_one_piece("somebody else's change", make))
}

/// What `nft flush ruleset` sends.
pub fn delete_everything(batch: &mut Batch) {
    batch.request("flush the rule set", DELETE_TABLE, 0, &[0; 4], |_| {});
}
