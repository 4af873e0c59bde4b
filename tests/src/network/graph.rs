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
    /// The third router's, on the sender's second uplink and towards the receiver.
    pub spare: [IpAddr; 2],
    /// The sender's on its second uplink.
    pub sender_spare: IpAddr,
    /// The receiver's on its second link.
    pub receiver_spare: IpAddr,
}

impl Addresses {
    /// Those of an IP version.
    pub const fn of(family: Family) -> Self {
        Self {
            router1: [address(family, 20, 254), address(family, 22, 1)],
            router2: [address(family, 22, 2), address(family, 21, 254)],
            spare: [address(family, 23, 254), address(family, 24, 254)],
            sender_spare: address(family, 23, 1),
            receiver_spare: address(family, 24, 4),
        }
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
/// Interface of the sender's second uplink.
pub const SENDER_SPARE_LINK: &str = "s1";
/// Interface of the third router towards the sender.
pub const SPARE_LEFT_LINK: &str = "t0";
/// Interface of the third router towards the receiver.
pub const SPARE_RIGHT_LINK: &str = "t1";
/// Interface of the receiver towards the third router.
pub const RECEIVER_SPARE_LINK: &str = "d1";
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
    /// The receiver's link.
    LastLink,
    /// Each of the three links.
    EveryLink,
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
    /// A third router between the same ends, which no route leads over.
    pub spare: Option<Namespace>,
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
            spare: None,
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
        if place == Place::BesideSpare {
            network.add_spare(family)?;
        }
        Ok(network)
    }

    /// Gives the sender its second uplink. Routes to the ends' addresses are
    /// as before; only the third router has its own, and nobody minds by which link a source address comes in.
    fn add_spare(&mut self, family: Family) -> io::Result<()> {
        let spare = Namespace::create("router3")?;
        for host in [&self.sender, &spare, &self.receiver] {
            host.write_setting("net/ipv4/conf/all/rp_filter", "0")?;
            host.write_setting("net/ipv4/conf/default/rp_filter", "0")?;
        }
        self.receiver.write_setting(&format!("net/ipv4/conf/{RECEIVER_LINK}/rp_filter"), "0")?;
        forward(&spare, family)?;
        let Addresses { spare: [left, right], sender_spare, receiver_spare, .. } = Addresses::of(family);
        let prefix = prefix(family);
        let Self { sender, receiver, .. } = &*self;
        link::join(
            End { host: sender, interface: SENDER_SPARE_LINK, addresses: &[(sender_spare, prefix)] },
            End { host: &spare, interface: SPARE_LEFT_LINK, addresses: &[(left, prefix)] },
            MTU,
        )?;
        link::join(
            End { host: &spare, interface: SPARE_RIGHT_LINK, addresses: &[(right, prefix)] },
            End { host: receiver, interface: RECEIVER_SPARE_LINK, addresses: &[(receiver_spare, prefix)] },
            MTU,
        )?;
        link::set_route(&spare, (address(family, 20, 0), prefix), sender_spare)?;
        link::set_route(&spare, (address(family, 21, 0), prefix), receiver_spare)?;
        self.spare = Some(spare);
        Ok(())
    }

    /// Joins two hosts, through the middle if somebody sits on this link.
    fn join(&self, link: Link, left: End<'_>, right: End<'_>) -> io::Result<()> {
        let middle = match (self.place, link) {
            (Place::BetweenRouters | Place::BesideSpare | Place::EveryLink, Link::Middle) | (Place::LastLink, Link::Last) => &self.middle,
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
