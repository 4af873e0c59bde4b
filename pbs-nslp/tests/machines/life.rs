//! The life of a permission in any order of events: packets, orders, questions, lost messages. After each step the invariants hold
//! (`invariants.rs`); here is what must hold of whole runs.

use core::time::Duration;
use std::sync::Arc;

use pbs_nslp::credentials::Signer;
use pbs_nslp::receiver::{Change, Receiver, Strength, Terms};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::Volume;

use crate::credentials::{ToyAuthority, ToySigner};
use crate::datapath::Fate;
use crate::world::{LATENCY, SENDER, START_UNIX, T, TTL, World, entropy, flow, receiver_address, receiver_config, seconds};

const PACKET: u64 = 10_000;
const RUNS: u64 = 12;

/// Pseudo-random numbers that a failed run can be repeated with.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// What a run may contain.
#[derive(Clone, Copy)]
struct Kind {
    volume: u64,
    limit: u64,
    changes: bool,
    losses: bool,
}

struct Run {
    world: World,
    chance: Chance,
    kind: Kind,
    /// Packets under way: arrival, SPI, number.
    flying: Vec<(gist::time::Instant, u32, u32)>,
    sent: u64,
    arrived: u64,
}

impl Run {
    fn new(seed: u64, kind: Kind) -> Self {
        let mut world = World::with_seed(2, u8::try_from(seed % 200).unwrap() + 1);
        let mut config = receiver_config();
        config.policy.rules[0].terms = Terms { volume: Volume(kind.volume), limit: Volume(kind.limit), ttl: TTL, refresh: T };
        config.key_age = seconds(30);
        let signer: Arc<dyn Signer> = ToySigner::new(receiver_address(), 2);
        world.receiver = Receiver::new(config, signer, Arc::new(ToyAuthority::default()), entropy(9), START_UNIX, world.now);
        world.sender.want(flow(), Volume(kind.volume), world.now).unwrap();
        world.run(seconds(1));
        Self { world, chance: Chance(seed), kind, flying: Vec::new(), sent: 0, arrived: 0 }
    }

    fn step(&mut self) {
        match self.chance.below(20) {
            0..12 => self.send(),
            12 => drop(self.world.receiver.rekey(flow(), Strength::Same, self.world.now)),
            13 if self.chance.below(8) == 0 => drop(self.world.receiver.rekey(flow(), Strength::Signed, self.world.now)),
            14 if self.kind.changes => {
                let change = Change { volume: Some(Volume(PACKET * (1 + self.chance.below(400)))), ..Change::default() };
                self.world.receiver.amend(flow(), change, self.world.now);
            }
            15 => drop(self.world.sender.want(flow(), Volume(self.kind.volume), self.world.now)),
            16 if self.kind.losses => {
                let mut left = self.chance.below(3);
                self.world.loses = Box::new(move |_| {
                    let lost = left > 0;
                    left = left.saturating_sub(1);
                    lost
                });
            }
            17 => self.pass(seconds(self.chance.0 % 4)),
            _ => self.pass(LATENCY),
        }
        self.world.settle();
        let span = Duration::from_millis(self.chance.below(12));
        self.pass(span);
    }

    fn send(&mut self) {
        for _ in 0..self.chance.below(4) {
            if let Fate::Passed { spi, number } = self.world.datapaths[SENDER].send(flow(), PACKET, self.world.now) {
                self.sent += 1;
                self.flying.push((self.world.now + LATENCY * 3, spi, number));
            }
        }
    }

    /// Lets time pass; packets arrive in it.
    fn pass(&mut self, span: Duration) {
        let end = self.world.now + span;
        while self.world.now < end {
            let until = (self.world.now + Duration::from_millis(3)).min(end);
            self.world.run(until.saturating_duration_since(self.world.now));
            let now = self.world.now;
            let (due, later) = std::mem::take(&mut self.flying).into_iter().partition(|(at, ..)| *at <= now);
            self.flying = later;
            for (_, spi, number) in due {
                self.arrived += u64::from(self.world.carry(spi, number, PACKET) == 3);
            }
            self.world.settle();
        }
    }

    fn story(&self, seed: u64) -> String {
        format!("seed {seed}, {} of {} arrived\n{}", self.arrived, self.sent, self.world.story())
    }
}

fn is_evidence(event: &ReportEvent) -> bool {
    matches!(event, ReportEvent::Evidence(_) | ReportEvent::OverBudget { .. })
}

#[test]
fn no_order_of_rekeys_and_questions_loses_a_packet_or_passes_the_limit() {
    // TMP-14, P-119, INV-13: no message is lost, and the volume is all that the flow may have in an hour.
    for seed in 0..RUNS {
        let (volume, limit) = if seed % 2 == 0 { (400 * PACKET, 400 * PACKET) } else { (100 * PACKET, 1000 * PACKET) };
        let mut run = Run::new(seed, Kind { volume, limit, changes: false, losses: false });
        for _ in 0..250 {
            run.step();
        }
        run.pass(seconds(1));
        assert_eq!(run.arrived, run.sent, "{}", run.story(seed));
        assert!(run.arrived * PACKET <= limit, "{}", run.story(seed));
        assert!(!run.world.saw(3, is_evidence), "{}", run.story(seed));
    }
}

#[test]
fn whatever_is_ordered_asked_or_lost_all_nodes_agree_in_the_end_and_nobody_is_accused() {
    // INV-13, P-108, TMP-11, TMP-13.
    for seed in 0..RUNS {
        let kind = Kind { volume: 300 * PACKET, limit: 3000 * PACKET, changes: true, losses: true };
        let mut run = Run::new(1000 + seed, kind);
        for _ in 0..200 {
            run.step();
        }
        run.world.loses = Box::new(|_| false);
        run.pass(seconds(60));
        while run.world.datapaths.iter().any(|datapath| datapath.table.values().any(|entry| entry.draining)) {
            run.pass(seconds(1));
        }
        assert!(!run.world.saw(3, is_evidence), "{}", run.story(seed));
        let tables = run.world.permissions();
        let active: Vec<_> =
            tables.iter().map(|table| table.iter().map(|(_, spi, allowed)| (*spi, *allowed)).collect::<Vec<_>>()).collect();
        assert!(active.iter().all(|table| *table == active[0] && table.len() <= 1), "{active:?}, {}", run.story(seed));
    }
}
