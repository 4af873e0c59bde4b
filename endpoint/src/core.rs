//! The host's signalling core as the daemon's loop drives it.

use std::net::IpAddr;

use daemon::control::Request;
use daemon::drive::{Core, Direction};
use daemon::flows::Row;
use daemon::status;
use gist::api::Indication;
use gist::time::Instant;
use pbs_nslp::datapath::Event;
use pbs_nslp::flow::FlowId;
use pbs_nslp::host::{Host, Part};
use pbs_nslp::output::Output;
use pbs_nslp::wire::Volume;
use serde_json::{Value, json};

/// The place of the worker for what leaves.
const OUTBOUND: Direction = 0;
/// The place of the worker for what arrives.
const INBOUND: Direction = 1;

/// A host under its name.
pub(crate) struct HostCore {
    pub(crate) name: String,
    pub(crate) host: Host,
}

impl Core for HostCore {
    fn handle_indication(&mut self, indication: Indication, now: Instant) {
        self.host.handle_gist(indication, now);
    }

    fn handle_datapath(&mut self, direction: Direction, event: Event, now: Instant) {
        let part = if direction == OUTBOUND { Part::Sender } else { Part::Receiver };
        self.host.handle_datapath(part, event, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.host.handle_timeout(now);
    }

    fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        self.host.set_wall_clock(unix_seconds, now);
    }

    fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.host.set_addresses(&addresses);
    }

    fn shut_down(&mut self, now: Instant) {
        self.host.shutdown(now);
    }

    fn poll_output(&mut self) -> Option<(Direction, Output)> {
        let (part, output) = self.host.poll_output()?;
        Some((if part == Part::Sender { OUTBOUND } else { INBOUND }, output))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.host.poll_timeout()
    }

    fn flows(&self, now: Instant) -> Vec<Row> {
        let sent = self.host.sender().sessions();
        let sent = sent.iter().map(|session| Row::new(OUTBOUND, session, now));
        let received = self.host.receiver().sessions();
        sent.chain(received.iter().map(|session| Row::new(INBOUND, session, now))).collect()
    }

    fn answer(&mut self, request: &Request, now: Instant) -> Result<Value, String> {
        match request.command() {
            "status" => Ok(json!({
                "name": self.name,
                "role": "host",
                "sending": { "sessions": self.host.sender().sessions().len(), "nslp": status::counters(self.host.sender().counters()) },
                "receiving": { "sessions": self.host.receiver().sessions().len(), "nslp": status::counters(self.host.receiver().counters()) },
            })),
            "request" => {
                let volume = request.body.get("volume").and_then(Value::as_u64).ok_or("the request names no volume")?;
                let flow = flow(request)?;
                self.host.want(flow, Volume(volume), now).map_err(|error| format!("{flow}: {error}"))?;
                Ok(json!({ "asked": flow.to_string() }))
            }
            "release" => {
                let flow = flow(request)?;
                if !self.host.sender().sessions().iter().any(|session| session.flow == flow) {
                    return Err(format!("{flow} has no session here"));
                }
                self.host.release(flow, now);
                Ok(json!({ "released": flow.to_string() }))
            }
            "revoke" => {
                let flow = flow(request)?;
                let revoked = self.host.revoke(flow, now);
                revoked.then(|| json!({ "revoked": flow.to_string() })).ok_or_else(|| format!("{flow} has no permission of this host"))
            }
            other => Err(format!("unknown command `{other}`")),
        }
    }
}

fn flow(request: &Request) -> Result<FlowId, String> {
    let address = |field: &'static str| -> Result<IpAddr, String> {
        let text = request.text(field).ok_or(format!("the request names no {field}"))?;
        text.parse().map_err(|_| format!("{field} `{text}` is not an address"))
    };
    let number = |field: &'static str| request.body.get(field).and_then(Value::as_u64).unwrap_or(0);
    let port = |field| u16::try_from(number(field)).map_err(|_| format!("{field} is not a port"));
    let protocol = u8::try_from(number("protocol")).map_err(|_| "protocol is not a number up to 255".to_owned())?;
    let (source, destination) = (address("source")?, address("destination")?);
    FlowId::new(source, destination, protocol, port("source_port")?, port("destination_port")?).map_err(|error| error.to_string())
}
