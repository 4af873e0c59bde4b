//! What a sender's host does with a packet that wants out: put AH on it, hold it, or drop it (FS-40…43).

mod admit;
mod ask;
mod attempt;
mod batch;
mod config;
mod errors;
mod held;
mod holders;
mod identification;
mod questions;
mod whole;

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use smoltcp::time::Instant;

use self::admit::admit;
pub use self::ask::AskRule;
use self::attempt::{Attempt, sealed};
pub use self::config::InserterConfig;
pub use self::held::HeldLimits;
use self::held::{Held, Waiting};
use self::holders::Owner;
pub use self::identification::IdentificationKey;
pub use self::questions::QuestionLimits;
use self::questions::Questions;
use crate::ah::{self, Number, Sealing};
use crate::checks::Checks;
use crate::counters::Counters;
use crate::event::{Event, push_bounded};
use crate::flow::Flow;
use crate::machine::{self, Action, Guards, Outcome, State};
use crate::packet::IpPacket;
use crate::processor::{Arrival, PacketId, PacketProcessor, Released, Segments, UserId, Verdict};
use crate::reason::DropReason;
use crate::state::{Aside, Map, Micros};
use crate::table::outbound::OutboundTable;
use crate::update::{Applied, Grant, Refusal, Refused, Update};

/// Longest packet that the packet queue takes back, in octets (X-87: the length field of its payload attribute ends here).
pub const MAX_PACKET: usize = 65_531;

/// The packet side of a sender's host.
///
/// Every packet that comes here leaves with AH under a live permission, or not at all: exemptions are the filter rules'
/// matter. Packets of one flow leave in the order in which they came.
///
/// A local program that sends to whoever does not answer harms itself alone: what waits is bounded well below the queue's
/// capacity and taken from the biggest holder, and users take turns in asking. That holds as long as the queue's thread keeps up:
/// of more packets a second than it can judge, the kernel drops without regard to whose they are.
///
/// A value, as the [`Verifier`](crate::verifier::Verifier) is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inserter {
    config: InserterConfig,
    table: OutboundTable,
    /// Flows that signalling asks for already, and until when.
    expected: Map<Flow, Instant>,
    /// Flows that leave by another way than the routed one.
    diverted: Map<Flow, Diverted>,
    held: Held,
    questions: Questions,
    released: VecDeque<(PacketId, Released)>,
    checks: Aside<Arc<dyn Checks>>,
    counters: Aside<Arc<Counters>>,
    events: VecDeque<Event>,
    /// Packets that go out with AH.
    sealing: Aside<Sealing>,
    /// Room for an error that is made true for this host's stack.
    out: Aside<Vec<u8>>,
    /// Room for a packet that is changed before AH is put on it.
    changed: Aside<Vec<u8>>,
    /// Room for a packet whose checksum was open, or for a part of a super-packet.
    finished: Aside<Vec<u8>>,
}

impl Hash for Inserter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Every field is named, so that a new one is not forgotten here.
        let Self { config, table, expected, diverted, held, questions, released, events, .. } = self;
        let Self { checks: _, counters: _, sealing: _, out: _, changed: _, finished: _, .. } = self;
        (config, table, held, questions, released, events, expected.len()).hash(state);
        diverted.in_order().iter().for_each(|entry| entry.hash(state));
        expected.in_order().iter().for_each(|(flow, until)| (flow, until.in_micros()).hash(state));
    }
}

/// A flow on another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Diverted {
    /// The way's number; 0 is where routing leads.
    way: u8,
    /// Bits of its packets' mark besides that of all.
    mark: u32,
    /// Whether the nodes there do not know of it yet.
    waits: bool,
}

impl Inserter {
    /// An inserter without permissions.
    pub fn new(config: InserterConfig, checks: Arc<dyn Checks>, counters: Arc<Counters>) -> Self {
        let questions = QuestionLimits { open: config.questions.open.min(config.capacity / 2).max(1), ..config.questions };
        Self {
            table: OutboundTable::new(config.capacity),
            expected: Map::new(),
            diverted: Map::new(),
            held: Held::new(config.held),
            questions: Questions::new(questions),
            released: VecDeque::new(),
            checks: Aside(checks),
            counters: Aside(counters),
            events: VecDeque::new(),
            sealing: Aside(Sealing::default()),
            out: Aside(Vec::new()),
            changed: Aside(Vec::new()),
            finished: Aside(Vec::new()),
            config,
        }
    }

    /// The permissions.
    pub const fn table(&self) -> &OutboundTable {
        &self.table
    }

    /// Decides about a packet that nothing of its flow waits before.
    fn attempt(&mut self, packet: &IpPacket<'_>, flow: Flow, now: Instant) -> Attempt {
        let checks = &*self.checks;
        let diverted = self.diverted.get(&flow).copied();
        let mark = self.mark_of(&flow);
        let entry = self.table.get_mut(&flow);
        let has_ended = entry.is_some();
        let Some(entry) = entry.filter(|entry| checks.is_live(entry.expires_at, now)) else {
            return self.without_permission(&flow, has_ended, now);
        };
        if diverted.is_some_and(|diverted| diverted.waits) {
            return Attempt::Hold;
        }
        let length = packet.total_len() + ah::overhead(entry.key.algorithm(), packet.source().is_ipv6());
        if length > MAX_PACKET {
            return Attempt::Drop(DropReason::TooLarge);
        }
        let guards = Guards {
            fits: checks.within_budget(entry.counted, length as u64, entry.allowed),
            numbers_left: entry.highest < u32::MAX,
            renewal_refused: entry.renewal_refused,
            ..Guards::default()
        };
        let Outcome::Take(transition) = machine::step(State::Compare, machine::Event::TgPacket, guards) else {
            return Attempt::Drop(DropReason::OverBudget);
        };
        tracing::trace!(rule = transition.rule, %flow, "packet");
        let mut attempt = Attempt::Drop(DropReason::OverBudget);
        for action in transition.actions {
            match action {
                Action::Count => {
                    entry.counted = entry.counted.saturating_add(length as u64);
                    if entry.take_warning() {
                        push_bounded(&mut self.events, Event::NearlyUsedUp { flow, spi: entry.spi });
                    }
                }
                Action::TakeNumber => {
                    if entry.take_number() {
                        push_bounded(&mut self.events, Event::NearlyUsedUp { flow, spi: entry.spi });
                    }
                }
                Action::Pass => {
                    let number = Number { low: entry.highest, high: None };
                    let (as_what, room) = ((entry.spi, number), (&mut self.changed.0, &mut self.sealing.0));
                    attempt = match identification::seal(checks, self.config.identifications.as_ref(), packet, as_what, &entry.key, room) {
                        Ok(()) => {
                            entry.longest = entry.longest.max(u32::try_from(length).unwrap_or(u32::MAX));
                            Attempt::Send(mark)
                        }
                        Err(error) => Attempt::Drop(error.into()),
                    };
                }
                Action::Hold => attempt = Attempt::Hold,
                Action::DropExcess => attempt = Attempt::Drop(DropReason::OverBudget),
                Action::ReportExcess => {
                    if entry.take_report(now) {
                        push_bounded(&mut self.events, Event::OverBudget { flow, spi: entry.spi });
                    }
                }
                // Actions of the verifier's rows: the packet stays dropped.
                Action::Drop | Action::MoveWindow | Action::ReportSecondHolder => {}
            }
        }
        attempt
    }

    /// Bits that a flow's packets get besides their own.
    fn mark_of(&self, flow: &Flow) -> Option<u32> {
        let diverted = self.diverted.get(flow);
        diverted.map_or(self.config.mark, |diverted| Some(self.config.mark.unwrap_or(0) | diverted.mark))
    }

    /// Decides about a packet of a flow without live permission (FS-01, FS-04, FS-15).
    fn without_permission(&self, flow: &Flow, has_ended: bool, now: Instant) -> Attempt {
        if self.expected.get(flow).is_some_and(|until| now < *until) {
            Attempt::Hold
        } else if self.config.ask.iter().any(|rule| rule.matches(flow)) {
            Attempt::Ask
        } else {
            Attempt::Drop(if has_ended { DropReason::Expired } else { DropReason::NotAsked })
        }
    }

    fn judge(&mut self, id: PacketId, owner: Owner, bytes: &[u8], now: Instant) -> Attempt {
        let (packet, flow) = match admit(bytes) {
            Ok(admitted) => admitted,
            Err(reason) => return Attempt::Drop(reason),
        };
        // While packets of the flow are held, this one waits behind them, and the question has been put.
        let attempt = if self.held.has(&flow) { Attempt::Hold } else { self.attempt(&packet, flow, now) };
        if matches!(attempt, Attempt::Hold | Attempt::Ask) && !self.hold(flow, owner, id, bytes, now) {
            return Attempt::Drop(DropReason::QueueFull);
        }
        if matches!(attempt, Attempt::Ask) {
            self.questions.want(flow, owner, now);
        }
        attempt
    }

    /// Has a packet wait, if need be in the place of others; `false` if its flow has its share waiting.
    fn hold(&mut self, flow: Flow, owner: Owner, id: PacketId, bytes: &[u8], now: Instant) -> bool {
        if !self.held.may_hold(&flow, bytes.len()) {
            return false;
        }
        while let Some((other, waiting)) = self.held.make_room(bytes.len()) {
            self.refuse(&other, &waiting, DropReason::QueueFull);
        }
        let ends = self.live_until(&flow, now);
        self.held.push(flow, owner, id, bytes, ends, now);
        true
    }

    /// When the flow's permission ends, `None` if it has none.
    fn live_until(&mut self, flow: &Flow, now: Instant) -> Option<Instant> {
        self.table.get_mut(flow).map(|entry| entry.expires_at).filter(|ends| *ends > now)
    }

    /// Sends what waits for a flow, in order, as far as it goes.
    fn release(&mut self, flow: Flow, now: Instant) {
        let owner = self.held.owner(&flow);
        while let Some(waiting) = self.held.pop(&flow) {
            self.sealing.0.clear();
            let attempt = match admit(&waiting.bytes) {
                Ok((packet, flow)) => self.attempt(&packet, flow, now),
                Err(reason) => Attempt::Drop(reason),
            };
            match attempt {
                Attempt::Send(mark) => {
                    self.sealing.0.seal();
                    let Some(payload) = self.sealing.0.get(0).map(<[u8]>::to_vec) else {
                        self.refuse(&flow, &waiting, DropReason::NotSigned);
                        continue;
                    };
                    self.counters.count_accepted(payload.len());
                    self.released.push_back((waiting.id, Released::Replace { payload, mark }));
                }
                Attempt::Drop(reason) => self.refuse(&flow, &waiting, reason),
                Attempt::Hold | Attempt::Ask => {
                    let ends = self.live_until(&flow, now);
                    self.held.put_back(flow, owner, waiting, ends);
                    if matches!(attempt, Attempt::Ask) {
                        self.questions.want(flow, owner, now);
                    }
                    return;
                }
            }
        }
    }

    /// Decides about what waits for a flow whose permission has ended (FS-28): it asks anew if policy says so, within the time
    /// that it may wait; otherwise it goes at once.
    fn end_wait(&mut self, flow: Flow, now: Instant) {
        match self.without_permission(&flow, true, now) {
            Attempt::Drop(reason) => self.drop_held(&flow, reason),
            Attempt::Ask => {
                self.held.set_end(&flow, None);
                self.questions.want(flow, self.held.owner(&flow), now);
            }
            Attempt::Hold | Attempt::Send(_) => self.held.set_end(&flow, None),
        }
    }

    fn drop_held(&mut self, flow: &Flow, reason: DropReason) {
        while let Some(waiting) = self.held.pop(flow) {
            self.refuse(flow, &waiting, reason);
        }
    }

    /// Puts the questions that may be put now.
    fn ask(&mut self, now: Instant) {
        while let Some(flow) = self.questions.next(now) {
            push_bounded(&mut self.events, Event::FirstPacket(flow));
        }
    }

    /// Drops a packet that has waited.
    fn refuse(&mut self, flow: &Flow, waiting: &Waiting, reason: DropReason) {
        if !self.held.has(flow) {
            self.questions.withdraw(flow);
        }
        self.counters.count_dropped(reason, waiting.bytes.len());
        self.released.push_back((waiting.id, Released::Drop(reason)));
    }

    /// Who wants another way than there is stays where it is.
    fn divert(&mut self, token: u64, flow: Flow, path: u8, waits: bool) -> Result<(), Refused> {
        let mark = match path.checked_sub(1) {
            None if !waits => {
                self.diverted.remove(&flow);
                return Ok(());
            }
            // Back from another way: the nodes on the routed one may have forgotten the flow.
            None => Some(0),
            Some(place) => self.config.path_marks.get(usize::from(place)).copied().filter(|mark| *mark != 0),
        };
        let mark = mark.ok_or(Refused { token, why: Refusal::UnknownPath })?;
        if self.diverted.len() >= self.config.capacity && !self.diverted.contains_key(&flow) {
            return Err(Refused { token, why: Refusal::TableFull });
        }
        self.diverted.insert(flow, Diverted { way: path, mark, waits });
        Ok(())
    }

    fn expect(&mut self, token: u64, flow: Flow, until: Instant, now: Instant) -> Result<Applied, Refused> {
        if self.expected.len() >= self.config.capacity {
            self.expected.retain(|_, until| now < *until);
        }
        if self.expected.len() >= self.config.capacity && !self.expected.contains_key(&flow) {
            return Err(Refused { token, why: Refusal::TableFull });
        }
        self.expected.insert(flow, until);
        Ok(Applied::new(token, 0, 0))
    }
}

impl Inserter {
    fn carry_out(&mut self, update: Update, now: Instant) -> Result<Applied, Refused> {
        match &update {
            Update::Expect { token, flow, until } => self.expect(*token, *flow, *until, now),
            Update::Route { token, flow, path, waits } => {
                let (token, flow) = (*token, *flow);
                self.divert(token, flow, *path, *waits)?;
                if !*waits {
                    self.release(flow, now);
                }
                Ok(Applied::new(token, 0, 0))
            }
            Update::Install { grant: Grant { flow, .. }, .. } | Update::Update { flow, .. } | Update::ReleaseHeld { flow, .. } => {
                let flow = *flow;
                let is_release = matches!(update, Update::ReleaseHeld { .. });
                let applied = self.table.apply(update, now)?;
                if let Some(diverted) = self.diverted.get_mut(&flow).filter(|_| !is_release) {
                    diverted.waits = false;
                }
                self.expected.remove(&flow);
                self.questions.answered(&flow);
                self.release(flow, now);
                Ok(applied)
            }
            Update::DropHeld { flow, .. } => {
                let flow = *flow;
                self.expected.remove(&flow);
                self.questions.answered(&flow);
                self.drop_held(&flow, DropReason::NoPermission);
                self.table.apply(update, now)
            }
            Update::Remove { flow, .. } => {
                let flow = *flow;
                let applied = self.table.apply(update, now);
                if let Some(diverted) = self.diverted.get_mut(&flow).filter(|_| self.table.get_mut(&flow).is_none()) {
                    diverted.waits = false;
                }
                // It may have been about a former epoch.
                if self.held.has(&flow) && self.table.get_mut(&flow).is_none() {
                    self.end_wait(flow, now);
                }
                applied
            }
            Update::Drain { .. } | Update::Snapshot { .. } | Update::Compare { .. } => self.table.apply(update, now),
        }
    }
}

impl PacketProcessor for Inserter {
    fn apply(&mut self, update: Update, now: Instant) -> Result<Applied, Refused> {
        let outcome = self.carry_out(update, now);
        self.ask(now);
        outcome
    }

    fn process<'a>(&'a mut self, id: PacketId, bytes: &[u8], now: Instant) -> Verdict<'a> {
        self.process_sent(id, None, bytes, now)
    }

    fn process_sent<'a>(&'a mut self, id: PacketId, user: Option<UserId>, bytes: &[u8], now: Instant) -> Verdict<'a> {
        self.sealing.0.clear();
        let attempt = self.judge(id, user, bytes, now);
        self.ask(now);
        match attempt.goes_out(&self.counters, bytes.len()) {
            Ok(mark) => {
                self.sealing.0.seal();
                sealed(&self.sealing.0, &self.counters, 0, (bytes.len(), mark))
            }
            Err(verdict) => verdict,
        }
    }

    fn process_whole<'a>(&'a mut self, bytes: &[u8], largest: usize, now: Instant) -> Option<Segments<'a>> {
        self.decide_whole(bytes, largest, now)
    }

    fn batch_size(&self) -> usize {
        ah::BATCH
    }

    fn process_batch(&mut self, packets: &[Arrival<'_>], now: Instant, give: &mut dyn FnMut(usize, Verdict<'_>)) {
        self.decide_batch(packets, now, give);
    }

    fn process_arrived<'a>(&'a mut self, _id: PacketId, bytes: &[u8], now: Instant) -> Verdict<'a> {
        match self.judge_error(bytes, now) {
            Ok(()) => {
                self.counters.count_accepted(bytes.len());
                Verdict::Replace { payload: &self.out.0, mark: None }
            }
            Err(reason) => {
                self.counters.count_dropped(reason, bytes.len());
                Verdict::Drop(reason)
            }
        }
    }

    fn poll_released(&mut self) -> Option<(PacketId, Released)> {
        self.released.pop_front()
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.table.handle_timeout(now);
        while let Some(flow) = self.held.due(now) {
            if self.held.has_waited_too_long(&flow, now) {
                if let Some(waiting) = self.held.pop(&flow) {
                    self.refuse(&flow, &waiting, DropReason::HeldTooLong);
                }
                // What waited behind it may be shorter and fit.
                self.release(flow, now);
            } else {
                match self.live_until(&flow, now) {
                    None => self.end_wait(flow, now),
                    ends => self.held.set_end(&flow, ends),
                }
            }
        }
        self.ask(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        [self.table.poll_timeout(), self.held.poll_timeout(), self.questions.poll_timeout()].into_iter().flatten().min()
    }
}
