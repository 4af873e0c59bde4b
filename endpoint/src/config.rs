//! The configuration file of `pbs`. The commented sample is `endpoint/pbs.toml`.

use std::path::{Path, PathBuf};

use daemon::config::{self, ConfigError, Gist, Identity, Ports, Protocol, Span};
use daemon::logging::Form;
use ipnet::IpNet;
use serde::Deserialize;

/// Everything `pbs` can be told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
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
    /// As a sender: traffic that asks for permission, first match first. Traffic that matches nothing is dropped.
    #[serde(default)]
    pub ask: Vec<Ask>,
    /// As a receiver: who is granted what, first match first. Who matches nothing is declined.
    #[serde(default)]
    pub grant: Vec<Grant>,
}

/// Section `[datapath]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Datapath {
    /// NFQUEUE number of what leaves this host.
    pub outbound_queue: u16,
    /// NFQUEUE number of what arrives at this host.
    pub inbound_queue: u16,
    /// Flows held at most, in each direction.
    pub permissions: usize,
    /// Largest AH a flow of this host may come to carry, by the algorithms it may escalate to.
    pub largest_protection: LargestProtection,
}

impl Default for Datapath {
    fn default() -> Self {
        Self { outbound_queue: 3, inbound_queue: 4, permissions: 4096, largest_protection: LargestProtection::PublicKey }
    }
}

/// How far a flow may escalate; fixes by how much the routes' MTU is lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LargestProtection {
    /// HMAC-SHA-256-128: 28 bytes on IPv4, 32 on IPv6.
    Symmetric,
    /// A 64-byte signature: 76 bytes on IPv4, 80 on IPv6.
    PublicKey,
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
    /// Bytes that extensions may bring it to; `volume` if left out, so that nothing is extended.
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

fn any_port() -> Ports {
    Ports::ANY
}

fn default_ttl() -> Span {
    Span(std::time::Duration::from_secs(600))
}

fn default_refresh() -> Span {
    Span(std::time::Duration::from_secs(60))
}

/// Reads and checks the file; relative paths become paths beside it.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
    let mut config: Config = config::load(path)?;
    let wrong = |key, message: &str| ConfigError::Value { path: path.to_owned(), key, message: message.to_owned() };
    config.gist.check(path)?;
    if config.datapath.outbound_queue == config.datapath.inbound_queue {
        return Err(wrong("datapath.inbound_queue", "is the outbound queue's number too"));
    }
    if config.ask.iter().any(|ask| ask.volume == 0) {
        return Err(wrong("ask.volume", "0 asks for nothing"));
    }
    for grant in &config.grant {
        if grant.volume == 0 {
            return Err(wrong("grant.volume", "0 grants nothing; leave the entry out to decline"));
        }
        if grant.limit.is_some_and(|limit| limit < grant.volume) {
            return Err(wrong("grant.limit", "is less than the volume granted at first"));
        }
        if !(5..=3600).contains(&grant.refresh.0.as_secs()) {
            return Err(wrong("grant.refresh", "must lie between 5s and 1h"));
        }
        if grant.ttl.0 < grant.refresh.0 || grant.ttl.0.as_secs() > 24 * 3600 {
            return Err(wrong("grant.ttl", "must lie between the refresh period and 24h"));
        }
    }
    config.control_socket = config::beside(path, &config.control_socket);
    config.identity.resolve(path);
    Ok(config)
}
