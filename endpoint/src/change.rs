//! `pbs change`: what the receiver of a flow changes in its permission without being asked (FR-17, FR-18).

use std::time::Duration;

use clap::Args;
use daemon::config::Span;
use daemon::control::Request;
use gist::time::Instant;
use pbs_nslp::host::Host;
use pbs_nslp::receiver::{Change, Strength};
use pbs_nslp::wire::Volume;
use serde_json::{Map, Value, json};

use crate::config::{REFRESH_LEAST, REFRESH_MOST, TTL_MOST};

/// What is to change; at least one.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Changes {
    /// Bytes allowed in all since the permission (or its present key) began, more or less than up to now. Below what has been counted
    /// nothing more passes, and the sender gives up; what is in flight is dropped.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    volume: Option<u64>,
    /// Bytes that the flow may have in all within the time limit; without it as much as --volume says.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// How long the permission lives from now on, such as 10min; up to 24h.
    #[arg(long, value_name = "TIME")]
    ttl: Option<Span>,
    /// How often the sender has to refresh it, 5s to 1h.
    #[arg(long, value_name = "TIME")]
    refresh: Option<Span>,
    /// A fresh key, without a break: packets under the old one pass for two seconds more.
    #[arg(long)]
    rekey: bool,
    /// From now on the sender signs each packet with the key of its certificate. There is no way back as long as the flow lives.
    #[arg(long)]
    sign: bool,
}

impl Changes {
    /// The fields of the request to the daemon.
    pub(crate) fn write(&self, fields: &mut Map<String, Value>) {
        let milliseconds = |span: Span| u64::try_from(span.0.as_millis()).unwrap_or(u64::MAX);
        let numbers = [
            ("volume", self.volume),
            ("limit", self.limit),
            ("ttl_ms", self.ttl.map(milliseconds)),
            ("refresh_ms", self.refresh.map(milliseconds)),
        ];
        for (field, number) in numbers {
            number.map(|number| fields.insert(field.to_owned(), number.into()));
        }
        fields.insert("rekey".to_owned(), self.rekey.into());
        fields.insert("sign".to_owned(), self.sign.into());
    }
}

/// Carries the request out.
pub(crate) fn carry_out(host: &mut Host, request: &Request, now: Instant) -> Result<Value, String> {
    let flow = request.flow()?;
    let change = change(&request.body)?;
    let says = |field: &str| request.body.get(field).and_then(Value::as_bool).unwrap_or(false);
    let strength = if says("sign") { Some(Strength::Signed) } else { says("rekey").then_some(Strength::Same) };
    if change == Change::default() && strength.is_none() {
        return Err("the request changes nothing".to_owned());
    }
    let none = || format!("{flow} has no permission of this host");
    let sessions = host.receiver().sessions();
    let session = sessions.iter().find(|session| session.flow == flow && session.permission.is_some()).ok_or_else(none)?;
    let period = change.refresh.or_else(|| session.permission.as_ref().map(|permission| permission.refresh));
    if change.ttl.zip(period).is_some_and(|(ttl, period)| ttl < period) {
        return Err("the time limit must not be shorter than the refresh period".to_owned());
    }
    if change != Change::default() && !host.amend(flow, change, now) {
        return Err(none());
    }
    match strength {
        Some(strength) if !host.rekey(flow, strength, now) => Err(format!("{flow}: its sender has no key that packets can be signed with")),
        _ => Ok(json!({ "changed": flow.to_string() })),
    }
}

pub(crate) fn change(body: &Value) -> Result<Change, String> {
    let number = |field: &str| match body.get(field) {
        None => Ok(None),
        Some(value) => value.as_u64().filter(|number| *number > 0).map(Some).ok_or(format!("{field} is not a number above 0")),
    };
    let time = |field: &str, least: Duration, most: Duration| {
        let time = number(field)?.map(Duration::from_millis);
        match time {
            Some(time) if !(least..=most).contains(&time) => Err(format!("{field} must lie between {least:?} and {most:?}")),
            time => Ok(time),
        }
    };
    let change = Change {
        volume: number("volume")?.map(Volume),
        limit: number("limit")?.map(Volume),
        ttl: time("ttl_ms", REFRESH_LEAST, TTL_MOST)?,
        refresh: time("refresh_ms", REFRESH_LEAST, REFRESH_MOST)?,
    };
    match (change.volume, change.limit) {
        (Some(volume), Some(limit)) if limit < volume => Err("the limit is less than the volume".to_owned()),
        _ => Ok(change),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_would_end_the_permission_or_says_nonsense_is_refused() {
        let refused = [
            json!({ "volume": 0 }),
            json!({ "volume": "much" }),
            json!({ "volume": 10, "limit": 9 }),
            json!({ "refresh_ms": 4999 }),
            json!({ "ttl_ms": 86_400_001 }),
        ];
        for body in refused {
            assert!(change(&body).is_err(), "{body}");
        }
        let volume = change(&json!({ "volume": 5_000_000_000_u64, "rekey": true })).unwrap();
        assert_eq!(volume, Change { volume: Some(Volume(5_000_000_000)), ..Change::default() });
    }
}
