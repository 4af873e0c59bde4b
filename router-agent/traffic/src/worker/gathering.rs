//! Letting packets gather: where many come one at a time, a short rest makes them come together, and what a call costs is shared.
//!
//! A packet that comes alone costs four calls: one that waits, one that brings it, one that takes its verdict, one that finds nothing
//! more. Above [`OFTEN`] packets a second the thread does not wait for the next one but sleeps a little and then takes what is there.
//! Below that rate nothing ever rests, and a rest that brought nothing is the last.
//!
//! To wake up costs some twenty microseconds of a virtual processor's time, since nothing is at hand that the last turn has used: so a rest
//! is as long as whoever waits may be kept waiting ([`ROUTER_REST`](crate::queue::ROUTER_REST)), and only as much shorter as the queue
//! demands, of which it fills a quarter at most.

use std::time::Duration;

use smoltcp::time::Instant;

/// Packets a second from which on the thread rests.
const OFTEN: u64 = 20_000;
/// The part of the queue's places that packets may take up during a rest.
const SHARE: u64 = 4;
/// The rate is that of so many microseconds at least, so that a few packets at once are not taken for a stream.
const SPAN: u64 = 2000;

/// Whether to rest, by what has come lately.
#[derive(Debug)]
pub(super) struct Gathering {
    /// How long a rest is at the most; zero for none ever.
    rest: Duration,
    /// Packets that may come during one.
    room: u64,
    /// How long it takes at the rate of late until so many have come, in microseconds.
    lasts: u64,
    since: Instant,
    packets: u64,
    is_often: bool,
    /// Whether the thread has rested since packets came last.
    has_rested: bool,
}

impl Gathering {
    /// For a queue of `capacity` packets.
    pub(super) const fn new(rest: Duration, capacity: u32) -> Self {
        let room = capacity as u64 / SHARE;
        Self { rest, room, lasts: 0, since: Instant::ZERO, packets: 0, is_often: false, has_rested: false }
    }

    /// So many packets have come with one call.
    pub(super) fn note(&mut self, packets: usize, now: Instant) {
        if self.rest.is_zero() {
            return;
        }
        self.has_rested = false;
        self.packets = self.packets.saturating_add(packets as u64);
        let passed = u64::try_from(now.total_micros() - self.since.total_micros()).unwrap_or(0);
        if passed >= SPAN {
            self.is_often = self.packets.saturating_mul(1_000_000) >= OFTEN.saturating_mul(passed);
            self.lasts = self.room.saturating_mul(passed).checked_div(self.packets).unwrap_or(u64::MAX);
            (self.packets, self.since) = (0, now);
        }
    }

    /// How long to rest now that nothing is left to be received; `None` for waiting until there is.
    pub(super) fn rest(&mut self) -> Option<Duration> {
        if !self.is_often || std::mem::replace(&mut self.has_rested, true) {
            self.is_often = false;
            return None;
        }
        Some(self.rest.min(Duration::from_micros(self.lasts)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: Duration = Duration::from_micros(50);

    fn after(micros: i64) -> Instant {
        Instant::from_micros(10_000_000 + micros)
    }

    /// One packet every so many microseconds; how often the thread rested.
    fn rests(gathering: &mut Gathering, apart: i64, packets: i64) -> usize {
        (0..packets)
            .filter(|packet| {
                gathering.note(1, after(packet * apart));
                gathering.rest().is_some()
            })
            .count()
    }

    #[test]
    fn what_comes_seldom_never_rests_and_what_comes_often_does_after_a_while() {
        assert_eq!(rests(&mut Gathering::new(REST, 1024), 100, 1000), 0, "10,000 a second");
        let often = rests(&mut Gathering::new(REST, 1024), 10, 1000);
        assert!((700..1000).contains(&often), "100,000 a second: {often}");
    }

    #[test]
    fn a_few_at_once_are_no_stream() {
        let mut gathering = Gathering::new(REST, 1024);
        for burst in 0..100 {
            gathering.note(30, after(burst * 5000));
            assert_eq!(gathering.rest(), None, "6000 a second");
        }
    }

    #[test]
    fn a_rest_that_brought_nothing_is_the_last_until_packets_come_often_again() {
        let mut gathering = Gathering::new(REST, 1024);
        assert!(rests(&mut gathering, 10, 1000) > 0);
        gathering.note(1, after(10_000));
        assert_eq!(gathering.rest(), Some(REST));
        assert_eq!(gathering.rest(), None);
        gathering.note(1, after(10_010));
        assert_eq!(gathering.rest(), None);
    }

    #[test]
    fn a_rest_is_so_short_that_a_quarter_of_the_queue_holds_what_comes_meanwhile() {
        let long = Duration::from_millis(1);
        for (apart, capacity, longest) in [(10, 1024, 1000), (1, 1024, 256), (10, 64, 160)] {
            let mut gathering = Gathering::new(long, capacity);
            assert!(rests(&mut gathering, apart, 10_000) > 0);
            gathering.note(1, after(10_000 * apart));
            let rest = gathering.rest().unwrap();
            assert!((longest - longest / 100..=longest).contains(&rest.as_micros()), "{rest:?}, {longest} µs");
        }
    }

    #[test]
    fn without_a_rest_nothing_rests() {
        assert_eq!(rests(&mut Gathering::new(Duration::ZERO, 1024), 10, 1000), 0);
    }
}
