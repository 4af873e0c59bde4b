//! Entries `[[exempt]]` of a configuration file: what passes without permission besides signalling and what links need.

use ipnet::IpNet;
use serde::Deserialize;
use traffic::rules::{self, Bucket, MOST_EXEMPT, Role};

use crate::config::check_network;
use crate::protocol::Protocol;
use crate::source::{ConfigError, Source};

/// One entry `[[exempt]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exempt {
    /// Its name in the packet filter's counters, where no other entry has it.
    pub name: String,
    /// Its protocol; `icmp` and `icmpv6` stand for echo.
    pub protocol: Protocol,
    /// The service's port, for protocols that have ports.
    pub port: Option<u16>,
    /// Where the service is.
    pub at: At,
    /// The other side's addresses; any if left out, which only a service of this node may.
    pub peer: Option<IpNet>,
    /// The only interface on which it passes; any if left out.
    pub interface: Option<String>,
    /// Packets a second, each way on each interface, at least 1.
    pub rate: u32,
    /// Packets beyond the rate that may come at once, at least 1.
    pub burst: u32,
}

/// Where a service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum At {
    /// On this node.
    #[serde(rename = "self")]
    Node,
    /// At the peer.
    Peer,
    /// At the peer, beyond this router.
    Beyond,
}

impl Exempt {
    fn rule(&self) -> rules::Exempt {
        rules::Exempt {
            name: self.name.clone(),
            protocol: self.protocol.0,
            port: self.port,
            at: match self.at {
                At::Node => rules::At::Node,
                At::Peer => rules::At::Peer,
                At::Beyond => rules::At::Beyond,
            },
            peer: self.peer,
            interface: self.interface.clone(),
            // Not `Bucket::new`, which would take 0 for 1 instead of having it refused.
            bucket: Bucket { rate: self.rate, burst: self.burst },
        }
    }
}

/// The entries as the packet filter takes them.
pub fn rules(entries: &[Exempt]) -> Vec<rules::Exempt> {
    entries.iter().map(Exempt::rule).collect()
}

/// Refuses entries that cannot be used by a node of this role, and more than [`MOST_EXEMPT`] of them.
pub fn check(entries: &[Exempt], role: Role, association_port: u16, config: &Source) -> Result<(), ConfigError> {
    for (place, entry) in entries.iter().enumerate() {
        let wrong = |key: &str, message: String| Err(config.wrong(&format!("exempt.{place}.{key}"), message));
        if place >= MOST_EXEMPT {
            return wrong("name", format!("is one too many: there may be {MOST_EXEMPT} entries"));
        }
        if role == Role::Host && entry.at == At::Beyond {
            return wrong("at", "`beyond` is for routers: a host forwards nothing".to_owned());
        }
        if let Err(invalid) = entry.rule().check(association_port) {
            return wrong(invalid.key, invalid.message);
        }
        if let Some(peer) = &entry.peer {
            check_network(&format!("exempt.{place}.peer"), peer, config)?;
        }
        if entries.iter().take(place).any(|earlier| earlier.name == entry.name) {
            return wrong("name", format!("`{}` is the name of another entry too", entry.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        exempt: Vec<Exempt>,
    }

    const SSH: &str = "name = \"ssh\"\nprotocol = \"tcp\"\nport = 22\nat = \"self\"\nrate = 100\nburst = 200\n";

    fn read(text: &str) -> Result<Vec<Exempt>, ConfigError> {
        let source = Source::new(Path::new("x.toml"), text);
        let file: File = source.parse()?;
        check(&file.exempt, Role::Host, 30_270, &source)?;
        Ok(file.exempt)
    }

    fn complaint(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn an_entry_becomes_a_rule() {
        let text = format!("[[exempt]]\n{SSH}peer = \"192.0.2.0/28\"\ninterface = \"eth0\"\n");
        let expected = rules::Exempt {
            name: "ssh".to_owned(),
            protocol: 6,
            port: Some(22),
            at: rules::At::Node,
            peer: Some("192.0.2.0/28".parse().unwrap()),
            interface: Some("eth0".to_owned()),
            bucket: Bucket::new(100, 200),
        };
        assert_eq!(super::rules(&read(&text).unwrap()), [expected]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_line_and_key() {
        let cases = [
            ("prot = 22\n", "x.toml:8: unknown field `prot`"),
            ("at = \"self\"\n", "x.toml:8: duplicate key"),
            ("interface = \"lo\"\n", "x.toml:8: exempt.interface: traffic of the node with itself"),
        ];
        for (line, expected) in cases {
            let error = complaint(&format!("[[exempt]]\n{SSH}{line}"));
            assert!(error.starts_with(expected), "{error} instead of {expected}");
        }
        let cases = [
            (("port = 22", "port = 30270"), "x.toml:4: exempt.port: is that of associations"),
            (("port = 22\n", ""), "x.toml:1: exempt.port: is missing"),
            (("port = 22", "port = 65536"), "x.toml:4: invalid value: integer `65536`, expected u16"),
            (("\"self\"", "\"peer\""), "x.toml:1: exempt.peer: is missing"),
            (("\"self\"", "\"beyond\""), "x.toml:5: exempt.at: `beyond` is for routers: a host forwards nothing"),
            (("\"self\"", "\"here\""), "x.toml:5: unknown variant `here`, expected one of `self`, `peer`, `beyond`"),
            (("\"tcp\"", "\"ah\""), "x.toml:3: `ah` is neither a known protocol"),
            (("\"tcp\"", "51"), "x.toml:3: exempt.protocol: AH is what permissions are checked by"),
            (("rate = 100\n", ""), "x.toml:1: missing field `rate`"),
            (("rate = 100", "rate = 0"), "x.toml:6: exempt.rate: 0 lets nothing pass"),
            (("burst = 200", "burst = 0"), "x.toml:7: exempt.burst: 0 lets nothing pass"),
        ];
        for ((right, wrong), expected) in cases {
            let error = complaint(&format!("[[exempt]]\n{}", SSH.replacen(right, wrong, 1)));
            assert!(error.starts_with(expected), "{error} instead of {expected}");
        }
    }

    #[test]
    fn names_are_given_once_and_entries_are_few() {
        let twice = complaint(&format!("[[exempt]]\n{SSH}[[exempt]]\n{SSH}"));
        assert!(twice.starts_with("x.toml:9: exempt.name: `ssh` is the name of another entry too"), "{twice}");
        let many = |count: usize| {
            (0..count).map(|place| format!("[[exempt]]\n{}", SSH.replacen("ssh", &format!("ssh{place}"), 1))).collect::<String>()
        };
        assert_eq!(read(&many(MOST_EXEMPT)).unwrap().len(), MOST_EXEMPT);
        assert!(complaint(&many(MOST_EXEMPT + 1)).contains(": exempt.name: is one too many: there may be 64 entries"));
    }
}
