//! A thread for a queue whose packets are judged without a table: a router's signalling queue.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use crate::queue::{Decision, Delivery, Packet, Queue, ReceiveBuffer, ReceiveError};

use super::thread::give;
use super::{Faults, Notify, Shared, Stopped, count, spawn_guarded};

/// Judges packets one by one. Called in the queue's own thread; must not block.
pub trait Judge: Send {
    /// What becomes of the packet. It may be cut ([`Packet::is_cut`]).
    fn judge<'a>(&'a mut self, packet: &Packet<'_>) -> Decision<'a>;
}

/// The daemon's end of the thread. Dropping it stops the thread; its packets are then dropped, since the rules stay.
#[derive(Debug)]
pub struct Interceptor {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Interceptor {
    /// Starts the thread under `name`. `notify` is called when it has ended.
    pub fn spawn(queue: Queue, judge: Box<dyn Judge>, name: String, notify: Notify) -> std::io::Result<Self> {
        let shared = Shared::new()?;
        let state = Interception { queue, judge, shared: Arc::clone(&shared), notify };
        let thread = spawn_guarded(name, Arc::clone(&shared), state, Interception::run, |state| state.notify)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What went wrong so far without ending the thread.
    pub fn faults(&self) -> Faults {
        self.shared.faults.read()
    }

    /// Why the thread has ended, `None` while it runs.
    pub fn stopped(&self) -> Option<Stopped> {
        self.shared.stopped.get().cloned()
    }

    /// Ends the thread and waits for its end.
    pub fn stop(&mut self) {
        self.shared.ask_to_stop();
        if let Some(thread) = self.thread.take() {
            // The thread catches its own panics.
            let _ = thread.join();
        }
    }
}

impl Drop for Interceptor {
    fn drop(&mut self) {
        self.stop();
    }
}

struct Interception {
    queue: Queue,
    judge: Box<dyn Judge>,
    shared: Arc<Shared>,
    notify: Notify,
}

impl Interception {
    fn run(&mut self) -> Stopped {
        let mut buffer = ReceiveBuffer::default();
        while !self.shared.stop.load(Ordering::Acquire) {
            match self.queue.receive(&mut buffer) {
                Ok(deliveries) => {
                    for delivery in deliveries {
                        self.handle(&delivery);
                    }
                }
                Err(ReceiveError::Overrun) => count(&self.shared.faults.overruns),
                Err(ReceiveError::Failed(errno)) => return Stopped::Queue(errno.to_string()),
                Err(ReceiveError::Empty) => {
                    if let Err(errno) = self.queue.wait(self.shared.wake.as_fd(), None) {
                        return Stopped::Queue(errno.to_string());
                    }
                    let _ = self.shared.wake.read();
                }
            }
        }
        Stopped::Asked
    }

    fn handle(&mut self, delivery: &Delivery<'_>) {
        match delivery {
            Delivery::Packet(packet) => {
                let decision = self.judge.judge(packet);
                give(&mut self.queue, &self.shared, packet.id, decision);
            }
            Delivery::Refused { .. } => count(&self.shared.faults.verdicts),
            Delivery::Unreadable { id } => {
                count(&self.shared.faults.unreadable);
                if let Some(id) = id {
                    give(&mut self.queue, &self.shared, *id, Decision::Drop);
                }
            }
        }
    }
}
