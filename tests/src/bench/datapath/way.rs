//! Sender, router and sink in namespaces of their own; what the router forwards under AH goes through a packet queue.

use std::io;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::time::Duration;

use traffic::netlink::{APPEND, Batch, CREATE, Protocol, Socket};

use super::arrangement::Arrangement;
use super::generator::{self, Pace, Post};
use crate::network::firewall::{compare, element};
use crate::network::link::{self, End};
use crate::network::namespace::Namespace;

/// The queue.
pub(super) const QUEUE: u16 = 7;
/// Where the packets come from and go to.
pub(super) const SOURCE: [u8; 4] = [192, 168, 20, 1];
pub(super) const DESTINATION: [u8; 4] = [192, 168, 21, 4];

/// Made when it is first needed, with its processors given out.
#[derive(Default)]
pub(super) struct Way {
    arrangement: Arrangement,
    made: OnceLock<Made>,
}

/// The namespaces, as long as packets are to flow.
pub(super) struct Made {
    pub(super) sender: Namespace,
    pub(super) router: Namespace,
    pub(super) sink: Namespace,
    post: Post,
}

impl Way {
    /// One to be made whose processors are given out like this.
    pub(super) fn arranged(arrangement: Arrangement) -> Self {
        Self { arrangement, made: OnceLock::new() }
    }

    /// The namespaces.
    ///
    /// # Errors
    ///
    /// They cannot be made.
    pub(super) fn get(&self) -> io::Result<&Made> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let made = Made::new(self.arrangement)?;
        Ok(self.made.get_or_init(|| made))
    }
}

impl Made {
    fn new(arrangement: Arrangement) -> io::Result<Self> {
        let [sender, router, sink] = namespaces()?;
        arrangement.give_out(&router, &sink)?;
        let post = Post::new(&sender, &router, arrangement.senders())?;
        router.run(|| Socket::open(Protocol::Netfilter).and_then(|socket| socket.transact(rules())).map_err(io::Error::other))?;
        Ok(Self { sender, router, sink, post })
    }

    /// Sends every packet once; how long that took.
    ///
    /// # Errors
    ///
    /// The link refuses.
    pub(super) fn send(&self, packets: &[Vec<u8>], pace: Pace) -> io::Result<Duration> {
        self.sender.run(|| generator::send(self.post, packets, pace))
    }

    /// Frames that have come to the sink.
    pub(super) fn arrived(&self) -> io::Result<u64> {
        arrived(&self.sink)
    }
}

/// Frames that have come to a sink.
pub(super) fn arrived(sink: &Namespace) -> io::Result<u64> {
    let devices = sink.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix("far1:"));
    let frames = line.and_then(|line| line.split_ascii_whitespace().nth(1)).and_then(|frames| frames.parse().ok());
    frames.ok_or_else(|| io::Error::other("the sink's link is not listed"))
}

/// Sender, router and sink, without any rules.
pub(super) fn namespaces() -> io::Result<[Namespace; 3]> {
    const MTU: u32 = 1500;
    let [sender, router, sink] = [Namespace::create("sender")?, Namespace::create("router")?, Namespace::create("sink")?];
    let at = |a, b, c, d| [(IpAddr::from([a, b, c, d]), 24)];
    let (near, far) = (at(192, 168, 20, 254), at(192, 168, 21, 254));
    let [source, destination] = [SOURCE, DESTINATION].map(|address| [(IpAddr::from(address), 24)]);
    let end = |host, interface, addresses| End { host, interface, addresses };
    link::join(end(&sender, "near0", &source), end(&router, "near1", &near), MTU)?;
    // Both ends of a link are made in one host, so that no name may be there twice.
    link::join(end(&router, "far0", &far), end(&sink, "far1", &destination), MTU)?;
    link::add_default_route(&sender, IpAddr::from([192, 168, 20, 254]))?;
    router.write_setting("net/ipv4/ip_forward", "1")?;
    Ok([sender, router, sink])
}

/// AH that is forwarded goes to the queue, and is dropped if nobody listens.
fn rules() -> Batch {
    const FRAME: [u8; 4] = [0, 0, 0, 10];
    const IPV4: [u8; 4] = [2, 0, 0, 0];
    const TABLE: &str = "bench";
    const CHAIN: &str = "data";
    const FORWARD: u32 = 2;
    const AH: u8 = 51;
    let mut batch = Batch::new("lead data into the queue");
    batch.unanswered(0x10, &FRAME);
    batch.request("create table", 0x0a00, CREATE, &IPV4, |writer| writer.put_text(1, TABLE));
    batch.request("create chain", 0x0a03, CREATE, &IPV4, |writer| {
        writer.put_text(1, TABLE);
        writer.put_text(3, CHAIN);
        writer.nest(4, |base| {
            base.put_be32(1, FORWARD);
            base.put_be32(2, 0);
        });
        writer.put_be32(5, 1);
        writer.put_text(7, "filter");
    });
    batch.request("add a rule", 0x0a06, CREATE | APPEND, &IPV4, |writer| {
        writer.put_text(1, TABLE);
        writer.put_text(2, CHAIN);
        writer.nest(4, |list| {
            element(list, "meta", |data| {
                data.put_be32(1, 1);
                data.put_be32(2, 16);
            });
            compare(list, 0, &[AH]);
            element(list, "target", |data| {
                data.put_text(1, "NFQUEUE");
                data.put_be32(2, 3);
                data.put(3, [QUEUE, 1, 0, 0].map(u16::to_ne_bytes).as_flattened());
            });
        });
    });
    batch.unanswered(0x11, &FRAME);
    batch
}
