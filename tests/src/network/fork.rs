//! A network with two ways: sender – router1 – (router2a | router2b) – receiver. Which way packets go is a route of router1, or of
//! a plain router behind it that knows nothing of permissions.

use std::io;
use std::net::IpAddr;

use super::graph::{address, forward, prefix};
use super::link::{self, End};
use super::namespace::Namespace;
use super::topology::{Family, MTU};

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

/// Interface of the first router towards the sender.
pub const FIRST_LINK: &str = "p0";
/// Interface of either second router towards the receiver.
pub const LAST_LINK: &str = "q1";

/// The addresses of one IP version, besides those of the ends that flows go between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The first router's.
    pub router1: [IpAddr; 4],
    /// Those of either second router: towards the first one, and towards the receiver.
    pub router2: [[IpAddr; 2]; 2],
    /// The receiver's on its two links.
    pub receiver_links: [IpAddr; 2],
    /// The plain router's towards the first one.
    plain: IpAddr,
}

impl Addresses {
    /// Those of an IP version.
    pub const fn of(family: Family) -> Self {
        Self {
            router1: [address(family, 20, 254), address(family, 22, 1), address(family, 24, 1), address(family, 25, 1)],
            router2: [[address(family, 24, 2), address(family, 26, 1)], [address(family, 25, 2), address(family, 27, 1)]],
            receiver_links: [address(family, 26, 4), address(family, 27, 4)],
            plain: address(family, 22, 2),
        }
    }
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
    family: Family,
}

impl Fork {
    /// Builds hosts, links, addresses and routes, of one IP version only; the way is [`Way::A`].
    pub fn build(chooser: Chooser, family: Family) -> io::Result<Self> {
        let fork = Self {
            sender: Namespace::create("sender")?,
            router1: Namespace::create("router1")?,
            router2: [Namespace::create("router2a")?, Namespace::create("router2b")?],
            receiver: Namespace::create("receiver")?,
            plain: (chooser == Chooser::Plain).then(|| Namespace::create("plain")).transpose()?,
            family,
        };
        let Self { sender, router1, router2, receiver, plain, .. } = &fork;
        // What comes from the sender may come by either link.
        receiver.write_setting("net/ipv4/conf/all/rp_filter", "0")?;
        receiver.write_setting("net/ipv4/conf/default/rp_filter", "0")?;
        for router in router2.iter().chain([router1]).chain(plain) {
            forward(router, family)?;
        }
        let Addresses { router1: [at_sender, towards_plain, towards_a, towards_b], router2: addresses, receiver_links, plain: at_plain } =
            Addresses::of(family);
        let length = prefix(family);
        let alone = if family == Family::Ipv4 { 32 } else { 128 };
        let join = |left: (&Namespace, &str, &[(IpAddr, u8)]), right: (&Namespace, &str, &[(IpAddr, u8)])| {
            let end = |(host, interface, addresses)| End { host, interface, addresses };
            link::join(end(left), end(right), MTU)
        };
        join((sender, "s0", &[(family.sender(), length)]), (router1, FIRST_LINK, &[(at_sender, length)]))?;
        if let Some(plain) = plain {
            join((router1, "p1", &[(towards_plain, length)]), (plain, "x0", &[(at_plain, length)]))?;
            link::add_default_route(router1, at_plain)?;
            link::add_default_route(plain, towards_plain)?;
        }
        let forking = fork.chooser();
        let ends = [("xa", towards_a, "da", Some(family.receiver())), ("xb", towards_b, "db", None)];
        for (way, ((interface, near, at_receiver, also), router)) in [Way::A, Way::B].into_iter().zip(ends.into_iter().zip(router2)) {
            let [left, right] = way.of(addresses);
            let at_end: Vec<(IpAddr, u8)> = [(way.of(receiver_links), length)].into_iter().chain(also.map(|also| (also, alone))).collect();
            join((forking, interface, &[(near, length)]), (router, "q0", &[(left, length)]))?;
            join((router, LAST_LINK, &[(right, length)]), (receiver, at_receiver, &at_end))?;
            link::add_default_route(router, near)?;
            link::set_route(router, receivers(family), way.of(receiver_links))?;
        }
        link::add_default_route(sender, at_sender)?;
        link::add_default_route(receiver, addresses[0][1])?;
        fork.choose(Way::A)?;
        Ok(fork)
    }

    /// Has packets to the receiver go this way from now on; the way back does not change.
    pub fn choose(&self, way: Way) -> io::Result<()> {
        let [next, _] = way.of(Addresses::of(self.family).router2);
        link::set_route(self.chooser(), receivers(self.family), next)
    }

    fn chooser(&self) -> &Namespace {
        self.plain.as_ref().unwrap_or(&self.router1)
    }
}

/// The receiver's network and the length of its prefix.
fn receivers(family: Family) -> (IpAddr, u8) {
    (address(family, 21, 0), prefix(family))
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
