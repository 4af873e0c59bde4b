//! A router at work for a while: permissions come and go under traffic that has them and traffic that has none. What it counts must add up
//! to what two captures beside it count, to the packet, and its memory must not grow.

mod site;

use std::fmt::Write as _;
use std::io;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use self::site::{Crossed, Site};

/// How often memory and permissions are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// What is under way has arrived after so long, or is lost.
const REST: Duration = Duration::from_secs(1);
/// A run so long says something about memory. Tables fill up in the first third.
const TELLING: Duration = Duration::from_secs(60);
/// How much more memory the last third may take than the one before: that much the allocator moves about.
const MORE_MEMORY: f64 = 1.02;
const MORE_OCTETS: u64 = 1 << 20;

/// What is to run, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long.
    pub lasts: Duration,
    /// Packet workers of the router.
    pub workers: u16,
    /// Whether it has a shield.
    pub shield: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Seconds that traffic ran.
    pub seconds: f64,
    /// Flows that began.
    pub flows: u64,
    /// Permissions at the router: most at a time.
    pub most_permissions: usize,
    /// Packets that came to the router on both links to be forwarded, and that left it.
    pub came: u64,
    /// Of those, that left it.
    pub went: u64,
    /// What the router says it let pass.
    pub accepted: u64,
    /// What the router says it dropped, for any reason.
    pub dropped: u64,
    /// By reason, where there are any.
    pub reasons: Value,
    /// Came, and neither went nor was counted as dropped.
    pub unaccounted: i64,
    /// Memory in use by the router's process in octets, each second.
    pub memory: Vec<u64>,
    /// What must be, and whether it is.
    pub checks: Vec<(String, bool)>,
    /// Whether all of it is.
    pub holds: bool,
}

/// Runs it. `progress` hears what is being done.
///
/// # Errors
///
/// The network cannot be built, a daemon does not start or does not answer, or a capture loses frames.
pub fn run(options: Options, progress: impl Fn(&str)) -> io::Result<Outcome> {
    progress("starting three daemons");
    let site = Site::start(options)?;
    let began = Instant::now();
    let traffic = site.traffic()?;
    let (mut memory, mut most_permissions, mut crossed) = (Vec::new(), 0, Crossed::default());
    while began.elapsed() < options.lasts {
        std::thread::sleep(LOOK);
        memory.push(site.memory()?);
        most_permissions = most_permissions.max(site.permissions()?);
        crossed = crossed.and(site.crossed()?);
        if memory.len() % 60 == 0 {
            progress(&format!("{} minutes, {} packets", memory.len() / 60, crossed.came));
        }
    }
    let flows = traffic.end()?;
    let seconds = began.elapsed().as_secs_f64();
    std::thread::sleep(REST);
    crossed = crossed.and(site.crossed()?);
    let counters = site.ask("counters")?;
    let status = site.ask("status")?;
    let data = counters.get("data").ok_or_else(|| io::Error::other("the router has no worker called data"))?;
    let counted = Counted::of(data)?;
    let Crossed { came, went } = crossed;
    let unaccounted = i64::try_from(came).unwrap_or(i64::MAX) - i64::try_from(went.saturating_add(counted.dropped)).unwrap_or(i64::MAX);
    let mut checks = vec![
        (format!("packets unaccounted for: {unaccounted}"), unaccounted == 0),
        (format!("what it says that it let pass, {}, is what left it, {went}", counted.accepted), counted.accepted == went),
        (format!("its {} queues together count what it counts in all", counted.queues), counted.adds_up),
        (format!("much was permitted, {went} packets, and much was not, {}", counted.dropped), went.min(counted.dropped) > flows),
        (format!("permissions came and went: {flows} flows, at most {most_permissions} at a time"), is_changing(flows, most_permissions)),
        ("rules and threads are as they were".to_owned(), is_well(&status)),
    ];
    checks.extend(flatness(&memory, options.lasts));
    let holds = checks.iter().all(|(_, holds)| *holds);
    let Counted { accepted, dropped, reasons, .. } = counted;
    Ok(Outcome { seconds, flows, most_permissions, came, went, accepted, dropped, reasons, unaccounted, memory, checks, holds })
}

impl Outcome {
    /// What a person reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let Self { seconds, came, went, dropped, reasons, memory, .. } = self;
        let _ = writeln!(text, "{seconds:.0} s: {came} packets came, {went} went on, {dropped} were dropped: {reasons}");
        let (first, last) = (memory.first().copied().unwrap_or(0), memory.last().copied().unwrap_or(0));
        let _ = writeln!(text, "memory of the router: {first} octets after the first second, {last} in the end");
        for (check, holds) in &self.checks {
            let _ = writeln!(text, "{} {check}", if *holds { "holds " } else { "BROKEN" });
        }
        text
    }
}

/// What the router says.
struct Counted {
    accepted: u64,
    dropped: u64,
    reasons: Value,
    queues: usize,
    /// Whether the rows of its queues give what it says of all.
    adds_up: bool,
}

impl Counted {
    fn of(data: &Value) -> io::Result<Self> {
        let unknown = || io::Error::other(format!("the router does not know what it has counted: {data}"));
        let number = |value: Option<&Value>| value.and_then(Value::as_u64).ok_or_else(unknown);
        let rows = |name: &str| data.get(name).and_then(Value::as_array).ok_or_else(unknown);
        let accepted = number(data.pointer("/accepted/packets"))?;
        let (mut dropped, mut reasons) = (0_u64, serde_json::Map::new());
        for row in rows("dropped")? {
            let packets = number(row.get("packets"))?;
            dropped = dropped.saturating_add(packets);
            if packets > 0 {
                reasons.insert(row.get("reason").and_then(Value::as_str).unwrap_or_default().to_owned(), packets.into());
            }
        }
        let mut of_queues = [0_u64; 2];
        for row in rows("queues")? {
            let kernel = number(row.pointer("/kernel_drops/queue_full"))?.saturating_add(number(row.pointer("/kernel_drops/socket_full"))?);
            let here = [number(row.get("accepted"))?, number(row.get("dropped"))?.saturating_add(kernel)];
            of_queues.iter_mut().zip(here).for_each(|(sum, here)| *sum = sum.saturating_add(here));
        }
        let mut before = 0_u64;
        for row in rows("dropped_before_queue")? {
            before = before.saturating_add(number(row.get("packets"))?);
        }
        let adds_up = of_queues == [accepted, dropped.saturating_sub(before)];
        Ok(Self { accepted, dropped, reasons: reasons.into(), queues: rows("queues")?.len(), adds_up })
    }
}

/// Flows that had ended were forgotten.
fn is_changing(flows: u64, most: usize) -> bool {
    most > 0 && (flows < 300 || (most as u64) < flows / 2)
}

fn is_well(status: &Value) -> bool {
    let threads = status.get("threads_running").and_then(Value::as_object);
    status.pointer("/rules/stand") == Some(&json!(true))
        && status.pointer("/rules/restored") == Some(&json!(0))
        && threads.is_some_and(|threads| threads.values().all(|runs| *runs == true))
}

/// The last third of a long run needs no more memory than the one before.
fn flatness(memory: &[u64], lasts: Duration) -> Option<(String, bool)> {
    let third = memory.len() / 3;
    let (before, last) = (median(memory.get(third..2 * third)?)?, median(memory.get(2 * third..)?)?);
    let most = (before as f64 * MORE_MEMORY) as u64 + MORE_OCTETS;
    let words = format!("memory is flat: {before} octets in the middle third, {last} in the last, at most {most}");
    (lasts >= TELLING).then_some((words, last <= most))
}

fn median(values: &[u64]) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_grows_all_the_time_is_not_flat_and_memory_that_fills_up_is() {
        let long = Duration::from_secs(180);
        let growing: Vec<u64> = (0..180).map(|second| (40 << 20) + second * (64 << 10)).collect();
        let filling: Vec<u64> = (0..180).map(|second| (40 << 20) + second.min(70) * (64 << 10)).collect();
        assert_eq!(flatness(&growing, long).map(|(_, holds)| holds), Some(false));
        assert_eq!(flatness(&filling, long).map(|(_, holds)| holds), Some(true));
        assert_eq!(flatness(&growing, Duration::from_secs(5)), None, "too short to say");
    }

    #[test]
    fn what_the_queues_do_not_count_is_noticed() {
        let data = |accepted: u64| {
            json!({
                "accepted": { "packets": 5 },
                "dropped": [{ "reason": "bad_icv", "packets": 7 }, { "reason": "no_permission", "packets": 3 }],
                "dropped_before_queue": [{ "reason": "no_permission", "packets": 3 }],
                "queues": [
                    { "accepted": 2, "dropped": 4, "kernel_drops": { "queue_full": 1, "socket_full": 0 } },
                    { "accepted": accepted, "dropped": 2, "kernel_drops": { "queue_full": 0, "socket_full": 0 } },
                ],
            })
        };
        let (right, wrong) = (Counted::of(&data(3)).unwrap(), Counted::of(&data(4)).unwrap());
        assert_eq!((right.accepted, right.dropped, right.queues), (5, 10, 2));
        assert!(right.adds_up && !wrong.adds_up);
        assert!(Counted::of(&json!({})).is_err());
    }
}
