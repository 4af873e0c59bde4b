//! The Permissions that a receiver sends.

use core::time::Duration;

use gist::api::SendMessage;
use gist::time::Instant;

use super::Receiver;
use super::rows::{Cause, Step};
use super::session::{Asked, Farewell, Sent, Session, Then};
use super::table::{State, Timer};
use crate::datapath::Protection;
use crate::node::{ANSWER_TIMEOUT, Envelope, Notice, SessionKey};
use crate::output::Output;
use crate::report::ReportEvent;
use crate::wire::{self, Credential, Defense, NotifyCode, Permission, PublicKeyAlgorithm, SaParameters, Volume};

/// Detail of Notify 14: refresh needed.
const REFRESH_NEEDED: u16 = 1;

/// The Echo of a Permission that nobody asked for.
const UNSOLICITED: u32 = 0;

impl Receiver {
    /// Sends the Permission that answers the newest Query; the flow's older session gives way to it (FR-50).
    pub(super) fn send_answer(&mut self, key: SessionKey, now: Instant) {
        self.send_permission(key, now);
        self.hasten(key, now);
        self.supersede(key, None, now);
    }

    /// After a suspicion (T1) the sender is told that its next Query is wanted now: that one names the Permission which has just left,
    /// and E1 to E3 decide by it. Whose Queries name none are not hastened, since two of them in a row would decide.
    fn hasten(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions.get_mut(&key).filter(|session| session.query.context.is_some()) else {
            return;
        };
        let refresh = session.refresh();
        if session.watch.take_haste(refresh, now) {
            let (mri, number, about) = (session.mri.clone(), session.query.number, session.peer);
            let notice = Notice { key, mri: &mri, code: NotifyCode::NoState, detail: REFRESH_NEEDED, number, about };
            self.node.notify(&notice, "", now);
        }
    }

    /// Sends the Permission as it stands now, unasked (FR-17), unless a Query has had no answer yet.
    pub(super) fn send_announcement(&mut self, key: SessionKey, now: Instant) {
        self.send_permission(key, now);
    }

    fn send_permission(&mut self, key: SessionKey, now: Instant) {
        let ttl = self.time_left(key, now);
        if ttl.is_zero() {
            // A time limit of 0 would revoke; the end is due and says so itself.
            return;
        }
        let number = self.numbers.next(key.flow, self.node.unix(now));
        let credential = self.credential();
        let drain = self.config.drain;
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let (Some(terms), Some(epoch)) = (session.terms, &mut session.epoch) else {
            return;
        };
        let query = session.query.number;
        let echo = if session.answered.replace(query) == Some(query) { UNSOLICITED } else { query };
        let defense = match &epoch.protection {
            // One Defense a Permission; this one leaves the association as it is.
            _ if session.other_path => Defense::ChangePath,
            Protection::Shared { algorithm, key } => Defense::SymmetricKey { algorithm: *algorithm, key: key.clone() },
            Protection::SignedBy(_) | Protection::Signing => Defense::PublicKey { algorithm: PublicKeyAlgorithm::FromCertificate },
        };
        session.other_path = false;
        let permission = Permission {
            flow: key.flow,
            number,
            allowed: session.allowed,
            ttl,
            refresh: terms.refresh,
            credential,
            sa: defense.has_association().then_some(SaParameters { spi: epoch.spi, drain, new_epoch: !epoch.confirmed }),
            defense: Some(defense),
            echo: Some(echo),
        };
        // Appendix E: both were read before the message is handed to GIST.
        epoch.first.get_or_insert(number);
        let before = Sent { number, counted: epoch.counted, highest: epoch.highest };
        session.note(before);
        let envelope = envelope(key, session);
        if let Some(message) = self.build(key, &permission, envelope) {
            self.node.tell(key, "", ReportEvent::Refreshed { number, allowed: permission.allowed, ttl });
            self.node.push(Output::Send(message));
        }
    }

    /// Sends AV = 0, when the packet side has removed what there was (P-144).
    pub(super) fn deny(&mut self, step: &Step<'_>) {
        let session = self.sessions.get(&step.key);
        let (echo, envelope) = match (&step.cause, session) {
            (Cause::Query { received, query, .. }, _) => {
                let mri = received.mri.inverted();
                let envelope = Envelope::own(received.session, mri, ANSWER_TIMEOUT);
                (query.number, envelope)
            }
            // The session's first answer, even if the decision itself has been taken.
            (_, Some(session)) if session.state == State::Decision || session.log.is_empty() => {
                (session.query.number, envelope(step.key, session))
            }
            (_, Some(session)) => (UNSOLICITED, envelope(step.key, session)),
            (_, None) => return,
        };
        let permission = Permission {
            flow: step.key.flow,
            number: self.numbers.next(step.key.flow, self.node.unix(step.now)),
            allowed: Volume::ZERO,
            ttl: Duration::ZERO,
            refresh: Duration::ZERO,
            credential: self.credential(),
            defense: None,
            sa: None,
            echo: Some(echo),
        };
        let Some(denial) = self.build(step.key, &permission, envelope) else {
            return;
        };
        let release = match &step.cause {
            Cause::Query { query, .. } if step.removal.is_some() => Some(Asked::from(*query)),
            _ => None,
        };
        let farewell = Box::new(Farewell { key: step.key, denial, release });
        if let Err(Then::Deny(farewell)) = self.removals.then(step.key.flow, step.removal, Then::Deny(farewell)) {
            self.node.push(Output::Send(farewell.denial));
        }
    }

    fn build(&mut self, key: SessionKey, permission: &Permission, envelope: Envelope) -> Option<SendMessage> {
        match wire::build_permission(permission, key.session, self.node.nslp_id, &*self.signer) {
            Ok(payload) => Some(self.node.pack(envelope, payload)),
            Err(error) => {
                self.node.tell(key, "", ReportEvent::NotBuilt { reason: error.to_string() });
                None
            }
        }
    }

    fn credential(&self) -> Credential {
        Credential::Certificate { certificate: self.signer.certificate().clone(), chain: self.signer.chain().to_vec() }
    }

    /// What is left of the time limit, in whole milliseconds.
    fn time_left(&self, key: SessionKey, now: Instant) -> Duration {
        let left = self.timers.expiry(key, Timer::Ttl).map_or(Duration::ZERO, |end| end.saturating_duration_since(now));
        Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }
}

fn envelope(key: SessionKey, session: &Session) -> Envelope {
    Envelope::own(key.session, session.mri.clone(), ANSWER_TIMEOUT)
}
