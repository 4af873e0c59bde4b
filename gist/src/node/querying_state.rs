//! What a querying state keeps, and its timers (RFC 5971 §6.2). There may be a million of them, so what few have is apart.

use core::net::IpAddr;
use core::time::Duration;
use std::sync::Arc;

use super::candidates::Candidate;
use super::machines::querying::{State, Timer};
use super::routing_state::{Clocks, Hop, Peer, Route, Validity};
use super::transmit::HOP_COUNT;
use super::waiting::Waiting;
use crate::api::{PathId, PeerHandle, Principal, SendError};
use crate::time::Instant;
use crate::wire::{CommonHeader, Cookie, ErrorCause, MessageType};

/// T2 as a multiple of T1 (G-192).
pub(super) const MAX_BACKOFF: u32 = 64;

/// Bytes of a Query-Cookie (G-331).
const COOKIE_LENGTH: usize = 16;

/// The cookie of one Query.
type QueryCookie = [u8; COOKIE_LENGTH];

/// A routing state this node asked for. There may be a million of them: what few of them have is in [`Passing`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Querying {
    pub(super) state: State,
    /// By which way out the peer is looked for.
    pub(super) path: PathId,
    /// The application doubts the peer (§7.1.3 Tentative); the next message asks.
    pub(super) suspect: bool,
    /// Whether a message has asked for protection: what is offered for the state has it from then on.
    pub(super) protected: bool,
    /// Whether a message has gone this way, so that its end is news to the application.
    pub(super) used: bool,
    /// Whether nothing more goes to the peer.
    left: bool,
    pub(super) ip_distance: Option<u8>,
    /// How often the Query has gone; at most 8 times, by the backoff.
    transmissions: u8,
    /// Peers that answered this process of asking and were heard so far, each for a connection or a Confirm.
    pub(super) opened: u8,
    /// How long the Queries are, in 32-bit words after the common header: what an Error about one echoes.
    pub(super) words: u16,
    pub(super) validity: Validity,
    /// The peer, once one was found.
    hop: Option<Hop>,
    /// When the peer forgets this state; `None` before the first Response.
    pub(super) valid_until: Option<Instant>,
    /// The period of Inactive_QNode in microseconds.
    lifetime: u64,
    /// When this process of asking began: one Query with its retransmissions.
    pub(super) started: Instant,
    /// The node's own address in the NLI: that by which the flow left when the last Query went, or of the Query that the peer has answered.
    own: Option<Arc<IpAddr>>,
    /// The cookie of the first Query if that went when the process began; the others are in [`Passing`].
    first_cookie: QueryCookie,
    /// When Refresh_QNode expires.
    refresh: Option<Instant>,
    /// When Inactive_QNode expires.
    inactive: Option<Instant>,
    /// Whose share of the table it takes up; `None` for this node's own application.
    pub(super) cause: Option<Arc<Principal>>,
    passing: Option<Box<Passing>>,
}

/// What a querying state has for a while, as during a handshake.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Passing {
    /// When No_Response expires.
    no_response: Option<Instant>,
    /// When MessageTimeout does.
    message_timeout: Option<Instant>,
    /// When the first message has waited too long for the peer to take more.
    pub(super) waits: Option<Instant>,
    /// Messages that wait for a peer and its association.
    pub(super) stored: Waiting,
    /// Peers that answered and are not authenticated yet, oldest first; the first whose association opens is taken.
    pub(super) candidates: Vec<Candidate>,
    /// What this process of asking has brought.
    pub(super) found: Found,
}

/// What a process of asking has brought so far.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Found {
    /// The cookies of retransmissions, each with its moment: a reply to any is good (G-195).
    cookies: Vec<(QueryCookie, Instant)>,
    /// What the node's own address was in Queries before, if the route has changed since; the oldest first.
    former: Vec<Former>,
    /// The transmission whose Response was taken last, counted from 0.
    answered: usize,
    /// Somebody says that nobody further on the path has the application.
    pub(super) endpoint: bool,
    /// Why somebody on the path says that it has refused a Query: nobody has proved it.
    pub(super) refusal: Option<ErrorCause>,
    /// Why the last peer that answered was not taken.
    pub(super) setback: Option<SendError>,
}

/// The address that the first `queries` transmissions named, but for those that had another one even before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Former {
    own: Arc<IpAddr>,
    queries: usize,
}

impl Found {
    const NOTHING: Self = Self { cookies: Vec::new(), former: Vec::new(), answered: 0, endpoint: false, refusal: None, setback: None };
}

impl Passing {
    const NOTHING: Self = Self {
        no_response: None,
        message_timeout: None,
        waits: None,
        stored: Waiting::NONE,
        candidates: Vec::new(),
        found: Found::NOTHING,
    };
}

impl Querying {
    pub(super) fn new(lifetime: Duration, cause: Option<Arc<Principal>>, path: PathId, now: Instant) -> Self {
        Self {
            state: State::INITIAL,
            path,
            suspect: false,
            protected: false,
            used: false,
            left: false,
            ip_distance: None,
            transmissions: 0,
            opened: 0,
            words: 0,
            validity: Duration::ZERO.into(),
            hop: None,
            valid_until: None,
            lifetime: micros(lifetime),
            started: now,
            own: None,
            first_cookie: [0; COOKIE_LENGTH],
            refresh: None,
            inactive: None,
            cause,
            passing: None,
        }
    }

    /// What it has for a while.
    pub(super) fn passing(&self) -> &Passing {
        self.passing.as_deref().unwrap_or(const { &Passing::NOTHING })
    }

    /// The same, to be changed.
    pub(super) fn passing_mut(&mut self) -> &mut Passing {
        self.passing.get_or_insert_with(|| Box::new(Passing::NOTHING))
    }

    /// Lets go of what has passed, so that it takes no memory.
    pub(super) fn tidy(&mut self) {
        self.passing.take_if(|passing| **passing == Passing::NOTHING);
    }

    /// The peer, once one was found.
    pub(super) fn peer(&self) -> Option<&Peer> {
        self.hop.as_ref().map(|hop| &hop.peer)
    }

    /// The peer's name for the application.
    pub(super) fn handle(&self) -> Option<PeerHandle> {
        self.hop.as_ref().map(|hop| hop.handle)
    }

    /// How messages reach the peer; `None` if none is to.
    pub(super) fn route(&self) -> Option<Route> {
        self.hop.as_ref().filter(|_| !self.left).map(|hop| hop.route())
    }

    /// Has messages go to this peer from now on.
    pub(super) fn lead_to(&mut self, hop: Hop) {
        (self.hop, self.left) = (Some(hop), false);
    }

    /// Has nothing more go to the peer, and says which way it went.
    pub(super) fn take_route(&mut self) -> Option<Route> {
        let route = self.route();
        self.left = self.hop.is_some();
        route
    }

    /// The period of Inactive_QNode.
    pub(super) fn lifetime(&self) -> Duration {
        Duration::from_micros(self.lifetime)
    }

    pub(super) fn set_lifetime(&mut self, lifetime: Duration) {
        self.lifetime = micros(lifetime);
    }

    /// A new process of asking.
    pub(super) fn start_handshake(&mut self, started: Instant) {
        (self.started, self.transmissions, self.opened, self.words) = (started, 0, 0, 0);
        self.first_cookie = [0; COOKIE_LENGTH];
        if let Some(passing) = &mut self.passing {
            passing.found = Found::NOTHING;
        }
    }

    /// Whether an answer is awaited. What anybody says when none is makes no difference, and is not kept.
    fn is_asking(&self) -> bool {
        matches!(self.state, State::AwaitingResponse | State::AwaitingRefresh)
    }

    /// Why somebody on the path says that it has refused a Query.
    pub(super) fn note_refusal(&mut self, cause: ErrorCause) {
        if self.is_asking() {
            self.passing_mut().found.refusal = Some(cause);
        }
    }

    /// Why a peer that answered was not taken: what waits hears of it.
    pub(super) fn note_setback(&mut self, error: SendError) {
        if self.is_asking() || !self.passing().stored.is_empty() {
            self.passing_mut().found.setback = Some(error);
        }
    }

    /// The node's own address in messages of this process.
    pub(super) fn own(&self) -> Option<IpAddr> {
        self.own.as_deref().copied()
    }

    /// From now on the node goes by this address (G-158): the route may be another one than when the last Query went.
    pub(super) fn leave_from(&mut self, own: Arc<IpAddr>) {
        let queries = self.transmissions();
        let old = self.own.replace(own).filter(|old| queries > 0 && self.own.as_ref() != Some(old));
        // Once for each transmission at most: what has named no Query in between is nothing to be remembered.
        if let Some(own) = old
            && self.passing().found.former.last().is_none_or(|former| former.queries < queries)
        {
            self.passing_mut().found.former.push(Former { own, queries });
        }
    }

    /// The Response to the Query with this cookie is taken.
    pub(super) fn note_answer(&mut self, cookie: &Cookie) {
        if let Some(number) = self.number_of(cookie).filter(|number| *number > self.passing().found.answered) {
            self.passing_mut().found.answered = number;
        }
    }

    /// Whether the Query with this cookie went by another route than the one whose Response was taken, and before it: its Response, late or
    /// repeated by somebody, would lead back.
    pub(super) fn is_outdated(&self, cookie: &Cookie) -> bool {
        let is_before = self.number_of(cookie).is_some_and(|number| number < self.passing().found.answered);
        is_before && self.own_for(cookie) != self.own()
    }

    fn number_of(&self, cookie: &Cookie) -> Option<usize> {
        self.queries().position(|(own, _)| own == cookie.as_bytes())
    }

    /// The address that the Query with this cookie has named.
    pub(super) fn own_for(&self, cookie: &Cookie) -> Option<IpAddr> {
        let number = self.number_of(cookie)?;
        let former = self.passing().found.former.iter().find(|former| number < former.queries);
        former.map(|former| *former.own).or(self.own())
    }

    /// How often the Query has gone.
    pub(super) fn transmissions(&self) -> usize {
        self.transmissions.into()
    }

    /// The Query goes once more, with this cookie.
    pub(super) fn note_transmission(&mut self, cookie: QueryCookie, now: Instant) {
        if self.transmissions == 0 && now == self.started {
            self.first_cookie = cookie;
        } else {
            self.passing_mut().found.cookies.push((cookie, now));
        }
        self.transmissions = self.transmissions.saturating_add(1);
    }

    /// When the Query with this cookie was sent; `None` if it is no cookie of this handshake.
    pub(super) fn asked_at(&self, cookie: &Cookie) -> Option<Instant> {
        self.queries().find(|(own, _)| own == cookie.as_bytes()).map(|(_, at)| at)
    }

    /// The cookies of this process, each with its moment.
    fn queries(&self) -> impl Iterator<Item = (QueryCookie, Instant)> {
        let later = &self.passing().found.cookies;
        let first = (self.transmissions() > later.len()).then_some((self.first_cookie, self.started));
        first.into_iter().chain(later.iter().copied())
    }

    /// Whether this is the header of one of the process's Queries, as somebody on the way may have got it: longer, if a NAT has added what it
    /// changed.
    pub(super) fn has_sent(&self, header: &CommonHeader, translated: bool) -> bool {
        let is_query = header.message_type == Ok(MessageType::Query) && header.hop_count <= HOP_COUNT;
        is_query && self.transmissions > 0 && (header.words == self.words || translated && header.words > self.words)
    }

    /// When the process of asking ends: T2 after its start (G-192), earlier if nobody waits so long (G-193), and for a
    /// refresh when the peer forgets.
    pub(super) fn handshake_deadline(&self, timer: Duration) -> Instant {
        let bound = self.started + timer.saturating_mul(MAX_BACKOFF);
        let wanted = match self.state {
            State::AwaitingRefresh => self.valid_until.map(|until| until.max(self.started + timer)),
            _ => self.passing().stored.iter().map(|stored| stored.deadline.unwrap_or(bound)).max(),
        };
        wanted.map_or(bound, |wanted| wanted.min(bound))
    }

    /// The moment No_Response expires: the interval doubles with each transmission (G-190).
    pub(super) fn retransmission(&self, timer: Duration, now: Instant) -> Instant {
        let doublings = u32::from(self.transmissions.saturating_sub(1));
        let interval = timer.saturating_mul(2_u32.saturating_pow(doublings).min(MAX_BACKOFF));
        (now + interval).min(self.handshake_deadline(timer))
    }

    /// When the first message that waits has waited long enough.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.passing().stored.first_deadline()
    }
}

impl Clocks for Querying {
    type Timer = Timer;
    const TIMERS: &'static [Timer] = Timer::ALL;

    fn expiry(&self, timer: Timer) -> Option<Instant> {
        match timer {
            Timer::NoResponse => self.passing().no_response,
            Timer::RefreshQNode => self.refresh,
            Timer::InactiveQNode => self.inactive,
            Timer::MessageTimeout => self.passing().message_timeout,
        }
    }

    fn set_timer(&mut self, timer: Timer, at: Option<Instant>) {
        if self.expiry(timer) == at {
            return;
        }
        match timer {
            Timer::NoResponse => self.passing_mut().no_response = at,
            Timer::RefreshQNode => self.refresh = at,
            Timer::InactiveQNode => self.inactive = at,
            Timer::MessageTimeout => self.passing_mut().message_timeout = at,
        }
    }

    fn waits(&self) -> Option<Instant> {
        self.passing().waits
    }

    fn set_waits(&mut self, at: Option<Instant>) {
        if self.passing().waits != at {
            self.passing_mut().waits = at;
        }
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    /// There may be a million of them, each in a piece of memory of its own.
    #[test]
    fn a_querying_state_takes_thirteen_words() {
        assert!(size_of::<Querying>() <= 104, "{}", size_of::<Querying>());
    }

    /// G-190, G-191, G-192: 0.5, 1, 2, 4, 8, 16 s, and the end at 32 s.
    #[test]
    fn intervals_double_and_end_at_t2() {
        let timer = Duration::from_millis(500);
        let mut machine = Querying::new(Duration::from_secs(300), None, PathId::ROUTED, at(0));
        machine.state = State::AwaitingResponse;
        let mut sent = vec![at(0)];
        loop {
            let moment = sent.last().copied().unwrap();
            machine.note_transmission([0; COOKIE_LENGTH], moment);
            let next = machine.retransmission(timer, moment);
            if next >= machine.handshake_deadline(timer) {
                assert_eq!(next, at(32_000));
                break;
            }
            sent.push(next);
        }
        assert_eq!(sent, [0, 500, 1500, 3500, 7500, 15_500, 31_500].map(at));
    }
}
