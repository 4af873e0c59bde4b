//! What programs of the sender's own host can do to its table of flows: nothing to a flow that is permitted.

use pbs_nslp::datapath::Event;
use pbs_nslp::flow::FlowId;
use pbs_nslp::sender::{Sender, SenderConfig};
use pbs_nslp::wire::Volume;

use crate::credentials::ToySigner;
use crate::world::{START_UNIX, VOLUME, World, entropy, flow, flow_to, seconds, sender_address, sender_config};

/// A world whose sender has room for eight flows.
fn world() -> World {
    let mut world = World::new(1);
    let config = SenderConfig { sessions: 8, ..sender_config() };
    world.sender = Sender::new(config, ToySigner::new(sender_address(), 1), world.authority.clone(), entropy(7), START_UNIX, world.now);
    world
}

fn first_packet(world: &mut World, flow: FlowId) {
    world.sender.handle_datapath(Event::FirstPacket { flow }, world.now);
    world.settle();
}

fn states(world: &World) -> Vec<(u16, String)> {
    world.sender.sessions().into_iter().map(|session| (session.flow.destination_port, session.state)).collect()
}

#[test]
fn flows_that_were_refused_make_room_for_those_that_ask_and_permitted_ones_never_do_inv_12() {
    let mut world = world();
    world.want();
    world.run(seconds(1));
    // The receiver grants nothing at these ports: all end in hold-down, most of them one second after the other.
    for port in 1..=20 {
        first_packet(&mut world, flow_to(port));
        world.run(crate::world::LATENCY * 10);
        assert!(states(&world).len() <= 8);
        assert!(states(&world).contains(&(9000, "Permitted".to_owned())));
    }
    assert_eq!(states(&world).len(), 8, "the table is full of refusals");
    first_packet(&mut world, flow_to(9001));
    world.run(seconds(1));
    for port in [9000, 9001] {
        assert!(states(&world).contains(&(port, "Permitted".to_owned())), "{:?}", states(&world));
    }
    // Of permitted flows only, none gives way.
    for port in 9002..=9007 {
        first_packet(&mut world, flow_to(port));
        world.run(seconds(1));
    }
    assert_eq!(states(&world), (9000..=9007).map(|port| (port, "Permitted".to_owned())).collect::<Vec<_>>());
    first_packet(&mut world, flow_to(9008));
    assert!(world.sender.want(flow_to(9009), Volume(VOLUME), world.now).is_err());
    assert_eq!(states(&world).len(), 8);
}

#[test]
fn flows_that_nobody_answers_take_up_half_of_the_table_and_no_more() {
    let mut world = world();
    world.down.insert(1);
    for port in 1..=100 {
        first_packet(&mut world, flow_to(port));
    }
    assert_eq!(states(&world).len(), 4);
    // What somebody asks for still finds room.
    world.sender.want(flow(), Volume(VOLUME), world.now).unwrap();
    world.settle();
    world.down.clear();
    world.run(seconds(6));
    assert!(states(&world).contains(&(9000, "Permitted".to_owned())), "{:?}", states(&world));
}
