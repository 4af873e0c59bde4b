//! One token bucket for every D-mode message this node makes (RFC 5971 §5.3.3, G-202…G-205).

use core::time::Duration;
use std::collections::VecDeque;

use super::{DatagramRate, Transmit};
use crate::time::Instant;

/// One datagram, in the bucket's unit.
const TOKEN: u64 = 1_000_000;

/// What the datagram is to the node; a flood of Queries must not keep it from asking its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Something of its own: waits if it must.
    Own,
    /// An answer to something received: a quarter of the bucket is not for it, and it never waits, since whoever asked asks again.
    Answer,
}

/// What became of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    Send(Transmit),
    Wait,
    Drop,
}

/// The bucket and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RateLimiter {
    rate: DatagramRate,
    cap: usize,
    filled: u64,
    updated: Instant,
    waiting: VecDeque<Transmit>,
}

impl RateLimiter {
    /// A full bucket; at most `cap` datagrams wait.
    pub(super) fn new(rate: DatagramRate, cap: usize) -> Self {
        let rate = DatagramRate { per_second: rate.per_second.max(1), burst: rate.burst.max(1) };
        Self { rate, cap, filled: u64::from(rate.burst) * TOKEN, updated: Instant::ZERO, waiting: VecDeque::new() }
    }

    pub(super) fn submit(&mut self, datagram: Transmit, purpose: Purpose, now: Instant) -> Admission {
        if self.admit(purpose, now) {
            return Admission::Send(datagram);
        }
        if purpose == Purpose::Answer || self.waiting.len() >= self.cap {
            return Admission::Drop;
        }
        self.waiting.push_back(datagram);
        Admission::Wait
    }

    /// Takes a token for something that cannot wait; `false` if there is none.
    pub(super) fn admit(&mut self, purpose: Purpose, now: Instant) -> bool {
        self.fill(now);
        let reserve = match purpose {
            Purpose::Own => 0,
            Purpose::Answer => u64::from(self.rate.burst) * TOKEN / 4,
        };
        let admitted = self.waiting.is_empty() && self.filled >= reserve + TOKEN;
        if admitted {
            self.filled -= TOKEN;
        }
        admitted
    }

    /// The next waiting datagram that may go now.
    pub(super) fn release(&mut self, now: Instant) -> Option<Transmit> {
        self.fill(now);
        if self.filled < TOKEN {
            return None;
        }
        let datagram = self.waiting.pop_front()?;
        self.filled -= TOKEN;
        Some(datagram)
    }

    /// When the first waiting datagram may go; `None` if none waits.
    pub(super) fn next_release(&self) -> Option<Instant> {
        self.waiting.front()?;
        let missing = TOKEN.saturating_sub(self.filled);
        let micros = missing.div_ceil(u64::from(self.rate.per_second));
        Some(self.updated + Duration::from_micros(micros))
    }

    /// Datagrams a second.
    pub(super) fn per_second(&self) -> u32 {
        self.rate.per_second
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.updated).as_micros();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        let gained = elapsed.saturating_mul(u64::from(self.rate.per_second));
        self.filled = self.filled.saturating_add(gained).min(u64::from(self.rate.burst) * TOKEN);
        self.updated = self.updated.max(now);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn datagram() -> Transmit {
        Transmit::Normal { destination: "10.0.0.1:270".parse().unwrap(), source: None, payload: Bytes::new() }
    }

    /// G-203: waits for a token, leaves in time.
    #[test]
    fn what_exceeds_the_burst_waits_for_its_token() {
        let mut limiter = RateLimiter::new(DatagramRate { per_second: 10, burst: 2 }, 1);
        let now = Instant::from_micros(5);
        assert_eq!(limiter.submit(datagram(), Purpose::Own, now), Admission::Send(datagram()));
        assert_eq!(limiter.submit(datagram(), Purpose::Own, now), Admission::Send(datagram()));
        assert_eq!(limiter.submit(datagram(), Purpose::Own, now), Admission::Wait);
        assert_eq!(limiter.submit(datagram(), Purpose::Own, now), Admission::Drop);
        assert_eq!(limiter.next_release(), Some(Instant::from_micros(100_005)));
        assert_eq!(limiter.release(Instant::from_micros(100_004)), None);
        assert_eq!(limiter.release(Instant::from_micros(100_005)), Some(datagram()));
        assert_eq!(limiter.next_release(), None);
    }

    #[test]
    fn answers_leave_a_quarter_of_the_bucket_to_the_nodes_own_queries() {
        let mut limiter = RateLimiter::new(DatagramRate { per_second: 1, burst: 8 }, 4);
        let answered = (0..100).filter(|_| limiter.submit(datagram(), Purpose::Answer, Instant::ZERO) != Admission::Drop).count();
        assert_eq!(answered, 6);
        assert!(matches!(limiter.submit(datagram(), Purpose::Own, Instant::ZERO), Admission::Send(_)));
    }

    proptest! {
        /// G-204: never more than the burst and the mean rate allow.
        #[test]
        fn the_bucket_bounds_any_interval(gaps in proptest::collection::vec(0_u64..200_000, 1..200)) {
            let rate = DatagramRate { per_second: 20, burst: 5 };
            let mut limiter = RateLimiter::new(rate, 1000);
            let (mut now, mut sent) = (Instant::ZERO, 0_u64);
            for gap in gaps {
                now += Duration::from_micros(gap);
                if matches!(limiter.submit(datagram(), Purpose::Own, now), Admission::Send(_)) {
                    sent += 1;
                }
                while limiter.release(now).is_some() {
                    sent += 1;
                }
                prop_assert!(sent * TOKEN <= u64::from(rate.burst) * TOKEN + now.micros() * u64::from(rate.per_second));
            }
        }
    }
}
