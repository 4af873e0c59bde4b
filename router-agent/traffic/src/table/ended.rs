//! What is remembered of associations that are gone: how far their numbers and volumes had come.
//!
//! An association may come back under its SPI and key: signalling took it for ended and learns otherwise (a refresh that was
//! lost, an update that failed), while the receiver has never stopped using it. If it began anew, every packet captured
//! before would pass once more, within a volume that is used up already. So it goes on where it ended.
//!
//! X-71 lets the window of a router that joins in mid-flow begin at the first verified packet. Here that is narrowed twice:
//! a new window begins after the number N that the source's signed Query names ([`Grant::highest`]), and after the highest
//! number of the association's former life if that is more. What it costs: packets that are older than N and arrive after the
//! grant are dropped. They were under way longer than the Query and its answer, while this node had no permission for them;
//! no later packet is lost, and where the association is there already nothing is.
//!
//! What is left open: a peer that names no N (the object is not mandatory) meets X-71 as it stands at a node that has started
//! anew; and such a node takes Queries from up to 5 s before its start, so that what was sent between the Query and the
//! start passes it once more. The receiver's own window keeps both from the application.
//!
//! [`Grant::highest`]: crate::update::Grant::highest

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};

use super::after;
use super::inbound::Key;
use crate::algorithm::{Fingerprint, IcvKey};
use crate::state::Micros;

/// How long the end of an association is remembered: W and the longest TTL, within which no receiver uses its SPI for
/// another one (X-74, appendix A).
pub(super) const MEMORY: Duration = Duration::from_secs(300 + 24 * 3600);

/// How far an association has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Last {
    /// Bytes counted.
    pub(super) counted: u64,
    /// Highest number verified or used.
    pub(super) highest: u32,
}

/// An association: the same SPI with another key is another one.
type Name = (IpAddr, u32, Fingerprint);

/// The ends of associations.
///
/// At most `limit`. When it is full, the destination that has most of them loses its oldest: whoever ends many associations
/// makes nobody forget but itself. What is forgotten too early is still kept out by the N of the Query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    limit: usize,
    known: BTreeMap<Name, (Last, Instant)>,
    by_time: BTreeSet<(Instant, Name)>,
    /// Those of each destination, in the order in which they are forgotten.
    by_destination: BTreeMap<IpAddr, BTreeSet<(Instant, Name)>>,
    /// How many each destination has.
    by_count: BTreeSet<(usize, IpAddr)>,
}

impl Hash for Ended {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The other three are orders of what is known.
        let Self { limit, known, by_time: _, by_destination: _, by_count: _ } = self;
        (limit, known.len()).hash(state);
        known.iter().for_each(|(name, (last, until))| (name, last, until.in_micros()).hash(state));
    }
}

impl Ended {
    pub(super) const fn new(limit: usize) -> Self {
        Self { limit, known: BTreeMap::new(), by_time: BTreeSet::new(), by_destination: BTreeMap::new(), by_count: BTreeSet::new() }
    }

    /// Remembers an association that ends now.
    pub(super) fn remember(&mut self, (destination, spi): Key, key: &IcvKey, last: Last, now: Instant) {
        self.handle_timeout(now);
        // Without a number nothing was ever verified or used, and nothing can come again.
        if last.highest == 0 || self.limit == 0 {
            return;
        }
        if self.known.len() >= self.limit {
            self.forget_oldest_of_most();
        }
        let (name, until) = ((destination, spi, key.fingerprint()), after(now, MEMORY));
        self.known.insert(name, (last, until));
        self.by_time.insert((until, name));
        self.change(destination, |of| of.insert((until, name)));
    }

    /// Where an association begins for which the grant says `begins`: no earlier than where it ended before. It is alive then
    /// and no longer remembered.
    pub(super) fn resume(&mut self, (destination, spi): Key, key: &IcvKey, begins: Last) -> Last {
        match self.forget((destination, spi, key.fingerprint())) {
            Some(last) => Last { counted: begins.counted.max(last.counted), highest: begins.highest.max(last.highest) },
            None => begins,
        }
    }

    /// Forgets what has been remembered long enough.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(until, name)) = self.by_time.first()
            && until <= now
        {
            self.forget(name);
        }
    }

    fn forget_oldest_of_most(&mut self) {
        let most = self.by_count.last().and_then(|(_, destination)| self.by_destination.get(destination));
        if let Some(&(_, oldest)) = most.and_then(BTreeSet::first) {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, name: Name) -> Option<Last> {
        let (last, until) = self.known.remove(&name)?;
        self.by_time.remove(&(until, name));
        self.change(name.0, |of| of.remove(&(until, name)));
        Some(last)
    }

    fn change(&mut self, destination: IpAddr, change: impl FnOnce(&mut BTreeSet<(Instant, Name)>) -> bool) {
        let of = self.by_destination.entry(destination).or_default();
        let before = of.len();
        change(of);
        let count = of.len();
        if count == 0 {
            self.by_destination.remove(&destination);
        }
        self.by_count.remove(&(before, destination));
        if count > 0 {
            self.by_count.insert((count, destination));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algorithm::MacAlgorithm;

    const NOW: Instant = Instant::from_micros_const(1_000_000);
    const NOTHING: Last = Last { counted: 0, highest: 0 };
    const SOME: Last = Last { counted: 500, highest: 9 };

    fn key(octet: u8) -> IcvKey {
        IcvKey::new(MacAlgorithm::HmacSha256_128, &[octet; 32]).unwrap()
    }

    fn at(host: u8, spi: u32) -> Key {
        ([192, 0, 2, host].into(), spi)
    }

    fn is_empty(ended: &Ended) -> bool {
        ended.known.is_empty() && ended.by_time.is_empty() && ended.by_destination.is_empty() && ended.by_count.is_empty()
    }

    #[test]
    fn an_association_goes_on_where_it_ended_or_where_the_grant_says_whichever_is_later() {
        let mut ended = Ended::new(4);
        ended.remember(at(1, 300), &key(1), SOME, NOW);
        ended.remember(at(1, 300), &key(2), Last { counted: 1, highest: 1 }, NOW);
        assert_eq!(ended.resume(at(2, 300), &key(1), NOTHING), NOTHING, "another destination");
        assert_eq!(ended.resume(at(1, 301), &key(1), NOTHING), NOTHING, "another SPI");
        assert_eq!(ended.resume(at(1, 300), &key(3), NOTHING), NOTHING, "another key");
        let begins = Last { counted: 700, highest: 3 };
        assert_eq!(ended.resume(at(1, 300), &key(1), begins), Last { counted: 700, highest: 9 });
        assert_eq!(ended.resume(at(1, 300), &key(1), NOTHING), NOTHING, "it lives");
        assert_eq!(ended.resume(at(1, 300), &key(2), NOTHING), Last { counted: 1, highest: 1 });
        assert!(is_empty(&ended));
    }

    #[test]
    fn an_end_is_remembered_for_w_and_the_longest_ttl() {
        //
        let mut ended = Ended::new(4);
        ended.remember(at(1, 300), &key(1), SOME, NOW);
        ended.handle_timeout(NOW + MEMORY - Duration::from_micros(1));
        assert_eq!(ended.resume(at(1, 300), &key(1), NOTHING), SOME);
        ended.remember(at(1, 300), &key(1), SOME, NOW);
        ended.handle_timeout(NOW + MEMORY);
        assert!(is_empty(&ended));
    }

    #[test]
    fn what_was_never_used_takes_up_no_room() {
        let mut ended = Ended::new(4);
        ended.remember(at(1, 300), &key(1), NOTHING, NOW);
        assert!(is_empty(&ended));
    }

    #[test]
    fn a_destination_that_ends_many_associations_makes_only_itself_forget() {
        let mut ended = Ended::new(8);
        ended.remember(at(1, 300), &key(1), SOME, NOW);
        for spi in 0..100 {
            ended.remember(at(2, 300 + spi), &key(2), SOME, NOW + Duration::from_secs(u64::from(spi)));
        }
        assert_eq!(ended.known.len(), 8);
        assert_eq!(ended.resume(at(1, 300), &key(1), NOTHING), SOME);
        assert_eq!(ended.resume(at(2, 399), &key(2), NOTHING), SOME, "its newest are there");
        assert_eq!(ended.resume(at(2, 300), &key(2), NOTHING), NOTHING);
    }

    #[test]
    fn without_room_for_any_nothing_is_remembered() {
        let mut ended = Ended::new(0);
        ended.remember(at(1, 300), &key(1), SOME, NOW);
        assert!(is_empty(&ended));
    }
}
