//! What each rule of the machines does, all of it, as seen from outside: one node of a small network is brought into a state, one thing
//! happens to it, and from then on nobody hears it or says anything any more.
//!
//! `node.txt`, `querying.txt`, `responding.txt` and `association.txt` have for each case what the node does at once and its tables then, and
//! what its clocks do afterwards, each wake-up at its tenth of a second, until it sleeps for good. Whatever a rule does that can be told
//! from outside is told there. What is expected is RFC 5971 §6, with the notes of the tables; a case is held against that when it is
//! written down, by `UPDATE=1 cargo test -p gist --test node_effects`, and reviewed.
//!
//! Tables are written as `Established/1 q2 [1 Connected 1]`: the state and its peer (0 is the sender, 1 and 3 are routers, 2 is the
//! receiver), messages that wait, and in brackets each association with its peer, state and number of users.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod association;
mod early;
mod node;
#[path = "../node_world/mod.rs"]
mod node_world;
mod querying;
mod responding;
mod rows;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use gist::api::{Indication, PathId};
use gist::node::{Output, Transmit};
use gist::wire::{Body, Message, PeerIdentity};
use node_world::*;

/// After so long a node is not watched any longer.
const LONGEST: Duration = Duration::from_secs(400);

/// What an output says.
fn words(output: &Output) -> String {
    match output {
        Output::Transmit(transmit) => match transmit {
            Transmit::QueryMode { path, .. } if *path != PathId::ROUTED => format!("{} by way {}", message(&message_in(transmit)), path.0),
            _ => message(&message_in(transmit)),
        },
        Output::Connect { .. } => "connect".to_owned(),
        Output::SendOnAssociation { message: bytes, .. } => format!("{} on it", message(&Message::decode(bytes.clone()).unwrap())),
        Output::CloseAssociation { .. } => "close".to_owned(),
        Output::Indicate(Indication::Received(received)) => {
            let tentative = if received.tentative { " (tentative)" } else { "" };
            format!("“{}”{tentative}", String::from_utf8_lossy(&received.payload))
        }
        Output::Indicate(Indication::MessageStatus { error, .. }) => format!("status {}", name(error)),
        Output::Indicate(Indication::NetworkNotification { event, .. }) => format!("news {}", name(event)),
        #[allow(unreachable_patterns, reason = "indications may be added")]
        Output::Indicate(other) => name(other),
    }
}

fn message(message: &Message) -> String {
    match &message.body {
        Body::Hello(hello) => if hello.request { "HELLO?" } else { "HELLO!" }.to_owned(),
        Body::Error(body) => body.error.cause().map_or_else(|| "ERROR".to_owned(), |cause| format!("ERROR {}", name(&cause))),
        _ => format!("{:?}", message.message_type()).to_uppercase(),
    }
}

/// A variant without what it carries.
fn name(value: &impl std::fmt::Debug) -> String {
    let shown = format!("{value:?}");
    shown.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}

fn who(peer: Option<&PeerIdentity>) -> String {
    peer.and_then(|peer| (0..4).find(|number| identity(*number) == *peer)).map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn tables(world: &World, number: usize) -> String {
    let mut parts = Vec::new();
    for entry in world.node(number).routing_table() {
        let mut part = format!("{}/{}", entry.state, who(entry.peer.as_ref()));
        if entry.second_peer.is_some() {
            write!(part, "+{}", who(entry.second_peer.as_ref())).unwrap();
        }
        if entry.queued > 0 {
            write!(part, " q{}", entry.queued).unwrap();
        }
        parts.push(part);
    }
    for entry in world.node(number).associations() {
        parts.push(format!("[{} {} {}]", who(entry.peer.as_ref()), entry.state, entry.users));
    }
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(" ") }
}

fn said(world: &mut World, number: usize) -> Vec<String> {
    let outputs = std::mem::take(&mut world.outputs);
    outputs.iter().filter(|(_, of, _)| *of == number).map(|(_, _, output)| words(output)).collect()
}

/// All that comes of it for one node.
fn effect(mut world: World, number: usize, act: impl FnOnce(&mut World)) -> String {
    world.outputs.clear();
    act(&mut world);
    // What the node is to do anyway is drained with the next input.
    world.drain(number);
    let mut text = String::new();
    let mut before = tables(&world, number);
    let first = said(&mut world, number);
    line(&mut text, "now", &first, &before);
    world.cut();
    let start = world.now;
    while let Some(at) = world.node(number).poll_timeout().filter(|at| at.saturating_duration_since(start) < LONGEST) {
        world.run(at.saturating_duration_since(world.now));
        world.cut();
        let tenths = at.saturating_duration_since(start).as_micros().div_ceil(100_000);
        let after = tables(&world, number);
        let shown = if after == before { "" } else { after.as_str() };
        let said = said(&mut world, number);
        line(&mut text, &format!("{}.{} s", tenths / 10, tenths % 10), &said, shown);
        before = after;
    }
    text
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
struct Book {
    name: &'static str,
    cases: BTreeMap<String, String>,
    wrong: Vec<String>,
}

impl Book {
    fn open(name: &'static str, text: &'static str) -> Self {
        let parts = text.split("\n\n").filter_map(|case| case.trim().split_once('\n'));
        let cases = parts.map(|(title, effect)| (title.to_owned(), format!("{}\n", effect.trim_end()))).collect();
        Self { name, cases, wrong: Vec::new() }
    }

    /// Holds what comes of something against what is written down.
    fn case(&mut self, title: &str, world: World, number: usize, act: impl FnOnce(&mut World)) {
        let is_only_listed = LISTED.with_borrow_mut(|listed| listed.as_mut().map(|listed| listed.insert((self.name, title.to_owned()))));
        if let Some(is_first) = is_only_listed {
            return assert!(is_first, "{}.txt: two cases are called {title}", self.name);
        }
        let effect = effect(world, number, act);
        let kept = self.cases.get(title).map_or("nothing\n", String::as_str);
        if kept != effect {
            self.wrong.push(format!("{title}\n{effect} written down is\n{kept}"));
            if std::env::var_os("UPDATE").is_some() {
                rewrite(self.name, title, Some(&effect));
            }
        }
    }

    fn close(self) {
        assert!(self.wrong.is_empty(), "{}.txt says otherwise:\n{}", self.name, self.wrong.join("\n"));
    }
}

/// Every case that there is.
fn all_cases() {
    node::what_messages_of_strangers_do();
    node::what_confirms_do();
    node::what_data_without_state_does();
    node::what_the_application_sends_without_state();
    querying::what_a_message_of_the_application_does();
    querying::what_the_application_says_about_the_state();
    querying::what_peers_say();
    querying::what_answers_do();
    querying::what_the_end_of_a_candidate_does();
    querying::what_clocks_do();
    responding::what_each_peer_and_the_application_do();
    responding::what_the_beginning_does();
    early::what_a_query_makes();
    association::what_happens_to_an_open_association();
    association::what_happens_to_an_association_that_nobody_uses();
    association::what_happens_to_an_association_that_is_being_opened();
    association::what_the_first_confirm_does();
}

/// What is written down is held against something: each case of each book is one that a test makes, and [`all_cases`] knows all of these.
#[test]
fn no_case_is_written_down_that_there_is_not() {
    LISTED.set(Some(BTreeSet::new()));
    all_cases();
    let listed = LISTED.take().unwrap();
    for book in [node::book(), querying::book(), responding::book(), association::book()] {
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
    let path = format!("{}/tests/node_effects/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut cases: Vec<&str> = text.trim_end().split("\n\n").filter(|case| !case.trim().is_empty()).collect();
    cases.retain(|case| case.split('\n').next() != Some(title));
    let case = effect.map(|effect| format!("{title}\n{}", effect.trim_end()));
    cases.extend(case.as_deref());
    cases.sort_unstable();
    std::fs::write(path, cases.join("\n\n") + "\n").unwrap();
}
