//! Attackers with a good certificate and key who sign what is not true: a sender, a receiver, and a host that has to do with neither.
//! What they do to their own flow is their own affair; the flow beside it goes on as if nothing were.

use core::time::Duration;

use gist::api::{Indication, ReceivedMessage};
use gist::wire::{Direction, SessionId};
use pbs_nslp::flow::FlowId;
use pbs_nslp::output::Output;
use pbs_nslp::status::SessionStatus;
use pbs_nslp::wire::{
    Defense, NotifyCode, Permission, PublicKeyAlgorithm, Query, SaParameters, SharedKey, SymmetricAlgorithm, Volume, VolumeContext,
};

use super::core::Core;
use super::messages::{self, bystanders_spi, later};
use super::settings::{self, RECEIVER, ROUTER, Setting, bystander, sessions_of, states_of};
use crate::credentials::ToySigner;
use crate::datapath::Fate;
use crate::forge::{self, denial, permission, permission_from, query, query_from};
use crate::world::{Place, SENDER, T, World, flow, receiver_address};

/// How often each setting is the beginning of another story.
const ROUNDS: usize = 3;
/// Messages that one may lead to.
const ANSWERS: usize = 4;
/// Everything that one may lead to, reports included.
const OUTPUTS: usize = 24;

fn context(spi: u32, highest: u32, permission: u32) -> Option<VolumeContext> {
    Some(VolumeContext { spi, highest, permission })
}

/// What a sender may say, true or not.
fn lying_queries(number: u32, own_spi: u32, other_spi: u32) -> Vec<Query> {
    let volumes = [None, Some(Volume::ZERO), Some(Volume(1)), Some(Volume(u64::MAX))];
    let contexts = [
        None,
        context(own_spi, 0, 0),
        context(own_spi, u32::MAX, u32::MAX),
        context(other_spi, 1, number),
        context(0, 0, 0),
        context(u32::MAX, u32::MAX, number),
    ];
    let mut all = Vec::new();
    for requested in volumes {
        for sent in volumes {
            for context in contexts {
                if requested.is_some() || sent.is_some() {
                    all.push(Query { requested, sent, context, ..query(number) });
                }
            }
        }
    }
    all.push(Query { algorithms: Some(vec![0, 255, 3]), ..query(number) });
    all
}

/// What a receiver may say, true or not.
fn lying_permissions(number: u32, own_spi: u32, other_spi: u32) -> Vec<Permission> {
    let mut all = vec![denial(number), Permission { ttl: Duration::from_millis(u64::from(u32::MAX)), ..denial(number) }];
    let weak = |algorithm: SymmetricAlgorithm| {
        let key = SharedKey::new(algorithm, vec![1; algorithm.key_length()]).unwrap();
        Defense::SymmetricKey { algorithm, key }
    };
    let defenses = [
        forge::key(9),
        weak(SymmetricAlgorithm::HmacSha1),
        weak(SymmetricAlgorithm::HmacMd5),
        Defense::PublicKey { algorithm: PublicKeyAlgorithm::FromCertificate },
        Defense::NoAction,
        Defense::ChangePath,
    ];
    for defense in defenses {
        for spi in [own_spi, other_spi, u32::MAX] {
            for (allowed, ttl) in [(1, 1), (u64::MAX, u32::MAX)] {
                for (drain, new_epoch) in [(0, true), (65_535, true), (65_535, false)] {
                    let sa = SaParameters { spi, drain: Duration::from_millis(drain), new_epoch };
                    let sa = defense.has_association().then_some(sa);
                    let (allowed, ttl) = (Volume(allowed), Duration::from_millis(ttl.into()));
                    let echo = if new_epoch { None } else { Some(u32::MAX) };
                    all.push(Permission { allowed, ttl, defense: Some(defense.clone()), sa, echo, ..permission(number) });
                }
            }
        }
    }
    for refresh in [1, 4_999, 3_600_000, u32::MAX] {
        all.push(Permission { refresh: Duration::from_millis(refresh.into()), ..permission(number) });
    }
    all
}

/// One of all lies.
fn any_lie(world: &World, dice: &mut Dice) -> (Place, ReceivedMessage) {
    let (number, own_spi, other_spi) = (later(world), messages::live_spi(world), bystanders_spi(world));
    let downstream = dice.roll(2) == 0;
    let place = ROUTER + dice.roll(2) - usize::from(!downstream);
    let sessions = [sessions_of(world, place), vec![bystanders_session(world)]].concat();
    let session = sessions[dice.roll(sessions.len())];
    let received = if downstream {
        let queries = lying_queries(number, own_spi, other_spi);
        query_from(place - 1, session, &queries[dice.roll(queries.len())], &forge::sender())
    } else {
        let permissions = lying_permissions(number, own_spi, other_spi);
        permission_from(place + 1, session, &permissions[dice.roll(permissions.len())], &forge::receiver())
    };
    (place, received)
}

/// Every lie about the attacked flow to every node, in its own sessions and in the one of the flow beside it.
fn lies(setting: &Setting) -> Vec<(Place, ReceivedMessage)> {
    let world = &setting.world;
    let (number, own_spi) = (later(world), messages::live_spi(world));
    let other_spi = bystanders_spi(world);
    let mut all = Vec::new();
    for place in [SENDER, ROUTER, RECEIVER] {
        let sessions = [sessions_of(world, place), vec![bystanders_session(world)]].concat();
        for session in sessions {
            if place != SENDER {
                let queries = lying_queries(number, own_spi, other_spi);
                all.extend(queries.iter().map(|query| (place, query_from(place - 1, session, query, &forge::sender()))));
            }
            if place != RECEIVER {
                let permissions = lying_permissions(number, own_spi, other_spi);
                all.extend(permissions.iter().map(|said| (place, permission_from(place + 1, session, said, &forge::receiver()))));
            }
        }
    }
    all
}

fn bystanders_session(world: &World) -> SessionId {
    world.receiver.sessions().into_iter().find(|session| session.flow == bystander()).unwrap().session
}

fn of(core: &Core, flow: FlowId) -> Vec<SessionStatus> {
    core.sessions().into_iter().filter(|session| session.flow == flow).collect()
}

/// Gives a clone of the node the message; what it knows of these flows stays, and nothing is done to them.
fn leaves_alone(setting: &Setting, place: Place, received: &ReceivedMessage, flows: &[FlowId]) {
    let told = || format!("{} at {place}: {:02x?}", setting.name, &received.payload[..]);
    let before = Core::of(&setting.world, place);
    let outcome = before.given(received.clone(), setting.world.now);
    for flow in flows {
        assert_eq!(of(&before, *flow), of(&outcome.after, *flow), "{}", told());
    }
    for output in &outcome.outputs {
        let concerned = match output {
            Output::Datapath(command) => Some(command.flow()),
            Output::Send(message) => FlowId::from_mri(&message.mri).ok(),
            Output::SetStateLifetime { mri, .. } | Output::AdoptPeer { mri, .. } | Output::DoubtPeer { mri, .. } => {
                FlowId::from_mri(mri).ok()
            }
            Output::Ask(ask) => Some(ask.flow),
            Output::SetPeering { .. } => None,
            Output::Report(report) => report.flow,
        };
        assert!(concerned.is_some_and(|flow| !flows.contains(&flow)), "{}: {output:?}", told());
    }
    assert!(outcome.sent().count() <= ANSWERS && outcome.outputs.len() <= OUTPUTS, "{}: {:?}", told(), outcome.outputs);
}

#[test]
fn whoever_signs_lies_about_its_own_flow_leaves_the_flow_beside_it_alone_in_any_state() {
    // INV-01, INV-03: the SPI, the session and the epoch of another flow are nothing in one's own.
    let mut tried = 0;
    for setting in settings::all() {
        for (place, received) in lies(&setting) {
            leaves_alone(&setting, place, &received, &[bystander()]);
            tried += 1;
        }
    }
    assert!(tried > 10_000, "{tried}");
}

#[test]
fn a_host_with_a_certificate_of_its_own_leaves_the_flows_of_others_alone_in_any_state() {
    // It asks for flows of its own and grants flows to itself, in sessions of others and under their SPIs.
    let stranger = ToySigner::new([192, 0, 2, 66].into(), 66);
    let credential = forge::credential(&stranger);
    for setting in settings::all() {
        let world = &setting.world;
        let (number, own_spi, other_spi) = (later(world), messages::live_spi(world), bystanders_spi(world));
        let sessions = [sessions_of(world, ROUTER), vec![bystanders_session(world)]].concat();
        let asks = FlowId::new([192, 0, 2, 66].into(), receiver_address(), 17, 5000, 9000).unwrap();
        let grants = FlowId::new(flow().source, [192, 0, 2, 66].into(), 17, 5000, 9000).unwrap();
        for session in sessions {
            for query in lying_queries(number, own_spi, other_spi) {
                let asked = Query { flow: asks, credential: credential.clone(), ..query };
                for place in [ROUTER, RECEIVER] {
                    let received = query_from(place - 1, session, &asked, &stranger);
                    leaves_alone(&setting, place, &received, &[flow(), bystander()]);
                }
            }
            for permission in lying_permissions(number, own_spi, other_spi) {
                let granted = Permission { flow: grants, credential: credential.clone(), ..permission };
                for place in [SENDER, ROUTER] {
                    let received = permission_from(place + 1, session, &granted, &stranger);
                    leaves_alone(&setting, place, &received, &[flow(), bystander()]);
                }
            }
        }
    }
}

/// Xorshift: the same dice each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }
}

/// Sends a packet of the flow beside the attacked one, and says whether it arrives.
fn bystanders_packet(world: &mut World) -> bool {
    let fate = world.datapaths[SENDER].send(bystander(), 100, world.now);
    let Fate::Passed { spi, number } = fate else { return false };
    let arrived = (ROUTER..=RECEIVER).all(|place| world.datapaths[place].verify(bystander(), spi, number, 100, world.now));
    world.settle();
    arrived
}

#[test]
fn lies_replays_and_delays_in_any_order_break_no_invariant_and_lose_no_packet_of_the_flow_beside() {
    // INV-02, INV-03, INV-07, INV-08, INV-12, INV-17 after every step: `World::check`. Both ends of the attacked flow lie, and a node
    // on the path repeats, holds back and mixes what it has seen of it.
    let mut carried = 0;
    for (seed, setting) in (0..ROUNDS).flat_map(|_| settings::all()).enumerate() {
        let Setting { name, mut world } = setting;
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (seed as u64 + 1));
        world.down.clear();
        world.loses = Box::new(|_| false);
        world.stable = false;
        for place in SENDER..=RECEIVER {
            world.datapaths[place].resume();
        }
        world.settle();
        // A sender that has restarted, or whose permission has ended meanwhile, asks for the flow beside it again; a router that has
        // restarted knows it from its next refresh on.
        while (SENDER..=RECEIVER).any(|place| states_of(&world, place, bystander()) != ["Permitted"]) {
            if states_of(&world, SENDER, bystander()) == ["Idle"] {
                world.sender.want(bystander(), Volume(1_000_000), world.now).unwrap();
                world.settle();
            }
            world.run(T / 4);
        }
        let mut held_back = Vec::new();
        for step in 0..40 {
            for _ in 0..4 {
                let (place, received) = match dice.roll(4) {
                    0 | 1 => any_lie(&world, &mut dice),
                    2 => {
                        let of_flow: Vec<_> = world.recorded.iter().filter(|transit| transit.message().flow() == flow()).collect();
                        let Some(transit) = of_flow.get(dice.roll(of_flow.len().max(1))) else { continue };
                        (transit.to.min(RECEIVER), transit.received.clone())
                    }
                    _ => {
                        held_back.push(any_lie(&world, &mut dice));
                        held_back.swap_remove(dice.roll(held_back.len()))
                    }
                };
                world.tell(place, Indication::Received(received));
                world.settle();
            }
            assert!(bystanders_packet(&mut world), "{name}, step {step}: {}", world.story());
            carried += 1;
            world.run(Duration::from_millis(100 + 100 * dice.roll(20) as u64));
        }
    }
    assert_eq!(carried, ROUNDS * 16 * 40);
}

#[test]
fn a_drain_time_beyond_the_end_of_what_drains_keeps_nothing_any_longer_at_a_router() {
    // X-75, INV-08: the drain time is the receiver's word, up to 65 s; the epoch that runs out would have ended before that.
    for takes_over in [false, true] {
        let mut world = World::granted(1);
        world.stable = false;
        let (session, old) = (sessions_of(&world, ROUTER)[0], messages::live_spi(&world));
        let session = if takes_over { SessionId([7; 16]) } else { session };
        // Nothing but what is said here comes to the router.
        world.loses = Box::new(|_| true);
        for second in 0..20 {
            let number = later(&world) + second;
            if second == 0 && takes_over {
                world.tell(ROUTER, Indication::Received(query_from(SENDER, session, &query(number), &forge::sender())));
                world.settle();
            }
            let sa = Some(SaParameters { spi: forge::SPI, drain: Duration::from_millis(65_535), new_epoch: true });
            let received = permission_from(RECEIVER, session, &Permission { sa, ..permission(number) }, &forge::receiver());
            world.tell(ROUTER, Indication::Received(received));
            world.settle();
            assert_eq!(world.datapaths[ROUTER].table.contains_key(&(flow(), old)), second < 17, "second {second}");
            world.run(Duration::from_secs(1));
        }
        assert!(world.datapaths[ROUTER].table.contains_key(&(flow(), forge::SPI)), "the epoch in use stays");
    }
}

#[test]
fn whoever_repeats_notices_and_permissions_that_are_not_taken_up_fills_no_log() {
    // Neither leaves a number behind: a node on the path may bring them as often as it likes. All are counted, few are reported.
    let mut world = World::granted(1);
    world.stable = false;
    let (session, spi) = (sessions_of(&world, SENDER)[0], messages::live_spi(&world));
    let sa = |spi, new_epoch| Some(SaParameters { spi, drain: Duration::ZERO, new_epoch });
    let other_key = Permission { sa: sa(spi, true), defense: Some(forge::key(99)), ..permission(0) };
    let not_new = Permission { sa: sa(forge::SPI, false), ..permission(0) };
    let weak = Permission { defense: Some(Defense::NoAction), sa: None, ..permission(0) };
    let notice = forge::notice_from(ROUTER, session, flow(), NotifyCode::Overload);
    for (rule, said) in [("FS-13", None), ("FS-23", Some(other_key)), ("FS-24", Some(not_new)), ("FS-24", Some(weak))] {
        world.run(Duration::from_secs(10));
        let received = said.map_or(notice.clone(), |said| {
            let said = Permission { number: later(&world), ..said };
            permission_from(ROUTER, session, &said, &forge::receiver())
        });
        let rows = |world: &World| world.sender.counters().rules.get(rule).copied().unwrap_or_default();
        let (counted, reported) = (rows(&world), world.reports.len());
        for _ in 0..500 {
            world.tell(SENDER, Indication::Received(received.clone()));
            world.settle();
        }
        assert_eq!(rows(&world) - counted, 500, "{rule}");
        let reported = world.reports.len() - reported;
        assert!((1..=50).contains(&reported), "{rule}: {reported}");
    }
}

#[test]
fn the_lies_are_about_either_direction() {
    let setting = settings::all().remove(4);
    let directions: Vec<Direction> = lies(&setting).iter().map(|(_, received)| received.mri.direction()).collect();
    assert!(directions.contains(&Direction::Downstream) && directions.contains(&Direction::Upstream));
}
