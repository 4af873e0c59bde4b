//! A processor is a value: a clone goes on as the original would, and what came in is what makes the difference (issue 2: core
//! state is `Clone + Eq + Hash`, cryptography comes in through a trait).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod support;

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};
use support::*;
use traffic::ah::{self, Number};
use traffic::algorithm::{Integrity, Iv, MacAlgorithm, MacKey, MacValue, VerifyingKey};
use traffic::checks::{Checks, Computed, Strict};
use traffic::flow::Flow;
use traffic::inserter::{AskRule, Inserter, InserterConfig};
use traffic::packet::IpPacket;
use traffic::processor::{PacketId, PacketProcessor, Released, UserId, Verdict};
use traffic::update::{Grant, Update};
use traffic::verifier::{Role, Verifier, VerifierConfig};

const SPI: u32 = 4096;
const NOW: Instant = Instant::from_micros_const(10_000_000);

/// No MAC at all, but quick, and a function of key and input: what a model checker may take.
#[derive(Debug)]
struct Toy;

impl Integrity for Toy {
    type Context = (MacAlgorithm, DefaultHasher);

    fn begin(key: &MacKey, iv: Iv) -> Self::Context {
        let mut hasher = DefaultHasher::new();
        (key, iv).hash(&mut hasher);
        (key.algorithm(), hasher)
    }

    fn update(context: &mut Self::Context, piece: &[u8]) {
        context.1.write(piece);
    }

    fn finish((algorithm, hasher): Self::Context) -> MacValue {
        MacValue::cut(algorithm, &hasher.finish().to_be_bytes().repeat(2))
    }

    fn verifies(_: &VerifyingKey, _: &[u8], _: &[u8]) -> bool {
        false
    }
}

/// What can happen to a processor.
#[derive(Debug, Clone)]
enum Input {
    Update(Update),
    Packet(Vec<u8>),
    Time,
}

fn drive(processor: &mut impl PacketProcessor, input: &Input, now: Instant) -> String {
    let mut story = match input {
        Input::Update(update) => format!("{:?}", processor.apply(update.clone(), now)),
        Input::Packet(bytes) => match processor.process_sent(PacketId(now.total_millis() as u64), Some(UserId(7)), bytes, now) {
            Verdict::Replace { payload, mark } => format!("{payload:?} {mark:?}"),
            other => format!("{other:?}"),
        },
        Input::Time => {
            processor.handle_timeout(now);
            String::new()
        }
    };
    while let Some((id, released)) = processor.poll_released() {
        story += &match released {
            Released::Replace { payload, .. } => format!("{id:?} {payload:?}"),
            Released::Drop(reason) => format!("{id:?} {reason}"),
        };
    }
    while let Some(event) = processor.poll_event() {
        story += &format!("{event:?}");
    }
    story
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Two clones live through the same; after each input a third one, that does not, is another value if the input changed anything.
fn lives_as_its_clone<P: PacketProcessor + Clone + Eq + Hash + Debug>(mut one: P, inputs: &[Input]) -> usize {
    let mut other = one.clone();
    let mut changes = 0;
    for (step, input) in inputs.iter().enumerate() {
        let now = NOW + Duration::from_millis(step as u64);
        let before = one.clone();
        assert_eq!(drive(&mut one, input, now), drive(&mut other, input, now), "step {step}: {input:?}");
        assert_eq!(one, other, "step {step}");
        assert_eq!(hash(&one), hash(&other), "step {step}");
        changes += usize::from(one != before);
        assert_eq!(one != before, hash(&one) != hash(&before), "step {step}: what makes a difference counts in the hash too");
    }
    changes
}

fn grant(flow: Flow, spi: u32) -> Grant {
    let key = key(MacAlgorithm::HmacSha256_128, u8::try_from(spi % 251).unwrap());
    Grant { flow, spi, key, allowed: 2000, counted: 0, highest: 0, expires_at: NOW + Duration::from_secs(5) }
}

fn install(flow: Flow, spi: u32) -> Input {
    Input::Update(Update::Install { token: 1, grant: grant(flow, spi) })
}

fn sealed(checks: &dyn Checks, number: u32) -> Input {
    let (clear, mut out) = (udp_v4(100), Vec::new());
    let number = Number { low: number, high: None };
    checks.seal(&IpPacket::parse(&clear).unwrap(), SPI, number, &grant(flow_v4(), SPI).key, &mut out).unwrap();
    Input::Packet(out)
}

#[test]
fn a_verifiers_clone_goes_on_as_it_does_and_every_input_that_matters_makes_another_value_of_it() {
    for checks in [Arc::new(Strict) as Arc<dyn Checks>, Arc::new(Computed::<Toy>::default())] {
        for role in [Role::Router, Role::Receiver] {
            let mut inputs = vec![install(flow_v4(), SPI), install(flow_v6(), SPI + 1), install(flow_v4(), SPI + 2)];
            inputs.extend((1..=20).map(|number| sealed(&*checks, number * 3 % 23 + 1)));
            let mut replayed = inputs[5..8].to_vec();
            inputs.append(&mut replayed);
            inputs.push(Input::Packet(udp_v4(5)));
            inputs.push(Input::Update(Update::Drain { token: 2, flow: flow_v4(), spi: SPI, until: NOW + Duration::from_secs(1) }));
            inputs.push(Input::Update(Update::Remove { token: 3, flow: flow_v4(), spi: SPI }));
            inputs.push(Input::Time);
            let verifier = Verifier::new(VerifierConfig::new(role), checks.clone(), Arc::default()).unwrap();
            let changes = lives_as_its_clone(verifier, &inputs);
            // Three installs, 12 of 20 packets within the volume, the report of the excess, a drain, a removal.
            assert_eq!(changes, 3 + 12 + 1 + 2, "{role:?}");
        }
    }
}

#[test]
fn an_inserters_clone_goes_on_as_it_does_with_what_waits_and_what_it_asks() {
    let config = InserterConfig { ask: vec![AskRule::default()], ..InserterConfig::default() };
    let inserter = Inserter::new(config, Arc::new(Strict), Arc::default());
    let mut inputs = vec![Input::Packet(udp_v4(10)), Input::Packet(udp_v6(10)), Input::Packet(udp_v4(20))];
    inputs.push(Input::Update(Update::Expect { token: 1, flow: flow_v6(), until: NOW + Duration::from_secs(1) }));
    inputs.push(install(flow_v4(), SPI));
    inputs.extend((0..30).map(|len| Input::Packet(udp_v4(len))));
    inputs.push(Input::Update(Update::DropHeld { token: 2, flow: flow_v6() }));
    inputs.push(Input::Update(Update::Remove { token: 3, flow: flow_v4(), spi: SPI }));
    let changes = lives_as_its_clone(inserter, &inputs);
    assert_eq!(changes, inputs.len(), "each of them matters");
}

#[test]
fn a_packet_under_another_key_or_number_makes_another_value() {
    let fresh = || Verifier::new(VerifierConfig::new(Role::Receiver), Arc::new(Strict), Arc::default()).unwrap();
    let (mut one, mut other) = (fresh(), fresh());
    drive(&mut one, &install(flow_v4(), SPI), NOW);
    let mut keyed = grant(flow_v4(), SPI);
    keyed.key = key(MacAlgorithm::HmacSha256_128, 200);
    drive(&mut other, &Input::Update(Update::Install { token: 1, grant: keyed }), NOW);
    assert!(one != other && hash(&one) != hash(&other), "the key");
    let mut third = one.clone();
    drive(&mut one, &sealed(&Strict, 1), NOW);
    drive(&mut third, &sealed(&Strict, 2), NOW);
    assert!(one != third && hash(&one) != hash(&third), "the number");
    drive(&mut one, &sealed(&Strict, 2), NOW);
    drive(&mut third, &sealed(&Strict, 1), NOW);
    assert_eq!((hash(&one), &one), (hash(&third), &third), "the order in which they came is forgotten");
}

#[test]
fn two_processes_of_one_program_give_one_state_the_same_hash() {
    // Maps are seeded anew for each processor: what differs from run to run differs between these two.
    let filled = || {
        let mut verifier = Verifier::new(VerifierConfig::new(Role::Router), Arc::new(Strict), Arc::default()).unwrap();
        for spi in 0..200 {
            let flow = Flow { source_port: 1000 + spi, ..flow_v4() };
            drive(&mut verifier, &install(flow, SPI + u32::from(spi)), NOW);
        }
        verifier
    };
    assert_eq!(hash(&filled()), hash(&filled()));
}

#[test]
fn toy_icvs_are_nothing_to_the_standard_and_the_other_way_round() {
    let (toy, checks) = (Computed::<Toy>::default(), [&Strict as &dyn Checks]);
    let Input::Packet(by_toy) = sealed(&toy, 1) else { unreachable!() };
    let Input::Packet(by_standard) = sealed(checks[0], 1) else { unreachable!() };
    let key = grant(flow_v4(), SPI).key;
    let (by_toy, by_standard) = (IpPacket::parse(&by_toy).unwrap(), IpPacket::parse(&by_standard).unwrap());
    assert!(toy.icv_matches(&by_toy, &key, None) && !toy.icv_matches(&by_standard, &key, None));
    assert!(ah::icv_matches(&by_standard, &key, None) && !ah::icv_matches(&by_toy, &key, None));
}
