//! Each node killed at each step of the protocol, the moment a message or packet of that step is seen on a link, and started again:
//! the flow is granted again within a stated time, nothing passes that nobody has permitted, nobody crashes (TMP-13, X-96, X-100, X-101).

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::Scenario;
use super::audit::{Of, Shown, Unit};
use super::flow::{Programs, Steady};
use super::messages::{Message, Watcher};
use super::outcome::{Cell, Outcome};
use super::session::{SLACK, Session, nobody_crashed};
use super::site::{BEHIND, NODES, PORT, SHORTEST, Site, Terms};
use crate::network::frame;
use crate::network::graph::Place;
use crate::network::relay::Fate;

/// One datagram each.
const PAUSE: Duration = Duration::from_millis(5);
/// The first of the sender's ports; each flow has its own.
const FIRST_SOURCE: u16 = 31_000;
/// How long a step may take to come.
const STEP_LIMIT: Duration = Duration::from_secs(12);
/// What a killed node had let through already may take so long to be seen.
const UNDER_WAY: Duration = Duration::from_millis(100);
/// How many data packets have passed a node that is killed during data.
const SOME_DATA: u32 = 50;
const TERMS: Terms = Terms { place: Place::EveryLink, refresh: SHORTEST, volume: 64_000_000, reactions: "", rogue: None };

/// A step of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nobody has asked yet.
    Before,
    /// GIST's Response is on its way, Confirm is not.
    Handshake,
    /// The first Query has passed the node.
    Query,
    /// The first Permission has passed it.
    Permission,
    /// Data passes it.
    Data,
    /// The Query of a refresh has passed it.
    Refresh,
    /// The Permission with another key has passed it.
    Rekey,
    /// The Query that gives the permission back has passed it.
    Release,
}

macro_rules! scenario {
    ($constant:ident, $name:literal, $step:ident, $when:literal) => {
        pub(super) const $constant: Scenario = Scenario {
            name: $name,
            what: concat!(
                "each node in turn is killed (SIGKILL) ",
                $when,
                ", and started again a moment later: nothing passes \
                           meanwhile, and the flow is granted again within T of its return, 2 s more on a busy machine"
            ),
            terms: TERMS,
            run: |site, outcome, progress| play(site, outcome, progress, Step::$step),
        };
    };
}
scenario!(BEFORE, "restart-before-query", Before, "before anybody has asked");
scenario!(HANDSHAKE, "restart-at-handshake", Handshake, "between GIST's Response and Confirm");
scenario!(QUERY, "restart-at-query", Query, "when the first Query has passed it");
scenario!(PERMISSION, "restart-at-permission", Permission, "when the Permission has passed it");
scenario!(DATA, "restart-at-data", Data, "while data passes it");
scenario!(REFRESH, "restart-at-refresh", Refresh, "when the Query of a refresh has passed it");
scenario!(REKEY, "restart-at-rekey", Rekey, "when the Permission with another key has passed it");
scenario!(RELEASE, "restart-at-release", Release, "when the Query that gives the permission back has passed it");

/// What is waited for on a link.
#[derive(Debug, Clone, Copy)]
enum Sign {
    Message(Message),
    /// So many data packets.
    Data(u32),
    /// One under another SPI.
    OtherThan(u32),
}

impl Step {
    /// On which link what shows that the step has come, for the node at this place of the path.
    fn sign(self, place: usize, spi: u32) -> (usize, Sign) {
        let (behind, before) = (place.min(2), place.saturating_sub(1));
        match (self, place) {
            (Self::Before | Self::Query | Self::Refresh | Self::Release, _) => (behind, Sign::Message(Message::Query)),
            // Of the receiver its own, of the others that which comes to them.
            (Self::Handshake, _) => (behind, Sign::Message(Message::Response)),
            // The sender has it when it sends under it.
            (Self::Permission, 0) => (0, Sign::Data(1)),
            (Self::Rekey, 0) => (0, Sign::OtherThan(spi)),
            (Self::Permission | Self::Rekey, _) => (before, Sign::Message(Message::Permission)),
            (Self::Data, _) => (behind, Sign::Data(SOME_DATA)),
        }
    }
}

fn play(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str), step: Step) -> io::Result<()> {
    outcome.head("node", &["killed at, s", "away, ms", "packets past it meanwhile", "data again after, ms"]);
    for (number, (place, node)) in (0..).zip(site.plan.shuffled(NODES.into_iter().enumerate())) {
        progress(&format!("killing {node} at this step, starting it again"));
        let (session, programs) = Session::begin(site, FIRST_SOURCE + number)?;
        Trial { session, step, place, node }.run(outcome, &programs)?;
    }
    nobody_crashed(site, outcome)
}

/// One node at one step.
struct Trial<'a> {
    session: Session<'a>,
    step: Step,
    place: usize,
    node: &'static str,
}

impl Trial<'_> {
    fn run(&self, outcome: &mut Outcome, programs: &Programs) -> io::Result<()> {
        let Self { session: session @ Session { site, .. }, node, .. } = *self;
        let (flow, killed) = self.kill(programs)?;
        outcome.check(format!("{node} is killed at that step"), killed.is_some(), format!("at {killed:?}"));
        let Some(killed) = killed else { return Ok(()) };
        // It is dead already; now it is no child of ours any more.
        site.daemon(node, |daemon| daemon.kill())?;
        site.relays()?.into_iter().for_each(|relay| relay.pass_all());
        std::thread::sleep(UNDER_WAY.saturating_sub(site.now().saturating_sub(killed)));
        let had = flow.as_ref().map_or(0, Steady::received);
        std::thread::sleep(site.plan.away());
        let past = self.past(outcome, (killed + UNDER_WAY, site.now()), flow.as_ref().map_or(0, |flow| flow.received() - had));
        site.restart(node)?;
        let back = site.now();
        let flow = match flow {
            Some(flow) => flow,
            None => {
                session.must_be_over(outcome, node)?;
                programs.steady(PAUSE)?
            }
        };
        let asked = site.now().max(back);
        let limit = site.refresh + SLACK;
        let again = flow.await_more(flow.received(), limit + Duration::from_secs(8)).then(|| site.now().saturating_sub(asked));
        let found = again.map_or("not at all".to_owned(), |again| format!("after {:.3} s", again.as_secs_f64()));
        let must = format!("data flows again within {:.0} s of {node}'s return", limit.as_secs_f64());
        outcome.check(must, again.is_some_and(|again| again <= limit), found);
        let figure = if node == "receiver" {
            // Behind router2 it never ended: only the program knows.
            let again = again.map_or(0, |again| u64::try_from(again.as_millis()).unwrap_or(u64::MAX));
            let figure = format!("milliseconds until data flows again, {node}");
            outcome.figure(figure.clone(), again);
            figure
        } else {
            let figure = format!("milliseconds until data flows again behind router2, {node}");
            let counted = site.last.look(|frames| Shown::count(&figure, BEHIND, frames, Of::Flow, (asked, site.now())));
            outcome.figure_of(&figure, Unit::Milliseconds, [(counted, false)]);
            figure
        };
        let [at, away] = [format!("{:.3}", killed.as_secs_f64()), site.plan.away_ms.to_string()].map(Cell::Text);
        outcome.row(node, vec![at, away, Cell::Figure(past), Cell::Figure(figure)]);
        session.must_agree(outcome, node)?;
        flow.end()?;
        session.must_be_permitted(outcome, node)?;
        session.release()
    }

    /// Brings the step about, and kills the node the moment it is seen on the link. Gives when, and the flow if it runs.
    fn kill(&self, programs: &Programs) -> io::Result<(Option<Steady>, Option<Duration>)> {
        let Self { session: session @ Session { site, .. }, step, node, .. } = *self;
        if step == Step::Before {
            site.daemon(node, |daemon| daemon.kill())?;
            let killed = site.now();
            return Ok((Some(programs.steady(PAUSE)?), Some(killed)));
        }
        if [Step::Handshake, Step::Query, Step::Permission].contains(&step) {
            let trap = self.trap(0)?;
            let flow = programs.steady(PAUSE)?;
            return Ok((Some(flow), trap.sprung()));
        }
        let flow = programs.steady(PAUSE)?;
        if !flow.await_more(0, STEP_LIMIT) {
            return Err(io::Error::other("nothing arrived: no permission"));
        }
        std::thread::sleep(Duration::from_millis(100) + site.plan.before_attack());
        let spi = session.spi("sender")?.ok_or_else(|| io::Error::other("the sender has no permission"))?;
        let trap = if step == Step::Release { None } else { Some(self.trap(spi)?) };
        match step {
            // Who dies of it may not come to answer; whether it was heard is what the trap tells.
            Step::Rekey => drop(session.order("receiver", json!({ "command": "change", "rekey": true }))),
            Step::Release => {
                flow.end()?;
                let trap = self.trap(spi)?;
                let _ = session.order("sender", json!({ "command": "release" }));
                return Ok((None, trap.sprung()));
            }
            _ => {}
        }
        Ok((Some(flow), trap.and_then(|trap| trap.sprung())))
    }

    /// From now on the node dies when its sign is seen, before whatever bears it goes on.
    fn trap(&self, spi: u32) -> io::Result<Trap> {
        let (link, sign) = self.step.sign(self.place, spi);
        let process = i32::try_from(self.session.site.daemon(self.node, |daemon| daemon.id())?).map_err(io::Error::other)?;
        let (mut watcher, mut left) = (Watcher::default(), if let Sign::Data(count) = sign { count } else { 1 });
        let trap = Trap { at: Arc::default(), started: Instant::now(), offset: self.session.site.now() };
        let sprung = trap.clone();
        let source = self.session.source;
        let [first, middle, last] = self.session.site.relays()?;
        [first, middle, last].get(link).copied().unwrap_or(last).set(move |way, frame| {
            let is_sign = |message: &Message| match (sign, message) {
                (Sign::Message(wanted), message) => wanted == *message,
                (Sign::Data(_), Message::Data(_)) => is_from(frame, source),
                (Sign::OtherThan(spi), Message::Data(other)) => *other != spi && is_from(frame, source),
                _ => false,
            };
            if left > 0 && watcher.hear(way, frame).iter().any(is_sign) {
                left -= 1;
                if left == 0 {
                    // A child that nobody has waited for: the number is its own.
                    let _ = kill(Pid::from_raw(process), Signal::SIGKILL);
                    sprung.spring();
                }
            }
            Fate::Pass
        });
        Ok(trap)
    }

    /// Packets of the flow on the far side of the node while it was dead; of the receiver those that the program got. Gives what the
    /// figure is called.
    fn past(&self, outcome: &mut Outcome, within: (Duration, Duration), got: u64) -> String {
        let Self { session: Session { site, .. }, node, .. } = *self;
        let figure = format!("packets past {node} while it was dead");
        let [left, _] = &site.middle;
        let (capture, name) = match node {
            "sender" => (&site.first, "sender-link"),
            "router1" => (left, "middle-left"),
            _ => (&site.last, BEHIND),
        };
        let past = if node == "receiver" {
            outcome.figure(figure.clone(), got);
            got
        } else {
            let counted = capture.look(|frames| Shown::count(&figure, name, frames, Of::Flow, within));
            outcome.figure_of(&figure, Unit::Packets, [(counted, false)])
        };
        outcome.check(format!("nothing passes {node} while it is dead"), past == 0, format!("{past} packets"));
        figure
    }
}

/// What kills a node.
#[derive(Debug, Clone)]
struct Trap {
    at: Arc<Mutex<Option<Duration>>>,
    started: Instant,
    /// What the captures' clock showed when this one started.
    offset: Duration,
}

impl Trap {
    fn spring(&self) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.offset + self.started.elapsed());
    }

    /// Waits for it. Gives when it did.
    fn sprung(&self) -> Option<Duration> {
        let deadline = Instant::now() + STEP_LIMIT;
        loop {
            let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
            if at.is_some() || Instant::now() > deadline {
                return at;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn is_from(frame: &[u8], source: u16) -> bool {
    crate::network::relay::packet(frame).and_then(frame::read).is_some_and(|seen| seen.ports == (source, PORT))
}
