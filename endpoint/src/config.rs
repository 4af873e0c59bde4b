//! The configuration file of `pbs`. The commented sample is `endpoint/pbs.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::config::{self, Gist, Identity, Ports, Span};
use daemon::exempt::{self, Exempt};
use daemon::logging::Form;
use daemon::protocol::Protocol;
use daemon::reassembly::Reassembly;
use daemon::signatures::Signatures;
use daemon::source::{ConfigError, Source};
use ipnet::IpNet;
use serde::Deserialize;
use traffic::paths::MASK;
use traffic::routes::MARK;
use traffic::rules::{ASSOCIATION_MARK, Fragments, LISTENER_MARK, Role};

use crate::paths;
use crate::reactions::{LONGEST_GRACE, Section};
use crate::relay;
use crate::short_way::{self, Kind};

/// Everything `pbs` can be told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Whose file it is.
    role: Option<config::Role>,
    /// Name of this node in logs and status.
    pub name: String,
    /// Where the control socket lies.
    #[serde(default = "default_control_socket")]
    pub control_socket: PathBuf,
    /// Form of the log lines.
    #[serde(default)]
    pub log: Form,
    /// Certificate, key, trust anchors.
    pub identity: Identity,
    /// The signalling transport.
    #[serde(default)]
    pub gist: Gist,
    /// The packet side.
    #[serde(default)]
    pub datapath: Datapath,
    /// As a receiver: after how long a flow's key is replaced.
    #[serde(default = "default_key_age")]
    pub key_age: Span,
    /// As a receiver: for how long a flow is refused that was revoked, or whose sender was found lying.
    #[serde(default = "default_refuse")]
    pub refuse: Span,
    /// As a receiver: what follows attacks.
    #[serde(default)]
    pub reactions: Section,
    /// As a sender: traffic that asks for permission, first match first. Traffic that matches nothing is dropped.
    #[serde(default)]
    pub ask: Vec<Ask>,
    /// As a sender: other ways out, for flows that nobody answers or whose packets are dropped; the best first.
    #[serde(default)]
    pub path: Vec<paths::Path>,
    /// As a receiver: who is granted what, first match first. Who matches nothing is declined.
    #[serde(default)]
    pub grant: Vec<Grant>,
    /// As a relay: whose packets are sent on, and where to. Without it none are.
    pub relay: Option<relay::Section>,
    /// What passes without permission besides signalling and what links need.
    #[serde(default)]
    pub exempt: Vec<Exempt>,
}

/// Section `[datapath]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Datapath {
    /// By which way packets come to the daemon.
    pub kind: Kind,
    /// The interfaces by which they come past the queue.
    pub interfaces: Vec<String>,
    /// NFQUEUE number of what leaves this host.
    pub outbound_queue: u16,
    /// NFQUEUE number of TCP that leaves this host in super-packets.
    pub tcp_queue: u16,
    /// Whether TCP comes to that queue in super-packets, to be cut by this daemon and sent past other programs' filter rules.
    pub super_packets: bool,
    /// NFQUEUE number of what arrives at this host.
    pub inbound_queue: u16,
    /// Flows held at most, in each direction.
    pub permissions: usize,
    /// The one bit of the packet mark that packets with AH get besides their own.
    pub mark: u32,
    /// The bits of the packet mark that hold the number of the way out, where it is not the routed one.
    pub path_mark: u32,
    /// Largest AH a flow of this host may come to carry, by the algorithms it may escalate to.
    pub largest_protection: LargestProtection,
    /// What becomes of what arrives in fragments.
    pub fragments: Fragments,
    /// How much of the kernel's memory for them each may take up.
    pub reassembly: Reassembly,
    /// Signatures of packets verified a second.
    pub signatures: Signatures,
    /// Whether packets may be authenticated by HMAC-SHA-1-96.
    pub hmac_sha1: bool,
}

impl Default for Datapath {
    fn default() -> Self {
        let (largest_protection, signatures) = (LargestProtection::PublicKey, Signatures::default());
        Self {
            kind: Kind::Nfqueue,
            interfaces: Vec::new(),
            outbound_queue: 3,
            tcp_queue: 6,
            super_packets: false,
            inbound_queue: 4,
            permissions: 4096,
            fragments: Fragments::default(),
            reassembly: Reassembly::default(),
            mark: MARK,
            path_mark: MASK,
            largest_protection,
            signatures,
            hmac_sha1: false,
        }
    }
}

/// How far a flow may escalate; fixes by how much the routes' MTU is lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LargestProtection {
    /// HMAC-SHA-256-128: 28 bytes on IPv4, 32 on IPv6. Too little for AES-GMAC, which takes 36 and 40.
    Symmetric,
    /// A 64-byte signature: 76 bytes on IPv4, 80 on IPv6.
    PublicKey,
    /// A signature by an RSA key of 2048 bits: 268 bytes on IPv4, 272 on IPv6.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
    /// A signature by an RSA key of 4096 bits: 524 bytes on IPv4, 528 on IPv6.
    #[serde(rename = "rsa-4096")]
    Rsa4096,
}

/// One entry `[[ask]]`: traffic of this host that asks for permission.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    /// Where the traffic goes.
    pub destination: IpNet,
    /// Its protocol; every protocol if left out.
    pub protocol: Option<Protocol>,
    /// Its destination ports; every port if left out.
    #[serde(default = "any_port")]
    pub destination_ports: Ports,
    /// Bytes to ask for.
    pub volume: u64,
    /// Whether only a permission with signed packets is accepted.
    #[serde(default)]
    pub signed: bool,
    /// Which code is asked for where packets are not signed; HMAC-SHA-256-128 if left out.
    pub mac: Option<Mac>,
}

/// An authentication code under a key that the path shares, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Mac {
    #[serde(rename = "hmac-sha-1-96")]
    HmacSha1,
    #[serde(rename = "hmac-sha-256-128")]
    HmacSha256,
    #[serde(rename = "aes-128-gmac")]
    Aes128Gmac,
    #[serde(rename = "aes-256-gmac")]
    Aes256Gmac,
}

/// One entry `[[grant]]`: what this host grants.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Grant {
    /// Who asks.
    pub source: IpNet,
    /// For which protocol; every protocol if left out.
    pub protocol: Option<Protocol>,
    /// For which of this host's ports; every port if left out.
    #[serde(default = "any_port")]
    pub destination_ports: Ports,
    /// Bytes granted at first, at most.
    pub volume: u64,
    /// Whether the sender signs each packet from the first one on.
    #[serde(default)]
    pub signed: bool,
    /// Which code authenticates packets that are not signed, if their sender accepts it; the sender's choice if left out.
    pub mac: Option<Mac>,
    /// Bytes that the flow may have in all within `ttl`, over all permissions; `volume` if left out, so that nothing is extended.
    pub limit: Option<u64>,
    /// How long a permission lasts at most.
    #[serde(default = "default_ttl")]
    pub ttl: Span,
    /// Refresh period T, 5 s to 1 h.
    #[serde(default = "default_refresh")]
    pub refresh: Span,
}

fn default_control_socket() -> PathBuf {
    PathBuf::from("/run/pbs/host.sock")
}

fn default_key_age() -> Span {
    Span(Duration::from_secs(3600))
}

fn default_refuse() -> Span {
    Span(Duration::from_secs(600))
}

fn any_port() -> Ports {
    Ports::ANY
}

pub(crate) fn default_ttl() -> Span {
    Span(Duration::from_secs(600))
}

pub(crate) fn default_refresh() -> Span {
    Span(Duration::from_secs(60))
}

/// Reads and checks the file; relative paths become paths beside it.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
    parse(&Source::read(path)?)
}

pub(crate) fn parse(source: &Source) -> Result<Config, ConfigError> {
    config::check_role(source, Role::Host, "pbs")?;
    let mut config: Config = source.parse()?;
    config::require_role(config.role, source, Role::Host)?;
    config.gist.check(source)?;
    exempt::check(&config.exempt, Role::Host, config.gist.association_port, source)?;
    if config.datapath.outbound_queue == config.datapath.inbound_queue {
        return Err(source.wrong("datapath.inbound_queue", "is the outbound queue's number too"));
    }
    let Datapath { outbound_queue, tcp_queue, inbound_queue, .. } = config.datapath;
    if config.datapath.super_packets && [outbound_queue, inbound_queue].contains(&tcp_queue) {
        return Err(source.wrong("datapath.tcp_queue", "is another queue's number too"));
    }
    for (key, number) in
        [("datapath.outbound_queue", outbound_queue), ("datapath.tcp_queue", tcp_queue), ("datapath.inbound_queue", inbound_queue)]
    {
        if number == daemon::claim::QUEUE {
            return Err(source.wrong(key, "is the queue by which daemons keep each other out of a network namespace"));
        }
    }
    if config.datapath.mark.count_ones() != 1 {
        return Err(source.wrong("datapath.mark", "must be a single bit, such as 0x08000000"));
    }
    if config.datapath.mark & (ASSOCIATION_MARK | LISTENER_MARK) != 0 {
        return Err(source.wrong("datapath.mark", "is a bit of the marks of signalling associations (0x50420002, 0x50420003)"));
    }
    paths::check(&config.path, &config.datapath, source)?;
    if config.datapath.permissions == 0 {
        return Err(source.wrong("datapath.permissions", "0 leaves no room for any permission"));
    }
    short_way::check(&config.datapath, source)?;
    config.datapath.signatures.check(source)?;
    config.datapath.reassembly.check(source)?;
    if config.reactions.grace.0 > LONGEST_GRACE {
        return Err(source.wrong("reactions.grace", "must be at most 3s: the sender waits no longer for its answer"));
    }
    if config.key_age.0 < KEY_AGE_LEAST {
        return Err(source.wrong("key_age", "must be at least 30s"));
    }
    if !(REFUSE_LEAST..=TTL_MOST).contains(&config.refuse.0) {
        return Err(source.wrong("refuse", "must lie between 1s and 24h"));
    }
    for (place, ask) in config.ask.iter().enumerate() {
        if ask.signed && config.datapath.largest_protection == LargestProtection::Symmetric {
            return Err(source.wrong(&format!("ask.{place}.signed"), "needs datapath.largest_protection to leave room for signatures"));
        }
        if config.datapath.largest_protection == LargestProtection::Symmetric && matches!(ask.mac, Some(Mac::Aes128Gmac | Mac::Aes256Gmac))
        {
            return Err(source.wrong(&format!("ask.{place}.mac"), "needs datapath.largest_protection to leave room for AES-GMAC"));
        }
        if ask.mac == Some(Mac::HmacSha1) && !config.datapath.hmac_sha1 {
            return Err(source.wrong(&format!("ask.{place}.mac"), MAC_NOT_ALLOWED));
        }
        if ask.volume == 0 {
            return Err(source.wrong(&format!("ask.{place}.volume"), "0 asks for nothing"));
        }
        config::check_network(&format!("ask.{place}.destination"), &ask.destination, source)?;
        config::check_ports(&format!("ask.{place}.destination_ports"), ask.protocol, ask.destination_ports, source)?;
    }
    for (place, grant) in config.grant.iter().enumerate() {
        if grant.mac == Some(Mac::HmacSha1) && !config.datapath.hmac_sha1 {
            return Err(source.wrong(&format!("grant.{place}.mac"), MAC_NOT_ALLOWED));
        }
        check_grant(grant).map_err(|(key, message)| source.wrong(&format!("grant.{place}.{key}"), message))?;
        config::check_network(&format!("grant.{place}.source"), &grant.source, source)?;
        config::check_ports(&format!("grant.{place}.destination_ports"), grant.protocol, grant.destination_ports, source)?;
    }
    relay::check(&config, source)?;
    config.control_socket = source.beside(&config.control_socket);
    config.identity.resolve(source);
    Ok(config)
}

const MAC_NOT_ALLOWED: &str = "needs datapath.hmac_sha1 = true";

pub(crate) fn check_grant(grant: &Grant) -> Result<(), (&'static str, &'static str)> {
    if grant.volume == 0 {
        return Err(("volume", "0 grants nothing; leave the entry out to decline"));
    }
    if grant.limit.is_some_and(|limit| limit < grant.volume) {
        return Err(("limit", "is less than the volume granted at first"));
    }
    if !(REFRESH_LEAST..=REFRESH_MOST).contains(&grant.refresh.0) {
        return Err(("refresh", "must lie between 5s and 1h"));
    }
    if !(grant.refresh.0..=TTL_MOST).contains(&grant.ttl.0) {
        return Err(("ttl", "must lie between the refresh period and 24h"));
    }
    Ok(())
}

/// A key is used for longer than its predecessor drains, and than an exchange takes.
const KEY_AGE_LEAST: Duration = Duration::from_secs(30);
/// A flow that is revoked does not come back with the sender's next Query, which its own hold-down lets it send after a second.
const REFUSE_LEAST: Duration = Duration::from_secs(1);
pub(crate) const REFRESH_LEAST: Duration = Duration::from_secs(5);
/// Bounds of T and TTL (appendix A).
pub(crate) const REFRESH_MOST: Duration = Duration::from_secs(3600);
pub(crate) const TTL_MOST: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = include_str!("../pbs.toml");
    const LEAST: &str =
        "role = \"host\"\nname = \"h\"\n[identity]\ncertificate = \"h.crt\"\nkey = \"keys/h.key\"\ntrust_anchors = \"/ca.crt\"\n";
    const GRANT: &str = "[[grant]]\nsource = \"192.0.2.0/24\"\nvolume = 1048576\n";

    fn read(text: &str) -> Result<Config, ConfigError> {
        parse(&Source::new(Path::new("/etc/pbs/h.toml"), text))
    }

    fn complaint(rest: &str) -> String {
        read(&format!("{LEAST}{rest}")).unwrap_err().to_string()
    }

    #[test]
    fn the_sample_file_shows_the_defaults_that_hold_without_it() {
        let (sample, least) = (read(SAMPLE).unwrap(), read(&format!("{LEAST}{GRANT}")).unwrap());
        assert_eq!(sample.control_socket, least.control_socket);
        assert_eq!(sample.log, least.log);
        assert_eq!((sample.key_age, sample.refuse), (least.key_age, least.refuse));
        assert_eq!(sample.datapath, least.datapath);
        assert_eq!(sample.reactions, least.reactions);
        assert_eq!(Gist { peer: Vec::new(), ..sample.gist }, least.gist);
        let (shown, default) = (&sample.grant[0], &least.grant[0]);
        assert_eq!((shown.ttl, shown.refresh), (default.ttl, default.refresh));
        assert_eq!(shown.limit, Some(shown.volume), "left out: the same as volume");
        assert_eq!(default.limit, None);
    }

    #[test]
    fn what_an_entry_leaves_out_matches_everything() {
        let config = read(&format!("{LEAST}{GRANT}[[ask]]\ndestination = \"::/0\"\nvolume = 1\n")).unwrap();
        assert_eq!((config.ask[0].protocol, config.ask[0].destination_ports), (None, Ports::ANY));
        assert_eq!((config.grant[0].protocol, config.grant[0].destination_ports), (None, Ports::ANY));
    }

    #[test]
    fn paths_are_taken_from_the_directory_of_the_file() {
        let config = read(&format!("control_socket = \"h.sock\"\n{LEAST}")).unwrap();
        assert_eq!(config.control_socket, Path::new("/etc/pbs/h.sock"));
        assert_eq!(config.identity.key, Path::new("/etc/pbs/keys/h.key"));
        assert_eq!(config.identity.trust_anchors, Path::new("/ca.crt"));
    }

    #[test]
    fn the_limits_of_a_grant_are_within_them() {
        for limits in ["refresh = \"5s\"\nttl = \"5s\"", "refresh = \"1h\"\nttl = \"24h\"", "limit = 1048576"] {
            assert!(read(&format!("{LEAST}{GRANT}{limits}\n")).is_ok(), "{limits}");
        }
    }

    /// the sample's examples are entries that hold when the comment signs are taken away.
    #[test]
    fn the_samples_exemptions_hold_once_they_are_no_comments() {
        let mut inside = false;
        let lines = SAMPLE.lines().map(|line| {
            inside = if inside { line.starts_with("# ") } else { line == "# [[exempt]]" };
            if inside { line.trim_start_matches("# ") } else { line }
        });
        let config = read(&lines.collect::<Vec<_>>().join("\n")).unwrap();
        assert_eq!(config.exempt.iter().map(|exempt| &*exempt.name).collect::<Vec<_>>(), ["ssh", "dns"]);
        assert_eq!(read(SAMPLE).unwrap().exempt, []);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_line_and_key() {
        let cases = [
            ("[datapath]\noutbound_queue = 65535\n", "8: datapath.outbound_queue: is the queue by which daemons keep each other out"),
            ("[datapath]\ninbound_queue = 65535\n", "8: datapath.inbound_queue: is the queue by which daemons keep each other out"),
            ("[datapath]\ninbound_queue = 3\n", "8: datapath.inbound_queue: is the outbound queue's number too"),
            ("[datapath]\nmark = 3\n", "8: datapath.mark: must be a single bit"),
            ("[datapath]\nmark = 0\n", "8: datapath.mark: must be a single bit"),
            ("[reactions]\ngrace = \"4s\"\n", "8: reactions.grace: must be at most 3s"),
            ("[reactions]\nmissing = { bytes = 1, percent = 101 }\n", "8: 101 percent; it must be 0 to 100"),
            ("[reactions]\non_attack = \"forgive\"\n", "8: unknown variant `forgive`"),
            ("[datapath]\nmark = 2\n", "8: datapath.mark: is a bit of the marks of signalling"),
            ("[datapath]\npath_mark = 0\n", "8: datapath.path_mark: must be bits side by side"),
            ("[datapath]\npath_mark = 5\n", "8: datapath.path_mark: must be bits side by side"),
            ("[datapath]\npath_mark = 0x0c000000\n", "8: datapath.path_mark: has bits of datapath.mark"),
            (
                "[datapath]\nlargest_protection = \"symmetric\"\n[[ask]]\ndestination = \"::/0\"\nvolume = 1\nsigned = true\n",
                "12: ask.signed: needs datapath.largest_protection to leave room",
            ),
            (
                "[datapath]\nlargest_protection = \"symmetric\"\n[[ask]]\ndestination = \"::/0\"\nvolume = 1\nmac = \"aes-128-gmac\"\n",
                "12: ask.mac: needs datapath.largest_protection to leave room",
            ),
            ("[[grant]]\nsource = \"::/0\"\nvolume = 1\nmac = \"hmac-sha-1-96\"\n", "10: grant.mac: needs datapath.hmac_sha1 = true"),
            ("[[ask]]\ndestination = \"::/0\"\nvolume = 1\nmac = \"hmac-md5-96\"\n", "10: unknown variant `hmac-md5-96`"),
            ("[datapath]\nkind = \"af_xdp\"\n", "8: datapath.kind: is \"af_xdp\", and `interfaces` names none that takes part"),
            ("[datapath]\nkind = \"xdp_shield\"\n", "8: unknown variant `xdp_shield`, expected `nfqueue` or `af_xdp`"),
            ("[datapath]\ninterfaces = [\"a b\"]\n", "8: datapath.interfaces: `a b` is no name of an interface"),
            ("[datapath]\npermissions = 0\n", "8: datapath.permissions: 0 leaves no room"),
            ("[datapath]\nlargest_protection = \"huge\"\n", "8: unknown variant `huge`, expected one of `symmetric`, `public-key`"),
            ("[[ask]]\ndestination = \"::/0\"\nvolume = 0\n", "9: ask.volume: 0 asks for nothing"),
            ("[[ask]]\ndestination = \"::/0\"\nvolume = -1\n", "9: invalid value: integer `-1`, expected u64"),
            ("[[ask]]\ndestination = \"nowhere\"\nvolume = 1\n", "8: invalid IP address syntax"),
            ("[[ask]]\ndestination = \"::/0\"\n", "7: missing field `volume`"),
            ("[[ask]]\ndestination = \"::/0\"\nvolume = 1\nprotocol = \"quic\"\n", "10: `quic` is neither a known protocol"),
            ("[[ask]]\ndestination = \"::/0\"\nvolume = 1\ndestination_ports = \"9-1\"\n", "10: `9-1` is not a port or a range"),
            ("[[grant]]\nsource = \"::/0\"\nvolume = 0\n", "9: grant.volume: 0 grants nothing"),
        ];
        for (rest, expected) in cases {
            let error = complaint(rest);
            assert!(error.starts_with(&format!("/etc/pbs/h.toml:{expected}")), "{error} instead of {expected}");
        }
        let error = read(&format!("refuse = \"999ms\"\n{LEAST}")).unwrap_err().to_string();
        assert!(error.starts_with("/etc/pbs/h.toml:1: refuse: must lie between 1s and 24h"), "{error}");
        let path = "[[path]]\nname = \"b\"\ninterface = \"eth1\"\n";
        let relay = "[[path]]\nname = \"r\"\nrelay = \"192.0.2.9\"\nvolume = 5\n";
        let cases = [
            (format!("{path}{path}"), "11: path.name: must be there and differ from the others'"),
            (format!("{path}via = \"::1\"\ndestination = \"0.0.0.0/0\"\n"), "11: path.destination: is not of the IP version of via"),
            (path.replace("eth1", "an-interface-too-long"), "9: path.interface: is no name of an interface"),
            (format!("[datapath]\npath_mark = 0x01000000\n{path}{}", path.replace('b', "c")), "13: path.name: is one path more"),
            (path.replace("interface", "device"), "9: unknown field `device`"),
            ("[[path]]\nname = \"b\"\n".to_owned(), "8: path.name: has neither an interface nor a relay"),
            (format!("{path}volume = 5\n"), "10: path.volume: is asked of relays only"),
            (format!("{path}destination = \"192.0.2.1/24\"\n"), "10: path.destination: "),
            (format!("{path}relay = \"192.0.2.9\"\nvolume = 5\n"), "9: path.interface: cannot be there beside relay"),
            (format!("{relay}via = \"192.0.2.1\"\n"), "11: path.via: cannot be there beside relay"),
            (relay.replace("192.0.2.9", "224.0.0.9"), "9: path.relay: is not the address of another host"),
            (relay.replace("volume", "# volume"), "9: path.relay: needs volume beside it"),
            (relay.replace("= 5", "= 0"), "10: path.volume: 0 asks for nothing"),
            (format!("{relay}destination = \"::/0\"\n"), "11: path.destination: is not of the IP version of relay"),
            (format!("{relay}{}", relay.replace("\"r\"", "\"s\"")), "13: path.relay: is another path's already"),
        ];
        for (rest, expected) in cases {
            let error = complaint(&rest);
            assert!(error.starts_with(&format!("/etc/pbs/h.toml:{expected}")), "{error} instead of {expected}");
        }
        let cases = [
            ("limit = 1048575", "13: grant.limit: is less than the volume"),
            ("refresh = \"4999ms\"", "13: grant.refresh: must lie between 5s and 1h"),
            ("refresh = \"3600001ms\"", "13: grant.refresh: must lie between 5s and 1h"),
            ("refresh = \"soon\"", "13: `soon` is not a time such as"),
            ("ttl = \"59s\"", "13: grant.ttl: must lie between the refresh period and 24h"),
            ("ttl = \"86400001ms\"", "13: grant.ttl: must lie between the refresh period and 24h"),
        ];
        for (limit, expected) in cases {
            // The second entry is the wrong one.
            let error = complaint(&format!("{GRANT}{GRANT}{limit}\n"));
            assert!(error.starts_with(&format!("/etc/pbs/h.toml:{expected}")), "{error} instead of {expected}");
        }
    }
}
