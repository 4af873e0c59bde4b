//! A demonstration that could not fail would show nothing. Each of these takes one check out of the router (one, that the ICV covers
//! the payload, out of every node: they must agree), and the lines that stand for that check must break, and only they. `pbs-lab
//! sabotages` tries them one after the other, each against the whole demonstration.
//!
//! The laboratory's own program starts the router's library with a replaced part, under a name that says so
//! (`pbs-router+icv`). `pbs-router` itself looks at no such name, and has no option or configuration for it.

use std::io;
use std::sync::{Arc, Mutex};

use clap::ValueEnum;
use pbs_nslp::router::table::{self, Event, Guards, Outcome, State};
use router_agent::Parts;
use smoltcp::time::Instant;
use traffic::algorithm::IcvKey;
use traffic::checks::Checks;
use traffic::flow::Flow;
use traffic::netlink::{Batch, Malformed, Message, NetlinkError, REPLACE, Socket, Writer, attributes};
use traffic::packet::IpPacket;
use traffic::replay::{Replay, Window};
use traffic::rules::{Role, RouterRules};

use crate::demo::{self, line};
use crate::uncovered::Uncovered;

/// The check that is taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// Every ICV is taken for right.
    Icv,
    /// The payload is left out of the ICV, by every node.
    Coverage,
    /// A packet of any flow may go under the SPI of any permission for its destination, also past the shield.
    Binding,
    /// Every sequence number is taken for new.
    Window,
    /// No volume is ever used up.
    Budget,
    /// A Permission suffices where nobody has asked.
    Consent,
    /// A queue that nobody listens to lets packets pass.
    FailClosed,
    /// A permission never ends by itself in the router's tables; in the shield's set it does.
    Expiry,
}

impl Sabotage {
    /// The word on the command line and in the program's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Icv => "icv",
            Self::Coverage => "coverage",
            Self::Binding => "binding",
            Self::Window => "window",
            Self::Budget => "budget",
            Self::Consent => "consent",
            Self::FailClosed => "fail-closed",
            Self::Expiry => "expiry",
        }
    }

    /// The lines of the demonstration that stand for the check.
    pub fn lines(self) -> &'static [&'static str] {
        match self {
            Self::Icv => &["wrong-key", "wrong-key-ipv6", "bit-flipped", "bit-flipped-ipv6"],
            Self::Coverage => &["bit-flipped", "bit-flipped-ipv6"],
            Self::Binding => &[
                "other-port",
                "other-source-port",
                "other-address",
                "other-protocol",
                "other-port-ipv6",
                "other-source-port-ipv6",
                "other-address-ipv6",
                "other-protocol-ipv6",
            ],
            Self::Window => &["replayed", "replayed-ipv6", "replayed-after-restart", "replayed-after-restart-ipv6"],
            Self::Budget => &["lying-sender", "lying-sender-ipv6"],
            Self::Consent => &["consent"],
            Self::FailClosed => &["router-killed", "router-killed-ipv6"],
            Self::Expiry => &["expiry"],
        }
    }

    /// Whether a demonstration without the check said no and named the lines that stand for it, of those it tried, and no other.
    pub fn shows_in(self, outcome: &line::Outcome) -> bool {
        let stands_for = |line: &line::Line| self.lines().contains(&line.name.as_str());
        let tried = outcome.lines.iter().any(stands_for);
        let exact = outcome.lines.iter().all(|line| line.holds != stands_for(line));
        tried && exact && !outcome.holds && outcome.lost_frames == 0
    }

    /// The check that a word names.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|sabotage| sabotage.word() == word)
    }

    /// Whether hosts run without the check as well.
    pub(crate) fn is_of_hosts_too(self) -> bool {
        self == Self::Coverage
    }

    /// Who runs without it, with the verb.
    pub(crate) fn who(self) -> &'static str {
        if self.is_of_hosts_too() { "every node runs" } else { "the router runs" }
    }

    /// A host's parts without this check; `None` if it is one of routers alone.
    pub(crate) fn apply_to_host(self, parts: endpoint::Parts) -> Option<endpoint::Parts> {
        let endpoint::Parts { outbound_checks, inbound_checks, .. } = parts;
        self.is_of_hosts_too().then(|| endpoint::Parts {
            outbound_checks: Arc::new(Uncovered(outbound_checks)),
            inbound_checks: Arc::new(Uncovered(inbound_checks)),
            ..parts
        })
    }

    /// A router's parts without this check.
    pub(crate) fn apply(self, mut parts: Parts) -> Parts {
        match self {
            Self::Icv => parts.checks = Arc::new(AnyIcv),
            Self::Coverage => parts.checks = Arc::new(Uncovered(parts.checks)),
            Self::Binding => {
                parts.checks = Arc::new(AnyFlow);
                parts.install_rules = install_without_shield;
                parts.ingress_shield = false;
            }
            Self::Window => parts.checks = Arc::new(AnyNumber),
            Self::Budget => parts.checks = Arc::new(AnyVolume),
            Self::Consent => parts.table = without_consent,
            Self::FailClosed => parts.install_rules = install_open_rules,
            Self::Expiry => {
                parts.checks = Arc::new(AnyTime);
                parts.table = without_expiry;
            }
        }
        parts
    }
}

/// What hosts check and how they seal, in a demonstration without this check.
pub(crate) fn checks_of_hosts(sabotage: Option<Sabotage>) -> Arc<dyn Checks> {
    let parts = endpoint::Parts::default();
    match sabotage.and_then(|sabotage| sabotage.apply_to_host(parts.clone())) {
        Some(parts) => parts.outbound_checks,
        None => parts.outbound_checks,
    }
}

#[derive(Debug)]
struct AnyFlow;

impl Checks for AnyFlow {
    fn is_of_flow(&self, _: &Flow, _: &Flow) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyIcv;

impl Checks for AnyIcv {
    fn icv_matches(&self, _: &IpPacket<'_>, _: &IcvKey, _: Option<u32>) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyNumber;

impl Checks for AnyNumber {
    fn window_allows(&self, _: &Window, _: u64) -> Result<(), Replay> {
        Ok(())
    }
}

#[derive(Debug)]
struct AnyVolume;

impl Checks for AnyVolume {
    fn within_budget(&self, _: u64, _: u64, _: u64) -> bool {
        true
    }
}

#[derive(Debug)]
struct AnyTime;

impl Checks for AnyTime {
    fn is_live(&self, _: Instant, _: Instant) -> bool {
        true
    }
}

/// Demonstrations at the same time: each waits nine tenths of its time, in a network of its own.
const AT_ONCE: usize = 4;

/// Runs the whole demonstration once without each check, and gives whether each run noticed just what was missing. `progress` is
/// told what is being tried, `say` what came of it.
pub(crate) fn try_all(progress: impl Fn(&str) + Sync, say: impl Fn(&str) + Sync) -> io::Result<bool> {
    let left = Mutex::new(Sabotage::value_variants().iter());
    let next = || left.lock().ok()?.next().copied();
    let work = || -> io::Result<bool> {
        let mut all = true;
        while let Some(sabotage) = next() {
            let options = demo::Options { sabotage: Some(sabotage), ..demo::Options::default() };
            let outcome = demo::run(&options, |what| progress(&format!("{:11}  {what}", sabotage.word())))?;
            let broken: Vec<&str> = outcome.lines.iter().filter(|line| !line.holds).map(|line| line.name.as_str()).collect();
            let answer = if outcome.holds { "yes" } else { "no" };
            say(&format!("demo --sabotage {:11}  {answer:3}  {}", sabotage.word(), broken.join(", ")));
            if !sabotage.shows_in(&outcome) {
                all = false;
                say(&format!("!! it must be no, {}, and no other line\n{}", sabotage.lines().join(", "), outcome.table()));
            }
        }
        Ok(all)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let ended = workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a demonstration panicked"))));
        ended.collect::<io::Result<Vec<bool>>>().map(|each| each.into_iter().all(|all| all))
    })
}

/// A Permission that nobody asked for is treated as if a Query had come before it (the opposite of X-64).
fn without_consent(state: State, event: Event, guards: Guards) -> Outcome {
    match (state, event) {
        (State::Idle, Event::RxPermission) => table::step(State::WaitP, event, guards),
        _ => table::step(state, event, guards),
    }
}

/// No row for the end of the time limit, and none for a missing refresh.
fn without_expiry(state: State, event: Event, guards: Guards) -> Outcome {
    match event {
        Event::ToTtl | Event::ToLife => Outcome::Ignore,
        _ => table::step(state, event, guards),
    }
}

/// The real rules, but that everything goes to the queue.
fn install_without_shield(rules: &RouterRules, socket: &Socket) -> Result<(), NetlinkError> {
    RouterRules { shield: false, ..rules.clone() }.install_through(socket)
}

/// The real rules, but that every queue of data, whichever worker's, lets packets pass when nobody listens.
fn install_open_rules(rules: &RouterRules, socket: &Socket) -> Result<(), NetlinkError> {
    rules.install_through(socket)?;
    let mut batch = Batch::new("open the queues of data");
    batch.unanswered(BATCH_BEGIN, &FRAME);
    for family in [IPV4, IPV6] {
        for rule in closed_queues(rules, socket, family)? {
            batch.request("open a queue", NEW_RULE, REPLACE, &[family, 0, 0, 0], |writer| {
                writer.put_text(1, Role::Router.table());
                writer.put(2, &rule.chain);
                writer.put_be64(3, rule.handle);
                writer.put(EXPRESSIONS | NESTED, &rule.opened);
                writer.put(7, &rule.comment);
            });
        }
    }
    batch.unanswered(BATCH_END, &FRAME);
    socket.transact(batch)
}

/// A rule that drops what goes to a queue of data to which nobody listens.
struct ClosedQueue {
    chain: Vec<u8>,
    handle: u64,
    comment: Vec<u8>,
    /// Its expressions, with a queue that lets packets pass then.
    opened: Vec<u8>,
}

fn closed_queues(rules: &RouterRules, socket: &Socket, family: u8) -> Result<Vec<ClosedQueue>, NetlinkError> {
    let of_table = |writer: &mut Writer| writer.put_text(1, Role::Router.table());
    socket.dump("list the rules", LIST_RULES, &[family, 0, 0, 0], of_table, |message| closed_queue(rules, message))
}

fn closed_queue(rules: &RouterRules, message: &Message<'_>) -> Result<Option<ClosedQueue>, Malformed> {
    let of_rule = attributes(message.after(FRAME.len())?);
    let value = |kind: u16| Ok(of_rule.clone().find(kind)?.map(|attribute| attribute.value.to_vec()).unwrap_or_default());
    let (Some(handle), Some(expressions)) = (of_rule.clone().find(3)?, of_rule.clone().find(EXPRESSIONS)?) else { return Ok(None) };
    for element in expressions.nested() {
        let element = element?;
        let Some(info) = element.nested().find(2)?.map(|data| data.nested().find(3)).transpose()?.flatten() else { continue };
        let is_target = element.nested().find(1)?.is_some_and(|name| name.value == b"target\0");
        let ([n0, n1, _, _, 0, 0, ..], true) = (info.value, is_target) else { continue };
        let queue = u16::from_ne_bytes([*n0, *n1]);
        if !(0..rules.spread.workers()).any(|worker| rules.data_queue_of(worker) == queue) {
            continue;
        }
        // Both are slices of one message.
        let flags = info.value.as_ptr().addr() - expressions.value.as_ptr().addr() + FLAGS_OF_A_QUEUE;
        let mut opened = expressions.value.to_vec();
        if let Some(field) = opened.get_mut(flags..flags + 2) {
            field.copy_from_slice(&BYPASS.to_ne_bytes());
        }
        return Ok(Some(ClosedQueue { chain: value(2)?, handle: handle.be64()?, comment: value(7)?, opened }));
    }
    Ok(None)
}

const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// The frame of a batch names the subsystem of nf_tables.
const FRAME: [u8; 4] = [0, 0, 0, 10];
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_RULE: u16 = 0x0a06;
const LIST_RULES: u16 = 0x0a07;
const EXPRESSIONS: u16 = 4;
const NESTED: u16 = 0x8000;
/// Where the flags stand in what describes a queue: behind its number and how many there are.
const FLAGS_OF_A_QUEUE: usize = 4;
/// The flag of a queue that is passed by when nobody listens.
const BYPASS: u16 = 1;

#[cfg(test)]
mod tests {
    use traffic::netlink::Protocol;
    use traffic::spread::Spread;

    use super::*;
    use crate::network::namespace::Namespace;

    #[test]
    fn every_word_of_the_command_line_names_its_check() {
        for sabotage in Sabotage::value_variants() {
            let shown = sabotage.to_possible_value().unwrap();
            assert_eq!(shown.get_name(), sabotage.word());
            assert_eq!(Sabotage::from_word(sabotage.word()), Some(*sabotage));
        }
    }

    #[test]
    fn without_fail_closed_the_queue_of_every_worker_is_open() {
        if !crate::may_make_networks() {
            return;
        }
        let rules = RouterRules { spread: Spread::new(3, 7), shield: true, ..RouterRules::new(1, 2, 30_270) };
        let closed = |socket: &Socket| [IPV4, IPV6].map(|family| closed_queues(&rules, socket, family).map(|closed| closed.len()));
        let host = Namespace::create("node").unwrap();
        let [before, after] = host
            .run(|| {
                let of = || -> Result<_, NetlinkError> {
                    let socket = Socket::open(Protocol::Netfilter)?;
                    rules.install_through(&socket)?;
                    let before = closed(&socket);
                    install_open_rules(&rules, &socket)?;
                    Ok([before, closed(&socket)])
                };
                of().map_err(io::Error::other)
            })
            .unwrap();
        assert!(before.iter().all(|closed| closed.as_ref().is_ok_and(|closed| *closed >= 3)), "{before:?}");
        assert_eq!(after, [Ok(0), Ok(0)]);
    }

    #[test]
    fn without_consent_only_one_row_is_another() {
        let guards = Guards::default();
        for state in State::ALL {
            for event in Event::ALL {
                let same = format!("{:?}", without_consent(*state, *event, guards)) == format!("{:?}", table::step(*state, *event, guards));
                assert_eq!(same, (*state, *event) != (State::Idle, Event::RxPermission), "{state} {event:?}");
            }
        }
    }
}
