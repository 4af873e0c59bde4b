//! The site of the demonstration: hosts, links, certificates, configurations, daemons and captures.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use traffic::ah::Number;
use traffic::algorithm::IcvKey;
use traffic::packet::IpPacket;

use super::expiry::Abandoned;
use super::line::{Dropped, Outcome};
use crate::attack::injector::Injector;
use crate::audit::kept;
use crate::audit::links::Links;
use crate::ground::Ground;
pub use crate::ground::{ASSOCIATION_PORT, LISTED_NSLP, REFRESH, SMALL_BUDGET};
use crate::network::capture::{Capture, Frame};
use crate::network::frame;
use crate::network::namespace::Namespace;
use crate::network::topology::{self, Chain};
use crate::process::{Daemon, Program};
use crate::remains::Remainder;
use crate::sabotage::{self, Sabotage};

/// An NSLP that the router does not know.
pub const UNLISTED_NSLP: u16 = 0x7ff0;

/// Everything that runs.
pub struct Site {
    /// Where configurations, keys and logs lie. Removed at the end.
    pub directory: PathBuf,
    started: Instant,
    sabotage: Option<Sabotage>,
    /// The hosts.
    pub chain: Chain,
    /// On the router's interface towards the sender.
    pub left: Capture,
    /// On the router's interface towards the receiver.
    pub right: Capture,
    /// The attacker on the sender's link.
    pub attacker: Injector,
    /// `pbs-router`.
    pub router: Option<Daemon>,
    /// `pbs` of the sender.
    pub sender: Option<Daemon>,
    /// `pbs` of the receiver.
    pub receiver: Option<Daemon>,
    /// A flow whose sender has vanished.
    pub abandoned: Option<Abandoned>,
    /// Removes the directory, last of all.
    remainder: Option<Remainder>,
}

impl Site {
    /// Builds network, keys and configurations. No daemon runs yet; they will run without the check that is sabotaged.
    pub fn build(sabotage: Option<Sabotage>) -> io::Result<Self> {
        let Ground { directory, chain, remainder } = Ground::lay()?;
        let remainder = if std::env::var_os("PBS_LAB_KEEP_LOGS").is_none() {
            Some(remainder)
        } else {
            remainder.keep();
            None
        };
        let started = Instant::now();
        let left = Capture::start(&chain.router, topology::LEFT_LINK, started)?;
        let right = Capture::start(&chain.router, topology::RIGHT_LINK, started)?;
        let attacker = Injector::new(&chain.sender, topology::SENDER_LINK, &chain.router, topology::LEFT_LINK)?;
        let (router, sender, receiver, abandoned) = (None, None, None, None);
        Ok(Self { directory, started, sabotage, chain, left, right, attacker, router, sender, receiver, abandoned, remainder })
    }

    /// Microseconds since the captures started.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Starts `pbs-router`, honest or not, in place of the one that runs.
    pub fn start_router(&mut self, program: Program) -> io::Result<()> {
        drop(self.router.take());
        let (host, directory) = (&self.chain.router, &self.directory);
        self.router = Some(match self.sabotage {
            Some(sabotage) => Daemon::start_sabotaged(host, program, sabotage, directory, "router")?,
            None => Daemon::start(host, program, directory, "router")?,
        });
        Ok(())
    }

    /// Starts `pbs` of the receiver, honest or not, in place of the one that runs.
    pub fn start_receiver(&mut self, program: Program) -> io::Result<()> {
        drop(self.receiver.take());
        self.receiver = Some(self.start_host(&self.chain.receiver, program, "receiver")?);
        Ok(())
    }

    /// Starts `pbs` of the sender, honest or lying.
    pub fn start_sender(&mut self, program: Program) -> io::Result<()> {
        drop(self.sender.take());
        self.sender = Some(self.start_host(&self.chain.sender, program, "sender")?);
        Ok(())
    }

    fn start_host(&self, host: &Namespace, program: Program, name: &str) -> io::Result<Daemon> {
        match self.sabotage.filter(|sabotage| sabotage.is_of_hosts_too()) {
            Some(sabotage) => Daemon::start_sabotaged(host, program, sabotage, &self.directory, name),
            None => Daemon::start(host, program, &self.directory, name),
        }
    }

    /// Drop counters of every running node, by node and reason.
    pub fn drops(&self) -> io::Result<Drops> {
        let mut drops = Drops::default();
        let nodes = [("sender", &self.sender), ("router", &self.router), ("receiver", &self.receiver)];
        // All at once: what a trial looks for is a moment.
        let answers = std::thread::scope(|scope| {
            let ask = |daemon: &'_ Daemon| daemon.ask(&json!({ "command": "counters" }));
            let asked = nodes.map(|(name, daemon)| daemon.as_ref().map(|daemon| (name, scope.spawn(move || ask(daemon)))));
            let joined = asked.into_iter().flatten().map(|(name, asked)| (name, asked.join()));
            joined.collect::<Vec<_>>()
        });
        for (name, counters) in answers {
            let counters = counters.map_err(|_| io::Error::other("asking for counters has panicked"))??;
            for queue in counters.as_object().into_iter().flat_map(|queues| queues.values()) {
                for entry in queue.get("dropped").and_then(Value::as_array).into_iter().flatten() {
                    let reason = entry.get("reason").and_then(Value::as_str).unwrap_or_default();
                    let packets = entry.get("packets").and_then(Value::as_u64).unwrap_or_default();
                    *drops.0.entry((name, reason.to_owned())).or_default() += packets;
                }
            }
        }
        Ok(drops)
    }

    /// How many messaging associations a node holds.
    pub fn associations(&self, node: &Option<Daemon>) -> io::Result<usize> {
        let Some(daemon) = node else { return Ok(0) };
        let gist = daemon.ask(&json!({ "command": "gist" }))?;
        Ok(gist.get("associations").and_then(Value::as_array).map_or(0, Vec::len))
    }

    /// The entry of the flow to `port` in the node's table, if it has one.
    pub fn flow(&self, node: &Option<Daemon>, port: u16) -> io::Result<Option<Value>> {
        let Some(daemon) = node else { return Ok(None) };
        let flows = daemon.ask(&json!({ "command": "flows" }))?;
        Ok(entry(&flows, port).cloned())
    }

    /// Puts AH around a packet, as the hosts of this site do it.
    pub fn seal(&self, clear: &[u8], spi: u32, number: u32, key: &IcvKey) -> io::Result<Vec<u8>> {
        let clear = IpPacket::parse(clear).map_err(io::Error::other)?;
        let mut packet = Vec::new();
        let number = Number { low: number, high: None };
        sabotage::checks_of_hosts(self.sabotage).seal(&clear, spi, number, key, &mut packet).map_err(io::Error::other)?;
        Ok(packet)
    }

    /// Ends the captures, and gives what they show as a whole.
    pub fn end_captures(&mut self) -> Links {
        self.left.end();
        self.right.end();
        self.left.look(|sender| self.right.look(|receiver| Links::gather(sender, receiver)))
    }

    /// Writes one capture a link and the outcome into `directory`.
    pub fn keep(&self, directory: &Path, outcome: &Outcome) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        self.left.write(&directory.join(kept::SENDER_LINK))?;
        self.right.write(&directory.join(kept::RECEIVER_LINK))?;
        std::fs::write(directory.join(kept::OUTCOME), serde_json::to_string_pretty(outcome)?)
    }

    /// How long ago the first packet under AH to `port` was on the receiver's link.
    pub fn age(&self, port: u16) -> Option<Duration> {
        let of_flow =
            |frame: &&Frame| frame.ip().and_then(frame::read).is_some_and(|seen| seen.ports.1 == port && seen.authentication.is_some());
        let first = self.right.look(|frames| frames.iter().find(of_flow).map(|frame| frame.at))?;
        Some(self.started.elapsed().saturating_sub(first))
    }

    /// Frames that the captures could not keep.
    pub fn lost_frames(&self) -> u32 {
        self.left.lost() + self.right.lost()
    }
}

/// The entry of the flow to `port` in what a node answers about its flows, if it holds a permission for it.
pub(super) fn entry(flows: &Value, port: u16) -> Option<&Value> {
    let wanted = |entry: &&Value| {
        entry.pointer("/flow/destination_port").and_then(Value::as_u64) == Some(u64::from(port))
            && entry.get("spi").is_some_and(|spi| !spi.is_null())
    };
    flows.as_array().into_iter().flatten().find(wanted)
}

impl Drop for Site {
    fn drop(&mut self) {
        drop((self.sender.take(), self.router.take(), self.receiver.take()));
        drop(self.remainder.take());
    }
}

/// Drop counters by node and reason at one moment.
#[derive(Debug, Clone, Default)]
pub struct Drops(BTreeMap<(&'static str, String), u64>);

impl Drops {
    /// What was dropped since `before`. A counter that fell (its daemon was restarted) counts from zero.
    pub fn since(&self, before: &Self) -> Vec<Dropped> {
        self.0
            .iter()
            .filter_map(|((node, reason), &now)| {
                let then = before.0.get(&(*node, reason.clone())).copied().filter(|&then| then <= now).unwrap_or(0);
                (now > then).then(|| Dropped { at: (*node).to_owned(), reason: reason.clone(), packets: now - then })
            })
            .collect()
    }
}
