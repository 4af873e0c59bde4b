//! The site of a scenario: four hosts with their daemons, somebody on one link, captures on every link.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use super::Stage;
use super::audit::{self, Of, Shown};
use super::chance::Plan;
use super::outcome::Outcome;
use super::policy::Policy;
use super::story::{Clock, Story};
use crate::attack::injector;
use crate::demo::line::Dropped;
use crate::demo::trial::source_port;
use crate::network::capture::{Capture, Frame};
use crate::network::frame::{self, Seen};
use crate::network::graph::{self, Addresses, Beside, Place, TwoRouters};
use crate::network::link;
use crate::network::namespace::Namespace;
use crate::network::relay::Relay;
use crate::network::topology::{Family, RECEIVER, RECEIVER6};
use crate::pki::{Authority, KeyKind};
use crate::process::{Daemon, Program};
use crate::remains::Remainder;

/// The shortest refresh period T there is.
pub(super) const SHORTEST: Duration = Duration::from_secs(5);
/// The flow's destination port.
pub(super) const PORT: u16 = 9001;
/// That of another flow between the same hosts, which nobody attacks.
pub(super) const OTHER_PORT: u16 = 9002;
/// How long a first permission may take.
const GRANT_LIMIT: Duration = Duration::from_secs(10);
/// Octets that may wait for the receiving program.
const RECEIVE_BUFFER: usize = 16 << 20;

/// The capture on the sender's link.
pub(super) const FIRST: &str = "sender-link";
/// The capture behind the second router.
pub(super) const BEHIND: &str = "behind-router2";

/// The nodes in the order of the path.
pub(super) const NODES: [&str; 4] = ["sender", "router1", "router2", "receiver"];

/// The routers on the sender's other uplinks.
const SPARES: [&str; 2] = ["router3", "router4"];
/// These uplinks, and the captures on them.
pub(super) const UPLINKS: [&str; 2] = ["second-uplink", "third-uplink"];

/// What a scenario needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Which link somebody sits on.
    pub place: Place,
    /// Refresh period T, whole seconds.
    pub refresh: Duration,
    /// Bytes asked for and granted.
    pub volume: u64,
    /// Keys of section `[reactions]` of the receiver, a line each; what is left out has its default.
    pub reactions: &'static str,
    /// Which node does not keep to the rules, if one does not, and what it runs.
    pub rogue: Option<(&'static str, Program)>,
}

/// Everything that runs.
pub(super) struct Site {
    directory: PathBuf,
    clock: Clock,
    /// IP version of the flows.
    pub(super) family: Family,
    /// What chance has decided.
    pub(super) plan: Plan,
    /// Refresh period T.
    pub(super) refresh: Duration,
    pub(super) hosts: TwoRouters,
    /// On the first router's side of the sender's link.
    pub(super) first: Capture,
    /// On both sides of the middle, towards the sender and towards the receiver.
    pub(super) middle: [Capture; 2],
    /// On the link behind the second router, as that router sends it.
    pub(super) last: Capture,
    /// In the middle.
    pub(super) relay: Relay,
    /// On the sender's and the receiver's link, where somebody sits on every link.
    outer: Option<[Relay; 2]>,
    /// On the other routers' side of the sender's second and third uplink.
    spares: Vec<Capture>,
    daemons: Mutex<Vec<Daemon>>,
    /// Removes the directory, last of all.
    remainder: Option<Remainder>,
}

impl Site {
    /// Builds network, keys and configurations, and starts all four daemons.
    pub(super) fn build(terms: Terms, family: Family, plan: Plan) -> io::Result<Self> {
        let (remainder, directory) = Remainder::temporary("pbs-lab-scenario")?;
        let remainder = if std::env::var_os("PBS_LAB_KEEP_LOGS").is_none() {
            Some(remainder)
        } else {
            remainder.keep();
            None
        };
        issue_certificates(&directory, family)?;
        write_configurations(&directory, terms, family)?;
        let hosts = TwoRouters::build(terms.place, family)?;
        let clock = Clock::start()?;
        let capture = |host: &Namespace, interface| Capture::start(host, interface, clock.started);
        let first = capture(&hosts.router1, graph::ROUTER1_LEFT_LINK)?;
        let middle = [capture(&hosts.middle, graph::MIDDLE_LEFT)?, capture(&hosts.middle, graph::MIDDLE_RIGHT)?];
        let last = capture(&hosts.router2, graph::ROUTER2_RIGHT_LINK)?;
        let relay = Relay::start(&hosts.middle, graph::MIDDLE_LEFT, graph::MIDDLE_RIGHT)?;
        let outer = hosts.outer.as_ref().map(|[first, last]| {
            let start = |host| Relay::start(host, graph::MIDDLE_LEFT, graph::MIDDLE_RIGHT);
            Ok::<_, io::Error>([start(first)?, start(last)?])
        });
        let outer = outer.transpose()?;
        let links = graph::SPARE_LEFT_LINKS;
        let spares = hosts.spares.iter().zip(links).map(|(spare, link)| capture(spare, link)).collect::<io::Result<_>>()?;
        let (refresh, daemons) = (terms.refresh, Mutex::default());
        let site = Self { directory, clock, family, plan, refresh, hosts, first, middle, last, relay, outer, spares, daemons, remainder };
        let routers = ["router1", "router2"].into_iter().chain(SPARES.into_iter().take(terms.place.spares()));
        for name in routers.chain(["receiver", "sender"]) {
            let honest = if name.starts_with("router") { Program::Router } else { Program::Host };
            let program = terms.rogue.filter(|(rogue, _)| *rogue == name).map_or(honest, |(_, program)| program);
            site.start(program, name)?;
        }
        Ok(site)
    }

    fn start(&self, program: Program, name: &str) -> io::Result<()> {
        let daemon = Daemon::start(self.host(name)?, program, &self.directory, name)?;
        self.lock().push(daemon);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Daemon>> {
        self.daemons.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to a daemon.
    pub(super) fn daemon<T>(&self, name: &str, work: impl FnOnce(&mut Daemon) -> io::Result<T>) -> io::Result<T> {
        let mut daemons = self.lock();
        let daemon = daemons.iter_mut().find(|daemon| daemon.name() == name);
        work(daemon.ok_or_else(|| io::Error::other(format!("{name} does not run")))?)
    }

    /// Starts a node's daemon anew, in place of one that has ended.
    pub(super) fn restart(&self, name: &str) -> io::Result<()> {
        self.lock().retain(|daemon| daemon.name() != name);
        self.start(if name.starts_with("router") { Program::Router } else { Program::Host }, name)
    }

    /// Those who sit on the links, in the order of the path.
    pub(super) fn relays(&self) -> io::Result<[&Relay; 3]> {
        let outer = self.outer.as_ref().ok_or_else(|| io::Error::other("nobody sits on every link"))?;
        let [first, last] = outer;
        Ok([first, &self.relay, last])
    }

    /// The capture on the sender's second uplink.
    pub(super) fn spare(&self) -> io::Result<&Capture> {
        self.spares.first().ok_or_else(|| io::Error::other("the sender has no second uplink"))
    }

    /// That on its third.
    pub(super) fn second_spare(&self) -> io::Result<&Capture> {
        self.spares.get(1).ok_or_else(|| io::Error::other("the sender has no third uplink"))
    }

    fn host(&self, name: &str) -> io::Result<&Namespace> {
        Ok(match name {
            "sender" => &self.hosts.sender,
            "router1" => &self.hosts.router1,
            "router2" => &self.hosts.router2,
            "receiver" => &self.hosts.receiver,
            _ => {
                let found = SPARES.into_iter().zip(&self.hosts.spares).find(|(spare, _)| *spare == name);
                found.ok_or_else(|| io::Error::other(format!("there is no {name}")))?.1
            }
        })
    }

    /// Time since the captures started, as they and the story tell it.
    pub(super) fn now(&self) -> Duration {
        self.clock.started.elapsed()
    }

    /// Configuration file of a node.
    pub(super) fn config(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.toml"))
    }

    /// What the daemons have logged so far.
    pub(super) fn story(&self) -> io::Result<Story> {
        Story::read(&self.directory, &NODES, &self.clock)
    }

    /// Looks again and again until `find` finds something in the story, or `limit` is over.
    pub(super) fn await_story<T>(&self, limit: Duration, mut find: impl FnMut(&Story) -> Option<T>) -> io::Result<Option<T>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = find(&self.story()?) {
                return Ok(Some(found));
            }
            if Instant::now() > deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
    }

    /// Sockets of plain programs that know nothing of permissions, for a flow to `port`.
    pub(super) fn sockets(&self, port: u16) -> io::Result<(UdpSocket, UdpSocket)> {
        self.sockets_from(source_port(port), port)
    }

    /// The same from a port of the sender's.
    pub(super) fn sockets_from(&self, source: u16, port: u16) -> io::Result<(UdpSocket, UdpSocket)> {
        let receiver = self.hosts.receiver.run(|| UdpSocket::bind((self.family.receiver(), port)))?;
        setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        let sender = self.hosts.sender.run(|| UdpSocket::bind((self.family.sender(), source)))?;
        sender.connect((self.family.receiver(), port))?;
        Ok((sender, receiver))
    }

    /// Waits until a packet of the flow has left the second router.
    pub(super) fn await_grant(&self) -> io::Result<()> {
        let deadline = Instant::now() + GRANT_LIMIT;
        while self.last.look(|frames| !frames.iter().any(|frame| of_flow(frame).is_some())) {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("nothing arrived within {} s: no permission", GRANT_LIMIT.as_secs())));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    /// The flow as a node's table shows it; `None` if it has none with a permission.
    pub(super) fn flow(&self, name: &str) -> io::Result<Option<Value>> {
        self.flow_from(source_port(PORT), name)
    }

    /// The same of the flow from a port of the sender's.
    pub(super) fn flow_from(&self, source: u16, name: &str) -> io::Result<Option<Value>> {
        let flows = self.ask(name, "flows")?;
        let wanted = |entry: &&Value| {
            entry.pointer("/flow/source_port").and_then(Value::as_u64) == Some(u64::from(source))
                && entry.pointer("/flow/destination_port").and_then(Value::as_u64) == Some(u64::from(PORT))
                && entry.get("spi").is_some_and(|spi| !spi.is_null())
        };
        Ok(flows.as_array().into_iter().flatten().find(wanted).cloned())
    }

    /// Drop counters of every node.
    pub(super) fn drops(&self) -> io::Result<Drops> {
        let mut drops = Drops::default();
        for name in NODES {
            let counters = self.ask(name, "counters")?;
            for queue in counters.as_object().into_iter().flat_map(|queues| queues.values()) {
                for entry in queue.get("dropped").and_then(Value::as_array).into_iter().flatten() {
                    let reason = entry.get("reason").and_then(Value::as_str).unwrap_or_default();
                    let packets = entry.get("packets").and_then(Value::as_u64).unwrap_or_default();
                    *drops.0.entry((name, reason.to_owned())).or_default() += packets;
                }
            }
        }
        Ok(drops)
    }

    fn ask(&self, name: &str, command: &str) -> io::Result<Value> {
        self.daemon(name, |daemon| daemon.ask(&json!({ "command": command })))
    }

    /// Has the receiver take the flow's permission back.
    pub(super) fn revoke(&self) -> io::Result<()> {
        self.about_flow("receiver", json!({ "command": "revoke" }))
    }

    /// Has the sender give the flow's permission back.
    pub(super) fn release(&self) -> io::Result<()> {
        self.about_flow("sender", json!({ "command": "release" }))
    }

    /// Has the sender ask for more.
    pub(super) fn request(&self, volume: u64) -> io::Result<()> {
        self.about_flow("sender", json!({ "command": "request", "volume": volume }))
    }

    fn about_flow(&self, name: &str, request: Value) -> io::Result<()> {
        self.about_flow_from(source_port(PORT), name, request)
    }

    /// Has a node do something about the flow from a port of the sender's.
    pub(super) fn about_flow_from(&self, source: u16, name: &str, mut request: Value) -> io::Result<()> {
        if let Some(fields) = request.as_object_mut() {
            let flow = json!({
                "source": self.family.sender(), "destination": self.family.receiver(), "protocol": 17, "source_port": source, "destination_port": PORT,
            });
            fields.extend(flow.as_object().cloned().unwrap_or_default());
        }
        self.daemon(name, |daemon| daemon.ask(&request)).map(drop)
    }

    /// The Ethernet header of a frame from the middle towards the receiver: who sent it shows in captures.
    pub(super) fn frame_header(&self) -> io::Result<[u8; 14]> {
        let (host, interface) = match self.hosts.place {
            Place::BetweenRouters | Place::BesideSpare | Place::BesideSpares | Place::EveryLink => {
                (&self.hosts.router2, graph::ROUTER2_LEFT_LINK)
            }
            Place::LastLink => (&self.hosts.receiver, graph::RECEIVER_LINK),
        };
        let (_, destination) = link::identify(host, interface)?;
        let mut header = [0; 14];
        let kind = if self.family == Family::Ipv4 { [0x08, 0x00] } else { [0x86, 0xdd] };
        for (place, byte) in header.iter_mut().zip(destination.into_iter().chain(injector::HARDWARE_ADDRESS).chain(kind)) {
            *place = byte;
        }
        Ok(header)
    }

    fn captures(&self) -> [(&'static str, &Capture); 4] {
        let [left, right] = &self.middle;
        [("sender-link", &self.first), ("middle-left", left), ("middle-right", right), (BEHIND, &self.last)]
    }

    /// Writes down how many octets got through: of which packets, behind the second router, and when.
    pub(super) fn got_through(&self, outcome: &mut Outcome, of: Of, within: (Duration, Duration)) {
        let shown = self.last.look(|frames| Shown::count(audit::THROUGH, BEHIND, frames, of, within));
        outcome.octets_through = shown.octets;
        outcome.shown.push(shown);
    }

    /// Writes one capture a link.
    pub(super) fn keep(&mut self, directory: &Path) -> io::Result<()> {
        let [left, right] = &mut self.middle;
        for (capture, name) in
            [(&mut self.first, "sender-link"), (left, "middle-left"), (right, "middle-right"), (&mut self.last, "behind-router2")]
        {
            capture.end();
            capture.write(&directory.join(format!("{name}.pcap")))?;
        }
        for (capture, name) in self.spares.iter_mut().zip(UPLINKS) {
            capture.end();
            capture.write(&directory.join(format!("{name}.pcap")))?;
        }
        for name in NODES {
            std::fs::copy(self.directory.join(format!("{name}.log")), directory.join(format!("{name}.log")))?;
        }
        Ok(())
    }

    /// The log of a node.
    pub(super) fn log(&self, name: &str) -> io::Result<String> {
        std::fs::read_to_string(self.directory.join(format!("{name}.log")))
    }

    /// What daemons have written when they panicked.
    pub(super) fn panics(&self) -> io::Result<Vec<String>> {
        let mut panics = Vec::new();
        for name in NODES {
            let log = self.log(name)?;
            panics.extend(log.lines().filter(|line| line.contains("panicked")).map(|line| format!("{name}: {line}")));
        }
        Ok(panics)
    }

    /// Frames that captures could not keep, or the relay could not carry.
    pub(super) fn lost_frames(&self) -> u64 {
        let captures = [&self.first, &self.last].into_iter().chain(&self.middle).chain(&self.spares);
        let relays = self.outer.iter().flatten().chain([&self.relay]);
        captures.map(|capture| u64::from(capture.lost())).sum::<u64>() + relays.map(Relay::failed).sum::<u64>()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.lock().clear();
        drop(self.remainder.take());
    }
}

/// Whether a packet goes to this port of the receiver.
pub(super) fn is_to(seen: &Seen<'_>, port: u16) -> bool {
    [RECEIVER, RECEIVER6].contains(&seen.destination) && seen.ports.1 == port
}

/// The packet in a frame, if it is one of the flow, on its way to the receiver.
pub(super) fn of_flow(frame: &Frame) -> Option<Seen<'_>> {
    is_of_flow(frame.ip()?)
}

/// The same for a packet.
pub(super) fn is_of_flow(packet: &[u8]) -> Option<Seen<'_>> {
    frame::read(packet).filter(|seen| is_to(seen, PORT))
}

/// Drop counters by node and reason at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Drops(BTreeMap<(&'static str, String), u64>);

impl Drops {
    /// What was dropped since `before`.
    pub(super) fn since(&self, before: &Self) -> Vec<Dropped> {
        let then = |key| before.0.get(key).copied().unwrap_or(0);
        let fresh = self.0.iter().map(|(key, now)| (key, now.saturating_sub(then(key))));
        let entry = |((at, reason), packets): (&(&str, String), u64)| Dropped { at: (*at).to_owned(), reason: reason.clone(), packets };
        fresh.filter(|(_, packets)| *packets > 0).map(entry).collect()
    }
}

fn issue_certificates(directory: &Path, family: Family) -> io::Result<()> {
    let authority = Authority::create("pbs-lab authority")?;
    std::fs::write(directory.join("ca.crt"), authority.certificate())?;
    let Addresses { router1, router2, beside: [second, third] } = Addresses::of(family);
    let nodes: [(&str, &[IpAddr]); 6] = [
        ("sender", &[family.sender(), second.sender, third.sender]),
        ("router1", &router1),
        ("router2", &router2),
        ("router3", &second.router),
        ("router4", &third.router),
        ("receiver", &[family.receiver(), second.receiver, third.receiver]),
    ];
    for (node, addresses) in nodes {
        // Both kinds of signatures cross the network.
        let kind = if node == "receiver" { KeyKind::P256 } else { KeyKind::Ed25519 };
        authority.issue(directory, node, addresses, kind)?;
    }
    Ok(())
}

fn write_configurations(directory: &Path, Terms { place, refresh, volume, reactions, .. }: Terms, family: Family) -> io::Result<()> {
    let policy = Policy { family, routers: &["router1", "router2", "router3", "router4"], refresh, volume, reactions };
    NODES.into_iter().chain(SPARES).try_for_each(|name| {
        let uplink = if name == "sender" { uplinks(family, place.spares()) } else { String::new() };
        // Where messages are watched on every link, one that refuses is among them.
        let limit = if place == Place::EveryLink && name == "router2" { refusal() } else { String::new() };
        std::fs::write(directory.join(format!("{name}.toml")), policy.configuration(name) + &uplink + &limit)
    })
}

fn refusal() -> String {
    format!("\n[[limit]]\ndestination_ports = \"{OTHER_PORT}\"\npermit = false\n")
}

fn uplinks(family: Family, spares: usize) -> String {
    let entry = |((name, interface), Beside { router: [via, _], .. })| {
        format!("\n[[path]]\nname = \"{name}\"\ninterface = \"{interface}\"\nvia = \"{via}\"\n")
    };
    UPLINKS.into_iter().zip(graph::SENDER_SPARE_LINKS).zip(Addresses::of(family).beside).take(spares).map(entry).collect()
}

impl Stage for Site {
    fn story(&self) -> io::Result<Story> {
        Self::story(self)
    }

    fn lost_frames(&self) -> u64 {
        Self::lost_frames(self)
    }

    fn keep(&mut self, directory: &Path) -> io::Result<()> {
        Self::keep(self, directory)
    }

    fn shown(&self) -> Vec<Shown> {
        let spares = UPLINKS.into_iter().zip(&self.spares);
        self.captures().into_iter().chain(spares).flat_map(|(name, capture)| capture.look(|frames| Shown::whole(name, frames))).collect()
    }
}
