//! Exemptions by configuration: services of the node itself, and servers that it cannot do without.

use ipnet::IpNet;

use super::GIST_PORT;
use super::class::Way;
use super::expression::{Expression, destination_port, icmp_types, interface, opens_nothing, protocol, remote, source_port};
use super::plan::{Bucket, Family, Interface};

/// Exemptions that a node may have by configuration.
pub const MOST_EXEMPT: usize = 64;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// TCP, UDP, DCCP, SCTP, UDP-Lite: what begins with source and destination port.
const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];
/// Extension headers of IPv6, which are no protocols to the filter: such a rule would never match.
const EXTENSION_HEADERS: [u8; 7] = [0, 43, 44, 59, 60, 135, 140];
const AUTHENTICATION_HEADER: u8 = 51;
const LONGEST_NAME: usize = 32;
const LONGEST_INTERFACE: usize = 15;

/// Something that passes without permission because the configuration says so.
///
/// On a host it passes in both directions, on a router to the router itself, or through it where the service is [beyond](At::Beyond);
/// each way and interface has a bucket of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exempt {
    /// Its name, by which its counters are found: up to 32 lower case letters, digits, `-` and `_`.
    pub name: String,
    /// IP protocol. ICMP and ICMPv6 stand for echo only: the errors have an exemption of their own, and nothing else is needed.
    pub protocol: u8,
    /// The service's port; every protocol that has ports needs one, no other may have one.
    pub port: Option<u16>,
    /// Where the service is.
    pub at: At,
    /// The other side's addresses; any if left out.
    pub peer: Option<IpNet>,
    /// The only interface on which it passes; any if left out.
    pub interface: Option<String>,
    /// Packets a second, each way on each interface.
    pub bucket: Bucket,
}

/// Where a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// On this node: others open, such as ssh.
    Node,
    /// At the peer: this node opens, such as DNS.
    Peer,
    /// At the peer, beyond this router: others open through it, such as NTP for hosts that have no certificate yet, or signalling
    /// with a router behind a relay. Only a router has such.
    Beyond,
}

/// Why an exemption cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct InvalidExempt {
    /// The field that is at fault.
    pub key: &'static str,
    /// What is wrong with it.
    pub message: String,
}

impl Exempt {
    /// Refuses what would exempt nothing, or more than its author can mean. `association_port` is the node's own.
    pub fn check(&self, association_port: u16) -> Result<(), InvalidExempt> {
        let wrong = |key, message: &str| Err(InvalidExempt { key, message: message.to_owned() });
        let of_a_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
        if !(1..=LONGEST_NAME).contains(&self.name.len()) || !self.name.bytes().all(of_a_name) {
            return wrong("name", "must be 1 to 32 lower case letters, digits, `-` and `_`");
        }
        if self.protocol == AUTHENTICATION_HEADER {
            return wrong("protocol", "AH is what permissions are checked by; it is never exempt");
        }
        if EXTENSION_HEADERS.contains(&self.protocol) {
            return wrong("protocol", "is an extension header of IPv6 and no protocol");
        }
        match (WITH_PORTS.contains(&self.protocol), self.port) {
            (true, None) => return wrong("port", "is missing: without it every service of this protocol would be exempt"),
            (true, Some(0)) => return wrong("port", "must not be 0"),
            (false, Some(_)) => return wrong("port", "this protocol has no ports"),
            _ => {}
        }
        // Through a router, signalling passes between a sender and its neighbour behind a relay.
        if self.at != At::Beyond && (self.protocol, self.port) == (UDP, Some(GIST_PORT)) {
            return wrong("port", "270 is GIST's, which is exempt already and better guarded");
        }
        if self.at != At::Beyond && (self.protocol, self.port) == (TCP, Some(association_port)) {
            return wrong("port", "is that of associations, which are exempt already and better guarded");
        }
        if self.at != At::Node && self.peer.is_none() {
            return wrong("peer", "is missing: a service at a peer needs the peer's addresses");
        }
        if self.at == At::Beyond && self.peer.is_some_and(|peer| peer.prefix_len() == 0) {
            return wrong("peer", "is everybody: nothing would be denied on this port any more");
        }
        match (self.protocol, self.peer) {
            (ICMP, Some(IpNet::V6(_))) => return wrong("peer", "is IPv6, but icmp is IPv4's; use icmpv6"),
            (ICMPV6, Some(IpNet::V4(_))) => return wrong("peer", "is IPv4, but icmpv6 is IPv6's; use icmp"),
            _ => {}
        }
        let of_an_interface = |byte: u8| byte.is_ascii_graphic() && !b"/:".contains(&byte);
        if let Some(name) = &self.interface {
            if !(1..=LONGEST_INTERFACE).contains(&name.len()) || !name.bytes().all(of_an_interface) {
                return wrong("interface", "is no name of an interface: up to 15 characters without spaces, `/` and `:`");
            }
            if name == "lo" {
                return wrong("interface", "traffic of the node with itself needs no exemption");
            }
        }
        if self.bucket.rate == 0 || self.bucket.burst == 0 {
            return wrong(if self.bucket.rate == 0 { "rate" } else { "burst" }, "0 lets nothing pass; leave the entry out");
        }
        Ok(())
    }

    /// Which packets it is, in one direction; `None` if there are none in this family.
    pub(super) fn test(&self, way: Way, family: Family) -> Option<Vec<Expression>> {
        match (self.protocol, family) {
            (ICMP, Family::Ipv6) | (ICMPV6, Family::Ipv4) => return None,
            _ => {}
        }
        let mut test = protocol(self.protocol);
        if let Some(peer) = self.peer {
            test.extend(remote(family, way.interface(), peer)?);
        }
        if let Some(name) = &self.interface {
            test.extend(interface(way.interface(), name));
        }
        // Towards the service, or from it.
        let asks = matches!((self.at, way), (At::Node, Way::In) | (At::Peer, Way::Out));
        test.extend(self.service(asks));
        Some(test)
    }

    /// Which forwarded packets it is: those to a service beyond this router if it `asks`, else those from it. The interface is that
    /// of whoever opens.
    pub(super) fn forwarded(&self, asks: bool, family: Family) -> Option<Vec<Expression>> {
        let test = self.forwarded_before_routing(asks, family)?;
        let leaving = self.interface.iter().filter(|_| !asks).flat_map(|name| interface(Interface::Leaving, name));
        Some(test.into_iter().chain(leaving).collect())
    }

    /// The same as far as it can be told before it is known by which interface a packet leaves.
    pub(super) fn forwarded_before_routing(&self, asks: bool, family: Family) -> Option<Vec<Expression>> {
        if self.at != At::Beyond || matches!((self.protocol, family), (ICMP, Family::Ipv6) | (ICMPV6, Family::Ipv4)) {
            return None;
        }
        let of_service = if asks { Interface::Leaving } else { Interface::Arriving };
        let mut test = protocol(self.protocol);
        test.extend(remote(family, of_service, self.peer?)?);
        test.extend(self.interface.iter().filter(|_| asks).flat_map(|name| interface(Interface::Arriving, name)));
        test.extend(self.service(asks));
        Some(test)
    }

    /// Tests for the service's port.
    fn service(&self, asks: bool) -> Vec<Expression> {
        let mut test = Vec::new();
        match (self.protocol, self.port) {
            (ICMP, _) => test.extend(echo(asks, 8, 0)),
            (ICMPV6, _) => test.extend(echo(asks, 128, 129)),
            (_, Some(port)) if asks => test.extend(destination_port(port)),
            (_, Some(port)) => test.extend(source_port(port)),
            (_, None) => {}
        }
        // Whoever uses the service's port as its source could otherwise connect to anything.
        if self.protocol == TCP && !asks {
            test.extend(opens_nothing());
        }
        test
    }
}

fn echo(asks: bool, request: u8, reply: u8) -> Vec<Expression> {
    let kind = if asks { request } else { reply };
    icmp_types(kind, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASSOCIATION_PORT: u16 = 30_270;

    fn ssh() -> Exempt {
        Exempt {
            name: "ssh".to_owned(),
            protocol: TCP,
            port: Some(22),
            at: At::Node,
            peer: None,
            interface: None,
            bucket: Bucket::new(100, 100),
        }
    }

    fn dns() -> Exempt {
        Exempt { protocol: UDP, port: Some(53), at: At::Peer, peer: Some("192.0.2.53/32".parse().unwrap()), ..ssh() }
    }

    /// nothing beyond what the operator has named.
    #[test]
    fn what_would_exempt_nothing_or_too_much_is_refused_by_its_key() {
        let named = |name: &str| Exempt { name: name.to_owned(), ..ssh() };
        let on = |name: &str| Exempt { interface: Some(name.to_owned()), ..ssh() };
        let of = |protocol| Exempt { protocol, port: None, ..ssh() };
        let cases = [
            ("name", vec![named(""), named("SSH"), named("a b"), named("a\"b"), named(&"x".repeat(33))]),
            ("protocol", [51, 0, 43, 44, 59, 60, 135, 140].map(of).to_vec()),
            ("port", [6, 17, 33, 132, 136].map(of).to_vec()),
            ("port", [1, 58, 89].map(|protocol| Exempt { protocol, ..ssh() }).to_vec()),
            ("port", vec![Exempt { port: Some(0), ..ssh() }, Exempt { port: Some(270), ..dns() }]),
            ("port", vec![Exempt { port: Some(ASSOCIATION_PORT), ..ssh() }]),
            ("peer", vec![Exempt { peer: None, ..dns() }, Exempt { peer: None, at: At::Beyond, ..dns() }]),
            ("peer", vec![Exempt { peer: Some("::/0".parse().unwrap()), at: At::Beyond, ..dns() }]),
            ("peer", vec![Exempt { peer: Some("::/0".parse().unwrap()), ..of(ICMP) }, Exempt { peer: dns().peer, ..of(ICMPV6) }]),
            ("interface", vec![on(""), on("lo"), on("a b"), on("a/b"), on("sixteen-letters-")]),
            ("rate", vec![Exempt { bucket: Bucket { rate: 0, burst: 1 }, ..ssh() }]),
            ("burst", vec![Exempt { bucket: Bucket { rate: 1, burst: 0 }, ..ssh() }]),
        ];
        for (key, wrong) in cases {
            for exempt in wrong {
                assert_eq!(exempt.check(ASSOCIATION_PORT).map_err(|invalid| invalid.key), Err(key), "{exempt:?}");
            }
        }
        let beyond = |protocol, port| Exempt { protocol, port: Some(port), at: At::Beyond, ..dns() };
        for right in [beyond(UDP, GIST_PORT), beyond(TCP, ASSOCIATION_PORT)] {
            assert_eq!(right.check(ASSOCIATION_PORT), Ok(()), "{right:?}");
        }
        for right in [ssh(), dns(), of(ICMP), of(ICMPV6), of(89), on("eth0.100"), Exempt { port: Some(ASSOCIATION_PORT), ..dns() }] {
            assert_eq!(right.check(ASSOCIATION_PORT), Ok(()), "{right:?}");
        }
    }

    #[test]
    fn an_exemption_lies_only_in_the_families_that_it_can_concern() {
        let families =
            |exempt: &Exempt| [Family::Ipv4, Family::Ipv6].map(|family| [Way::In, Way::Out].map(|way| exempt.test(way, family).is_some()));
        assert_eq!(families(&ssh()), [[true; 2]; 2]);
        assert_eq!(families(&dns()), [[true; 2], [false; 2]]);
        assert_eq!(families(&Exempt { protocol: ICMPV6, port: None, ..ssh() }), [[false; 2], [true; 2]]);
    }
}
