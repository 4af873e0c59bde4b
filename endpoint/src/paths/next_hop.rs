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
/// So long after the first question a neighbour does not answer: the kernel's three questions, and a second. What it says by itself, such as
/// questions of its own, is no answer, though the kernel forgets over it that it has given up on it.
const NO_ANSWER: Duration = Duration::from_secs(4);

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
    verdict: Verdict,
}

/// What is taken for true of a neighbour; it stands while that is being asked.
#[derive(Debug, Default)]
struct Verdict {
    live: bool,
    /// The first question since the last answer.
    asked_since: Option<Instant>,
}

impl Verdict {
    fn take(&mut self, found: Finding, now: Instant) -> bool {
        self.asked_since = self.asked_since.filter(|_| found == Finding::Doubtful);
        self.live = match found {
            Finding::Answers => true,
            Finding::Doubtful => self.live && self.asked_since.is_none_or(|since| now.saturating_duration_since(since) < NO_ANSWER),
            Finding::Gone => false,
        };
        self.live
    }

    /// It is asked; what was found before is no answer to that.
    fn ask(&mut self, now: Instant) {
        self.asked_since = self.asked_since.or(Some(now));
    }
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
            verdict: Verdict::default(),
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
        let live = self.verdict.take(self.neighbours.find(link, via)?, now);
        if self.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= ASK) {
            self.asked_at = Some(now);
            self.verdict.ask(now);
            self.neighbours.ask(link, via)?;
        }
        Ok(live)
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
        let live = self.find(now).unwrap_or_else(|error| {
            tracing::debug!(interface = self.interface, %error, "nobody knows whether the next hop lives");
            false
        });
        self.verdict.live = live;
        Look { live, is_lost: false, distance: None }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// FS-36: a next hop that is heard, so that the kernel has doubts again as soon as it has given up, and answers nobody.
    #[test]
    fn a_next_hop_that_asks_and_does_not_answer_is_dead_after_four_seconds_and_lives_with_its_first_answer() {
        let mut verdict = Verdict::default();
        // Asked whenever it is looked at.
        let mut at = |millis, found| {
            let now = Instant::ZERO + Duration::from_millis(millis);
            let live = verdict.take(found, now);
            verdict.ask(now);
            live
        };
        assert!(!at(0, Finding::Doubtful), "nobody has answered yet");
        assert!(at(500, Finding::Answers));
        let live: Vec<bool> = (2..=9).map(|half| at(half * 500, Finding::Doubtful)).collect();
        assert_eq!(live, [[true; 7].as_slice(), &[false]].concat());
        assert!(!at(5000, Finding::Doubtful) && !at(6000, Finding::Gone) && !at(6500, Finding::Doubtful));
        assert!(at(7000, Finding::Answers) && at(7500, Finding::Doubtful));
        assert!(!at(8000, Finding::Gone));
    }

    /// FS-36: one of which nobody knows for a while and that has not been asked, as after it has changed its hardware address, has its four seconds
    /// from the question on.
    #[test]
    fn the_time_in_which_a_next_hop_has_to_answer_begins_with_the_question() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut verdict = Verdict::default();
        assert!(verdict.take(Finding::Answers, at(0)));
        assert!((1..=20).all(|half| verdict.take(Finding::Doubtful, at(half * 500))), "nobody has asked it");
        for question in [10_000, 13_000] {
            verdict.ask(at(question));
        }
        assert!(verdict.take(Finding::Doubtful, at(13_500)) && !verdict.take(Finding::Doubtful, at(14_000)));
        assert!(verdict.take(Finding::Answers, at(14_500)));
        verdict.ask(at(14_500));
        assert!(verdict.take(Finding::Doubtful, at(18_000)) && !verdict.take(Finding::Doubtful, at(18_500)));
    }
}
