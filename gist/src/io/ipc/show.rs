//! What the node knows, as JSON.

use serde_json::{Value, json};

use super::PAGE;
use super::line::{Event, Transport, What};
use super::mri::Method;
use crate::io::{Handle, Stopped};
use crate::node::{AssociationEntry, RoutingEntry, Side};
use crate::time::Instant;

/// What the node knows, from an entry on: a list of objects, or for the counters one object.
///
/// # Errors
///
/// The node has ended.
pub async fn shown(id: Option<u64>, what: What, from: usize, gist: &Handle) -> Result<Event, Stopped> {
    let snapshot = gist.page(from, PAGE).await?;
    let (content, total) = match what {
        What::Routing => (snapshot.routing.iter().map(|entry| routing(entry, snapshot.now)).collect(), snapshot.routing_total),
        What::Associations => {
            (snapshot.associations.iter().map(|entry| association(entry, snapshot.now)).collect(), snapshot.associations_total)
        }
        What::Counters => (json!({ "node": snapshot.counters, "shell": snapshot.shell }), 1),
    };
    let next = from.saturating_add(PAGE);
    Ok(Event::Shown { id, what, content, total, next: (next < total).then_some(next) })
}

fn routing(entry: &RoutingEntry, now: Instant) -> Value {
    json!({
        "side": match entry.side { Side::Querying => "querying", Side::Responding => "responding" },
        "nslp_id": entry.nslp_id.0,
        "session": entry.session.to_string(),
        "mri": Method::from(&entry.mri),
        "state": entry.state,
        "peer": entry.peer.as_ref().map(ToString::to_string),
        "peer_address": entry.peer_address,
        "association": entry.association.map(|association| association.0),
        "datagram_port": entry.datagram_port,
        "ip_distance": entry.ip_distance,
        "valid_for": entry.valid_until.map(|until| milliseconds(until.saturating_duration_since(now))),
        "queued": entry.queued,
        "second_peer": entry.second_peer.as_ref().map(ToString::to_string),
    })
}

fn association(entry: &AssociationEntry, now: Instant) -> Value {
    json!({
        "association": entry.association.0,
        "opened_here": entry.opened_here,
        "state": entry.state,
        "remote": entry.remote,
        "transport": Transport::from(entry.transport),
        "peer": entry.peer.as_ref().map(ToString::to_string),
        "subject": entry.subject,
        "users": entry.users,
        "silent_for": milliseconds(now.saturating_duration_since(entry.last_heard)),
    })
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
