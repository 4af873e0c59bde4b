//! The parts of a configuration file that both daemons have.
//!
//! Every key is known or refused, and an error names file, line and key. Relative paths are taken from the directory of the
//! configuration file.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use traffic::rules;

use crate::control::role_name;
use crate::protocol::Protocol;
use crate::source::{ConfigError, Source};

/// Refuses the file of the other daemon, before its keys are called unknown. `program` is the daemon that reads it.
pub fn check_role(config: &Source, own: rules::Role, program: &str) -> Result<(), ConfigError> {
    let (name, other) = match own {
        rules::Role::Router => (role_name(own), "host"),
        rules::Role::Host => (role_name(own), "router"),
    };
    match config.text_at("role").as_deref() {
        Some(found) if found == other => {
            let others = if other == "host" { "pbs" } else { "pbs-router" };
            Err(config
                .wrong("role", format!("is \"{other}\", but this is `{program}`, the daemon of a {name}: run the file with `{others}`")))
        }
        // What else it may be, reading the values finds out.
        _ => Ok(()),
    }
}

/// Refuses a file that does not say for which daemon it is.
pub fn require_role(role: Option<Role>, config: &Source, own: rules::Role) -> Result<(), ConfigError> {
    let name = role_name(own);
    role.map(drop).ok_or_else(|| {
        config.wrong("role", format!("is missing: say role = \"{name}\", so that no other daemon takes the file for its own"))
    })
}

/// Refuses a prefix whose author may have meant a network or a host: bits set behind its length.
pub fn check_network(key: &str, network: &IpNet, config: &Source) -> Result<(), ConfigError> {
    let whole = network.trunc();
    if *network == whole {
        return Ok(());
    }
    let host = IpNet::from(network.addr());
    Err(config.wrong(key, format!("{network} has bits set behind its prefix: write {whole} for the network or {host} for the one address")))
}

/// Refuses ports where the protocol of the same entry has none.
pub fn check_ports(key: &str, protocol: Option<Protocol>, ports: Ports, config: &Source) -> Result<(), ConfigError> {
    match protocol {
        Some(protocol) if !protocol.has_ports() && ports != Ports::ANY => Err(config
            .wrong(key, format!("{protocol} has no ports: leave this out, or name a protocol that has (tcp, udp, sctp, dccp, udplite)"))),
        _ => Ok(()),
    }
}

/// Section `[identity]`: who this node is. All files are PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The certificate, leaf first, then intermediates; its iPAddress names must hold this node's addresses.
    pub certificate: PathBuf,
    /// The private key, PKCS#8.
    pub key: PathBuf,
    /// The authorities whose certificates are believed.
    pub trust_anchors: PathBuf,
    /// Their revocation lists, read again when they change; none by default.
    #[serde(default)]
    pub revocation_lists: Vec<PathBuf>,
}

impl Identity {
    /// Makes relative paths paths beside the configuration file.
    pub fn resolve(&mut self, config: &Source) {
        for path in [&mut self.certificate, &mut self.key, &mut self.trust_anchors].into_iter().chain(&mut self.revocation_lists) {
            *path = config.beside(path);
        }
    }
}

/// Section `[gist]`: the signalling transport.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gist {
    /// NSLPID of PBS; 32704–32767 are for private use.
    pub nslp_id: u16,
    /// Router alert value put into Queries. Interception does not depend on it. `-1` leaves the option out in
    /// IPv4; IPv6 then has 65503, as it cannot be found without (G-177).
    pub router_alert: i32,
    /// TCP port on which messaging associations are accepted.
    pub association_port: u16,
    /// NSLPIDs that this router passes on without hosting them.
    pub foreign_nslp_ids: Vec<u16>,
    /// Where IPv4 Queries go without router alert (G-174).
    pub without_router_alert: Vec<IpNet>,
    /// Messaging associations at most, [`MOST_ASSOCIATIONS`] at most; a quarter of them may have confirmed nothing.
    pub associations: usize,
    /// Signalling datagrams a second that this node makes, in the long run (G-206); three times as many where the flows that it refreshes
    /// need them.
    pub datagrams_per_second: u32,
    /// The authorised peer database (RFC 5971 §4.4.2): the first entry that matches decides, none means no.
    pub peer: Vec<Peer>,
}

impl Default for Gist {
    fn default() -> Self {
        Self {
            nslp_id: 32704,
            router_alert: 65503,
            association_port: 30270,
            foreign_nslp_ids: Vec::new(),
            without_router_alert: Vec::new(),
            associations: 4096,
            datagrams_per_second: 2000,
            peer: Vec::new(),
        }
    }
}

/// Each costs up to a megabyte and a descriptor.
pub const MOST_ASSOCIATIONS: usize = 65_536;
/// With fewer a router could serve one peer only.
pub const LEAST_ASSOCIATIONS: usize = 16;
/// What still refreshes some flows, and what no link that this is for takes.
const DATAGRAMS: std::ops::RangeInclusive<u32> = 20..=100_000;

/// One entry `[[gist.peer]]`. Exactly one of `dns_name` and `address` is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// A name in the peer's certificate; a leading `*.` stands for one label (RFC 5971 §5.7.3.1).
    pub dns_name: Option<String>,
    /// A network that must hold an iPAddress name of the peer's certificate.
    pub address: Option<IpNet>,
    /// Whether such a peer may hold an association with this node.
    pub allow: bool,
    /// For which flows it may be the neighbour: as a host (the default) for those it sends or receives itself, by the
    /// addresses of its certificate; as a router for any.
    #[serde(default)]
    pub role: Role,
}

/// What a node is: in an entry of the peer database see [`Peer::role`], at the head of a file whose daemon it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Its own flows.
    #[default]
    Host,
    /// Any flow.
    Router,
}

impl Gist {
    /// Refuses values that RFC 5971 §9 or the profile rule out.
    pub fn check(&self, config: &Source) -> Result<(), ConfigError> {
        if !(32704..=32767).contains(&self.nslp_id) {
            return Err(config.wrong("gist.nslp_id", format!("{} is outside the private range 32704-32767", self.nslp_id)));
        }
        if !(-1..=65535).contains(&self.router_alert) {
            return Err(config.wrong("gist.router_alert", format!("{} is neither -1 nor a 16-bit value", self.router_alert)));
        }
        if self.association_port == 0 {
            return Err(config.wrong("gist.association_port", "must not be 0: the filter rules name this port"));
        }
        if self.foreign_nslp_ids.contains(&self.nslp_id) {
            return Err(config.wrong("gist.foreign_nslp_ids", format!("holds {}, which this node hosts itself", self.nslp_id)));
        }
        if !(LEAST_ASSOCIATIONS..=MOST_ASSOCIATIONS).contains(&self.associations) {
            let message = format!("{} is not within {LEAST_ASSOCIATIONS}-{MOST_ASSOCIATIONS}", self.associations);
            return Err(config.wrong("gist.associations", message));
        }
        if !DATAGRAMS.contains(&self.datagrams_per_second) {
            let message = format!("{} is not within {}-{}", self.datagrams_per_second, DATAGRAMS.start(), DATAGRAMS.end());
            return Err(config.wrong("gist.datagrams_per_second", message));
        }
        for network in &self.without_router_alert {
            if network.addr().is_ipv6() {
                return Err(config.wrong("gist.without_router_alert", format!("{network}: IPv6 Queries cannot do without")));
            }
            check_network("gist.without_router_alert", network, config)?;
        }
        for (place, peer) in self.peer.iter().enumerate() {
            if peer.dns_name.is_some() == peer.address.is_some() {
                return Err(config.wrong(&format!("gist.peer.{place}"), "give either dns_name or address"));
            }
            if let Some(name) = peer.dns_name.as_deref().filter(|name| !is_name_pattern(name)) {
                let message = format!("`{name}` is neither a name nor one with a leading `*.`");
                return Err(config.wrong(&format!("gist.peer.{place}.dns_name"), message));
            }
            if let Some(network) = &peer.address {
                check_network(&format!("gist.peer.{place}.address"), network, config)?;
            }
        }
        Ok(())
    }
}

/// Whether some peer's name can match: a pattern that never does is a mistake, and a silent one.
fn is_name_pattern(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    name.split('.').all(|label| !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)))
}

/// A span of time such as `"5s"`, `"500ms"`, `"10min"` or `"24h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_span(text).ok_or_else(|| format!("`{text}` is not a time such as 500ms, 5s, 10min or 24h"))
    }
}

fn parse_span(text: &str) -> Option<Span> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits)?;
    let number: u64 = number.parse().ok()?;
    let milliseconds = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Span(Duration::from_millis(number.checked_mul(milliseconds)?)))
}

/// A range of ports, `"9000"` or `"9000-9999"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Lowest port.
    pub first: u16,
    /// Highest port, not below `first`.
    pub last: u16,
}

impl Ports {
    /// Every port.
    pub const ANY: Self = Self { first: 0, last: u16::MAX };

    /// Whether `port` lies in the range.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_ports(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is not a port or a range such as 9000-9999")))
    }
}

fn parse_ports(text: &str) -> Option<Ports> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some(Ports { first, last })
}

/// The addresses of this node, link-local and loopback ones left out.
pub fn local_addresses() -> std::io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        .filter(|address| !address.is_loopback() && !is_link_local(address))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn source(text: &str) -> Source {
        Source::new(Path::new("x.toml"), text)
    }

    /// What is wrong with a file that holds nothing but the section `[gist]`.
    fn complaint(text: &str) -> String {
        let source = source(text);
        let gist: File = source.parse().unwrap();
        gist.gist.check(&source).unwrap_err().to_string()
    }

    #[derive(Deserialize)]
    struct File {
        gist: Gist,
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_and_line() {
        let error = source("nslp_id = 32704\nrouter_allert = 1\n").parse::<Gist>().unwrap_err().to_string();
        assert!(error.starts_with("x.toml:2: unknown field `router_allert`"), "{error}");
    }

    #[test]
    fn spans_and_ports_are_read_and_nonsense_is_refused() {
        assert_eq!(parse_span("5s"), Some(Span(Duration::from_secs(5))));
        assert_eq!(parse_span("24h"), Some(Span(Duration::from_secs(86_400))));
        assert_eq!(parse_span("5"), None);
        assert_eq!(parse_span("99999999999999999999s"), None);
        assert_eq!(parse_ports("9000-9999"), Some(Ports { first: 9000, last: 9999 }));
        assert_eq!(parse_ports("9999-9000"), None);
        assert!(parse_ports("7").unwrap().contains(7));
    }

    #[test]
    fn a_peer_entry_names_exactly_one_kind_of_identity() {
        let entry = "[gist]\n[[gist.peer]]\n";
        for kinds in ["", "dns_name = \"a.test\"\naddress = \"192.0.2.0/24\"\n"] {
            let error = complaint(&format!("{entry}allow = true\n\n[[gist.peer]]\n{kinds}allow = true\n"));
            assert!(error.starts_with("x.toml:2: gist.peer: give either"), "the first entry names none: {error}");
            let error = complaint(&format!("{entry}address = \"::/0\"\nallow = true\n\n[[gist.peer]]\n{kinds}allow = true\n"));
            assert!(error.starts_with("x.toml:6: gist.peer: give either"), "{error}");
        }
    }

    /// who is not called a router has a host's rights.
    #[test]
    fn a_peer_is_a_host_unless_it_is_called_a_router() {
        let read = |role: &str| source(&format!("dns_name = \"a.test\"\nallow = true\n{role}")).parse::<Peer>().map(|peer| peer.role);
        assert_eq!(read("").unwrap(), Role::Host);
        assert_eq!(read("role = \"host\"").unwrap(), Role::Host);
        assert_eq!(read("role = \"router\"").unwrap(), Role::Router);
        assert!(read("role = \"gateway\"").unwrap_err().to_string().starts_with("x.toml:3: unknown variant `gateway`"));
    }

    #[test]
    fn a_name_that_no_peer_can_have_is_refused() {
        for name in ["", "*", "*.", "a..test", "a.*.test", "*.*.test", "a test"] {
            let error = complaint(&format!("[[gist.peer]]\nallow = true\ndns_name = \"{name}\"\n"));
            assert!(error.starts_with("x.toml:3: gist.peer.dns_name: "), "{name}: {error}");
        }
        assert!(["a.test", "*.pbs.test", "host_1", "xn--bcher-kva.test"].into_iter().all(is_name_pattern));
    }

    /// P-010, X-26.
    #[test]
    fn values_outside_their_range_are_refused_with_line_and_key() {
        let cases = [
            ("nslp_id = 32703", "gist.nslp_id: 32703 is outside the private range 32704-32767"),
            ("nslp_id = 32768", "gist.nslp_id: 32768 is outside"),
            ("router_alert = -2", "gist.router_alert: -2 is neither -1 nor a 16-bit value"),
            ("router_alert = 65536", "gist.router_alert: 65536 is neither"),
            ("association_port = 0", "gist.association_port: must not be 0"),
            ("foreign_nslp_ids = [32705, 32704]", "gist.foreign_nslp_ids: holds 32704"),
            ("without_router_alert = [\"fd00::/8\"]", "gist.without_router_alert: fd00::/8: IPv6 Queries cannot do without"),
            ("without_router_alert = [\"192.0.2.1/24\"]", "gist.without_router_alert: "),
            ("associations = 15", "gist.associations: 15 is not within 16-65536"),
            ("associations = 65537", "gist.associations: 65537 is not"),
            ("datagrams_per_second = 19", "gist.datagrams_per_second: 19 is not within 20-100000"),
        ];
        for (line, expected) in cases {
            let error = complaint(&format!("[gist]\n{line}\n"));
            assert!(error.starts_with(&format!("x.toml:2: {expected}")), "{error}");
        }
    }
}
