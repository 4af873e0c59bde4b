//! A node over some time: inputs of every kind in any order, each of which alone may be a good one.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use gist::api::{AssociationId, Indication, Request, RoutingStatus};
use gist::node::{AssociationEvent, Node, Output};
use gist::time::Instant;
use gist::wire::{Direction, NslpId};

use super::node::goes_on;
use super::nodes::{ADDRESSES, APPLICATION, Input, SESSION, SETTINGS, STRANGER, Setting, credentials, drained, flow, send, setting};
use crate::fuzz::mark;

/// Steps of one conversation, at most, and octets of each.
const STEPS: usize = 48;
const STEP: usize = 4;

/// Each state, and some steps from it.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let steps = |number: u8| (0..8).flat_map(move |step: u8| [step, number.wrapping_add(step), step, 0]);
    (0..SETTINGS.len().min(64)).map(|number| std::iter::once(number as u8).chain(steps(number as u8)).collect()).collect()
}

/// Whatever comes in whatever order: the same each time, never more than an input may cause, no timer that is due again at once, and
/// nothing grows by more than one for each input.
pub(super) fn take(input: &[u8]) -> u64 {
    let Some((number, steps)) = input.split_first() else { return 0 };
    let (one, kind) = played(setting(*number), steps);
    let (other, _) = played(setting(*number), steps);
    assert!(one == other, "not the same the second time");
    kind
}

fn played(setting: &Setting, steps: &[u8]) -> (Node, u64) {
    let (mut node, mut now) = (setting.node.clone(), setting.now);
    let most = [node.routing_table().len() + STEPS, node.associations().len() + STEPS];
    let mut kinds = Vec::new();
    for step in steps.chunks_exact(STEP).take(STEPS) {
        let [kind, which, place, change] = [0, 1, 2, 3].map(|at| step.get(at).copied().unwrap_or_default());
        match kind % 8 {
            0 => now = pass(&mut node, now, Duration::from_millis(u64::from(which) << (place % 10))),
            1 | 2 => recorded(&mut node, setting.number, now, which, place, change),
            3 => node.handle_request(request(which, place), now),
            4 => accept(&mut node, now, which),
            _ => association_event(&mut node, now, kind, which),
        }
        let outputs = drained(&mut node);
        kinds.push(outputs.iter().map(std::mem::discriminant).collect::<Vec<_>>());
        assert!(!outputs.iter().any(is_for_nobody), "{outputs:?}");
    }
    let grown = [node.routing_table().len(), node.associations().len()];
    assert!(grown.iter().zip(most).all(|(now, most)| *now <= most), "{grown:?} grown beyond {most:?}");
    let kind = mark(&(setting.number, kinds));
    goes_on(node.clone(), now);
    (node, kind)
}

/// Time goes on, and what is due is done when it is.
fn pass(node: &mut Node, now: Instant, span: Duration) -> Instant {
    let end = now + span;
    let mut at = now;
    while let Some(due) = node.poll_timeout().filter(|due| *due <= end) {
        at = at.max(due);
        node.handle_timeout(at);
        drained(node);
        assert!(node.poll_timeout().is_none_or(|next| next > at), "due again at once");
    }
    end
}

/// Something that came to this node or the other one once, perhaps with one octet changed.
fn recorded(node: &mut Node, number: usize, now: Instant, which: u8, place: u8, change: u8) {
    let changed = |bytes: &Bytes| {
        let mut bytes = bytes.to_vec();
        let at = usize::from(place) * bytes.len() / 256;
        if let Some(octet) = bytes.get_mut(at) {
            *octet ^= change;
        }
        Bytes::from(bytes)
    };
    let own: Vec<_> = SETTINGS.iter().filter(|setting| setting.number == number).collect();
    let Some(input) = own.get(usize::from(which) % own.len().max(1)).map(|setting| setting.input.clone()) else { return };
    match input {
        Input::Datagram(mut datagram) => {
            datagram.payload = changed(&datagram.payload);
            if change == 1 {
                datagram.source = SocketAddr::new(STRANGER, datagram.source.port());
            }
            node.handle_datagram(datagram, now);
        }
        Input::Association(_, AssociationEvent::Received(message)) => {
            if let Some(association) = named(node, place) {
                node.handle_association(association, AssociationEvent::Received(changed(&message)), now);
            }
        }
        Input::Association(association, event) => node.handle_association(association, event, now),
    }
}

fn request(which: u8, place: u8) -> Request {
    let (nslp_id, session) = (NslpId(APPLICATION), SESSION);
    let mri = flow(if place & 1 == 0 { Direction::Downstream } else { Direction::Upstream });
    match which % 6 {
        0 => send(place & 1 != 0, false),
        1 => send(place & 1 != 0, true),
        2 => Request::SetStateLifetime { nslp_id, session, mri, lifetime: Duration::from_secs(u64::from(place)) },
        3 => Request::InvalidateRoutingState { nslp_id, session, mri, status: RoutingStatus::Bad, urgent: place & 2 != 0 },
        4 => Request::InvalidateRoutingState { nslp_id, session, mri, status: RoutingStatus::Tentative, urgent: place & 2 != 0 },
        _ => Request::SetPeering { nslp_id, willing: place & 2 != 0 },
    }
}

fn accept(node: &mut Node, now: Instant, which: u8) {
    let association = node.accept_id();
    let [asker, answerer] = ADDRESSES;
    let from = match which % 3 {
        0 => asker,
        1 => answerer,
        _ => STRANGER,
    };
    let peer_address = SocketAddr::new(from, 40_000);
    let event = if which & 4 == 0 {
        AssociationEvent::Accepted { peer_address, credentials: credentials(usize::from(which) % 3) }
    } else {
        AssociationEvent::AcceptedUnprotected { peer_address }
    };
    node.handle_association(association, event, now);
}

fn association_event(node: &mut Node, now: Instant, kind: u8, which: u8) {
    let Some(association) = named(node, which) else { return };
    let event = match (kind % 8, which & 3) {
        (5, 0 | 1) => AssociationEvent::Connected { credentials: credentials(usize::from(which >> 2) % 3) },
        (5, _) => AssociationEvent::ConnectedUnprotected,
        (6, 0) => AssociationEvent::Closed,
        (6, _) => AssociationEvent::Failed("it broke".to_owned()),
        _ => AssociationEvent::Written { bytes: usize::from(which) * 64 },
    };
    node.handle_association(association, event, now);
}

/// One of the associations that there are.
fn named(node: &Node, which: u8) -> Option<AssociationId> {
    let all = node.associations();
    all.get(usize::from(which) % all.len().max(1)).map(|entry| entry.association)
}

/// A message is handed up for an application that is not here.
fn is_for_nobody(output: &Output) -> bool {
    matches!(output, Output::Indicate(Indication::Received(message)) if message.nslp_id != NslpId(APPLICATION))
}
