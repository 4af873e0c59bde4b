//! The site of scenarios with two ways: sender – router1 – (router2a | router2b) – receiver, their daemons, captures at both ends.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::Stage;
use super::audit::{Of, Shown};
use super::chance::Plan;
use super::flow::Programs;
use super::outcome::Outcome;
use super::policy::Policy;
use super::site::{PORT, of_flow};
use super::story::{Clock, Story};
use crate::demo::trial::source_port;
use crate::network::capture::Capture;
use crate::network::fork::{self, Addresses, Chooser, Fork, Way};
use crate::network::namespace::Namespace;
use crate::network::topology::Family;
use crate::pki::{Authority, KeyKind};
use crate::process::{Daemon, Program};
use crate::remains::Remainder;

/// The nodes.
const NODES: [&str; 5] = ["sender", "router1", "router2a", "router2b", "receiver"];
/// The captures' files.
const CAPTURES: [&str; 3] = ["sender-link", "behind-router2a", "behind-router2b"];
/// Octets asked for and granted.
const VOLUME: u64 = 64_000_000;
/// Octets that may wait for the receiving program.
const RECEIVE_BUFFER: usize = 16 << 20;
/// How often captures are looked at.
const STEP: Duration = Duration::from_millis(2);

/// One scenario.
#[derive(Debug)]
pub struct Scenario {
    /// What it is called.
    pub(super) name: &'static str,
    /// What it tries, and what must follow.
    pub(super) what: &'static str,
    pub(super) terms: Terms,
    pub(super) run: Play,
}

/// Plays a scenario; the last argument hears what is being tried.
type Play = fn(&mut Site, &mut Outcome, &dyn Fn(&str)) -> io::Result<()>;

/// What a scenario needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Who chooses the way.
    pub(super) chooser: Chooser,
    /// Refresh period T, whole seconds.
    pub(super) refresh: Duration,
}

/// Everything that runs.
pub(super) struct Site {
    directory: PathBuf,
    clock: Clock,
    family: Family,
    /// What chance has decided.
    pub(super) plan: Plan,
    /// Refresh period T.
    pub(super) refresh: Duration,
    pub(super) network: Fork,
    /// On the first router's side of the sender's link.
    first: Capture,
    /// Behind either second router, by way.
    behind: [Capture; 2],
    daemons: BTreeMap<&'static str, Daemon>,
    /// Removes the directory, last of all.
    remainder: Option<Remainder>,
}

impl Site {
    /// Builds network, keys and configurations, and starts all five daemons.
    pub(super) fn build(terms: Terms, family: Family, plan: Plan) -> io::Result<Self> {
        let (remainder, directory) = Remainder::temporary("pbs-lab-scenario")?;
        let remainder = if std::env::var_os("PBS_LAB_KEEP_LOGS").is_none() {
            Some(remainder)
        } else {
            remainder.keep();
            None
        };
        issue_certificates(&directory, family)?;
        let routers = &["router1", "router2a", "router2b"];
        let policy = Policy { family, routers, refresh: terms.refresh, volume: VOLUME, reactions: "" };
        NODES.iter().try_for_each(|name| std::fs::write(directory.join(format!("{name}.toml")), policy.configuration(name)))?;
        let network = Fork::build(terms.chooser, family)?;
        let clock = Clock::start()?;
        let first = Capture::start(&network.router1, fork::FIRST_LINK, clock.started)?;
        let [a, b] = &network.router2;
        let behind = [Capture::start(a, fork::LAST_LINK, clock.started)?, Capture::start(b, fork::LAST_LINK, clock.started)?];
        let (refresh, daemons) = (terms.refresh, BTreeMap::new());
        let mut site = Self { directory, clock, family, plan, refresh, network, first, behind, daemons, remainder };
        for name in ["router1", "router2a", "router2b", "receiver", "sender"] {
            site.start(name)?;
        }
        Ok(site)
    }

    fn host(&self, name: &str) -> &Namespace {
        let [a, b] = &self.network.router2;
        match name {
            "sender" => &self.network.sender,
            "router1" => &self.network.router1,
            "router2a" => a,
            "router2b" => b,
            _ => &self.network.receiver,
        }
    }

    /// Starts a node's daemon, and waits until it answers.
    pub(super) fn start(&mut self, name: &'static str) -> io::Result<()> {
        let program = if name.starts_with("router") { Program::Router } else { Program::Host };
        let daemon = Daemon::start(self.host(name), program, &self.directory, name)?;
        self.daemons.insert(name, daemon);
        Ok(())
    }

    /// Kills a node's daemon (SIGKILL). Its rules stay.
    pub(super) fn kill(&mut self, name: &'static str) -> io::Result<()> {
        self.daemons.remove(name).map_or(Ok(()), |mut daemon| daemon.kill())
    }

    /// Time since the captures started, as they and the story tell it.
    pub(super) fn now(&self) -> Duration {
        self.clock.started.elapsed()
    }

    /// What the daemons have logged so far.
    pub(super) fn story(&self) -> io::Result<Story> {
        Story::read(&self.directory, &NODES, &self.clock)
    }

    /// Plain programs that know nothing of permissions.
    pub(super) fn programs(&self) -> io::Result<Programs> {
        let receiver = self.network.receiver.run(|| UdpSocket::bind((self.family.receiver(), PORT)))?;
        setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        let sender = self.network.sender.run(|| UdpSocket::bind((self.family.sender(), source_port(PORT))))?;
        sender.connect((self.family.receiver(), PORT))?;
        Ok(Programs { sender, receiver, plan: self.plan.clone() })
    }

    /// When the flow's first packet after `from` was on the receiver's link of this way; `None` if there is none within `limit`.
    pub(super) fn await_arrival(&self, way: Way, from: Duration, limit: Duration) -> Option<Duration> {
        let deadline = Instant::now() + limit;
        loop {
            let first = way.of(self.behind.each_ref()).look(|frames| {
                let since = frames.partition_point(|frame| frame.at < from);
                frames.iter().skip(since).find(|frame| of_flow(frame).is_some()).map(|frame| frame.at)
            });
            if first.is_some() || Instant::now() > deadline {
                return first;
            }
            std::thread::sleep(STEP);
        }
    }

    /// The flow's packets on the receiver's link of this way.
    pub(super) fn count_behind(&self, way: Way, name: &str, within: (Duration, Duration)) -> Shown {
        let [_, a, b] = CAPTURES;
        way.of(self.behind.each_ref()).look(|frames| Shown::count(name, way.of([a, b]), frames, Of::Flow, within))
    }

    /// When the flow's last packet before `until` was on the receiver's link of this way.
    pub(super) fn last_arrival(&self, way: Way, until: Duration) -> Option<Duration> {
        way.of(self.behind.each_ref()).look(|frames| {
            let before = frames.iter().rev().skip_while(|frame| frame.at > until);
            before.clone().find(|frame| of_flow(frame).is_some()).map(|frame| frame.at)
        })
    }
}

impl Stage for Site {
    fn story(&self) -> io::Result<Story> {
        Self::story(self)
    }

    fn lost_frames(&self) -> u64 {
        self.behind.iter().chain([&self.first]).map(|capture| u64::from(capture.lost())).sum()
    }

    fn keep(&mut self, directory: &Path) -> io::Result<()> {
        let [a, b] = &mut self.behind;
        for (capture, name) in [&mut self.first, a, b].into_iter().zip(CAPTURES) {
            capture.end();
            capture.write(&directory.join(format!("{name}.pcap")))?;
        }
        for name in NODES {
            std::fs::copy(self.directory.join(format!("{name}.log")), directory.join(format!("{name}.log")))?;
        }
        Ok(())
    }

    fn shown(&self) -> Vec<Shown> {
        let [a, b] = &self.behind;
        let captures = [&self.first, a, b].into_iter().zip(CAPTURES);
        captures.flat_map(|(capture, name)| capture.look(|frames| Shown::whole(name, frames))).collect()
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
    let Addresses { router1, router2: [a, b], receiver_links, .. } = Addresses::of(family);
    let receiver: Vec<IpAddr> = receiver_links.into_iter().chain([family.receiver()]).collect();
    let nodes: [(&str, &[IpAddr]); 5] =
        [("sender", &[family.sender()]), ("router1", &router1), ("router2a", &a), ("router2b", &b), ("receiver", &receiver)];
    for (node, addresses) in nodes {
        authority.issue(directory, node, addresses, KeyKind::Ed25519)?;
    }
    Ok(())
}
