//! The checks that stand between a packet and its being forwarded, and the seal that one of them looks for, each in one replaceable
//! place.
//!
//! Daemons use [`Strict`]. The laboratory starts a daemon with one method replaced to show that its scenarios notice;
//! no configuration of a daemon can do that.

use std::fmt;
use std::marker::PhantomData;

use smoltcp::time::Instant;

use crate::ah::{self, InsertError, Number, Question, Sealing};
use crate::algorithm::{IcvKey, Integrity};
use crate::flow::Flow;
use crate::packet::IpPacket;
use crate::replay::{Replay, Window};

/// The checks of the packet path. Every method's own body is the real check; that of
/// [`icvs_match`](Checks::icvs_match), which only looks ahead, looks at nothing, and that of [`seal_among`](Checks::seal_among) does one
/// after the other, so that who replaces one check replaces it in batches too.
pub trait Checks: Send + Sync + fmt::Debug {
    /// Whether a packet of `flow` may go under the SPI of the permission for `granted`: only if all five values are the same
    /// (P-038).
    fn is_of_flow(&self, granted: &Flow, flow: &Flow) -> bool {
        granted == flow
    }

    /// Whether the packet's ICV is right (RFC 4302 §3.4.4); `high` as in [`ah::icv_matches`].
    fn icv_matches(&self, packet: &IpPacket<'_>, key: &IcvKey, high: Option<u32>) -> bool {
        ah::icv_matches(packet, key, high)
    }

    /// [`icv_matches`](Self::icv_matches) for many packets at once, each answer in the place of its question; where there is no
    /// question, or in the end no answer, that method is asked for the packet when its turn comes.
    fn icvs_match(&self, questions: &[Option<Question<'_>>], answers: &mut [Option<bool>]) {
        let _ = (questions, answers);
    }

    /// Puts AH with the right ICV around a packet; as [`ah::insert`].
    ///
    /// # Errors
    ///
    /// See [`InsertError`]; `out` is then left empty.
    fn seal(&self, packet: &IpPacket<'_>, spi: u32, number: Number, key: &IcvKey, out: &mut Vec<u8>) -> Result<(), InsertError> {
        ah::insert(packet, spi, number, key, out)
    }

    /// The same, behind packets whose ICVs may all be computed together before the first of them leaves. Whoever replaces
    /// [`seal`](Self::seal) replaces this too: its own body seals the packet by itself.
    ///
    /// # Errors
    ///
    /// See [`InsertError`]; `sealing` is then as it was.
    fn seal_among(&self, packet: &IpPacket<'_>, spi: u32, number: Number, key: &IcvKey, sealing: &mut Sealing) -> Result<(), InsertError> {
        sealing.add_sealed(|out| self.seal(packet, spi, number, key, out))
    }

    /// Whether the window lets a whole sequence number through (RFC 4302 §3.4.3).
    ///
    /// # Errors
    ///
    /// Why it does not.
    fn window_allows(&self, window: &Window, number: u64) -> Result<(), Replay> {
        window.check(number)
    }

    /// Whether a sender that keeps to the allowed volume can have come to this number: since the highest one verified it has
    /// sent no more than the `left` octets, each packet at least `shortest` long, and the window beyond that.
    ///
    /// The packet itself may be lost, late or counted elsewhere: what is left here is never less than what was left to the sender
    /// behind the highest number, because nothing is counted here that the sender has not counted under a number up to it. The
    /// window is for what is not exact: a permission that was lowered, a router that began to count in mid-flow.
    fn is_within_reach(&self, window: &Window, number: u64, left: u64, shortest: u64) -> bool {
        let without = window.highest().saturating_add(window.size());
        // In nearly every case nothing has to be divided.
        number <= without || number <= without.saturating_add(left.checked_div(shortest).unwrap_or(u64::MAX))
    }

    /// Whether `length` more octets stay within the allowed volume.
    fn within_budget(&self, counted: u64, length: u64, allowed: u64) -> bool {
        counted.checked_add(length).is_some_and(|total| total <= allowed)
    }

    /// Whether a permission that ends at `expires_at` still holds at `now`.
    fn is_live(&self, expires_at: Instant, now: Instant) -> bool {
        now < expires_at
    }
}

/// The real checks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Strict;

impl Checks for Strict {
    fn icvs_match(&self, questions: &[Option<Question<'_>>], answers: &mut [Option<bool>]) {
        ah::icvs_match(questions, answers);
    }

    fn seal_among(&self, packet: &IpPacket<'_>, spi: u32, number: Number, key: &IcvKey, sealing: &mut Sealing) -> Result<(), InsertError> {
        sealing.add(packet, spi, number, key)
    }
}

/// The real checks by other cryptography than the standard one, such as a model checker's.
#[derive(Debug, Clone, Copy)]
pub struct Computed<M>(PhantomData<M>);

impl<M: Integrity> Default for Computed<M> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<M: Integrity> Checks for Computed<M> {
    fn icv_matches(&self, packet: &IpPacket<'_>, key: &IcvKey, high: Option<u32>) -> bool {
        ah::icv_matches_by::<M>(packet, key, high)
    }

    fn seal(&self, packet: &IpPacket<'_>, spi: u32, number: Number, key: &IcvKey, out: &mut Vec<u8>) -> Result<(), InsertError> {
        ah::insert_by::<M>(packet, spi, number, key, out)
    }
}
