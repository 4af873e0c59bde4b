//! The Queries that a sender sends.

use core::time::Duration;

use gist::api::{MessageHandle, PathId};
use gist::time::Instant;

use super::Sender;
use super::effects::Farewell;
use super::inputs::REPAIR;
use super::rows::{Cause, Step, answer_timeout};
use super::table::{State, Timer};
use crate::association::is_of_rsa_2048;
use crate::datapath::{Command, Protection};
use crate::flow::FlowId;
use crate::node::{Envelope, PROBED_BY_GIST, SessionKey};
use crate::removal::Counted;
use crate::report::ReportEvent;
use crate::wire::{self, Credential, PublicKeyAlgorithm, Query, SymmetricAlgorithm, Volume};

/// AH numbers from here on are near their end.
const NUMBERS_NEARLY_USED_UP: u32 = 1 << 31;

/// Queries of a flow should be this far apart, so that their numbers do not run ahead of the clock: a node that has
/// restarted takes none from the future.
const HASTE: Duration = Duration::from_secs(1);

impl Sender {
    /// Sends a Query; with an epoch as soon as the packet side has said what was sent in it.
    pub(super) fn send_query(&mut self, step: &Step<'_>) {
        let Some(session) = self.sessions.get_mut(&step.flow) else {
            return;
        };
        match (&step.cause, session.state) {
            (Cause::Clock(Timer::Answer), _) | (Cause::Gist, State::WaitP) => session.attempt.tries += 1,
            (Cause::Clock(Timer::Repair), _) => {}
            _ => {
                session.attempt.tries = 1;
                session.attempt.numbers = None;
                session.attempt.first_sent_at = None;
                session.attempt.asks_more = false;
                session.attempt.reports_former = false;
            }
        }
        let before = session.attempt.last_sent_at.replace(step.now);
        session.attempt.first_sent_at.get_or_insert(step.now);
        session.unanswered_since.get_or_insert(step.now);
        session.attempt.in_haste = before.is_some_and(|before| step.now.saturating_duration_since(before) < HASTE);
        let [live, former] = session.spis();
        match former.or(live) {
            Some(spi) => self.read(step.flow, spi),
            None => self.ask(step.flow, step.now),
        }
    }

    /// Asks the packet side what was sent in an epoch; the Query leaves with the answer.
    pub(super) fn read(&mut self, flow: FlowId, spi: u32) {
        let token = self.node.token();
        let session = self.sessions.get_mut(&flow);
        if let Some(older) = session.and_then(|session| session.reading.replace(token)) {
            self.waiting.remove(&older);
        }
        self.wait_for(flow, spi, token);
        self.node.command(Command::Snapshot { token, flow, spi });
    }

    /// Sends the Query that asks for a permission, refreshes it, or asks for more.
    pub(super) fn ask(&mut self, flow: FlowId, now: Instant) {
        let requested = self.request(flow, now);
        let Some(session) = self.sessions.get_mut(&flow) else {
            return;
        };
        let (sent, context) = session.report();
        session.attempt.reports_former |= session.former.is_some();
        if let Some(epoch) = &mut session.epoch {
            epoch.reported = epoch.sent;
            // Without numbers more volume does not help: another epoch is asked for.
            session.attempt.asks_more |= requested.is_some_and(|requested| requested > epoch.allowed || epoch.is_out_of_numbers());
        }
        session.ask_more = false;
        let session_id = session.session;
        let query = self.query(flow, requested, sent, context, now);
        let number = query.number;
        self.doubt_peer(flow);
        if let Some(handle) = self.emit(SessionKey { flow, session: session_id }, &query, "")
            && let Some(session) = self.sessions.get_mut(&flow)
        {
            let first = session.attempt.numbers.map_or(number, |(first, _)| first);
            session.attempt.numbers = Some((first, number));
            session.attempt.last_handle = Some(handle);
        }
    }

    /// A Query that was not answered, or is sent more often than GIST refreshes, asks who is next on the path besides.
    fn doubt_peer(&mut self, flow: FlowId) {
        let Some(session) = self.sessions.get(&flow) else {
            return;
        };
        let is_fast = session.epoch.as_ref().is_some_and(|epoch| epoch.refresh < PROBED_BY_GIST);
        if is_fast || session.attempt.tries > 1 {
            self.node.doubt_peer(session.session, &session.mri);
        }
    }

    /// RV: a first permission, or an absolute total like AV if more is needed; nothing for a mere refresh.
    fn request(&self, flow: FlowId, now: Instant) -> Option<Volume> {
        let session = self.sessions.get(&flow)?;
        let Some(epoch) = &session.epoch else {
            return Some(session.wanted);
        };
        let ends = self.timers.expiry(flow, Timer::Ttl).unwrap_or(now);
        let ends_soon = ends.saturating_duration_since(now) < epoch.refresh.saturating_mul(2);
        let runs_out = epoch.is_nearly_used_up() || ends_soon || epoch.highest >= NUMBERS_NEARLY_USED_UP;
        let needed = session.ask_more || session.data_waits || (epoch.is_busy() && runs_out);
        // What was used up so fast is asked for twice as large.
        let more = if session.attempt.in_haste { session.wanted.0.max(epoch.sent.0) } else { session.wanted.0 };
        let total = epoch.sent.0.saturating_add(more).max(epoch.allowed.0);
        // Where the path has changed the receiver may have given the session up meanwhile: the same volume once more, then.
        let may_be_new = (session.state == State::WaitP).then_some(epoch.allowed);
        needed.then_some(Volume(total)).or(may_be_new)
    }

    /// Gives the permission back; after a removal, when the final volume is known.
    pub(super) fn send_release(&mut self, step: &mut Step<'_>) {
        step.releases = true;
        let Some(session) = self.sessions.get_mut(&step.flow) else {
            return;
        };
        session.attempt.tries = if matches!(step.cause, Cause::Clock(Timer::Answer)) { session.attempt.tries + 1 } else { 1 };
        let farewell = Farewell {
            key: SessionKey { flow: step.flow, session: session.session },
            mri: session.mri.clone(),
            path: session.course.path,
            last_report: session.last_report,
            is_final: step.removal.is_some(),
        };
        if let Err(farewell) = self.removals.then(step.flow, step.removal, farewell) {
            self.give_back(&farewell, step.now);
        }
    }

    /// The packet side has removed the association and told the final volume.
    pub(super) fn say_farewell(&mut self, mut farewell: Farewell, last: Counted, now: Instant) {
        if let Some((last_sent, context)) = farewell.last_report.as_mut().filter(|_| farewell.is_final) {
            (*last_sent, context.highest) = (last.volume.into(), last.highest);
        }
        let session = self.sessions.get_mut(&farewell.key.flow);
        if let Some(session) = session.filter(|session| session.session == farewell.key.session) {
            session.last_report = farewell.last_report;
        }
        self.give_back(&farewell, now);
    }

    fn give_back(&mut self, farewell: &Farewell, now: Instant) {
        let (sent, context) = farewell.last_report.unzip();
        let query = self.query(farewell.key.flow, Some(Volume::ZERO), sent, context, now);
        self.emit_to(farewell.key, (&farewell.mri, farewell.path), &query, "", answer_timeout(1, None));
    }

    fn query(
        &mut self,
        flow: FlowId,
        requested: Option<Volume>,
        sent: Option<Volume>,
        context: Option<wire::VolumeContext>,
        now: Instant,
    ) -> Query {
        let certificate = self.signer.certificate().clone();
        let chain = self.signer.chain().to_vec();
        Query {
            flow,
            number: self.numbers.next(flow, self.node.unix(now)),
            requested,
            sent,
            credential: Credential::Certificate { certificate, chain },
            context,
            algorithms: Some(self.algorithms(&flow)),
            puzzle: None,
        }
    }

    /// What this host accepts for packets of a flow, best first.
    fn algorithms(&self, flow: &FlowId) -> Vec<u8> {
        let signatures = PublicKeyAlgorithm::FromCertificate.number();
        let shared = self.macs(flow).into_iter().map(SymmetricAlgorithm::number);
        // Another number for the same.
        let by_name = is_of_rsa_2048(self.signer.signature_length()).then_some(PublicKeyAlgorithm::Rsa2048.number());
        shared.chain([signatures]).chain(by_name).collect()
    }

    /// The codes under shared keys among them.
    fn macs(&self, flow: &FlowId) -> Vec<SymmetricAlgorithm> {
        let rule = self.config.ask.iter().find(|rule| rule.selector.matches(flow));
        if rule.is_some_and(|rule| rule.signed) {
            return Vec::new();
        }
        let mut macs = self.config.macs.clone();
        let preferred = rule.and_then(|rule| rule.mac);
        macs.retain(|mac| self.config.node.may_use(*mac, preferred));
        macs.sort_by_key(|mac| Some(*mac) != preferred);
        macs
    }

    /// Whether what a Permission says fits what the Query has said: no receiver, and nobody in its name, gets less.
    pub(super) fn accepts(&self, flow: &FlowId, protection: &Protection) -> bool {
        match protection {
            Protection::Shared { algorithm, .. } => self.macs(flow).contains(algorithm),
            Protection::Signing => true,
            Protection::SignedBy(_) => false,
        }
    }

    fn emit(&mut self, key: SessionKey, query: &Query, rule: &'static str) -> Option<MessageHandle> {
        let session = self.sessions.get(&key.flow)?;
        let repairing = self.timers.expiry(key.flow, Timer::Repair).is_some();
        let timeout =
            if repairing { REPAIR } else { answer_timeout(session.attempt.tries, session.epoch.as_ref().map(|epoch| epoch.refresh)) };
        let (mri, path) = (session.mri.clone(), session.course.path);
        self.emit_to(key, (&mri, path), query, rule, timeout)
    }

    fn emit_to(
        &mut self,
        key: SessionKey,
        (mri, path): (&gist::wire::Mri, PathId),
        query: &Query,
        rule: &'static str,
        timeout: Duration,
    ) -> Option<MessageHandle> {
        match wire::build_query(query, key.session, self.node.nslp_id, &*self.signer) {
            Ok(payload) => {
                let event = ReportEvent::Asked { number: query.number, requested: query.requested, sent: query.sent };
                self.node.tell(key, rule, event);
                let envelope = Envelope { path, ..Envelope::own(key.session, mri.clone(), timeout) };
                Some(self.node.send(envelope, payload))
            }
            Err(error) => {
                self.node.tell(key, rule, ReportEvent::NotBuilt { reason: error.to_string() });
                None
            }
        }
    }
}
