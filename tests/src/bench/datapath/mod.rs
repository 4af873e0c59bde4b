//! The datapath: what a packet costs between the kernel's queue and its verdict, and what of that is ours; and what a whole router stands.
//!
//! Where a unit says so it is packets per second of the consumer's own time on the processor, kernel and all, so that neither the load nor
//! another process counts; each consumer sees the same sealed packets, on the same way, from the same generator, which sends as fast as it
//! can or at a pace. Rows of a computation alone (`compute`, `look_up`) need no packets, and all others (`one_core`, `shield`, `overload`,
//! `goodput`) tell rates by the clock on the wall, of packets that arrive or of octets, on ways of their own: other processes count there.

mod arrangement;
mod compute;
mod consumer;
mod generator;
mod goodput;
mod look_up;
mod one_core;
mod overload;
mod past;
mod shield;
mod way;

use std::sync::Arc;

use traffic::algorithm::MacAlgorithm;

use super::pairs::{Goal, Measure, Trial};
use super::row::Published;
use consumer::{Checked, Consumer};
use generator::{Pace, Stock};
use way::Way;

/// Figures of other systems, on their machines.
pub(crate) const LITERATURE: [Published; 3] = [
    Published { what: "packets through the usual crate's loop before packets are lost", figure: "16,000/s", source: "users of NFQUEUE" },
    Published { what: "verification of a packet's source", figure: "85 ns", source: "PISKES" },
    Published { what: "verified traffic", figure: "100 to 160 Gbit/s", source: "LightningFilter, DPDK on many cores" },
];

/// Packets of a run.
const PACKETS: usize = 40_000;
/// Octets of each before AH.
const LEN: usize = 1372;
/// Packets a second where they come at a pace.
const PACE: u32 = 100_000;

/// All rows.
pub(crate) fn trials() -> Vec<Trial> {
    let way = Arc::new(Way::default());
    let stock = Arc::new(Stock::new(PACKETS, LEN));
    let run = |consumer: Consumer, pace: Pace| -> Measure {
        let (way, stock) = (Arc::clone(&way), Arc::clone(&stock));
        Box::new(move || consumer::measure(&way, &stock, consumer, pace))
    };
    let fast = |name: &str, goal, bound_is, ours, bound| Trial {
        name: name.to_owned(),
        unit: "packets per second of the consumer's processor time",
        goal,
        bound_is,
        ours: run(ours, Pace::AsFastAsItCan),
        bound: run(bound, Pace::AsFastAsItCan),
    };
    let verifier = |algorithm, checked| Consumer::Verify(algorithm, checked);
    let accept_all = "our own loop, accepting everything";
    let mut trials = vec![
        fast(
            "accept-all loop",
            Goal::RatioAtLeast(0.95),
            "the same loop in C (bare_loop.c); in both each packet has a verdict of its own, those of a call go with one, and nothing rests",
            Consumer::AcceptEach,
            Consumer::BareC,
        ),
        fast(
            "accept-all loop as a router has it",
            Goal::Told,
            "a loop in C (bare_loop.c) that does not rest; in both one verdict answers all packets of a call",
            Consumer::AcceptAll,
            Consumer::BareCTogether,
        ),
        fast("accept-all loop and the crate", Goal::RatioAtLeast(1.7), "the nfq crate, one by one", Consumer::AcceptAll, Consumer::Crate),
        Trial {
            name: "packets at a pace of 100,000 a second".to_owned(),
            unit: "ns of the consumer's processor time per packet",
            goal: Goal::RatioAtMost(0.45),
            bound_is: "one receive and one verdict for each packet",
            ours: inverse(run(Consumer::AcceptAll, Pace::PerSecond(PACE))),
            bound: inverse(run(Consumer::OneByOne, Pace::PerSecond(PACE))),
        },
    ];
    for (name, algorithm, checked, goal) in [
        ("verifier: HMAC-SHA-256 side by side", MacAlgorithm::HmacSha256_128, Checked::Together, Goal::RatioAtLeast(0.85)),
        ("verifier: AES-128-GMAC", MacAlgorithm::Aes128Gmac, Checked::Together, Goal::RatioAtLeast(0.85)),
        ("verifier: HMAC-SHA-1 side by side", MacAlgorithm::HmacSha1_96, Checked::Together, Goal::Told),
        ("verifier: HMAC-SHA-256 in a single stream", MacAlgorithm::HmacSha256_128, Checked::Singly, Goal::RatioAtLeast(0.65)),
    ] {
        trials.push(fast(name, goal, accept_all, verifier(algorithm, checked), Consumer::AcceptAll));
    }
    trials.extend(past_the_queue(&stock));
    trials.extend(one_core::trials());
    trials.extend(compute::trials());
    trials.extend(look_up::trials());
    trials.extend(shield::trials());
    trials.extend(overload::trials());
    trials.extend(goodput::trials());
    trials
}

/// The verifier with packets that come past the queue, against the same with the queue: at a pace that neither loses packets at. On links of
/// its own, since an XDP program changes how a link works.
fn past_the_queue(stock: &Arc<Stock>) -> Vec<Trial> {
    let (by_queue, past) = (Arc::new(Way::default()), Arc::new(Way::default()));
    let run = |way: &Arc<Way>, consumer: Consumer, pace: Pace| -> Measure {
        let (way, stock) = (Arc::clone(way), Arc::clone(stock));
        Box::new(move || consumer::measure_all(&way, &stock, consumer, pace))
    };
    let trial = |algorithm: MacAlgorithm, name: &str, goal| Trial {
        name: format!("verifier past the queue (AF_XDP): {name}"),
        unit: "packets per second of the consumer's processor time",
        goal,
        bound_is: "the same verifier behind the queue, no packet lost",
        ours: run(&past, Consumer::PastTheQueue(algorithm), Pace::PerSecond(PACE)),
        bound: run(&by_queue, Consumer::Verify(algorithm, Checked::Together), Pace::PerSecond(PACE)),
    };
    vec![
        trial(MacAlgorithm::HmacSha256_128, "HMAC-SHA-256 side by side", Goal::Told),
        trial(MacAlgorithm::Aes128Gmac, "AES-128-GMAC", Goal::Told),
    ]
}

/// The time that one takes, of how many there are in a second.
fn inverse(mut measure: Measure) -> Measure {
    Box::new(move || {
        let mut sample = measure()?;
        sample.value = 1e9 / sample.value;
        Ok(sample)
    })
}
