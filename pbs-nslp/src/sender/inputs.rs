//! Inputs of a sender: each becomes an event of a flow's machine.

use core::time::Duration;

use gist::api::{Indication, MessageHandle, NetworkEvent, ReceivedMessage, SendError};
use gist::time::Instant;
use gist::wire::{Direction, Mri, SessionId};

use super::rows::{Cause, Step};
use super::session::Session;
use super::table::{Action, Event, Guards, Outcome, State, Timer};
use super::{Sender, WantError, table};
use crate::admission::{Refusal, Standing};
use crate::association::{Association, Source};
use crate::datapath;
use crate::flow::FlowId;
use crate::node::SessionKey;
use crate::removal::Counted;
use crate::report::{ReportEvent, Setback};
use crate::wire::{Defense, Message, Notify, NotifyCode, Permission, Signed, Volume};

/// Repairs are this far apart at least (FS-34; the round-trip time is not measured).
pub(super) const REPAIR: Duration = Duration::from_secs(1);

impl Sender {
    /// Asks for a permission to send, or for more of it (FS-01, FS-33). `volume` is how much is asked for at a time.
    ///
    /// # Errors
    /// [`WantError`] says why the wish is not taken up. Whether it is granted comes as a report.
    pub fn want(&mut self, flow: FlowId, volume: Volume, now: Instant) -> Result<(), WantError> {
        if !self.config.addresses.contains(&flow.source) {
            return Err(WantError::ForeignSource);
        }
        if volume.is_zero() {
            return Err(WantError::NoVolume);
        }
        if !self.sessions.contains_key(&flow) {
            if self.sessions.len() >= self.config.sessions {
                self.make_room(now);
            }
            if self.sessions.len() >= self.config.sessions {
                return Err(WantError::Full);
            }
            let mri = flow.to_mri(Direction::Downstream);
            self.sessions.insert(flow, Session::new(SessionId([0; 16]), mri, volume));
        }
        if let Some(session) = self.sessions.get_mut(&flow) {
            session.wanted = volume;
            session.ask_more = session.state == State::Permitted;
            let event = if session.state == State::Permitted { Event::TgRenew } else { Event::TgWant };
            self.event(flow, event, Cause::Other, now);
        }
        Ok(())
    }

    /// Ends the hold-down that is nearest to its end. Nothing else ever makes room: neither a permission nor a question (INV-12).
    fn make_room(&mut self, now: Instant) {
        let idle = self.sessions.iter().filter(|(_, session)| session.state == State::Idle).map(|(flow, _)| *flow);
        if let Some(flow) = idle.min_by_key(|flow| self.timers.expiry(*flow, Timer::Hold)) {
            self.timers.stop(flow, Timer::Hold);
            self.event(flow, Event::ToHold, Cause::Clock(Timer::Hold), now);
        }
    }

    /// Gives a permission back (FS-16, FS-35).
    pub fn release(&mut self, flow: FlowId, now: Instant) {
        self.event(flow, Event::TgClose, Cause::Other, now);
    }

    /// Gives all permissions back before the host stops (FS-60).
    pub fn shutdown(&mut self, now: Instant) {
        let flows: Vec<FlowId> = self.sessions.keys().copied().collect();
        for flow in flows {
            self.event(flow, Event::TgShutdown, Cause::Other, now);
        }
    }

    /// Anchors or revocation lists have changed: certificates are verified anew, and what a receiver has granted that is believed no more
    /// ends at once (FS-72).
    pub fn reconsider_certificates(&mut self, now: Instant) {
        self.node.admission.forget_certificates();
        let distrust = |(flow, session): (&FlowId, &Session)| {
            let accepted = session.accepted.as_ref().filter(|_| session.epoch.is_some())?;
            Some((*flow, self.node.distrust(flow.destination, &accepted.path, now)?))
        };
        for (flow, distrust) in self.sessions.iter().filter_map(distrust).collect::<Vec<_>>() {
            self.event(flow, Event::TgDistrusted, Cause::Distrusted(distrust), now);
        }
    }

    /// Takes what GIST says about the flows this host sends.
    pub fn handle_gist(&mut self, indication: Indication, now: Instant) {
        match indication {
            Indication::Received(received) => self.handle_message(received, now),
            Indication::MessageStatus { handle, session, mri, error, .. } => self.undelivered(handle, session, &mri, error, now),
            Indication::NetworkNotification { session, mri, event, .. } => self.notified(session, &mri, event, now),
            // For who leaves its messages' carriage open; these travel over TLS.
            Indication::MessageProposed { .. } => self.node.ignored(),
        }
    }

    /// Takes a message that GIST received for this application.
    pub fn handle_message(&mut self, received: ReceivedMessage, now: Instant) {
        match self.node.admission.open(&received, self.node.nslp_id) {
            Ok(Message::Permission(permission)) => self.permission(&received, &permission, now),
            Ok(Message::Notify(notify)) => self.notice(&received, &notify.message, now),
            Ok(Message::Query(_)) => self.node.ignored(),
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
                    for (farewell, last) in due {
                        self.say_farewell(farewell, last, now);
                    }
                } else if let Some(awaited) = self.waiting.remove(&token) {
                    self.acknowledged(awaited, token, counted.into(), highest, now);
                }
            }
            datapath::Event::Failed { token, reason } => {
                if let Some(awaited) = self.waiting.remove(&token) {
                    if self.is_about_live_epoch(awaited) {
                        self.event(awaited.flow, Event::ErDatapath, Cause::Failed(&reason), now);
                    } else {
                        self.forget_former(awaited);
                        self.acknowledged(awaited, token, Volume::ZERO, 0, now);
                    }
                } else if self.removals.failed(token, now) {
                    tracing::error!(token = token.0, reason, "removal failed, tried again");
                }
            }
            datapath::Event::FirstPacket { flow } => self.first_packet(flow, now),
            datapath::Event::NearlyUsedUp { flow, spi } => self.nearly_used_up(flow, spi, now),
            datapath::Event::OverBudget { flow, spi } => self.over_budget(flow, spi, now),
            datapath::Event::Compared { .. } | datapath::Event::SecondHolder { .. } => self.node.ignored(),
        }
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some((flow, timer)) = self.timers.pop_expired(now) {
            self.event(flow, timer.event(), Cause::Clock(timer), now);
        }
        self.removals.retry(&mut self.node, now);
    }

    /// The first packet of a flow asks by itself if a rule says so. The packet side bounds how many ask at a time and
    /// has users take turns.
    fn first_packet(&mut self, flow: FlowId, now: Instant) {
        let state = self.sessions.get(&flow).map_or(State::Idle, |session| session.state);
        if state == State::Permitted && self.has_ended(flow, now) {
            // The packet side has seen the end of the permission before its timers fire here.
            if let Some(session) = self.sessions.get_mut(&flow) {
                session.data_waits = true;
            }
            return;
        }
        if state != State::Idle {
            return self.event(flow, Event::TgPacket, Cause::Other, now);
        }
        let rule = self.config.ask.iter().find(|rule| rule.selector.matches(&flow)).map(|rule| rule.volume);
        // Whatever this host's programs send to, the other half of the table stays for what is granted and asked for otherwise.
        let waiting = self.sessions.values().filter(|session| session.state == State::WaitP).count();
        let has_room = waiting < self.config.sessions.div_ceil(2);
        let asked = rule.is_some_and(|volume| has_room && self.want(flow, volume, now).is_ok());
        if !asked {
            self.event(flow, Event::TgUnasked, Cause::Other, now);
        }
    }

    fn has_ended(&self, flow: FlowId, now: Instant) -> bool {
        [Timer::Ttl, Timer::Life].into_iter().any(|timer| self.timers.expiry(flow, timer).is_some_and(|end| end <= now))
    }

    /// Asks in time, so that nothing has to wait (FS-33).
    fn nearly_used_up(&mut self, flow: FlowId, spi: u32, now: Instant) {
        match self.of_epoch(flow, spi) {
            Some(session) => {
                session.ask_more = true;
                self.event(flow, Event::TgRenew, Cause::Other, now);
            }
            None => self.node.ignored(),
        }
    }

    fn of_epoch(&mut self, flow: FlowId, spi: u32) -> Option<&mut Session> {
        let session = self.sessions.get_mut(&flow);
        session.filter(|session| session.epoch.as_ref().is_some_and(|epoch| epoch.association.spi() == spi))
    }

    fn over_budget(&mut self, flow: FlowId, spi: u32, now: Instant) {
        match self.of_epoch(flow, spi) {
            Some(session) => {
                session.data_waits = true;
                session.ask_more = true;
                self.event(flow, Event::TgOverBudget, Cause::Other, now);
            }
            None => self.node.ignored(),
        }
    }

    fn permission(&mut self, received: &ReceivedMessage, signed: &Signed<Permission>, now: Instant) {
        let permission = &signed.message;
        let flow = permission.flow;
        let association = Association::of(permission, Source::Own(self.signer.signature_length()), &self.config.node);
        let event = if permission.is_removal() {
            Event::RxDenial
        } else if permission.defense == Some(Defense::ChangePath) {
            Event::RxChangePath
        } else {
            Event::RxPermission
        };
        if !self.is_live(flow, received.session) {
            return self.stray(SessionKey { flow, session: received.session }, event);
        }
        let accepted = self.sessions.get(&flow).and_then(|session| session.accepted.as_ref());
        let standing = accepted
            .map_or_else(Standing::default, |accepted| Standing { newest: Some(accepted.number), key_hash: Some(accepted.key_hash) });
        match self.node.admission.admit(received, signed, standing, self.node.unix(now), now) {
            Ok(verified) => {
                if let Some(session) = self.sessions.get_mut(&flow) {
                    session.note_answer(permission.echo, received.hop_count, now);
                }
                let cause = Cause::Permission { received, permission, key_hash: verified.key_hash, path: verified.path, association };
                self.event(flow, event, cause, now);
            }
            Err(refusal) => self.refuse(received, refusal, now),
        }
    }

    /// A notice changes nothing but the time of the next Query.
    fn notice(&mut self, received: &ReceivedMessage, notify: &Notify, now: Instant) {
        if !self.is_live(notify.flow, received.session) {
            return self.node.ignored();
        }
        if let Some(session) = self.sessions.get_mut(&notify.flow) {
            let &Notify { code, detail, reporter, .. } = notify;
            session.attempt.setback = Some(Setback::Notified { code, detail, reporter });
        }
        // It is the Query that was too old, or the answer to it: after a restart numbers may lie behind those used before.
        let query_open = self.timers.expiry(notify.flow, Timer::Answer).is_some();
        let refused_as_old = notify.code == NotifyCode::Stale && query_open;
        let guards = Guards { refused_as_old, ..self.guards(notify.flow, None, now) };
        self.take(Event::RxNotify, guards, Step::new(notify.flow, Cause::Notify { received, notify }, now));
        match notify.code {
            NotifyCode::NoState | NotifyCode::RouteChanged => self.event(notify.flow, Event::TgRepair, Cause::Other, now),
            NotifyCode::Overload if notify.challenge.is_some() => {
                self.event(notify.flow, Event::RxChallenge, Cause::Notify { received, notify }, now);
            }
            _ => {}
        }
    }

    fn refuse(&mut self, received: &ReceivedMessage, refusal: Refusal, now: Instant) {
        self.node.count_refusal(refusal.code);
        match FlowId::from_mri(&received.mri) {
            Ok(flow) => self.event(flow, Event::RxInvalid, Cause::Refused { received, refusal: &refusal }, now),
            Err(_) => self.node.report_refusal(None, "", received, &refusal, now),
        }
    }

    fn undelivered(&mut self, handle: MessageHandle, session: SessionId, mri: &Mri, error: SendError, now: Instant) {
        let flow = FlowId::from_mri(mri).ok();
        self.node.report(flow, session, "", ReportEvent::Undelivered { error: error.clone() });
        let Some(flow) = flow.filter(|flow| self.is_live(*flow, session)) else {
            return;
        };
        // News of a Query that has been repeated since are old.
        if let Some(session) = self.sessions.get_mut(&flow).filter(|session| session.attempt.last_handle == Some(handle)) {
            session.attempt.setback = Some(Setback::Undelivered(error));
            self.event(flow, Event::ErGist, Cause::Gist, now);
        }
    }

    fn notified(&mut self, session: SessionId, mri: &Mri, event: NetworkEvent, now: Instant) {
        let Some(flow) = FlowId::from_mri(mri).ok().filter(|flow| self.is_live(*flow, session)) else {
            return self.node.ignored();
        };
        let waits = self.sessions.get(&flow).is_some_and(|session| session.state == State::WaitP);
        match event {
            NetworkEvent::AssociationLost if waits => {
                let guards = self.guards(flow, None, now);
                let guards = Guards { put_off: guards.repair_recent, ..guards };
                self.take(Event::ErGist, guards, Step::new(flow, Cause::Gist, now));
            }
            NetworkEvent::AssociationLost | NetworkEvent::LastNode | NetworkEvent::NotAuthorised => {
                self.event(flow, Event::ErGist, Cause::Gist, now);
            }
            NetworkEvent::PeerChanged | NetworkEvent::RouteDeleted => self.event(flow, Event::TgRepair, Cause::Other, now),
        }
    }

    /// A Permission of a session that does not exist: there is no state, so the row is Idle's (FS-03).
    fn stray(&mut self, key: SessionKey, event: Event) {
        let (from, guards) = (State::Idle, Guards::default());
        if let Outcome::Take(row) = table::step(from, event, guards) {
            self.node.took(row.rule);
            tracing::debug!(flow = %key.flow, rule = row.rule, %from, ?event, ?guards, to = %row.next, "row taken");
            if row.actions.contains(&Action::ReportStray) {
                self.node.tell(key, row.rule, ReportEvent::Stray);
            }
        }
    }

    pub(super) fn is_live(&self, flow: FlowId, session: SessionId) -> bool {
        self.sessions.get(&flow).is_some_and(|live| live.session == session && live.state != State::Idle)
    }

    pub(super) fn event(&mut self, flow: FlowId, event: Event, cause: Cause<'_>, now: Instant) {
        let guards = self.guards(flow, cause.permission(), now);
        self.take(event, guards, Step::new(flow, cause, now));
    }

    pub(super) fn guards(&self, flow: FlowId, permission: Option<(&Permission, Option<&Association>)>, now: Instant) -> Guards {
        let Some(session) = self.sessions.get(&flow) else {
            return Guards::default();
        };
        let active = session.epoch.as_ref().map(|epoch| &epoch.association);
        let offered = permission.and_then(|(_, association)| association);
        let since_last = session.attempt.last_sent_at.map(|at| now.saturating_duration_since(at));
        Guards {
            held_down: self.timers.expiry(flow, Timer::Hold).is_some(),
            echo_fits: permission.is_some_and(|(permission, _)| session.echo_fits(permission.echo)),
            algorithm_accepted: offered.is_some_and(|offered| self.accepts(&flow, &offered.protection)),
            tried_twice: session.attempt.tries >= 2,
            path_left: self.next_path(&flow, session, now).is_some(),
            query_open: self.timers.expiry(flow, Timer::Answer).is_some(),
            same_spi: active.zip(offered).is_some_and(|(active, offered)| active.spi() == offered.spi()),
            counts_anew: offered.is_some_and(|offered| offered.parameters.new_epoch),
            same_association: active.zip(offered).is_some_and(|(active, offered)| active.is_same(offered)),
            repair_recent: since_last.is_some_and(|since| since < REPAIR),
            put_off: false,
            first_hop_lost: session.attempt.first_hop_lost,
            refused_as_old: false,
            renewal_refused: session.renewal_refused,
            data_waits: session.data_waits,
            moved: session.course.has_moved(),
        }
    }
}
