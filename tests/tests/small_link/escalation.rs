//! From a shared key to signatures of 64 octets in the middle of a TCP connection, over the narrow link (X-68, X-42, FR-40, FS-24).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use pbs_lab::attack::injector::Injector;
use pbs_lab::network::frame;
use pbs_lab::network::topology::{Family, RECEIVER, RECEIVER6, SENDER, SENDER6};
use pbs_lab::transfer::make_file;
use smoltcp::wire::Ipv4Packet;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::packet::IpPacket;

use crate::site::{NARROW, PATIENCE, Site};

const PORT: u16 = 9200;
/// What is written at a time, and how often.
const PIECE: usize = 16_000;
const PAUSE: Duration = Duration::from_millis(20);
/// Octets of a signature.
const SIGNATURE: usize = 64;
/// Three refresh periods of 5 s: injected packets are noticed within two.
const NOTICED: Duration = Duration::from_secs(15);

#[test]
fn a_connection_over_ipv4_goes_on_when_its_packets_are_signed_and_sends_none_that_is_too_big() {
    escalate(Family::Ipv4);
}

#[test]
fn a_connection_over_ipv6_goes_on_when_its_packets_are_signed_and_sends_none_that_is_too_big() {
    escalate(Family::Ipv6);
}

fn escalate(family: Family) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start();
    let listener = site.receiver.run(|| TcpListener::bind((family.receiver(), PORT))).unwrap();
    let server = std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut file = Vec::new();
        stream.read_to_end(&mut file).map(|_| file)
    });
    let to = SocketAddr::new(family.receiver(), PORT);
    let mut stream = site.sender.run(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let source_port = stream.local_addr().unwrap().port();
    let file = make_file(PIECE * 2000).unwrap();
    let mut pieces = file.chunks(PIECE);
    let mut sent = 0;
    let mut go_on_until = |limit: Duration, done: &dyn Fn() -> bool| {
        let started = Instant::now();
        while started.elapsed() < limit {
            let piece = pieces.next().unwrap();
            stream.write_all(piece).unwrap();
            sent += piece.len();
            std::thread::sleep(PAUSE);
            if done() {
                return true;
            }
        }
        false
    };
    go_on_until(Duration::from_secs(1), &|| false);
    inject(&site, family, source_port);
    assert!(go_on_until(NOTICED, &|| is_signed(&site)), "no packet is signed");
    let errors = site.errors(family);
    go_on_until(Duration::from_secs(2), &|| false);
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
    let received = server.join().unwrap().unwrap();
    assert!(received == file[..sent], "{} of {sent} octets arrived intact", received.len());

    let signed = site.narrow.look(|frames| {
        let seen = frames.iter().filter_map(|frame| frame::read(frame.ip()?)).filter(|seen| seen.ports.1 == PORT);
        let lengths = seen.filter(|seen| seen.authentication.is_some_and(|ah| ah.icv.len() >= SIGNATURE)).map(|seen| seen.length);
        lengths.collect::<Vec<_>>()
    });
    println!("  {family:?}: {} signed packets, the longest of {} octets; {errors} errors", signed.len(), signed.iter().max().unwrap());
    assert_eq!(*signed.iter().max().unwrap(), NARROW, "room was left for exactly this");
    assert_eq!(site.errors(family), errors, "nothing became too big");
}

fn is_signed(site: &Site) -> bool {
    site.narrow.look(|frames| {
        let seen = frames.iter().rev().take(200).filter_map(|frame| frame::read(frame.ip()?));
        seen.filter(|seen| seen.ports.1 == PORT).any(|seen| seen.authentication.is_some_and(|ah| ah.icv.len() >= SIGNATURE))
    })
}

/// Segments of the connection under its shared key, on the receiver's link. Their TCP checksums are wrong, so that the connection
/// itself notices nothing but that the true packets under the same numbers are dropped: few enough to be sent again at once.
fn inject(site: &Site, family: Family, source_port: u16) {
    let leaked = std::fs::read_to_string(site.leaked()).unwrap();
    let line: Vec<&str> = leaked.lines().rev().find(|line| line.starts_with(&format!("{PORT} "))).unwrap().split(' ').collect();
    let (spi, key) = (line[1].parse().unwrap(), IcvKey::new(MacAlgorithm::HmacSha256_128, &hex::decode(line[2]).unwrap()).unwrap());
    let highest = site.narrow.look(|frames| {
        let seen = frames.iter().filter_map(|frame| frame::read(frame.ip()?)).filter_map(|seen| seen.authentication);
        seen.filter(|ah| ah.spi == spi).map(|ah| ah.sequence).max().unwrap()
    });
    let injector = Injector::new(site.plain(), "n1", &site.receiver, "d0").unwrap();
    let packets: Vec<_> = (1..=5).map(|ahead| forge(family, source_port, spi, highest + 50 + ahead, &key)).collect();
    assert_eq!(injector.send(&packets).unwrap(), 5);
}

fn forge(family: Family, source_port: u16, spi: u32, number: u32, key: &IcvKey) -> Vec<u8> {
    let mut segment = [source_port.to_be_bytes(), PORT.to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 1, 5 << 4, 0x10, 0, 0, 0, 0, 0, 0]);
    segment.resize(1000, 0x66);
    let mut packet = match (family, SENDER, RECEIVER, SENDER6, RECEIVER6) {
        (Family::Ipv4, from, to, ..) => {
            let octets = |address: std::net::IpAddr| address.to_string().parse::<Ipv4Addr>().unwrap().octets();
            let total = u16::try_from(20 + segment.len()).unwrap().to_be_bytes();
            [&[0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, 6, 0, 0][..], &octets(from), &octets(to)].concat()
        }
        (Family::Ipv6, _, _, from, to) => {
            let octets = |address: std::net::IpAddr| address.to_string().parse::<Ipv6Addr>().unwrap().octets();
            let len = u16::try_from(segment.len()).unwrap().to_be_bytes();
            [&[0x60, 0, 0, 0, len[0], len[1], 6, 64][..], &octets(from), &octets(to)].concat()
        }
    };
    if family == Family::Ipv4 {
        Ipv4Packet::new_unchecked(&mut packet).fill_checksum();
    }
    packet.extend(segment);
    let mut out = Vec::new();
    ah::insert(&IpPacket::parse(&packet).unwrap(), spi, Number { low: number, high: None }, key, &mut out).unwrap();
    out
}
