//! The signalling queue: Q-mode packets on their way through the router.
//!
//! The kernel hands over unfragmented UDP to port 270 that is not for this router. What is a Query for an NSLP hosted here is
//! taken off the path; what is for a listed foreign one goes on with its GIST hop count lowered (G-065, G-066); everything
//! else is ordinary data and goes on to the verifier. The router alert value decides nothing.
//!
//! The queue is read with the nfq crate: nothing must wake this loop, and the rules limit its rate.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gist::io::{ForwardError, Handle, forwarded, intercepted};
use gist::wire::NslpId;
use nfq::{Queue, Verdict};
use serde_json::{Value, json};
use traffic::rules::SIGNALLING_PASSED;

/// Packets that may wait for the thread; the kernel drops what is beyond.
const QUEUE_LENGTH: u32 = 512;
/// Longest packet looked at. A Query is at most 512 octets long; longer ones are ordinary data and stay whole.
const COPY_RANGE: u16 = u16::MAX;

/// Why the signalling queue cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("signalling queue {number}: {source} (is the number taken by another program?)")]
pub(crate) struct SignallingError {
    number: u16,
    source: io::Error,
}

/// What happened on the signalling queue.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    taken: AtomicU64,
    taken_and_lost: AtomicU64,
    passed_on: AtomicU64,
    hop_count_exhausted: AtomicU64,
    ordinary: AtomicU64,
    refused: AtomicU64,
    ended: AtomicBool,
}

impl Counters {
    /// As JSON.
    pub(crate) fn show(&self) -> Value {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "taken": read(&self.taken),
            "taken_and_lost": read(&self.taken_and_lost),
            "passed_on": read(&self.passed_on),
            "hop_count_exhausted": read(&self.hop_count_exhausted),
            "ordinary": read(&self.ordinary),
            "refused": read(&self.refused),
            "ended": self.ended.load(Ordering::Relaxed),
        })
    }
}

/// Whose Queries are taken, and whose are passed on.
#[derive(Debug, Clone)]
pub(crate) struct Applications {
    /// Hosted here.
    pub(crate) own: NslpId,
    /// Passed on.
    pub(crate) foreign: Vec<NslpId>,
}

/// Opens the queue and starts its thread, which lives as long as the process. If it ends, signalling is dropped by the kernel.
pub(crate) fn start(number: u16, applications: Applications, gist: Handle) -> Result<Arc<Counters>, SignallingError> {
    let failed = |source| SignallingError { number, source };
    let mut queue = Queue::open().map_err(failed)?;
    queue.bind(number).map_err(failed)?;
    queue.set_fail_open(number, false).map_err(failed)?;
    queue.set_copy_range(number, COPY_RANGE).map_err(failed)?;
    queue.set_queue_max_len(number, QUEUE_LENGTH).map_err(failed)?;
    let counters = Arc::new(Counters::default());
    let thread = std::thread::Builder::new().name("pbs-signalling".to_owned());
    let shared = counters.clone();
    thread.spawn(move || serve(&mut queue, &applications, &gist, &shared)).map_err(failed)?;
    Ok(counters)
}

fn serve(queue: &mut Queue, applications: &Applications, gist: &Handle, counters: &Counters) {
    loop {
        let mut message = match queue.recv() {
            Ok(message) => message,
            Err(error) if is_passing(&error) => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            Err(error) => {
                tracing::error!(%error, "signalling queue ended: Queries on the path are dropped");
                counters.ended.store(true, Ordering::Relaxed);
                return;
            }
        };
        match judge(message.get_payload(), message.get_indev(), applications) {
            Judgement::Take(datagram) => {
                let counter = if gist.intercepted(datagram) { &counters.taken } else { &counters.taken_and_lost };
                counter.fetch_add(1, Ordering::Relaxed);
                message.set_verdict(Verdict::Drop);
            }
            Judgement::PassOn(packet) => {
                counters.passed_on.fetch_add(1, Ordering::Relaxed);
                message.set_payload(packet);
                message.set_nfmark(SIGNALLING_PASSED);
                message.set_verdict(Verdict::Accept);
            }
            Judgement::HopCountExhausted => {
                counters.hop_count_exhausted.fetch_add(1, Ordering::Relaxed);
                message.set_verdict(Verdict::Drop);
            }
            Judgement::Ordinary => {
                counters.ordinary.fetch_add(1, Ordering::Relaxed);
                message.set_verdict(Verdict::Accept);
            }
        }
        if let Err(error) = queue.verdict(message) {
            tracing::debug!(%error, "verdict on signalling failed; the packet does not pass");
        }
    }
}

/// Whether the queue goes on after this error. The kernel answers a verdict on a packet that it has let go meanwhile, as it does
/// when a link goes down, with "no such entry"; a full socket buffer and a signal pass as well.
fn is_passing(error: &io::Error) -> bool {
    let passing = [libc::ENOENT, libc::EINVAL, libc::ENOBUFS, libc::EINTR];
    error.raw_os_error().is_some_and(|number| passing.contains(&number))
}

#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// For an NSLP hosted here.
    Take(gist::node::Datagram),
    /// For a listed foreign NSLP: the packet as it goes on.
    PassOn(Vec<u8>),
    /// For a listed foreign NSLP, but its hops are used up (G-070).
    HopCountExhausted,
    /// No business of signalling.
    Ordinary,
}

fn judge(packet: &[u8], interface: u32, applications: &Applications) -> Judgement {
    let Ok(seen) = intercepted(packet, interface) else { return Judgement::Ordinary };
    if seen.nslp_id == applications.own {
        return Judgement::Take(seen.datagram);
    }
    if !applications.foreign.contains(&seen.nslp_id) {
        return Judgement::Ordinary;
    }
    match forwarded(packet) {
        Ok(packet) => Judgement::PassOn(packet),
        Err(ForwardError::HopCountExhausted) => Judgement::HopCountExhausted,
        Err(ForwardError::NotQueryMode(_)) => Judgement::Ordinary,
    }
}
