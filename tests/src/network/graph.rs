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

/// The sender's address on its second uplink.
pub const SENDER_SPARE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 23, 1));
/// The third router's address on the sender's second uplink.
pub const SPARE_LEFT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 23, 254));
/// The third router's address towards the receiver.
pub const SPARE_RIGHT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 24, 254));
/// The receiver's address on its second link.
pub const RECEIVER_SPARE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 24, 4));

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
    /// The middle of the link at `place`. It has no address.
    pub middle: Namespace,
    /// Which link that is.
    pub place: Place,
}

impl TwoRouters {
    /// Builds the hosts, links, addresses and routes, IPv4 only.
    pub fn build(place: Place) -> io::Result<Self> {
        let mut network = Self {
            sender: Namespace::create("sender")?,
            router1: Namespace::create("router1")?,
            router2: Namespace::create("router2")?,
            receiver: Namespace::create("receiver")?,
            middle: Namespace::create("middle")?,
            spare: None,
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
        if place == Place::BesideSpare {
            network.add_spare()?;
        }
        Ok(network)
    }

    /// Gives the sender its second uplink. Routes to the ends' addresses are
    /// as before; only the third router has its own, and nobody minds by which link a source address comes in.
    fn add_spare(&mut self) -> io::Result<()> {
        let spare = Namespace::create("router3")?;
        for host in [&self.sender, &spare, &self.receiver] {
            host.write_setting("net/ipv4/conf/all/rp_filter", "0")?;
            host.write_setting("net/ipv4/conf/default/rp_filter", "0")?;
        }
        self.receiver.write_setting(&format!("net/ipv4/conf/{RECEIVER_LINK}/rp_filter"), "0")?;
        spare.write_setting("net/ipv4/ip_forward", "1")?;
        let Self { sender, receiver, .. } = &*self;
        link::join(
            End { host: sender, interface: SENDER_SPARE_LINK, addresses: &[(SENDER_SPARE, 24)] },
            End { host: &spare, interface: SPARE_LEFT_LINK, addresses: &[(SPARE_LEFT, 24)] },
            MTU,
        )?;
        link::join(
            End { host: &spare, interface: SPARE_RIGHT_LINK, addresses: &[(SPARE_RIGHT, 24)] },
            End { host: receiver, interface: RECEIVER_SPARE_LINK, addresses: &[(RECEIVER_SPARE, 24)] },
            MTU,
        )?;
        link::set_route(&spare, (Ipv4Addr::new(192, 168, 20, 0), 24), SENDER_SPARE)?;
        link::set_route(&spare, (Ipv4Addr::new(192, 168, 21, 0), 24), RECEIVER_SPARE)?;
        self.spare = Some(spare);
        Ok(())
    }

    /// Joins two hosts, through the middle if this is its place.
    fn join(&self, place: Place, left: End<'_>, right: End<'_>) -> io::Result<()> {
        let beside = self.place == Place::BesideSpare && place == Place::BetweenRouters;
        if place != self.place && !beside {
            return link::join(left, right, MTU);
        }
        let middle = |interface| End { host: &self.middle, interface, addresses: &[] };
        link::join(left, middle(MIDDLE_LEFT), MTU)?;
        link::join(middle(MIDDLE_RIGHT), right, MTU)?;
        // Whoever carries frames over must get them as they would be on a wire: whole, and none longer than the link allows.
        [left, right].iter().try_for_each(|end| end.host.run(|| sys::finish_packets(end.interface)))
    }
}
