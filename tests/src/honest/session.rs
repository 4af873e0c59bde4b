//! One session from its first packet to its release.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use gist::api::{Indication, PeerHandle, Principal, ReceivedMessage, SendMessage};
use gist::time::Instant;
use gist::wire::{Direction, NslpId, PeerIdentity};
use pbs_nslp::credentials::HmacGenerator;
use pbs_nslp::detection::{Finding, Test, Thresholds, Tolerance};
use pbs_nslp::entropy::Entropy;
use pbs_nslp::flow::FlowId;
use pbs_nslp::node::NodeConfig;
use pbs_nslp::receiver::{GrantPolicy, GrantRule, Reactions, Receiver, ReceiverConfig, Terms};
use pbs_nslp::report::{Attack, Report, ReportEvent};
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::{AskRule, Sender, SenderConfig};
use pbs_nslp::wire::Volume;
use traffic::algorithm::PacketSigner;
use traffic::checks::Strict;
use traffic::counters::Counters;
use traffic::inserter::{self, Inserter, InserterConfig};
use traffic::verifier::{Role, Verifier, VerifierConfig};

use super::injecting::{Injection, MARK, Numbers};
use super::node::{Core, Deed, Fate, Node};
use super::people::{DESTINATION, OwnKey, People, SOURCE};
use crate::attack::packet;
use crate::dice::Dice;
use crate::network::frame;

const NSLP: NslpId = NslpId(32704);
const START_UNIX: u64 = 1_800_000_000;
/// Refresh period T.
const REFRESH: Duration = Duration::from_secs(5);
const UDP: u8 = 17;
const PORTS: (u16, u16) = (5000, 9000);
const SENDER: usize = 0;
const RECEIVER: usize = 3;
/// What a retransmission costs at the first time (RFC 6298 §5.7 would wait longer).
const RETRANSMISSION: Duration = Duration::from_millis(200);
/// Bytes asked for at a time.
const VOLUME: u64 = 1_000_000;

/// What happened in a session.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Share of packets lost on the worst link, in percent.
    pub(super) loss: f64,
    pub(super) sent: u64,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    pub(super) messages_lost: u64,
    pub(super) dropped: BTreeMap<String, u64>,
    pub(super) comparisons: u64,
    pub(super) suspicions: u64,
    /// Accusations by E1 to E4: when, in seconds, and the words.
    pub(super) accusations: Vec<(f64, String)>,
    /// Whether packets counted as missing for two periods.
    pub(super) missing: bool,
    /// Whether nothing arrived for two periods.
    pub(super) silent: bool,
    /// Whether packets came too late.
    pub(super) late: bool,
    /// Of an attacker's: when, with which numbers, and how many packets got to the receiver's program.
    pub(super) injected: Option<(f64, Numbers, u64)>,
    /// SHA-256 of what happened.
    pub(super) trace: Vec<u8>,
}

/// Something that is to happen.
enum Happening {
    /// A packet comes to a node.
    Packet(usize, Vec<u8>),
    /// A message comes to a node.
    Message(usize, Box<ReceivedMessage>),
    /// The program sends.
    Program,
    /// Somebody adds packets.
    Injection(Injection),
    /// The program is done.
    End,
}

/// What the network is like.
#[derive(Debug, Clone, Copy)]
struct Network {
    /// The link that loses packets, by the node before it.
    bad: usize,
    /// How many of a million it loses.
    loss: u64,
    /// Shortest delay of a link, and by how much one packet may be later than another.
    delay: Duration,
    jitter: Duration,
}

/// What the program is like.
#[derive(Debug, Clone, Copy)]
struct Habit {
    /// Between two packets of a burst, at most.
    gap: Duration,
    /// How many packets in a thousand are the last of a burst, and how long the pause after them is at most.
    pauses: u64,
    pause: Duration,
    largest: u64,
}

/// A session under way.
pub(super) struct Session {
    now: Instant,
    dice: Dice,
    network: Network,
    habit: Habit,
    nodes: Vec<Node>,
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    scheduled: u64,
    /// When the last message left each node in each direction arrives: associations keep the order.
    in_order: BTreeMap<(usize, usize), Instant>,
    course: Course,
    /// What an attacker will do.
    injection: Option<Injection>,
    /// The highest number of the flow that came to a node.
    highest: u32,
    trace: ring::digest::Context,
    is_over: bool,
}

impl Session {
    pub(super) fn new(people: &People, seed: u64, threshold: u8, injecting: bool) -> io::Result<Self> {
        let mut dice = Dice::new(seed);
        let now = Instant::from_micros(1_000_000);
        // Every eleventh network loses nothing; the others up to a fifth, small shares as often as large ones.
        let loss = if dice.below(11) == 0 { 0 } else { 200_000 * (1 + dice.below(1000)) * (1 + dice.below(1000)) / 1_000_000 };
        let network = Network {
            bad: usize::try_from(dice.below(3)).unwrap_or(0),
            loss,
            delay: Duration::from_millis(1 + dice.below(40)),
            jitter: Duration::from_millis(dice.below(120)),
        };
        // Every fifth program sends one now and then: a run of lost ones is soon a whole period's.
        let most = if dice.below(5) == 0 { 4000 } else { 40 };
        let habit = Habit {
            gap: Duration::from_millis(4 + dice.below(most)),
            pauses: dice.below(40),
            pause: Duration::from_millis(100 + dice.below(4000)),
            largest: 100 + dice.below(1250),
        };
        let nodes = nodes(people, seed, threshold, now)?;
        let course = Course { loss: loss as f64 / 10_000.0, ..Course::default() };
        let (agenda, happenings, in_order) = Default::default();
        let trace = ring::digest::Context::new(&ring::digest::SHA256);
        let injection = injecting.then(|| Injection::decide(seed, REFRESH));
        let (scheduled, highest, is_over) = (0, 0, false);
        Ok(Self { now, dice, network, habit, nodes, agenda, happenings, scheduled, in_order, course, injection, highest, trace, is_over })
    }

    pub(super) fn play(mut self) -> io::Result<Course> {
        let periods = 5 + self.dice.below(4) as u32;
        self.schedule(self.now, Happening::Program);
        if let Some(injection) = self.injection {
            self.schedule(self.now + injection.after, Happening::Injection(injection));
        }
        self.schedule(self.now + REFRESH * periods, Happening::End);
        let end = self.now + REFRESH * (periods + 2);
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = next.max(self.now);
            for place in 0..self.nodes.len() {
                if self.node(place).due().is_some_and(|due| due <= self.now) {
                    let now = self.now;
                    self.node(place).wake(now);
                    self.settle(place);
                }
            }
            while let Some(Reverse((_, id))) = self.agenda.peek().copied().filter(|Reverse((at, _))| *at <= self.now) {
                self.agenda.pop();
                if let Some(happening) = self.happenings.remove(&id) {
                    self.happen(happening)?;
                }
            }
        }
        self.course.trace = self.trace.finish().as_ref().to_vec();
        Ok(self.course)
    }

    #[allow(clippy::indexing_slicing, reason = "there are four nodes, and nothing else names a place")]
    fn node(&mut self, place: usize) -> &mut Node {
        &mut self.nodes[place]
    }

    fn next(&self) -> Option<Instant> {
        let agenda = self.agenda.peek().map(|Reverse((at, _))| *at);
        // A timer that is due already, and stays so, does not stop the clock.
        let timers = self.nodes.iter().filter_map(Node::due).map(|due| due.max(self.now + Duration::from_micros(1)));
        timers.chain(agenda).min()
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.scheduled += 1;
        self.agenda.push(Reverse((at, self.scheduled)));
        self.happenings.insert(self.scheduled, happening);
    }

    fn note(&mut self, what: &str) {
        self.trace.update(format!("{} {what}\n", self.now).as_bytes());
    }

    fn happen(&mut self, happening: Happening) -> io::Result<()> {
        let now = self.now;
        match happening {
            Happening::Packet(place, packet) => self.arrive(place, &packet),
            Happening::Message(place, message) => {
                self.note(&format!("{place} gets a message of {} octets", message.payload.len()));
                self.node(place).hear(Indication::Received(*message), now);
                self.settle(place);
            }
            Happening::Program if !self.is_over => {
                let payload = vec![0; usize::try_from(16 + self.dice.below(self.habit.largest)).unwrap_or(16)];
                self.course.sent += 1;
                self.arrive(SENDER, &packet::udp((SOURCE, PORTS.0), (DESTINATION, PORTS.1), &payload)?);
                let mut gap = self.dice.up_to(self.habit.gap);
                if self.dice.hits(self.habit.pauses * 1000) {
                    gap += self.dice.up_to(self.habit.pause);
                }
                self.schedule(now + gap, Happening::Program);
            }
            Happening::Program => {}
            Happening::Injection(injection) => self.inject(injection)?,
            Happening::End => {
                self.is_over = true;
                if let Core::Sender(sender) = &mut self.node(SENDER).core {
                    sender.release(flow()?, now);
                }
                self.settle(SENDER);
            }
        }
        Ok(())
    }

    /// Somebody on the link before a node, who has the key from there, adds packets.
    fn inject(&mut self, injection: Injection) -> io::Result<()> {
        let Some(known) = self.node(injection.place).known.clone() else { return Ok(()) };
        self.course.injected = Some((self.now.micros() as f64 / 1e6, injection.numbers, 0));
        for packet in injection.packets(&known, self.highest, PORTS)? {
            self.arrive(injection.place, &packet);
        }
        Ok(())
    }

    /// A packet comes to a node, from the program or the network.
    fn arrive(&mut self, place: usize, packet: &[u8]) {
        let (now, id) = (self.now, self.scheduled as u32);
        self.scheduled += 1;
        let seen = frame::read(packet);
        self.highest = self.highest.max(seen.as_ref().and_then(|seen| seen.authentication).map_or(0, |ah| ah.sequence));
        let is_injected = seen.is_some_and(|seen| seen.payload.starts_with(MARK));
        let fate = self.node(place).judge(id, packet, now);
        match fate {
            Fate::Goes(_) if place == RECEIVER && is_injected => {
                if let Some((_, _, got)) = &mut self.course.injected {
                    *got += 1;
                }
            }
            Fate::Goes(_) if place == RECEIVER => self.course.delivered += 1,
            Fate::Goes(packet) => self.carry(place, packet),
            Fate::Waits => {}
            Fate::Dropped(reason) => {
                self.note(&format!("{place} drops a packet: {reason}"));
                *self.course.dropped.entry(format!("{} {reason}", NAMES.get(place).unwrap_or(&""))).or_default() += 1;
            }
        }
        self.settle(place);
    }

    /// A packet leaves a node towards the receiver.
    fn carry(&mut self, from: usize, packet: Vec<u8>) {
        if from == self.network.bad && self.dice.hits(self.network.loss) {
            self.course.lost += 1;
            return;
        }
        let at = self.now + self.network.delay + self.dice.up_to(self.network.jitter);
        self.schedule(at, Happening::Packet(from + 1, packet));
    }

    fn settle(&mut self, place: usize) {
        let now = self.now;
        for deed in self.node(place).settle(now) {
            match deed {
                Deed::Message(message) => self.send(place, message),
                Deed::Packet(packet) => self.carry(place, packet),
                Deed::Report(report) => self.hear(place, &report),
            }
        }
    }

    /// A message leaves a node: it comes late where packets are lost, in order, and once in a while not at all, as when an
    /// association breaks.
    fn send(&mut self, from: usize, message: SendMessage) {
        let to = match message.mri.direction() {
            Direction::Downstream => from + 1,
            Direction::Upstream => from.wrapping_sub(1),
        };
        if to >= self.nodes.len() {
            return;
        }
        let is_bad = from.min(to) == self.network.bad;
        if is_bad && self.dice.hits(self.network.loss / 4) {
            self.course.messages_lost += 1;
            self.note(&format!("a message from {from} to {to} is lost"));
            return;
        }
        let mut at = self.now + self.network.delay + self.dice.up_to(self.network.jitter);
        let mut again = RETRANSMISSION;
        while is_bad && self.dice.hits(self.network.loss) {
            at += again;
            again *= 2;
        }
        let last = self.in_order.entry((from, to)).or_insert(at);
        *last = (*last).max(at);
        let at = *last;
        let name = u8::try_from(from).unwrap_or(u8::MAX);
        let Some(peer) = PeerIdentity::new(vec![name; 4]) else { return };
        let received = ReceivedMessage {
            nslp_id: message.nslp_id,
            session: message.session,
            mri: message.mri,
            payload: message.payload,
            association: None,
            peer,
            peer_handle: PeerHandle([name; 16]),
            principal: Principal([name + 1; 32]),
            tentative: false,
            authenticated: true,
            hop_count: message.hop_count.unwrap_or(64).saturating_sub(1),
            ip_distance: None,
            reception: Default::default(),
        };
        self.schedule(at, Happening::Message(to, Box::new(received)));
    }

    fn hear(&mut self, place: usize, report: &Report) {
        self.note(&format!("{place} {report}"));
        if place != RECEIVER {
            return;
        }
        let (at, said) = (self.now.micros() as f64 / 1e6, report.to_string());
        let finding = match &report.event {
            ReportEvent::Compared { finding, .. } => {
                self.course.comparisons += 1;
                Some(*finding)
            }
            ReportEvent::Evidence(Attack::Injection { test, excess, tolerated }) => {
                Some(Finding::Injection { test: *test, excess: *excess, tolerated: *tolerated })
            }
            ReportEvent::Evidence(Attack::Drop { .. }) => {
                self.course.missing = true;
                None
            }
            ReportEvent::Evidence(Attack::Silence { .. }) => {
                self.course.silent = true;
                None
            }
            _ => None,
        };
        match finding {
            Some(Finding::Injection { test: Test::T3, .. }) => self.course.late = true,
            Some(Finding::Injection { .. }) => self.course.accusations.push((at, said)),
            Some(Finding::Suspicion { .. }) => self.course.suspicions += 1,
            Some(Finding::Missing { .. } | Finding::Silence { .. } | Finding::Agreement) | None => {}
        }
    }
}

const NAMES: [&str; 4] = ["sender", "router1", "router2", "receiver"];

fn flow() -> io::Result<FlowId> {
    FlowId::new(SOURCE, DESTINATION, UDP, PORTS.0, PORTS.1).map_err(io::Error::other)
}

fn nodes(people: &People, seed: u64, threshold: u8, now: Instant) -> io::Result<Vec<Node>> {
    let own: Arc<dyn PacketSigner> = Arc::new(OwnKey(people.sender.clone()));
    let node = |address| NodeConfig::new(NSLP, address);
    let entropy = |part: u8| {
        let mut bytes = [part; 32];
        bytes.iter_mut().zip(seed.to_be_bytes()).for_each(|(to, from)| *to = from);
        Entropy::new(Arc::new(HmacGenerator), bytes)
    };
    let selector = Selector { protocol: Some(UDP), ..Selector::default() };
    let ask = vec![AskRule { selector: selector.clone(), volume: Volume(VOLUME), signed: false, mac: None }];
    let sender = SenderConfig::new(node(SOURCE), vec![SOURCE], ask);
    let sender = Sender::new(sender, people.sender.clone(), people.authority.clone(), entropy(1), START_UNIX, now);
    let terms = Terms { volume: Volume(VOLUME), limit: Volume(1 << 30), ttl: Duration::from_secs(600), refresh: REFRESH };
    let missing = Tolerance { floor: Volume(2048), percent: threshold };
    let reactions = Reactions { thresholds: Thresholds { missing, ..Thresholds::default() }, ..Reactions::default() };
    let policy = GrantPolicy { rules: vec![GrantRule { selector, terms, signed: false, mac: None }], ask: false };
    let receiver = ReceiverConfig { reactions, ..ReceiverConfig::new(node(DESTINATION), vec![DESTINATION], policy) };
    let receiver = Receiver::new(receiver, people.receiver.clone(), people.authority.clone(), entropy(2), START_UNIX, now);
    let router = |last| {
        let config = RouterConfig::new(node([203, 0, 113, last].into()));
        Core::Router(Box::new(Router::new(config, people.authority.clone(), START_UNIX, now)))
    };
    let verifier = |role| -> io::Result<Box<Verifier>> {
        let config = VerifierConfig { capacity: 64, ..VerifierConfig::new(role) };
        Verifier::new(config, Arc::new(Strict), Arc::new(Counters::default())).map(Box::new).map_err(io::Error::other)
    };
    let ask = inserter::AskRule { protocol: Some(UDP), ..inserter::AskRule::default() };
    let config = InserterConfig { ask: vec![ask], capacity: 64, ..InserterConfig::default() };
    let inserter = Box::new(Inserter::new(config, Arc::new(Strict), Arc::new(Counters::default())));
    Ok(vec![
        Node::new(Core::Sender(Box::new(sender)), inserter, own.clone()),
        Node::new(router(1), verifier(Role::Router)?, own.clone()),
        Node::new(router(2), verifier(Role::Router)?, own.clone()),
        Node::new(Core::Receiver(Box::new(receiver)), verifier(Role::Receiver)?, own),
    ])
}
