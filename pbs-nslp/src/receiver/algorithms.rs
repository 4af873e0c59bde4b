//! Which authentication of packets a flow gets: what its rule says, within what its sender can do and accepts (P-134, X-33).
//!
//! What a sender accepts stands in its signed Query: nobody on the path can take it out, or put something weaker in its place.

use gist::time::Instant;

use super::Receiver;
use super::session::Session;
use super::table::Event;
use crate::admission::Refusal;
use crate::node::{Notice, SessionKey};
use crate::report::Denial;
use crate::wire::{PublicKeyAlgorithm, Query, SymmetricAlgorithm};

/// What a sender accepts of what this receiver can do: HMAC-SHA-256 and signatures by the key of its certificate. Both are mandatory,
/// so that a sender says something by leaving one out, or by its order. Codes of other algorithms are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Accepted {
    symmetric: bool,
    signatures: bool,
    signatures_first: bool,
}

/// How the packets of an epoch are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// By a key that the path knows (Solution 2).
    Symmetric,
    /// By the sender's own (Solution 3).
    Signatures,
}

impl Accepted {
    /// What a Query says; one without the object accepts both.
    pub(super) fn of(query: &Query) -> Self {
        let Some(codes) = &query.algorithms else {
            return Self { symmetric: true, signatures: true, signatures_first: false };
        };
        let place = |code| codes.iter().position(|found| *found == code);
        let symmetric = place(SymmetricAlgorithm::HmacSha256.number());
        let signatures = place(PublicKeyAlgorithm::FromCertificate.number());
        let signatures_first = signatures.is_some_and(|at| symmetric.is_none_or(|other| at < other));
        Self { symmetric: symmetric.is_some(), signatures: signatures.is_some(), signatures_first }
    }
}

impl Session {
    /// Whether packets could be signed: the sender accepts that, and its key is fit for it.
    pub(super) fn can_sign(&self) -> bool {
        self.query.accepted.signatures && self.source.is_some()
    }
}

impl Receiver {
    /// The authentication of the session's next epoch: what must be signed is signed or not permitted at all, else the sender's order
    /// decides. `None`: nothing that both ends agree to.
    pub(super) fn choose(&self, key: SessionKey, now: Instant) -> Option<Choice> {
        let session = self.sessions.get(&key)?;
        let Accepted { symmetric, signatures_first, .. } = session.query.accepted;
        let by_rule = self.config.policy.rule(&key.flow).is_some_and(|rule| rule.signed);
        let must_sign = by_rule || self.signed.get(&key.flow).is_some_and(|until| *until > now);
        if session.can_sign() && (must_sign || signatures_first || !symmetric) {
            Some(Choice::Signatures)
        } else {
            (symmetric && !must_sign).then_some(Choice::Symmetric)
        }
    }

    /// Declines a flow for want of an authentication of packets that both ends agree to, and says so (Notify 12).
    pub(super) fn decline_algorithms(&mut self, key: SessionKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&key) {
            session.denial = Some(Denial::Algorithms);
            let refusal = Refusal::algorithm(session.query.number);
            let (mri, about) = (session.mri.clone(), session.peer);
            let notice = Notice { key, mri: &mri, code: refusal.code, detail: refusal.detail, number: refusal.number, about };
            self.node.notify(&notice, "", now);
        }
        self.follow.push_back((key, Event::TgDecline));
    }
}
