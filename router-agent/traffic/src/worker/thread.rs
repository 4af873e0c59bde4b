//! The worker's loop.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use hashbrown::HashMap;
use smoltcp::time::Instant;

use crate::counters::Counters;
use crate::event::Event;
use crate::processor::{PacketId, PacketProcessor, Released, Verdict};
use crate::queue::{Decision, Deliveries, Delivery, Packet, Queue, ReceiveBuffer, ReceiveError};
use crate::reason::DropReason;
use crate::update::Update;

use super::leniency::{self, Leniency};
use super::passed::Passed;
use super::{Answer, Clock, Notify, Shared, Stopped, count};

/// Packets judged before timers and the wish to stop are looked at again.
const BURST: usize = 64;

/// All that the thread owns.
pub(super) struct Work {
    pub(super) queue: Queue,
    pub(super) processor: Box<dyn PacketProcessor>,
    /// The marks of held packets that have one: never more than the queue holds packets.
    pub(super) marks: HashMap<PacketId, u32>,
    /// What the processor has counted as going on lately.
    pub(super) passed: Passed,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
    /// How packets are treated that would be dropped, if not all alike.
    pub(super) leniency: Option<Leniency>,
    pub(super) updates: Receiver<Update>,
    pub(super) answers: SyncSender<Answer>,
    pub(super) events: SyncSender<Event>,
    pub(super) shared: Arc<Shared>,
    pub(super) notify: Notify,
}

impl Work {
    /// Runs until the handle is gone or asks for the end, or the queue fails.
    pub(super) fn run(&mut self) -> Stopped {
        let mut buffer = ReceiveBuffer::default();
        loop {
            let asked = self.shared.stop.load(Ordering::Acquire);
            if !self.apply_updates() || asked {
                return Stopped::Asked;
            }
            self.handle_timeout();
            match self.handle_packets(&mut buffer) {
                Ok(true) => {}
                Ok(false) => {
                    if let Err(errno) = self.queue.wait(std::os::fd::AsFd::as_fd(&self.shared.wake), self.timeout()) {
                        return Stopped::Queue(errno.to_string());
                    }
                    // Reset before the updates are looked at, so that none is slept through.
                    let _ = self.shared.wake.read();
                }
                Err(why) => return why,
            }
        }
    }

    /// Closes the queue and the processor; what is left is the way to tell.
    pub(super) fn close(self) -> Notify {
        self.notify
    }

    /// Carries out every update that is there; `false` if the handle is gone.
    fn apply_updates(&mut self) -> bool {
        loop {
            match self.updates.try_recv() {
                Ok(update) => self.apply(update),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn apply(&mut self, update: Update) {
        let answer = self.processor.apply(update, self.clock.now());
        // Verdicts on released packets first: the answer says that they have been given.
        self.drain();
        // There is always room: the handle takes no more updates than this channel holds answers.
        let _ = self.answers.try_send(answer);
        (self.notify)();
    }

    fn handle_timeout(&mut self) {
        let now = self.clock.now();
        if self.processor.poll_timeout().is_some_and(|due| due <= now) {
            self.processor.handle_timeout(now);
            self.drain();
        }
    }

    /// Judges packets that are there, up to a burst; `false` if there are no more.
    fn handle_packets(&mut self, buffer: &mut ReceiveBuffer) -> Result<bool, Stopped> {
        for _ in 0..BURST {
            match self.queue.receive(buffer) {
                Ok(deliveries) => self.handle_deliveries(deliveries),
                Err(ReceiveError::Empty) => return Ok(false),
                Err(ReceiveError::Overrun) => count(&self.shared.faults.overruns),
                Err(ReceiveError::Failed(errno)) => return Err(Stopped::Queue(errno.to_string())),
            }
        }
        Ok(true)
    }

    fn handle_deliveries(&mut self, deliveries: Deliveries<'_>) {
        for delivery in deliveries {
            match delivery {
                Delivery::Packet(packet) => {
                    // Whatever was sent before this packet was looked at counts for it.
                    self.apply_updates();
                    self.handle_packet(&packet);
                }
                Delivery::Refused { id, errno } => {
                    tracing::debug!(id = id.0, %errno, "the kernel refused a verdict");
                    count(&self.shared.faults.verdicts);
                    if let Some(bytes) = self.passed.take(id) {
                        self.counters.count_not_accepted(bytes);
                    }
                }
                Delivery::Unreadable { id } => {
                    count(&self.shared.faults.unreadable);
                    if let Some(id) = id {
                        self.counters.count_dropped(DropReason::Malformed, 0);
                        self.outlet().drop(id);
                    }
                }
            }
        }
    }

    fn handle_packet(&mut self, packet: &Packet<'_>) {
        let mut outlet = Outlet { queue: &mut self.queue, shared: &self.shared, counters: &self.counters, passed: &mut self.passed };
        let now = self.clock.now();
        let verdict = match packet.hook {
            _ if packet.is_cut() => {
                self.counters.count_dropped(DropReason::TooLarge, packet.len);
                Verdict::Drop(DropReason::TooLarge)
            }
            Packet::PREROUTING => self.processor.process_arrived(packet.id, packet.payload, now),
            _ => self.processor.process_sent(packet.id, packet.user, packet.payload, now),
        };
        match verdict {
            // Processors count a packet as it is with AH: the longer of what came and what goes on.
            Verdict::Accept => {
                let decision = self.leniency.as_ref().map_or(Decision::Accept, |_| leniency::judged(packet.mark));
                outlet.pass(packet.id, decision, packet.len);
            }
            Verdict::Replace { payload, mark } => {
                let judged = if self.leniency.is_some() { leniency::judged(packet.mark).mark() } else { None };
                let mark = mark.map(|bits| judged.unwrap_or(packet.mark) | bits).or(judged);
                let decision = Decision::Replace { payload, mark };
                outlet.pass(packet.id, decision, packet.len.max(payload.len()));
            }
            Verdict::Drop(reason) => {
                let decision = self.leniency.as_mut().and_then(|leniency| leniency.decide(packet, reason, &self.counters, now));
                if !decision.is_some_and(|decision| outlet.give(packet.id, decision)) {
                    tracing::trace!(id = packet.id.0, %reason, "dropped");
                    outlet.drop(packet.id);
                }
            }
            Verdict::Taken => outlet.drop(packet.id),
            Verdict::Hold => {
                if packet.mark != 0 {
                    self.marks.insert(packet.id, packet.mark);
                }
            }
        }
        self.drain();
    }

    /// Late verdicts and events, after each call of the processor.
    fn drain(&mut self) {
        while let Some((id, released)) = self.processor.poll_released() {
            let own = self.marks.remove(&id).unwrap_or(0);
            match &released {
                Released::Replace { payload, mark } => {
                    let decision = Decision::Replace { payload, mark: mark.map(|bits| own | bits) };
                    self.outlet().pass(id, decision, payload.len());
                }
                Released::Drop(reason) => {
                    tracing::trace!(id = id.0, %reason, "dropped");
                    self.outlet().drop(id);
                }
            }
        }
        let mut told = false;
        while let Some(event) = self.processor.poll_event() {
            match self.events.try_send(event) {
                Ok(()) => told = true,
                Err(_) => count(&self.shared.faults.events_lost),
            }
        }
        if told {
            (self.notify)();
        }
    }

    fn outlet(&mut self) -> Outlet<'_> {
        Outlet { queue: &mut self.queue, shared: &self.shared, counters: &self.counters, passed: &mut self.passed }
    }

    fn timeout(&self) -> Option<Duration> {
        let due: Instant = self.processor.poll_timeout()?;
        let now = self.clock.now();
        Some(if due <= now { Duration::ZERO } else { Duration::from_micros((due - now).total_micros()) })
    }
}

/// Where verdicts go, and what is kept of them.
struct Outlet<'a> {
    queue: &'a mut Queue,
    shared: &'a Shared,
    counters: &'a Counters,
    passed: &'a mut Passed,
}

impl Outlet<'_> {
    /// Lets a packet go on that the processor has counted with so many bytes. If the verdict cannot be sent the packet is dropped, and
    /// counted so.
    fn pass(&mut self, id: PacketId, decision: Decision<'_>, bytes: usize) {
        if self.give(id, decision) {
            self.passed.remember(id, bytes);
        } else {
            self.counters.count_not_accepted(bytes);
            self.drop(id);
        }
    }

    /// Drops a packet. If the verdict cannot be sent it goes on waiting: in no case does it pass.
    fn drop(&mut self, id: PacketId) {
        self.give(id, Decision::Drop);
    }

    fn give(&mut self, id: PacketId, decision: Decision<'_>) -> bool {
        let given = self.queue.verdict(id, decision);
        if let Err(errno) = given {
            tracing::debug!(id = id.0, %errno, "a verdict could not be sent");
            count(&self.shared.faults.verdicts);
        }
        given.is_ok()
    }
}
