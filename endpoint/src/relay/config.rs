//! Section `[relay]` of the configuration.

use std::time::Duration;

use daemon::config::{Span, check_network};
use daemon::protocol::Protocol;
use daemon::source::{ConfigError, Source};
use ipnet::IpNet;
use serde::Deserialize;
use traffic::relay::is_one_node;
use traffic::rules::RELAYED_MARK;
use traffic::tunnel::{IPV4_INSIDE, IPV6_INSIDE};

use crate::config::{Config, Grant, check_grant, default_refresh, default_ttl};

/// This host as a relay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Section {
    /// Where senders may send to through this host.
    pub forward_to: Vec<IpNet>,
    /// Packets a second that one sender may have sent on.
    #[serde(default = "default_rate")]
    pub rate: u32,
    /// Who may send through this host, and how much; the first that matches decides.
    #[serde(default)]
    pub admit: Vec<Admit>,
}

/// One entry `[[relay.admit]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Admit {
    /// Who asks.
    pub source: IpNet,
    /// As in `[[grant]]`; headers of the tunnel count.
    pub volume: u64,
    /// As in `[[grant]]`.
    pub limit: Option<u64>,
    /// As in `[[grant]]`.
    #[serde(default = "default_ttl")]
    pub ttl: Span,
    /// As in `[[grant]]`.
    #[serde(default = "default_refresh")]
    pub refresh: Span,
    /// As in `[[grant]]`.
    #[serde(default)]
    pub signed: bool,
}

fn default_rate() -> u32 {
    10_000
}

impl Admit {
    /// The same as a grant for packets in packets of the sender's own IP version.
    pub(crate) fn grant(&self) -> Grant {
        let protocol = if self.source.addr().is_ipv4() { IPV4_INSIDE } else { IPV6_INSIDE };
        Grant {
            source: self.source,
            protocol: Some(Protocol(protocol)),
            destination_ports: daemon::config::Ports::ANY,
            volume: self.volume,
            limit: self.limit,
            ttl: self.ttl,
            refresh: self.refresh,
            signed: self.signed,
            mac: None,
        }
    }
}

/// The longest grace that leaves an answer within the time after which a sender whose flows are on the way gives the relay up.
const LONGEST_GRACE: Duration = Duration::from_secs(1);

/// Names a key that cannot be used, with its line.
pub(crate) fn check(config: &Config, source: &Source) -> Result<(), ConfigError> {
    let Some(relay) = &config.relay else { return Ok(()) };
    if config.datapath.mark & RELAYED_MARK != 0 {
        return Err(source.wrong("datapath.mark", "is a bit of the mark of what a relay sends on (0x50420004)"));
    }
    if config.datapath.path_mark & RELAYED_MARK != 0 {
        return Err(source.wrong("datapath.path_mark", "has bits of the mark of what a relay sends on (0x50420004)"));
    }
    if config.reactions.grace.0 > LONGEST_GRACE {
        let message = "must be at most 1s beside [relay]: a sender on the way over it takes it for dead after 3 s without an answer";
        return Err(source.wrong("reactions.grace", message));
    }
    if relay.rate == 0 {
        return Err(source.wrong("relay.rate", "0 forwards nothing"));
    }
    if relay.forward_to.is_empty() {
        return Err(source.wrong("relay.forward_to", "is empty: nothing would be forwarded"));
    }
    for network in &relay.forward_to {
        check_network("relay.forward_to", network, source)?;
        if is_of_many(network) {
            return Err(source.wrong("relay.forward_to", format!("nothing is forwarded to {network}: no single other node is there")));
        }
    }
    if relay.admit.is_empty() {
        return Err(source.wrong("relay.admit", "is missing: nobody would be admitted"));
    }
    for (place, admit) in relay.admit.iter().enumerate() {
        let at = |key: &str| format!("relay.admit.{place}.{key}");
        check_grant(&admit.grant()).map_err(|(key, message)| source.wrong(&at(key), message))?;
        check_network(&at("source"), &admit.source, source)?;
        let is_ipv4 = admit.source.addr().is_ipv4();
        if !relay.forward_to.iter().any(|network| network.addr().is_ipv4() == is_ipv4) {
            return Err(source.wrong(&at("source"), "nothing in relay.forward_to is of its IP version"));
        }
    }
    for (place, grant) in config.grant.iter().enumerate() {
        let at = format!("grant.{place}.protocol");
        match grant.protocol {
            None => {
                let message = "must be there beside [relay]: every protocol would include packets in packets, which [[relay.admit]] grants";
                return Err(source.wrong(&at, message));
            }
            Some(Protocol(IPV4_INSIDE | IPV6_INSIDE)) => {
                return Err(source.wrong(&at, "is that of packets in packets: beside [relay] they are granted by [[relay.admit]]"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Whether a network lies where nothing is ever forwarded to. A larger one than any of those has others in it.
fn is_of_many(network: &IpNet) -> bool {
    network.prefix_len() >= LARGEST && ![network.network(), network.broadcast()].into_iter().any(is_one_node)
}

/// Prefix of the largest network of addresses that are of no single node: multicast in IPv4 (RFC 1112 §4).
const LARGEST: u8 = 4;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    const SAMPLE: &str = include_str!("../../pbs.toml");
    const LEAST: &str =
        "role = \"host\"\nname = \"h\"\n[identity]\ncertificate = \"h.crt\"\nkey = \"keys/h.key\"\ntrust_anchors = \"/ca.crt\"\n";
    const ADMIT: &str = "[[relay.admit]]\nsource = \"198.51.100.0/24\"\nvolume = 1000\n";

    fn read(text: &str) -> Result<Config, ConfigError> {
        parse(&Source::new(Path::new("/etc/pbs/h.toml"), text))
    }

    #[test]
    fn nobody_is_a_relay_who_is_not_told_to_be_one() {
        assert!(read(LEAST).unwrap().relay.is_none() && read(SAMPLE).unwrap().relay.is_none());
    }

    #[test]
    fn the_samples_relay_holds_once_it_is_no_comment_and_shows_the_defaults() {
        let mut inside = false;
        let lines = SAMPLE.lines().map(|line| {
            inside |= line == "# [relay]";
            if inside { line.trim_start_matches("# ").trim_start_matches('#') } else { line }
        });
        let relay = read(&lines.collect::<Vec<_>>().join("\n")).unwrap().relay.unwrap();
        let least =
            read(&format!("{LEAST}[relay]\nforward_to = [\"192.0.2.0/24\", \"198.51.100.254/32\"]\n{ADMIT}")).unwrap().relay.unwrap();
        assert_eq!((relay.rate, &relay.forward_to), (least.rate, &least.forward_to));
        let (shown, default) = (&relay.admit[0], &least.admit[0]);
        assert_eq!((shown.source, shown.ttl, shown.refresh, shown.signed), (default.source, default.ttl, default.refresh, default.signed));
        assert_eq!((shown.limit, default.limit), (Some(shown.volume), None));
    }

    #[test]
    fn a_network_in_which_only_some_addresses_are_of_no_node_can_be_forwarded_to() {
        for network in ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "0.0.0.0/4", "::/0", "2000::/3", "2001::/23"] {
            assert!(!is_of_many(&network.parse().unwrap()), "{network}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_line_and_key() {
        let relay = |keys: &str| format!("[relay]\n{keys}\n");
        let good = relay("forward_to = [\"192.0.2.0/24\"]");
        let grant = |rest: &str| format!("[[grant]]\nsource = \"192.0.2.0/24\"\nvolume = 1\n{rest}{good}{ADMIT}");
        let cases = [
            (relay(""), "7: missing field `forward_to`"),
            (relay("forward_to = []") + ADMIT, "8: relay.forward_to: is empty"),
            (relay("forward_to = [\"192.0.2.1/24\"]") + ADMIT, "8: relay.forward_to: 192.0.2.1/24 has bits set behind its prefix"),
            (relay("forward_to = [\"224.0.0.0/8\"]") + ADMIT, "8: relay.forward_to: nothing is forwarded to 224.0.0.0/8"),
            (relay("forward_to = [\"ff00::/8\"]") + ADMIT, "8: relay.forward_to: nothing is forwarded to ff00::/8"),
            (relay("forward_to = [\"fe80::/10\"]") + ADMIT, "8: relay.forward_to: nothing is forwarded to fe80::/10"),
            (relay("forward_to = [\"240.0.0.0/4\"]") + ADMIT, "8: relay.forward_to: nothing is forwarded to 240.0.0.0/4"),
            (relay("forward_to = [\"0.0.0.0/8\"]") + ADMIT, "8: relay.forward_to: nothing is forwarded to 0.0.0.0/8"),
            (relay("forward_to = [\"64:ff9b::/96\"]") + ADMIT, "8: relay.forward_to: nothing is forwarded to 64:ff9b::/96"),
            (relay("forward_to = [\"2002::/16\"]") + ADMIT, "8: relay.forward_to: nothing is forwarded to 2002::/16"),
            (relay("forward_to = [\"127.0.0.1/32\"]") + ADMIT, "8: relay.forward_to: nothing is forwarded to 127.0.0.1/32"),
            (relay("forward_to = [\"192.0.2.0/24\"]\nrate = 0") + ADMIT, "9: relay.rate: 0 forwards nothing"),
            (
                relay("forward_to = [\"192.0.2.0/24\"]") + ADMIT + "[reactions]\ngrace = \"1001ms\"\n",
                ": reactions.grace: must be at most 1s beside [relay]: a sender on the way over it",
            ),
            (good.clone(), "relay.admit: is missing: nobody would be admitted"),
            (relay("forward_to = [\"2001:db8::/32\"]") + ADMIT, "10: relay.admit.source: nothing in relay.forward_to is of its IP version"),
            (format!("{good}{ADMIT}limit = 1\n"), "12: relay.admit.limit: is less than the volume"),
            (format!("{good}{ADMIT}protocol = 4\n"), "12: unknown field `protocol`"),
            (format!("{good}{}", ADMIT.replace(".0/24", ".1/24")), "10: relay.admit.source: 198.51.100.1/24 has bits set"),
            (grant(""), "grant.protocol: must be there beside [relay]"),
            (grant("protocol = 4\n"), "10: grant.protocol: is that of packets in packets"),
            (grant("protocol = 41\n"), "10: grant.protocol: is that of packets in packets"),
            (format!("[datapath]\nmark = 4\n{good}{ADMIT}"), "8: datapath.mark: is a bit of the mark of what a relay sends on"),
            (format!("[datapath]\npath_mark = 12\n{good}{ADMIT}"), "8: datapath.path_mark: has bits of the mark of what a relay"),
        ];
        for (rest, expected) in cases {
            let complaint = read(&format!("{LEAST}{rest}")).unwrap_err().to_string();
            assert!(complaint.contains(expected), "{rest}: {complaint}");
        }
    }

    #[test]
    fn who_is_admitted_is_granted_packets_in_packets_of_the_own_ip_version_and_nothing_else() {
        let admit = |source: &str| Admit {
            source: source.parse().unwrap(),
            volume: 5,
            limit: Some(9),
            ttl: default_ttl(),
            refresh: default_refresh(),
            signed: true,
        };
        for (source, protocol) in [("192.0.2.0/24", 4), ("2001:db8::/32", 41)] {
            let grant = admit(source).grant();
            assert_eq!((grant.protocol, grant.volume, grant.limit, grant.signed), (Some(Protocol(protocol)), 5, Some(9), true));
        }
    }
}
