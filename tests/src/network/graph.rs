//! A network with two routers and somebody on one of the links: sender – router1 – router2 – receiver.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::link::{self, End};
use super::namespace::Namespace;
use super::sys;
use super::topology::{MTU, RECEIVER, SENDER};

/// The first router's address on the sender's link.
pub const ROUTER1_LEFT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 20, 254));
/// The first router's address towards the second.
pub const ROUTER1_RIGHT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 22, 1));
/// The second router's address towards the first.
pub const ROUTER2_LEFT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 22, 2));
/// The second router's address on the receiver's link.
pub const ROUTER2_RIGHT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 21, 254));

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
    /// The receiver's link.
    LastLink,
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
    /// The middle of the link at `place`. It has no address.
    pub middle: Namespace,
    /// Which link that is.
    pub place: Place,
}

impl TwoRouters {
    /// Builds the hosts, links, addresses and routes, IPv4 only.
    pub fn build(place: Place) -> io::Result<Self> {
        let network = Self {
            sender: Namespace::create("sender")?,
            router1: Namespace::create("router1")?,
            router2: Namespace::create("router2")?,
            receiver: Namespace::create("receiver")?,
            middle: Namespace::create("middle")?,
            place,
        };
        network.middle.write_setting("net/ipv6/conf/all/disable_ipv6", "1")?;
        network.middle.write_setting("net/ipv6/conf/default/disable_ipv6", "1")?;
        for router in [&network.router1, &network.router2] {
            router.write_setting("net/ipv4/ip_forward", "1")?;
        }
        let Self { sender, router1, router2, receiver, .. } = &network;
        link::join(
            End { host: sender, interface: SENDER_LINK, addresses: &[(SENDER, 24)] },
            End { host: router1, interface: ROUTER1_LEFT_LINK, addresses: &[(ROUTER1_LEFT, 24)] },
            MTU,
        )?;
        network.join(
            Place::BetweenRouters,
            End { host: router1, interface: ROUTER1_RIGHT_LINK, addresses: &[(ROUTER1_RIGHT, 24)] },
            End { host: router2, interface: ROUTER2_LEFT_LINK, addresses: &[(ROUTER2_LEFT, 24)] },
        )?;
        network.join(
            Place::LastLink,
            End { host: router2, interface: ROUTER2_RIGHT_LINK, addresses: &[(ROUTER2_RIGHT, 24)] },
            End { host: receiver, interface: RECEIVER_LINK, addresses: &[(RECEIVER, 24)] },
        )?;
        link::add_default_route(sender, ROUTER1_LEFT)?;
        link::add_default_route(router1, ROUTER2_LEFT)?;
        link::add_default_route(router2, ROUTER1_RIGHT)?;
        link::add_default_route(receiver, ROUTER2_RIGHT)?;
        Ok(network)
    }

    /// Joins two hosts, through the middle if this is its place.
    fn join(&self, place: Place, left: End<'_>, right: End<'_>) -> io::Result<()> {
        if place != self.place {
            return link::join(left, right, MTU);
        }
        let middle = |interface| End { host: &self.middle, interface, addresses: &[] };
        link::join(left, middle(MIDDLE_LEFT), MTU)?;
        link::join(middle(MIDDLE_RIGHT), right, MTU)?;
        // Whoever carries frames over must get them as they would be on a wire: whole, and none longer than the link allows.
        [left, right].iter().try_for_each(|end| end.host.run(|| sys::finish_packets(end.interface)))
    }
}
