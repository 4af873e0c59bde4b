//! The states in which attacks are tried, each reached by the messages, orders and clocks that lead there.

use gist::api::{Indication, PathId};
use gist::wire::SessionId;
use pbs_nslp::flow::FlowId;
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Receiver, ReceiverConfig, Strength, Terms};
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::{Sender, Way};
use pbs_nslp::wire::{Defense, Permission, Volume};

use crate::credentials::ToySigner;
use crate::datapath::Fate;
use crate::forge::{self, permission, permission_from};
use crate::world::{
    LATENCY, Place, SENDER, START_UNIX, T, TTL, World, entropy, flow, flow_to, receiver_address, receiver_config, seconds, sender_address,
    sender_config,
};

pub(super) const ROUTER: Place = 1;
pub(super) const RECEIVER: Place = 2;

const MB: u64 = 1_000_000;
const PACKET: u64 = 50_000;

/// A state of the nodes, for the flow that is attacked.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) world: World,
}

/// The flow of somebody else that runs through all settings.
pub(super) fn bystander() -> FlowId {
    flow_to(9001)
}

/// Leads to a setting.
type Make = fn() -> World;

/// Every setting.
pub(super) fn all() -> Vec<Setting> {
    let settings: [(&str, Make); 16] = [
        ("nothing asked", quiet),
        ("asked, no answer yet", asked),
        ("undecided", undecided),
        ("granted, not yet installed at the router", installing),
        ("granted", granted),
        ("counter being read, Query open", counting),
        ("missing packets given time", grace),
        ("rekeyed, the old epoch draining", rekeyed),
        ("given back, not yet answered", releasing),
        ("denied", denied),
        ("revoked", revoked),
        ("a restarted sender takes over", taking_over),
        ("on another path, not yet answered", on_another_path),
        ("packets signed", signed),
        ("the router restarted", restarted),
        ("expired everywhere", expired),
    ];
    settings.into_iter().map(|(name, make)| Setting { name, world: make() }).collect()
}

/// The state's name of a flow's session at a node, or of its newest if there are two.
pub(super) fn states_of(world: &World, place: Place, flow: FlowId) -> Vec<String> {
    let sessions = match place {
        SENDER => world.sender.sessions(),
        RECEIVER => world.receiver.sessions(),
        _ => world.routers[place - 1].sessions(),
    };
    let states: Vec<String> = sessions.iter().filter(|session| session.flow == flow).map(|session| session.state.clone()).collect();
    if states.is_empty() { vec!["Idle".to_owned()] } else { states }
}

/// The sessions of the attacked flow that a node knows; one that nobody knows if there is none.
pub(super) fn sessions_of(world: &World, place: Place) -> Vec<SessionId> {
    let at = |place: Place| match place {
        SENDER => world.sender.sessions(),
        RECEIVER => world.receiver.sessions(),
        _ => world.routers[place - 1].sessions(),
    };
    let of_flow = |place| at(place).into_iter().filter(|session| session.flow == flow()).map(|session| session.session);
    let own: Vec<SessionId> = of_flow(place).collect();
    if own.is_empty() { of_flow(SENDER).chain([SessionId([9; 16])]).take(1).collect() } else { own }
}

fn generous() -> Terms {
    Terms { volume: Volume(10 * MB), limit: Volume(100 * MB), ttl: TTL, refresh: T }
}

/// Nobody has asked for the flow; another one of the same hosts is permitted.
fn quiet() -> World {
    let mut world = World::new(1);
    let rule = GrantRule { selector: Selector::default(), terms: generous(), signed: false, mac: None };
    let config = ReceiverConfig { policy: GrantPolicy { rules: vec![rule], ask: false }, ..receiver_config() };
    let signer = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(config, signer, world.authority.clone(), entropy(9), START_UNIX, world.now);
    world.sender.want(bystander(), Volume(MB), world.now).unwrap();
    world.run(seconds(1));
    let permitted = |place| states_of(&world, place, bystander()) == ["Permitted"];
    assert!((SENDER..=RECEIVER).all(permitted));
    world
}

fn want(world: &mut World) {
    world.sender.want(flow(), Volume(10 * MB), world.now).unwrap();
    world.settle();
}

/// Lets time pass until a node is in a state.
fn run_to(world: &mut World, place: Place, state: &str) {
    for _ in 0..5000 {
        if states_of(world, place, flow()).iter().any(|current| current == state) {
            return;
        }
        world.run(LATENCY / 2);
    }
    panic!("not {state} but {:?}: {}", states_of(world, place, flow()), world.story());
}

fn asked() -> World {
    let mut world = quiet();
    world.down.insert(RECEIVER);
    want(&mut world);
    run_to(&mut world, ROUTER, "Wait P");
    world
}

fn undecided() -> World {
    let mut world = quiet();
    world.receiver.set_policy(GrantPolicy { rules: Vec::new(), ask: true });
    want(&mut world);
    run_to(&mut world, RECEIVER, "Decision");
    world
}

fn installing() -> World {
    let mut world = quiet();
    want(&mut world);
    run_to(&mut world, ROUTER, "Wait P");
    world.datapaths[ROUTER].stalled = true;
    run_to(&mut world, ROUTER, "Permitted");
    assert_eq!(states_of(&world, SENDER, flow()), ["Wait P"]);
    world
}

fn granted() -> World {
    let mut world = quiet();
    want(&mut world);
    run_to(&mut world, SENDER, "Permitted");
    world.run(seconds(2));
    world
}

fn counting() -> World {
    let mut world = granted();
    world.datapaths[RECEIVER].stalled = true;
    run_to(&mut world, RECEIVER, "Compare Sv");
    world
}

fn grace() -> World {
    let mut world = granted();
    for _ in 0..MB / PACKET {
        assert!(matches!(world.datapaths[SENDER].send(flow(), PACKET, world.now), Fate::Passed { .. }));
    }
    world.settle();
    run_to(&mut world, RECEIVER, "Grace");
    world
}

fn rekeyed() -> World {
    let mut world = granted();
    assert!(world.datapaths[SENDER].send(flow(), PACKET, world.now) != Fate::Held);
    assert!(world.receiver.rekey(flow(), Strength::Same, world.now));
    world.run(LATENCY * 4);
    let epochs = |place: Place| world.datapaths[place].table.keys().filter(|(of, _)| *of == flow()).count();
    assert_eq!((epochs(ROUTER), epochs(RECEIVER)), (2, 2));
    world
}

fn releasing() -> World {
    let mut world = granted();
    world.down.insert(RECEIVER);
    world.sender.release(flow(), world.now);
    world.run(LATENCY * 3);
    assert_eq!(states_of(&world, SENDER, flow()), ["Releasing"]);
    world
}

fn denied() -> World {
    let mut world = quiet();
    world.receiver.set_policy(GrantPolicy { rules: Vec::new(), ask: false });
    want(&mut world);
    world.run(LATENCY * 6);
    assert_eq!(states_of(&world, SENDER, flow()), ["Idle"]);
    assert!(world.sender.sessions().iter().any(|session| session.flow == flow()), "held down");
    world
}

fn revoked() -> World {
    let mut world = granted();
    assert!(world.receiver.revoke(flow(), world.now));
    world.run(LATENCY * 4);
    assert_eq!(states_of(&world, ROUTER, flow()), ["Idle"]);
    world
}

fn taking_over() -> World {
    let mut world = granted();
    let signer = ToySigner::new(sender_address(), 1);
    world.disturb();
    world.sender = Sender::new(sender_config(), signer, world.authority.clone(), entropy(77), world.unix(), world.now);
    world.datapaths[SENDER].table.clear();
    world.datapaths[SENDER].used.clear();
    world.down.insert(RECEIVER);
    world.run(seconds(1));
    want(&mut world);
    run_to(&mut world, ROUTER, "Wait P");
    let mut states = states_of(&world, ROUTER, flow());
    states.sort();
    assert_eq!(states, ["Permitted", "Wait P"]);
    world
}

fn on_another_path() -> World {
    let mut world = granted();
    world.sender.set_ways(vec![Way { path: PathId(1), covers: Selector::default(), live: true, relay: None }]);
    let number = u32::try_from(world.unix()).unwrap() + 1;
    let other_path = Permission { defense: Some(Defense::ChangePath), sa: None, allowed: Volume(10 * MB), ..permission(number) };
    let session = sessions_of(&world, SENDER)[0];
    world.tell(SENDER, Indication::Received(permission_from(ROUTER, session, &other_path, &forge::receiver())));
    world.settle();
    assert_eq!(states_of(&world, SENDER, flow()), ["Wait P"]);
    world
}

fn signed() -> World {
    let mut world = granted();
    assert!(world.receiver.rekey(flow(), Strength::Signed, world.now));
    world.run(seconds(3));
    let permission = world.sender.sessions().into_iter().find(|session| session.flow == flow()).unwrap().permission.unwrap();
    assert_eq!(permission.algorithm, "public key");
    world
}

fn restarted() -> World {
    let mut world = granted();
    // All that the router had taken is older than what it may take for news afterwards.
    world.loses = Box::new(|_| true);
    world.run(seconds(6));
    world.restart_router(ROUTER);
    world.loses = Box::new(|_| false);
    assert_eq!(states_of(&world, ROUTER, flow()), ["Idle"]);
    world
}

fn expired() -> World {
    let mut world = granted();
    world.loses = Box::new(|transit| transit.message().flow() == flow());
    world.run(T * 6);
    assert!((SENDER..=RECEIVER).all(|place| states_of(&world, place, flow()) == ["Idle"]));
    assert_eq!(states_of(&world, ROUTER, bystander()), ["Permitted"]);
    world
}
