//! Another next hop or uplink of this host, with the same source address.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use gist::time::Instant;
use pbs_nslp::host::Host;
use traffic::netlink::NetlinkError;
use traffic::paths::{Finding, Neighbours, NextHop, NextHops};

use super::{Look, Strategy};

/// How often a neighbour is asked whether it is there: a dead one is known after this and the kernel's three questions, 6 s in all.
const ASK: Duration = Duration::from_secs(3);

/// A way by a neighbour, or simply by a link.
pub(super) struct ByNextHop {
    path: u8,
    interface: String,
    via: Option<IpAddr>,
    neighbours: Neighbours,
    hops: NextHops,
    asked_at: Option<Instant>,
    /// The last verdict; it stands while the neighbour is being asked.
    live: bool,
}

impl ByNextHop {
    pub(super) fn open(interface: &str, via: Option<IpAddr>, number: u8, mask: u32) -> Result<Self, NetlinkError> {
        Ok(Self {
            path: number,
            interface: interface.to_owned(),
            via,
            neighbours: Neighbours::open()?,
            hops: NextHops::open(mask)?,
            asked_at: None,
            live: false,
        })
    }

    fn find(&mut self, now: Instant) -> Result<bool, NetlinkError> {
        let Some(link) = self.neighbours.link(&self.interface)? else {
            return Ok(false);
        };
        let Some(via) = self.via else {
            return Ok(true);
        };
        let found = self.neighbours.find(link, via)?;
        if self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= ASK) {
            self.asked_at = Some(now);
            self.neighbours.ask(link, via)?;
        }
        Ok(match found {
            Finding::Answers => true,
            Finding::Doubtful => self.live,
            Finding::Gone => false,
        })
    }
}

impl Strategy for ByNextHop {
    fn look(&mut self, _: &mut Host, now: Instant) -> Look {
        self.live = self.find(now).unwrap_or_else(|error| {
            tracing::debug!(interface = self.interface, %error, "nobody knows whether the next hop lives");
            false
        });
        Look { live: self.live, distance: None }
    }

    fn set_up(&mut self) -> Result<(), String> {
        let link = self.neighbours.link(&self.interface).map_err(|error| error.to_string())?;
        let link = link.ok_or_else(|| format!("{} is down", self.interface))?;
        self.hops.set_up(NextHop { path: self.path, link, via: self.via }).map_err(|error| error.to_string())
    }

    fn take_down(&mut self) -> Result<(), String> {
        self.hops.take_down(self.path).map_err(|error| error.to_string())
    }

    fn narrow(&mut self, destination: Ipv6Addr, mtu: u32) -> Result<(), String> {
        self.hops.narrow(self.path, destination, mtu).map(drop).map_err(|error| error.to_string())
    }
}
