//! What the kernel counts about a queue, whoever listens to it.

use std::io;
use std::path::Path;

/// The kernel's counters of a queue since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KernelStatistics {
    /// Packets that wait for a verdict now.
    pub waiting: u64,
    /// Packets dropped because the queue was full.
    pub dropped_queue_full: u64,
    /// Packets dropped because the socket buffer was full.
    pub dropped_socket_full: u64,
}

impl KernelStatistics {
    /// Packets dropped for want of room, whichever.
    pub const fn dropped(&self) -> u64 {
        self.dropped_queue_full.saturating_add(self.dropped_socket_full)
    }

    /// Those of two queues.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            waiting: self.waiting.saturating_add(other.waiting),
            dropped_queue_full: self.dropped_queue_full.saturating_add(other.dropped_queue_full),
            dropped_socket_full: self.dropped_socket_full.saturating_add(other.dropped_socket_full),
        }
    }
}

/// Reads the counters of queue `number` in the calling thread's network namespace; `None` if nobody listens to it.
pub fn kernel_statistics(number: u16) -> io::Result<Option<KernelStatistics>> {
    let path = Path::new("/proc/thread-self/net/netfilter/nfnetlink_queue");
    Ok(std::fs::read_to_string(path)?.lines().find_map(|line| parse(line, number)))
}

/// Columns: number, port, waiting, copy mode, copy range, dropped (queue full), dropped (socket full), next id, 1.
fn parse(line: &str, number: u16) -> Option<KernelStatistics> {
    let mut columns = line.split_whitespace().map(str::parse::<u64>);
    let mut next = || columns.next()?.ok();
    if next()? != u64::from(number) {
        return None;
    }
    let (_port, waiting, _mode, _range) = (next()?, next()?, next()?, next()?);
    Some(KernelStatistics { waiting, dropped_queue_full: next()?, dropped_socket_full: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_read_by_its_columns() {
        let line = "    3 2345678     1 2 65531     4     5       99  1";
        let expected = KernelStatistics { waiting: 1, dropped_queue_full: 4, dropped_socket_full: 5 };
        assert_eq!(parse(line, 3), Some(expected));
        assert_eq!(parse(line, 4), None);
        assert_eq!(parse("", 3), None);
    }
}
