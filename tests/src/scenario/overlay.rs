//! The site of scenarios with relays: ten daemons, somebody between two of the routers, captures before and behind the relays.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use super::Stage;
use super::audit::{Of, Shown};
use super::chance::Plan;
use super::flow::Programs;
use super::outcome::Outcome;
use super::policy::Policy;
use super::story::{Clock, Story, Told};
use crate::demo::trial::source_port;
use crate::ground::ASSOCIATION_PORT;
use crate::network::capture::Capture;
use crate::network::link;
use crate::network::overlay::{self, NODES, Overlay, addresses};
use crate::network::relay::Relay;
use crate::network::topology::Family;
use crate::pki::{Authority, KeyKind};
use crate::process::{Daemon, Program};
use crate::remains::Remainder;

/// The captures' files.
pub(super) const CAPTURES: [&str; 7] =
    ["sender-link", "middle-left", "middle-right", "relay1-link", "relay2-link", "before-router3", "receiver-link"];
/// Octets asked for and granted, of the flow and of each relay.
const VOLUME: u64 = 64_000_000;
/// Octets that may wait for the receiving program.
const RECEIVE_BUFFER: usize = 16 << 20;

/// One scenario.
#[derive(Debug)]
pub struct Scenario {
    /// What it is called.
    pub(super) name: &'static str,
    /// What it tries, and what must follow.
    pub(super) what: &'static str,
    /// Refresh period T, whole seconds.
    pub(super) refresh: Duration,
    pub(super) run: Play,
}

/// Plays a scenario; the last argument hears what is being tried.
type Play = fn(&mut Site, &mut Outcome, &dyn Fn(&str)) -> io::Result<()>;

/// Everything that runs.
pub(super) struct Site {
    directory: PathBuf,
    clock: Clock,
    pub(super) family: Family,
    /// What chance has decided.
    pub(super) plan: Plan,
    /// Refresh period T.
    pub(super) refresh: Duration,
    network: Overlay,
    captures: Vec<(&'static str, Capture)>,
    /// In the middle.
    pub(super) middle: Relay,
    daemons: BTreeMap<&'static str, Daemon>,
    /// Removes the directory, last of all.
    remainder: Option<Remainder>,
}

impl Site {
    /// Builds network, keys and configurations, and starts all ten daemons.
    pub(super) fn build(refresh: Duration, family: Family, plan: Plan) -> io::Result<Self> {
        let (remainder, directory) = Remainder::temporary("pbs-lab-scenario")?;
        let remainder = if std::env::var_os("PBS_LAB_KEEP_LOGS").is_none() {
            Some(remainder)
        } else {
            remainder.keep();
            None
        };
        issue_certificates(&directory, family)?;
        let policy =
            Policy { family, routers: &["router0", "router1", "router2", "router3", "router4"], refresh, volume: VOLUME, reactions: "" };
        for name in NODES {
            std::fs::write(directory.join(format!("{name}.toml")), policy.configuration(name) + &own(name, family, refresh))?;
        }
        let network = Overlay::build(family)?;
        let clock = Clock::start()?;
        let captured = |host, interface| Capture::start(network.host(host)?, interface, clock.started);
        let captures = [
            captured("router0", overlay::FIRST_LINK)?,
            Capture::start(&network.middle, overlay::MIDDLE_LEFT, clock.started)?,
            Capture::start(&network.middle, overlay::MIDDLE_RIGHT, clock.started)?,
            captured("relay1", overlay::NEAR_LINK)?,
            captured("relay2", overlay::FAR_LINK)?,
            captured("router3", overlay::BEHIND_RELAYS)?,
            captured("receiver", overlay::LAST_LINK)?,
        ];
        let captures = CAPTURES.into_iter().zip(captures).collect();
        let middle = Relay::start(&network.middle, overlay::MIDDLE_LEFT, overlay::MIDDLE_RIGHT)?;
        let mut site = Self { directory, clock, family, plan, refresh, network, captures, middle, daemons: BTreeMap::new(), remainder };
        for name in NODES {
            let program = if name.starts_with("router") { Program::Router } else { Program::Host };
            let daemon = Daemon::start(site.network.host(name)?, program, &site.directory, name)?;
            site.daemons.insert(name, daemon);
        }
        Ok(site)
    }

    /// Kills a node's daemon (SIGKILL). Its rules stay.
    pub(super) fn kill(&mut self, name: &str) -> io::Result<()> {
        self.daemons.remove(name).map_or(Ok(()), |mut daemon| daemon.kill())
    }

    /// Takes a node's link down: nothing leaves it any more, and nobody is told.
    pub(super) fn cut_off(&self, name: &str, interface: &str) -> io::Result<()> {
        link::take_down(self.network.host(name)?, interface)
    }

    /// The sender's host.
    pub(super) fn sender(&self) -> io::Result<&crate::network::namespace::Namespace> {
        self.network.host("sender")
    }

    /// Time since the captures started, as they and the story tell it.
    pub(super) fn now(&self) -> Duration {
        self.clock.started.elapsed()
    }

    /// What a daemon answers.
    pub(super) fn ask(&self, name: &str, request: &Value) -> io::Result<Value> {
        self.daemons.get(name).ok_or_else(|| io::Error::other(format!("{name} does not run")))?.ask(request)
    }

    /// The flow of this protocol and destination port as a node shows it; null if it has none.
    pub(super) fn flow(&self, name: &str, protocol: u8, port: u16) -> io::Result<Value> {
        let flows = self.ask(name, &json!({ "command": "flows" }))?;
        let is_it = |flow: &&Value| {
            let field = |field: &str| flow.pointer(&format!("/flow/{field}")).and_then(Value::as_u64);
            (field("protocol"), field("destination_port")) == (Some(protocol.into()), Some(port.into()))
        };
        Ok(flows.as_array().into_iter().flatten().find(is_it).cloned().unwrap_or(Value::Null))
    }

    /// Has the sender give the permission of the flow to a port back.
    pub(super) fn release(&self, port: u16) -> io::Result<()> {
        let (source, destination) = (self.family.sender(), self.family.receiver());
        let request = json!({
            "command": "release", "source": source, "destination": destination, "protocol": 17,
            "source_port": source_port(port), "destination_port": port,
        });
        self.ask("sender", &request).map(drop)
    }

    /// Plain programs that know nothing of permissions, for a flow to `port`.
    pub(super) fn programs(&self, port: u16) -> io::Result<Programs> {
        let receiver = self.network.host("receiver")?.run(|| UdpSocket::bind((self.family.receiver(), port)))?;
        setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        let sender = self.network.host("sender")?.run(|| UdpSocket::bind((self.family.sender(), source_port(port))))?;
        sender.connect((self.family.receiver(), port))?;
        Ok(Programs { sender, receiver, plan: self.plan.clone() })
    }

    /// What a capture shows between two moments.
    pub(super) fn count(&self, capture: &str, of: Of, within: (Duration, Duration)) -> Shown {
        let found = self.captures.iter().find(|(name, _)| *name == capture);
        let about = format!("{of:?}").to_lowercase();
        found.map_or_else(
            || Shown::count(&about, capture, &[], of, within),
            |(_, found)| found.look(|frames| Shown::count(&about, capture, frames, of, within)),
        )
    }

    /// What a node says under one of `rules` first, since `from`; `None` if nothing does within `limit`.
    pub(super) fn await_rule(&self, node: &str, rules: &[&str], from: Duration, limit: Duration) -> io::Result<Option<Told>> {
        self.await_rule_of(None, node, rules, from, limit)
    }

    /// The same of the flow to a port.
    pub(super) fn await_rule_of(
        &self,
        port: Option<u16>,
        node: &str,
        rules: &[&str],
        from: Duration,
        limit: Duration,
    ) -> io::Result<Option<Told>> {
        let of_flow = |told: &&Told| port.is_none_or(|port| told.flow.contains(&format!(":{port} ")));
        let mut found = None;
        self.wait(limit, || {
            let story = self.story()?;
            let first =
                rules.iter().filter_map(|rule| story.of(node, rule, from).find(of_flow)).min_by(|one, other| one.at.total_cmp(&other.at));
            found = first.cloned();
            Ok(found.is_some())
        })?;
        Ok(found)
    }

    /// Waits until something holds; `false` if it does not within `limit`.
    pub(super) fn wait(&self, limit: Duration, mut holds: impl FnMut() -> io::Result<bool>) -> io::Result<bool> {
        let deadline = Instant::now() + limit;
        while !holds()? {
            if Instant::now() > deadline {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Ok(true)
    }
}

impl Stage for Site {
    fn story(&self) -> io::Result<Story> {
        Story::read(&self.directory, &NODES, &self.clock)
    }

    fn lost_frames(&self) -> u64 {
        self.captures.iter().map(|(_, capture)| u64::from(capture.lost())).sum::<u64>() + self.middle.failed()
    }

    fn keep(&mut self, directory: &Path) -> io::Result<()> {
        for (name, capture) in &mut self.captures {
            capture.end();
            capture.write(&directory.join(format!("{name}.pcap")))?;
        }
        for name in NODES {
            std::fs::copy(self.directory.join(format!("{name}.log")), directory.join(format!("{name}.log")))?;
        }
        Ok(())
    }

    fn shown(&self) -> Vec<Shown> {
        self.captures.iter().flat_map(|(name, capture)| capture.look(|frames| Shown::whole(name, frames))).collect()
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.daemons.clear();
        drop(self.remainder.take());
    }
}

fn issue_certificates(directory: &Path, family: Family) -> io::Result<()> {
    let authority = Authority::create("pbs-lab authority")?;
    std::fs::write(directory.join("ca.crt"), authority.certificate())?;
    NODES.into_iter().try_for_each(|node| authority.issue(directory, node, &addresses(node, family), KeyKind::Ed25519).map(drop))
}

/// What a sender is told of relays, a relay of senders, and the router between them of the one behind. The nearest relay is not the
/// first of the list, and the third admits others.
fn own(name: &str, family: Family, refresh: Duration) -> String {
    let [senders, receivers, others] = match family {
        Family::Ipv4 => ["192.168.20.0/24", "192.168.21.0/24", "192.168.99.0/24"],
        Family::Ipv6 => ["fd20::/64", "fd21::/64", "fd99::/64"],
    };
    let mut text = String::new();
    if name == "sender" {
        for relay in ["relay3", "relay2", "relay1"] {
            let address = addresses(relay, family).first().map(ToString::to_string).unwrap_or_default();
            let _ =
                write!(text, "\n[[path]]\nname = \"{relay}\"\nrelay = \"{address}\"\nvolume = {VOLUME}\ndestination = \"{receivers}\"\n");
        }
    }
    let alone = if family == Family::Ipv4 { 32 } else { 128 };
    let router = addresses("router3", family).first().map(|address| format!("{address}/{alone}")).unwrap_or_default();
    if name == "router0" {
        for (name, protocol, port) in [("datagrams", "udp", 270), ("associations", "tcp", ASSOCIATION_PORT)] {
            let _ = write!(
                text,
                "\n[[exempt]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nport = {port}\nat = \"beyond\"\npeer = \"{router}\"\n\
                 rate = 200\nburst = 200\n"
            );
        }
    } else if name.starts_with("relay") {
        let admitted = if name == "relay3" { others } else { senders };
        let _ = write!(
            text,
            "\n[relay]\nforward_to = [\"{receivers}\", \"{router}\"]\n\n[[relay.admit]]\nsource = \"{admitted}\"\n\
             volume = {VOLUME}\nttl = \"600s\"\nrefresh = \"{}s\"\n",
            refresh.as_secs()
        );
    }
    text
}
