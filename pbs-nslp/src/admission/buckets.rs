//! Token buckets, one for each peer or source.

use core::time::Duration;
use std::collections::BTreeMap;

use gist::api::Principal;
use gist::time::Instant;

use crate::shares::{Counts, FREE_SHARE};

/// How often something may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// Times a second in the long run.
    pub per_second: u32,
    /// Times at once.
    pub burst: u32,
}

/// Buckets that fill at one rate. All names without a bucket of their own share one when the table is full.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Buckets<K> {
    rate: Rate,
    limit: usize,
    buckets: BTreeMap<K, Bucket>,
    shared: Bucket,
    swept_at: Instant,
}

/// What is left, in microseconds of filling: one event costs `1 s / per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Bucket {
    left: u64,
    /// What was taken though it was not there.
    owed: u64,
    filled_at: Instant,
}

const SECOND: u64 = 1_000_000;

/// How often full buckets are looked for when the table is full.
const SWEEP: Duration = Duration::from_secs(1);

impl<K: Ord + Clone> Buckets<K> {
    /// At most `limit` names have a bucket of their own.
    pub(crate) fn new(rate: Rate, limit: usize) -> Self {
        let shared = Bucket { left: capacity(rate), owed: 0, filled_at: Instant::ZERO };
        Self { rate, limit, buckets: BTreeMap::new(), shared, swept_at: Instant::ZERO }
    }

    /// Takes one token; false if there is none.
    pub(crate) fn take(&mut self, name: &K, now: Instant) -> bool {
        self.take_many(name, 1, now)
    }

    /// Takes so many tokens, or none and gives false. More than the bucket holds at once count as a full one.
    pub(crate) fn take_many(&mut self, name: &K, tokens: u32, now: Instant) -> bool {
        let rate = self.rate;
        if let Some(bucket) = self.buckets.get_mut(name) {
            return bucket.take(rate, tokens, now);
        }
        if self.buckets.len() >= self.limit {
            self.sweep(now);
        }
        if self.buckets.len() >= self.limit {
            return self.shared.take(rate, tokens, now);
        }
        let mut bucket = Bucket { left: capacity(rate), owed: 0, filled_at: now };
        let taken = bucket.take(rate, tokens, now);
        self.buckets.insert(name.clone(), bucket);
        taken
    }

    /// Takes tokens that are not to be refused, also if there are none: then they are owed, up to as many as a bucket holds.
    pub(crate) fn charge(&mut self, name: &K, tokens: u32, now: Instant) {
        let rate = self.rate;
        match self.buckets.get_mut(name) {
            Some(bucket) => bucket.charge(rate, tokens, now),
            None => drop(self.take_many(name, tokens, now)),
        }
    }

    /// Forgets the buckets that are full again.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = now;
        let rate = self.rate;
        self.buckets.retain(|_, bucket| {
            bucket.fill(rate, now);
            bucket.left < capacity(rate)
        });
    }
}

/// Buckets of those whom the messages of a peer name, such that no peer takes up the buckets of all: names beyond a peer's part
/// share one bucket of that peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NamedBuckets<K> {
    rate: Rate,
    limit: usize,
    buckets: BTreeMap<(Principal, K), Bucket>,
    counts: Counts<Principal>,
    others: Buckets<Principal>,
    swept_at: Instant,
}

impl<K: Ord + Clone> NamedBuckets<K> {
    /// At most `limit` names have a bucket of their own, and at most as many peers one for all other names.
    pub(crate) fn new(rate: Rate, limit: usize) -> Self {
        let (buckets, counts) = Default::default();
        Self { rate, limit, buckets, counts, others: Buckets::new(rate, limit), swept_at: Instant::ZERO }
    }

    /// Takes so many tokens, or none and gives false.
    pub(crate) fn take_many(&mut self, peer: Principal, name: &K, tokens: u32, now: Instant) -> bool {
        let (rate, name) = (self.rate, (peer, name.clone()));
        if let Some(bucket) = self.buckets.get_mut(&name) {
            return bucket.take(rate, tokens, now);
        }
        if !self.has_room(peer) {
            self.sweep(now);
        }
        if !self.has_room(peer) {
            return self.others.take_many(&peer, tokens, now);
        }
        let mut bucket = Bucket { left: capacity(rate), owed: 0, filled_at: now };
        let taken = bucket.take(rate, tokens, now);
        self.buckets.insert(name, bucket);
        self.counts.add(peer);
        taken
    }

    fn has_room(&self, peer: Principal) -> bool {
        self.counts.of(&peer) < self.limit.saturating_sub(self.counts.total()).saturating_mul(FREE_SHARE)
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept_at) < SWEEP {
            return;
        }
        self.swept_at = now;
        let (rate, counts) = (self.rate, &mut self.counts);
        self.buckets.retain(|(peer, _), bucket| {
            bucket.fill(rate, now);
            let is_in_use = bucket.left < capacity(rate);
            if !is_in_use {
                counts.remove(peer);
            }
            is_in_use
        });
    }
}

impl Bucket {
    fn fill(&mut self, rate: Rate, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at);
        let elapsed = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let paid = elapsed.min(self.owed);
        self.owed = self.owed.saturating_sub(paid);
        self.left = self.left.saturating_add(elapsed.saturating_sub(paid)).min(capacity(rate));
        self.filled_at = now;
    }

    fn charge(&mut self, rate: Rate, tokens: u32, now: Instant) {
        self.fill(rate, now);
        let cost = cost(rate).saturating_mul(u64::from(tokens));
        self.owed = self.owed.saturating_add(cost.saturating_sub(self.left)).min(capacity(rate));
        self.left = self.left.saturating_sub(cost);
    }

    fn take(&mut self, rate: Rate, tokens: u32, now: Instant) -> bool {
        self.fill(rate, now);
        let cost = cost(rate).saturating_mul(u64::from(tokens)).min(capacity(rate)).max(1);
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

fn cost(rate: Rate) -> u64 {
    SECOND / u64::from(rate.per_second.max(1))
}

fn capacity(rate: Rate) -> u64 {
    cost(rate).saturating_mul(u64::from(rate.burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut buckets = Buckets::new(Rate { per_second: 10, burst: 20 }, 2);
        let start = Instant::from_micros(SECOND);
        assert_eq!((0..30).filter(|_| buckets.take(&1, start)).count(), 20);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..30).filter(|_| buckets.take(&1, later)).count(), 10);
    }

    #[test]
    fn names_beyond_the_limit_share_one_bucket() {
        let mut buckets = Buckets::new(Rate { per_second: 1, burst: 1 }, 1);
        let start = Instant::from_micros(10 * SECOND);
        assert!(buckets.take(&1, start));
        assert!(buckets.take(&2, start), "the shared bucket");
        assert!(!buckets.take(&3, start));
        let later = start + Duration::from_secs(2);
        assert!(buckets.take(&3, later), "the first bucket was full again and made room");
        assert_eq!(buckets.buckets.len(), 1);
    }

    #[test]
    fn what_costs_more_takes_more_tokens_and_what_costs_too_much_a_full_bucket() {
        let mut buckets = Buckets::new(Rate { per_second: 10, burst: 20 }, 2);
        let start = Instant::from_micros(SECOND);
        assert_eq!((0..30).filter(|_| buckets.take_many(&1, 6, start)).count(), 3);
        assert!(buckets.take_many(&2, 1000, start));
        assert!(!buckets.take(&2, start));
    }

    #[test]
    fn a_bucket_that_holds_nothing_gives_nothing() {
        let mut buckets = Buckets::new(Rate { per_second: 10, burst: 0 }, 2);
        assert!(!buckets.take(&1, Instant::from_micros(SECOND)));
    }

    #[test]
    fn a_peer_with_too_many_names_leaves_buckets_for_the_names_of_others() {
        let peer = |name| Principal([name; 32]);
        let mut buckets = NamedBuckets::new(Rate { per_second: 1, burst: 2 }, 8);
        let start = Instant::from_micros(10 * SECOND);
        assert_eq!((0..100).filter(|name| buckets.take_many(peer(1), name, 1, start)).count(), 6 + 2, "six of its own, then one for all");
        assert!(buckets.take_many(peer(2), &1, 2, start), "a full bucket");
        assert_eq!((buckets.buckets.len(), buckets.counts.total()), (7, 7));
        let later = start + Duration::from_secs(10);
        assert!(buckets.take_many(peer(1), &100, 1, later), "those that were full again made room");
        assert_eq!((buckets.buckets.len(), buckets.counts.total()), (1, 1));
    }
}
