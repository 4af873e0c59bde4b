//! Which verdicts may go together in one message, `NFQNL_MSG_VERDICT_BATCH`.
//!
//! That message names one number and answers **every packet that waits with that number or a lower one**. It saves the kernel a message, a
//! search and a lock for each packet, and lets an unverified one pass if anything waits below that nobody has judged. So nobody asks for
//! it: whoever judges gives a verdict for each packet, and this part, which sees what is delivered before it is judged, finds the runs.
//!
//! A run is of packets whose numbers follow each other, each of which was delivered, and then judged by itself and in its turn, and is to
//! go on as it is. Below it nothing waits, for one of two reasons:
//!
//! - Every number below it has been delivered and answered, from the queue's first on ([`Runs::reached`]), without any left out: whatever
//!   else has happened meanwhile, a message lost, cut or not understood, a packet held or passed over, a full socket, leaves a number out.
//! - Where one is left out, everything below the run is **dropped** first, by a message of the same kind with the other verdict. (By what
//!   the kernel does, nothing waits under a number that it could not deliver; that is not relied upon.) Nothing can come to wait there
//!   afterwards, since the kernel gives numbers under the lock under which it delivers packets and lets them wait.
//!
//! What is written is carried out in its order, all or nothing. What could not be sent counts as left out, and is tried again with a
//! message for each packet. A number that comes again, or after a higher one, is none of the kernel that this is written for, and so is a
//! verdict refused for any other reason than that nothing waits: from then on each packet has a message of its own, until the queue is
//! opened anew.
//!
//! Numbers begin again at 0 behind 2^32 − 1; the kernel compares by the sign of the difference, and so it is the same. Segments of one
//! packet that the kernel has cut have each a number, a message and a verdict.
//!
//! All packets of a run have come by one interface and leave by one. An interface that goes down takes its packets out of the queue: then
//! all of a run or none, and if none is left the kernel says so. Of a run whose last packets have come since the interface is up again, or
//! since rules were replaced, the first are counted as going on all the same.

use heapless::Vec;

use super::MANY;

/// Fewer are not worth the message that drops what may wait below.
const WORTH_DROPPING: u32 = 4;

/// The interfaces that a packet has come by and leaves by.
pub(super) type Way = (u32, u32);

/// What is known of one queue.
#[derive(Debug)]
pub(super) struct Runs {
    /// The number that is delivered next.
    next: u32,
    /// Every number up to this one has been delivered and answered, or is in the open run. None: verdicts were not sent.
    reached: Option<u32>,
    /// What the last call has brought, in its order.
    delivered: Vec<Delivered, MANY>,
    /// Whose turn it is among these: all before it are answered.
    turn: usize,
    /// Whether the kernel is another than thought.
    is_off: bool,
    open: Option<Run>,
}

#[derive(Debug, Clone, Copy)]
struct Delivered {
    number: u32,
    way: Way,
    is_answered: bool,
}

/// Packets that go on, not yet written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    first: u32,
    last: u32,
    way: Way,
    /// Whether every number below has been answered.
    is_clear: bool,
}

/// What is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// That this packet goes on.
    One(u32),
    /// That everything up to this number is dropped.
    DropUpTo(u32),
    /// That everything up to this number goes on: so many packets.
    AcceptUpTo(u32, u32),
}

impl Runs {
    /// The number of a queue's first packet.
    pub(super) const FIRST: u32 = 1;

    /// Of a queue from which nothing has come yet, and whose first packet has the number `next`.
    pub(super) const fn new(next: u32) -> Self {
        let reached = Some(next.wrapping_sub(1));
        Self { next, reached, delivered: Vec::new(), turn: 0, is_off: false, open: None }
    }

    /// A call brings something new. What the last one brought and is not answered yet is left out.
    pub(super) fn begin(&mut self, write: impl FnMut(Part)) {
        self.close(write);
        self.delivered.clear();
        self.turn = 0;
    }

    /// A packet was delivered.
    pub(super) fn note(&mut self, number: u32, way: Way) {
        // As the kernel compares.
        self.is_off |= number.wrapping_sub(self.next) >= 1 << 31;
        self.next = number.wrapping_add(1);
        // One that has no place here is left out.
        let _ = self.delivered.push(Delivered { number, way, is_answered: false });
    }

    /// Verdicts could not be sent: nothing counts as answered any more.
    pub(super) fn fail(&mut self) {
        self.reached = None;
        // What is before the turn lies below all runs to come; what was answered ahead of its turn does not.
        self.delivered.iter_mut().skip(self.turn).for_each(|later| later.is_answered = false);
        if let Some(run) = &mut self.open {
            run.is_clear = false;
        }
    }

    /// The kernel has refused a verdict although the packet may wait.
    pub(super) const fn give_up(&mut self) {
        self.is_off = true;
    }

    /// A packet is judged: whether its verdict is part of a run, to be written with it. `goes_on`: as it is, and with no other mark.
    pub(super) fn judge(&mut self, number: u32, goes_on: bool, mut write: impl FnMut(Part)) -> bool {
        let Some(front) = self.delivered.get_mut(self.turn).filter(|front| front.number == number) else {
            // Not in its turn: something before it waits on, or it has been answered.
            let later = self.delivered.iter_mut().skip(self.turn);
            later.filter(|later| later.number == number).for_each(|later| later.is_answered = true);
            return false;
        };
        front.is_answered = true;
        let way = front.way;
        let joins = goes_on && !self.is_off;
        match &mut self.open {
            Some(run) if joins && run.goes_on_with(number, way) => run.last = number,
            _ => {
                self.close(&mut write);
                let is_clear = self.reached == Some(number.wrapping_sub(1));
                self.open = joins.then_some(Run { first: number, last: number, way, is_clear });
            }
        }
        self.advance();
        joins
    }

    /// Writes what is open.
    pub(super) fn close(&mut self, mut write: impl FnMut(Part)) {
        let Some(run) = self.open.take() else { return };
        let fewest = if run.is_clear { 2 } else { WORTH_DROPPING };
        if run.len() < fewest || self.is_off {
            run.numbers().map(Part::One).for_each(write);
            return;
        }
        if !run.is_clear {
            write(Part::DropUpTo(run.first.wrapping_sub(1)));
            self.reached = Some(run.last);
        }
        write(Part::AcceptUpTo(run.last, run.len()));
    }

    /// Goes on to who is not answered yet.
    fn advance(&mut self) {
        while let Some(past) = self.delivered.get(self.turn).filter(|past| past.is_answered) {
            if self.reached == Some(past.number.wrapping_sub(1)) {
                self.reached = Some(past.number);
            }
            self.turn = self.turn.saturating_add(1);
        }
    }
}

impl Run {
    const fn goes_on_with(&self, number: u32, way: Way) -> bool {
        let is_next = self.last.wrapping_add(1) == number && self.len() < MANY as u32;
        is_next && self.way.0 == way.0 && self.way.1 == way.1
    }

    const fn len(&self) -> u32 {
        self.last.wrapping_sub(self.first).wrapping_add(1)
    }

    fn numbers(self) -> impl Iterator<Item = u32> {
        (0..self.len()).map(move |behind| self.first.wrapping_add(behind))
    }
}
