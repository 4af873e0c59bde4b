//! What the packet side asks of cryptography, as a trait, and the value that a MAC gives.

use std::fmt;

use subtle::ConstantTimeEq;

use super::{MacAlgorithm, MacKey, VerifyingKey};

/// Computes MACs and judges signatures. Signatures are made behind [`PacketSigner`](super::PacketSigner), where the private key is.
///
/// It is a type and not a value: which one computes is settled when the program is compiled, so that nothing is paid for it at a
/// packet. Daemons use [`Standard`](super::Standard); a model checker may take a function of key and input that is quick and no MAC
/// ([`Computed`](crate::checks::Computed)).
pub trait Integrity: fmt::Debug + Send + Sync + 'static {
    /// A MAC under way.
    type Context;

    /// Begins a MAC over data that comes in pieces, with the packet's initialization vector: zero for an algorithm that has none
    /// ([`MacAlgorithm::iv_len`]).
    fn begin(key: &MacKey, iv: Iv) -> Self::Context;

    /// Takes the next piece.
    fn update(context: &mut Self::Context, piece: &[u8]);

    /// Ends the computation.
    fn finish(context: Self::Context) -> MacValue;

    /// Whether `signature`, which has its algorithm's length, is that of the key's owner over `input`.
    fn verifies(key: &VerifyingKey, input: &[u8], signature: &[u8]) -> bool;
}

/// An initialization vector: what makes one MAC computation different from all others under its key (RFC 4543 §3.1).
pub type Iv = [u8; 8];

/// Octets of the longest MAC.
pub(super) const LONGEST: usize = 16;

/// A message authentication code, cut to its algorithm's length; without the initialization vector that a packet carries before it.
#[derive(Debug, Clone, Copy)]
pub struct MacValue {
    value: [u8; LONGEST],
    len: usize,
}

impl MacValue {
    /// The first octets of `computed`, as many as `algorithm` says. What is missing is zero.
    pub fn cut(algorithm: MacAlgorithm, computed: &[u8]) -> Self {
        let len = algorithm.value_len();
        Self { value: padded(computed.get(..len).unwrap_or(computed)), len }
    }

    /// The value's octets.
    pub(crate) fn octets(&self) -> &[u8] {
        self.value.get(..self.len).unwrap_or_default()
    }

    /// The same, with zeros behind it.
    pub(crate) const fn padded(&self) -> [u8; LONGEST] {
        self.value
    }

    /// Whether `received` begins with exactly this value, in time that does not depend on where they differ.
    pub(crate) fn matches(&self, received: &[u8]) -> bool {
        // As one word: octet by octet the comparison takes longer than hashing a short packet beside others.
        let equals = |theirs| bool::from(u128::from_ne_bytes(self.value).ct_eq(&u128::from_ne_bytes(padded(theirs))));
        self.len > 0 && received.get(..self.len).is_some_and(equals)
    }
}

/// As many of the octets as there is room for, with zeros behind them.
fn padded(octets: &[u8]) -> [u8; LONGEST] {
    // Most are as long as there is room, which makes it one move.
    octets.first_chunk().copied().unwrap_or_else(|| {
        let mut value = [0; LONGEST];
        value.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
        value
    })
}
