//! What each row does, all of it, as seen from outside: one node alone is brought into a state by messages, time and its packet side,
//! one thing happens to it, and then nobody says anything any more.
//!
//! `sender.txt`, `receiver.txt` and `router.txt` have for each case what the node does at once (and the state it is in then), and what
//! its clocks do afterwards, each wake-up at its second, until it sleeps for good. Whatever a row does that can be told from outside
//! is told there: a timer that is started or not, a message, a command, a report. What the documents say of each rule is in
//! `fsm-specs/requirements/fsm.md`; a case is held against that when it is written down, by
//! `UPDATE=1 cargo test -p pbs-nslp --test machines alone`, and reviewed. `=` before a case is only what leads there.
//!
//! In words: `way 18 s` is how long GIST is to keep the way downstream, `packets: …` a command to the packet side, `now` and
//! `after 5 s` when; `no row` is said where the table has none for an event or for a clock, which is then one that nobody waits for. `again` is what becomes of old messages: nothing, if their numbers are remembered (INV-05).

mod core;
mod receiver;
mod router;
mod sender;
mod words;

use ::core::time::Duration;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use gist::api::{Indication, MessageHandle, NetworkEvent, ReceivedMessage, SendError};
use gist::time::Instant;
use gist::wire::{Direction, SessionId};
use pbs_nslp::datapath::{Command, Event, Token};
use pbs_nslp::output::Output;
use pbs_nslp::wire::{self, Message, Permission, Query};

use crate::datapath::Datapath;
use crate::world::{LATENCY, NSLP_ID, START_UNIX, flow};
use core::Core;

/// After so long a node that does nothing but wake up is not watched any longer.
const LONGEST: Duration = Duration::from_secs(4000);

/// One node, and what it has done.
#[derive(Clone)]
pub(crate) struct Alone<C> {
    pub(crate) core: C,
    pub(crate) now: Instant,
    pub(crate) datapath: Datapath,
    /// What it did since this was emptied last, in words.
    said: Vec<String>,
    /// What it was told, for `again`.
    heard: Vec<ReceivedMessage>,
    /// The last Query that it sent, or Permission, and the session it has.
    pub(crate) asked: Option<Query>,
    pub(crate) granted: Option<Permission>,
    /// Whether the packet side does not say yet what it has counted in the epoch in use.
    pub(crate) counts_silently: bool,
    kept_back: BTreeSet<Token>,
    kept: VecDeque<Event>,
    pub(crate) session: SessionId,
    handle: MessageHandle,
    number: u32,
}

impl<C: Core> Alone<C> {
    fn new(core: C) -> Self {
        crate::coverage::watch();
        let datapath = Datapath { is_sender: C::IS_SENDER, ..Datapath::default() };
        let now = Instant::from_micros(1_000_000);
        let session = SessionId([7; 16]);
        let mut new = Self {
            core,
            now,
            datapath,
            said: Vec::new(),
            heard: Vec::new(),
            asked: None,
            granted: None,
            counts_silently: false,
            kept_back: BTreeSet::new(),
            kept: VecDeque::new(),
            session,
            handle: MessageHandle(0),
            number: 0,
        };
        new.settle();
        new
    }

    /// The same after something has happened.
    pub(crate) fn after(&self, act: impl FnOnce(&mut Self)) -> Self {
        let mut next = self.clone();
        act(&mut next);
        next
    }

    /// A number that is newer than those before.
    pub(crate) fn number(&mut self) -> u32 {
        let unix = u32::try_from(START_UNIX + (self.now.micros() - 1_000_000) / 1_000_000).unwrap();
        self.number = unix.max(self.number + 1);
        self.number
    }

    pub(crate) fn hears(&mut self, received: ReceivedMessage) {
        self.heard.push(received.clone());
        self.told(received);
    }

    fn told(&mut self, received: ReceivedMessage) {
        self.core.gist(Indication::Received(received), self.now);
        self.settle();
    }

    /// GIST says something about the way of the flow's messages.
    pub(crate) fn network(&mut self, event: NetworkEvent) {
        let (session, mri) = (self.session, flow().to_mri(Direction::Downstream));
        let news = Indication::NetworkNotification { nslp_id: NSLP_ID, session, mri, event, former: None, peer: None, authenticated: true };
        self.core.gist(news, self.now);
        self.settle();
    }

    /// GIST says that the last message did not go.
    pub(crate) fn undelivered(&mut self) {
        let (session, mri, handle) = (self.session, flow().to_mri(Direction::Downstream), self.handle);
        let error = SendError::NoResponse;
        self.core.gist(Indication::MessageStatus { handle, nslp_id: NSLP_ID, session, mri, error }, self.now);
        self.settle();
    }

    /// The packet side says something that it was not asked.
    pub(crate) fn packets(&mut self, event: Event) {
        self.core.datapath(event, self.now);
        self.settle();
    }

    /// Something happens in the host.
    pub(crate) fn host(&mut self, act: impl FnOnce(&mut C, Instant)) {
        act(&mut self.core, self.now);
        self.settle();
    }

    /// Time passes, with its clocks running.
    pub(crate) fn passes(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.core.wakes().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.core.time(self.now);
            self.settle();
        }
        self.now = end;
    }

    /// Nothing is left of its sessions but the last instant.
    pub(crate) fn just_before_the_end(&self) -> Self {
        let (mut last, mut probe) = (self.clone(), self.clone());
        while let Some(at) = probe.core.wakes().filter(|_| !probe.core.states().is_empty()) {
            last.passes(at.saturating_duration_since(last.now).saturating_sub(Duration::from_millis(1)));
            probe.passes(at.saturating_duration_since(probe.now));
        }
        last
    }

    pub(crate) fn settle(&mut self) {
        loop {
            while let Some(output) = self.core.output() {
                self.act(output);
            }
            let Some(event) = self.datapath.events.pop_front() else { break };
            if matches!(event, Event::Compared { token, .. } if self.kept_back.remove(&token)) {
                self.kept.push_back(event);
            } else {
                self.core.datapath(event, self.now);
            }
        }
    }

    /// The packet side says what it has counted after all.
    pub(crate) fn counted(&mut self) {
        self.counts_silently = false;
        while let Some(event) = self.kept.pop_front() {
            self.packets(event);
        }
    }

    fn act(&mut self, output: Output) {
        // The Query that leaves a sender says that it has asked.
        self.said.extend(words::of(&output).filter(|word| !(C::IS_SENDER && word == "“asked”")));
        match output {
            Output::Datapath(command) => {
                if let (true, Command::Compare { token, flow, spi, .. }) = (self.counts_silently, &command) {
                    let in_use = self.datapath.table.get(&(*flow, *spi)).is_some_and(|entry| !entry.draining);
                    self.kept_back.extend(in_use.then_some(*token));
                }
                self.datapath.apply(&command, self.now);
            }
            Output::Send(message) => {
                self.handle = message.handle;
                match wire::decode(message.payload.clone(), message.session, NSLP_ID).unwrap() {
                    Message::Query(query) if C::IS_SENDER => (self.asked, self.session) = (Some(query.message), message.session),
                    Message::Permission(permission) => self.granted = Some(permission.message),
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn states(&self) -> String {
        let states = self.core.states();
        if states.is_empty() { "nothing is kept".to_owned() } else { states.join(" and ") }
    }

    /// All that comes of it.
    fn effect(&self, act: impl FnOnce(&mut Self)) -> String {
        let mut node = self.clone();
        node.said.clear();
        let before = node.core.ignored();
        act(&mut node);
        if node.core.ignored() > before {
            node.said.push("no row".to_owned());
        }
        let mut text = String::new();
        line(&mut text, "now", &std::mem::take(&mut node.said), &node.states());
        let then = node.clone();
        let start = node.now;
        let (mut before, mut ignored) = (node.states(), node.core.ignored());
        // What is the same several times in a row stands there once.
        let mut run: (Vec<String>, Vec<String>, String) = Default::default();
        while let Some(at) = node.core.wakes().filter(|at| at.saturating_duration_since(start) < LONGEST) {
            node.passes(at.saturating_duration_since(node.now));
            // Periods are drawn within a few seconds: the second that has begun is told.
            let after = at.saturating_duration_since(start).as_micros().div_ceil(1_000_000).to_string();
            let states = node.states();
            let state = if states == before { String::new() } else { states.clone() };
            let mut said = std::mem::take(&mut node.said);
            if node.core.ignored() > ignored {
                said.push("no row".to_owned());
                ignored = node.core.ignored();
            }
            if (&run.1, &run.2) != (&said, &state) {
                flush(&mut text, &mut run);
                (run.1, run.2) = (said, state);
            }
            run.0.push(after);
            before = states;
        }
        flush(&mut text, &mut run);
        if then.core.states().is_empty() || C::IS_SENDER && then.states() == "Idle" {
            line(&mut text, "again", &then.again(), "");
        }
        text
    }

    /// What becomes of the old messages, one after the other, each told to a node that has just ended.
    fn again(&self) -> Vec<String> {
        let mut all = Vec::new();
        for received in &self.heard {
            let mut node = self.clone();
            node.said.clear();
            node.passes(LATENCY);
            C::ask_anew(&mut node);
            node.said.clear();
            let received = C::readdressed(&node, received);
            node.told(received);
            if node.said.is_empty() {
                node.said.push("nothing".to_owned());
            }
            let said = node.said.join(" + ");
            all.push(said);
        }
        all.dedup();
        all
    }
}

fn flush(text: &mut String, (times, said, state): &mut (Vec<String>, Vec<String>, String)) {
    if !times.is_empty() {
        line(text, &format!("after {} s", times.join(", ")), said, state);
    }
    times.clear();
}

fn line(text: &mut String, when: &str, said: &[String], state: &str) {
    let said = if said.is_empty() { "–".to_owned() } else { said.join(", ") };
    let state = if state.is_empty() { String::new() } else { format!("; {state}") };
    writeln!(text, "  {when}: {said}{state}").unwrap();
}

thread_local! {
    /// Books and titles of the cases that there are, while this thread only lists them.
    static LISTED: RefCell<Option<BTreeSet<(&'static str, String)>>> = const { RefCell::new(None) };
}

/// What is written down about a machine.
pub(crate) struct Book {
    name: &'static str,
    cases: BTreeMap<String, String>,
    wrong: Vec<String>,
}

impl Book {
    pub(crate) fn open(name: &'static str, text: &'static str) -> Self {
        let mut cases = BTreeMap::new();
        for case in text.split("\n\n") {
            if let Some((title, effect)) = case.split_once('\n') {
                cases.insert(title.trim().to_owned(), format!("{}\n", effect.trim_end()));
            }
        }
        Self { name, cases, wrong: Vec::new() }
    }

    /// Holds what comes of something against what is written down under the rule and the words.
    pub(crate) fn case<C: Core>(&mut self, title: &str, node: &Alone<C>, act: impl FnOnce(&mut Alone<C>)) {
        let is_only_listed = LISTED.with_borrow_mut(|listed| listed.as_mut().map(|listed| listed.insert((self.name, title.to_owned()))));
        if let Some(is_first) = is_only_listed {
            return assert!(is_first, "{}.txt: two cases are called {title}", self.name);
        }
        let effect = node.effect(act);
        if self.cases.get(title) != Some(&effect) {
            let kept = self.cases.get(title).map_or("nothing\n", String::as_str);
            self.wrong.push(format!("{title}\n{effect} written down is\n{kept}"));
            if std::env::var_os("UPDATE").is_some() {
                rewrite(self.name, title, Some(&effect));
            }
        }
    }

    pub(crate) fn close(self) {
        assert!(self.wrong.is_empty(), "{}.txt says otherwise:\n{}", self.name, self.wrong.join("\n"));
    }
}

/// Every case that there is.
fn all_cases() {
    sender::invalid_messages_change_nothing_but_are_told();
    sender::what_an_idle_flow_does();
    sender::answers_while_one_is_awaited();
    sender::an_algorithm_that_is_refused();
    sender::nobody_answers();
    sender::a_way_that_dies();
    sender::notices();
    sender::a_flow_that_waits_is_given_up_or_ends();
    sender::refreshes_under_a_permission();
    sender::repairs_and_what_ends_them();
    sender::permissions_that_end();
    sender::more_is_asked_for();
    sender::releases();
    receiver::invalid_messages_change_nothing_but_are_told();
    receiver::what_a_query_leads_to();
    receiver::every_end_of_a_permission();
    receiver::every_clock_of_a_permission();
    receiver::what_goes_on_in_every_state();
    receiver::what_a_comparison_leads_to();
    receiver::what_an_attack_leads_to();
    receiver::what_the_end_of_an_epoch_leads_to();
    receiver::nothing_is_left_for_another_epoch();
    router::invalid_and_old_messages_change_nothing_but_are_told();
    router::what_an_idle_router_does();
    router::what_a_waiting_router_does();
    router::a_newer_session_takes_over();
    router::what_goes_on_under_a_permission();
    router::every_end_of_a_permission();
    router::what_repairs_do();
}

/// What is written down is held against something: each case of each book is one that a test makes, and [`all_cases`] knows all of these.
#[test]
fn no_case_is_written_down_that_there_is_not() {
    LISTED.set(Some(BTreeSet::new()));
    all_cases();
    let listed = LISTED.take().unwrap();
    for book in [sender::book(), receiver::book(), router::book()] {
        let stale: Vec<_> = book.cases.keys().filter(|title| !listed.contains(&(book.name, (*title).clone()))).collect();
        if std::env::var_os("UPDATE").is_some() {
            stale.iter().for_each(|title| rewrite(book.name, title, None));
        }
        assert!(stale.is_empty(), "{}.txt has cases that no test makes: {stale:#?}", book.name);
    }
}

/// Puts a case into the book, in the order of the titles, or takes it out.
fn rewrite(name: &str, title: &str, effect: Option<&str>) {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap();
    let path = format!("{}/tests/machines/alone/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut cases: Vec<String> = text.trim_end().split("\n\n").filter(|case| !case.trim().is_empty()).map(str::to_owned).collect();
    cases.retain(|case| case.split('\n').next() != Some(title));
    cases.extend(effect.map(|effect| format!("{title}\n{}", effect.trim_end())));
    cases.sort();
    std::fs::write(path, cases.join("\n\n") + "\n").unwrap();
}
