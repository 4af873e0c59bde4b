//! The site of the demonstration: hosts, links, certificates, configurations, daemons and captures.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::line::Dropped;
use crate::attack::injector::Injector;
use crate::network::capture::{Capture, Frame};
use crate::network::{firewall, frame};
use crate::network::topology::{self, Chain};
use crate::pki::{Authority, KeyKind};
use crate::process::{Daemon, Program};

/// TCP port of messaging associations in the demonstration.
pub const ASSOCIATION_PORT: u16 = 30270;
/// An NSLP that the router passes on without hosting it.
pub const LISTED_NSLP: u16 = 0x7ff1;
/// An NSLP that the router does not know.
pub const UNLISTED_NSLP: u16 = 0x7ff0;
/// Refresh period T of the demonstration.
pub const REFRESH: Duration = Duration::from_secs(5);
/// Allowed volume of a flow with a small budget, in bytes.
pub const SMALL_BUDGET: u64 = 40_000;
/// Allowed volume of every other flow, in bytes.
pub const BUDGET: u64 = 32 << 20;

/// Everything that runs.
pub struct Site {
    /// Where configurations, keys and logs lie. Removed at the end.
    pub directory: PathBuf,
    started: Instant,
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
}

impl Site {
    /// Builds network, keys and configurations. No daemon runs yet.
    pub fn build() -> io::Result<Self> {
        let directory = std::env::temp_dir().join(format!("pbs-lab-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let chain = Chain::build()?;
        firewall::set(&chain.sender, &[(270, 270), (ASSOCIATION_PORT, ASSOCIATION_PORT)])?;
        firewall::set(&chain.receiver, &[(270, 270), (ASSOCIATION_PORT, ASSOCIATION_PORT), (7000, 7000), (9000, 9999)])?;
        let started = Instant::now();
        let left = Capture::start(&chain.router, topology::LEFT_LINK, started)?;
        let right = Capture::start(&chain.router, topology::RIGHT_LINK, started)?;
        let attacker = Injector::new(&chain.sender, topology::SENDER_LINK, &chain.router, topology::LEFT_LINK)?;
        let site = Self { directory, started, chain, left, right, attacker, router: None, sender: None, receiver: None };
        site.issue_certificates()?;
        site.write_configurations()?;
        Ok(site)
    }

    fn issue_certificates(&self) -> io::Result<()> {
        let authority = Authority::create("pbs-lab authority")?;
        std::fs::write(self.directory.join("ca.crt"), authority.certificate())?;
        let nodes: [(&str, &[IpAddr]); 3] = [
            ("sender", &[topology::SENDER, topology::SENDER6]),
            ("router", &[topology::ROUTER_LEFT, topology::ROUTER_RIGHT, topology::ROUTER_LEFT6, topology::ROUTER_RIGHT6]),
            ("receiver", &[topology::RECEIVER, topology::RECEIVER6]),
        ];
        for (node, addresses) in nodes {
            // Both kinds of signatures cross the network.
            let kind = if node == "receiver" { KeyKind::P256 } else { KeyKind::Ed25519 };
            authority.issue(&self.directory, node, addresses, kind)?;
        }
        Ok(())
    }

    fn write_configurations(&self) -> io::Result<()> {
        let common = |name: &str| {
            let gist = if name == "router" { format!("foreign_nslp_ids = [{LISTED_NSLP}]\n") } else { String::new() };
            format!(
                "name = \"{name}\"\ncontrol_socket = \"{name}.sock\"\n\n\
                 [identity]\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n\n\
                 [gist]\nassociation_port = {ASSOCIATION_PORT}\n{gist}\n[[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n\n"
            )
        };
        let refresh = REFRESH.as_secs();
        let ask = |destination: &str, protocol: &str, ports: &str| {
            format!("[[ask]]\ndestination = \"{destination}\"\nprotocol = \"{protocol}\"\ndestination_ports = \"{ports}\"\nvolume = {BUDGET}\n\n")
        };
        let grant = |source: &str, protocol: &str, ports: &str, volume: u64| {
            format!(
                "[[grant]]\nsource = \"{source}\"\nprotocol = \"{protocol}\"\ndestination_ports = \"{ports}\"\n\
                 volume = {volume}\nttl = \"600s\"\nrefresh = \"{refresh}s\"\n\n"
            )
        };
        let (mut asks, mut grants) = (String::new(), String::new());
        for (sender, receiver) in [("192.168.20.0/24", "192.168.21.0/24"), ("fd20::/64", "fd21::/64")] {
            asks += &(ask(receiver, "udp", "9000-9999") + &ask(receiver, "tcp", "9100-9199"));
            grants += &grant(sender, "udp", "9010-9019", SMALL_BUDGET);
            grants += &(grant(sender, "udp", "9000-9799", BUDGET) + &grant(sender, "tcp", "9100-9199", BUDGET));
        }
        let write = |name: &str, rest: &str| std::fs::write(self.directory.join(format!("{name}.toml")), common(name) + rest);
        write("router", "")?;
        write("sender", &asks)?;
        write("receiver", &grants)
    }

    /// Microseconds since the captures started.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Starts `pbs-router`.
    pub fn start_router(&mut self) -> io::Result<()> {
        self.router = Some(Daemon::start(&self.chain.router, Program::Router, &self.directory, "router")?);
        Ok(())
    }

    /// Starts `pbs` of the receiver.
    pub fn start_receiver(&mut self) -> io::Result<()> {
        self.receiver = Some(Daemon::start(&self.chain.receiver, Program::Host, &self.directory, "receiver")?);
        Ok(())
    }

    /// Starts `pbs` of the sender, honest or lying.
    pub fn start_sender(&mut self, program: Program) -> io::Result<()> {
        drop(self.sender.take());
        self.sender = Some(Daemon::start(&self.chain.sender, program, &self.directory, "sender")?);
        Ok(())
    }

    /// Drop counters of every running node, by node and reason.
    pub fn drops(&self) -> io::Result<Drops> {
        let mut drops = Drops::default();
        for (name, daemon) in [("sender", &self.sender), ("router", &self.router), ("receiver", &self.receiver)] {
            let Some(daemon) = daemon else { continue };
            let counters = daemon.ask(&json!({ "command": "counters" }))?;
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
        let wanted = |entry: &&Value| {
            entry.pointer("/flow/destination_port").and_then(Value::as_u64) == Some(u64::from(port))
                && entry.get("spi").is_some_and(|spi| !spi.is_null())
        };
        Ok(flows.as_array().into_iter().flatten().find(wanted).cloned())
    }

    /// Writes one capture a link into `directory`.
    pub fn keep_captures(&self, directory: &Path) -> io::Result<()> {
        std::fs::create_dir_all(directory)?;
        self.left.write(&directory.join("sender-link.pcap"))?;
        self.right.write(&directory.join("receiver-link.pcap"))
    }

    /// How long ago the first packet under AH to `port` was on the receiver's link.
    pub fn age(&self, port: u16) -> Option<Duration> {
        let of_flow = |frame: &&Frame| {
            frame.ip().and_then(frame::read).is_some_and(|seen| seen.ports.1 == port && seen.authentication.is_some())
        };
        let first = self.right.look(|frames| frames.iter().find(of_flow).map(|frame| frame.at))?;
        Some(self.started.elapsed().saturating_sub(first))
    }

    /// Frames that the captures could not keep.
    pub fn lost_frames(&self) -> u32 {
        self.left.lost() + self.right.lost()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        drop((self.sender.take(), self.router.take(), self.receiver.take()));
        if std::env::var_os("PBS_LAB_KEEP_LOGS").is_none() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
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
