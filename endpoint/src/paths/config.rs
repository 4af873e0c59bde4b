//! Entries `[[path]]` of the configuration.

use std::net::{IpAddr, Ipv4Addr};

use daemon::config::{Ports, check_network};
use daemon::protocol::Protocol;
use daemon::source::{ConfigError, Source};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use traffic::paths::{PATHS, mark};
use traffic::rules::ASSOCIATION_MARK;
use traffic::tunnel::{IPV4_INSIDE, IPV6_INSIDE};

use crate::config::{Ask, Datapath};

/// One other way out: by a link, or over a relay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Path {
    /// Name in logs and status.
    pub name: String,
    /// The link that packets leave by; not over a relay.
    pub interface: Option<String>,
    /// The next hop on it; without one, every destination is on the link.
    pub via: Option<IpAddr>,
    /// The relay that packets are sent to, each in another one.
    pub relay: Option<IpAddr>,
    /// Bytes to ask the relay for at a time, and only there.
    pub volume: Option<u64>,
    /// Which destinations can be reached; every one of the next hop's or relay's IP version if left out, and without either every
    /// IPv4 one.
    pub destination: Option<IpNet>,
}

/// Where a way leads, as the keys say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead<'a> {
    /// By a link, to a next hop on it or to everybody.
    Link { interface: &'a str, via: Option<IpAddr> },
    /// Over a relay, which is asked for so many bytes at a time.
    Relay { address: IpAddr, volume: u64 },
}

impl Path {
    /// The destinations that can be reached.
    pub(crate) fn covers(&self) -> IpNet {
        let all = match self.via.or(self.relay).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
            IpAddr::V4(_) => Ipv4Net::default().into(),
            IpAddr::V6(_) => Ipv6Net::default().into(),
        };
        self.destination.unwrap_or(all)
    }

    /// Where it leads; `None` of an entry that [`check`] refuses.
    pub(crate) fn lead(&self) -> Option<Lead<'_>> {
        match (&self.interface, self.relay, self.volume) {
            (Some(interface), None, None) => Some(Lead::Link { interface, via: self.via }),
            (None, Some(address), Some(volume)) if self.via.is_none() => Some(Lead::Relay { address, volume }),
            _ => None,
        }
    }
}

/// The flows to relays, which ask for permissions as those of `[[ask]]` do.
pub(crate) fn asks(paths: &[Path]) -> Vec<Ask> {
    let ask = |path: &Path| match path.lead()? {
        Lead::Relay { address, volume } => {
            let protocol = if address.is_ipv4() { IPV4_INSIDE } else { IPV6_INSIDE };
            let (destination_ports, signed, mac) = (Ports::ANY, false, None);
            Some(Ask { destination: address.into(), protocol: Some(Protocol(protocol)), destination_ports, volume, signed, mac })
        }
        Lead::Link { .. } => None,
    };
    paths.iter().filter_map(ask).collect()
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
        let at = |key: &str| format!("path.{place}.{key}");
        let wrong = |key: &str, message: &str| Err(source.wrong(&at(key), message));
        let number = u8::try_from(place.saturating_add(1)).unwrap_or(u8::MAX);
        if usize::from(number) > PATHS || mark(mask, number) == 0 {
            return wrong("name", "is one path more than datapath.path_mark has numbers for");
        }
        let before = || paths.iter().take(place);
        if path.name.is_empty() || before().any(|other| other.name == path.name) {
            return wrong("name", "must be there and differ from the others'");
        }
        match path.relay {
            Some(relay) => check_relay(path, relay, before().any(|other| other.relay == path.relay)),
            None => check_link(path),
        }
        .or_else(|(key, message)| wrong(key, message))?;
        if path.via.or(path.relay).is_some_and(|next| path.covers().addr().is_ipv4() != next.is_ipv4()) {
            return wrong("destination", if path.relay.is_some() { OF_RELAY } else { "is not of the IP version of via" });
        }
        if let Some(destination) = &path.destination {
            check_network(&at("destination"), destination, source)?;
        }
    }
    Ok(())
}

type Fault = (&'static str, &'static str);

fn check_link(path: &Path) -> Result<(), Fault> {
    let Some(interface) = &path.interface else { return Err(("name", "has neither an interface nor a relay to lead to")) };
    if interface.is_empty() || interface.len() > LONGEST_INTERFACE {
        return Err(("interface", "is no name of an interface"));
    }
    if path.volume.is_some() {
        return Err(("volume", "is asked of relays only"));
    }
    Ok(())
}

fn check_relay(path: &Path, relay: IpAddr, is_known: bool) -> Result<(), Fault> {
    if path.interface.is_some() {
        return Err(("interface", "cannot be there beside relay: what goes to the relay is routed as all else"));
    }
    if path.via.is_some() {
        return Err(("via", "cannot be there beside relay: what goes to the relay is routed as all else"));
    }
    if relay.is_unspecified() || relay.is_loopback() || relay.is_multicast() || relay == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(("relay", "is not the address of another host"));
    }
    if is_known {
        return Err(("relay", "is another path's already"));
    }
    match path.volume {
        None => Err(("relay", "needs volume beside it: bytes to ask it for at a time")),
        Some(0) => Err(("volume", "0 asks for nothing")),
        Some(_) => Ok(()),
    }
}

const OF_RELAY: &str = "is not of the IP version of relay";
/// The kernel's limit (`IFNAMSIZ`, without the last octet).
const LONGEST_INTERFACE: usize = 15;
