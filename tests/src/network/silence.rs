//! A host that hears nothing any more on one of its links, which stays up: nobody is told, and nobody is answered, not even who has an
//! address. Captures on that link still show what comes.

use std::io;

use traffic::netlink::{Batch, CREATE, Protocol, Socket};

use super::namespace::Namespace;

const TABLE: &str = "silence";
/// Family `netdev`: frames of a link, of any kind.
const NETDEV: [u8; 4] = [5, 0, 0, 0];
/// The frame of a batch names the subsystem of nf_tables.
const FRAME: [u8; 4] = [0, 0, 0, 10];
const NEW_TABLE: u16 = 0x0a00;
const NEW_CHAIN: u16 = 0x0a03;
const DELETE_TABLE: u16 = 0x0a02;
/// Hook before everything (`NF_NETDEV_INGRESS`).
const INGRESS: u32 = 0;
const DROP: u32 = 0;

/// From now on whatever comes to the host by this interface is lost.
pub fn begin(host: &Namespace, interface: &str) -> io::Result<()> {
    let mut batch = Batch::new("silence");
    batch.unanswered(0x10, &FRAME);
    batch.request("create table", NEW_TABLE, CREATE, &NETDEV, |writer| writer.put_text(1, TABLE));
    batch.request("create chain", NEW_CHAIN, CREATE, &NETDEV, |writer| {
        writer.put_text(1, TABLE);
        writer.put_text(3, "all");
        writer.nest(4, |base| {
            base.put_be32(1, INGRESS);
            base.put_be32(2, 0);
            base.put_text(3, interface);
        });
        writer.put_be32(5, DROP);
        writer.put_text(7, "filter");
    });
    batch.unanswered(0x11, &FRAME);
    carry_out(host, batch)
}

/// It hears again.
pub fn end(host: &Namespace) -> io::Result<()> {
    let mut batch = Batch::new("silence");
    batch.unanswered(0x10, &FRAME);
    batch.request("delete table", DELETE_TABLE, 0, &NETDEV, |writer| writer.put_text(1, TABLE));
    batch.unanswered(0x11, &FRAME);
    carry_out(host, batch)
}

fn carry_out(host: &Namespace, batch: Batch) -> io::Result<()> {
    host.run(|| Socket::open(Protocol::Netfilter).and_then(|socket| socket.transact(batch)).map_err(io::Error::other))
}
