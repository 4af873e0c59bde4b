//! A peer's token bucket, divided fairly among those who sign the messages that it brings.

use core::time::Duration;
use std::collections::BTreeMap;

use gist::api::Principal;
use gist::time::Instant;

use super::buckets::{Buckets, Rate};
use crate::shares::{Counts, FREE_SHARE};

/// One bucket for each peer, of which each of its signers has its equal part for certain, and what the others leave besides.
///
/// Without parts a few hosts behind a router could use up what it may bring of all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SharedBuckets {
    rate: Rate,
    limit: usize,
    peers: Buckets<Principal>,
    parts: BTreeMap<(Principal, [u8; 32]), Part>,
    /// How many parts each peer's bucket has.
    counts: Counts<Principal>,
    swept_at: Instant,
}

/// What is left of a signer's part, in millionths of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Part {
    left: u64,
    filled_at: Instant,
}

/// Parts of a token.
const TOKEN: u64 = 1_000_000;

/// Tokens that a signer has at its first message: enough for one that costs much to verify. A certificate costs a peer more.
const FIRST: u64 = 16;

/// A signer of whom nothing was heard for so long has no part until it is heard again.
const SILENCE: Duration = Duration::from_secs(1);

impl SharedBuckets {
    /// At most `limit` signers have a part of their own. Others have what these leave.
    pub(crate) fn new(rate: Rate, limit: usize) -> Self {
        let (parts, counts) = Default::default();
        Self { rate, limit, peers: Buckets::new(rate, limit), parts, counts, swept_at: Instant::ZERO }
    }

    /// Takes so many tokens, or none and gives false.
    pub(crate) fn take_many(&mut self, peer: Principal, signer: &[u8; 32], tokens: u32, now: Instant) -> bool {
        self.sweep(now);
        let name = (peer, *signer);
        if !self.parts.contains_key(&name) && self.has_room(peer) {
            self.parts.insert(name, Part { left: FIRST.saturating_mul(TOKEN), filled_at: now });
            self.counts.add(peer);
        }
        let (rate, parts) = (self.rate, self.counts.of(&peer));
        let own = self.parts.get_mut(&name).is_some_and(|part| part.take(rate, parts, tokens, now));
        if own {
            self.peers.charge(&peer, tokens, now);
        }
        own || self.peers.take_many(&peer, tokens, now)
    }

    fn has_room(&self, peer: Principal) -> bool {
        self.counts.of(&peer) < self.limit.saturating_sub(self.counts.total()).saturating_mul(FREE_SHARE)
    }

    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept_at) < SILENCE {
            return;
        }
        self.swept_at = now;
        let counts = &mut self.counts;
        self.parts.retain(|(peer, _), part| {
            let is_heard = now.saturating_duration_since(part.filled_at) < SILENCE;
            if !is_heard {
                counts.remove(peer);
            }
            is_heard
        });
    }
}

impl Part {
    fn take(&mut self, rate: Rate, parts: usize, tokens: u32, now: Instant) -> bool {
        let parts = u64::try_from(parts.max(1)).unwrap_or(u64::MAX);
        let elapsed = u64::try_from(now.saturating_duration_since(self.filled_at).as_micros()).unwrap_or(u64::MAX);
        // A token a second is a millionth of one in a microsecond.
        let filled = self.left.saturating_add(elapsed.saturating_mul(u64::from(rate.per_second)) / parts);
        let room = u64::from(rate.burst).saturating_mul(TOKEN) / parts;
        self.left = filled.min(room.max(FIRST.saturating_mul(TOKEN)));
        self.filled_at = now;
        match self.left.checked_sub(u64::from(tokens).saturating_mul(TOKEN)) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_second: 5000, burst: 5000 };
    const ROUTER: Principal = Principal([1; 32]);

    /// Ten seconds of six signers with 1000 messages a second each, and of one that signs a message in each. How many of the greedy
    /// and of the other pass.
    fn flood(mut take: impl FnMut(&[u8; 32], Instant) -> bool) -> (usize, usize) {
        let (mut greedy, mut modest) = (0, 0);
        for millisecond in 0..10_000 {
            let now = Instant::from_micros(10_000_000 + millisecond * 1000);
            greedy += (10..16).filter(|signer| take(&[*signer; 32], now)).count();
            // Behind the others, when the bucket has just been emptied.
            modest += usize::from(millisecond % 1000 == 999 && take(&[1; 32], now));
        }
        (greedy, modest)
    }

    #[test]
    fn a_few_signers_behind_a_router_do_not_use_up_what_it_may_bring_of_others() {
        let rate = Rate { burst: 100, ..RATE };
        let mut plain = Buckets::new(rate, 8);
        let (_, modest) = flood(|_, now| plain.take(&ROUTER, now));
        assert!(modest < 10, "without parts: {modest} of 10");
        let mut buckets = SharedBuckets::new(rate, 16);
        let (greedy, modest) = flood(|signer, now| buckets.take_many(ROUTER, signer, 1, now));
        assert_eq!(modest, 10);
        assert!(greedy > 49_000, "nothing is left unused: {greedy}");
    }

    #[test]
    fn all_signers_together_get_no_more_than_the_peers_rate_however_many_they_are() {
        for signers in [1, 5, 50, 250] {
            let mut buckets = SharedBuckets::new(RATE, 4096);
            let mut passed = 0;
            for millisecond in 0..10_000_u64 {
                let now = Instant::from_micros(10_000_000 + millisecond * 1000);
                for turn in 0..20_u64 {
                    let signer = u8::try_from((millisecond * 20 + turn) % signers).unwrap();
                    passed += u64::from(buckets.take_many(ROUTER, &[signer; 32], 1, now));
                }
            }
            let most = 5000 * 10 + 2 * 5000 + signers * FIRST;
            assert!((50_000..=most).contains(&passed), "{signers} signers: {passed}");
        }
    }

    #[test]
    fn one_signer_alone_has_all_of_it_and_a_silent_one_no_part() {
        let mut buckets = SharedBuckets::new(RATE, 8);
        let mut now = Instant::from_micros(10_000_000);
        for signer in 1..=4 {
            assert!(buckets.take_many(ROUTER, &[signer; 32], 1, now));
        }
        now += Duration::from_secs(2);
        assert_eq!((0..6000).filter(|_| buckets.take_many(ROUTER, &[1; 32], 1, now)).count(), 5000);
        assert_eq!((buckets.parts.len(), buckets.counts.total()), (1, 1));
    }

    #[test]
    fn signers_for_whom_there_is_no_part_have_what_is_left() {
        let mut buckets = SharedBuckets::new(RATE, 4);
        let now = Instant::from_micros(10_000_000);
        assert!((0..100).all(|signer| buckets.take_many(ROUTER, &[signer; 32], 1, now)));
        assert_eq!(buckets.parts.len(), 3);
    }
}
