//! A flow that goes on beside everything that others may say to the nodes it passes: anybody in datagrams, from an address of his own or in
//! the name of a neighbour on the link, and a host with a good certificate over associations of its own. Of each kind is shown, on the wire
//! and with real daemons, under which reason it is counted, how much of it is answered, that no table of any node changes, that none of the
//! flow's packets is missing at a plain socket, and how long a new flow waits for its grant meanwhile.

mod associations;
mod datagrams;
mod floods;
mod forged;
mod malformed;
mod stalled;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gist::wire::{MessageType, datagram};
use pbs_lab::attack::injector::HARDWARE_ADDRESS;
use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{LEFT_LINK, MTU, RECEIVER, RIGHT_LINK, ROUTER_LEFT, ROUTER_LEFT6, ROUTER_RIGHT, ROUTER_RIGHT6, SENDER};
use serde_json::Value;

use crate::garbage::Living;
use crate::support::daemon::{Daemon, wait_until};
use crate::support::site::{Running, Site};

/// A host behind the same router, with a link of its own and a certificate for its address.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 22, 9));
const STRANGERS_ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 22, 254));
const STRANGERS_LINK: &str = "r2";

/// So long a sender waits for the answer to a flow's first Query before it asks again: a grant that took longer would be owed to the
/// second one. Without anything it takes some milliseconds.
const LONGEST_GRANT: Duration = Duration::from_secs(5);

/// Sender, router and receiver with a flow that goes on, and the stranger.
struct World {
    living: Living,
    stranger: Namespace,
    running: Running,
    /// What the router's links carry: to the sender, to the receiver, to the stranger.
    captures: [Capture; 3],
    /// Ports of flows that have been granted meanwhile.
    flows: AtomicU16,
    before: Vec<BTreeSet<String>>,
}

/// What was said: messages, and octets of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Said {
    messages: usize,
    octets: usize,
}

impl World {
    fn build() -> Self {
        let site = Site::build();
        let stranger = Namespace::create("stranger").unwrap();
        link::join(
            End { host: &stranger, interface: "x0", addresses: &[(STRANGER, 24)] },
            End { host: &site.chain.router, interface: STRANGERS_LINK, addresses: &[(STRANGERS_ROUTER, 24)] },
            MTU,
        )
        .unwrap();
        link::add_default_route(&stranger, STRANGERS_ROUTER).unwrap();
        site.files.issue(&site.authority, "stranger", &[STRANGER]);
        let addresses = [ROUTER_LEFT, ROUTER_RIGHT, ROUTER_LEFT6, ROUTER_RIGHT6, STRANGERS_ROUTER];
        site.files.issue(&site.authority, "router", &addresses);
        let captures =
            [LEFT_LINK, RIGHT_LINK, STRANGERS_LINK].map(|link| Capture::start(&site.chain.router, link, Instant::now()).unwrap());
        let living = Living::on(site);
        let running = living.application.run();
        let before = living.tables();
        Self { living, stranger, running, captures, flows: AtomicU16::new(0), before }
    }

    /// The last message of this type that went from one address to another on a link, as a datagram's payload.
    fn captured(&self, from: IpAddr, to: IpAddr, kind: MessageType) -> Vec<u8> {
        let on_link = |capture: &Capture| {
            capture.look(|frames| {
                let seen = frames.iter().filter_map(|frame| frame.ip().and_then(frame::read));
                let such = seen.filter(|seen| (seen.source, seen.destination, seen.protocol) == (from, to, 17));
                such.map(|seen| seen.payload.to_vec()).rfind(|payload| type_of(payload) == Some(kind))
            })
        };
        self.captures.iter().find_map(on_link).unwrap()
    }

    /// Asks for a new flow, as any program does by sending, and measures until its first packet has arrived at a plain socket.
    #[track_caller]
    fn grant(&self) -> Duration {
        let port = self.flows.fetch_add(1, Ordering::Relaxed);
        let chain = &self.living.site.chain;
        let receiver = chain.receiver.run(|| UdpSocket::bind((RECEIVER, 20_000 + port))).unwrap();
        let sender = chain.sender.run(|| UdpSocket::bind((SENDER, 30_000 + port))).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let began = Instant::now();
        wait_until("a new flow is granted", || {
            let _ = sender.send(b"new flow");
            receiver.recv(&mut [0; 64]).is_ok()
        });
        let took = began.elapsed();
        assert!(took < LONGEST_GRANT, "{took:?}");
        took
    }

    /// Everything that was in a table is there as it was, and nothing is there but it and what belongs to flows granted meanwhile.
    #[track_caller]
    fn must_stand(&self, what: &str) {
        // What a stranger has opened goes by itself.
        wait_until(&format!("tables are as they were ({what})"), || {
            let granted = sessions(&self.living.sender);
            let is_granted = |entry: &String| granted.iter().any(|session| entry.contains(session));
            self.before
                .iter()
                .zip(self.living.tables())
                .all(|(before, now)| before.is_subset(&now) && now.difference(before).all(is_granted))
        });
    }

    /// GIST messages of this type that have been sent to an address in datagrams up to now, by whoever is no attacker, and their octets: as
    /// the router's link to it shows.
    fn sent_to(&self, address: IpAddr, kind: MessageType) -> Said {
        let [left, _, stranger] = &self.captures;
        let capture = if address == STRANGER { stranger } else { left };
        assert_eq!(capture.lost(), 0);
        capture.look(|frames| {
            let genuine = frames.iter().filter(|frame| frame.source() != Some(HARDWARE_ADDRESS));
            let seen = genuine.filter_map(|frame| frame.ip().and_then(frame::read));
            let such = seen.filter(|seen| (seen.destination, seen.protocol) == (address, 17) && type_of(seen.payload) == Some(kind));
            such.fold(Said::default(), |sent, seen| Said { messages: sent.messages + 1, octets: sent.octets + seen.payload.len() })
        })
    }
}

/// Sessions of the flows that a host has permissions for.
fn sessions(host: &Daemon) -> BTreeSet<String> {
    host.permissions().iter().map(|flow| flow["session"].as_str().unwrap().to_owned()).collect()
}

fn type_of(payload: &[u8]) -> Option<MessageType> {
    datagram::decode(Bytes::copy_from_slice(payload)).ok().map(|message| message.message_type())
}

/// GIST's counters by name, those by entry of the error catalogue as `refused/name`.
fn counters(daemon: &Daemon) -> BTreeMap<String, u64> {
    let Value::Object(counters) = daemon.ask("gist")["counters"].take() else { panic!("counters have names") };
    let mut flat = BTreeMap::new();
    for (name, value) in counters {
        match value {
            Value::Object(causes) => {
                flat.extend(causes.into_iter().map(|(cause, count)| (format!("{name}/{cause}"), count.as_u64().unwrap())))
            }
            count => {
                flat.insert(name, count.as_u64().unwrap());
            }
        }
    }
    flat
}

/// Processor time that a process or thread has used, as `/proc` says: `of` is its directory there.
fn processor_time(of: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{of}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// What has been counted since.
fn grown(daemon: &Daemon, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let more = |(name, now): (String, u64)| Some((name.clone(), now - before[&name])).filter(|(_, more)| *more > 0);
    counters(daemon).into_iter().filter_map(more).collect()
}

/// Waits until so many have been counted for each of these reasons since, or together for those that `|` stands between; there may be no
/// more of what no honest node says.
#[track_caller]
fn must_count(daemon: &Daemon, before: &BTreeMap<String, u64>, reasons: &[&str], times: usize, what: &str) -> BTreeMap<String, u64> {
    let times = u64::try_from(times).unwrap();
    let mut now = BTreeMap::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(10) {
        now = grown(daemon, before);
        let of = |reason: &&str| reason.split('|').filter_map(|reason| now.get(reason)).sum::<u64>();
        if reasons.iter().all(|reason| of(reason) >= times) {
            let never_honest = |reason: &&str| reason.starts_with("refused/") || *reason == "malformed";
            let exact = reasons.iter().filter(|reason| never_honest(reason)).all(|reason| of(reason) == times);
            assert!(exact, "{what}: {times} for {reasons:?}, and counted are {now:?}");
            return now;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: {times} were said, to be counted for {reasons:?}, and counted are {now:?}");
}
