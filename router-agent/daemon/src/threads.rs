//! The threads without which a daemon must not go on. When one ends, for whatever reason, the daemon ends with an error: the
//! filter rules stay, so nothing passes, and whoever supervises the daemon starts it again.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::mpsc;
use traffic::worker::panic_words;

/// Ends that may wait to be heard of; the first one suffices.
const CAPACITY: usize = 4;

/// A thread has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: &'static str,
    /// Why.
    pub why: String,
}

/// Starts threads and knows which of them run.
#[derive(Debug, Clone)]
pub struct Threads {
    ended: mpsc::Sender<Ended>,
    started: Arc<Mutex<Vec<Started>>>,
}

/// A thread that has been started.
#[derive(Debug)]
struct Started {
    name: &'static str,
    runs: Arc<AtomicBool>,
}

impl Threads {
    /// No thread yet, and the place to hear of their ends.
    pub fn new() -> (Self, mpsc::Receiver<Ended>) {
        let (ended, ends) = mpsc::channel(CAPACITY);
        (Self { ended, started: Arc::default() }, ends)
    }

    /// Starts a thread that is to work until the process ends; what it returns says why it has ended before. A panic ends it
    /// too.
    pub fn spawn(&self, name: &'static str, work: impl FnOnce() -> String + Send + 'static) -> std::io::Result<()> {
        let runs = Arc::new(AtomicBool::new(true));
        let (ended, shared) = (self.ended.clone(), Arc::clone(&runs));
        std::thread::Builder::new().name(format!("pbs-{name}")).spawn(move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            let why = outcome.unwrap_or_else(|panic| format!("panicked: {}", panic_words(panic.as_ref())));
            shared.store(false, Ordering::Relaxed);
            // If there is no room, the daemon ends for another thread already.
            let _ = ended.try_send(Ended { name, why });
        })?;
        self.started.lock().unwrap_or_else(PoisonError::into_inner).push(Started { name, runs });
        Ok(())
    }

    /// Which threads run, for `status`.
    pub fn show(&self) -> serde_json::Map<String, Value> {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.iter().map(|thread| (thread.name.to_owned(), thread.runs.load(Ordering::Relaxed).into())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_ends_or_panics_is_heard_of_and_no_longer_shown_as_running() {
        let (threads, mut ends) = Threads::new();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        threads
            .spawn("first", move || {
                let _ = wait.recv();
                "nothing left to do".to_owned()
            })
            .unwrap();
        assert_eq!(threads.show()["first"], true);
        go.send(()).unwrap();
        assert_eq!(ends.recv().await, Some(Ended { name: "first", why: "nothing left to do".into() }));
        threads.spawn("second", || panic!("a defect")).unwrap();
        assert_eq!(ends.recv().await, Some(Ended { name: "second", why: "panicked: a defect".into() }));
        assert_eq!((&threads.show()["first"], &threads.show()["second"]), (&Value::Bool(false), &Value::Bool(false)));
    }
}
