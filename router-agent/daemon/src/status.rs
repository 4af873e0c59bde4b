//! What a daemon shows of itself, as JSON with stable names.

use std::collections::BTreeMap;

use gist::io::Snapshot;
use gist::time::Instant;
use pbs_nslp::fair_queue::FairQueue;
use pbs_nslp::node::Counters;
use pbs_nslp::status::SessionStatus;
use serde_json::{Value, json};

/// One session with its permission, as `flows` shows it. Volumes are bytes.
/// `way` is where the flow goes as seen from this node: `out`, `in` or `through`.
pub fn session(status: &SessionStatus, way: &str, now: Instant) -> Value {
    let flow = status.flow;
    let permission = status.permission.as_ref();
    let ttl = permission.and_then(|permission| permission.expires_at).map(|end| end.saturating_duration_since(now).as_millis());
    let again = status.asks_again_at.map(|end| end.saturating_duration_since(now).as_millis());
    json!({
        "flow": {
            "source": flow.source,
            "destination": flow.destination,
            "protocol": flow.protocol,
            "source_port": flow.source_port,
            "destination_port": flow.destination_port,
        },
        "direction": way,
        "session": status.session.to_string(),
        "state": status.state,
        "path": status.path.0,
        "spi": permission.map(|permission| format!("{:#010x}", permission.spi)),
        "allowed": permission.map(|permission| permission.allowed.0),
        "counted": permission.map(|permission| permission.counted.0),
        "ttl_ms": ttl.and_then(|milliseconds| u64::try_from(milliseconds).ok()),
        "refresh_ms": permission.and_then(|permission| u64::try_from(permission.refresh.as_millis()).ok()),
        "algorithm": permission.map(|permission| permission.algorithm),
        "why": status.why,
        "ask_again_ms": again.and_then(|milliseconds| u64::try_from(milliseconds).ok()),
    })
}

/// Messages of peers that wait to be checked, what they take up, and how many there was no room for.
pub fn waiting(queue: &FairQueue) -> Value {
    json!({ "messages": queue.len(), "octets": queue.octets(), "turned_away": queue.turned_away() })
}

/// Routing state, messaging associations and counters, as `gist` shows them.
pub fn gist(snapshot: &Snapshot) -> Value {
    let routing: Vec<Value> = snapshot
        .routing
        .iter()
        .map(|entry| {
            json!({
                "side": format!("{:?}", entry.side).to_lowercase(),
                "nslp_id": entry.nslp_id.0,
                "session": entry.session.to_string(),
                "state": entry.state,
                "peer_address": entry.peer_address,
                "second_peer": entry.second_peer.is_some(),
                "association": entry.association.map(|association| association.0),
                "queued": entry.queued,
            })
        })
        .collect();
    let associations: Vec<Value> = snapshot
        .associations
        .iter()
        .map(|entry| {
            json!({
                "association": entry.association.0,
                "state": entry.state,
                "remote": entry.remote.to_string(),
                "subject": entry.subject,
                "opened_here": entry.opened_here,
                "users": entry.users,
            })
        })
        .collect();
    json!({ "routing": routing, "associations": associations, "counters": gist_counters(snapshot) })
}

/// What GIST counted: what came and went, then what was refused and why, then what happened around the node.
fn gist_counters(snapshot: &Snapshot) -> Value {
    let (node, shell) = (&snapshot.counters, &snapshot.shell);
    json!({
        "datagrams_received": node.datagrams_received,
        "datagrams_sent": node.datagrams_sent,
        "association_messages_received": node.association_messages_received,
        "association_messages_sent": node.association_messages_sent,
        "queries_sent": node.queries_sent,
        "responses_sent": node.responses_sent,
        "errors_sent": node.errors_sent,
        "errors_received": node.errors_received,
        "messages_delivered": node.messages_delivered,
        "no_magic": node.no_magic,
        "malformed": node.malformed,
        "refused": node.refused.by_word().collect::<BTreeMap<_, _>>(),
        "hop_count_zero": node.hop_count_zero,
        "wrong_encapsulation": node.wrong_encapsulation,
        "unknown_nslp_id": node.unknown_nslp_id,
        "passed_by": node.passed_by,
        "not_passed_by": node.not_passed_by,
        "stray": node.stray,
        "unanswerable": node.unanswerable,
        "long_query_cookies": node.long_query_cookies,
        "bad_query_cookies": node.bad_query_cookies,
        "stale_responder_cookies": node.stale_responder_cookies,
        "bad_responder_cookies": node.bad_responder_cookies,
        "altered_proposals": node.altered_proposals,
        "address_mismatch": node.address_mismatch,
        "unprotected": node.unprotected,
        "wrong_association": node.wrong_association,
        "no_routing_state": node.no_routing_state,
        "not_authorised": node.not_authorised,
        "flows_refused": node.flows_refused,
        "takeovers_refused": node.takeovers_refused,
        "upstream_queries_refused": node.upstream_queries_refused,
        "endpoints_found": node.endpoints_found,
        "refused_when_full": node.refused_when_full,
        "idle_displaced": node.idle_displaced,
        "unconfirmed_displaced": node.unconfirmed_displaced,
        "unconfirmed_ended": node.unconfirmed_ended,
        "misused_ended": node.misused_ended,
        "opens_refused": node.opens_refused,
        "stacks_refused": node.stacks_refused,
        "responses_refused": node.responses_refused,
        "answered_elsewhere": node.answered_elsewhere,
        "withheld": node.withheld,
        "rate_delayed": node.rate_delayed,
        "rate_dropped": node.rate_dropped,
        "intercepted": shell.intercepted,
        "datagrams_unusable": shell.datagrams_unusable,
        "datagrams_overflowed": shell.datagrams_overflowed,
        "receive_errors": shell.receive_errors,
        "send_errors": shell.send_errors,
        "query_mode_errors": shell.query_mode_errors,
        "indications_dropped": shell.indications_dropped,
        "writes_stalled": shell.writes_stalled,
        "streams_unreadable": shell.streams_unreadable,
        "messages_unfinished": shell.messages_unfinished,
        "handshakes_refused": shell.handshakes_refused,
        "handshakes_displaced": shell.handshakes_displaced,
        "handshakes_failed": shell.handshakes_failed,
    })
}

/// What an NSLP core counted, rows of its table by rule.
pub fn counters(counters: &Counters) -> Value {
    let refused: serde_json::Map<String, Value> =
        counters.refused.iter().map(|(code, count)| (format!("{code:?}"), (*count).into())).collect();
    let findings = counters.findings.iter().map(|(test, of)| (test.clone(), json!({ "times": of.times, "last": of.last })));
    let findings: serde_json::Map<String, Value> = findings.collect();
    json!({
        "rules": counters.rules,
        "not_acted_upon": counters.not_acted_upon,
        "refused": refused,
        "refused_silently": counters.refused_silently,
        "distrusted": counters.distrusted,
        "findings": findings,
        "ignored": counters.ignored,
    })
}
