//! One of a hundred sources floods a router with Queries at a hundred times what it can check; the others keep their grants.
//!
//! The clock is virtual; what each step costs was measured with `cargo run --release -p pbs-nslp --example query_cost` (Ed25519),
//! on one core of a busy machine. The flood is as bad as can be: every certificate is
//! good, every number fresh, every other signature right, and no message a repetition that a cheap check would catch.

use core::time::Duration;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use gist::api::{Principal, ReceivedMessage};
use gist::time::Instant;
use gist::wire::{Direction, SessionId};
use pbs_nslp::admission::Rate;
use pbs_nslp::datapath::Event;
use pbs_nslp::fair_queue::{FairQueue, MESSAGE_COST, SIGNATURE_COST};
use pbs_nslp::flow::FlowId;
use pbs_nslp::output::Output;
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::wire::{Message, MessageKind, Permission, Query, SaParameters};

use crate::credentials::{ToyAuthority, ToySigner};
use crate::forge::{self, credential, permission, permission_from, query, query_from, spoiled};
use crate::world::{NSLP_ID, SENDER, START_UNIX, receiver_address, router_config, seconds};

/// Handling an ordinary message of a known signer, which the queue charges `MESSAGE_COST + SIGNATURE_COST` for.
const CHECK: Duration = Duration::from_micros(43);
/// Taking a message in where it waits, be it full or not.
const TAKE_IN: Duration = Duration::from_nanos(500);
/// What the next nodes take to answer a Query.
const ANSWER: Duration = Duration::from_millis(1);
/// How long the flood lasts.
const SPAN: Duration = Duration::from_millis(200);
/// One honest source asks for a new flow this often.
const PAUSE: Duration = Duration::from_millis(50);
const HONEST: u8 = 99;
/// The number of the source that floods, and of its key.
const FLOODER: u8 = 100;
/// Octets that may wait: less than a flood has at once, so that there is no room most of the time.
const LIMIT: usize = 4 << 20;
/// How much of what a neighbour has sent is taken in between two checks; the rest waits in its association, where TCP holds it back.
const INTAKE: usize = 64;

/// Whom the messages come from, and how much there is of the flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peers {
    /// Each source is a neighbour.
    Each,
    /// All are behind one router. It passes on no more than it can check itself, a hundredth; it is given ten times as much.
    One,
}

impl Peers {
    /// How many times what the router can check the flood is.
    fn times(self) -> u32 {
        match self {
            Self::Each => 100,
            Self::One => 10,
        }
    }
}

/// How they wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    InTurn,
    /// As they came, with room for as many.
    AsTheyCame,
}

#[derive(Debug, Clone)]
struct Found {
    asked: usize,
    granted: usize,
    /// Times from a Query's arrival until the Permission leaves, in order.
    times: Vec<Duration>,
    most_octets: usize,
    flood_checked: usize,
}

impl Found {
    fn share(&self) -> f64 {
        self.granted as f64 / self.asked as f64
    }

    fn p99(&self) -> Duration {
        self.times[self.times.len() * 99 / 100]
    }

    fn line(&self, what: &str) -> String {
        let median = self.times.get(self.times.len() / 2).copied().unwrap_or_default();
        format!(
            "{what}: {} of {} granted, median {median:?}, p99 {:?}; {} of the flood checked, at most {} octets waited",
            self.granted,
            self.asked,
            if self.times.is_empty() { Duration::MAX } else { self.p99() },
            self.flood_checked,
            self.most_octets
        )
    }
}

fn source(n: u8) -> IpAddr {
    [192, 0, 2, n].into()
}

fn signer(n: u8) -> Arc<ToySigner> {
    ToySigner::new(source(n), n)
}

fn session(source: u8, n: u16) -> SessionId {
    let mut session = [source; 16];
    session[..2].copy_from_slice(&n.to_be_bytes());
    SessionId(session)
}

fn ask(from: u8, n: u16, number: u32, peers: Peers) -> ReceivedMessage {
    let flow = FlowId::new(source(from), receiver_address(), 17, n + 1, 9000).unwrap();
    let asked = Query { flow, credential: credential(&signer(from)), ..query(number) };
    let received = query_from(SENDER, session(from, n), &asked, &signer(from));
    let name = if peers == Peers::One { [0x61; 32] } else { [from; 32] };
    ReceivedMessage { principal: Principal(name), ..received }
}

/// What waits, in either order.
enum Queue {
    InTurn(FairQueue),
    AsTheyCame(VecDeque<ReceivedMessage>),
}

impl Queue {
    fn push(&mut self, message: ReceivedMessage) {
        match self {
            Self::InTurn(queue) => drop(queue.push(message)),
            Self::AsTheyCame(queue) if queue.len() < LIMIT / 6144 => queue.push_back(message),
            Self::AsTheyCame(_) => {}
        }
    }
}

struct Lab {
    router: Router,
    queue: Queue,
    peers: Peers,
    now: Instant,
    answers: BinaryHeap<Reverse<(Instant, u64)>>,
    messages: BTreeMap<u64, ReceivedMessage>,
    asked_at: BTreeMap<SessionId, Instant>,
    found: Found,
    granted: u32,
}

impl Lab {
    fn new(peers: Peers, order: Order, config: RouterConfig) -> Self {
        crate::coverage::watch();
        let start = Instant::from_micros(1_000_000);
        let queue = match order {
            Order::InTurn => Queue::InTurn(FairQueue::new(LIMIT)),
            Order::AsTheyCame => Queue::AsTheyCame(VecDeque::new()),
        };
        Self {
            router: Router::new(config, Arc::new(ToyAuthority::default()), START_UNIX - 1000, start),
            queue,
            peers,
            now: start + seconds(1000),
            answers: BinaryHeap::new(),
            messages: BTreeMap::new(),
            asked_at: BTreeMap::new(),
            found: Found { asked: 0, granted: 0, times: Vec::new(), most_octets: 0, flood_checked: 0 },
            granted: 0,
        }
    }

    /// Lets the honest sources ask for [`SPAN`], with or without a flood, and says what they got within as long again.
    fn run(mut self, floods: bool) -> Found {
        let (begin, number) = (self.now, u32::try_from(START_UNIX).unwrap());
        let flood = (0..8000).map(|n| ask(FLOODER, n, number, self.peers)).enumerate();
        let flood: Vec<_> = flood.map(|(n, message)| if n % 2 == 0 { message } else { spoiled(message) }).collect();
        let honest = (0..(SPAN.as_micros() / PAUSE.as_micros()) as u16).flat_map(|n| (1..=HONEST).map(move |from| (n, from)));
        // Each at its own moment: 37 and 97 have no factor in common with the pause.
        let at = |n: u16, from: u8| begin + PAUSE * u32::from(n) + Duration::from_micros(u64::from(from) * 37_097 % 100_000);
        let mut honest: Vec<_> = honest.map(|(n, from)| (at(n, from), from, n)).collect();
        honest.sort();
        let mut honest = honest.into_iter().peekable();
        let pause = CHECK / self.peers.times();
        let (mut flooded, mut next_flood) = (0_usize, begin);
        let mut owed = Duration::ZERO;
        let end = begin + SPAN * 2;
        while self.now < end {
            // What has arrived is taken in, as long as that is; what arrives meanwhile is next.
            let until = self.now;
            while let Some((at, from, n)) = honest.next_if(|(at, ..)| *at <= until) {
                self.found.asked += 1;
                self.asked_at.insert(session(from, n), at);
                self.queue.push(ask(from, n, number, self.peers));
                owed += TAKE_IN;
            }
            while let Some(Reverse((_, id))) = self.answers.peek().copied().filter(|Reverse((at, _))| *at <= until) {
                self.answers.pop();
                let answer = self.messages.remove(&id).unwrap();
                self.queue.push(answer);
                owed += TAKE_IN;
            }
            let mut taken = 0;
            while floods && taken < INTAKE && next_flood <= until && next_flood < begin + SPAN {
                self.queue.push(flood[flooded % flood.len()].clone());
                (flooded, taken) = (flooded + 1, taken + 1);
                next_flood = begin + Duration::from_nanos(pause.as_nanos() as u64 * flooded as u64);
                owed += TAKE_IN;
            }
            if let Queue::InTurn(queue) = &self.queue {
                self.found.most_octets = self.found.most_octets.max(queue.octets());
            }
            owed += self.work();
            // The clock counts microseconds.
            let whole = Duration::from_micros(owed.as_micros() as u64);
            owed -= whole;
            self.now += whole.max(Duration::from_micros(1));
        }
        self.found.times.sort();
        self.found
    }

    /// Handles one message, and says how long that takes.
    fn work(&mut self) -> Duration {
        let (message, account) = match &mut self.queue {
            Queue::InTurn(queue) => match queue.pop() {
                Some(turn) => (turn.message, Some(turn.account)),
                None => return Duration::ZERO,
            },
            Queue::AsTheyCame(queue) => match queue.pop_front() {
                Some(message) => (message, None),
                None => return Duration::ZERO,
            },
        };
        let of_flood = message.session.0[15] == FLOODER;
        self.router.handle_message(message, self.now);
        let cost = self.router.take_cost();
        if let (Queue::InTurn(queue), Some(account)) = (&mut self.queue, account) {
            queue.charge(&account, cost);
        }
        if of_flood && cost > MESSAGE_COST {
            self.found.flood_checked += 1;
        }
        self.do_outputs();
        CHECK * cost / (MESSAGE_COST + SIGNATURE_COST)
    }

    fn do_outputs(&mut self) {
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::Datapath(command) => {
                    let event = Event::Applied { token: command.token(), counted: 0, highest: 0 };
                    self.router.handle_datapath(event, self.now);
                }
                Output::Send(sent) if sent.mri.direction() == Direction::Downstream => self.answer(sent.payload, sent.session),
                Output::Send(sent) if sent.payload.first() == Some(&MessageKind::Permission.number()) => {
                    if let Some(asked_at) = self.asked_at.remove(&sent.session) {
                        self.found.granted += 1;
                        self.found.times.push(self.now.saturating_duration_since(asked_at));
                    }
                }
                _ => {}
            }
        }
    }

    /// The receiver grants whatever comes to it.
    fn answer(&mut self, payload: bytes::Bytes, session: SessionId) {
        let Ok(Message::Query(asked)) = pbs_nslp::wire::decode(payload, session, NSLP_ID) else { return };
        self.granted += 1;
        let sa = Some(SaParameters { spi: 0x1_0000 + self.granted, drain: seconds(0), new_epoch: true });
        let granted = Permission { flow: asked.message.flow, sa, ..permission(asked.message.number) };
        let answer = permission_from(2, session, &granted, &forge::receiver());
        self.answers.push(Reverse((self.now + ANSWER, u64::from(self.granted))));
        self.messages.insert(u64::from(self.granted), answer);
    }
}

/// A router that no bucket saves from work.
fn without_buckets() -> RouterConfig {
    let mut config = router_config();
    let plenty = Rate { per_second: 1_000_000, burst: 1_000_000 };
    (config.node.admission.peer_rate, config.node.admission.signer_rate) = (plenty, plenty);
    config
}

#[test]
fn ninety_nine_sources_keep_their_grants_while_one_floods_at_a_hundred_times_capacity() {
    for (peers, limits, config) in [(Peers::Each, "no buckets", without_buckets()), (Peers::One, "the standard buckets", router_config())] {
        let unloaded = Lab::new(peers, Order::InTurn, config.clone()).run(false);
        let flooded = Lab::new(peers, Order::InTurn, config).run(true);
        println!("{peers:?}, {limits}\n  {}\n  {}", unloaded.line("unloaded"), flooded.line("flooded"));
        assert_eq!(unloaded.share(), 1.0);
        assert!(flooded.share() >= 0.95, "{}", flooded.share());
        assert!(flooded.p99() <= unloaded.p99() * 3, "{:?} and {:?}", flooded.p99(), unloaded.p99());
        assert!(flooded.most_octets <= LIMIT, "{}", flooded.most_octets);
        assert!(flooded.flood_checked > 500, "what is left is the flood's: {}", flooded.flood_checked);
    }
}

#[test]
fn without_turns_the_same_flood_takes_most_grants_and_the_time_of_the_others() {
    let flooded = Lab::new(Peers::Each, Order::AsTheyCame, without_buckets()).run(true);
    println!("{}", flooded.line("as they came"));
    assert!(flooded.share() < 0.5 && flooded.p99() > ANSWER * 50, "{} {:?}", flooded.share(), flooded.p99());
}

#[test]
fn the_same_flood_gives_the_same_figures() {
    let [one, other] = [(); 2].map(|()| Lab::new(Peers::One, Order::InTurn, router_config()).run(true));
    assert_eq!((one.times, one.granted, one.flood_checked), (other.times, other.granted, other.flood_checked));
}
