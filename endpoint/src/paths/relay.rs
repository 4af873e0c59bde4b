//! A way over a relay: packets leave in packets to it, under a permission of its own (X-99, P-189).
//!
//! That permission is asked for as soon as the daemon runs, and kept: its refreshes are the exchange that tells whether the relay
//! lives and how far it is, through whatever lies between, and a flow that needs the relay does not wait for another handshake.
//! The price is one session at the relay and on the way to it, without packets. While flows are on the way it is asked every second,
//! whatever the refresh period: a relay that dies is left after seconds, and not after a period and two time-outs.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use daemon::threads::Threads;
use gist::time::Instant;
use pbs_nslp::flow::FlowId;
use pbs_nslp::host::Host;
use pbs_nslp::status::Answered;
use pbs_nslp::wire::Volume;
use serde_json::{Value, json};
use traffic::icmp::Room;
use traffic::netlink::NetlinkError;
use traffic::paths::{NextHops, PackCounters, PackDrop, Packer, Towards, set_mtu};
use traffic::tunnel::{Ends, IPV4_INSIDE, IPV6_INSIDE, overhead};

use super::{LEAST_IPV4, LEAST_IPV6, Look, PathsError, Strategy};

/// Names of the devices, by the number of the way, and of the threads behind them.
const DEVICES: [&str; 7] = ["pbs-relay1", "pbs-relay2", "pbs-relay3", "pbs-relay4", "pbs-relay5", "pbs-relay6", "pbs-relay7"];
const THREADS: [&str; 7] = ["relay-1", "relay-2", "relay-3", "relay-4", "relay-5", "relay-6", "relay-7"];
/// How long the thread may take to make its device.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a Query may be unanswered until the relay counts as dead: the first time-out of a Query, and what a busy machine takes.
const LATE: Duration = Duration::from_secs(5);
/// The same while flows are on the way: the least time-out of X-47, which a relay's grace of a second leaves room for.
const SILENT: Duration = Duration::from_secs(3);
/// How often it is asked then, if it answers.
const PROBE: Duration = Duration::from_secs(1);
/// A device carries no more: it has been made for packets of so many octets.
const MOST_MTU: u32 = 1500;

/// A way over a relay.
pub(super) struct ByRelay {
    path: u8,
    relay: IpAddr,
    volume: Volume,
    room: Room,
    device: &'static str,
    link: u32,
    hops: NextHops,
    counters: Arc<PackCounters>,
    /// What the device carries now.
    mtu: Option<u32>,
    /// The flow that carries the others, and what is known of it.
    carrier: Option<FlowId>,
    answered: Option<Answered>,
    /// It has left a Query unanswered for too long, and no other since.
    is_silent: bool,
}

impl ByRelay {
    /// Makes the device, which stays as long as the process.
    pub(super) fn open(
        (name, relay, volume): (&str, IpAddr, u64),
        (number, mask): (u8, u32),
        room: Room,
        threads: &Threads,
    ) -> Result<Self, PathsError> {
        let place = usize::from(number).saturating_sub(1);
        let (Some(device), Some(thread)) = (DEVICES.get(place), THREADS.get(place)) else {
            return Err(PathsError::Relay(name.to_owned(), "there are too many ways".to_owned()));
        };
        let (opened, made) = sync_channel(1);
        let counters = Arc::new(PackCounters::default());
        let shared = Arc::clone(&counters);
        let work = move || match Packer::open(device, relay, shared) {
            Ok(packer) => {
                // Whoever asked for it still waits, or has ended the daemon.
                let _ = opened.send(Ok(packer.link()));
                packer.run().to_string()
            }
            Err(error) => {
                let _ = opened.send(Err(error.to_string()));
                error.to_string()
            }
        };
        let refused = |why: String| PathsError::Relay(name.to_owned(), why);
        threads.spawn(thread, work).map_err(|error| refused(error.to_string()))?;
        let link = match made.recv_timeout(PATIENCE) {
            Ok(made) => made.map_err(refused)?,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return Err(refused("no answer of its thread".to_owned())),
        };
        let volume = Volume(volume);
        let hops = NextHops::open(mask)?;
        let (mtu, carrier, answered) = (None, None, None);
        Ok(Self { path: number, relay, volume, room, device, link, hops, counters, mtu, carrier, answered, is_silent: false })
    }

    /// Follows the routed way to the relay: whose flow carries the others, and how long these may be.
    fn follow(&mut self) -> Option<FlowId> {
        let Towards { source, mtu } = Towards::ask(self.relay).ok()?;
        let ends = Ends { source, destination: self.relay };
        let carried = mtu.saturating_sub(u32::try_from(overhead(&ends)).unwrap_or(u32::MAX)).min(MOST_MTU);
        let least =
            if self.relay.is_ipv4() { LEAST_IPV4.saturating_add(self.room.ipv4) } else { LEAST_IPV6.saturating_add(self.room.ipv6) };
        if carried < least {
            if self.mtu.take().is_some() {
                tracing::warn!(relay = %self.relay, mtu, "the path to the relay is too narrow for packets in packets");
            }
            return None;
        }
        if self.mtu != Some(carried) {
            match set_mtu(self.link, carried) {
                Ok(()) => tracing::info!(relay = %self.relay, mtu = carried, "what the way over the relay carries"),
                Err(error) => {
                    tracing::warn!(relay = %self.relay, %error, "the way over the relay");
                    return None;
                }
            }
            self.mtu = Some(carried);
        }
        let protocol = if self.relay.is_ipv4() { IPV4_INSIDE } else { IPV6_INSIDE };
        FlowId::new(source, self.relay, protocol, 0, 0).ok()
    }
}

impl Strategy for ByRelay {
    fn look(&mut self, host: &mut Host, in_use: bool, now: Instant) -> Look {
        let carrier = self.follow();
        if let Some(former) = self.carrier.filter(|former| carrier != Some(*former)) {
            host.release(former, now);
        }
        self.carrier = carrier;
        self.answered = None;
        let Some(flow) = carrier else { return Look::default() };
        let Some(session) = host.sender().session(&flow) else {
            if let Err(error) = host.want(flow, self.volume, now) {
                tracing::debug!(%flow, %error, "nothing is asked of the relay");
            }
            return Look::default();
        };
        let Some((_, answered)) = session.permission.zip(session.answered) else { return Look::default() };
        self.answered = Some(answered);
        let open = host.sender().unanswered_since(&flow).map(|since| now.saturating_duration_since(since));
        let limit = if in_use { SILENT } else { LATE };
        // Once silent, it counts as dead until it answers, whoever has left it meanwhile.
        self.is_silent = open.is_some_and(|open| self.is_silent || open >= limit);
        if in_use && open.is_none() && now.saturating_duration_since(answered.at) >= PROBE {
            host.probe(flow, now);
        }
        Look { live: !self.is_silent, is_lost: self.is_silent, distance: Some((answered.hops, answered.round_trip)) }
    }

    fn set_up(&mut self) -> Result<(), String> {
        self.hops.set_up_one_way(self.path, self.link, self.relay.is_ipv4()).map_err(|error| error.to_string())
    }

    fn take_down(&mut self) -> Result<(), String> {
        self.hops.take_down(self.path).map_err(|error: NetlinkError| error.to_string())
    }

    fn mtu(&self) -> Option<u32> {
        self.mtu
    }

    fn narrow(&mut self, destination: Ipv6Addr, mtu: u32) -> Result<(), String> {
        self.hops.narrow(self.path, destination, mtu).map(drop).map_err(|error| error.to_string())
    }

    fn show(&self) -> Value {
        let packed = self.counters.packed();
        let dropped: serde_json::Map<String, Value> = PackDrop::ALL
            .iter()
            .map(|reason| (*reason, self.counters.dropped(*reason).packets))
            .filter(|(_, packets)| *packets > 0)
            .map(|(reason, packets)| (reason.word().to_owned(), packets.into()))
            .collect();
        json!({
            "address": self.relay,
            "device": self.device,
            "carrier": self.carrier.map(|flow| flow.to_string()),
            "hops": self.answered.map(|answered| answered.hops),
            "round_trip_ms": self.answered.map(|answered| answered.round_trip.as_secs_f64() * 1000.0),
            "packed": { "packets": packed.packets, "bytes": packed.bytes },
            "dropped": dropped,
        })
    }
}
