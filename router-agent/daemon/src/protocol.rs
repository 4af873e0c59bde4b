//! IP protocols by the names that people know them by, on the command line and in configuration files alike.

use std::fmt;
use std::str::FromStr;

use pbs_nslp::flow::has_ports;
use serde::Deserialize;

/// An IP protocol by name or number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Protocol(pub u8);

/// Names by number; of several names of one number the first is the one that is shown.
const NAMES: [(u8, &str); 15] = [
    (1, "icmp"),
    (2, "igmp"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (47, "gre"),
    (50, "esp"),
    (58, "icmpv6"),
    (58, "icmp6"),
    (58, "ipv6-icmp"),
    (89, "ospf"),
    (103, "pim"),
    (115, "l2tp"),
    (132, "sctp"),
    (136, "udplite"),
];

impl Protocol {
    /// Whether its packets begin with ports.
    pub fn has_ports(self) -> bool {
        has_ports(self.0)
    }
}

/// The name, or the number of one that has no name here.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(number, _)| *number == self.0) {
            Some((_, name)) => f.write_str(name),
            None => self.0.fmt(f),
        }
    }
}

/// A text that names no protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a known protocol (icmp, tcp, udp, sctp, icmpv6 …) nor a number up to 255")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        let named = NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text)).map(|(number, _)| *number);
        named.or_else(|| text.parse().ok()).map(Protocol).ok_or_else(|| UnknownProtocol(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Protocol {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NameOrNumber)
    }
}

/// Reads `"udp"`, `"17"` and `17` alike.
struct NameOrNumber;

impl serde::de::Visitor<'_> for NameOrNumber {
    type Value = Protocol;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a protocol by name or number")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Protocol, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Protocol, E> {
        u8::try_from(number).map(Protocol).map_err(|_| E::custom(UnknownProtocol(number.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_known_by_name_and_by_number() {
        let read = |text: &str| Protocol::deserialize(toml::Value::String(text.to_owned())).map_err(|error| error.to_string());
        assert_eq!(read("udp"), Ok(Protocol(17)));
        assert_eq!(read("UDP"), Ok(Protocol(17)));
        assert_eq!(read("132"), read("sctp"));
        assert!(["icmpv6", "icmp6", "ipv6-icmp", "58"].into_iter().all(|text| read(text) == Ok(Protocol(58))));
        let read_number = |number| Protocol::deserialize(toml::Value::Integer(number)).map_err(|error| error.to_string());
        assert_eq!(read_number(132), read("sctp"));
        assert!([-1, 256].into_iter().all(|number| read_number(number).unwrap_err().contains("nor a number up to 255")));
        assert!(read("256").unwrap_err().starts_with("`256` is neither a known protocol"));
        assert!(read("").is_err());
    }

    #[test]
    fn a_protocol_is_shown_by_its_name_if_it_has_one() {
        let shown: Vec<String> = [1, 58, 17, 200].map(Protocol).iter().map(Protocol::to_string).collect();
        assert_eq!(shown, ["icmp", "icmpv6", "udp", "200"]);
        assert!(NAMES.iter().all(|(number, name)| name.parse() == Ok(Protocol(*number))));
    }
}
