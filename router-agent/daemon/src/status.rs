//! What a daemon shows of itself, as JSON with stable names.

use gist::io::Snapshot;
use gist::time::Instant;
use pbs_nslp::node::Counters;
use pbs_nslp::status::SessionStatus;
use serde_json::{Value, json};

/// One session with its permission, as `flows` shows it. Volumes are bytes.
pub fn session(status: &SessionStatus, now: Instant) -> Value {
    let flow = status.flow;
    let permission = status.permission.as_ref();
    let ttl = permission.and_then(|permission| permission.expires_at).map(|end| end.saturating_duration_since(now).as_millis());
    json!({
        "flow": {
            "source": flow.source,
            "destination": flow.destination,
            "protocol": flow.protocol,
            "source_port": flow.source_port,
            "destination_port": flow.destination_port,
        },
        "session": status.session.to_string(),
        "state": status.state,
        "spi": permission.map(|permission| format!("{:#010x}", permission.spi)),
        "allowed": permission.map(|permission| permission.allowed.0),
        "counted": permission.map(|permission| permission.counted.0),
        "ttl_ms": ttl.and_then(|milliseconds| u64::try_from(milliseconds).ok()),
        "refresh_ms": permission.and_then(|permission| u64::try_from(permission.refresh.as_millis()).ok()),
        "algorithm": permission.map(|permission| permission.algorithm),
    })
}

/// Routing state and messaging associations, as `gist` shows them.
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
    json!({ "routing": routing, "associations": associations })
}

/// What an NSLP core counted, rows of its table by rule.
pub fn counters(counters: &Counters) -> Value {
    let refused: serde_json::Map<String, Value> =
        counters.refused.iter().map(|(code, count)| (format!("{code:?}"), (*count).into())).collect();
    json!({ "rules": counters.rules, "not_acted_upon": counters.not_acted_upon, "refused": refused, "ignored": counters.ignored })
}
