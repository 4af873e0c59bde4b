//! What a router or receiver does with a data packet: verify, compare, count, pass or drop (FN-40…43, FR-20…27).

mod batch;

use std::collections::VecDeque;
use std::sync::Arc;

use smoltcp::time::Instant;

use crate::ah::{self, BATCH, Verified, policy};
pub use crate::budget::SignatureBudget;
use crate::budget::Signatures;
use crate::checks::Checks;
use crate::common::Common;
use crate::counters::Counters;
use crate::event::{Event, push_bounded};
use crate::flow::Flow;
use crate::icmp::{self, QuotingError};
use crate::ledger::{self, Late, Ledger, SAMPLE};
use crate::machine::{self, Action, Guards, Outcome, State};
use crate::packet::IpPacket;
use crate::processor::{Arrival, PacketId, PacketProcessor, Released, Verdict};
use crate::reason::DropReason;
use crate::replay::{self, SizeError};
use crate::state::Aside;
use crate::table;
use crate::table::carried::is_tunnel;
use crate::table::inbound::{self, Entry, InboundTable, Place};
use crate::update::{Applied, Refused, Update};

/// Where the verifier stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// On the path: verified packets go on unchanged.
    Router,
    /// At the flow's destination: verified packets go on without their AH (P-162).
    Receiver,
}

/// How a verifier is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VerifierConfig {
    /// Where it stands.
    pub role: Role,
    /// Size of each association's anti-replay window, in numbers.
    pub window: u32,
    /// Most permissions at a time.
    pub capacity: usize,
    /// Signatures verified for one flow; message authentication codes have no such bound.
    pub signatures: SignatureBudget,
    /// Signatures verified for all flows together.
    pub node_signatures: SignatureBudget,
    /// Which numbers a receiver samples; to be drawn at random.
    pub sampling_phase: u32,
}

impl VerifierConfig {
    /// The defaults of a role.
    pub const fn new(role: Role) -> Self {
        let (window, capacity) = (replay::DEFAULT_SIZE, table::DEFAULT_CAPACITY);
        let (signatures, node_signatures) = (SignatureBudget::DEFAULT, SignatureBudget::NODE);
        Self { role, window, capacity, signatures, node_signatures, sampling_phase: 0 }
    }
}

/// The packet side of a router or receiver.
///
/// Order of checks: syntax, whole datagram, destination and SPI, five values of the flow, life time, AH length, window, reach of
/// the allowed volume, budgets of signatures, ICV, PBS policy, allowed volume. The volume comes last, unlike in X-69, so that only a
/// key holder can be told to have gone past it; what a dear check costs is bounded by the budgets of signatures. A router lets ICMP
/// errors about the flows that it knows pass against their direction, cut, few, and counted in no volume ([`crate::icmp`]).
///
/// A value: two verifiers are equal if they would go on alike. Neither the counters nor the checks count for that, and a clone shares
/// both.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Verifier {
    config: VerifierConfig,
    table: InboundTable,
    signatures: Signatures,
    checks: Aside<Arc<dyn Checks>>,
    counters: Aside<Arc<Counters>>,
    events: VecDeque<Event>,
    out: Aside<Vec<u8>>,
}

impl Verifier {
    /// A verifier that lets nothing pass until it is told.
    ///
    /// # Errors
    ///
    /// A window size that [`replay::Window::new`] refuses.
    pub fn new(config: VerifierConfig, checks: Arc<dyn Checks>, counters: Arc<Counters>) -> Result<Self, SizeError> {
        // Only the receiver compares ICVs under one number (E4, X-42).
        let window = inbound::window(config.window, config.role == Role::Receiver)?;
        let ledger = (config.role == Role::Receiver).then(|| Ledger::new(ledger::DEFAULT_CAPACITY, config.sampling_phase));
        let table = InboundTable::new(config.capacity, window, ledger);
        let (checks, counters, out) = (Aside(checks), Aside(counters), Aside(Vec::new()));
        let signatures = Signatures::new(config.signatures, config.node_signatures);
        Ok(Self { config, table, signatures, checks, counters, events: VecDeque::new(), out })
    }

    /// The same, before it has any permission, as that of one of several workers of a node.
    #[must_use]
    pub fn sharing(self, common: &Arc<Common>) -> Self {
        Self { table: self.table.sharing(Arc::clone(common)), signatures: self.signatures.sharing(Arc::clone(common)), ..self }
    }

    /// The permissions.
    pub const fn table(&self) -> &InboundTable {
        &self.table
    }

    /// Judges a packet that was parsed or could not be, counts it, and writes what goes on in its place.
    fn decide<'a>(
        &'a mut self,
        bytes: &[u8],
        packet: Result<&IpPacket<'_>, DropReason>,
        known: Known,
        checks: &dyn Checks,
        now: Instant,
    ) -> Verdict<'a> {
        let passed = packet.and_then(|packet| {
            if self.config.role == Role::Router
                && let Ok(error) = QuotingError::read(packet)
            {
                icmp::admit(&mut self.table, &error, checks, &mut self.out.0, now)?;
                self.counters.count_passed_error(self.out.0.len());
                return Ok(Passed::Rewritten);
            }
            self.judge(packet, known, checks, now)?;
            match self.config.role {
                Role::Router => Ok(Passed::AsItWas),
                Role::Receiver => ah::remove(packet, &mut self.out.0).map(|()| Passed::Rewritten).map_err(|_| DropReason::MissingAh),
            }
        });
        match passed {
            Err(reason) => {
                self.counters.count_dropped(reason, bytes.len());
                Verdict::Drop(reason)
            }
            Ok(passed) => {
                self.counters.count_accepted(bytes.len());
                match passed {
                    Passed::AsItWas => Verdict::Accept,
                    Passed::Rewritten => Verdict::Replace { payload: &self.out.0, mark: None },
                }
            }
        }
    }

    /// Judges a packet; what passes has been counted and its number noted.
    fn judge(&mut self, packet: &IpPacket<'_>, known: Known, checks: &dyn Checks, now: Instant) -> Result<(), DropReason> {
        let length = packet.total_len() as u64;
        let mut verification = Verification { flows: self.table.signed(), signatures: &mut self.signatures, checks, now };
        let mut entry = associate(&mut self.table, packet, known.place, checks, now);
        let verified = match &mut entry {
            Ok(entry) => verification.verify(entry, packet, known.answer),
            Err(reason) => Err(*reason),
        };
        let mut second_holder = false;
        if let (Ok(entry), Err(DropReason::Replayed)) = (&mut entry, &verified) {
            verification.note_late(entry, packet);
            second_holder = verification.shows_second_holder(entry, packet);
        }
        let guards = Guards { second_holder, ..guards(self.config.role, packet, entry.as_deref().ok(), &verified, checks) };
        let mut state = State::INITIAL;
        let mut verdict = Err(verified.err().unwrap_or(DropReason::OverBudget));
        let mut tunnel = None;
        while !state.is_final() {
            let transition = match machine::step(state, machine::Event::RxPacket, guards) {
                Outcome::Take(transition) => transition,
                Outcome::Refuse(rule) => {
                    // Loud, but not once a packet: a key holder decides how many of them there are.
                    if entry.as_deref_mut().is_ok_and(|entry| entry.take_warning(now)) {
                        tracing::warn!(rule, source = %packet.source(), "this rule is not acted upon yet: its packets are dropped");
                    }
                    return verdict;
                }
                Outcome::Ignore => return verdict,
            };
            tracing::trace!(rule = transition.rule, source = %packet.source(), next = %transition.next, "packet");
            for action in transition.actions {
                match (action, entry.as_deref_mut(), &verified) {
                    (Action::Count, Ok(entry), _) => entry.counted = entry.counted.saturating_add(length),
                    (Action::MoveWindow, Ok(entry), Ok(verified)) => {
                        entry.association.commit(*verified);
                        entry.longest = entry.longest.max(short(length));
                        if self.config.role == Role::Router && is_tunnel(entry.flow.protocol) {
                            tunnel = Some(((entry.flow.destination, entry.association.spi()), entry.flow.source));
                        }
                        if let Some(ledger) = &mut entry.ledger {
                            ledger.count(short(verified.number), short(length), verified.tag, now);
                        }
                    }
                    (Action::Pass, Ok(_), Ok(_)) => verdict = Ok(()),
                    (Action::Drop, _, Err(reason)) => verdict = Err(*reason),
                    (Action::DropExcess, ..) => verdict = Err(DropReason::OverBudget),
                    (Action::ReportExcess, Ok(entry), _) => {
                        if entry.take_report(now) {
                            let spi = entry.association.spi();
                            push_bounded(&mut self.events, Event::OverBudget { flow: entry.flow, spi });
                        }
                    }
                    (Action::ReportSecondHolder, Ok(entry), _) => {
                        entry.seldom.second_holder = true;
                        if entry.take_report(now) {
                            let spi = entry.association.spi();
                            push_bounded(&mut self.events, Event::SecondHolder { flow: entry.flow, spi });
                        }
                    }
                    // Actions of the sender's rows, and actions for which there is no entry: the packet stays dropped.
                    (
                        Action::Count
                        | Action::MoveWindow
                        | Action::Pass
                        | Action::Drop
                        | Action::ReportExcess
                        | Action::ReportSecondHolder,
                        ..,
                    )
                    | (Action::TakeNumber | Action::Hold, ..) => {}
                }
            }
            state = transition.next;
        }
        if let Some((tunnel, sender)) = tunnel {
            self.table.note_inside(tunnel, sender, packet.inside());
        }
        verdict
    }
}

/// What was found out about a packet before its turn.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Where its permission probably lies ([`InboundTable::locate`]).
    place: Option<Place>,
    /// Whether its MAC under a short number is right.
    answer: Option<bool>,
}

/// What goes on.
enum Passed {
    /// The packet that came.
    AsItWas,
    /// What stands in `out`.
    Rewritten,
}

/// Finds the permission that a packet claims, and whether it may claim it.
fn associate<'t>(
    table: &'t mut InboundTable,
    packet: &IpPacket<'_>,
    place: Option<Place>,
    checks: &dyn Checks,
    now: Instant,
) -> Result<&'t mut Entry, DropReason> {
    if packet.fragment().is_some() {
        return Err(DropReason::FragmentNotReassembled);
    }
    let flow = packet.of_flow().ok_or(DropReason::Malformed)?;
    let Some(ah) = packet.ah() else {
        return Err(if table.covers(flow) { DropReason::MissingAh } else { DropReason::NoPermission });
    };
    let entry = table.get_mut_at(place, (flow.destination, ah.spi())).ok_or(DropReason::UnknownSpi)?;
    may_claim(entry, flow, checks, now).map(|()| entry)
}

/// Whether a packet of `flow` may go under the permission that it names.
fn may_claim(entry: &Entry, flow: &Flow, checks: &dyn Checks, now: Instant) -> Result<(), DropReason> {
    if !checks.is_of_flow(&entry.flow, flow) {
        Err(DropReason::FlowMismatch)
    } else if !checks.is_live(entry.expires_at, now) {
        Err(DropReason::Expired)
    } else {
        Ok(())
    }
}

/// Nobody who keeps to the permission can be so far ahead. Numbers and volumes both begin with the epoch; as long as no
/// number is known of the part that was sent before this node began to count, all of the volume may have been sent in it.
fn check_reach(entry: &Entry, packet: &IpPacket<'_>, number: u64, checks: &dyn Checks) -> Result<(), DropReason> {
    let window = entry.association.window();
    let left = if window.highest() == 0 { entry.allowed } else { entry.allowed.saturating_sub(entry.counted) };
    let shortest = entry.association.shortest(packet.source().is_ipv6()) as u64;
    if checks.is_within_reach(window, number, left, shortest) { Ok(()) } else { Err(DropReason::TooFarAhead) }
}

/// The checks of one packet's number and ICV, and what they may cost.
struct Verification<'v> {
    signatures: &'v mut Signatures,
    /// How many flows share the node's budget.
    flows: usize,
    checks: &'v dyn Checks,
    now: Instant,
}

impl Verification<'_> {
    /// RFC 4302 first, then what PBS asks beyond it. `answer` as in [`Known`].
    fn verify(&mut self, entry: &mut Entry, packet: &IpPacket<'_>, answer: Option<bool>) -> Result<Verified, DropReason> {
        let number = entry.association.precheck(packet, self.checks)?;
        check_reach(entry, packet, number, self.checks)?;
        if !self.is_affordable(entry) {
            return Err(DropReason::VerificationBudget);
        }
        let verified = entry.association.verify_numbered(packet, number, answer, self.checks)?;
        policy::check(packet, entry.association.window().numbering())?;
        Ok(verified)
    }

    /// Whether one more ICV may be checked for this flow: MACs always, signatures within the budgets.
    fn is_affordable(&mut self, entry: &mut Entry) -> bool {
        let weight = entry.association.key().weight();
        weight.is_none_or(|weight| self.signatures.take(&mut entry.seldom.signatures, weight, self.flows, self.now))
    }

    /// Takes note of a packet that came too late for the window, if its number is one of those sampled, its ICV is right, and it is
    /// no copy of one that was counted (T3). Only a receiver has a ledger.
    fn note_late(&mut self, entry: &mut Entry, packet: &IpPacket<'_>) {
        let Some((number, tag)) = entry.association.too_late(packet) else { return };
        if entry.ledger.as_ref().map(|ledger| ledger.late(short(number), tag)) != Some(Late::Other) {
            return;
        }
        if self.is_affordable(entry) && self.checks.icv_matches(packet, entry.association.key(), None) {
            entry.seldom.late = entry.seldom.late.saturating_add(packet.total_len() as u64 * u64::from(SAMPLE));
        }
    }

    /// Whether the packet proves that somebody beside the sender holds the key (E4).
    fn shows_second_holder(&mut self, entry: &mut Entry, packet: &IpPacket<'_>) -> bool {
        entry.association.resembles_seen(packet).is_some()
            && self.is_affordable(entry)
            && entry.association.shows_second_holder(packet, self.checks)
    }
}

/// Numbers are short in PBS, and no packet is longer than 65,575 octets.
fn short(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn guards(
    role: Role,
    packet: &IpPacket<'_>,
    entry: Option<&Entry>,
    verified: &Result<Verified, DropReason>,
    checks: &dyn Checks,
) -> Guards {
    let guards = Guards { router: role == Role::Router, valid: verified.is_ok(), ..Guards::default() };
    let Some(entry) = entry else { return guards };
    Guards {
        fits: verified.is_ok() && checks.within_budget(entry.counted, packet.total_len() as u64, entry.allowed),
        draining: entry.draining,
        lowered: entry.allowed < entry.peak,
        ..guards
    }
}

impl PacketProcessor for Verifier {
    fn apply(&mut self, update: Update, now: Instant) -> Result<Applied, Refused> {
        self.table.apply(update, now)
    }

    fn process<'a>(&'a mut self, _id: PacketId, bytes: &[u8], now: Instant) -> Verdict<'a> {
        let checks = Arc::clone(&self.checks.0);
        let packet = IpPacket::parse(bytes).map_err(DropReason::from);
        self.decide(bytes, packet.as_ref().map_err(|reason| *reason), Known::default(), &*checks, now)
    }

    fn batch_size(&self) -> usize {
        BATCH
    }

    fn process_batch(&mut self, packets: &[Arrival<'_>], now: Instant, give: &mut dyn FnMut(usize, Verdict<'_>)) {
        for (at, packets) in packets.chunks(BATCH).enumerate() {
            self.decide_batch(packets, now, &mut |place, verdict| give(at * BATCH + place, verdict));
        }
    }

    fn poll_released(&mut self) -> Option<(PacketId, Released)> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.table.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.table.poll_timeout()
    }
}
