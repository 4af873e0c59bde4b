//! A network with relays beside the routed path. Every host believes a source address only by the link that it would answer by
//! (strict reverse path, RFC 3704 §2.2).
//!
//! ```text
//! sender – router0 – router1 – somebody – router2 – receiver
//!             |                                        |
//!             |- relay1 ------------------ router3 ----|
//!             |- relay3 ---------------------'
//!             '- router4 – relay2 -----------'
//! ```
//!
//! router0, the relays, router3 and router4 are on one link, and router2, router3 and the receiver on another.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

use super::graph::{address, forward, prefix};
use super::link::{self, End};
use super::namespace::Namespace;
use super::sys;
use super::topology::{Family, MTU};

/// Interface of the sender's router.
pub const FIRST_LINK: &str = "x0";
/// Interface of the third router towards the relays.
pub const BEHIND_RELAYS: &str = "t0";
/// Interface of the first relay.
pub const NEAR_LINK: &str = "n0";
/// Interface of the second relay towards the fourth router.
pub const FAR_LINK: &str = "f0";
/// Interface of the receiver.
pub const LAST_LINK: &str = "d0";
/// Interface in the middle, towards the first router.
pub const MIDDLE_LEFT: &str = "m0";
/// Interface in the middle, towards the second router.
pub const MIDDLE_RIGHT: &str = "m1";

/// Those on whom a daemon runs.
pub const NODES: [&str; 10] = ["router0", "router1", "router2", "router3", "router4", "relay1", "relay2", "relay3", "receiver", "sender"];

/// The hosts.
#[derive(Debug)]
pub struct Overlay {
    hosts: BTreeMap<&'static str, Namespace>,
    /// The middle of the link between the first two routers. It has no address.
    pub middle: Namespace,
    _links: [Namespace; 2],
}

/// The addresses of a node, those that others know it by first.
pub fn addresses(node: &str, family: Family) -> Vec<IpAddr> {
    let of = |list: &[(u8, u8)]| list.iter().map(|(network, host)| address(family, *network, *host)).collect();
    match node {
        "sender" => vec![family.sender()],
        "router0" => of(&[(20, 254), (22, 1), (25, 254)]),
        "router1" => of(&[(22, 2), (23, 1)]),
        "router2" => of(&[(21, 254), (23, 2)]),
        "router3" => of(&[(25, 253), (21, 253)]),
        "router4" => of(&[(25, 252), (26, 254)]),
        "relay1" => of(&[(25, 11)]),
        "relay2" => of(&[(26, 1), (25, 12)]),
        "relay3" => of(&[(25, 13)]),
        _ => vec![family.receiver()],
    }
}

impl Overlay {
    /// Builds hosts, links, addresses and routes, of one IP version only.
    pub fn build(family: Family) -> io::Result<Self> {
        let hosts = NODES.into_iter().map(|name| Ok((name, Namespace::create(name)?))).collect::<io::Result<_>>()?;
        let links = [Namespace::create("relays-link")?, Namespace::create("receivers-link")?];
        let overlay = Self { hosts, middle: Namespace::create("middle")?, _links: links };
        overlay.middle.write_setting("net/ipv6/conf/all/disable_ipv6", "1")?;
        overlay.middle.write_setting("net/ipv6/conf/default/disable_ipv6", "1")?;
        for host in overlay.hosts.values() {
            // Also of the links that are made later.
            for scope in ["all", "default"] {
                host.write_setting(&format!("net/ipv4/conf/{scope}/rp_filter"), "1")?;
            }
        }
        for router in ["router0", "router1", "router2", "router3", "router4"] {
            forward(overlay.host(router)?, family)?;
        }
        overlay.join(family)?;
        overlay.set_routes(family)?;
        Ok(overlay)
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> io::Result<&Namespace> {
        self.hosts.get(name).ok_or_else(|| io::Error::other(format!("no host is called `{name}`")))
    }

    fn end<'a>(&'a self, host: &str, interface: &'a str, addresses: &'a [(IpAddr, u8)]) -> io::Result<End<'a>> {
        Ok(End { host: self.host(host)?, interface, addresses })
    }

    fn join(&self, family: Family) -> io::Result<()> {
        let at = |network, host| [(address(family, network, host), prefix(family))];
        let (sender, plain, receiver) = (at(20, 1), at(20, 254), at(21, 4));
        link::join(self.end("sender", "s0", &sender)?, self.end("router0", FIRST_LINK, &plain)?, MTU)?;
        link::join(self.end("router0", "x1", &at(22, 1))?, self.end("router1", "p0", &at(22, 2))?, MTU)?;
        let middle = |interface| End { host: &self.middle, interface, addresses: &[] };
        let (left, right) = (at(23, 1), at(23, 2));
        let (left, right) = (self.end("router1", "p1", &left)?, self.end("router2", "q0", &right)?);
        link::join(left, middle(MIDDLE_LEFT), MTU)?;
        link::join(middle(MIDDLE_RIGHT), right, MTU)?;
        // Whoever carries frames over must get them as they would be on a wire: whole, and none longer than the link allows.
        [left, right].iter().try_for_each(|end| end.host.run(|| sys::finish_packets(end.interface)))?;
        link::join(self.end("router4", "u1", &at(26, 254))?, self.end("relay2", FAR_LINK, &at(26, 1))?, MTU)?;
        let [relays, receivers] = &self._links;
        let (x, n, f, g, t, u) = (at(25, 254), at(25, 11), at(25, 12), at(25, 13), at(25, 253), at(25, 252));
        let on_link = [
            self.end("router0", "x2", &x)?,
            self.end("relay1", NEAR_LINK, &n)?,
            self.end("relay2", "f1", &f)?,
            self.end("relay3", "g0", &g)?,
            self.end("router3", BEHIND_RELAYS, &t)?,
            self.end("router4", "u0", &u)?,
        ];
        link::join_all(relays, &on_link, MTU)?;
        let (q, t) = (at(21, 254), at(21, 253));
        link::join_all(
            receivers,
            &[self.end("router2", "q1", &q)?, self.end("router3", "t1", &t)?, self.end("receiver", LAST_LINK, &receiver)?],
            MTU,
        )
    }

    fn set_routes(&self, family: Family) -> io::Result<()> {
        let at = |network, host| address(family, network, host);
        let defaults = [
            ("sender", at(20, 254)),
            ("router1", at(22, 1)),
            ("router2", at(23, 1)),
            ("router3", at(25, 254)),
            ("router4", at(25, 254)),
            ("relay1", at(25, 254)),
            ("relay2", at(26, 254)),
            ("relay3", at(25, 254)),
            ("receiver", at(21, 254)),
        ];
        defaults.into_iter().try_for_each(|(host, gateway)| link::add_default_route(self.host(host)?, gateway))?;
        let routes = [
            ("router0", 21, at(22, 2)),
            ("router0", 26, at(25, 252)),
            ("router1", 21, at(23, 2)),
            ("relay1", 21, at(25, 253)),
            ("relay2", 21, at(25, 253)),
            ("relay3", 21, at(25, 253)),
        ];
        let set = |(host, network, gateway)| link::set_route(self.host(host)?, (at(network, 0), prefix(family)), gateway);
        routes.into_iter().try_for_each(set)
    }
}
