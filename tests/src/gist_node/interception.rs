//! Taking Q-mode packets off the path, as a router does.

use std::io;
use std::thread;

use gist::io::{Handle, intercepted};
use nfq::{Queue, Verdict};

use crate::network::interception::Interception;

/// Packets that may wait; what is beyond goes on untouched.
const QUEUE_LENGTH: u32 = 512;

/// Takes Q-mode packets off the path from now on; everything else goes on untouched. The node passes on what is for applications that it
/// does not host (G-065, G-066).
///
/// # Errors
///
/// The kernel refuses the rules or the queue.
pub(super) fn start(queue_number: u16, gist: Handle) -> io::Result<Interception> {
    let mut queue = Queue::open()?;
    queue.bind(queue_number)?;
    queue.set_queue_max_len(queue_number, QUEUE_LENGTH)?;
    let rules = Interception::set(queue_number)?;
    thread::Builder::new().name("interception".to_owned()).spawn(move || {
        loop {
            let Ok(mut message) = queue.recv() else { continue };
            let verdict = match intercepted(message.get_payload(), message.get_indev()) {
                Ok(seen) => {
                    // A full queue loses it like a full link would: the Query comes again.
                    let _ = gist.intercepted(seen.datagram);
                    Verdict::Drop
                }
                Err(_) => Verdict::Accept,
            };
            message.set_verdict(verdict);
            // It has been let go meanwhile.
            let _ = queue.verdict(message);
        }
    })?;
    Ok(rules)
}
