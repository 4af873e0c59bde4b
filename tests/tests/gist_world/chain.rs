//! Sender – router that is only a GIST node – two routers of PBS – receiver.

use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::topology::Family::{self, Ipv4, Ipv6};

use crate::console::{Console, find};
use crate::row::{PORT, Row, Side, await_that, data};

const GIST_PORT: u16 = 270;
/// Behind UDP's header: magic number, version, hop count.
const HOP_COUNT: usize = 5;
/// An application that is none of PBS's.
const OTHER: &str = "--nslp-id=32720";

/// G-065, G-066: a router that does not host the application lets its Queries by, unchanged but for one IP hop and one GIST hop, and is
/// nobody's peer. The permission is granted past it, and data goes through it.
#[test]
fn a_permission_is_granted_past_a_router_that_is_only_a_gist_node() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let mut row = Row::build(&["sender", "passer", "router1", "router2", "receiver"], None);
    let (before, behind, last) =
        (row.capture("passer", Side::Left), row.capture("passer", Side::Right), row.capture("receiver", Side::Left));
    let mut passer = Console::start(row.host("passer"), &row.arguments("passer"), &[OTHER, "--intercept"]);
    row.start_daemons("");
    for family in [Ipv4, Ipv6] {
        let (sender, receiver) = row.sockets(family, PORT);
        sender.send(b"and more").unwrap();
        assert_eq!(receiver.recv(&mut [0; 16]).unwrap(), 8);

        await_that("a Query that does not pass, or otherwise than it should", || {
            let (there, on) = (queries(&before, family), queries(&behind, family));
            !there.is_empty() && there.iter().all(|packet| on.contains(&one_hop_on(packet)))
        });
        let on = queries(&behind, family);
        assert!(on.len() <= queries(&before, family).len(), "{family:?}: nothing is doubled");
        await_that("data that is not seen", || data(&last, PORT).len() >= 2);
    }
    // No router of PBS has seen less than both flows, and the one that is none knows nothing of them.
    for router in ["router1", "router2"] {
        assert_eq!(row.ask(router, "flows").as_array().unwrap().len(), 2, "{router}");
    }
    for what in ["routing", "associations"] {
        passer.say(&format!("show {what}"));
        assert_eq!(passer.event("shown")["content"].as_array().unwrap().len(), 0, "{what}");
    }
    passer.say("show counters");
    let counters = passer.event("shown");
    assert!(find(&counters, "passed_by").is_some_and(|count| count >= 2), "{counters}");
    assert_eq!((before.lost(), behind.lost()), (0, 0));
}

/// Q-mode packets of the flow's own direction on a link.
fn queries(capture: &Capture, family: Family) -> Vec<Vec<u8>> {
    capture.look(|frames| {
        let packets = frames.iter().filter_map(|frame| frame.ip());
        let is_query = |packet: &&[u8]| {
            frame::read(packet)
                .is_some_and(|seen| (seen.source, seen.destination, seen.ports.1) == (family.sender(), family.receiver(), GIST_PORT))
        };
        packets.filter(is_query).map(<[u8]>::to_vec).collect()
    })
}

/// What a Query must be behind a node that it passes: IP TTL and GIST hop count one less, checksums for that, and nothing else. The
/// checksums are made by other code than the node's.
fn one_hop_on(packet: &[u8]) -> Vec<u8> {
    use smoltcp::wire::{Ipv4Packet, Ipv6Packet, UdpPacket};

    let mut packet = packet.to_vec();
    let (udp, from, to) = if packet[0] >> 4 == 4 {
        let mut header = Ipv4Packet::new_unchecked(&mut packet);
        let (from, to) = (header.src_addr(), header.dst_addr());
        header.set_hop_limit(header.hop_limit() - 1);
        header.fill_checksum();
        (usize::from(header.header_len()), from.into(), to.into())
    } else {
        let mut header = Ipv6Packet::new_unchecked(&mut packet);
        let (from, to) = (header.src_addr(), header.dst_addr());
        header.set_hop_limit(header.hop_limit() - 1);
        // Behind the hop-by-hop header with the router alert.
        (48, from.into(), to.into())
    };
    packet[udp + 8 + HOP_COUNT] -= 1;
    UdpPacket::new_unchecked(&mut packet[udp..]).fill_checksum(&from, &to);
    packet
}
