//! What a router or receiver does with a data packet: verify, compare, count, pass or drop (FN-40…43, FR-20…27).

use std::collections::VecDeque;
use std::sync::Arc;

use smoltcp::time::Instant;

use crate::ah::{self, InboundAssociation, Verified, policy};
use crate::checks::Checks;
use crate::counters::Counters;
use crate::event::{Event, push_bounded};
use crate::machine::{self, Action, Guards, Outcome, State};
use crate::packet::IpPacket;
use crate::processor::{PacketId, PacketProcessor, Released, Verdict};
use crate::reason::DropReason;
use crate::replay::{self, SizeError};
use crate::table::inbound::{self, Entry, InboundTable};
use crate::table::{self};
use crate::update::{Applied, Refused, Update};

/// Where the verifier stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// On the path: verified packets go on unchanged.
    Router,
    /// At the flow's destination: verified packets go on without their AH (P-162).
    Receiver,
}

/// How a verifier is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifierConfig {
    /// Where it stands.
    pub role: Role,
    /// Size of each association's anti-replay window, in numbers.
    pub window: u32,
    /// Most permissions at a time.
    pub capacity: usize,
}

impl VerifierConfig {
    /// The defaults of a role.
    pub const fn new(role: Role) -> Self {
        Self { role, window: replay::DEFAULT_SIZE, capacity: table::DEFAULT_CAPACITY }
    }
}

/// The packet side of a router or receiver.
///
/// Order of checks: syntax, whole datagram, destination and SPI, five values of the flow, life time, AH length, window,
/// ICV, PBS policy, allowed volume. The volume comes last so that only a key holder can be told to have gone past it; the
/// cheaper order of X-69 is for algorithms whose check is dear, of which there is none yet.
#[derive(Debug)]
pub struct Verifier {
    role: Role,
    table: InboundTable,
    checks: Arc<dyn Checks>,
    counters: Arc<Counters>,
    events: VecDeque<Event>,
    out: Vec<u8>,
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
        let table = InboundTable::new(config.capacity, window);
        Ok(Self { role: config.role, table, checks, counters, events: VecDeque::new(), out: Vec::new() })
    }

    /// The permissions.
    pub const fn table(&self) -> &InboundTable {
        &self.table
    }

    /// Judges a packet; what passes has been counted and its number noted.
    fn judge(&mut self, packet: &IpPacket<'_>, now: Instant) -> Result<(), DropReason> {
        let checks = self.checks.as_ref();
        let length = packet.total_len() as u64;
        let mut entry = associate(&mut self.table, packet, checks, now);
        let verified = match &entry {
            Ok(entry) => verify(&entry.association, packet, checks),
            Err(reason) => Err(*reason),
        };
        let guards = guards(self.role, packet, entry.as_deref().ok(), &verified, checks);
        let mut state = State::INITIAL;
        let mut verdict = Err(verified.err().unwrap_or(DropReason::OverBudget));
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
                    (Action::MoveWindow, Ok(entry), Ok(verified)) => entry.association.commit(*verified),
                    (Action::Pass, Ok(_), Ok(_)) => verdict = Ok(()),
                    (Action::Drop, _, Err(reason)) => verdict = Err(*reason),
                    (Action::DropExcess, ..) => verdict = Err(DropReason::OverBudget),
                    (Action::ReportExcess, Ok(entry), _) => {
                        if entry.take_report(now) {
                            let spi = entry.association.spi();
                            push_bounded(&mut self.events, Event::OverBudget { flow: entry.flow, spi });
                        }
                    }
                    // Actions of the sender's rows, and actions for which there is no entry: the packet stays dropped.
                    (Action::Count | Action::MoveWindow | Action::Pass | Action::Drop | Action::ReportExcess, ..)
                    | (Action::TakeNumber | Action::Hold, ..) => {}
                }
            }
            state = transition.next;
        }
        verdict
    }
}

/// Finds the permission that a packet claims, and whether it may claim it.
fn associate<'t>(
    table: &'t mut InboundTable,
    packet: &IpPacket<'_>,
    checks: &dyn Checks,
    now: Instant,
) -> Result<&'t mut Entry, DropReason> {
    if packet.fragment().is_some() {
        return Err(DropReason::FragmentNotReassembled);
    }
    let flow = packet.flow().ok_or(DropReason::Malformed)?;
    let Some(ah) = packet.ah() else {
        return Err(if table.covers(&flow) { DropReason::MissingAh } else { DropReason::NoPermission });
    };
    let entry = table.get_mut((flow.destination, ah.spi())).ok_or(DropReason::UnknownSpi)?;
    if entry.flow != flow {
        return Err(DropReason::FlowMismatch);
    }
    if !checks.is_live(entry.expires_at, now) {
        return Err(DropReason::Expired);
    }
    Ok(entry)
}

/// RFC 4302 first, then what PBS asks beyond it.
fn verify(association: &InboundAssociation, packet: &IpPacket<'_>, checks: &dyn Checks) -> Result<Verified, DropReason> {
    let verified = association.verify(packet, checks)?;
    policy::check(packet, association.window().numbering())?;
    Ok(verified)
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
        second_holder: matches!(verified, Err(DropReason::Replayed)) && entry.association.shows_second_holder(packet, checks),
        fits: verified.is_ok() && checks.within_budget(entry.counted, packet.total_len() as u64, entry.allowed),
        draining: entry.draining,
        lowered: entry.lowered,
        ..guards
    }
}

impl PacketProcessor for Verifier {
    fn apply(&mut self, update: Update, _now: Instant) -> Result<Applied, Refused> {
        self.table.apply(update)
    }

    fn process<'a>(&'a mut self, _id: PacketId, bytes: &[u8], now: Instant) -> Verdict<'a> {
        let passed = IpPacket::parse(bytes).map_err(DropReason::from).and_then(|packet| {
            self.judge(&packet, now)?;
            match self.role {
                Role::Router => Ok(()),
                Role::Receiver => ah::remove(&packet, &mut self.out).map_err(|_| DropReason::MissingAh),
            }
        });
        match (passed, self.role) {
            (Err(reason), _) => {
                self.counters.count_dropped(reason, bytes.len());
                Verdict::Drop(reason)
            }
            (Ok(()), role) => {
                self.counters.count_accepted(bytes.len());
                match role {
                    Role::Router => Verdict::Accept,
                    Role::Receiver => Verdict::Replace { payload: &self.out, mark: None },
                }
            }
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
