//! What the workers of a direction have counted, together and each.

use serde_json::{Value, json};
use traffic::counters::{Count, Counters};
use traffic::queue::{KernelStatistics, kernel_statistics};
use traffic::reason::DropReason;
use traffic::rules::Admitted;
use traffic::worker::Faults;

use super::Datapath;
use super::lane::Lane;

impl Datapath {
    /// Counters and faults as JSON: what was accepted, what was dropped why, of all workers together; and beside that how the workers
    /// share it.
    pub fn counters(&self) -> Value {
        let sum = |of: &dyn Fn(&Counters) -> Count| self.lanes.iter().map(|lane| of(&lane.counters)).fold(Count::default(), Count::plus);
        let count = |count: Count| json!({ "packets": count.packets, "bytes": count.bytes });
        let row = |reason: DropReason, count: Count| json!({ "reason": reason.word(), "packets": count.packets, "bytes": count.bytes });
        let kernel: Vec<KernelDrops> = self.lanes.iter().map(KernelDrops::of_lane).collect();
        let kernel_drops = kernel.iter().cloned().reduce(KernelDrops::with).unwrap_or(KernelDrops(Ok(KernelStatistics::default())));
        let by_rules = self.admitted.as_ref().map_or_else(|| Some(Vec::new()), Admitted::dropped);
        let by_rule =
            |of: DropReason| by_rules.iter().flatten().find(|(reason, _)| *reason == of).map(|(_, count)| *count).unwrap_or_default();
        let all = || DropReason::ALL.iter().copied();
        let dropped = all().map(|reason| {
            let count = sum(&|counters| counters.dropped(reason)).plus(by_rule(reason));
            let packets = if reason == DropReason::QueueFull { kernel_drops.beside(count.packets) } else { count.packets.into() };
            json!({ "reason": reason.word(), "packets": packets, "bytes": count.bytes })
        });
        let before_queue = by_rules.as_ref().map(|rows| rows.iter().map(|(reason, count)| row(*reason, *count)).collect::<Vec<Value>>());
        let would_drop = all().map(|reason| row(reason, sum(&|counters| counters.would_drop(reason))));
        json!({
            "accepted": count(sum(&Counters::accepted)),
            "dropped": dropped.collect::<Vec<Value>>(),
            "dropped_before_queue": before_queue,
            "would_drop": would_drop.collect::<Vec<Value>>(),
            "trickled": count(sum(&Counters::trickled)),
            "passed_errors": count(sum(&Counters::passed_errors)),
            "kernel_drops": kernel_drops.show(),
            "faults": faults(self.lanes.iter().map(Lane::faults).fold(Faults::default(), Faults::plus)),
            "queues": self.queues(&kernel),
        })
    }

    /// A row for each worker.
    fn queues(&self, kernel: &[KernelDrops]) -> Vec<Value> {
        let row = |(lane, kernel): (&Lane, &KernelDrops)| {
            let dropped = lane.counters.all_dropped().map(|(_, count)| count).fold(Count::default(), Count::plus);
            json!({
                "worker": lane.name(),
                "queue": lane.number,
                "accepted": lane.counters.accepted().packets,
                "dropped": dropped.packets,
                "kernel_drops": kernel.by_cause(),
                "faults": faults(lane.faults()),
            })
        };
        self.lanes.iter().zip(kernel).map(row).collect()
    }
}

fn faults(faults: Faults) -> Value {
    json!({
        "overruns": faults.overruns,
        "unreadable": faults.unreadable,
        "verdicts": faults.verdicts,
        "events_lost": faults.events_lost,
    })
}

/// What the kernel dropped because a queue or its socket was full: that never reached the daemon, and its bytes are not known. Or why
/// even their number is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelDrops(Result<KernelStatistics, String>);

impl KernelDrops {
    /// Those of the queue with this number, in the network namespace of the calling thread.
    pub fn of(number: u16) -> Self {
        Self::from(number, kernel_statistics(number))
    }

    /// Those of all that a worker has its packets from.
    fn of_lane(lane: &Lane) -> Self {
        let queues = Self::of(lane.number).and(lane.past_the_queue.dropped());
        lane.whole.map(Self::of).into_iter().fold(queues, Self::with)
    }

    fn from(number: u16, read: std::io::Result<Option<KernelStatistics>>) -> Self {
        Self(match read {
            Ok(Some(kernel)) => Ok(kernel),
            Ok(None) => Err(format!("the kernel does not list queue {number}")),
            Err(error) => Err(format!("the kernel's list of queues cannot be read: {error}")),
        })
    }

    /// Those of two queues; not known if those of one are not.
    fn with(self, other: Self) -> Self {
        Self(self.0.and_then(|one| other.0.map(|other| one.plus(other))))
    }

    /// With those of sockets that packets come to past the queue; not known if these are closed.
    fn and(self, past_the_queue: Option<u64>) -> Self {
        let full = |dropped_socket_full| KernelStatistics { dropped_socket_full, ..KernelStatistics::default() };
        self.with(Self(past_the_queue.map(full).ok_or_else(|| "the AF_XDP sockets are closed".to_owned())))
    }

    /// Together with those that the daemon counted itself, as JSON; null if nobody knows.
    pub fn beside(&self, own: u64) -> Value {
        self.0.as_ref().map_or(Value::Null, |kernel| kernel.dropped().saturating_add(own).into())
    }

    /// As JSON: the number, or null and why.
    pub fn show(&self) -> Value {
        match &self.0 {
            Ok(kernel) => json!({ "packets": kernel.dropped() }),
            Err(why) => json!({ "packets": null, "not_known_because": why }),
        }
    }

    /// The same by cause, for one queue.
    fn by_cause(&self) -> Value {
        let of = |number: &dyn Fn(&KernelStatistics) -> u64| self.0.as_ref().map_or(Value::Null, |kernel| number(kernel).into());
        json!({ "queue_full": of(&|kernel| kernel.dropped_queue_full), "socket_full": of(&|kernel| kernel.dropped_socket_full) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What cannot be read must not look like no drops.
    #[test]
    fn kernel_drops_that_nobody_knows_are_null_and_say_why() {
        let full = KernelStatistics { waiting: 0, dropped_queue_full: 3, dropped_socket_full: 4 };
        let known = KernelDrops::from(7, Ok(Some(full)));
        assert_eq!((known.beside(2), known.show()), (json!(9), json!({ "packets": 7 })));
        assert_eq!(known.by_cause(), json!({ "queue_full": 3, "socket_full": 4 }));
        assert_eq!(known.clone().with(known.clone()).show(), json!({ "packets": 14 }));
        assert_eq!(known.clone().and(Some(5)).by_cause(), json!({ "queue_full": 3, "socket_full": 9 }));
        let closed = json!({ "packets": null, "not_known_because": "the AF_XDP sockets are closed" });
        assert_eq!(known.clone().and(None).show(), closed);
        let cases = [
            (Ok(None), "the kernel does not list queue 7"),
            (Err(std::io::ErrorKind::PermissionDenied.into()), "the kernel's list of queues cannot be read: permission denied"),
        ];
        for (read, why) in cases {
            let unknown = KernelDrops::from(7, read);
            assert_eq!((unknown.beside(2), unknown.show()), (Value::Null, json!({ "packets": null, "not_known_because": why })));
            assert_eq!(unknown.by_cause(), json!({ "queue_full": null, "socket_full": null }));
            assert_eq!(known.clone().with(unknown.clone()).beside(2), Value::Null);
        }
    }
}
