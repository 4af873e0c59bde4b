//! One thing being tried: from the counters before to the evidence afterwards.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

use super::SETTLE;
use super::evidence::{Evidence, Figures, Watch, Way};
use super::line::Line;
use super::site::{Drops, Site};
use crate::network::capture::{Capture, Frame};
use crate::network::topology::Family;

/// How long a permission may take before the demonstration calls it missing.
const GRANT_LIMIT: Duration = Duration::from_secs(10);

/// Octets that may wait for the receiving program.
const RECEIVE_BUFFER: usize = 8 << 20;

/// One line while it is being tried.
pub struct Trial<'a> {
    site: &'a Site,
    before: Drops,
    watch: Watch,
    lying: bool,
    /// What the flow may have in all, over several permissions; 0 if that is what one allows.
    limit: u64,
    /// The line as far as it is known.
    pub line: Line,
}

impl<'a> Trial<'a> {
    /// Starts a trial about the flow from the sender to `port` of the receiver.
    pub fn start(site: &'a Site, name: impl Into<String>, tried: impl Into<String>, family: Family, port: u16) -> io::Result<Self> {
        let from_us = site.now_us();
        let watch = Watch { family, source: None, port, payload: None, from_us, to_us: u64::MAX };
        Ok(Self { site, before: site.drops()?, watch, lying: false, limit: 0, line: Line::new(name, tried) })
    }

    /// Looks at packets of this source instead of the sender's.
    pub fn only_source(mut self, source: IpAddr) -> Self {
        self.watch.source = Some(source);
        self
    }

    /// The sender's own node may count more than it is allowed: it lies.
    pub fn of_liar(mut self) -> Self {
        self.lying = true;
        self
    }

    /// The flow may have so many octets in all: who has used up nearly all of them may ask again, and is allowed the few that are left.
    pub fn of_limit(mut self, octets: u64) -> Self {
        self.limit = octets;
        self
    }

    /// Looks only at packets whose payload holds these octets.
    pub fn only_payload(mut self, payload: &[u8]) -> Self {
        self.watch.payload = Some(hex::encode(payload));
        self
    }

    /// A plain socket of the sender and one of the receiver, for this flow.
    pub fn sockets(&self) -> io::Result<(UdpSocket, UdpSocket)> {
        let Watch { family, port, .. } = self.watch;
        let receiver = self.site.chain.receiver.run(|| UdpSocket::bind((family.receiver(), port)))?;
        // On a busy machine the program may come late to its packets: what is measured is the path to it.
        setsockopt(&receiver, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
        let sender = self.site.chain.sender.run(|| UdpSocket::bind((family.sender(), source_port(port))))?;
        Ok((sender, receiver))
    }

    /// Where the flow goes.
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.watch.family.receiver(), self.watch.port)
    }

    /// What the capture on the sender's link shows so far.
    pub fn on_sender_link(&self) -> Figures {
        self.gather(&self.site.left).there
    }

    /// What the capture on the receiver's link shows so far.
    pub fn on_receiver_link(&self) -> Figures {
        self.gather(&self.site.right).there
    }

    /// Waits until a packet of the flow was on the receiver's link; if none comes, the line does not hold.
    pub fn await_grant(&mut self) -> Option<Duration> {
        let arrived = self.await_arrival(GRANT_LIMIT);
        self.line.must(arrived.is_some(), format!("nothing arrived within {} s: no permission", GRANT_LIMIT.as_secs()));
        arrived
    }

    /// Waits until a packet of the flow was on the receiver's link.
    pub fn await_arrival(&self, patience: Duration) -> Option<Duration> {
        let started = Instant::now();
        while started.elapsed() < patience {
            if self.site.right.look(|frames| frames.iter().rev().any(|frame| self.watch.sees(frame).is_some())) {
                return Some(started.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        None
    }

    /// How long after `from` the flow's first packet under AH was on the sender's link, in microseconds since the captures started:
    /// the sender holds it until it has the permission, and then sends it at once. If there is none, the line does not hold.
    pub fn measure_grant(&mut self, from_us: u64) {
        let of_flow = |frame: &&Frame| self.watch.sees(frame).is_some_and(|(way, seen)| way == Way::There && seen.authentication.is_some());
        let first = self.site.left.look(|frames| frames.iter().find(of_flow).map(|frame| frame.at));
        match first.and_then(|at| at.checked_sub(Duration::from_micros(from_us))) {
            Some(after) => self.line.measure(format!("grant after {:.1} ms", after.as_secs_f64() * 1e3)),
            None => self.line.must(false, "no packet under AH left the sender: there is no grant to time"),
        }
    }

    /// When the last packet of the flow so far was on the receiver's link, in microseconds since the captures started.
    pub fn last_arrival_us(&self) -> Option<u64> {
        let last = self.site.right.look(|frames| frames.iter().rev().find(|frame| self.watch.sees(frame).is_some()).map(|frame| frame.at));
        last.and_then(|at| u64::try_from(at.as_micros()).ok())
    }

    /// Ends the trial: waits until everything is counted, then notes what was dropped where and what the captures show.
    pub fn finish(mut self) -> io::Result<Line> {
        std::thread::sleep(SETTLE);
        self.watch.to_us = self.site.now_us();
        self.line.dropped = self.site.drops()?.since(&self.before);
        self.line.sender_link = self.gather(&self.site.left);
        self.line.receiver_link = self.gather(&self.site.right);
        self.line.arrived = self.line.receiver_link.there.packets;
        self.must_stay_within_budget()?;
        self.line.watch = Some(self.watch);
        Ok(self.line)
    }

    /// No node may have counted more for the flow than it allows (INV-02), nor may more have passed the router since the trial
    /// began.
    fn must_stay_within_budget(&mut self) -> io::Result<()> {
        let octets = self.line.receiver_link.there.octets;
        for (node, daemon) in [("sender", &self.site.sender), ("router", &self.site.router), ("receiver", &self.site.receiver)] {
            let Some(flow) = self.site.flow(daemon, self.watch.port)? else { continue };
            if node == "sender" && self.lying {
                continue;
            }
            let figure = |name: &str| flow.get(name).and_then(Value::as_u64);
            let (counted, allowed) = (figure("counted"), figure("allowed"));
            let within = |volume: Option<u64>| volume.zip(allowed).is_some_and(|(volume, allowed)| volume <= allowed);
            self.line.must(within(counted), format!("{node} counted {counted:?}, it allows {allowed:?}"));
            let most = allowed.map(|allowed| allowed.max(self.limit));
            self.line.must(most.is_some_and(|most| octets <= most), format!("{octets} octets passed, {node} allows {most:?}"));
        }
        Ok(())
    }

    fn gather(&self, capture: &Capture) -> Evidence {
        capture.look(|frames| Evidence::gather(&self.watch, frames))
    }
}

/// The sender's port for a flow to `port`.
pub fn source_port(port: u16) -> u16 {
    port.saturating_add(20_000)
}

/// Name and description of a line of which there is one for each IP version.
pub fn of_family(family: Family, name: &str, tried: &str) -> (String, String) {
    match family {
        Family::Ipv4 => (name.to_owned(), tried.to_owned()),
        Family::Ipv6 => (format!("{name}-ipv6"), format!("{tried}, IPv6")),
    }
}
