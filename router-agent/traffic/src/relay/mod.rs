//! A host as a relay (X-99): the packet inside a permitted one is sent on in its sender's name.
//!
//! ```text
//! queue ── verifier ── AH gone, protocol 4 or 41? ── checks ── outlet: the inner packet, one hop further
//!             │                                        └────── outlet: "too big" about the packet around it
//!             └─ everything else: as on any host
//! ```
//!
//! The packet never comes back to the kernel in between, so that nothing can be sent through a relay but what the verifier has
//! let pass under a live permission: no filter rule, exemption or mode leads around it, and no other program's packet gets in.

mod answer;
mod forward;
mod outlet;
mod reason;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use smoltcp::time::{Duration, Instant};

use crate::event::Event;
use crate::icmp::{Kind, Rates};
use crate::packet::IpPacket;
use crate::processor::{PacketId, PacketProcessor, Released, Verdict};
use crate::reason::DropReason;
use crate::update::{Applied, Refused, Update};

use forward::Forwarded;

pub use forward::{RelayRules, is_one_node};
pub use outlet::{NotSent, Outlet, OutletError, RawOutlet};
pub use reason::{RelayCounters, RelayDrop};

/// Senders told apart at most; others have to wait until one of these has sent nothing for [`KEPT`].
const MOST_SENDERS: usize = 1024;
/// How long a sender that sends nothing is remembered: until its bucket is certainly full again.
const KEPT: Duration = Duration::from_secs(1);
/// A sender's bucket holds what it may send in one second divided by this.
const BURST: u64 = 10;
const ONE: u64 = 1_000_000;

/// A verifier of a host whose permitted packets of protocols 4 and 41 are for others.
pub struct Relay {
    verifier: Box<dyn PacketProcessor>,
    rules: RelayRules,
    outlet: Box<dyn Outlet>,
    senders: BTreeMap<IpAddr, Sender>,
    counters: Arc<RelayCounters>,
    /// The packet under examination, without its AH.
    outer: Vec<u8>,
    /// What is sent.
    out: Vec<u8>,
}

/// What a sender may still have forwarded.
#[derive(Debug, Clone, Copy)]
struct Sender {
    /// Millionths of packets.
    left: u64,
    at: Instant,
    errors: Rates,
}

impl Relay {
    /// Forwards what `verifier` has let pass, as the rules say.
    pub fn new(verifier: Box<dyn PacketProcessor>, rules: RelayRules, outlet: Box<dyn Outlet>, counters: Arc<RelayCounters>) -> Self {
        Self { verifier, rules, outlet, senders: BTreeMap::new(), counters, outer: Vec::new(), out: Vec::new() }
    }

    /// Sends the inner packet on. It stands in `out` then, and so it does if it was too big.
    fn send_on(&mut self, now: Instant) -> Result<(), RelayDrop> {
        let Forwarded { source, destination } = forward::forward(&self.outer, &self.rules, &mut self.out)?;
        self.take(source, now).ok_or(RelayDrop::RelayRate)?;
        self.outlet.send(destination, &self.out).map_err(|not_sent| match not_sent {
            NotSent::TooBig => RelayDrop::TooBig,
            NotSent::NoRoute => RelayDrop::NoRoute,
            NotSent::Busy => RelayDrop::LinkBusy,
            NotSent::Filtered => RelayDrop::Filtered,
            NotSent::Failed => RelayDrop::NotSent,
        })
    }

    /// Whether one more packet of this sender may be sent on.
    fn take(&mut self, source: IpAddr, now: Instant) -> Option<()> {
        let rate = u64::from(self.rules.rate.max(1));
        let full = rate.saturating_mul(ONE).div_euclid(BURST).max(ONE);
        if !self.senders.contains_key(&source) && self.senders.len() >= MOST_SENDERS {
            self.senders.retain(|_, sender| now < sender.at + KEPT);
            if self.senders.len() >= MOST_SENDERS {
                return None;
            }
        }
        let sender = self.senders.entry(source).or_insert(Sender { left: full, at: now, errors: Rates::default() });
        let elapsed = u64::try_from(now.total_micros().saturating_sub(sender.at.total_micros())).unwrap_or(0);
        sender.left = sender.left.saturating_add(elapsed.saturating_mul(rate)).min(full);
        sender.at = now;
        sender.left = sender.left.checked_sub(ONE)?;
        Some(())
    }

    /// Answers the packet around the one that is too long, as it came: the nodes on its way know that one, and not the inner one,
    /// which stands in `out`.
    fn tell_too_big(&mut self, came: &[u8], now: Instant) -> Option<()> {
        let outer = IpPacket::parse(&self.outer).ok()?;
        let (sender, relay) = (outer.source(), outer.destination());
        let destination = IpPacket::parse(&self.out).ok()?.destination();
        // Any number: what is taken is the same for all.
        if !self.senders.get_mut(&sender)?.errors.take(Kind::TooBig(0), now) {
            return None;
        }
        // What the packet had around it on its way to here: the outer header and AH.
        let around = u32::try_from(came.len().checked_sub(self.out.len())?).ok()?;
        let mtu = self.outlet.carried(destination)?.saturating_add(around);
        if answer::too_big(came, mtu, relay, sender, &mut self.out) && self.outlet.send(sender, &self.out).is_ok() {
            self.counters.count_told_too_big(self.out.len());
        }
        Some(())
    }
}

impl PacketProcessor for Relay {
    fn apply(&mut self, update: Update, now: Instant) -> Result<Applied, Refused> {
        self.verifier.apply(update, now)
    }

    fn process<'a>(&'a mut self, id: PacketId, bytes: &[u8], now: Instant) -> Verdict<'a> {
        if !IpPacket::parse(bytes).is_ok_and(|packet| forward::is_packed(&packet)) {
            return self.verifier.process(id, bytes, now);
        }
        match self.verifier.process(id, bytes, now) {
            Verdict::Replace { payload, .. } => {
                self.outer.clear();
                self.outer.extend_from_slice(payload);
            }
            Verdict::Drop(reason) => return Verdict::Drop(reason),
            // A receiver lets nothing pass with its AH, and holds nothing: what is packed never goes on to the kernel.
            Verdict::Accept | Verdict::Taken | Verdict::Hold => return Verdict::Drop(DropReason::NoPermission),
        }
        match self.send_on(now) {
            Ok(()) => self.counters.count_forwarded(self.out.len()),
            Err(reason) => {
                tracing::trace!(id = id.0, %reason, "not relayed");
                self.counters.count_dropped(reason, self.outer.len());
                if reason == RelayDrop::TooBig {
                    self.tell_too_big(bytes, now);
                }
            }
        }
        Verdict::Taken
    }

    fn poll_released(&mut self) -> Option<(PacketId, Released)> {
        self.verifier.poll_released()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.verifier.poll_event()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.verifier.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.verifier.poll_timeout()
    }
}
