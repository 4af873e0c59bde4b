//! A daemon whose messages pass through somebody's hands on their way out: what a node could try that holds real keys and
//! speaks the protocol, but does not keep to it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use daemon::control::Request;
use daemon::drive::{Around, Core, Direction};
use daemon::flows::Row;
use gist::api::{Indication, SendMessage};
use gist::time::Instant;
use gist::wire::Mri;
use pbs_nslp::datapath::Event;
use pbs_nslp::output::Output;
use serde_json::Value;

/// What the core's shell hears instead of what the core wants done, in this order.
type Change = dyn Fn(Output) -> Vec<Output> + Send + Sync;

/// Puts `change` between the real core and GIST.
pub(crate) fn around(change: impl Fn(SendMessage) -> Vec<SendMessage> + Send + Sync + 'static) -> Arc<Around> {
    changing(move |output| match output {
        Output::Send(message) => change(message).into_iter().map(Output::Send).collect(),
        other => vec![other],
    })
}

/// Lets `look` see everything that the real core wants done, and changes nothing.
pub(crate) fn watching(look: impl Fn(&Output) + Send + Sync + 'static) -> Arc<Around> {
    changing(move |output| {
        look(&output);
        vec![output]
    })
}

fn changing(change: impl Fn(Output) -> Vec<Output> + Send + Sync + 'static) -> Arc<Around> {
    let change: Arc<Change> = Arc::new(change);
    Arc::new(move |core| Box::new(Rogue { core, change: change.clone(), waiting: VecDeque::new() }))
}

/// The port that the message's flow goes to.
pub(crate) fn destination_port(message: &SendMessage) -> Option<u16> {
    match &message.mri {
        Mri::PathCoupled(mri) => mri.destination_port,
        Mri::LooseEnd(_) => None,
    }
}

struct Rogue {
    core: Box<dyn Core>,
    change: Arc<Change>,
    waiting: VecDeque<(Direction, Output)>,
}

impl Core for Rogue {
    fn poll_output(&mut self) -> Option<(Direction, Output)> {
        while self.waiting.is_empty() {
            let (direction, output) = self.core.poll_output()?;
            self.waiting.extend((self.change)(output).into_iter().map(|output| (direction, output)));
        }
        self.waiting.pop_front()
    }

    fn handle_indication(&mut self, indication: Indication, now: Instant) {
        self.core.handle_indication(indication, now);
    }

    fn is_waiting(&self) -> bool {
        self.core.is_waiting()
    }

    fn work(&mut self, now: Instant) {
        self.core.work(now);
    }

    fn handle_datapath(&mut self, direction: Direction, event: Event, now: Instant) {
        self.core.handle_datapath(direction, event, now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
    }

    fn set_wall_clock(&mut self, unix_seconds: u64, now: Instant) {
        self.core.set_wall_clock(unix_seconds, now);
    }

    fn reconsider_certificates(&mut self, now: Instant) {
        self.core.reconsider_certificates(now);
    }

    fn set_addresses(&mut self, addresses: Vec<IpAddr>) {
        self.core.set_addresses(addresses);
    }

    fn shut_down(&mut self, now: Instant) {
        self.core.shut_down(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.core.poll_timeout()
    }

    fn flows(&self, now: Instant) -> Vec<Row> {
        self.core.flows(now)
    }

    fn answer(&mut self, request: &Request, now: Instant) -> Result<Value, String> {
        self.core.answer(request, now)
    }
}
