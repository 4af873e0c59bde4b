//! A host's own stateful firewall, as an administrator would set it: invalid packets are dropped, and only answers and a few
//! open ports come in. It must go on working beside ours: it sees the inner flow, never AH.

use std::io;

use traffic::netlink::{APPEND, Batch, CREATE, Protocol, Socket, Writer};

use super::namespace::Namespace;

const TABLE: &str = "host-firewall";
/// Family `inet`: both IP versions.
const INET: [u8; 4] = [1, 0, 0, 0];
/// The frame of a batch names the subsystem of nf_tables.
const FRAME: [u8; 4] = [0, 0, 0, 10];
const NEW_TABLE: u16 = 0x0a00;
const NEW_CHAIN: u16 = 0x0a03;
const NEW_RULE: u16 = 0x0a06;

/// States of connection tracking, one bit each.
const INVALID: u32 = 1;
const ESTABLISHED_OR_RELATED: u32 = 2 | 4;

/// Sets the firewall. `open` lists ports (first, last) that anybody may reach over UDP and TCP.
pub fn set(host: &Namespace, open: &[(u16, u16)]) -> io::Result<()> {
    host.run(|| Socket::open(Protocol::Netfilter).and_then(|socket| socket.transact(batch(open))).map_err(io::Error::other))
}

fn batch(open: &[(u16, u16)]) -> Batch {
    let mut batch = Batch::new("host firewall");
    batch.unanswered(0x10, &FRAME);
    batch.request("create table", NEW_TABLE, CREATE, &INET, |writer| writer.put_text(1, TABLE));
    chain(&mut batch, "input", 1, 0);
    chain(&mut batch, "output", 3, 1);
    rule(&mut batch, "input", &[Test::State(INVALID)], false);
    rule(&mut batch, "input", &[Test::State(ESTABLISHED_OR_RELATED)], true);
    rule(&mut batch, "input", &[Test::Loopback], true);
    for protocol in [1, 58] {
        rule(&mut batch, "input", &[Test::Protocol(protocol)], true);
    }
    for &(first, last) in open {
        for protocol in [6, 17] {
            rule(&mut batch, "input", &[Test::Protocol(protocol), Test::Port(first, last)], true);
        }
    }
    rule(&mut batch, "output", &[Test::State(INVALID)], false);
    batch.unanswered(0x11, &FRAME);
    batch
}

/// A base chain at `hook`; what no rule decides about gets `policy` (0 drop, 1 accept).
fn chain(batch: &mut Batch, name: &str, hook: u32, policy: u32) {
    batch.request(format!("create chain {name}"), NEW_CHAIN, CREATE, &INET, |writer| {
        writer.put_text(1, TABLE);
        writer.put_text(3, name);
        writer.nest(4, |base| {
            base.put_be32(1, hook);
            base.put_be32(2, 0);
        });
        writer.put_be32(5, policy);
        writer.put_text(7, "filter");
    });
}

/// What a rule looks at.
enum Test {
    /// One of these states of connection tracking.
    State(u32),
    /// Came in over the loopback interface.
    Loopback,
    /// This upper-layer protocol.
    Protocol(u8),
    /// A destination port in this range.
    Port(u16, u16),
}

fn rule(batch: &mut Batch, chain: &str, tests: &[Test], accept: bool) {
    batch.request(format!("add a rule to {chain}"), NEW_RULE, CREATE | APPEND, &INET, |writer| {
        writer.put_text(1, TABLE);
        writer.put_text(2, chain);
        writer.nest(4, |list| {
            for test in tests {
                test.write(list);
            }
            element(list, "immediate", |data| {
                data.put_be32(1, 0);
                data.nest(2, |value| value.nest(2, |verdict| verdict.put_be32(1, u32::from(accept))));
            });
        });
    });
}

impl Test {
    fn write(&self, list: &mut Writer) {
        match self {
            Self::State(bits) => {
                element(list, "ct", |data| {
                    data.put_be32(1, 1);
                    data.put_be32(2, 0);
                });
                element(list, "bitwise", |data| {
                    data.put_be32(1, 1);
                    data.put_be32(2, 1);
                    data.put_be32(3, 4);
                    data.nest(4, |mask| mask.put_u32(1, *bits));
                    data.nest(5, |xor| xor.put_u32(1, 0));
                });
                compare(list, 1, &0_u32.to_ne_bytes());
            }
            Self::Loopback => {
                load_meta(list, 6);
                compare(list, 0, b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
            }
            Self::Protocol(protocol) => {
                load_meta(list, 16);
                compare(list, 0, &[*protocol]);
            }
            Self::Port(first, last) => {
                element(list, "payload", |data| {
                    data.put_be32(1, 1);
                    data.put_be32(2, 2);
                    data.put_be32(3, 2);
                    data.put_be32(4, 2);
                });
                element(list, "range", |data| {
                    data.put_be32(1, 1);
                    data.put_be32(2, 0);
                    data.nest(3, |from| from.put(1, &first.to_be_bytes()));
                    data.nest(4, |to| to.put(1, &last.to_be_bytes()));
                });
            }
        }
    }
}

fn load_meta(list: &mut Writer, key: u32) {
    element(list, "meta", |data| {
        data.put_be32(1, 1);
        data.put_be32(2, key);
    });
}

/// Compares register 1: operator 0 is "equal", 1 is "not equal".
pub(crate) fn compare(list: &mut Writer, operator: u32, value: &[u8]) {
    element(list, "cmp", |data| {
        data.put_be32(1, 1);
        data.put_be32(2, operator);
        data.nest(3, |holder| holder.put(1, value));
    });
}

pub(crate) fn element(list: &mut Writer, name: &str, fill: impl FnOnce(&mut Writer)) {
    list.nest(1, |element| {
        element.put_text(1, name);
        element.nest(2, fill);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::topology::{Chain, RECEIVER, SENDER};
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn an_open_port_and_answers_come_in_and_nothing_else_does() {
        if !crate::may_make_networks() {
            return;
        }
        let network = Chain::build().unwrap();
        set(&network.receiver, &[(9000, 9999)]).unwrap();
        set(&network.sender, &[]).unwrap();
        let receive = |port: u16| network.receiver.run(|| UdpSocket::bind((RECEIVER, port))).unwrap();
        let (open, closed) = (receive(9000), receive(8000));
        let sender = network.sender.run(|| UdpSocket::bind((SENDER, 20_000))).unwrap();
        for socket in [&open, &closed, &sender] {
            socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        }
        let mut buffer = [0; 8];
        sender.send_to(b"hello", (RECEIVER, 9000)).unwrap();
        sender.send_to(b"hello", (RECEIVER, 8000)).unwrap();
        assert_eq!(open.recv(&mut buffer).unwrap(), 5);
        assert!(closed.recv(&mut buffer).is_err());
        open.send_to(b"answer", (SENDER, 20_000)).unwrap();
        assert_eq!(sender.recv(&mut buffer).unwrap(), 6, "an answer belongs to a connection");
        // Nothing was ever sent to this port.
        receive(8001).send_to(b"unasked", (SENDER, 20_000)).unwrap();
        assert!(sender.recv(&mut buffer).is_err(), "another port is another connection");
    }
}
