//! Bad input at every state: each message that an attacker with a certificate, or a node on the path, can make of what honest nodes
//! say is refused, counted once by its reason, answered by one notice at the most, and leaves the node as it was (INV-06, P-090,
//! P-206). The whole matrix stands in `fsm-specs/requirements/bad-input.md`.
//!
//! States are reached by real messages ([`settings`]); what the honest nodes would say next is taken in each of them ([`messages`],
//! the control of all that follows); what attackers make of it ([`attacks`]) is given to a clone of the node, and the whole node
//! is compared with what it was ([`core`]).

mod attacks;
mod core;
mod insiders;
mod messages;
mod settings;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use gist::wire::SessionId;
use pbs_nslp::datapath::Command;
use pbs_nslp::output::Output;
use pbs_nslp::wire::{MessageKind, NotifyCode};

use attacks::{Attack, Expected};
use core::{Core, Outcome};
use messages::{Content, Genuine};
use settings::{RECEIVER, ROUTER, Setting, bystander, sessions_of, states_of};

use crate::world::{Place, SENDER, flow};

const TABLES: [(Place, &str); 3] = [
    (SENDER, include_str!("../../../../fsm-specs/tables/pbs/sender.fsm")),
    (RECEIVER, include_str!("../../../../fsm-specs/tables/pbs/receiver.fsm")),
    (ROUTER, include_str!("../../../../fsm-specs/tables/pbs/router.fsm")),
];

/// A session that nobody knows.
const NOBODYS: SessionId = SessionId([0xee; 16]);

/// Whether the sender has no session of the message's: it looks at none of its Permissions then, not even whether they are good.
fn is_stray(setting: &Setting, genuine: &Genuine, session: SessionId) -> bool {
    let sessions = setting.world.sender.sessions();
    let is_live = sessions.iter().any(|live| live.flow == flow() && live.session == session && live.state != "Idle");
    genuine.place == SENDER && !is_live
}

/// Makes attacks on every node in every state, and gives how many were refused for which reason.
fn try_all(attacks: impl Fn(&Setting, &Genuine) -> Vec<Attack>) -> BTreeMap<Option<NotifyCode>, u32> {
    let mut reasons = BTreeMap::new();
    for setting in settings::all() {
        for genuine in messages::next(&setting) {
            let before = Core::of(&setting.world, genuine.place);
            let (unchanged, now) = (before.uncounted(), setting.world.now);
            for Attack { what, received, expected } in attacks(&setting, &genuine) {
                let told = format!("{}: {} to {}, {what}", setting.name, genuine.name, genuine.place);
                let outcome = before.given(received.clone(), now);
                if expected == Expected::Harmless {
                    let honest = before.given(genuine.received.clone(), now);
                    check_same(&outcome, &honest).unwrap_or_else(|difference| panic!("{told}: {difference}"));
                    continue;
                }
                outcome.check_nothing_changed(&unchanged, &received).unwrap_or_else(|wrong| panic!("{told}: {wrong}"));
                if let Expected::Code(code) = expected
                    && !(outcome.code().is_none() && is_stray(&setting, &genuine, received.session))
                {
                    assert_eq!(outcome.code(), Some(code), "{told}");
                }
                *reasons.entry(outcome.code()).or_default() += 1;
            }
        }
    }
    reasons
}

/// A message that says the same leads to the same.
fn check_same(outcome: &Outcome, honest: &Outcome) -> Result<(), String> {
    if outcome.after.sessions() != honest.after.sessions() || outcome.rules != honest.rules || outcome.refused != honest.refused {
        return Err(format!("{:?} {:?}", outcome.rules, outcome.refused));
    }
    if outcome.outputs == honest.outputs { Ok(()) } else { Err(format!("{:?}", outcome.outputs)) }
}

fn counted(reasons: &BTreeMap<Option<NotifyCode>, u32>) -> u32 {
    reasons.values().sum()
}

#[test]
fn every_state_of_every_machine_is_among_the_settings() {
    let all = settings::all();
    for (place, table) in TABLES {
        let line = |key: &str| table.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        // A transient state lasts as long as the event that leads there: no message can come in it.
        let transient = line("transient").split_whitespace().next();
        let states: BTreeSet<String> =
            line("states").split_whitespace().filter(|state| Some(*state) != transient).map(str::to_owned).collect();
        let reached = all.iter().flat_map(|setting| states_of(&setting.world, place, flow())).map(|state| state.replace(' ', ""));
        assert_eq!(reached.collect::<BTreeSet<_>>(), states, "at {place}");
        assert!(states.len() >= 3);
    }
}

#[test]
fn what_the_ends_say_next_is_taken_in_every_state() {
    // The control: nothing is refused that the attacks below start from, and each kind of message changes a node somewhere.
    let mut effective = BTreeSet::new();
    for setting in settings::all() {
        for genuine in messages::next(&setting) {
            let before = Core::of(&setting.world, genuine.place);
            let outcome = before.given(genuine.received.clone(), setting.world.now);
            assert!(outcome.refused.is_empty(), "{}: {} to {}: {:?}", setting.name, genuine.name, genuine.place, outcome.refused);
            if outcome.after.uncounted() != before.uncounted() {
                effective.insert((genuine.name, genuine.place));
            }
        }
    }
    for name in ["question", "refresh", "report without context", "release"] {
        assert!(effective.contains(&(name, ROUTER)) && effective.contains(&(name, RECEIVER)), "{name}: {effective:?}");
    }
    for name in ["grant or refresh", "new epoch", "denial", "advice to change the path"] {
        assert!(effective.contains(&(name, ROUTER)) && effective.contains(&(name, SENDER)), "{name}: {effective:?}");
    }
}

#[test]
fn no_change_of_a_message_on_its_way_changes_anything_in_any_state() {
    // INV-15, P-084, X-06, X-09, X-21: whoever has a router's certificate and no key of the ends.
    let reasons = try_all(|setting, genuine| {
        if genuine.is_notice() {
            return Vec::new();
        }
        // What others have said: of the same flow before, of the flow beside it, and of the other kind.
        let recorded = setting.world.recorded.iter().map(|transit| transit.received.payload.clone());
        let others = attacks::distinct(recorded);
        attacks::of_a_node_on_the_path(genuine, &others)
    });
    assert!(counted(&reasons) > 10_000, "{reasons:?}");
    for code in [
        NotifyCode::UnknownMessageType,
        NotifyCode::Malformed,
        NotifyCode::UnknownMandatoryObject,
        NotifyCode::ReservedTreatment,
        NotifyCode::MissingObject,
        NotifyCode::DuplicateObject,
        NotifyCode::BadValue,
        NotifyCode::FlowMismatch,
        NotifyCode::Signature,
        NotifyCode::Certificate,
        NotifyCode::Stale,
    ] {
        assert!(reasons.contains_key(&Some(code)), "{code:?} is a reason that occurs: {reasons:?}");
    }
}

#[test]
fn no_message_in_another_place_than_its_own_changes_anything_in_any_state() {
    // P-007, X-13, X-21, X-76, P-087: another session, flow, direction or application, or no association.
    let reasons = try_all(|setting, genuine| {
        let of_bystander = setting.world.sender.sessions().into_iter().filter(|session| session.flow == bystander());
        let sessions: Vec<SessionId> = of_bystander.map(|session| session.session).chain([NOBODYS]).collect();
        attacks::moved(genuine, &sessions)
    });
    assert!(counted(&reasons) > 1000, "{reasons:?}");
}

#[test]
fn no_message_signed_by_anybody_but_its_owner_changes_anything_in_any_state() {
    // P-039, P-071, P-094, X-78: with a certificate for another address, the owner's certificate without its key, or the other end's.
    let reasons = try_all(|setting, genuine| {
        let sessions = Core::of(&setting.world, genuine.place).sessions().into_iter().filter(|session| session.flow == flow());
        let is_held = match &genuine.content {
            Content::Query(_) => sessions.count() > 0,
            Content::Permission(_) => sessions.into_iter().any(|session| session.permission.is_some() || session.state == "Releasing"),
            Content::Notice => false,
        };
        attacks::signed_by_others(genuine, is_held)
    });
    for code in [NotifyCode::Certificate, NotifyCode::Signature, NotifyCode::LocalPolicy] {
        assert!(reasons.get(&Some(code)).is_some_and(|count| *count >= 20), "{reasons:?}");
    }
}

#[test]
fn no_message_out_of_its_time_changes_anything_in_any_state() {
    // P-049.
    let reasons = try_all(|setting, genuine| attacks::out_of_time(genuine, u32::try_from(setting.world.unix()).unwrap()));
    assert!(reasons.get(&Some(NotifyCode::Stale)).is_some_and(|count| *count > 200), "{reasons:?}");
}

#[test]
fn no_message_that_was_taken_once_changes_anything_in_any_state() {
    // P-047, FN-30, TMP-10: everything that was ever delivered, once more, by the same neighbour.
    let mut replayed = 0;
    for setting in settings::all() {
        for transit in setting.world.delivered.iter().filter(|transit| transit.kind() != MessageKind::Notify) {
            let before = Core::of(&setting.world, transit.to);
            let outcome = before.given(transit.received.clone(), setting.world.now);
            outcome
                .check_nothing_changed(&before.uncounted(), &transit.received)
                .unwrap_or_else(|wrong| panic!("{}: {:?} replayed at {}: {wrong}", setting.name, transit.kind(), transit.to));
            replayed += 1;
        }
    }
    assert!(replayed > 100, "{replayed}");
}

#[test]
fn a_message_for_another_part_is_ignored_and_counted_in_any_state() {
    // A Query is nothing to a sender, a Permission or a notice nothing to a receiver.
    let (mut ignored, mut seen) = (0, BTreeSet::new());
    for setting in settings::all() {
        for genuine in messages::next(&setting) {
            let place = if attacks::downstream(&genuine) { SENDER } else { RECEIVER };
            let before = Core::of(&setting.world, place);
            let outcome = before.given(genuine.received.clone(), setting.world.now);
            outcome
                .check_nothing_changed(&before.uncounted(), &genuine.received)
                .unwrap_or_else(|wrong| panic!("{}: {} at {place}: {wrong}", setting.name, genuine.name));
            assert!(outcome.outputs.is_empty());
            ignored += outcome.ignored;
            seen.insert(genuine.name);
        }
    }
    assert!(ignored > 500 && seen.len() == 9, "{ignored} {seen:?}");
}

#[test]
fn no_notice_changes_a_permission_or_is_answered_in_any_state() {
    // P-206, X-28, INV-06: notices are not signed, so that whoever is on the path says what he likes. All that follows is a Query.
    let mut passed_on = 0;
    for setting in settings::all() {
        for genuine in messages::next(&setting).into_iter().filter(Genuine::is_notice) {
            let before = Core::of(&setting.world, genuine.place);
            for received in notices(&genuine) {
                let told = || format!("{}: notice at {}: {:02x?}", setting.name, genuine.place, &received.payload[..]);
                let outcome = before.given(received.clone(), setting.world.now);
                let is_read = outcome.refused.is_empty();
                if genuine.place == ROUTER {
                    assert_eq!(outcome.after.uncounted(), before.uncounted(), "{}", told());
                    let sent: Vec<&Bytes> = outcome.sent().map(|message| &message.payload).collect();
                    if received.payload.first() == Some(&MessageKind::Notify.number()) {
                        assert!(sent.is_empty() || (is_read && sent == [&received.payload]), "{}", told());
                        passed_on += sent.len();
                    }
                    continue;
                }
                let status = |core: &Core| {
                    let sessions = core.sessions().into_iter();
                    sessions
                        .map(|session| (session.flow, session.session, session.state, session.permission, session.path))
                        .collect::<Vec<_>>()
                };
                assert_eq!(status(&outcome.after), status(&before), "{}", told());
                for output in &outcome.outputs {
                    let is_question = match output {
                        Output::Send(message) => message.payload.first() == Some(&MessageKind::Query.number()),
                        Output::Datapath(command) => matches!(command, Command::Snapshot { .. }),
                        Output::Report(_) | Output::DoubtPeer { .. } => true,
                        Output::SetStateLifetime { .. } | Output::AdoptPeer { .. } | Output::SetPeering { .. } | Output::Ask(_) => false,
                    };
                    assert!(is_question, "{}: {output:?}", told());
                }
                assert!(outcome.sent().count() <= 1, "{}", told());
            }
        }
    }
    assert!(passed_on > 500, "{passed_on}");
}

/// The notice, and every change of one of its bits.
fn notices(genuine: &Genuine) -> Vec<gist::api::ReceivedMessage> {
    let mut all = vec![genuine.received.clone()];
    for at in 0..genuine.received.payload.len() {
        let mut payload = genuine.received.payload.to_vec();
        payload[at] ^= 1 << (at % 8);
        all.push(gist::api::ReceivedMessage { payload: payload.into(), ..genuine.received.clone() });
    }
    all
}

#[test]
fn the_sessions_that_are_attacked_are_those_that_there_are() {
    // A setting in which two sessions of the flow exist is attacked in both.
    let all = settings::all();
    let most = all.iter().map(|setting| sessions_of(&setting.world, ROUTER).len()).max();
    assert_eq!(most, Some(2));
}
