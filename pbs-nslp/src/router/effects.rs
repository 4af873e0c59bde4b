//! What the router's rows do to sessions and to the packet side.

use core::time::Duration;

use gist::time::Instant;

use super::Router;
use super::rows::{Cause, Step};
use super::session::{Asked, Draining, Granted, Held, Session};
use super::table::{Event, Guards, State, Timer};
use crate::admission::Signer;
use crate::credentials::sha256;
use crate::datapath::{Command, Grant, Token};
use crate::node::{Envelope, PROBED_BY_GIST, SessionKey, TTL_MAXIMUM, lifetime};
use crate::output::Output;
use crate::report::ReportEvent;
use crate::wire::{MessageKind, Permission};

/// How long GIST keeps the way of a session that has ended (X-114 says 0): what was sent over it before the end was known, such as
/// a denial repeated, is still heard, and refused by the machine rather than answered with a GIST error.
const LINGER: Duration = Duration::from_secs(1);

impl Router {
    pub(super) fn keep_query(&mut self, step: &Step<'_>) {
        let Cause::Query { received, signed, key_hash, path, source } = &step.cause else {
            return;
        };
        let query = &signed.message;
        let event = ReportEvent::Asked { number: query.number, requested: query.requested, sent: query.sent };
        self.node.tell(step.key, step.rule, event);
        let copied = self.sessions.get(&step.key).map_or(0, Session::copied);
        let copy = self.copy(received, &signed.forwarded, copied);
        if let Some(session) = self.sessions.get_mut(&step.key) {
            session.asked = Some(Asked {
                key_hash: *key_hash,
                path: path.clone(),
                source: source.clone(),
                number: query.number,
                sent: query.sent,
                context: query.context,
                digest: sha256(&signed.raw),
                upstream: received.principal,
                mri: received.mri.clone(),
                copy,
            });
            self.copied = self.copied.saturating_sub(copied).saturating_add(session.copied());
        }
    }

    /// Adds the permission; the message waits for the packet side (INV-11).
    pub(super) fn install(&mut self, step: &mut Step<'_>) {
        let Cause::Permission { signed, association: Some(association), .. } = &step.cause else {
            return;
        };
        let (permission, association) = (&signed.message, association.clone());
        let Some(session) = self.sessions.get(&step.key) else {
            return;
        };
        let grant = Grant {
            flow: step.key.flow,
            spi: association.spi(),
            protection: association.protection.clone(),
            allowed: permission.allowed.0,
            counted: session.base(&association),
            highest: session.highest(&association),
            expires_at: end(permission, step.now),
        };
        self.spis.insert((step.key.flow.destination, association.spi()), step.key);
        let token = self.node.token();
        self.node.command(Command::Install { token, grant });
        self.hold(step, token);
    }

    /// Tells GIST how long the way downstream is wanted: as long as the permission lives, or a Permission is waited for.
    pub(super) fn keep_route(&mut self, step: &Step<'_>) {
        let wanted = step.permission().map_or(self.config.wait, |permission| lifetime(permission.refresh));
        self.want_route(step.key, wanted);
    }

    /// Where the way downstream is refreshed more often than GIST does it.
    pub(super) fn doubt_peer(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(&key) else {
            return;
        };
        let is_fast = session.granted.as_ref().is_some_and(|granted| granted.refresh < PROBED_BY_GIST);
        if let Some(asked) = session.asked.as_ref().filter(|_| is_fast) {
            self.node.doubt_peer(key.session, &asked.mri);
        }
    }

    pub(super) fn leave_route(&mut self, key: SessionKey) {
        self.want_route(key, LINGER);
    }

    fn want_route(&mut self, key: SessionKey, wanted: Duration) {
        if let Some(asked) = self.sessions.get(&key).and_then(|session| session.asked.as_ref()) {
            self.node.set_state_lifetime(key.session, &asked.mri, wanted);
        }
    }

    pub(super) fn update(&mut self, step: &mut Step<'_>) {
        let Some(permission) = step.permission() else {
            return;
        };
        // A Permission that asks for another path names no association.
        let kept = || Some(self.sessions.get(&step.key)?.granted.as_ref()?.association.spi());
        let Some(spi) = permission.sa.map(|sa| sa.spi).or_else(kept) else {
            return;
        };
        let token = self.node.token();
        let expires_at = end(permission, step.now);
        self.node.command(Command::Update { token, flow: step.key.flow, spi, allowed: permission.allowed.0, expires_at });
        self.hold(step, token);
    }

    /// Keeps the Permission, and passes it on when the command has been carried out.
    fn hold(&mut self, step: &Step<'_>, token: Token) {
        let Cause::Permission { received, signed, key_hash, path, association } = &step.cause else {
            return;
        };
        let message = self.node.pack(Envelope::onward(received), signed.forwarded.clone());
        let copied = self.sessions.get(&step.key).map_or(0, Session::copied);
        let copy = self.copy(received, &signed.forwarded, copied);
        let Some(session) = self.sessions.get_mut(&step.key) else {
            return;
        };
        let kept = session.granted.as_ref().map(|granted| granted.association.clone());
        let Some(association) = association.clone().or(kept) else {
            return;
        };
        session.granted = Some(Granted {
            key_hash: *key_hash,
            path: path.clone(),
            number: signed.message.number,
            association,
            allowed: signed.message.allowed,
            refresh: signed.message.refresh,
            downstream: received.principal,
            mri: received.mri.clone(),
            copy,
        });
        self.copied = self.copied.saturating_sub(copied).saturating_add(session.copied());
        // A newer Permission says all that an older one says, which therefore need not go on any more.
        if let Some(older) = session.held.replace(Held { token, message }) {
            self.waiting.remove(&older.token);
        }
        self.waiting.insert(token, step.key);
    }

    /// The packet side has what the Permission says: it may go on (P-144).
    pub(super) fn acknowledged(&mut self, key: SessionKey, token: Token) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let spi = session.granted.as_ref().map(|granted| granted.association.spi());
        if let Some(Held { message, .. }) = session.held.take_if(|held| held.token == token) {
            if let Some(spi) = spi {
                self.node.tell(key, "", ReportEvent::Installed { spi });
            }
            self.node.push(Output::Send(message));
        }
    }

    pub(super) fn forward_permission(&mut self, step: &Step<'_>) {
        let Cause::Permission { received, signed, .. } = &step.cause else {
            return;
        };
        let message = self.node.pack(Envelope::onward(received), signed.forwarded.clone());
        if !signed.message.is_removal() {
            return self.node.push(Output::Send(message));
        }
        // An old epoch that runs out ends too, and one whose removal failed before (TMP-01).
        if let Err(message) = self.removals.then(step.key.flow, None, message) {
            self.node.push(Output::Send(message));
        }
    }

    pub(super) fn drain_old(&mut self, step: &Step<'_>) {
        let Some(drain) = step.permission().and_then(|permission| permission.sa).map(|sa| sa.drain) else {
            return;
        };
        // One draining association at most.
        self.delete_draining(step.key);
        let until = self.drained_at(step.key, step.now + drain);
        let Some(session) = self.sessions.get_mut(&step.key) else {
            return;
        };
        if let Some(spi) = session.granted.as_ref().map(|granted| granted.association.spi()) {
            session.draining = Some(Draining { spi, until });
            let token = self.node.token();
            self.node.command(Command::Drain { token, flow: step.key.flow, spi, until });
        }
    }

    /// The drain time is the receiver's choice, and may reach further than the epoch itself.
    fn drained_at(&self, key: SessionKey, until: Instant) -> Instant {
        let ends = [Timer::Ttl, Timer::Life].into_iter().filter_map(|timer| self.timers.expiry(key, timer));
        ends.fold(until, Instant::min)
    }

    pub(super) fn delete_draining(&mut self, key: SessionKey) {
        if let Some(draining) = self.sessions.get_mut(&key).and_then(|session| session.draining.take()) {
            self.remove_epoch(key, draining.spi);
        }
    }

    fn remove_epoch(&mut self, key: SessionKey, spi: u32) {
        let place = (key.flow.destination, spi);
        if self.spis.get(&place) == Some(&key) {
            self.spis.remove(&place);
        }
        self.removals.start(&mut self.node, key.flow, spi);
    }

    pub(super) fn remove(&mut self, step: &Step<'_>) {
        self.delete_draining(step.key);
        let Some(session) = self.sessions.get(&step.key) else {
            return;
        };
        if let Some(spi) = session.granted.as_ref().map(|granted| granted.association.spi()) {
            self.remove_epoch(step.key, spi);
        }
    }

    /// Keeps the numbers of a session that ends, and of the message that ends it (INV-05).
    pub(super) fn bury(&mut self, step: &Step<'_>) {
        let flow = step.key.flow;
        if let Some(session) = self.sessions.get(&step.key) {
            if let Some(asked) = &session.asked {
                let signer = Signer { key_hash: asked.key_hash, flow, kind: MessageKind::Query };
                self.node.bury(signer, asked.number, asked.upstream, step.now);
            }
            if let Some(granted) = &session.granted {
                let signer = Signer { key_hash: granted.key_hash, flow, kind: MessageKind::Permission };
                self.node.bury(signer, granted.number, granted.downstream, step.now);
            }
        }
        if let Cause::Permission { received, signed, key_hash, .. } = &step.cause {
            let signer = Signer { key_hash: *key_hash, flow, kind: MessageKind::Permission };
            self.node.bury(signer, signed.message.number, received.principal, step.now);
        }
    }

    /// Ends the flow's other sessions, or those in one state. What they permit is left to the session that takes over.
    pub(super) fn supersede(&mut self, step: &Step<'_>, state: Option<State>) {
        let others = self.sessions_of(&step.key.flow);
        let others = others.filter(|(key, session)| **key != step.key && state.is_none_or(|state| state == session.state));
        let others: Vec<SessionKey> = others.map(|(key, _)| *key).collect();
        let drain = step.permission().and_then(|permission| permission.sa).map_or(Duration::ZERO, |sa| sa.drain);
        for key in others {
            let cause = Cause::Superseded { by: step.key, until: self.drained_at(key, step.now + drain) };
            self.take(Event::TgSuperseded, Guards::default(), Step::new(key, cause, step.now));
        }
    }

    /// Lets the epoch of an old session run out as one of the session that takes over, which has begun one already.
    pub(super) fn hand_over(&mut self, step: &Step<'_>) {
        let Cause::Superseded { by, until } = step.cause else {
            return;
        };
        // One draining association at most.
        self.delete_draining(step.key);
        self.delete_draining(by);
        let granted = self.sessions.get(&step.key).and_then(|session| session.granted.as_ref());
        let Some((spi, heir)) = granted.map(|granted| granted.association.spi()).zip(self.sessions.get_mut(&by)) else {
            return;
        };
        heir.draining = Some(Draining { spi, until });
        self.spis.insert((by.flow.destination, spi), by);
        let token = self.node.token();
        self.node.command(Command::Drain { token, flow: by.flow, spi, until });
    }

    /// Keeps the count of sessions that wait for a Permission.
    pub(super) fn account(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(&key) else {
            return;
        };
        let is_pending = session.state == State::WaitP;
        match (core::mem::replace(&mut session.is_pending, is_pending), is_pending) {
            (false, true) => self.pending.add(session.owner),
            (true, false) => self.pending.remove(session.owner),
            (false, false) | (true, true) => {}
        }
        self.account_pair(key);
        self.answer_peering();
    }

    /// Whether there is room decides, in an open network, whether further Queries are to stop here at all (X-112, FN-02). There is
    /// again when an eighth is free, or each end of a session would change the answer.
    fn answer_peering(&mut self) {
        if !self.config.open {
            return;
        }
        let filled =
            |table: usize, limit: usize| if self.willing { table >= limit } else { table > limit.saturating_sub(limit.div_ceil(8)) };
        let full = filled(self.pending.total(), self.config.pending) || filled(self.shares.total(), self.config.sessions);
        if self.willing == full {
            self.willing = !full;
            self.node.push(Output::SetPeering { nslp_id: self.node.nslp_id, willing: self.willing });
        }
    }

    pub(super) fn forget(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.remove(&key) else {
            return;
        };
        self.copied = self.copied.saturating_sub(session.copied());
        self.pairs.change(&key.flow, session.reserved, 0);
        if let Some(held) = session.held {
            self.waiting.remove(&held.token);
        }
        self.shares.remove(session.owner);
        if session.is_pending {
            self.pending.remove(session.owner);
        }
        self.answer_peering();
    }
}

/// The earlier of time limit and lifetime.
fn end(permission: &Permission, now: Instant) -> Instant {
    now + permission.ttl.min(TTL_MAXIMUM).min(lifetime(permission.refresh))
}
