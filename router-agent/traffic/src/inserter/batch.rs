//! Many packets at once: each is judged, numbered and counted in its turn, as by itself; the ICVs of those that go out one after the other
//! are computed side by side before the first of them has its verdict.
//!
//! Whether a packet goes out, and under which number, does not depend on the ICVs of those before it, and whether it can be sealed is known
//! when it is written: only the MAC itself is put off. What does not go out at once (held, dropped, come from outside) has its verdict
//! behind all before it.

use heapless::Vec;
use smoltcp::time::Instant;

use super::{Inserter, sealed};
use crate::ah::BATCH;
use crate::processor::{Arrival, PacketProcessor, Verdict};

/// Octets after which no more packets are put off: they are read again soon, from the processor's cache.
const ENOUGH: usize = 256 * 1024;

/// A packet that stands in `sealing`: its place in the batch, its length without AH, and bits of its mark.
type PutOff = (usize, (usize, Option<u32>));

impl Inserter {
    /// Judges packets in their order.
    pub(super) fn decide_batch(&mut self, packets: &[Arrival<'_>], now: Instant, give: &mut dyn FnMut(usize, Verdict<'_>)) {
        let mut put_off: Vec<PutOff, BATCH> = Vec::new();
        self.sealing.0.clear();
        for (at, Arrival { id, user, has_arrived, is_unfinished, bytes }) in packets.iter().enumerate() {
            if *has_arrived {
                self.send_off(&mut put_off, give);
                give(at, self.process_arrived(*id, bytes, now));
                continue;
            }
            let attempt = if *is_unfinished { self.judge_finished(*id, *user, bytes, now) } else { self.judge(*id, *user, bytes, now) };
            self.ask(now);
            match attempt.goes_out(&self.counters, bytes.len()) {
                Ok(mark) => {
                    // There is room: a full batch has been sent off.
                    let _ = put_off.push((at, (bytes.len(), mark)));
                    if put_off.is_full() || self.sealing.0.octets() >= ENOUGH {
                        self.send_off(&mut put_off, give);
                    }
                }
                Err(verdict) => {
                    self.send_off(&mut put_off, give);
                    give(at, verdict);
                }
            }
        }
        self.send_off(&mut put_off, give);
    }

    /// Seals what was put off, and gives the verdicts.
    fn send_off(&mut self, put_off: &mut Vec<PutOff, BATCH>, give: &mut dyn FnMut(usize, Verdict<'_>)) {
        if put_off.is_empty() {
            return;
        }
        self.sealing.0.seal();
        for (place, (at, what)) in put_off.iter().enumerate() {
            give(*at, sealed(&self.sealing.0, &self.counters, place, *what));
        }
        put_off.clear();
        self.sealing.0.clear();
    }
}
