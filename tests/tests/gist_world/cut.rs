//! An association that breaks in the middle of a message: somebody on the link lets half of a segment pass, and resets the connection.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pbs_lab::network::graph::{Addresses, MIDDLE_LEFT, MIDDLE_RIGHT, Place, TwoRouters};
use pbs_lab::network::relay::{Fate, Relay, Way, packet, with_packet};
use pbs_lab::network::topology::Family::{self, Ipv4, Ipv6};
use pbs_lab::process::{self, Daemon, Program};
use pbs_lab::remains::Remainder;
use serde_json::json;
use smoltcp::wire::{IpAddress, Ipv4Packet, Ipv6Packet, TcpPacket};

use crate::console::{Console, find};
use crate::row::{PATIENCE, PORT, configure};

/// TCP port of associations, over TLS and over TCP alone.
const TLS_PORT: u16 = 30270;
const PLAIN_PORT: u16 = 30271;
const TCP: u8 = 6;
/// Octets of a message that is cut, and of GIST's own part in a message that carries it, at most.
const LONG: usize = 1200;
/// A record of TLS that carries data, its header, and the least octets of the Query in it: a handshake's last messages before come in
/// one segment that begins with another record.
const DATA_RECORD: u8 = 23;
const QUERY: usize = 400;

/// G-014, G-397: over TCP alone, where each octet shows. The half is delivered to nobody, the sending application hears that the
/// association is lost, and the message that it says again arrives whole and once.
#[test]
fn half_a_message_is_delivered_to_nobody_and_the_whole_one_after_it_once() {
    for family in [Ipv4, Ipv6] {
        if !pbs_lab::may_make_networks() {
            return;
        }
        let network = TwoRouters::build(Place::BetweenRouters, family).unwrap();
        let relay = Relay::start(&network.middle, MIDDLE_LEFT, MIDDLE_RIGHT).unwrap();
        let start = |host, address: std::net::IpAddr| {
            let plain = format!("--plain-port={PLAIN_PORT}");
            Console::start(host, &[format!("--address={address}")], &["--nslp-id=32720", &plain])
        };
        let mut receiver = start(&network.receiver, family.receiver());
        let mut sender = start(&network.sender, family.sender());
        let (from, to) = (family.sender(), family.receiver());
        let text = |letter: &str| letter.repeat(LONG);
        let say = |text: &str| format!("send {from} {to} {text} session={} protocol=17 reliable", "07".repeat(16));
        sender.say(&say("first..."));
        assert_eq!(receiver.event("received")["transport"], "tcp");

        let cut = Cut::on(&relay, PLAIN_PORT, |payload| payload.len() > LONG);
        sender.say(&say(&text("half")[..LONG]));
        let lost = sender.event("network_notification");
        assert_eq!(lost["change"], "association_lost", "{lost}");
        assert!(cut.passed().is_some_and(|octets| octets >= LONG / 2), "{:?}", cut.passed());
        sender.say(&say(&text("whole")[..LONG]));
        // What comes next is the whole one: nothing of the half before it, and nothing of it behind.
        let next = loop {
            let event = receiver.any_event();
            match event["event"].as_str() {
                Some("received") => break event,
                Some("network_notification") => assert_eq!(event["change"], "association_lost", "{event}"),
                _ => panic!("{event}"),
            }
        };
        assert_eq!(next["payload"], hex::encode(&text("whole")[..LONG]));
        receiver.say("show counters");
        let counters = receiver.event("shown")["content"].clone();
        let count = |name: &str| find(&counters, name).unwrap_or_else(|| panic!("no {name} in {counters}"));
        assert_eq!((count("messages_delivered"), count("malformed")), (2, 0), "{counters}");
    }
}

/// G-014: a Query that is cut between two routers of PBS is said again, whole, over a new association, and the permission comes.
#[test]
fn a_query_that_is_cut_between_two_routers_is_repeated_whole_and_granted() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
    let family = Ipv4;
    let (_remainder, directory) = Remainder::temporary("pbs-gist-world").unwrap();
    let network = TwoRouters::build(Place::BetweenRouters, family).unwrap();
    let Addresses { router1, router2, .. } = Addresses::of(family);
    let nodes = [
        ("router1", router1.to_vec()),
        ("router2", router2.to_vec()),
        ("receiver", vec![family.receiver()]),
        ("sender", vec![family.sender()]),
    ];
    configure(&directory, &nodes, "");
    let relay = Relay::start(&network.middle, MIDDLE_LEFT, MIDDLE_RIGHT).unwrap();
    let hosts = [&network.router1, &network.router2, &network.receiver, &network.sender];
    let daemons: Vec<_> = nodes
        .iter()
        .zip(hosts)
        .map(|((name, _), host)| {
            let program = if name.starts_with("router") { Program::Router } else { Program::Host };
            Daemon::start(host, program, &directory, name).unwrap()
        })
        .collect();
    let cut = Cut::on(&relay, TLS_PORT, |payload| payload.len() > QUERY && payload[0] == DATA_RECORD);
    let receiver = network.receiver.run(|| UdpSocket::bind((family.receiver(), PORT))).unwrap();
    receiver.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    let sender = network.sender.run(|| UdpSocket::bind((family.sender(), 9001))).unwrap();
    let begun = Instant::now();
    sender.send_to(b"first", (family.receiver(), PORT)).unwrap();
    // The first packet may be given up while the second Query is under way; a program says it again.
    let arrived = loop {
        receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        if let Ok(length) = receiver.recv(&mut [0; 16]) {
            break length;
        }
        let logs: String = daemons.iter().map(|daemon| format!("--- {}\n{}\n", daemon.name(), daemon.last_words())).collect();
        assert!(begun.elapsed() < PATIENCE * 2, "no permission after the cut ({:?})\n{logs}", cut.passed());
        sender.send_to(b"first", (family.receiver(), PORT)).unwrap();
    };
    println!("  granted {:?} after the first packet, cut behind {:?} octets", begun.elapsed(), cut.passed());
    assert_eq!(arrived, 5);
    assert!(cut.passed().is_some(), "nothing was cut");
    for daemon in &daemons[..2] {
        let flows = daemon.ask(&json!({ "command": "flows" })).unwrap();
        assert_eq!(flows.as_array().unwrap().len(), 1, "{}: {flows}", daemon.name());
    }
    // The same Query again is as long as it was: nothing of it has been taken before.
    let seen = cut.seen();
    assert!(seen.len() >= 2 && seen[0] == seen[1], "octets of the Query: {seen:?}");
}

/// Somebody who cuts one connection, once.
#[derive(Clone, Default)]
struct Cut(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    passed: Option<usize>,
    /// Octets of each segment that was to be cut, the later ones untouched.
    seen: Vec<usize>,
}

impl Cut {
    /// Cuts the first segment to `port` whose data is `wanted`, in the middle, and resets both ends.
    fn on(relay: &Relay, port: u16, wanted: impl Fn(&[u8]) -> bool + Send + 'static) -> Self {
        let cut = Self::default();
        let state = Arc::clone(&cut.0);
        // Source port of the connection that has been cut.
        let mut broken = None;
        relay.set(move |way, frame| {
            let Some(segment) = packet(frame).and_then(Segment::read) else { return Fate::Pass };
            let mut state = state.lock().unwrap();
            let to_port = if way == Way::There { segment.ports.1 } else { segment.ports.0 };
            if to_port != port {
                return Fate::Pass;
            }
            let connection = if way == Way::There { segment.ports.0 } else { segment.ports.1 };
            if broken == Some(connection) {
                // The one end is told at once; the other by what it gets for going on.
                return if way == Way::There { Fate::Pass } else { Fate::Instead(vec![with_packet(frame, &segment.reset(0))]) };
            }
            if way == Way::Back || !wanted(segment.data()) {
                return Fate::Pass;
            }
            state.seen.push(segment.data().len());
            if state.passed.is_some() {
                return Fate::Pass;
            }
            let half = segment.data().len() / 2;
            state.passed = Some(half);
            broken = Some(connection);
            Fate::Instead(vec![with_packet(frame, &segment.cut(half)), with_packet(frame, &segment.reset(half))])
        });
        cut
    }

    /// How many octets of the segment have passed.
    fn passed(&self) -> Option<usize> {
        self.0.lock().unwrap().passed
    }

    fn seen(&self) -> Vec<usize> {
        self.0.lock().unwrap().seen.clone()
    }
}

/// A TCP segment in an IP packet.
struct Segment<'a> {
    packet: &'a [u8],
    ip: usize,
    tcp: usize,
    ports: (u16, u16),
}

impl<'a> Segment<'a> {
    fn read(packet: &'a [u8]) -> Option<Self> {
        let (ip, protocol, end) = match packet.first()? >> 4 {
            4 => {
                let header = Ipv4Packet::new_checked(packet).ok()?;
                (usize::from(header.header_len()), u8::from(header.next_header()), usize::from(header.total_len()))
            }
            _ => {
                let header = Ipv6Packet::new_checked(packet).ok()?;
                (40, u8::from(header.next_header()), header.total_len())
            }
        };
        let packet = packet.get(..end)?;
        if protocol != TCP {
            return None;
        }
        let header = TcpPacket::new_checked(packet.get(ip..)?).ok()?;
        Some(Self { packet, ip, tcp: usize::from(header.header_len()), ports: (header.src_port(), header.dst_port()) })
    }

    fn data(&self) -> &'a [u8] {
        &self.packet[self.ip + self.tcp..]
    }

    /// The same with so many octets of its data.
    fn cut(&self, octets: usize) -> Vec<u8> {
        self.with(octets, 0, false)
    }

    /// A reset behind so many octets of its data.
    fn reset(&self, octets: usize) -> Vec<u8> {
        self.with(0, octets, true)
    }

    fn with(&self, octets: usize, behind: usize, reset: bool) -> Vec<u8> {
        let mut packet = self.packet[..self.ip + self.tcp + octets].to_vec();
        let length = packet.len();
        let (from, to): (IpAddress, IpAddress) = if packet[0] >> 4 == 4 {
            let mut header = Ipv4Packet::new_unchecked(&mut packet);
            header.set_total_len(length as u16);
            header.fill_checksum();
            (header.src_addr().into(), header.dst_addr().into())
        } else {
            let mut header = Ipv6Packet::new_unchecked(&mut packet);
            header.set_payload_len((length - 40) as u16);
            (header.src_addr().into(), header.dst_addr().into())
        };
        let mut header = TcpPacket::new_unchecked(&mut packet[self.ip..]);
        header.set_seq_number(header.seq_number() + behind);
        header.set_rst(reset);
        header.set_psh(!reset);
        header.fill_checksum(&from, &to);
        packet
    }
}

#[test]
fn a_segment_that_is_cut_is_a_good_one() {
    let family: Family = Ipv4;
    let [from, to] = [family.sender(), family.receiver()].map(|address| match address {
        std::net::IpAddr::V4(address) => address,
        std::net::IpAddr::V6(_) => panic!("IPv4"),
    });
    let mut whole = [&[0x45, 0, 0, 60, 0, 0, 0x40, 0, 64, 6, 0, 0][..], &from.octets(), &to.octets(), &[0; 40]].concat();
    Ipv4Packet::new_unchecked(&mut whole).fill_checksum();
    TcpPacket::new_unchecked(&mut whole[20..]).set_header_len(20);
    let segment = Segment::read(&whole).unwrap();
    assert_eq!(segment.data().len(), 20);
    for (packet, data, sequence) in [(segment.cut(7), 7, 0), (segment.reset(7), 0, 7)] {
        let header = Ipv4Packet::new_checked(&packet[..]).unwrap();
        assert!(header.verify_checksum());
        let tcp = TcpPacket::new_checked(&packet[20..]).unwrap();
        assert!(tcp.verify_checksum(&from.into(), &to.into()));
        assert_eq!((tcp.payload().len(), tcp.seq_number().0, tcp.rst()), (data, sequence, sequence > 0));
    }
}
