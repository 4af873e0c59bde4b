//! Inputs of a router: each becomes an event of the session's machine.

use gist::api::{Indication, NetworkEvent, ReceivedMessage, SendError};
use gist::time::Instant;
use gist::wire::{Direction, Mri, SessionId};

use super::Router;
use super::rows::{Cause, Step};
use super::session::Session;
use super::table::{Event, Guards, State, Timer};
use crate::admission::{Refusal, Standing};
use crate::association::{Association, Source};
use crate::datapath::{self, SourceKey};
use crate::flow::FlowId;
use crate::node::{Distrust, Envelope, Notice, SessionKey};
use crate::output::Output;
use crate::removal::Counted;
use crate::report::ReportEvent;
use crate::shares::Owner;
use crate::wire::{Defense, Message, NotifyCode, Permission, Query, Signed, Unsigned};

/// Detail of Notify 14: no receiver further along the path.
const NO_RECEIVER: u16 = 2;

impl Router {
    /// Takes what GIST says.
    pub fn handle_gist(&mut self, indication: Indication, now: Instant) {
        match indication {
            Indication::Received(received) => self.handle_message(received, now),
            Indication::MessageStatus { session, mri, error, .. } => self.undelivered(session, &mri, error, now),
            Indication::NetworkNotification { session, mri, event, .. } => self.notified(session, &mri, event, now),
            // For who leaves its messages' carriage open; these travel over TLS.
            Indication::MessageProposed { .. } => self.node.ignored(),
        }
    }

    /// Takes a message that GIST received for this application.
    pub fn handle_message(&mut self, received: ReceivedMessage, now: Instant) {
        match self.node.admission.open(&received, self.node.nslp_id) {
            Ok(Message::Query(query)) => self.query(&received, &query, now),
            Ok(Message::Permission(permission)) => self.permission(&received, &permission, now),
            Ok(Message::Notify(notify)) => self.pass_notice(&received, notify, now),
            Err(refusal) => self.refuse(&received, refusal, now),
        }
    }

    /// Counts a message as refused that there was no room for where it had to wait. Nothing more: whoever floods decides how many of
    /// them there are.
    pub fn turn_away(&mut self) {
        self.node.count_refusal(NotifyCode::Overload);
    }

    /// Takes an answer or an event of the packet side.
    pub fn handle_datapath(&mut self, event: datapath::Event, now: Instant) {
        match event {
            datapath::Event::Applied { token, counted, highest } => {
                if let Some(due) = self.removals.applied(token, Counted { volume: counted, highest }) {
                    for (message, _) in due {
                        self.node.push(Output::Send(message));
                    }
                } else if let Some(key) = self.waiting.remove(&token) {
                    self.acknowledged(key, token);
                }
            }
            datapath::Event::Failed { token, reason } => {
                if let Some(key) = self.waiting.remove(&token) {
                    self.take(Event::ErDatapath, Guards::default(), Step::new(key, Cause::Failed(&reason), now));
                } else if self.removals.failed(token, now) {
                    tracing::error!(token = token.0, reason, "removal failed, tried again");
                }
            }
            // FN-43: the packet has been dropped and counted; the state stays.
            datapath::Event::OverBudget { .. }
            | datapath::Event::NearlyUsedUp { .. }
            | datapath::Event::Compared { .. }
            | datapath::Event::SecondHolder { .. }
            | datapath::Event::FirstPacket { .. } => {}
        }
    }

    /// Anchors or revocation lists have changed: certificates are verified anew, and what was signed by one that is believed no more
    /// ends at once (FN-73).
    pub fn reconsider_certificates(&mut self, now: Instant) {
        self.node.admission.forget_certificates();
        let ended = self.sessions.iter().filter_map(|(key, session)| Some((*key, self.distrust(key, session, now)?)));
        for (key, distrust) in ended.collect::<Vec<_>>() {
            self.take(Event::TgDistrusted, Guards::default(), Step::new(key, Cause::Distrusted(distrust), now));
        }
    }

    /// Which end of the flow is believed no more, if one is.
    fn distrust(&self, key: &SessionKey, session: &Session, now: Instant) -> Option<Distrust> {
        let asked = session.asked.as_ref().map(|asked| (key.flow.source, &asked.path));
        let granted = session.granted.as_ref().map(|granted| (key.flow.destination, &granted.path));
        [asked, granted].into_iter().flatten().find_map(|(signer, path)| self.node.distrust(signer, path, now))
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((key, timer)) = self.timers.pop_expired(now) {
            self.take(timer.event(), Guards::default(), Step::new(key, Cause::Clock(timer), now));
        }
        self.removals.retry(&mut self.node, now);
    }

    fn query(&mut self, received: &ReceivedMessage, signed: &Signed<Query>, now: Instant) {
        let key = SessionKey { flow: signed.message.flow, session: received.session };
        if self.is_last_query_again(key, received, signed) {
            // Only to whom GIST has taken for the session's peer: the message itself proves nothing.
            let repairs = received.authenticated && !received.tentative && self.repairs(key, false, now);
            let guards = Guards { repairs, ..Guards::default() };
            return self.take(Event::RxLastQueryAgain, guards, Step::new(key, Cause::Again { received }, now));
        }
        let standing = self.standing(&key.flow, |session| session.asked.as_ref().map(|a| (a.number, a.key_hash)));
        let verified = match self.node.admission.admit(received, signed, standing, self.node.unix(now), now) {
            Ok(verified) => verified,
            Err(refusal) => return self.refuse(received, refusal, now),
        };
        self.node.adopt_peer_of(received);
        let owner = Owner { peer: received.principal, signer: verified.key_hash };
        let guards = Guards { full: self.is_full(key, owner), forbidden: self.config.policy.forbids(&key.flow), ..Guards::default() };
        let (key_hash, source) = (verified.key_hash, SourceKey::of(&verified));
        let cause = Cause::Query { received, signed, key_hash, path: verified.path, source };
        self.take(Event::RxQuery, guards, Step::new(key, cause, now));
    }

    fn permission(&mut self, received: &ReceivedMessage, signed: &Signed<Permission>, now: Instant) {
        let permission = &signed.message;
        let key = SessionKey { flow: permission.flow, session: received.session };
        let standing = self.standing(&key.flow, |session| session.granted.as_ref().map(|g| (g.number, g.key_hash)));
        let verified = match self.node.admission.admit(received, signed, standing, self.node.unix(now), now) {
            Ok(verified) => verified,
            Err(refusal) => return self.refuse(received, refusal, now),
        };
        let source = self.sessions.get(&key).and_then(|session| session.asked.as_ref()).and_then(|asked| asked.source.as_ref());
        let association = Association::of(permission, Source::Other(source), &self.config.node);
        let event = if permission.is_removal() {
            Event::RxDenial
        } else if permission.defense == Some(Defense::ChangePath) {
            Event::RxChangePath
        } else if association.is_none() && self.sessions.contains_key(&key) {
            return self.refuse(received, Refusal::algorithm(permission.number), now);
        } else {
            Event::RxPermission
        };
        let guards = association.as_ref().map(|association| self.guards(key, association)).unwrap_or_default();
        let guards = Guards { forbidden: self.config.policy.is_exceeded_by(permission, self.allowed_besides(&key.flow)), ..guards };
        let cause = Cause::Permission { received, signed, key_hash: verified.key_hash, path: verified.path, association };
        self.take(event, guards, Step::new(key, cause, now));
    }

    fn guards(&self, key: SessionKey, association: &Association) -> Guards {
        let session = self.sessions.get(&key);
        let active = session.and_then(|session| session.granted.as_ref()).map(|granted| &granted.association);
        let held_by = self.spis.get(&(key.flow.destination, association.spi()));
        // Nor may it go back to an epoch that runs out, or is being removed: numbers would repeat.
        let taken = held_by.is_some_and(|holder| *holder != key)
            || session.and_then(|session| session.draining).is_some_and(|draining| draining.spi == association.spi())
            || self.removals.holds(&key.flow, association.spi());
        Guards {
            full: false,
            repairs: false,
            forbidden: false,
            replaces: self.sessions_of(&key.flow).any(|(other, _)| *other != key),
            spi_taken: taken,
            same_spi: active.is_some_and(|active| active.spi() == association.spi()),
            same_association: active.is_some_and(|active| active.is_same(association)),
        }
    }

    /// A notice goes on towards the sender as it is; it changes nothing here.
    fn pass_notice(&mut self, received: &ReceivedMessage, notify: Unsigned, now: Instant) {
        let message = notify.message;
        let event =
            ReportEvent::Notified { code: message.code, detail: message.detail, number: message.number, reporter: message.reporter };
        if self.node.may_pass_notice(received, &message.flow, now) {
            self.node.report(Some(message.flow), received.session, "", event);
            self.node.send(Envelope::onward(received), notify.forwarded);
        }
    }

    pub(super) fn refuse(&mut self, received: &ReceivedMessage, refusal: Refusal, now: Instant) {
        self.node.count_refusal(refusal.code);
        let Ok(flow) = FlowId::from_mri(&received.mri) else {
            // Without a flow there is neither a session nor a way to say so.
            return self.node.report_refusal(None, "", received, &refusal, now);
        };
        let key = SessionKey { flow, session: received.session };
        let old = refusal.code == NotifyCode::Stale && self.sessions.contains_key(&key);
        let event = if old { Event::RxOld } else { Event::RxInvalid };
        self.take(event, Guards::default(), Step::new(key, Cause::Refused { received, refusal: &refusal }, now));
    }

    fn undelivered(&mut self, session: SessionId, mri: &Mri, error: SendError, now: Instant) {
        let Ok(flow) = FlowId::from_mri(mri) else {
            return self.node.ignored();
        };
        let key = SessionKey { flow, session };
        let lost_query = mri.direction() == Direction::Downstream;
        let (code, detail) = reason(&error);
        self.node.tell(key, "", ReportEvent::Undelivered { error });
        match self.sessions.get(&key).map(|session| session.state) {
            Some(State::Permitted) if lost_query => {
                self.take(Event::ErDownstreamLost, Guards::default(), Step::new(key, Cause::Other, now));
            }
            Some(State::WaitP) if lost_query => {
                self.notify_sender(key, code, detail, now);
            }
            Some(_) | None => {}
        }
    }

    fn notified(&mut self, session: SessionId, mri: &Mri, event: NetworkEvent, now: Instant) {
        let Ok(flow) = FlowId::from_mri(mri) else {
            return self.node.ignored();
        };
        let key = SessionKey { flow, session };
        if mri.direction() == Direction::Upstream || !self.sessions.contains_key(&key) {
            return;
        }
        let step = Step::new(key, Cause::Other, now);
        match event {
            NetworkEvent::AssociationLost => {
                let guards = Guards { repairs: self.may_ask_again(key, now), ..Guards::default() };
                self.take(Event::ErDownstreamLost, guards, step);
            }
            NetworkEvent::PeerChanged => {
                let guards = Guards { repairs: self.repairs(key, true, now), ..Guards::default() };
                self.take(Event::TgDownstreamChanged, guards, step);
            }
            NetworkEvent::LastNode => self.notify_sender(key, NotifyCode::NoState, NO_RECEIVER, now),
            NetworkEvent::NotAuthorised => self.notify_sender(key, NotifyCode::NoSecureChannel, 0, now),
            NetworkEvent::RouteDeleted => {}
        }
    }

    /// A notice that concerns the session's last Query.
    fn notify_sender(&mut self, key: SessionKey, code: NotifyCode, detail: u16, now: Instant) {
        if let Some(asked) = self.sessions.get(&key).and_then(|session| session.asked.clone()) {
            let number = asked.number;
            let notice = Notice { key, mri: &asked.mri, code, detail, number, about: asked.upstream };
            self.node.notify(&notice, "", now);
        }
    }

    /// What the live sessions of a flow say about one of its signers.
    fn standing(&self, flow: &FlowId, part: impl Fn(&Session) -> Option<(u32, [u8; 32])>) -> Standing {
        Standing::of(self.sessions_of(flow).filter_map(|(_, session)| part(session)))
    }

    pub(super) fn sessions_of(&self, flow: &FlowId) -> impl Iterator<Item = (&SessionKey, &Session)> {
        self.sessions.range(SessionKey::range(*flow))
    }

    fn is_full(&self, key: SessionKey, owner: Owner) -> bool {
        // A newer question of the same source takes the place of its former one.
        let former = |(other, session): (&SessionKey, &Session)| *other != key && session.is_pending && session.owner == owner;
        let replaces = self.sessions_of(&key.flow).any(former);
        let has_room = self.shares.has_room(owner, self.config.sessions)
            && self.pending.total() < self.config.pending
            && self.pending.fits(owner, self.config.pending_per_peer);
        !replaces && !has_room
    }

    fn is_last_query_again(&self, key: SessionKey, received: &ReceivedMessage, signed: &Signed<Query>) -> bool {
        let asked = self.sessions.get(&key).and_then(|session| session.asked.as_ref());
        asked.is_some_and(|asked| asked.upstream != received.principal && asked.is(signed))
    }
}

/// What a sender is told when its Query does not go on.
fn reason(error: &SendError) -> (NotifyCode, u16) {
    match error {
        // Nobody is there who could be asked. A time-out may also be that of a slow association, but then no more is known.
        SendError::NoResponse
        | SendError::NoEncapsulation
        | SendError::SelfDestination
        | SendError::TimedOut
        | SendError::HopCountZero
        | SendError::Refused(_)
        | SendError::UnknownPeer => (NotifyCode::NoState, NO_RECEIVER),
        SendError::AssociationFailed(_) | SendError::NotAuthorised => (NotifyCode::NoSecureChannel, 0),
        SendError::QueueFull => (NotifyCode::Overload, 0),
        SendError::TooLarge => (NotifyCode::Malformed, 0),
    }
}

/// What a timer that ended a session is called.
pub(super) fn clock_name(timer: Timer) -> &'static str {
    match timer {
        Timer::Wait => "no Permission came",
        Timer::Ttl => "time limit",
        Timer::Life => "no refresh",
        Timer::Drain => "drain time",
    }
}
