//! A network with two ways: sender – router1 – (router2a | router2b) – receiver. Which way packets go is a route of router1, or of
//! a plain router behind it that knows nothing of permissions.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::link::{self, End};
use super::namespace::Namespace;
use super::topology::{MTU, RECEIVER, SENDER};

/// Who chooses the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chooser {
    /// The first router, whose daemon hears of it.
    Router1,
    /// A router behind it without any daemon: nobody is told.
    Plain,
}

/// One of the two ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Over router2a, which is taken at first.
    A,
    /// Over router2b.
    B,
}

/// Interface of either second router towards the receiver.
pub const LAST_LINK: &str = "q1";

/// The first router's addresses.
pub const ROUTER1: [IpAddr; 4] = [ip(20, 254), ip(22, 1), ip(24, 1), ip(25, 1)];
/// The addresses of either second router.
pub const ROUTER2: [[IpAddr; 2]; 2] = [[ip(24, 2), ip(26, 1)], [ip(25, 2), ip(27, 1)]];
/// The receiver's addresses on its two links, besides the one that flows go to.
pub const RECEIVER_LINKS: [IpAddr; 2] = [ip(26, 4), ip(27, 4)];

/// The plain router's address towards the first one.
const PLAIN: IpAddr = ip(22, 2);
/// The receiver's network and the length of its prefix.
const RECEIVERS: (Ipv4Addr, u8) = (Ipv4Addr::new(192, 168, 21, 0), 24);

const fn ip(network: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 168, network, host))
}

/// The hosts.
#[derive(Debug)]
pub struct Fork {
    /// Where packets come from.
    pub sender: Namespace,
    /// The first router.
    pub router1: Namespace,
    /// The second ones, by way.
    pub router2: [Namespace; 2],
    /// Where packets go to, over two links.
    pub receiver: Namespace,
    plain: Option<Namespace>,
}

impl Fork {
    /// Builds hosts, links, addresses and routes, IPv4 only; the way is [`Way::A`].
    pub fn build(chooser: Chooser) -> io::Result<Self> {
        let fork = Self {
            sender: Namespace::create("sender")?,
            router1: Namespace::create("router1")?,
            router2: [Namespace::create("router2a")?, Namespace::create("router2b")?],
            receiver: Namespace::create("receiver")?,
            plain: (chooser == Chooser::Plain).then(|| Namespace::create("plain")).transpose()?,
        };
        let Self { sender, router1, router2, receiver, plain } = &fork;
        // What comes from the sender may come by either link.
        receiver.write_setting("net/ipv4/conf/all/rp_filter", "0")?;
        receiver.write_setting("net/ipv4/conf/default/rp_filter", "0")?;
        for router in router2.iter().chain([router1]).chain(plain) {
            router.write_setting("net/ipv4/ip_forward", "1")?;
        }
        let [at_sender, towards_plain, towards_a, towards_b] = ROUTER1;
        let join = |left: (&Namespace, &str, &[(IpAddr, u8)]), right: (&Namespace, &str, &[(IpAddr, u8)])| {
            let end = |(host, interface, addresses)| End { host, interface, addresses };
            link::join(end(left), end(right), MTU)
        };
        join((sender, "s0", &[(SENDER, 24)]), (router1, "p0", &[(at_sender, 24)]))?;
        if let Some(plain) = plain {
            join((router1, "p1", &[(towards_plain, 24)]), (plain, "x0", &[(PLAIN, 24)]))?;
            link::add_default_route(router1, PLAIN)?;
            link::add_default_route(plain, towards_plain)?;
        }
        let forking = fork.chooser();
        let ends = [("xa", towards_a, "da", Some(RECEIVER)), ("xb", towards_b, "db", None)];
        for (way, ((interface, near, at_receiver, also), router)) in [Way::A, Way::B].into_iter().zip(ends.into_iter().zip(router2)) {
            let [left, right] = way.of(ROUTER2);
            let at_end: Vec<(IpAddr, u8)> = [(way.of(RECEIVER_LINKS), 24)].into_iter().chain(also.map(|also| (also, 32))).collect();
            join((forking, interface, &[(near, 24)]), (router, "q0", &[(left, 24)]))?;
            join((router, LAST_LINK, &[(right, 24)]), (receiver, at_receiver, &at_end))?;
            link::add_default_route(router, near)?;
            link::set_route(router, RECEIVERS, way.of(RECEIVER_LINKS))?;
        }
        link::add_default_route(sender, at_sender)?;
        link::add_default_route(receiver, ROUTER2[0][1])?;
        fork.choose(Way::A)?;
        Ok(fork)
    }

    /// Has packets to the receiver go this way from now on; the way back does not change.
    pub fn choose(&self, way: Way) -> io::Result<()> {
        let [next, _] = way.of(ROUTER2);
        link::set_route(self.chooser(), RECEIVERS, next)
    }

    fn chooser(&self) -> &Namespace {
        self.plain.as_ref().unwrap_or(&self.router1)
    }
}

impl Way {
    /// The one of two that belongs to this way.
    pub fn of<T>(self, [a, b]: [T; 2]) -> T {
        match self {
            Self::A => a,
            Self::B => b,
        }
    }
}
