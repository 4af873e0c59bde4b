//! The kernel's reassembly under attack: somebody on a link would fill it with datagrams that never become whole. Without the SPI
//! of a live permission nothing suffers; with it only datagrams that travel in fragments under that permission.

use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pbs_lab::attack::injector::Injector;
use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::Family;

use crate::site::Site;

const PORT: u16 = 9300;
/// Of another flow between the same hosts.
const BESIDE: u16 = 9301;
/// Datagrams sent of each size.
const TRIES: usize = 20;
/// How long is waited for a datagram that is to arrive, however busy the machine is, and for one that may be lost.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an attack may take to have an effect.
const MOST: Duration = Duration::from_secs(20);
const SOON: Duration = Duration::from_millis(150);
/// First fragments that would fill the kernel's own 4 MiB, and more.
const FLOOD: u32 = 4_000;
/// Octets of a datagram that fits every link.
const WHOLE: usize = 1_000;
/// And of one that does not.
const IN_FRAGMENTS: usize = 4_000;

/// Whose reassembly is filled.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Router,
    Receiver,
}

#[test]
fn a_flood_of_first_fragments_at_a_router_harms_nothing_without_an_spi_and_only_fragments_of_its_flow_with_it_over_ipv4() {
    attack(Family::Ipv4, Victim::Router);
}

#[test]
fn a_flood_of_first_fragments_at_a_router_harms_nothing_without_an_spi_and_only_fragments_of_its_flow_with_it_over_ipv6() {
    attack(Family::Ipv6, Victim::Router);
}

#[test]
fn a_flood_of_first_fragments_at_the_receiver_harms_nothing_without_an_spi_and_only_fragments_of_its_flow_with_it_over_ipv4() {
    attack(Family::Ipv4, Victim::Receiver);
}

#[test]
fn a_flood_of_first_fragments_at_the_receiver_harms_nothing_without_an_spi_and_only_fragments_of_its_flow_with_it_over_ipv6() {
    attack(Family::Ipv6, Victim::Receiver);
}

fn attack(family: Family, victim: Victim) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start();
    let [sockets, beside] = [PORT, BESIDE].map(|port| site.sockets(family, port));
    for sockets in [&sockets, &beside] {
        // The path's MTU is learned first.
        arrive(sockets, IN_FRAGMENTS, 2, SOON);
        arrive(sockets, 1_400, 1, SOON);
    }
    let quiet = [WHOLE, IN_FRAGMENTS].map(|size| arrive(&sockets, size, TRIES, PATIENCE));
    assert_eq!(quiet, [TRIES; 2], "without an attack");
    let identifications = identifications(&site.first);
    let near = identifications.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) < 1000).count();
    assert!(
        family == Family::Ipv6 || (identifications.len() >= TRIES && near < TRIES / 2),
        "nobody can tell the next: {identifications:?}"
    );

    let (injector, host, name) = match victim {
        Victim::Router => (Injector::new(&site.sender, "s0", site.router1(), "p0"), site.router1(), "router1"),
        Victim::Receiver => (Injector::new(site.plain(), "n1", &site.receiver, "d0"), &site.receiver, "receiver"),
    };
    let (injector, attacker) = (injector.unwrap(), attacker(family));
    let flooded = |source, spi, harm| {
        let (full, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut id = 0;
                while !ended.load(Ordering::Relaxed) {
                    let fragments: Vec<_> = (0..100).map(|at| first_fragment(source, family.receiver(), spi, id + at)).collect();
                    injector.send(&fragments).unwrap();
                    id += 100;
                    full.store(id >= FLOOD, Ordering::Relaxed);
                }
            });
            let began = Instant::now();
            let spent = || site.ask(name, "status")["fragments"]["dropped"]["too_many_of_permissions"].as_u64() > Some(0);
            while (!full.load(Ordering::Relaxed) || (harm && !spent())) && began.elapsed() < MOST {
                std::thread::sleep(Duration::from_millis(10));
            }
            let attacked = [(WHOLE, PATIENCE), (IN_FRAGMENTS, if harm { SOON } else { PATIENCE })];
            let attacked = attacked.map(|(size, wait)| arrive(&sockets, size, TRIES, wait));
            let beside = arrive(&beside, IN_FRAGMENTS, TRIES, PATIENCE);
            let held = reassembly_memory(host, family);
            ended.store(true, Ordering::Relaxed);
            (attacked, beside, held)
        })
    };
    let (attacked, by, held) = flooded(attacker, 0x0404_0404, false);
    let said = site.ask(name, "status")["fragments"].clone();
    println!("  {victim:?}, {family:?}, no SPI: {attacked:?} of {TRIES} arrive, whole and in fragments; {held:?} octets wait; {said}");
    assert_eq!((attacked, by), ([TRIES; 2], TRIES), "who knows no SPI harms nobody");
    assert!(held.is_none_or(|held| held < 1 << 20), "{held:?}");
    // Before a router's shield for their SPI, else beyond the bucket of strangers.
    let dropped = ["too_many", "unknown_spi"].map(|why| said["dropped"][why].as_u64().unwrap());
    assert!(dropped.iter().sum::<u64>() > u64::from(FLOOD) / 2, "{said}");
    assert!(said["of_permissions"].as_u64().unwrap() >= 3 * TRIES as u64 && said["permissions_known"].as_u64() > Some(0), "{said}");
    // Of the attacker's own nothing has gone on.
    let passed = site
        .narrow
        .look(|frames| frames.iter().filter_map(|frame| frame::read(frame.ip()?)).filter(|seen| seen.source == attacker).count());
    assert_eq!(passed, 0);

    let (attacked, by, held) = flooded(family.sender(), spi(&site.first), true);
    println!(
        "  {victim:?}, {family:?}, on the path: {attacked:?} of {TRIES} arrive, whole and in fragments, {by} of the flow beside; {held:?} octets wait"
    );
    assert_eq!(attacked[0], TRIES, "what needs no reassembly");
    // How many of the flow's own datagrams in fragments are lost then, the attacker's pace decides.
    // One in 33 of the identifications on IPv4 is the attacker's too, once his burst is spent.
    assert!(by >= TRIES - 5, "{by} of another flow between the same hosts");
    assert!(held.is_none_or(|held| held < 16 << 20), "{held:?}");
    let said = site.ask(name, "status")["fragments"].clone();
    assert!(said["dropped"]["too_many_of_permissions"].as_u64() > Some(0), "{said}");
}

/// Identifications of the IPv4 datagrams in fragments, from the wire, in order.
fn identifications(capture: &Capture) -> Vec<u16> {
    // The first fragment of each, of which more follow.
    let of_first = |ip: &[u8]| (ip[0] >> 4 == 4 && ip[6] & 0x20 != 0 && ip[7] == 0 && ip[6] & 0x1f == 0).then(|| [ip[4], ip[5]]);
    capture.look(|frames| frames.iter().filter_map(|frame| of_first(frame.ip()?)).map(u16::from_be_bytes).collect())
}

/// SPI of the flow, from the wire.
fn spi(capture: &Capture) -> u32 {
    let of_flow = |seen: &frame::Seen| (seen.ports.1 == PORT).then(|| seen.authentication.as_ref().map(|ah| ah.spi)).flatten();
    capture.look(|frames| frames.iter().filter_map(|frame| of_flow(&frame::read(frame.ip()?)?)).next_back().unwrap())
}

/// How many of so many datagrams of a size arrive as they were sent, each within `wait`.
fn arrive((sender, receiver): &(UdpSocket, UdpSocket), size: usize, tries: usize, wait: Duration) -> usize {
    receiver.set_read_timeout(Some(wait)).unwrap();
    let datagram: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let mut buffer = vec![0; 65_536];
    let arrived = (0..tries).filter(|_| {
        // A connected socket is told of an earlier datagram here.
        let _ = sender.send(&datagram).or_else(|_| sender.send(&datagram));
        receiver.recv(&mut buffer).is_ok_and(|length| buffer[..length] == datagram)
    });
    arrived.count()
}

/// The first fragment of a datagram whose rest never comes, with AH in front as a permitted one has it.
fn first_fragment(source: IpAddr, destination: IpAddr, spi: u32, id: u32) -> Vec<u8> {
    const AH: u8 = 51;
    let mut data = vec![4; 1_392];
    data[4..8].copy_from_slice(&spi.to_be_bytes());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = u16::try_from(20 + data.len()).unwrap().to_be_bytes();
            let id = (id as u16).to_be_bytes();
            let head = [0x45, 0, total[0], total[1], id[0], id[1], 0x20, 0, 64, AH, 0, 0];
            let mut packet = [&head[..], &source.octets(), &destination.octets(), &data].concat();
            smoltcp::wire::Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
            packet
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let len = u16::try_from(8 + data.len()).unwrap().to_be_bytes();
            let fragment = [&[AH, 0, 0, 1][..], &id.to_be_bytes()].concat();
            [&[0x60, 0, 0, 0, len[0], len[1], 44, 64][..], &source.octets(), &destination.octets(), &fragment, &data].concat()
        }
        _ => unreachable!("both are of one family"),
    }
}

/// Somebody on the sender's link, or who says so.
fn attacker(family: Family) -> IpAddr {
    let address = match family {
        Family::Ipv4 => "192.168.20.66",
        Family::Ipv6 => "fd20::66",
    };
    address.parse().unwrap()
}

/// Octets that a host's kernel keeps of datagrams that are not whole yet. What it keeps of IPv6 before its filters it does not tell.
fn reassembly_memory(host: &Namespace, family: Family) -> Option<u64> {
    let text = host.run(|| std::fs::read_to_string("/proc/thread-self/net/sockstat")).unwrap();
    let line = text.lines().find(|line| line.starts_with("FRAG: ")).unwrap();
    (family == Family::Ipv4).then(|| line.rsplit(' ').next().unwrap().parse().unwrap())
}
