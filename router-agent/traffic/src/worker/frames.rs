//! What comes past the queue: frames instead of packets, which go on by our own hand: at a router to the next hop, at a host by a device to its
//! own stack, with TCP segments put together.

use std::time::Duration;

use heapless::Vec;

use crate::af_xdp::{AfXdp, Arrived, Inlet, Inward};
use crate::counters::Counters;
use crate::joining::Joined;
use crate::processor::{Arrival, PacketId, Verdict};
use crate::queue::MANY;
use crate::reason::DropReason;

use super::count;
use super::handover::Thread;
use super::thread::Work;

/// What becomes of a frame.
enum Outcome {
    /// It goes on.
    Pass,
    /// With this packet in it.
    Replace(std::vec::Vec<u8>),
    /// It does not.
    Drop,
}

/// Frames of one socket that are judged before the queue's next batch; a quarter of the default window.
const FRAMES_A_TURN: usize = 4 * MANY;

/// Numbers of frames lie above those of both queues; nothing is ever asked about one again.
const FRAME: u64 = 1 << 33;

impl Work {
    /// Judges the frames that are there; `true` if there may be more.
    ///
    /// No more of one socket, which is one queue of an interface, than [`FRAMES_A_TURN`] before the queue has its turn: a flood past it does
    /// not keep what comes by it waiting until it is too old for the window.
    pub(super) fn handle_frames(&mut self) -> bool {
        let Some(mut af_xdp) = self.af_xdp.take() else { return false };
        let most = self.processor.batch_size().clamp(1, MANY);
        let (mut more, mut any) = (false, 0);
        for socket in 0..af_xdp.len() {
            let mut left = FRAMES_A_TURN;
            loop {
                af_xdp.poll(socket);
                let mut arrived: Vec<Arrived, MANY> = Vec::new();
                for _ in 0..af_xdp.receive(socket, most, &mut arrived) {
                    count(&self.shared.faults.unreadable);
                }
                let came = arrived.len();
                self.judge_frames(&mut af_xdp, arrived);
                any += came;
                left = left.saturating_sub(came);
                if came < most || left == 0 {
                    more |= left == 0;
                    break;
                }
            }
        }
        if let Some(inward) = af_xdp.inward() {
            let Inward { inlet, joiner } = &mut **inward;
            joiner.flush(&mut |joined| write(inlet, &self.counters, &joined));
        }
        if any > 0 {
            self.gathering.note(any, self.clock.now());
        } else if af_xdp.patience().is_some() {
            af_xdp.settle();
        }
        self.af_xdp = Some(af_xdp);
        more
    }

    /// How long to wait for anything, if frames are under way no longer than they are to be looked after.
    pub(super) fn patience(&self, timeout: Option<Duration>) -> Option<Duration> {
        let frames = self.af_xdp.as_ref().and_then(|af_xdp| af_xdp.patience());
        timeout.into_iter().chain(frames).min()
    }

    fn judge_frames(&mut self, af_xdp: &mut AfXdp, arrived: Vec<Arrived, MANY>) {
        if arrived.is_empty() {
            return;
        }
        if let Some(mut inward) = af_xdp.inward().take() {
            self.judge_with(|this| this.judge_for_host(af_xdp, &mut inward, &arrived));
            self.drain();
            *af_xdp.inward() = Some(inward);
            arrived.into_iter().for_each(|frame| af_xdp.drop_frame(frame));
            return af_xdp.settle();
        }
        let outcomes = self.judge_with(|this| this.outcomes(af_xdp, &arrived));
        self.drain();
        for (frame, (outcome, len)) in arrived.into_iter().zip(outcomes) {
            let sent = match outcome {
                Outcome::Pass => af_xdp.send_on(frame, None),
                Outcome::Replace(packet) => af_xdp.send_on(frame, Some(&packet)),
                Outcome::Drop => {
                    af_xdp.drop_frame(frame);
                    continue;
                }
            };
            if !sent {
                self.counters.count_not_passed(DropReason::NotTransmitted, len);
            }
        }
        af_xdp.settle();
    }

    /// Judges frames for this host, and has those that pass arrive, as far as they do not wait for more of their connection.
    fn judge_for_host(&mut self, af_xdp: &AfXdp, inward: &mut Inward, arrived: &[Arrived]) {
        let arrivals = self.arrivals(af_xdp, arrived, &mut |_| {});
        let now = self.clock.now();
        let (counters, Inward { inlet, joiner }) = (&*self.counters, inward);
        self.processor.process_batch(&arrivals, now, &mut |at, verdict| {
            let came = arrivals.get(at).map_or(0, |arrival| arrival.bytes.len());
            match verdict {
                Verdict::Replace { payload, .. } => joiner.push(payload, came, &mut |joined| write(inlet, counters, &joined)),
                // At a host nothing goes on with AH.
                Verdict::Accept => counters.count_not_passed(DropReason::NotTransmitted, came),
                Verdict::Drop(reason) => tracing::trace!(%reason, "dropped"),
                Verdict::Taken | Verdict::Hold => {}
            }
        });
    }

    /// The packets in frames, as a processor is given them; `each` is told how long every frame's is.
    fn arrivals<'f>(&self, af_xdp: &'f AfXdp, arrived: &'f [Arrived], each: &mut dyn FnMut(usize)) -> Vec<Arrival<'f>, MANY> {
        let mut arrivals = Vec::new();
        for (number, frame) in (FRAME..).zip(arrived) {
            match af_xdp.packet(frame) {
                Ok(bytes) => {
                    let _ = arrivals.push(Arrival { id: PacketId(number), user: None, has_arrived: true, is_unfinished: false, bytes });
                    each(bytes.len());
                }
                Err(reason) => {
                    let len = af_xdp.len_of_unknown(frame);
                    self.counters.count_dropped(reason, len);
                    each(len);
                }
            }
        }
        arrivals
    }

    /// Of each frame what becomes of it, and how long its packet is.
    fn outcomes(&mut self, af_xdp: &AfXdp, arrived: &[Arrived]) -> Vec<(Outcome, usize), MANY> {
        let mut outcomes: Vec<(Outcome, usize), MANY> = Vec::new();
        let arrivals = self.arrivals(af_xdp, arrived, &mut |len| drop(outcomes.push((Outcome::Drop, len))));
        let now = self.clock.now();
        self.processor.process_batch(&arrivals, now, &mut |at, verdict| {
            // The number of a frame is its place.
            let place = arrivals.get(at).and_then(|arrival| usize::try_from(arrival.id.0 - FRAME).ok());
            let Some((outcome, _)) = place.and_then(|place| outcomes.get_mut(place)) else { return };
            match verdict {
                Verdict::Accept => *outcome = Outcome::Pass,
                Verdict::Replace { payload, .. } => *outcome = Outcome::Replace(payload.to_vec()),
                Verdict::Drop(reason) => tracing::trace!(%reason, "dropped"),
                Verdict::Taken | Verdict::Hold => {}
            }
        });
        outcomes
    }
}

/// Has a packet arrive at this host, or counts what went into it as dropped.
fn write(inlet: &mut Inlet, counters: &Counters, joined: &Joined<'_>) {
    if let Err(error) = inlet.write(joined) {
        tracing::trace!(%error, "a judged packet does not arrive");
        joined.said.iter().for_each(|len| counters.count_not_passed(DropReason::NotTransmitted, *len));
    }
}
