//! The honest flow: plain programs, and what captures show of their packets.

use std::collections::BTreeMap;
use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use super::outcome::{Detected, Outcome};
use super::site::{REFRESH, Site, of_flow};
use super::story::Told;
use crate::network::capture::Capture;
use crate::transfer;

/// How long the receiving program waits for the next datagram.
const PATIENCE: Duration = Duration::from_secs(2);

/// Both programs' sockets.
pub(super) struct Programs {
    pub(super) sender: UdpSocket,
    pub(super) receiver: UdpSocket,
}

/// How a file arrived.
pub(super) struct Transfer {
    pub(super) sent: u64,
    pub(super) intact: bool,
}

impl Programs {
    pub(super) fn start(site: &Site) -> io::Result<Self> {
        let (sender, receiver) = site.sockets()?;
        Ok(Self { sender, receiver })
    }

    /// Asks with a first datagram, waits for the permission, and takes that datagram off the receiver's socket.
    pub(super) fn ask(&self, site: &Site) -> io::Result<()> {
        self.sender.send_to(b"may I?", site.destination())?;
        site.await_grant()?;
        self.receiver.set_read_timeout(Some(PATIENCE))?;
        self.receiver.recv(&mut [0; 64]).map(drop)
    }

    /// Sends a file of `octets`, a datagram each `pause`, and receives it.
    pub(super) fn transfer(&self, site: &Site, octets: usize, pause: Duration) -> io::Result<Transfer> {
        let file = transfer::make_file(octets)?;
        let receiver = self.receiver.try_clone()?;
        let receiving = std::thread::spawn(move || transfer::receive_file(&receiver, octets, PATIENCE));
        let sent = transfer::send_file(&self.sender, site.destination(), &file, pause)?;
        let received = receiving.join().map_err(|_| io::Error::other("the receiving thread panicked"))??;
        Ok(Transfer { sent, intact: received.file == file })
    }
}

/// Packets of the flow by length of the integrity check value, since `from`, without those of an attacker.
pub(super) fn by_icv_length(capture: &Capture, from: Duration) -> BTreeMap<usize, u64> {
    let mut lengths = BTreeMap::new();
    capture.look(|frames| {
        for seen in frames.iter().filter(|frame| frame.at >= from).filter_map(of_flow) {
            if !seen.payload.starts_with(super::attacker::MARK) {
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
    /// The first evidence under one of `rules` at the receiver since `from`, which must come within `periods`.
    pub(super) fn must_detect(&mut self, site: &Site, rules: &[&str], from: Duration, periods: f64) -> io::Result<Option<Told>> {
        let limit = REFRESH.mul_f64(periods).saturating_sub(site.now().saturating_sub(from)) + Duration::from_secs(1);
        let told = await_rule(site, "receiver", rules, from, limit)?;
        let after = told.as_ref().map(|told| (told.at - from.as_secs_f64()) / REFRESH.as_secs_f64());
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
