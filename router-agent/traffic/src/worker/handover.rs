//! How updates go to a worker's thread and answers come back: in which order either side looks and tells. What they do it with, channels,
//! flags and an eventfd, each side brings along, so that a test can put every order of the two sides' steps to the proof (`tests`).
//!
//! What holds whatever the order:
//!
//! - An update that was sent before a packet was taken from the kernel counts for that packet; so does one whose answer has been read.
//! - Every update that was taken is answered, in order, also when the thread is asked to stop: it looks once more after it has been asked.
//! - There is room for every answer: no more updates are taken than there are answers not yet read.
//! - The thread does not sleep through an update: its wake is reset before it looks at the updates, never behind that.
//! - What the thread said before it ended is read before its end is told.
//!
//! Each step that one side takes the other sees if it happened before: channels order what is sent through them, the flag to stop is stored
//! with `Release` and read with `Acquire`, the end is in a `OnceLock`, and the eventfd is the kernel's.

use std::sync::mpsc::{TryRecvError, TrySendError};

use super::Stopped;

/// The thread as its handle reaches it.
pub(super) trait Far {
    type Update;
    type Answer;
    type Event;

    /// Why the thread has ended, if it has.
    fn stopped(&self) -> Option<Stopped>;
    fn offer(&self, update: Self::Update) -> Result<(), TrySendError<Self::Update>>;
    fn wake(&self);
    fn take_answer(&self) -> Option<Self::Answer>;
    fn take_event(&self) -> Option<Self::Event>;
}

/// What the handle knows of the updates under way.
#[derive(Debug)]
pub(super) struct Account {
    /// Updates sent whose answers have not been read.
    open: usize,
    /// As many at the most.
    capacity: usize,
    /// Whether the end has been told.
    told: bool,
}

/// What comes from the thread.
pub(super) enum Said<F: Far> {
    Answer(F::Answer),
    Event(F::Event),
    Stopped(Stopped),
}

impl Account {
    pub(super) const fn new(capacity: usize) -> Self {
        Self { open: 0, capacity, told: false }
    }

    /// Hands an update over and wakes the thread; `Disconnected` if that has ended.
    pub(super) fn send<F: Far>(&mut self, far: &F, update: F::Update) -> Result<(), TrySendError<F::Update>> {
        if far.stopped().is_some() {
            return Err(TrySendError::Disconnected(update));
        }
        if self.open >= self.capacity {
            return Err(TrySendError::Full(update));
        }
        far.offer(update)?;
        self.open = self.open.saturating_add(1);
        far.wake();
        Ok(())
    }

    /// The next thing that the thread has said, its end last and once.
    pub(super) fn receive<F: Far>(&mut self, far: &F) -> Option<Said<F>> {
        // Read first: what the thread said before it ended is then certainly there.
        let stopped = far.stopped();
        if let Some(answer) = far.take_answer() {
            self.open = self.open.saturating_sub(1);
            return Some(Said::Answer(answer));
        }
        if let Some(event) = far.take_event() {
            return Some(Said::Event(event));
        }
        if self.told {
            return None;
        }
        stopped.map(|why| {
            self.told = true;
            Said::Stopped(why)
        })
    }
}

/// The thread's side.
pub(super) trait Thread {
    type Update;
    type Answer;
    /// Where packets lie while they are judged.
    type Buffer;

    fn is_asked_to_stop(&self) -> bool;
    fn take_update(&mut self) -> Result<Self::Update, TryRecvError>;
    /// Carries an update out, with all that the answer says has been done.
    fn carry_out(&mut self, update: Self::Update) -> Self::Answer;
    /// There is always room.
    fn answer(&mut self, answer: Self::Answer);
    /// Tells the handle that there is something to read.
    fn notify(&self);
    /// Does what is due, and takes packets to judge them ([`judge_with`](Self::judge_with)); whether there may be more at once.
    fn work(&mut self, buffer: &mut Self::Buffer) -> Result<bool, Stopped>;
    /// Waits until there is something to do, or until it is woken.
    fn sleep(&mut self) -> Result<(), Stopped>;
    /// Takes the wake back.
    fn reset_wake(&mut self);

    /// Runs until the handle is gone or asks for the end, or the work fails.
    fn live(&mut self, buffer: &mut Self::Buffer) -> Stopped {
        loop {
            // Read before the updates: what was sent before the end was asked for is answered.
            let asked = self.is_asked_to_stop();
            if !self.apply_updates() || asked {
                return Stopped::Asked;
            }
            match self.work(buffer) {
                Ok(true) => {}
                Ok(false) => {
                    if let Err(why) = self.sleep() {
                        return why;
                    }
                    // Reset before the updates are looked at, so that none is slept through.
                    self.reset_wake();
                }
                Err(why) => return why,
            }
        }
    }

    /// Carries out every update that is there; `false` if the handle is gone.
    fn apply_updates(&mut self) -> bool {
        loop {
            match self.take_update() {
                Ok(update) => {
                    let answer = self.carry_out(update);
                    self.answer(answer);
                    self.notify();
                }
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Judges packets that have been taken: whatever was sent before they were looked at counts for them.
    fn judge_with<T>(&mut self, judge: impl FnOnce(&mut Self) -> T) -> T
    where
        Self: Sized,
    {
        self.apply_updates();
        judge(self)
    }
}

#[cfg(test)]
mod tests;
