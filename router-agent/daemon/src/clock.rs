//! The clocks of a daemon: one monotonic clock for signalling and packets, and the wall clock for message numbers.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the daemon started, in the value types of both sides.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    /// A clock that shows 0 now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// What the clock shows, for signalling.
    pub fn now(self) -> gist::time::Instant {
        gist::time::Instant::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// The moment at which the clock will show `instant`.
    pub fn at(self, instant: gist::time::Instant) -> Instant {
        self.0 + instant.saturating_duration_since(gist::time::Instant::ZERO)
    }

    /// The same clock for the packet side.
    pub fn for_packets(self) -> traffic::worker::Clock {
        traffic::worker::Clock::new(self.0)
    }
}

/// Waits until the wall clock's next second has begun, so that whoever has been restarted within the second of its last signed
/// message does not use that message's number again. It takes a second at most.
pub async fn next_second() {
    tokio::time::sleep(until_next_second(since_1970())).await;
}

fn until_next_second(since_1970: Duration) -> Duration {
    Duration::from_secs(1).saturating_sub(Duration::from_nanos(since_1970.subsec_nanos().into()))
}

/// Seconds since 1970, 0 if the wall clock stands before that (message numbers then lie outside every window: fail closed).
pub fn unix_seconds() -> u64 {
    since_1970().as_secs()
}

#[allow(clippy::disallowed_methods)]
fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restarted_node_begins_with_a_second_of_its_own() {
        for (now, next) in [(5_300, 6_000), (5_999, 6_000), (5_001, 6_000), (5_000, 6_000)].map(|(a, b)| (Duration::from_millis(a), b)) {
            assert_eq!((now + until_next_second(now)).as_millis(), next);
        }
    }

    #[tokio::test]
    async fn it_waits_for_a_second_at_most() {
        let (second, start) = (unix_seconds(), Instant::now());
        next_second().await;
        assert!(unix_seconds() > second);
        assert!(start.elapsed() < Duration::from_millis(1500), "{:?}", start.elapsed());
    }
}
