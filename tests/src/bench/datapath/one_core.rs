//! How many packets a second a router with one processor takes without losing any: by AF_XDP, and behind the queue.
//!
//! What is on which processor decides, so that each row names it ([`Arrangement`]). Where both sides have the same, sender, links and packets
//! are the same as well.

use std::io;
use std::sync::Arc;

use traffic::algorithm::MacAlgorithm;

use super::arrangement::Arrangement;
use super::consumer::{self, Checked, Consumer};
use super::generator::{Pace, Stock};
use super::way::Way;
use crate::bench::pairs::{Goal, Measure, Sample, Trial};

/// Packets of one try.
const PACKETS: usize = 60_000;
/// Octets of each before AH.
const LEN: usize = 1372;
/// Between which rates the highest is looked for, in packets a second, and how near it is found.
const RATES: [f64; 2] = [40_000.0, 1_200_000.0];
const NEAR: f64 = 1.03;
/// A rate is free of loss if one of so many tries is: whatever else runs on the machine takes processors away at times.
const TRIES: usize = 3;
/// A try counts if the generator has kept the pace so far.
const KEPT: f64 = 0.97;

/// The rows.
pub(super) fn trials() -> Vec<Trial> {
    let stock = Arc::new(Stock::new(PACKETS, LEN));
    let measure = |consumer: Consumer, arrangement: Arrangement| -> Measure {
        let (way, stock) = (Way::arranged(arrangement), Arc::clone(&stock));
        Box::new(move || highest(&way, &stock, consumer))
    };
    let algorithm = MacAlgorithm::HmacSha256_128;
    let (queue, past) = (Consumer::Verify(algorithm, Checked::Together), Consumer::PastTheQueue(algorithm));
    let trial = |name: &str, goal, bound_is, ours: (Consumer, Arrangement), bound: Arrangement| Trial {
        name: format!("one core: the verifier past the queue (AF_XDP), {name}"),
        unit: "packets per second without loss",
        goal,
        bound_is,
        ours: measure(ours.0, ours.1),
        bound: measure(queue, bound),
    };
    vec![
        trial(
            "everything on one processor, the sender too, and nothing set",
            Goal::RatioAtLeast(2.5),
            "the same verifier behind the queue, everything on one processor, the sender too, and nothing set",
            (past, Arrangement::Together),
            Arrangement::Together,
        ),
        trial(
            "the router on one processor by threaded NAPI and GRO, the sender on another",
            Goal::Told,
            "the same verifier behind the queue, by threaded NAPI and GRO on the worker's processor, the sender on another",
            (past, Arrangement::Threaded),
            Arrangement::Threaded,
        ),
        trial(
            "the router on one processor, where the worker polls the interface itself, the sender on another",
            Goal::Told,
            "another arrangement: the same verifier behind the queue, which cannot poll, by threaded NAPI and GRO on the worker's processor",
            (Consumer::Polling(algorithm), Arrangement::Polled),
            Arrangement::Threaded,
        ),
    ]
}

/// The highest rate at which nothing is lost.
fn highest(way: &Way, stock: &Stock, consumer: Consumer) -> io::Result<Sample> {
    let [low, mut bad] = RATES;
    let mut good = None;
    let (mut lossy, mut late) = (0.0, 0.0);
    while bad / good.as_ref().map_or(low, |(rate, _)| *rate) > NEAR {
        let rate = (bad * good.as_ref().map_or(low, |(rate, _)| *rate)).sqrt();
        let mut free = None;
        for _ in 0..TRIES {
            let (lost, sample) = consumer::lost(way, stock, consumer, Pace::PerSecond(rate as u32))?;
            let offered = sample.besides.get("offered a second").copied().unwrap_or_default();
            if lost > 0 {
                lossy += 1.0;
            } else if offered <= KEPT * rate {
                late += 1.0;
            } else {
                free = Some((rate, Sample::of(rate).with("offered a second", offered).with(WORKERS, 1e9 / sample.value)));
                break;
            }
        }
        match free {
            Some(free) => good = Some(free),
            None => bad = rate,
        }
    }
    let why = || format!("of {low} packets a second and more some were always lost ({lossy} tries) or sent too late ({late})");
    let (_, sample) = good.ok_or_else(|| io::Error::other(why()))?;
    Ok(sample.with("tries with loss", lossy).with("tries where the sender did not keep the pace", late))
}

/// What else a sample tells.
const WORKERS: &str = "ns of the worker's thread per packet";
