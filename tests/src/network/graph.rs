//! A network with two routers and somebody on one of the links: sender – router1 – router2 – receiver.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::link::{self, End};
use super::namespace::Namespace;
use super::sys;
use super::topology::{Family, MTU};

/// The addresses of one IP version. Those of the ends that flows go between are [`Family`]'s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The first router's, on the sender's link and towards the second router.
    pub router1: [IpAddr; 2],
    /// The second router's, towards the first one and on the receiver's link.
    pub router2: [IpAddr; 2],
    /// Those beside: of the sender's second and third uplink.
    pub beside: [Beside; 2],
}

/// The addresses of another uplink of the sender, over a router of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// The router's, on the uplink and towards the receiver.
    pub router: [IpAddr; 2],
    /// The sender's on it.
    pub sender: IpAddr,
    /// The receiver's on its link to that router.
    pub receiver: IpAddr,
}

impl Addresses {
    /// Those of an IP version.
    pub const fn of(family: Family) -> Self {
        Self {
            router1: [address(family, 20, 254), address(family, 22, 1)],
            router2: [address(family, 22, 2), address(family, 21, 254)],
            beside: [beside(family, [23, 24]), beside(family, [25, 26])],
        }
    }
}

const fn beside(family: Family, [left, right]: [u8; 2]) -> Beside {
    Beside {
        router: [address(family, left, 254), address(family, right, 254)],
        sender: address(family, left, 1),
        receiver: address(family, right, 4),
    }
}

/// A host's address in a network of the laboratory: 192.168.20.1 or fd20::1.
pub(super) const fn address(family: Family, network: u8, host: u8) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::new(192, 168, network, host)),
        // The decimal digits of the network, so that fd20::1 is in the network that IPv4 calls 192.168.20.0.
        Family::Ipv6 => {
            let digits = ((network / 10) as u16) << 4 | (network % 10) as u16;
            IpAddr::V6(Ipv6Addr::new(0xfd00 | digits, 0, 0, 0, 0, 0, 0, host as u16))
        }
    }
}

/// Interface of the sender.
pub const SENDER_LINK: &str = "s0";
/// Interface of the first router towards the sender.
pub const ROUTER1_LEFT_LINK: &str = "p0";
/// Interface of the first router towards the second.
pub const ROUTER1_RIGHT_LINK: &str = "p1";
/// Interface of the second router towards the first.
pub const ROUTER2_LEFT_LINK: &str = "q0";
/// Interface of the second router towards the receiver.
pub const ROUTER2_RIGHT_LINK: &str = "q1";
/// Interface of the receiver.
pub const RECEIVER_LINK: &str = "d0";
/// Interfaces of the sender's second and third uplink.
pub const SENDER_SPARE_LINKS: [&str; 2] = ["s1", "s2"];
/// Interfaces of the third and fourth router towards the sender.
pub const SPARE_LEFT_LINKS: [&str; 2] = ["t0", "u0"];
/// Interfaces of the third and fourth router towards the receiver.
pub const SPARE_RIGHT_LINKS: [&str; 2] = ["t1", "u1"];
/// Interfaces of the receiver towards the third and fourth router.
pub const RECEIVER_SPARE_LINKS: [&str; 2] = ["d1", "d2"];
/// Interface in the middle of a link, towards the sender.
pub const MIDDLE_LEFT: &str = "m0";
/// Interface in the middle of a link, towards the receiver.
pub const MIDDLE_RIGHT: &str = "m1";

/// The link that somebody sits on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The link between the routers.
    BetweenRouters,
    /// The same, and the sender has a second uplink, over a third router to a second link of the receiver.
    BesideSpare,
    /// The same, and a third uplink, over a fourth router.
    BesideSpares,
    /// The receiver's link.
    LastLink,
    /// Each of the three links.
    EveryLink,
}

impl Place {
    /// How many uplinks the sender has besides the routed one.
    pub const fn spares(self) -> usize {
        match self {
            Self::BesideSpare => 1,
            Self::BesideSpares => 2,
            Self::BetweenRouters | Self::LastLink | Self::EveryLink => 0,
        }
    }
}

/// Four hosts in a row, and a namespace in the middle of one link. What comes to one side of that does not leave on the other
/// unless somebody carries it over.
#[derive(Debug)]
pub struct TwoRouters {
    /// Where packets come from.
    pub sender: Namespace,
    /// The first router on the path.
    pub router1: Namespace,
    /// The second one.
    pub router2: Namespace,
    /// Where packets go to.
    pub receiver: Namespace,
    /// A third router between the same ends, and a fourth, which no route leads over.
    pub spares: Vec<Namespace>,
    /// The middle of the link at `place`, or of that between the routers. It has no address.
    pub middle: Namespace,
    /// The middles of the sender's and the receiver's link, where somebody sits on every link.
    pub outer: Option<[Namespace; 2]>,
    /// Which link that is.
    pub place: Place,
}

impl TwoRouters {
    /// Builds the hosts, links, addresses and routes, of one IP version only.
    pub fn build(place: Place, family: Family) -> io::Result<Self> {
        let outer = (place == Place::EveryLink).then(|| Ok::<_, io::Error>([Namespace::create("middle1")?, Namespace::create("middle3")?]));
        let mut network = Self {
            sender: Namespace::create("sender")?,
            router1: Namespace::create("router1")?,
            router2: Namespace::create("router2")?,
            receiver: Namespace::create("receiver")?,
            middle: Namespace::create("middle")?,
            outer: outer.transpose()?,
            spares: Vec::new(),
            place,
        };
        for middle in network.outer.iter().flatten().chain([&network.middle]) {
            middle.write_setting("net/ipv6/conf/all/disable_ipv6", "1")?;
            middle.write_setting("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        for router in [&network.router1, &network.router2] {
            forward(router, family)?;
        }
        let Addresses { router1: [left1, right1], router2: [left2, right2], .. } = Addresses::of(family);
        let prefix = prefix(family);
        let Self { sender, router1, router2, receiver, .. } = &network;
        network.join(
            Link::First,
            End { host: sender, interface: SENDER_LINK, addresses: &[(family.sender(), prefix)] },
            End { host: router1, interface: ROUTER1_LEFT_LINK, addresses: &[(left1, prefix)] },
        )?;
        network.join(
            Link::Middle,
            End { host: router1, interface: ROUTER1_RIGHT_LINK, addresses: &[(right1, prefix)] },
            End { host: router2, interface: ROUTER2_LEFT_LINK, addresses: &[(left2, prefix)] },
        )?;
        network.join(
            Link::Last,
            End { host: router2, interface: ROUTER2_RIGHT_LINK, addresses: &[(right2, prefix)] },
            End { host: receiver, interface: RECEIVER_LINK, addresses: &[(family.receiver(), prefix)] },
        )?;
        link::add_default_route(sender, left1)?;
        link::add_default_route(router1, left2)?;
        link::add_default_route(router2, right1)?;
        link::add_default_route(receiver, right2)?;
        for number in 0..place.spares() {
            network.add_spare(family, number)?;
        }
        Ok(network)
    }

    /// Gives the sender another uplink, its second if `number` is 0. Routes to the ends' addresses are
    /// as before; only the router on it has its own, and nobody minds by which link a source address comes in.
    fn add_spare(&mut self, family: Family, number: usize) -> io::Result<()> {
        let none = || io::Error::other("no such uplink");
        let name = |names: [&'static str; 2]| names.get(number).copied().ok_or_else(none);
        let spare = Namespace::create(name(["router3", "router4"])?)?;
        for host in [&self.sender, &spare, &self.receiver] {
            host.write_setting("net/ipv4/conf/all/rp_filter", "0")?;
            host.write_setting("net/ipv4/conf/default/rp_filter", "0")?;
        }
        self.receiver.write_setting(&format!("net/ipv4/conf/{RECEIVER_LINK}/rp_filter"), "0")?;
        forward(&spare, family)?;
        let addresses = Addresses::of(family).beside;
        let Beside { router: [left, right], sender: at_sender, receiver: at_receiver } = *addresses.get(number).ok_or_else(none)?;
        let prefix = prefix(family);
        let Self { sender, receiver, .. } = &*self;
        link::join(
            End { host: sender, interface: name(SENDER_SPARE_LINKS)?, addresses: &[(at_sender, prefix)] },
            End { host: &spare, interface: name(SPARE_LEFT_LINKS)?, addresses: &[(left, prefix)] },
            MTU,
        )?;
        link::join(
            End { host: &spare, interface: name(SPARE_RIGHT_LINKS)?, addresses: &[(right, prefix)] },
            End { host: receiver, interface: name(RECEIVER_SPARE_LINKS)?, addresses: &[(at_receiver, prefix)] },
            MTU,
        )?;
        link::set_route(&spare, (address(family, 20, 0), prefix), at_sender)?;
        link::set_route(&spare, (address(family, 21, 0), prefix), at_receiver)?;
        self.spares.push(spare);
        Ok(())
    }

    /// Joins two hosts, through the middle if somebody sits on this link.
    fn join(&self, link: Link, left: End<'_>, right: End<'_>) -> io::Result<()> {
        let middle = match (self.place, link) {
            (Place::BetweenRouters | Place::BesideSpare | Place::BesideSpares | Place::EveryLink, Link::Middle)
            | (Place::LastLink, Link::Last) => &self.middle,
            (Place::EveryLink, Link::First | Link::Last) => {
                let Some([first, last]) = &self.outer else { return Err(io::Error::other("nobody is in the middle of this link")) };
                if link == Link::First { first } else { last }
            }
            _ => return link::join(left, right, MTU),
        };
        let middle = |interface| End { host: middle, interface, addresses: &[] };
        link::join(left, middle(MIDDLE_LEFT), MTU)?;
        link::join(middle(MIDDLE_RIGHT), right, MTU)?;
        // Whoever carries frames over must get them as they would be on a wire: whole, and none longer than the link allows.
        [left, right].iter().try_for_each(|end| end.host.run(|| sys::finish_packets(end.interface)))
    }
}

/// The links in the order of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    First,
    Middle,
    Last,
}

/// The length of each network's prefix.
pub(super) fn prefix(family: Family) -> u8 {
    if family == Family::Ipv4 { 24 } else { 64 }
}

/// Makes a host a router.
pub(super) fn forward(router: &Namespace, family: Family) -> io::Result<()> {
    match family {
        Family::Ipv4 => router.write_setting("net/ipv4/ip_forward", "1"),
        Family::Ipv6 => router.write_setting("net/ipv6/conf/all/forwarding", "1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::topology::{RECEIVER6, SENDER};

    #[test]
    fn a_network_has_the_same_number_in_both_ip_versions() {
        assert_eq!(address(Family::Ipv4, 20, 1), SENDER);
        assert_eq!(address(Family::Ipv6, 21, 4), RECEIVER6);
    }
}
