//! The router's signalling core as the daemon's loop drives it.

use std::net::IpAddr;
use std::sync::Arc;

use daemon::control::Request;
use daemon::drive::{Core, Direction};
use daemon::flows::Row;
use daemon::status;
use gist::api::Indication;
use gist::time::Instant;
use pbs_nslp::datapath::Event;
use pbs_nslp::fair_queue::FairQueue;
use pbs_nslp::output::Output;
use pbs_nslp::router::Router;
use serde_json::{Map, Value, json};
use traffic::rules::Modes;

use crate::ingress::AtIngress;
use crate::short_way::Shown;
use crate::{modes, signalling};

/// The place of the only packet worker.
const DATA: Direction = 0;

/// The router's part in all sessions, the messages that wait to be checked, and what the signalling queue counted.
pub(crate) struct RouterCore {
    pub(crate) name: String,
    pub(crate) router: Router,
    pub(crate) waiting: FairQueue,
    pub(crate) signalling: Arc<signalling::Counters>,
    /// What becomes of traffic without permission.
    pub(crate) modes: Modes,
    /// What XDP does with packets.
    pub(crate) datapath: Shown,
    /// What stands before the rules.
    pub(crate) ingress: AtIngress,
}

impl Core for RouterCore {
    fn handle_indication(&mut self, indication: Indication, now: Instant) {
        match indication {
            Indication::Received(received) => self.waiting.push(received).iter().for_each(|_| self.router.turn_away()),
            other => self.router.handle_gist(other, now),
        }
    }

    fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn work(&mut self, now: Instant) {
        if let Some(turn) = self.waiting.pop() {
            self.router.handle_message(turn.message, now);
            self.waiting.charge(&turn.account, self.router.take_cost());
        }
    }

    fn handle_datapath(&mut self, _: Direction, event: Event, now: Instant) {
        self.router.handle_datapath(event, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.router.handle_timeout(now);
    }

    fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        self.router.set_wall_clock(unix_seconds, now);
    }

    fn reconsider_certificates(&mut self, now: Instant) {
        self.router.reconsider_certificates(now);
    }

    /// A router grants nothing and sends nothing of its own.
    fn set_addresses(&mut self, _: Vec<IpAddr>) {}

    /// A router says nothing: its state is soft, and the rules stay.
    fn shut_down(&mut self, _: Instant) {}

    fn poll_output(&mut self) -> Option<(Direction, Output)> {
        self.router.poll_output().map(|output| (DATA, output))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.router.poll_timeout()
    }

    fn flows(&self, now: Instant) -> Vec<Row> {
        self.router.sessions().into_iter().map(|session| Row::new(DATA, "through", session, now)).collect()
    }

    fn counters(&self) -> Map<String, Value> {
        Map::from_iter([("signalling".to_owned(), self.signalling.drops())])
    }

    fn answer(&mut self, request: &Request, _: Instant) -> Result<Value, String> {
        match request.command() {
            "status" => Ok(json!({
                "name": self.name,
                "role": "router",
                "sessions": self.router.sessions().len(),
                "signalling": self.signalling.show(),
                "modes": modes::show(&self.modes),
                "datapath": self.datapath.show(),
                "ingress_shield": self.ingress.show(),
                "waiting": status::waiting(&self.waiting),
                "nslp": status::counters(self.router.counters()),
            })),
            other => Err(format!("unknown command `{other}`")),
        }
    }
}
