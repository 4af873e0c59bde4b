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

/// What a sender accepts of what this receiver can do: authentication codes under shared keys, and signatures by the key of its
/// certificate. HMAC-SHA-256 and signatures are mandatory, so that a sender says something by leaving one out, or by its order. Codes of
/// other algorithms are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Accepted {
    /// In the sender's order.
    shared: [Option<SymmetricAlgorithm>; SymmetricAlgorithm::USABLE.len()],
    /// Behind so many of these; `None` if none are.
    signatures: Option<usize>,
}

/// How the packets of an epoch are authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// By a key that the path knows (Solution 2).
    Symmetric(SymmetricAlgorithm),
    /// By the sender's own (Solution 3).
    Signatures,
}

impl Accepted {
    /// What a Query says; one without the object accepts what is mandatory.
    pub(super) fn of(query: &Query) -> Self {
        let mandatory = [SymmetricAlgorithm::HmacSha256.number(), PublicKeyAlgorithm::FromCertificate.number()];
        let codes = query.algorithms.as_deref().unwrap_or(&mandatory);
        let mut accepted = Self { shared: [None; SymmetricAlgorithm::USABLE.len()], signatures: None };
        for code in codes {
            if *code == PublicKeyAlgorithm::FromCertificate.number() {
                accepted.signatures = accepted.signatures.or(Some(accepted.shared.iter().flatten().count()));
            }
            let usable = SymmetricAlgorithm::USABLE.into_iter().find(|algorithm| algorithm.number() == *code);
            if let Some(algorithm) = usable.filter(|algorithm| !accepted.shared.contains(&Some(*algorithm)))
                && let Some(place) = accepted.shared.iter_mut().find(|place| place.is_none())
            {
                *place = Some(algorithm);
            }
        }
        accepted
    }
}

impl Session {
    /// Whether packets could be signed: the sender accepts that, and its key is fit for it.
    pub(super) fn can_sign(&self) -> bool {
        self.query.accepted.signatures.is_some() && self.source.is_some()
    }
}

impl Receiver {
    /// The authentication of the session's next epoch: what must be signed is signed or not permitted at all, a code that the rule
    /// prefers is taken if the sender accepts it, else the sender's order decides, also whether packets are signed. `None`: nothing that
    /// both ends agree to.
    pub(super) fn choose(&self, key: SessionKey, now: Instant) -> Option<Choice> {
        let session = self.sessions.get(&key)?;
        let accepted = session.query.accepted;
        let rule = self.config.policy.rule(&key.flow);
        let preferred = rule.and_then(|rule| rule.mac);
        let may_use = |mac: &&SymmetricAlgorithm| self.config.node.may_use(**mac, preferred);
        let usable = accepted.shared.iter().flatten().filter(may_use);
        let shared = usable.clone().find(|mac| Some(**mac) == preferred).or_else(|| usable.clone().next()).copied();
        // What this node may not use goes before nothing.
        let signatures_first =
            accepted.signatures.is_some_and(|behind| !accepted.shared.iter().flatten().take(behind).any(|mac| may_use(&mac)));
        let must_sign = rule.is_some_and(|rule| rule.signed) || self.signed.get(&key.flow).is_some_and(|until| *until > now);
        if session.can_sign() && (must_sign || signatures_first || shared.is_none()) {
            Some(Choice::Signatures)
        } else {
            shared.filter(|_| !must_sign).map(Choice::Symmetric)
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
