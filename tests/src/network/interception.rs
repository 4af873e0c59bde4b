//! UDP to GIST's port that is on its way to somebody else, into a queue: what a router that is only a GIST node needs.
//!
//! A table of its own. Without a listener the packets go on as if nothing were there: unlike a permission, signalling that is not
//! taken opens nothing.

use std::io;

use traffic::netlink::{APPEND, Batch, CREATE, Protocol, Socket, Writer};

use super::firewall::{compare, element};

const TABLE: &str = "gist-node";
/// Family `inet`: both IP versions.
const INET: [u8; 4] = [1, 0, 0, 0];
/// The frame of a batch names the subsystem of nf_tables.
const FRAME: [u8; 4] = [0, 0, 0, 10];
const NEW_TABLE: u16 = 0x0a00;
const DELETE_TABLE: u16 = 0x0a02;
const NEW_CHAIN: u16 = 0x0a03;
const NEW_RULE: u16 = 0x0a06;

/// Before fragments are put together: one is never a Q-mode packet (G-394).
const BEFORE_REASSEMBLY: i32 = -450;
const UDP: u8 = 17;
/// Type of an address of this node (`RTN_LOCAL`).
const LOCAL: u32 = 2;

/// The rules, which end with this value.
#[derive(Debug)]
pub struct Interception(());

impl Interception {
    /// Sets the rules in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel refuses: the right to is missing, or NFQUEUE.
    pub fn set(queue: u16) -> io::Result<Self> {
        transact(set(queue))?;
        Ok(Self(()))
    }
}

impl Drop for Interception {
    fn drop(&mut self) {
        // What is left behind lets everything pass once nobody listens.
        let _ = transact(remove());
    }
}

fn transact(batch: Batch) -> io::Result<()> {
    Socket::open(Protocol::Netfilter).and_then(|socket| socket.transact(batch)).map_err(io::Error::other)
}

fn remove() -> Batch {
    let mut batch = Batch::new("take signalling out of the queue");
    batch.unanswered(0x10, &FRAME);
    delete(&mut batch);
    batch.unanswered(0x11, &FRAME);
    batch
}

/// Deleting a table that is not there is an error; creating it just before makes it be there.
fn delete(batch: &mut Batch) {
    create(batch);
    batch.request("remove table", DELETE_TABLE, 0, &INET, |writer| writer.put_text(1, TABLE));
}

fn create(batch: &mut Batch) {
    batch.request("create table", NEW_TABLE, CREATE, &INET, |writer| writer.put_text(1, TABLE));
}

fn set(queue: u16) -> Batch {
    let mut batch = Batch::new("take signalling off its way");
    batch.unanswered(0x10, &FRAME);
    delete(&mut batch);
    create(&mut batch);
    batch.request("create chain", NEW_CHAIN, CREATE, &INET, |writer| {
        writer.put_text(1, TABLE);
        writer.put_text(3, "interception");
        writer.nest(4, |base| {
            base.put_be32(1, 0);
            base.put_be32(2, BEFORE_REASSEMBLY.cast_unsigned());
        });
        writer.put_be32(5, 1);
        writer.put_text(7, "filter");
    });
    batch.request("add a rule", NEW_RULE, CREATE | APPEND, &INET, |writer| {
        writer.put_text(1, TABLE);
        writer.put_text(2, "interception");
        writer.nest(4, |list| {
            protocol(list);
            port(list);
            not_for_this_node(list);
            element(list, "target", |data| {
                const PASS_WITHOUT_LISTENER: u16 = 1;
                data.put_text(1, "NFQUEUE");
                data.put_be32(2, 3);
                data.put(3, [queue, 1, PASS_WITHOUT_LISTENER, 0].map(u16::to_ne_bytes).as_flattened());
            });
        });
    });
    batch.unanswered(0x11, &FRAME);
    batch
}

fn protocol(list: &mut Writer) {
    element(list, "meta", |data| {
        data.put_be32(1, 1);
        data.put_be32(2, 16);
    });
    compare(list, 0, &[UDP]);
}

fn port(list: &mut Writer) {
    element(list, "payload", |data| {
        data.put_be32(1, 1);
        data.put_be32(2, 2);
        data.put_be32(3, 2);
        data.put_be32(4, 2);
    });
    compare(list, 0, &gist::wire::datagram::GIST_PORT.to_be_bytes());
}

fn not_for_this_node(list: &mut Writer) {
    element(list, "fib", |data| {
        const ADDRESS_TYPE: u32 = 3;
        const OF_DESTINATION: u32 = 2;
        data.put_be32(1, 1);
        data.put_be32(2, ADDRESS_TYPE);
        data.put_be32(3, OF_DESTINATION);
    });
    compare(list, 1, &LOCAL.to_ne_bytes());
}
