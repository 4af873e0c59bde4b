//! A host that has a router send to others, by Queries in their name: watched on the wire and at a plain socket.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use gist::wire::{Body, Cookie, Message, PeerIdentity, datagram};
use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::capture::Capture;
use pbs_lab::network::topology::{LEFT_LINK, RECEIVER, RECEIVER_LINK, RIGHT_LINK, ROUTER_RIGHT, SENDER, SENDER_LINK};
use pbs_lab::network::{frame, link};

use crate::garbage::Living;
use crate::support::daemon::wait_until;

/// The port of the attacker, and of the programs it would reach.
const PORT: u16 = 5353;

/// Between two Queries: more than 700 a second.
const PAUSE: Duration = Duration::from_micros(1280);

/// The host's own Query, made one in the name of somebody else.
fn naming(query: &[u8], address: IpAddr, session: u16, cookie: usize) -> Vec<u8> {
    let mut message: Message = datagram::decode(Bytes::copy_from_slice(query)).unwrap();
    message.source_is_signalling = false;
    let Body::Query(body) = &mut message.body else { panic!("a Query") };
    body.session.0[..2].copy_from_slice(&session.to_be_bytes());
    body.nli.peer = PeerIdentity::new(vec![0xee; 16]).unwrap();
    body.nli.address = address;
    body.cookie = Cookie::new(vec![b'!'; cookie]).unwrap();
    let mut out = BytesMut::new();
    datagram::encode(&message, &mut out).unwrap();
    out.to_vec()
}

/// RFC 5971 §4.4.1, §8.4 (note 9 of the GIST requirements).
#[test]
fn a_host_cannot_have_a_router_send_where_it_likes() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let living = Living::build();
    let router = &living.site.chain.router;
    let attacker = Injector::new(&living.site.chain.sender, SENDER_LINK, router, LEFT_LINK).unwrap();
    let ask = |payload: &[u8]| {
        attacker.send(&[packet::udp((SENDER, PORT), (RECEIVER, 270), payload).unwrap()]).unwrap();
        std::thread::sleep(PAUSE);
    };
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let program = router.run(|| UdpSocket::bind((local, PORT))).unwrap();
    program.set_nonblocking(true).unwrap();
    let capture = Capture::start(router, RIGHT_LINK, Instant::now()).unwrap();

    let taken = living.router.gist("datagrams_received");
    let counted = ["unanswerable", "long_query_cookies"].map(|counter| living.router.gist(counter));
    let began = Instant::now();
    for number in 0..50 {
        ask(&naming(&living.query, local, number, 32));
        ask(&naming(&living.query, RECEIVER, number, 344));
    }
    for number in 0..1000 {
        ask(&naming(&living.query, RECEIVER, number, 32));
    }
    wait_until("every Query is counted", || living.router.gist("datagrams_received") >= taken + 1100);
    let windows = usize::try_from(began.elapsed().as_secs() / 4).unwrap() + 2;

    let after = ["unanswerable", "long_query_cookies"].map(|counter| living.router.gist(counter));
    assert_eq!(after, counted.map(|before| before + 50));
    assert_eq!(program.recv(&mut [0; 2048]).unwrap_err().kind(), ErrorKind::WouldBlock, "a program of the router has got something");
    let mut sent: BTreeMap<u16, usize> = BTreeMap::new();
    capture.look(|frames| {
        let seen = frames.iter().filter_map(|frame| frame.ip().and_then(frame::read));
        let normal = seen.filter(|seen| (seen.source, seen.destination, seen.protocol) == (ROUTER_RIGHT, RECEIVER, 17));
        normal.for_each(|seen| *sent.entry(seen.ports.1).or_default() += 1);
    });
    let to_gist = sent.remove(&270).unwrap_or(0);
    println!("{to_gist} Responses to port 270 in {:?}; to other ports {sent:?}", began.elapsed());
    assert!(sent.is_empty(), "{sent:?}");
    assert!((1..=16 * windows).contains(&to_gist), "{to_gist}");
}

/// The same upon a whole network, whose link carries the sum: Responses to as many of its addresses as there are.
#[test]
fn a_host_cannot_have_a_router_send_much_to_all_addresses_of_one_network() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    const MOST: usize = 256;
    let living = Living::build();
    let (router, receiver) = (&living.site.chain.router, &living.site.chain.receiver);
    let victims: Vec<IpAddr> = (10..90).map(|host| IpAddr::V4(Ipv4Addr::new(192, 168, 21, host))).collect();
    for victim in &victims {
        link::add_address(receiver, RECEIVER_LINK, *victim, 24).unwrap();
    }
    let attacker = Injector::new(&living.site.chain.sender, SENDER_LINK, router, LEFT_LINK).unwrap();
    let capture = Capture::start(router, RIGHT_LINK, Instant::now()).unwrap();
    let taken = living.router.gist("datagrams_received");
    let began = Instant::now();
    for number in 0..1600 {
        let query = naming(&living.query, victims[usize::from(number) % victims.len()], number, 32);
        attacker.send(&[packet::udp((SENDER, PORT), (RECEIVER, 270), &query).unwrap()]).unwrap();
        std::thread::sleep(PAUSE);
    }
    wait_until("most Queries are counted", || living.router.gist("datagrams_received") >= taken + 1500);
    let windows = usize::try_from(began.elapsed().as_secs() / 4).unwrap() + 2;
    let sent = capture.look(|frames| {
        let seen = frames.iter().filter_map(|frame| frame.ip().and_then(frame::read));
        seen.filter(|seen| seen.source == ROUTER_RIGHT && seen.protocol == 17 && victims.contains(&seen.destination)).count()
    });
    println!("{sent} Responses to 80 addresses of one network in {:?}", began.elapsed());
    assert!((1..=MOST * windows).contains(&sent), "{sent}, at most {MOST} in 4 s");
    assert!(living.router.gist("rate_dropped") > 0);
}
