//! Entries `[[path]]` of the configuration.

use std::net::{IpAddr, Ipv4Addr};

use daemon::source::{ConfigError, Source};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use traffic::paths::{PATHS, mark};
use traffic::rules::ASSOCIATION_MARK;

use crate::config::Datapath;

/// One other way out.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Path {
    /// Name in logs and status.
    pub name: String,
    /// The link that packets leave by.
    pub interface: String,
    /// The next hop on it; without one, every destination is on the link.
    pub via: Option<IpAddr>,
    /// Which destinations can be reached; every one of the next hop's IP version if left out, and without a next hop every IPv4 one.
    pub destination: Option<IpNet>,
}

impl Path {
    /// The destinations that can be reached.
    pub(crate) fn covers(&self) -> IpNet {
        let all = match self.via.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
            IpAddr::V4(_) => Ipv4Net::default().into(),
            IpAddr::V6(_) => Ipv6Net::default().into(),
        };
        self.destination.unwrap_or(all)
    }
}

/// Names a key that cannot be used, with its line.
pub(crate) fn check(paths: &[Path], datapath: &Datapath, source: &Source) -> Result<(), ConfigError> {
    let mask = datapath.path_mark;
    let bits = mask.checked_shr(mask.trailing_zeros()).unwrap_or(0);
    if mask == 0 || bits.wrapping_add(1) & bits != 0 {
        return Err(source.wrong("datapath.path_mark", "must be bits side by side, such as 0x07000000"));
    }
    if mask & (datapath.mark | ASSOCIATION_MARK) != 0 {
        return Err(source.wrong("datapath.path_mark", "has bits of datapath.mark or of signalling associations' mark (0x50420003)"));
    }
    for (place, path) in paths.iter().enumerate() {
        let wrong = |key: &str, message: &str| Err(source.wrong(&format!("path.{place}.{key}"), message));
        let number = u8::try_from(place.saturating_add(1)).unwrap_or(u8::MAX);
        if usize::from(number) > PATHS || mark(mask, number) == 0 {
            return wrong("name", "is one path more than datapath.path_mark has numbers for");
        }
        if path.name.is_empty() || paths.iter().take(place).any(|other| other.name == path.name) {
            return wrong("name", "must be there and differ from the others'");
        }
        if path.interface.is_empty() || path.interface.len() > LONGEST_INTERFACE {
            return wrong("interface", "is no name of an interface");
        }
        if path.via.is_some_and(|via| path.covers().addr().is_ipv4() != via.is_ipv4()) {
            return wrong("destination", "is not of the IP version of via");
        }
    }
    Ok(())
}

/// The kernel's limit (`IFNAMSIZ`, without the last octet).
const LONGEST_INTERFACE: usize = 15;
