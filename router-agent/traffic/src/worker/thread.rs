//! The worker's loop.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::Duration;

use hashbrown::HashMap;
use heapless::Vec;
use smoltcp::time::Instant;

use crate::af_xdp::AfXdp;
use crate::counters::Counters;
use crate::event::Event;
use crate::processor::{Arrival, PacketId, PacketProcessor, Released, Verdict};
use crate::queue::{Decision, Delivery, MANY, ManyDeliveries, ManyPackets, Packet, Queue, ReceiveError};
use crate::reason::DropReason;
use crate::segments::Room;
use crate::update::Update;

use super::gathering::Gathering;
use super::handover::Thread;
use super::leniency::{self, Leniency};
use super::passed::Passed;
use super::{Answer, Clock, Notify, Shared, Stopped, count, keep_to};

/// How late the kernel may wake the thread, in nanoseconds (`PR_SET_TIMERSLACK`).
const TIMER_SLACK: u64 = 1000;

/// All that the thread owns.
pub(super) struct Work {
    pub(super) queue: Queue,
    /// What comes past the queue, if anything does.
    pub(super) af_xdp: Option<Box<AfXdp>>,
    pub(super) processor: Box<dyn PacketProcessor>,
    /// The marks of held packets that have one: never more than the queue holds packets.
    pub(super) marks: HashMap<PacketId, u32>,
    /// What the processor has counted as going on lately.
    pub(super) passed: Passed,
    pub(super) clock: Clock,
    /// What the clock showed when packets were received, if nothing has been judged or carried out since.
    pub(super) received_at: Option<Instant>,
    pub(super) gathering: Gathering,
    /// The processor that the thread keeps to.
    pub(super) on: Option<usize>,
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
        if let Some(processor) = self.on {
            keep_to(processor);
        }
        // A rest is to be as long as it says, and not 50 µs longer. Where the kernel refuses, it is longer.
        let _ = nix::sys::prctl::set_timerslack(TIMER_SLACK);
        let mut buffer = (self.queue.room_for_many(), self.queue.way().map(|_| Room::new()));
        self.live(&mut buffer)
    }

    /// Closes the queue and the processor; what is left is the way to tell.
    pub(super) fn close(self) -> Notify {
        self.notify
    }

    fn handle_timeout(&mut self) {
        let Some(due) = self.processor.poll_timeout() else { return };
        let now = self.clock.now();
        if due <= now {
            self.processor.handle_timeout(now);
            self.drain();
            self.send_verdicts();
        }
    }

    /// Judges packets that are there, as many as one call brings; `false` if there are no more.
    fn handle_packets(&mut self, buffer: &mut ManyPackets, room: Option<&mut Room>) -> Result<bool, Stopped> {
        match self.queue.receive_many(buffer) {
            Ok(deliveries) => {
                let more = deliveries.is_full();
                let now = self.clock.now();
                self.received_at = Some(now);
                self.gathering.note(deliveries.len(), now);
                self.handle_deliveries(deliveries, room);
                Ok(more)
            }
            Err(ReceiveError::Empty) => Ok(false),
            Err(ReceiveError::Overrun) => {
                count(&self.shared.faults.overruns);
                Ok(true)
            }
            Err(ReceiveError::Failed(errno)) => Err(Stopped::Queue(errno.to_string())),
        }
    }

    /// Takes all of them before the first is judged, as far as nothing has to leave before what comes behind it.
    fn handle_deliveries(&mut self, mut deliveries: ManyDeliveries<'_>, mut room: Option<&mut Room>) {
        let mut waiting = Waiting { packets: Vec::new(), arrivals: Vec::new() };
        // What comes behind a super-packet that was left to the kernel follows it.
        let mut left_to_kernel = false;
        while let Some(delivery) = self.queue.take(&mut deliveries) {
            match delivery {
                Delivery::Packet(packet) if packet.is_whole || packet.is_unfinished && left_to_kernel => {
                    self.judge(&waiting);
                    waiting.clear();
                    left_to_kernel = left_to_kernel || !self.judge_whole(&packet, room.as_deref_mut());
                    if left_to_kernel {
                        let first = self.queue.number();
                        self.apart().0.give(packet.id, Decision::Queue(first));
                    }
                }
                Delivery::Packet(packet) if packet.is_cut() => {
                    self.counters.count_dropped(DropReason::TooLarge, packet.len);
                    let now = self.clock.now();
                    let (mut outlet, ..) = self.apart();
                    outlet.give_verdict(&packet, Verdict::Drop(DropReason::TooLarge), now);
                }
                Delivery::Packet(packet) => {
                    waiting.push(packet);
                    if waiting.packets.is_full() {
                        self.judge(&waiting);
                        waiting.clear();
                    }
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
                        self.apart().0.drop(id);
                    }
                }
            }
        }
        self.judge(&waiting);
        self.send_verdicts();
    }

    fn judge(&mut self, waiting: &Waiting<'_>) {
        let size = self.processor.batch_size().max(1);
        for (packets, arrivals) in waiting.packets.chunks(size).zip(waiting.arrivals.chunks(size)) {
            self.judge_with(|this| {
                let now = this.time();
                let (mut outlet, processor) = this.apart();
                processor.process_batch(arrivals, now, &mut |at, verdict| {
                    if let Some(packet) = packets.get(at) {
                        outlet.give_verdict(packet, verdict, now);
                    }
                });
            });
            self.drain();
            if self.queue.has_enough_verdicts() {
                self.send_verdicts();
            }
        }
    }

    /// Has a super-packet leave in segments, if all of them do; `false` if it is to be left to the kernel.
    fn judge_whole(&mut self, packet: &Packet<'_>, room: Option<&mut Room>) -> bool {
        // What comes before it leaves before it.
        self.send_verdicts();
        let has_left = self.judge_with(|this| {
            let now = this.time();
            let Self { queue, processor, counters, .. } = this;
            let (way, room) = queue.way().zip(room).filter(|_| packet.is_whole && !packet.is_cut())?;
            let segments = way.largest(packet.payload, now).and_then(|largest| processor.process_whole(packet.payload, largest, now))?;
            let mark = packet.mark | segments.mark.unwrap_or(0);
            way.send(&segments, mark, room, now, &mut |len| counters.count_not_passed(DropReason::NotTransmitted, len));
            Some(())
        });
        if has_left.is_some() {
            self.apart().0.drop(packet.id);
            self.drain();
        }
        has_left.is_some()
    }

    /// Sends the verdicts given up to now. Of a packet that was to pass, and whose verdict cannot be sent, it is counted that it did not.
    fn send_verdicts(&mut self) {
        // Nothing is allocated for it: in all but the rarest cases there are none.
        for (id, errno) in self.queue.send_verdicts().to_vec() {
            tracing::debug!(id = id.0, %errno, "a verdict could not be sent");
            count(&self.shared.faults.verdicts);
            if let Some(bytes) = self.passed.take(id) {
                self.counters.count_not_accepted(bytes);
            }
            let _ = self.queue.verdict(id, Decision::Drop);
        }
    }

    /// Late verdicts and events, after each call of the processor.
    pub(super) fn drain(&mut self) {
        while let Some((id, released)) = self.processor.poll_released() {
            let own = self.marks.remove(&id).unwrap_or(0);
            match &released {
                Released::Replace { payload, mark } => {
                    let decision = Decision::Replace { payload, mark: mark.map(|bits| own | bits) };
                    self.apart().0.pass(id, decision, payload.len());
                }
                Released::Drop(reason) => {
                    tracing::trace!(id = id.0, %reason, "dropped");
                    self.apart().0.drop(id);
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

    /// Where verdicts go, and who makes them.
    fn apart(&mut self) -> (Outlet<'_>, &mut dyn PacketProcessor) {
        let Self { queue, shared, counters, passed, leniency, marks, processor, .. } = self;
        (Outlet { queue, shared, counters, passed, leniency: leniency.as_mut(), marks }, processor.as_mut())
    }

    /// What to judge by: no older than the packets' reception and the last change, without reading the clock for each of these.
    fn time(&mut self) -> Instant {
        self.received_at.take().unwrap_or_else(|| self.clock.now())
    }

    fn timeout(&self) -> Option<Duration> {
        let due: Instant = self.processor.poll_timeout()?;
        let now = self.clock.now();
        Some(if due <= now { Duration::ZERO } else { Duration::from_micros((due - now).total_micros()) })
    }
}

impl Thread for Work {
    type Update = Update;
    type Answer = Answer;
    /// What was received, and what is told of segments that are sent.
    type Buffer = (ManyPackets, Option<Room>);

    fn is_asked_to_stop(&self) -> bool {
        self.shared.stop.load(Ordering::Acquire)
    }

    fn take_update(&mut self) -> Result<Update, TryRecvError> {
        self.updates.try_recv()
    }

    fn carry_out(&mut self, update: Update) -> Answer {
        self.received_at = None;
        let answer = self.processor.apply(update, self.clock.now());
        // Verdicts on released packets before the answer: it says that they have been given.
        self.drain();
        self.send_verdicts();
        answer
    }

    fn answer(&mut self, answer: Answer) {
        let _ = self.answers.try_send(answer);
    }

    fn notify(&self) {
        (self.notify)();
    }

    fn work(&mut self, (buffer, room): &mut Self::Buffer) -> Result<bool, Stopped> {
        self.handle_timeout();
        let more_frames = self.handle_frames();
        if self.handle_packets(buffer, room.as_mut())? || more_frames {
            return Ok(true);
        }
        let rest = self.gathering.rest();
        rest.inspect(|rest| std::thread::sleep(*rest));
        Ok(rest.is_some())
    }

    fn sleep(&mut self) -> Result<(), Stopped> {
        let frames = self.af_xdp.as_deref().map(AsFd::as_fd);
        let woken = self.queue.wait_beside(self.shared.wake.as_fd(), frames, self.patience(self.timeout()));
        woken.map_err(|errno| Stopped::Queue(errno.to_string()))
    }

    fn reset_wake(&mut self) {
        let _ = self.shared.wake.read();
    }
}

/// Packets that wait to be judged together.
struct Waiting<'b> {
    packets: Vec<Packet<'b>, MANY>,
    /// Of each what a processor is told.
    arrivals: Vec<Arrival<'b>, MANY>,
}

impl<'b> Waiting<'b> {
    fn clear(&mut self) {
        self.packets.clear();
        self.arrivals.clear();
    }

    fn push(&mut self, packet: Packet<'b>) {
        let has_arrived = packet.hook == Packet::PREROUTING;
        let arrival = Arrival { id: packet.id, user: packet.user, has_arrived, is_unfinished: packet.is_unfinished, bytes: packet.payload };
        // Whoever pushes has the packets judged before there is no room: one without a place would have no verdict, and not pass.
        let _ = (self.packets.push(packet), self.arrivals.push(arrival));
    }
}

/// Where verdicts go, and what is kept of them.
struct Outlet<'a> {
    queue: &'a mut Queue,
    shared: &'a Shared,
    counters: &'a Counters,
    passed: &'a mut Passed,
    leniency: Option<&'a mut Leniency>,
    marks: &'a mut HashMap<PacketId, u32>,
}

impl Outlet<'_> {
    /// Carries out what the processor has decided, as far as the packet's mark does not say otherwise.
    fn give_verdict(&mut self, packet: &Packet<'_>, verdict: Verdict<'_>, now: Instant) {
        match verdict {
            // Processors count a packet as it is with AH: the longer of what came and what goes on.
            Verdict::Accept => {
                let decision = self.leniency.as_ref().map_or(Decision::Accept, |_| leniency::judged(packet.mark));
                self.pass(packet.id, decision, packet.len);
            }
            Verdict::Replace { payload, mark } => {
                let judged = if self.leniency.is_some() { leniency::judged(packet.mark).mark() } else { None };
                let mark = mark.map(|bits| judged.unwrap_or(packet.mark) | bits).or(judged);
                let decision = Decision::Replace { payload, mark };
                self.pass(packet.id, decision, packet.len.max(payload.len()));
            }
            Verdict::Drop(reason) => {
                let counters = self.counters;
                let decision = self.leniency.as_mut().and_then(|leniency| leniency.decide(packet, reason, counters, now));
                if !decision.is_some_and(|decision| self.give(packet.id, decision)) {
                    tracing::trace!(id = packet.id.0, %reason, "dropped");
                    self.drop(packet.id);
                }
            }
            Verdict::Taken => self.drop(packet.id),
            Verdict::Hold => {
                if packet.mark != 0 {
                    self.marks.insert(packet.id, packet.mark);
                }
            }
        }
    }

    /// Lets a packet go on that the processor has counted with so many bytes. If no verdict can carry it the packet is dropped, and
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
        let given = self.queue.add_verdict(id, decision);
        if let Err(errno) = given {
            tracing::debug!(id = id.0, %errno, "a verdict could not be sent");
            count(&self.shared.faults.verdicts);
        }
        given.is_ok()
    }
}
