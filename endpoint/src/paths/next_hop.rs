//! Another next hop or uplink of this host, with the same source address.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use gist::time::Instant;
use pbs_nslp::host::Host;
use traffic::icmp::Room;
use traffic::netlink::NetlinkError;
use traffic::paths::{Finding, Neighbours, NextHop, NextHops};
use traffic::routes::LinkMtu;

use super::{LEAST_IPV4, LEAST_IPV6, Look, Path, Strategy};

/// How often a neighbour is asked whether it is there: a dead one is known after this and the kernel's three questions, 6 s in all.
const ASK: Duration = Duration::from_secs(3);

/// A way by a neighbour, or simply by a link.
pub(super) struct ByNextHop {
    path: u8,
    interface: String,
    via: Option<IpAddr>,
    neighbours: Neighbours,
    links: LinkMtu,
    hops: NextHops,
    is_ipv6: bool,
    /// What the link has to carry at the least, and what it carries.
    least: u32,
    mtu: Option<u32>,
    asked_at: Option<Instant>,
    /// The last verdict; it stands while the neighbour is being asked.
    live: bool,
}

impl ByNextHop {
    /// `room` is what AH may come to take.
    pub(super) fn open(
        path: &Path,
        (interface, via): (&str, Option<IpAddr>),
        (number, mask): (u8, u32),
        room: Room,
    ) -> Result<Self, NetlinkError> {
        let is_ipv6 = path.covers().addr().is_ipv6();
        Ok(Self {
            path: number,
            interface: interface.to_owned(),
            via,
            neighbours: Neighbours::open()?,
            links: LinkMtu::open()?,
            hops: NextHops::open(mask)?,
            is_ipv6,
            least: if is_ipv6 { LEAST_IPV6.saturating_add(room.ipv6) } else { LEAST_IPV4.saturating_add(room.ipv4) },
            mtu: None,
            asked_at: None,
            live: false,
        })
    }

    fn find(&mut self, now: Instant) -> Result<bool, NetlinkError> {
        let Some(link) = self.neighbours.link(&self.interface)? else {
            return Ok(false);
        };
        if !self.carries_enough(link)? {
            return Ok(false);
        }
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

impl ByNextHop {
    /// A connection of a flow that moves goes on with shorter packets where its way carries less, but no shorter than these.
    fn carries_enough(&mut self, link: u32) -> Result<bool, NetlinkError> {
        let mtu = self.links.of(link, self.is_ipv6)?;
        if let Some(mtu) = mtu.filter(|_| mtu != self.mtu) {
            let (interface, least) = (self.interface.as_str(), self.least);
            if mtu < least {
                tracing::warn!(interface, mtu, least, "carries too little for a flow that moves: no way out");
            } else {
                tracing::debug!(interface, mtu, "what another way out carries");
            }
        }
        self.mtu = mtu;
        Ok(mtu.is_some_and(|mtu| mtu >= self.least))
    }
}

impl Strategy for ByNextHop {
    fn look(&mut self, _: &mut Host, _: bool, now: Instant) -> Look {
        self.live = self.find(now).unwrap_or_else(|error| {
            tracing::debug!(interface = self.interface, %error, "nobody knows whether the next hop lives");
            false
        });
        Look { live: self.live, is_lost: false, distance: None }
    }

    fn set_up(&mut self) -> Result<(), String> {
        let link = self.neighbours.link(&self.interface).map_err(|error| error.to_string())?;
        let link = link.ok_or_else(|| format!("{} is down", self.interface))?;
        self.hops.set_up(NextHop { path: self.path, link, via: self.via }).map_err(|error| error.to_string())
    }

    fn take_down(&mut self) -> Result<(), String> {
        self.hops.take_down(self.path).map_err(|error| error.to_string())
    }

    fn mtu(&self) -> Option<u32> {
        self.mtu
    }

    fn narrow(&mut self, destination: Ipv6Addr, mtu: u32) -> Result<(), String> {
        self.hops.narrow(self.path, destination, mtu).map(drop).map_err(|error| error.to_string())
    }
}
