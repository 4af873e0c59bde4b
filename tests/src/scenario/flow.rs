//! The honest flow: plain programs, and what captures show of their packets.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::attacker::MARK;
use super::audit::{Of, Shown, Unit};
use super::chance::Plan;
use super::outcome::{Detected, Outcome};
use super::site::{BEHIND, PORT, Site, of_flow};
use super::story::Told;
use crate::network::capture::Capture;
use crate::transfer;

/// How long the receiving program waits for the next datagram.
const PATIENCE: Duration = Duration::from_secs(2);

/// Both programs' sockets.
pub(super) struct Programs {
    pub(super) sender: UdpSocket,
    pub(super) receiver: UdpSocket,
    /// What chance has decided: payloads.
    pub(super) plan: Plan,
}

/// Payload octets of each datagram of a steady flow.
pub(super) const STEADY: usize = 1208;

/// A flow that goes on until it is told to end.
pub(super) struct Steady {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sending: JoinHandle<io::Result<u64>>,
    receiving: JoinHandle<io::Result<Delivered>>,
}

/// What the receiving program got.
#[derive(Debug, Clone, Default)]
pub(super) struct Delivered {
    /// Datagrams that were sent.
    pub(super) sent: u64,
    /// Datagrams of the honest program.
    pub(super) own: u64,
    /// The attacker's.
    pub(super) foreign: u64,
}

impl fmt::Display for Delivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} datagrams arrived, and {} of an attacker's", self.own, self.sent, self.foreign)
    }
}

impl Delivered {
    /// How many of a hundred datagrams arrived.
    pub(super) fn goodput(&self) -> f64 {
        self.own as f64 * 100.0 / self.sent.max(1) as f64
    }
}

/// How a file arrived.
pub(super) struct Transfer {
    pub(super) sent: u64,
    pub(super) intact: bool,
}

impl Programs {
    /// The programs of the flow that is attacked.
    pub(super) fn start(site: &Site) -> io::Result<Self> {
        Self::start_on(site, PORT)
    }

    pub(super) fn start_on(site: &Site, port: u16) -> io::Result<Self> {
        let (sender, receiver) = site.sockets(port)?;
        Ok(Self { sender, receiver, plan: site.plan.clone() })
    }

    /// The programs of a flow from a port of the sender's.
    pub(super) fn start_from(site: &Site, source: u16) -> io::Result<Self> {
        let (sender, receiver) = site.sockets_from(source, PORT)?;
        Ok(Self { sender, receiver, plan: site.plan.clone() })
    }

    /// Asks with a first datagram, waits for the permission, and takes that datagram off the receiver's socket.
    pub(super) fn ask(&self, site: &Site) -> io::Result<()> {
        self.sender.send(b"may I?")?;
        site.await_grant()?;
        self.receiver.set_read_timeout(Some(PATIENCE))?;
        self.receiver.recv(&mut [0; 64]).map(drop)
    }

    /// Sends a datagram of [`STEADY`] octets each `pause` from now on.
    pub(super) fn steady(&self, pause: Duration) -> io::Result<Steady> {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = (self.sender.try_clone()?, self.receiver.try_clone()?);
        let (ended, heard) = (stop.clone(), stop.clone());
        let received = Arc::new(AtomicU64::new(0));
        let counted = received.clone();
        let payload = self.plan.payload(STEADY);
        let sending = std::thread::spawn(move || {
            let (begun, mut sent) = (Instant::now(), 0_u32);
            while !ended.load(Ordering::Relaxed) {
                sender.send(&payload)?;
                sent += 1;
                // Against the clock, so that the rate is right whatever a sleep takes.
                std::thread::sleep((begun + pause * sent).saturating_duration_since(Instant::now()));
            }
            Ok(sent.into())
        });
        receiver.set_read_timeout(Some(Duration::from_millis(300)))?;
        let receiving = std::thread::spawn(move || {
            let (mut delivered, mut buffer) = (Delivered::default(), [0; 2048]);
            loop {
                match receiver.recv(&mut buffer) {
                    Ok(_) if buffer.starts_with(MARK) => delivered.foreign += 1,
                    Ok(_) => {
                        delivered.own += 1;
                        counted.store(delivered.own, Ordering::Relaxed);
                    }
                    // The last ones have had their time to arrive.
                    Err(_) if heard.load(Ordering::Relaxed) => return Ok(delivered),
                    Err(_) => {}
                }
            }
        });
        Ok(Steady { stop, received, sending, receiving })
    }

    /// Sends a file of `octets`, a datagram each `pause`, and receives it.
    pub(super) fn transfer(&self, octets: usize, pause: Duration) -> io::Result<Transfer> {
        let file = self.plan.payload(octets);
        let receiver = self.receiver.try_clone()?;
        let receiving = std::thread::spawn(move || transfer::receive_file(&receiver, octets, PATIENCE));
        let sent = transfer::send_file(&self.sender, self.sender.peer_addr()?, &file, pause)?;
        let received = receiving.join().map_err(|_| io::Error::other("the receiving thread panicked"))??;
        Ok(Transfer { sent, intact: received.file == file })
    }
}

impl Steady {
    /// Datagrams of the honest program that have arrived so far.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until more than `before` have arrived; `false` if none does within `limit`.
    pub(super) fn await_more(&self, before: u64, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.received() <= before {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }

    /// Ends the flow.
    pub(super) fn end(self) -> io::Result<Delivered> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| io::Error::other("a thread of the flow panicked");
        let sent = self.sending.join().map_err(panicked)??;
        Ok(Delivered { sent, ..self.receiving.join().map_err(panicked)?? })
    }
}

/// Packets of the flow by length of the integrity check value, since `from`, without those of an attacker.
pub(super) fn by_icv_length(capture: &Capture, from: Duration) -> BTreeMap<usize, u64> {
    let mut lengths = BTreeMap::new();
    capture.look(|frames| {
        for seen in frames.iter().filter(|frame| frame.at >= from).filter_map(of_flow) {
            if !seen.payload.starts_with(MARK) {
                *lengths.entry(seen.authentication.map_or(0, |ah| ah.icv.len())).or_insert(0) += 1;
            }
        }
    });
    lengths
}

/// Waits until the receiver has said something under one of `rules` since `from`.
pub(super) fn await_rule(site: &Site, node: &str, rules: &[&str], from: Duration, limit: Duration) -> io::Result<Option<Told>> {
    site.await_story(limit, |story| {
        let found = rules.iter().filter_map(|rule| story.of(node, rule, from).next()).min_by(|one, other| one.at.total_cmp(&other.at));
        found.cloned()
    })
}

impl Outcome {
    /// Octets of the flow that came to the middle and not further, between two moments.
    pub(super) fn octets_lost(&mut self, site: &Site, figure: &str, from: Duration, to: Duration) {
        let [before, behind] = &site.middle;
        let counted = [("middle-left", before, false), ("middle-right", behind, true)].map(|(name, capture, minus)| {
            let about = if minus { "of the flow, behind the middle" } else { "of the flow, before the middle" };
            (capture.look(|frames| Shown::count(about, name, frames, Of::Flow, (from, to))), minus)
        });
        self.figure_of(figure, Unit::Octets, counted);
    }

    /// A figure of packets behind the second router.
    pub(super) fn figure_behind(&mut self, site: &Site, figure: &str, unit: Unit, of: Of, within: (Duration, Duration)) -> u64 {
        let counted = site.last.look(|frames| Shown::count(figure, BEHIND, frames, of, within));
        self.figure_of(figure, unit, [(counted, false)])
    }

    /// The first evidence under one of `rules` at the receiver since `from`, which must come within `periods`.
    pub(super) fn must_detect(&mut self, site: &Site, rules: &[&str], from: Duration, periods: f64) -> io::Result<Option<Told>> {
        let limit = site.refresh.mul_f64(periods).saturating_sub(site.now().saturating_sub(from)) + Duration::from_secs(1);
        let told = await_rule(site, "receiver", rules, from, limit)?;
        let after = told.as_ref().map(|told| (told.at - from.as_secs_f64()) / site.refresh.as_secs_f64());
        self.check(
            format!("evidence at the receiver within {periods} refresh periods"),
            after.is_some_and(|after| after <= periods),
            match (&told, after) {
                (Some(told), Some(after)) => format!("{} {}, after {after:.2}", told.rule, told.message),
                _ => "none".to_owned(),
            },
        );
        self.detected =
            told.as_ref().zip(after).map(|(told, periods)| Detected { rule: told.rule.clone(), evidence: told.message.clone(), periods });
        Ok(told)
    }

    /// Something that must follow at a node.
    pub(super) fn must_follow(&mut self, site: &Site, node: &str, rule: &str, from: Duration, limit: Duration) -> io::Result<Option<Told>> {
        let told = await_rule(site, node, &[rule], from, limit)?;
        let found = told.as_ref().map_or_else(|| "nothing of the kind".to_owned(), |told| format!("{} at {:.3} s", told.message, told.at));
        self.check(format!("{node} takes {rule}"), told.is_some(), found);
        Ok(told)
    }
}
