//! A host that floods: its first Query is an honest one; from then on it repeats it as fast as the association takes it, each with a
//! good certificate, a fresh number and a signature that costs as much to check as a right one.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use daemon::control::Request;
use daemon::drive::{Core, Direction};
use daemon::flows::Row;
use endpoint::Parts;
use gist::api::{Indication, MessageHandle, SendMessage};
use gist::time::Instant;
use pbs_nslp::credentials::X509Signer;
use pbs_nslp::datapath::Event;
use pbs_nslp::output::Output;
use pbs_nslp::wire::{self, Message};
use serde_json::{Map, Value};

/// Messages in one go, and the time between two: what comes of them the association decides.
const BURST: usize = 64;
const BETWEEN: Duration = Duration::from_millis(1);
/// How long after the first Query the flood begins: associations are to be there.
const BEGIN: Duration = Duration::from_secs(1);

/// The parts of `pbs` that floods, under the key of the node that `config` configures.
pub(crate) fn parts(config: &Path) -> io::Result<Parts> {
    let read = |extension: &str| std::fs::read(config.with_extension(extension));
    let signer = Arc::new(X509Signer::from_pem(&read("crt")?, &read("key")?).map_err(io::Error::other)?);
    let around = Arc::new(move |core| -> Box<dyn Core> {
        Box::new(Flooding {
            core,
            signer: signer.clone(),
            flood: None,
            ready: VecDeque::new(),
            next: Instant::ZERO,
            sent: 0,
            turned_back: 0,
        })
    });
    Ok(Parts { around, ..Parts::default() })
}

struct Flooding {
    core: Box<dyn Core>,
    signer: Arc<X509Signer>,
    /// The message of the flood, with the worker that the honest one was about.
    flood: Option<(Direction, SendMessage)>,
    ready: VecDeque<(Direction, Output)>,
    next: Instant,
    sent: u64,
    turned_back: u64,
}

/// Marks the flood's own messages.
const HANDLE: MessageHandle = MessageHandle(u64::MAX);

impl Flooding {
    /// The Query again, a number later, with one bit of its signature changed.
    fn spoiled(&self, message: &SendMessage) -> Option<SendMessage> {
        let Ok(Message::Query(query)) = wire::decode(message.payload.clone(), message.session, message.nslp_id) else { return None };
        let mut query = query.message;
        query.number = query.number.wrapping_add(2);
        let payload = wire::build_query(&query, message.session, message.nslp_id, &*self.signer).ok()?;
        let mut payload = payload.to_vec();
        *payload.last_mut()? ^= 1;
        Some(SendMessage { payload: payload.into(), handle: HANDLE, ..message.clone() })
    }
}

impl Core for Flooding {
    fn poll_output(&mut self) -> Option<(Direction, Output)> {
        if let Some((direction, output)) = self.core.poll_output() {
            if let (None, Output::Send(message)) = (&self.flood, &output)
                && let Some(flood) = self.spoiled(message)
            {
                self.flood = Some((direction, flood));
                self.next = self.next.max(Instant::ZERO);
            }
            return Some((direction, output));
        }
        self.ready.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.core.handle_timeout(now);
        let Some((direction, flood)) = &self.flood else { return };
        if self.next == Instant::ZERO {
            self.next = now + BEGIN;
        } else if now >= self.next {
            self.next = now + BETWEEN;
            self.sent += BURST as u64;
            self.ready.extend((0..BURST).map(|_| (*direction, Output::Send(flood.clone()))));
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let flood = self.flood.as_ref().map(|_| self.next);
        [self.core.poll_timeout(), flood].into_iter().flatten().min()
    }

    fn handle_indication(&mut self, indication: Indication, now: Instant) {
        match indication {
            Indication::MessageStatus { handle: HANDLE, .. } => self.turned_back += 1,
            other => self.core.handle_indication(other, now),
        }
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

    fn flows(&self, now: Instant) -> Vec<Row> {
        self.core.flows(now)
    }

    fn counters(&self) -> Map<String, Value> {
        let mut counters = self.core.counters();
        counters.insert("flood".to_owned(), serde_json::json!({ "sent": self.sent, "turned_back": self.turned_back }));
        counters
    }

    fn answer(&mut self, request: &Request, now: Instant) -> Result<Value, String> {
        self.core.answer(request, now)
    }
}
