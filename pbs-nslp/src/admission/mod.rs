//! The checks a received message passes before it may change anything, in the order of decisions.md appendix D.
//!
//! `Admission::open` does steps 1 to 3, `Admission::admit` steps 4 to 8. Neither writes anything that a permission
//! depends on; the machines do, in step 9, with what was admitted. Whatever is counted by peer is counted by whom its
//! certificate proved it to be, never by a name that it chose itself.

mod buckets;
mod fair;
mod floors;
mod refusal;
mod tombstones;

use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;

use gist::api::{Principal, ReceivedMessage};
use gist::time::Instant;
use gist::wire::{Direction, NslpId};

use crate::credentials::{Authority, CertificateCache, CertificateError, CertificatePath, VerifiedKey, validation_weight};
use crate::flow::FlowId;
use crate::opaque::Opaque;
use crate::wire::{self, Credential, Message, MessageKind, Permission, Query, Signed, number};

use fair::SharedBuckets;

pub use buckets::Rate;
pub(crate) use buckets::{Buckets, NamedBuckets};
pub use refusal::Refusal;
pub(crate) use tombstones::{Now, Signer, Tombstones};

/// Bounds of everything that checking messages keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdmissionLimits {
    /// Signed messages from one peer. Each of their signers has its equal part of it for certain, and what the others leave besides.
    pub peer_rate: Rate,
    /// Messages from one peer that one verified key signs; counted for each peer, so that none can use up what a key may send
    /// by another way. What costs more to verify counts for more.
    pub signer_rate: Rate,
    /// Certificates from one peer that are not known yet, weighed by what their validation costs at most: one is a path with one
    /// signature of an ordinary key.
    pub newcomer_rate: Rate,
    /// Peers, and signers, with a bucket of their own.
    pub buckets: usize,
    /// Last numbers kept after the state is gone.
    pub tombstones: usize,
    /// Those that messages from one peer may take up.
    pub tombstones_per_peer: usize,
    /// Signers with a floor of their own, for numbers that there was no room to keep.
    pub floors: usize,
    /// Verified certificates kept.
    pub certificates: usize,
    /// Shortest soft-state period accepted (appendix A).
    pub refresh_minimum: Duration,
    /// Longest soft-state period accepted.
    pub refresh_maximum: Duration,
}

impl Default for AdmissionLimits {
    fn default() -> Self {
        Self {
            peer_rate: Rate { per_second: 5000, burst: 5000 },
            signer_rate: Rate { per_second: 1000, burst: 2000 },
            newcomer_rate: Rate { per_second: 400, burst: 2000 },
            buckets: 4096,
            tombstones: 65_536,
            tombstones_per_peer: 16_384,
            floors: 4096,
            certificates: 4096,
            refresh_minimum: Duration::from_secs(5),
            refresh_maximum: Duration::from_secs(3600),
        }
    }
}

/// What live state says about the signer of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Standing {
    /// The newest number accepted from it.
    pub(crate) newest: Option<u32>,
    /// The key that the state belongs to.
    pub(crate) key_hash: Option<[u8; 32]>,
}

impl Standing {
    /// That of the newest of the messages accepted, each given by its number and the key it was signed with.
    pub(crate) fn of(accepted: impl Iterator<Item = (u32, [u8; 32])>) -> Self {
        let newest = accepted.reduce(|newest, next| if number::is_newer(next.0, newest.0) { next } else { newest });
        let (newest, key_hash) = newest.unzip();
        Self { newest, key_hash }
    }
}

/// A message that carries number, credential and signature.
pub(crate) trait SignedMessage {
    const KIND: MessageKind;
    fn number(&self) -> u32;
    fn credential(&self) -> &Credential;
    fn flow(&self) -> FlowId;
    /// Whose signature it must bear.
    fn signer(&self) -> IpAddr;
    /// Step 8, as far as it does not depend on state.
    fn check_values(&self, limits: &AdmissionLimits) -> Result<(), Refusal>;
}

/// The checks and what they remember.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Admission {
    authority: Opaque<dyn Authority>,
    limits: AdmissionLimits,
    certificates: CertificateCache,
    pub(crate) tombstones: Tombstones,
    peers: SharedBuckets,
    newcomers: Buckets<Principal>,
    signers: NamedBuckets<[u8; 32]>,
    /// What verification has cost since this was asked last, in signatures of an ordinary key.
    spent: u32,
}

impl Admission {
    pub(crate) fn new(authority: Arc<dyn Authority>, limits: AdmissionLimits) -> Self {
        Self {
            authority: Opaque::new(authority),
            limits,
            certificates: CertificateCache::new(limits.certificates),
            tombstones: Tombstones::new(limits.tombstones, limits.tombstones_per_peer, limits.floors),
            peers: SharedBuckets::new(limits.peer_rate, limits.buckets),
            newcomers: Buckets::new(limits.newcomer_rate, limits.buckets),
            signers: NamedBuckets::new(limits.signer_rate, limits.buckets),
            spent: 0,
        }
    }

    /// What verification has cost since this was asked last, in signatures of an ordinary key.
    pub(crate) fn take_spent(&mut self) -> u32 {
        core::mem::take(&mut self.spent)
    }

    /// Forgets verified certificates, as after a change of anchors or revocation lists.
    pub(crate) fn forget_certificates(&mut self) {
        self.certificates.clear();
    }

    /// Whether the certificates by which something was signed that stands are believed now ([`Authority::still_believes`]).
    pub(crate) fn still_believes(&self, path: &CertificatePath, now_unix: u64) -> Result<(), CertificateError> {
        self.authority.still_believes(path, now_unix)
    }

    /// The same without what messages have cost whom, and what they have shown of certificates: all that a refused one may leave.
    pub(crate) fn uncounted(&self) -> Self {
        let fresh = Self::new(Arc::clone(self.authority.shared()), self.limits);
        Self { tombstones: self.tombstones.clone(), ..fresh }
    }

    /// Steps 1 to 3: channel, syntax, flow and direction.
    pub(crate) fn open(&self, received: &ReceivedMessage, nslp_id: NslpId) -> Result<Message, Refusal> {
        if received.nslp_id != nslp_id {
            return Err(Refusal::foreign_application());
        }
        if !received.authenticated {
            return Err(Refusal::insecure());
        }
        let message = wire::decode(received.payload.clone(), received.session, nslp_id).map_err(|error| Refusal::undecodable(&error))?;
        let number = match &message {
            Message::Query(query) => query.message.number,
            Message::Permission(permission) => permission.message.number,
            Message::Notify(notify) => notify.message.number,
        };
        message.flow().check_mri(&received.mri).map_err(|mismatch| Refusal::mismatch(mismatch, number))?;
        if received.mri.direction() != direction(message.kind()) {
            return Err(Refusal::misdirected(message.kind(), number));
        }
        Ok(message)
    }

    /// Steps 4 to 8: number, rates, certificate, signature, values. Gives the key of the signer.
    pub(crate) fn admit<M: SignedMessage>(
        &mut self,
        received: &ReceivedMessage,
        signed: &Signed<M>,
        standing: Standing,
        now_unix: u64,
        now: Instant,
    ) -> Result<VerifiedKey, Refusal> {
        let message = &signed.message;
        let number = message.number();
        self.check_number(number, standing, now_unix)?;
        let key = self.check_certificate(message, received.principal, now_unix, now)?;
        let weight = key.weight();
        // The signer first: what one host behind a peer sends too much of is not taken from what the peer may bring of others.
        if !self.signers.take_many(received.principal, &key.key_hash, weight, now) {
            return Err(Refusal::overload(number, "more messages than one key may sign"));
        }
        if !self.peers.take_many(received.principal, &key.key_hash, weight, now) {
            return Err(Refusal::overload(number, "more messages than one peer may send"));
        }
        if standing.key_hash.is_some_and(|held_by| held_by != key.key_hash) {
            return Err(Refusal::other_key(number));
        }
        let signer = Signer { key_hash: key.key_hash, flow: message.flow(), kind: M::KIND };
        if self.tombstones.last(&signer).is_some_and(|last| !number::is_newer(number, last)) {
            return Err(Refusal::stale(number, "not newer than the last number of a state that is gone"));
        }
        if standing.newest.is_none() {
            above_floor(number, self.tombstones.floor_of(&key.key_hash))?;
        }
        self.spent = self.spent.saturating_add(weight);
        self.authority
            .verify_signature(&key, &signed.signed_bytes, &signed.signature)
            .map_err(|error| Refusal::signature(error, number))?;
        message.check_values(&self.limits)?;
        Ok(key)
    }

    /// Step 4: with state strictly newer, not before the window and not far ahead of the clock; without state within the window
    /// and above the floor.
    ///
    /// Appendix D asks with state for a newer number only. But then somebody on the path who holds Permissions back could let
    /// them go one by one long after the receiver took the permission back, each newer than the one before (TMP-01), and a
    /// number from far ahead would have to be remembered for as long. Honest messages follow the clock and are not
    /// affected.
    fn check_number(&self, number: u32, standing: Standing, now_unix: u64) -> Result<(), Refusal> {
        match standing.newest {
            Some(newest) if !number::is_newer(number, newest) => Err(Refusal::stale(number, format_args!("not newer than {newest}"))),
            Some(_) if number::is_outdated(number, now_unix) => Err(Refusal::stale(number, "before the freshness window")),
            Some(_) if number::runs_ahead(number, now_unix) => Err(Refusal::stale(number, "too far ahead of the clock")),
            Some(_) => Ok(()),
            None if !number::is_fresh(number, now_unix) => Err(Refusal::stale(number, "outside the freshness window")),
            None => above_floor(number, self.tombstones.floor()),
        }
    }

    /// Steps 5 and 6: path, validity, strength and address. Until all that is verified the signer is only a name, of which a peer
    /// can make up as many as it likes: what is counted by signer comes afterwards, and what is spent before counts for the peer.
    fn check_certificate<M: SignedMessage>(
        &mut self,
        message: &M,
        peer: Principal,
        now_unix: u64,
        now: Instant,
    ) -> Result<VerifiedKey, Refusal> {
        let number = message.number();
        let (certificate, chain) = message.credential().certificate().ok_or_else(|| Refusal::no_certificate(number))?;
        if !self.certificates.knows(certificate, chain, message.signer(), now_unix) {
            let weight = validation_weight(certificate, chain);
            if !self.newcomers.take_many(&peer, weight, now) {
                return Err(Refusal::overload(number, "more unknown certificates than one peer may bring"));
            }
            self.spent = self.spent.saturating_add(weight);
        }
        self.certificates
            .verify(&*self.authority, certificate, chain, message.signer(), now_unix)
            .map_err(|error| Refusal::certificate(&error, number))
    }
}

impl SignedMessage for Query {
    const KIND: MessageKind = MessageKind::Query;

    fn number(&self) -> u32 {
        self.number
    }

    fn credential(&self) -> &Credential {
        &self.credential
    }

    fn flow(&self) -> FlowId {
        self.flow
    }

    fn signer(&self) -> IpAddr {
        self.flow.source
    }

    fn check_values(&self, _: &AdmissionLimits) -> Result<(), Refusal> {
        Ok(())
    }
}

impl SignedMessage for Permission {
    const KIND: MessageKind = MessageKind::Permission;

    fn number(&self) -> u32 {
        self.number
    }

    fn credential(&self) -> &Credential {
        &self.credential
    }

    fn flow(&self) -> FlowId {
        self.flow
    }

    fn signer(&self) -> IpAddr {
        self.flow.destination
    }

    fn check_values(&self, limits: &AdmissionLimits) -> Result<(), Refusal> {
        if self.is_removal() {
            return Ok(());
        }
        let bounds = limits.refresh_minimum..=limits.refresh_maximum;
        if bounds.contains(&self.refresh) { Ok(()) } else { Err(Refusal::bad_refresh(self)) }
    }
}

fn above_floor(number: u32, floor: Option<u32>) -> Result<(), Refusal> {
    match floor {
        Some(floor) if !number::is_newer(number, floor) => Err(Refusal::stale(number, format_args!("not above the floor {floor}"))),
        Some(_) | None => Ok(()),
    }
}

/// Whether a message says that it is a notice, which is never answered by another one (P-206).
pub(crate) fn is_notice(received: &ReceivedMessage) -> bool {
    received.payload.first() == Some(&MessageKind::Notify.number())
}

/// Queries go with the flow, everything else goes against it.
fn direction(kind: MessageKind) -> Direction {
    match kind {
        MessageKind::Query => Direction::Downstream,
        MessageKind::Permission | MessageKind::Notify => Direction::Upstream,
    }
}
