//! The permission tables: what may come in or pass through, by destination and SPI; what may go out, by flow.
//!
//! Permissions at a router or receiver are made to be many: up to a million take at most 512 octets each, with window and MAC state
//! (`entries.rs`).
//!
//! A table is owned by one processor; nobody else sees it. Every table has a cap, and a full one refuses new
//! entries: none makes room for another (INV-12). Of an association that goes, its end is remembered (`ended.rs`).

pub(crate) mod carried;
mod due;
mod ended;
mod entries;
mod entry;
pub mod inbound;
pub mod outbound;

use std::collections::BTreeSet;

use smoltcp::time::{Duration, Instant};

/// Default cap of a table, in permissions.
pub const DEFAULT_CAPACITY: usize = 65_536;

/// How long an entry stays after its end, so that late packets are dropped as expired and not as unknown. Signalling
/// removes it earlier; this is for the case that signalling is gone.
pub const LINGER: Duration = Duration::from_secs(10);

/// At most one report about the same permission in this time.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// When which entry is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Deadlines<K>(BTreeSet<(Instant, K)>);

impl<K: Ord + Copy> Deadlines<K> {
    const fn new() -> Self {
        Self(BTreeSet::new())
    }

    fn set(&mut self, key: K, ends_at: Instant) {
        self.0.insert((after(ends_at, LINGER), key));
    }

    fn clear(&mut self, key: K, ends_at: Instant) {
        self.0.remove(&(after(ends_at, LINGER), key));
    }

    fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.0.pop_first().map(|(_, key)| key)
    }
}

/// Whether a report is due again, given when the last one was made.
fn report_due(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now >= after(last, REPORT_INTERVAL))
}

/// A while after an instant; the end of time is its own successor, since a permission may end there.
pub(crate) fn after(instant: Instant, span: Duration) -> Instant {
    let micros = i64::try_from(span.total_micros()).unwrap_or(i64::MAX);
    Instant::from_micros(instant.total_micros().saturating_add(micros))
}
