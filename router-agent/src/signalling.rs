//! The signalling queue: Q-mode packets on their way through the router.
//!
//! The kernel hands over unfragmented UDP to port 270 that is not for this router. What is a Query for an NSLP hosted here is
//! taken off the path; a Query or Data message for a listed foreign one goes on with its GIST hop count lowered (G-065,
//! G-066), if the datagram holds that message and nothing else, 512 octets at most (RFC 5971 §5.5, §4.3.3); everything else is
//! ordinary data and goes on to the verifier. The router alert value decides nothing.
//!
//! The queue is read with the nfq crate: nothing must wake this loop, and the rules limit its rate.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use daemon::datapath::KernelDrops;
use daemon::threads::Threads;
use gist::io::{ForwardError, Handle, forwarded, intercepted};
use gist::wire::NslpId;
use nfq::{Message, Queue, Verdict};
use serde_json::{Value, json};
use traffic::reason::DropReason;
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
#[derive(Debug)]
pub(crate) struct Counters {
    number: u16,
    taken: AtomicU64,
    taken_and_lost: AtomicU64,
    passed_on: AtomicU64,
    hop_count_exhausted: AtomicU64,
    ordinary: AtomicU64,
    refused: AtomicU64,
}

impl Counters {
    fn new(number: u16) -> Self {
        let zero = AtomicU64::default;
        let (taken, taken_and_lost, passed_on) = (zero(), zero(), zero());
        Self { number, taken, taken_and_lost, passed_on, hop_count_exhausted: zero(), ordinary: zero(), refused: zero() }
    }

    /// What came to the queue and went no further, for `counters`; in the words of [`show`](Self::show), and of the packet side for what
    /// the kernel dropped. Bytes are not counted.
    pub(crate) fn drops(&self) -> Value {
        let kernel = KernelDrops::of(self.number);
        let row = |reason: &str, packets: Value| json!({ "reason": reason, "packets": packets });
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed).into();
        json!({
            "dropped": [
                row("hop_count_exhausted", read(&self.hop_count_exhausted)),
                row("taken_and_lost", read(&self.taken_and_lost)),
                row(DropReason::QueueFull.word(), kernel.beside(0)),
            ],
            "kernel_drops": kernel.show(),
        })
    }

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

/// Opens the queue and starts its thread, which lives as long as the process: if it ends, signalling is dropped by the kernel,
/// and the daemon ends too.
pub(crate) fn start(number: u16, applications: Applications, gist: Handle, threads: &Threads) -> Result<Arc<Counters>, SignallingError> {
    let failed = |source| SignallingError { number, source };
    let mut queue = Queue::open().map_err(failed)?;
    queue.bind(number).map_err(failed)?;
    queue.set_fail_open(number, false).map_err(failed)?;
    queue.set_copy_range(number, COPY_RANGE).map_err(failed)?;
    queue.set_queue_max_len(number, QUEUE_LENGTH).map_err(failed)?;
    let counters = Arc::new(Counters::new(number));
    let shared = counters.clone();
    let serve = move || {
        loop {
            match next(|| queue.recv(), &shared) {
                Ok(message) => handle(message, &mut queue, &applications, &gist, &shared),
                Err(error) => return format!("the signalling queue failed: {error}"),
            }
        }
    };
    threads.spawn("signalling", serve).map_err(failed)?;
    Ok(counters)
}

/// The next packet; errors after which the queue goes on are counted.
fn next<T>(mut receive: impl FnMut() -> io::Result<T>, counters: &Counters) -> io::Result<T> {
    loop {
        match receive() {
            Err(error) if is_passing(&error) => counters.refused.fetch_add(1, Ordering::Relaxed),
            other => return other,
        };
    }
}

fn handle(mut message: Message, queue: &mut Queue, applications: &Applications, gist: &Handle, counters: &Counters) {
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
        Judgement::HopCountExhausted(datagram) => {
            counters.hop_count_exhausted.fetch_add(1, Ordering::Relaxed);
            // GIST tells its sender, within its limits; if it cannot take it now, the sender asks again.
            let _ = gist.intercepted(datagram);
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
    /// For a listed foreign NSLP, but its hops are used up, which its sender is told (G-070).
    HopCountExhausted(gist::node::Datagram),
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
        Err(ForwardError::HopCountExhausted) => Judgement::HopCountExhausted(seen.datagram),
        Err(_) => Judgement::Ordinary,
    }
}

#[cfg(test)]
mod tests {
    use gist::io::QueryModePacket;

    use super::*;

    const OWN: NslpId = NslpId(32704);
    const FOREIGN: NslpId = NslpId(32720);

    fn judged(payload: &[u8]) -> Judgement {
        let packet = QueryModePacket {
            source: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2".parse().unwrap(),
            source_port: 270,
            ip_ttl: 64,
            ds_field: 0,
            flow_label: 0,
            router_alert: Some(65503),
            payload,
        };
        judge(&packet.build().unwrap(), 0, &Applications { own: OWN, foreign: vec![FOREIGN] })
    }

    /// Magic number, common header and as many octets behind it as the header says.
    fn message(nslp_id: NslpId, kind: u8, octets: usize) -> Vec<u8> {
        const CONTEXT_FREE: u8 = 0x80;
        let [high, low] = nslp_id.0.to_be_bytes();
        let [words_high, words_low] = u16::try_from(octets / 4).unwrap().to_be_bytes();
        let header = [0x4e, 0x04, 0xbd, 0xa5, 1, 5, words_high, words_low, high, low, CONTEXT_FREE | kind, 0];
        [&header[..], &vec![0x5a; octets]].concat()
    }

    /// G-154, G-211 (RFC 5971 §5.5): only these two travel in Q-mode.
    #[test]
    fn of_a_listed_application_queries_and_data_are_passed_on_and_no_other_message() {
        for (kind, passes) in [(0, true), (1, false), (2, false), (3, true), (4, false), (5, false), (6, false), (127, false)] {
            let judgement = judged(&message(FOREIGN, kind, 64));
            assert_eq!(matches!(judgement, Judgement::PassOn(_)), passes, "type {kind}: {judgement:?}");
            assert!(passes || judgement == Judgement::Ordinary, "type {kind}: {judgement:?}");
        }
    }

    /// G-053 (RFC 5971 §4.3.3): 576 octets less 64 for the encapsulation, where the path to the next peer is not known.
    #[test]
    fn a_listed_application_is_no_tunnel_for_what_is_longer_than_a_message_or_than_it_says() {
        assert!(matches!(judged(&message(FOREIGN, 0, 504)), Judgement::PassOn(_)));
        assert_eq!(judged(&message(FOREIGN, 0, 508)), Judgement::Ordinary);
        assert_eq!(judged(&message(FOREIGN, 0, 1400)), Judgement::Ordinary);
        let longer_than_it_says = [&message(FOREIGN, 0, 4)[..], &[0x5a; 300]].concat();
        assert_eq!(judged(&longer_than_it_says), Judgement::Ordinary);
        let shorter_than_it_says = &message(FOREIGN, 0, 300)[..200];
        assert_eq!(judged(shorter_than_it_says), Judgement::Ordinary);
    }

    /// G-070: no hop left, which GIST says to the sender, is not a reason to treat it as data.
    #[test]
    fn a_message_of_a_listed_application_without_hops_left_ends_here() {
        let mut last_hop = message(FOREIGN, 0, 4);
        last_hop[5] = 1;
        let Judgement::HopCountExhausted(told) = judged(&last_hop) else { panic!("for GIST to say so") };
        assert_eq!(&told.payload[..], last_hop);
    }

    #[test]
    fn what_the_kernel_refuses_is_counted_and_survived_and_a_queue_that_fails_is_not() {
        let counters = Counters::new(1);
        let mut errors = [libc::ENOENT, libc::EINVAL, libc::ENOBUFS, libc::EINTR, libc::EBADF].into_iter();
        let failed = next::<()>(|| Err(io::Error::from_raw_os_error(errors.next().unwrap())), &counters).unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::EBADF));
        assert_eq!(counters.show()["refused"], 4);
    }

    #[test]
    fn what_is_for_the_application_hosted_here_is_taken_and_what_nobody_lists_is_data() {
        assert!(matches!(judged(&message(OWN, 0, 64)), Judgement::Take(_)));
        assert_eq!(judged(&message(NslpId(32721), 0, 64)), Judgement::Ordinary);
    }
}
