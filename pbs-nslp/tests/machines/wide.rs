//! Volumes beyond 32 bits, and senders that cannot say them (X-30, X-31, P-062, P-063).

use std::sync::Arc;

use gist::api::Indication;
use pbs_nslp::credentials::Signer;
use pbs_nslp::receiver::{Receiver, Terms};
use pbs_nslp::report::{Rekey, ReportEvent};
use pbs_nslp::wire::{MessageKind, Query, Volume, VolumeContext};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::forge::{self, query, query_from};
use crate::world::{LATENCY, SENDER, START_UNIX, T, TTL, World, entropy, flow, receiver_address, receiver_config, seconds};

const GIB: u64 = 1 << 30;

fn granted(volume: u64, limit: u64) -> World {
    let mut world = World::new(1);
    let mut config = receiver_config();
    config.policy.rules[0].terms = Terms { volume: Volume(volume), limit: Volume(limit), ttl: TTL, refresh: T };
    let signer: Arc<dyn Signer> = ToySigner::new(receiver_address(), 2);
    world.receiver = Receiver::new(config, signer, Arc::new(ToyAuthority::default()), entropy(9), START_UNIX, world.now);
    world.sender.want(flow(), Volume(volume), world.now).unwrap();
    world.run(seconds(1));
    assert_eq!(world.states(), ["Permitted"; 3]);
    world
}

fn rekeys(world: &World) -> Vec<Rekey> {
    let why = |event: &ReportEvent| if let ReportEvent::Rekeyed { why, .. } = event { Some(*why) } else { None };
    world.events(world.end()).into_iter().filter_map(why).collect()
}

#[test]
fn a_permission_beyond_four_gigabytes_is_granted_counted_compared_and_extended_in_full() {
    // The same SPI all the time: nothing wraps, nothing saturates, nobody is accused.
    let mut world = granted(6 * GIB, 40 * GIB);
    assert!(world.permissions().iter().all(|table| table[0].2 == 6 * GIB));
    let spi = world.permissions()[0][0].1;
    for _ in 0..20 {
        assert_eq!(world.packet(GIB), Some(2));
        world.run(T);
    }
    assert!(world.datapaths.iter().all(|datapath| datapath.table[&(flow(), spi)].counted == 20 * GIB));
    assert!(world.permissions()[2][0].2 > 20 * GIB);
    let reported = world.sent(SENDER, MessageKind::Query).last().unwrap().query().unwrap().sent;
    assert_eq!(reported, Some(Volume(20 * GIB)), "P-062: by the 64-bit object");
    let compared =
        |event: &ReportEvent| matches!(event, ReportEvent::Compared { sent, counted, .. } if sent == counted && sent.0 > 19 * GIB);
    assert!(world.saw(2, compared));
    assert!(!world.saw(2, |event| matches!(event, ReportEvent::Evidence(_))));
    assert_eq!(rekeys(&world), []);
}

#[test]
fn a_sender_that_counts_in_32_bits_gets_another_epoch_before_they_are_full() {
    // X-31, FR-18: it asks for the most that it can say, though more is allowed.
    let mut world = granted(6 * GIB, 40 * GIB);
    let (session, spi) = (world.session(), world.permissions()[2][0].1);
    for _ in 0..3 {
        assert_eq!(world.packet(GIB), Some(2));
    }
    assert_eq!(world.packet(GIB / 2), Some(2));
    world.stable = false;
    let report = |world: &World, number, requested| {
        let context = Some(VolumeContext { spi, highest: 4, permission: 1 });
        let number = u32::try_from(world.unix()).unwrap() + number;
        Query { requested: Some(Volume(requested)), sent: Some(Volume(3 * GIB + GIB / 2)), context, ..query(number) }
    };
    let wide = report(&world, 5, u64::from(u32::MAX) + 1);
    world.tell(2, Indication::Received(query_from(1, session, &wide, &forge::sender())));
    world.settle();
    assert_eq!(rekeys(&world), [], "who can say more needs none");
    let narrow = report(&world, 6, u32::MAX.into());
    world.tell(2, Indication::Received(query_from(1, session, &narrow, &forge::sender())));
    world.run(LATENCY * 4);
    assert_eq!(rekeys(&world), [Rekey::Width]);
    let answer = world.sent(2, MessageKind::Permission).last().unwrap().permission().unwrap();
    assert_eq!((answer.echo, answer.sa.unwrap().new_epoch), (Some(narrow.number), true));
    assert!(answer.allowed.0 >= 6 * GIB);
    assert_eq!(world.packet(GIB), Some(2));
}
