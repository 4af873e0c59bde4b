//! More permitted traffic than a router can verify: what arrives of twice as much as it loses nothing of.
//!
//! The generator, and what a link does before the router, are on the first processor, the worker on the second. What the kernel of the router
//! does when a packet comes is on the first as well, or, so that everything of the router shares one, on the second: the link hands each
//! packet over to it (RPS), as a network card does with the interrupts of its only queue.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use traffic::algorithm::MacAlgorithm;
use traffic::worker::processors;

use super::consumer;
use super::generator::{self, Pace, Stock};
use super::way::{Made, Way};
use crate::bench::pairs::{Goal, Measure, Sample, Trial};

/// Packets at most that one try takes, and octets of each before AH.
const PACKETS: usize = 120_000;
const LEN: usize = 472;
/// How long one try lasts.
const LASTS: f64 = 0.25;
/// The first rate, and how much more each next one is.
const FIRST: f64 = 40_000.0;
const MORE: f64 = 1.15;
/// Of so many packets one may be lost where none is said to be: processors are shared with what else runs.
const ONE_OF: f64 = 1000.0;
/// Tries at a rate before packets count as lost by it.
const TRIES: usize = 3;

/// The processors of the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Router {
    /// Packets come in on one and are judged on another.
    TwoCores,
    /// Both on the same.
    OneCore,
}

/// A router and what has been found out about it.
struct Scene {
    way: Way,
    stock: Stock,
    router: Router,
    /// Packets a second of which none is lost.
    loss_free: Mutex<Option<f64>>,
}

/// The rows.
pub(super) fn trials() -> Vec<Trial> {
    [
        ("overload: twice what is lost nothing of, on two cores", Router::TwoCores, 0.9),
        ("overload: twice what is lost nothing of, on one core", Router::OneCore, 0.6),
    ]
    .map(|(name, router, goal)| {
        let stock = Stock::new(PACKETS, LEN);
        let scene = Arc::new(Scene { way: Way::default(), stock, router, loss_free: Mutex::new(None) });
        let (ours, bound) = (Arc::clone(&scene), scene);
        Trial {
            name: name.to_owned(),
            unit: "packets a second that arrive behind the verifier",
            goal: Goal::RatioAtLeast(goal),
            bound_is: "the most that arrives at any rate up to that",
            ours: Box::new(move || ours.at_twice()) as Measure,
            bound: Box::new(move || bound.peak()) as Measure,
        }
    })
    .into()
}

/// What one try gave, in packets a second.
struct Try {
    offered: f64,
    arrived: f64,
    lost: bool,
}

impl Scene {
    fn at_twice(&self) -> io::Result<Sample> {
        let known = *self.loss_free.lock().unwrap_or_else(PoisonError::into_inner);
        let loss_free = known.ok_or_else(|| io::Error::other("the peak is measured first"))?;
        let Try { offered, arrived, .. } = self.offer(2.0 * loss_free)?;
        Ok(Sample::of(arrived).with("offered", offered).with("offered, times what is lost nothing of", offered / loss_free))
    }

    /// Rises until packets are lost, and on to twice that.
    fn peak(&self) -> io::Result<Sample> {
        let (mut peak, mut loss_free, mut rate, mut rises) = (0.0_f64, 0.0, FIRST, true);
        while rises || rate < 2.0 * loss_free {
            let mut tried = self.offer(rate)?;
            for _ in 1..TRIES {
                peak = peak.max(tried.arrived);
                if rises && tried.lost {
                    tried = self.offer(rate)?;
                }
            }
            peak = peak.max(tried.arrived);
            rises &= !tried.lost;
            if rises {
                loss_free = tried.offered;
            } else if loss_free == 0.0 {
                return Err(io::Error::other(format!("of {FIRST} packets a second some are lost")));
            }
            // The generator sends no more.
            if tried.offered < rate / MORE {
                break;
            }
            rate *= MORE;
        }
        *self.loss_free.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss_free);
        Ok(Sample::of(peak).with("lost nothing of", loss_free))
    }

    fn offer(&self, rate: f64) -> io::Result<Try> {
        let made = self.way.get()?;
        if self.router == Router::OneCore {
            hand_over(made)?;
        }
        let packets = self.stock.sealed(MacAlgorithm::HmacSha256_128)?;
        let packets = packets.get(..(rate * LASTS) as usize).unwrap_or(packets);
        let before = made.arrived()?;
        let offered = Mutex::new(Duration::ZERO);
        let flood = || {
            let began = Instant::now();
            let took = made.sender.run(|| generator::send(packets, Pace::PerSecond(rate as u32)))?;
            consumer::drained(&made.router)?;
            *offered.lock().unwrap_or_else(PoisonError::into_inner) = took;
            Ok(began.elapsed())
        };
        let took = consumer::judged(made, MacAlgorithm::HmacSha256_128, flood)?;
        let arrived = (made.arrived()? - before) as f64;
        let offered = *offered.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = packets.len() as f64;
        let lost = arrived < sent - sent / ONE_OF;
        Ok(Try { offered: sent / offered.as_secs_f64(), arrived: arrived / took.as_secs_f64(), lost })
    }
}

/// Has what comes by the router's first link dealt with on the worker's processor.
fn hand_over(made: &Made) -> io::Result<()> {
    const PATH: &str = "/sys/class/net/near1/queues/rx-0/rps_cpus";
    let usable = processors();
    let processor = usable.get(1).or(usable.last()).copied().unwrap_or_default();
    made.router.run(|| {
        // What stands in /sys is of the namespace that it was mounted in. This thread ends with its view of it.
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
        std::fs::write(PATH, format!("{:x}", 1_u64 << processor)).map_err(|error| io::Error::new(error.kind(), format!("{PATH}: {error}")))
    })
}
