//! The host's signalling core as the daemon's loop drives it.

use std::net::IpAddr;
use std::time::Duration;

use daemon::control::Request;
use daemon::datapath::NarrowPath;
use daemon::drive::{Core, Direction};
use daemon::flows::Row;
use daemon::status;
use gist::api::Indication;
use gist::time::Instant;
use pbs_nslp::datapath::{Command, Event};
use pbs_nslp::fair_queue::FairQueue;
use pbs_nslp::flow::FlowId;
use pbs_nslp::host::{Host, Part};
use pbs_nslp::output::Output;
use pbs_nslp::wire::Volume;
use serde_json::{Map, Value, json};

use crate::change;
use crate::paths::Paths;
use crate::{relay, short_way};

/// Flows refused after a revocation that `status` names; it counts all.
const REFUSED_SHOWN: usize = 32;

/// The place of the worker for what leaves.
const OUTBOUND: Direction = 0;
/// The place of the worker for what arrives.
const INBOUND: Direction = 1;

/// A host under its name.
pub(crate) struct HostCore {
    pub(crate) name: String,
    pub(crate) host: Host,
    /// Messages that wait to be checked.
    pub(crate) waiting: FairQueue,
    pub(crate) paths: Paths,
    pub(crate) relay: Option<relay::Shown>,
    /// By which way packets come.
    pub(crate) datapath: short_way::Shown,
}

impl Core for HostCore {
    fn handle_indication(&mut self, indication: Indication, now: Instant) {
        match indication {
            Indication::Received(received) => self.waiting.push(received).iter().for_each(|gone| self.host.turn_away(gone)),
            other => self.host.handle_gist(other, now),
        }
    }

    fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn work(&mut self, now: Instant) {
        if let Some(turn) = self.waiting.pop() {
            self.host.handle_gist(Indication::Received(turn.message), now);
            self.waiting.charge(&turn.account, self.host.take_cost());
        }
    }

    fn handle_datapath(&mut self, direction: Direction, event: Event, now: Instant) {
        let part = if direction == OUTBOUND { Part::Sender } else { Part::Receiver };
        self.host.handle_datapath(part, event, now);
    }

    fn narrow(&mut self, path: NarrowPath, now: Instant) {
        self.paths.narrow(path, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.paths.look(&mut self.host, now);
        self.host.handle_timeout(now);
    }

    fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        self.host.set_wall_clock(unix_seconds, now);
    }

    fn reconsider_certificates(&mut self, now: Instant) {
        self.host.reconsider_certificates(now);
    }

    fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.host.set_addresses(&addresses);
    }

    fn shut_down(&mut self, now: Instant) {
        self.host.shutdown(now);
    }

    fn poll_output(&mut self) -> Option<(Direction, Output)> {
        let (part, output) = self.host.poll_output()?;
        if let Output::Datapath(Command::Route { flow, path, .. }) = &output {
            // The way first, then the packets.
            self.paths.route(*flow, *path);
        }
        Some((if part == Part::Sender { OUTBOUND } else { INBOUND }, output))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.host.poll_timeout(), self.paths.poll_timeout()].into_iter().flatten().min()
    }

    fn flows(&self, now: Instant) -> Vec<Row> {
        let sent = self.host.sender().sessions().into_iter().map(|session| Row::new(OUTBOUND, "out", session, now));
        let received = self.host.receiver().sessions().into_iter().map(|session| Row::new(INBOUND, "in", session, now));
        sent.chain(received).collect()
    }

    fn counters(&self) -> Map<String, Value> {
        self.relay.iter().map(|relay| ("relay".to_owned(), relay.counters())).collect()
    }

    fn answer(&mut self, request: &Request, now: Instant) -> Result<Value, String> {
        match request.command() {
            "status" => Ok(json!({
                "name": self.name,
                "role": "host",
                "waiting": status::waiting(&self.waiting),
                "datapath": self.datapath.show(),
                "paths": self.paths.show(),
                "relay": self.relay.as_ref().map(relay::Shown::status),
                "sending": { "sessions": self.host.sender().sessions().len(), "nslp": status::counters(self.host.sender().counters()) },
                "receiving": {
                    "sessions": self.host.receiver().sessions().len(),
                    "nslp": status::counters(self.host.receiver().counters()),
                    "refused_after_revocation": self.refused(now),
                },
            })),
            "request" => {
                let volume = request.body.get("volume").and_then(Value::as_u64).ok_or("the request names no volume")?;
                let flow = request.flow()?;
                let sessions = self.host.sender().sessions();
                let before = sessions.iter().find(|session| session.flow == flow).and_then(|session| session.permission.as_ref());
                let allowed = before.map(|permission| permission.allowed.0);
                self.host.want(flow, Volume(volume), now).map_err(|error| format!("{flow}: {error}"))?;
                Ok(json!({ "asked": flow.to_string(), "allowed": allowed }))
            }
            "release" => {
                let flow = request.flow()?;
                if !self.host.sender().sessions().iter().any(|session| session.flow == flow) {
                    return Err(format!("{flow} has no session here"));
                }
                self.host.release(flow, now);
                Ok(json!({ "released": flow.to_string() }))
            }
            "revoke" => {
                let flow = request.flow()?;
                let revoked = self.host.revoke(flow, now);
                let refused = self.refused_for(&flow, now);
                let then = match refused {
                    Some(seconds) => {
                        format!("refused for {seconds} s whatever the rules grant; `pbs revoke --lift` with the same flow ends that")
                    }
                    None => "not refused from now on, too many flows are: the rules decide about its next Query".to_owned(),
                };
                tracing::info!(%flow, held = revoked, "revoked by request: {then}");
                if !revoked {
                    return Err(format!("{flow} has no permission of this host; {then}"));
                }
                Ok(json!({ "revoked": flow.to_string(), "refused_for_s": refused, "then": then }))
            }
            "lift" => {
                let flow = request.flow()?;
                if !self.host.lift(&flow, now) {
                    return Err(format!("{flow} is not refused because of a revocation"));
                }
                tracing::info!(%flow, "no longer refused by request: the rules decide about its next Query");
                Ok(json!({ "lifted": flow.to_string(), "then": "the rules decide about its next Query" }))
            }
            "change" => change::carry_out(&mut self.host, request, now),
            other => Err(format!("unknown command `{other}`")),
        }
    }
}

impl HostCore {
    /// Seconds for which a flow is refused because it was revoked, rounded up.
    fn refused_for(&self, flow: &FlowId, now: Instant) -> Option<u64> {
        self.host.receiver().refused(now).find(|(refused, _)| refused == flow).map(|(_, rest)| whole_seconds(rest))
    }

    /// How many flows are refused because they were revoked, and the first of them.
    fn refused(&self, now: Instant) -> Value {
        let shown = self.host.receiver().refused(now).take(REFUSED_SHOWN);
        let first: Map<String, Value> = shown.map(|(flow, rest)| (flow.to_string(), format!("{} s", whole_seconds(rest)).into())).collect();
        json!({ "flows": self.host.receiver().refused(now).count(), "first": first })
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
