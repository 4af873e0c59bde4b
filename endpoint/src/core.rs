//! The host's signalling cores, sender and receiver, as the daemon's loop drives them.

use std::net::IpAddr;

use daemon::control::Request;
use daemon::drive::{Core, Direction};
use daemon::flows::Row;
use daemon::status;
use gist::api::Indication;
use gist::time::Instant;
use gist::wire::{Direction as MessageDirection, Mri};
use pbs_nslp::datapath::Event;
use pbs_nslp::flow::FlowId;
use pbs_nslp::output::Output;
use pbs_nslp::receiver::Receiver;
use pbs_nslp::sender::Sender;
use pbs_nslp::wire::Volume;
use serde_json::{Value, json};

/// The place of the worker for what leaves.
const OUTBOUND: Direction = 0;
/// The place of the worker for what arrives.
const INBOUND: Direction = 1;

/// Both parts of a host.
pub(crate) struct HostCore {
    pub(crate) name: String,
    pub(crate) sender: Sender,
    pub(crate) receiver: Receiver,
}

impl Core for HostCore {
    /// Messages downstream are Queries, for the receiver; messages upstream are for the sender.
    fn handle_indication(&mut self, indication: Indication, now: Instant) {
        match direction(&indication) {
            (MessageDirection::Downstream, true) | (MessageDirection::Upstream, false) => self.receiver.handle_gist(indication, now),
            (MessageDirection::Upstream, true) | (MessageDirection::Downstream, false) => self.sender.handle_gist(indication, now),
        }
    }

    fn handle_datapath(&mut self, direction: Direction, event: Event, now: Instant) {
        if direction == OUTBOUND {
            self.sender.handle_datapath(event, now);
        } else {
            self.receiver.handle_datapath(event, now);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.sender.handle_timeout(now);
        self.receiver.handle_timeout(now);
    }

    fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        self.sender.set_wall_clock(unix_seconds, now);
        self.receiver.set_wall_clock(unix_seconds, now);
    }

    fn shut_down(&mut self, now: Instant) {
        self.sender.shutdown(now);
        self.receiver.shutdown(now);
    }

    fn poll_output(&mut self) -> Option<(Direction, Output)> {
        let outbound = self.sender.poll_output().map(|output| (OUTBOUND, output));
        outbound.or_else(|| self.receiver.poll_output().map(|output| (INBOUND, output)))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.sender.poll_timeout(), self.receiver.poll_timeout()].into_iter().flatten().min()
    }

    fn flows(&self, now: Instant) -> Vec<Row> {
        let sent = self.sender.sessions();
        let sent = sent.iter().map(|session| Row::new(OUTBOUND, session, now));
        let received = self.receiver.sessions();
        sent.chain(received.iter().map(|session| Row::new(INBOUND, session, now))).collect()
    }

    fn answer(&mut self, request: &Request, now: Instant) -> Result<Value, String> {
        match request.command() {
            "status" => Ok(json!({
                "name": self.name,
                "role": "host",
                "sending": { "sessions": self.sender.sessions().len(), "nslp": status::counters(self.sender.counters()) },
                "receiving": { "sessions": self.receiver.sessions().len(), "nslp": status::counters(self.receiver.counters()) },
            })),
            "request" => {
                let volume = request.body.get("volume").and_then(Value::as_u64).ok_or("the request names no volume")?;
                let flow = flow(request)?;
                self.sender.want(flow, Volume(volume), now).map_err(|error| error.to_string())?;
                Ok(json!({ "asked": flow.to_string() }))
            }
            "release" => {
                let flow = flow(request)?;
                if !self.sender.sessions().iter().any(|session| session.flow == flow) {
                    return Err(format!("{flow} has no session here"));
                }
                self.sender.release(flow, now);
                Ok(json!({ "released": flow.to_string() }))
            }
            "revoke" => {
                let flow = flow(request)?;
                let revoked = self.receiver.revoke(flow, now);
                revoked.then(|| json!({ "revoked": flow.to_string() })).ok_or_else(|| format!("{flow} has no permission of this host"))
            }
            other => Err(format!("unknown command `{other}`")),
        }
    }
}

/// The direction in the indication's MRI, and whether a message came that way (otherwise: it was to go that way).
fn direction(indication: &Indication) -> (MessageDirection, bool) {
    match indication {
        Indication::Received(received) => (received.mri.direction(), true),
        Indication::MessageStatus { mri, .. } | Indication::NetworkNotification { mri, .. } => (Mri::direction(mri), false),
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
