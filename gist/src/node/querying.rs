//! The querying end of a routing state (RFC 5971 §6.2): its data, its guards, its events.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::Node;
use super::candidates::Candidate;
use super::machines::querying::{Event, Guards, Outcome, State, step};
use super::receive_data::Delivery;
use super::routing_state::{Origin, Peer, Route, RoutingKey};
use super::transmit::HOP_COUNT;
use super::waiting::Waiting;
use crate::api::{AssociationId, PathId, PeerHandle, Principal, RoutingStatus, SendError, SendMessage};
use crate::time::Instant;
use crate::wire::{CommonHeader, Cookie, ErrorCause, MessageType, Response};

/// T2 as a multiple of T1 (G-192).
pub(super) const MAX_BACKOFF: u32 = 64;

/// Bytes of a Query-Cookie (G-331).
const COOKIE_LENGTH: usize = 16;

/// A routing state this node asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Querying {
    pub(super) state: State,
    pub(super) handshake: Handshake,
    pub(super) peer: Option<Peer>,
    /// The peer's name for the application.
    pub(super) handle: Option<PeerHandle>,
    pub(super) route: Option<Route>,
    /// Peers that answered and are not authenticated yet, oldest first; the first whose association opens is taken.
    pub(super) candidates: Vec<Candidate>,
    pub(super) ip_distance: Option<u8>,
    pub(super) validity: Duration,
    /// When the peer forgets this state; `None` before the first Response.
    pub(super) valid_until: Option<Instant>,
    /// The period of Inactive_QNode.
    pub(super) lifetime: Duration,
    /// The application doubts the peer (§7.1.3 Tentative); the next message asks.
    pub(super) suspect: bool,
    /// Whether a message has asked for protection: what is offered for the state has it from then on.
    pub(super) protected: bool,
    /// Whether a message has gone this way, so that its end is news to the application.
    pub(super) used: bool,
    /// Messages that wait for a peer and its association.
    pub(super) stored: Waiting,
    /// Whose share of the table it takes up; `None` for this node's own application.
    pub(super) cause: Option<Box<Principal>>,
    /// By which way out the peer is looked for.
    pub(super) path: PathId,
}

/// One Query with its retransmissions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Handshake {
    pub(super) started: Instant,
    /// The node's own address in the NLI: that by which the flow left when the last Query went, or of the Query that the peer has answered.
    pub(super) own: Option<IpAddr>,
    /// What it was in the Queries before, if the route has changed since.
    former: Option<Box<Former>>,
    /// The cookie of each transmission with its moment: a reply to any is good (G-195). At most 8, by the backoff.
    pub(super) cookies: Vec<([u8; COOKIE_LENGTH], Instant)>,
    /// How long the Queries are, in 32-bit words after the common header: what an Error about one echoes.
    pub(super) words: u16,
    /// Somebody says that nobody further on the path has the application.
    pub(super) endpoint_found: bool,
    /// Why somebody on the path says that it has refused a Query: nobody has proved it.
    pub(super) refusal: Option<ErrorCause>,
    /// Why the last peer that answered was not taken.
    pub(super) setback: Option<Box<SendError>>,
    /// Peers that answered and were heard so far, each for a connection or a Confirm.
    pub(super) opened: u8,
}

/// The address that the first `queries` transmissions named, but for those that had another one even before.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Former {
    own: IpAddr,
    queries: usize,
    before: Option<Box<Former>>,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stored {
    pub(super) message: SendMessage,
    pub(super) deadline: Option<Instant>,
}

/// What comes with an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum QueryingInput {
    None,
    Message(SendMessage),
    Response(Box<AcceptedResponse>),
    Data(Delivery),
    /// The association is open and its peer may serve the flow.
    Connected(AssociationId),
    /// The candidate has answered the request with this Hello-ID, so that it has taken what was sent before.
    Proven {
        association: AssociationId,
        proof: u32,
    },
    /// The association failed or never opened, and why; or its peer may not serve the flow.
    Ended {
        association: AssociationId,
        reason: String,
    },
    Lifetime(Duration),
    /// The application wants the peer on another way out.
    Path(PathId),
    Invalidate {
        status: RoutingStatus,
        urgent: bool,
    },
}

/// A Response whose cookie is right.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AcceptedResponse {
    pub(super) response: Response,
    pub(super) origin: Origin,
    pub(super) hop_count: u8,
    pub(super) plan: Option<Plan>,
    /// The node's own address in the Query that it answers: the Responder-Cookie is bound to it, so the Confirm names it too.
    pub(super) own: Option<IpAddr>,
}

/// How the peer of a Response is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Plan {
    Reuse(AssociationId),
    Open {
        remote: SocketAddr,
        /// Over TLS; else over TCP alone.
        protected: bool,
    },
    Datagram(SocketAddr),
}

impl Handshake {
    pub(super) fn new(started: Instant, own: Option<IpAddr>) -> Self {
        let (cookies, former) = (Vec::new(), None);
        Self { started, own, former, cookies, words: 0, endpoint_found: false, refusal: None, setback: None, opened: 0 }
    }
}

impl Handshake {
    /// From now on the node goes by this address (G-158): the route may be another one than when the last Query went.
    pub(super) fn leave_from(&mut self, own: IpAddr) {
        let old = self.own.replace(own).filter(|old| *old != own && !self.cookies.is_empty());
        if let Some(old) = old {
            self.former = Some(Box::new(Former { own: old, queries: self.cookies.len(), before: self.former.take() }));
        }
    }

    /// The address that the Query with this cookie has named.
    pub(super) fn own_for(&self, cookie: &Cookie) -> Option<IpAddr> {
        let number = self.cookies.iter().position(|(own, _)| own == cookie.as_bytes())?;
        let earlier = core::iter::successors(self.former.as_deref(), |former| former.before.as_deref());
        earlier.take_while(|former| number < former.queries).last().map(|former| former.own).or(self.own)
    }

    /// Whether this is the header of one of its Queries, as somebody on the way may have got it: longer, if a NAT has added what it changed.
    pub(super) fn has_sent(&self, header: &CommonHeader, translated: bool) -> bool {
        let is_query = header.message_type == Ok(MessageType::Query) && header.hop_count <= HOP_COUNT;
        is_query && !self.cookies.is_empty() && (header.words == self.words || translated && header.words > self.words)
    }
}

impl QueryingInput {
    /// The association that the news is about.
    pub(super) fn association(&self) -> Option<AssociationId> {
        match self {
            Self::Connected(association) | Self::Proven { association, .. } | Self::Ended { association, .. } => Some(*association),
            _ => None,
        }
    }
}

impl Querying {
    pub(super) fn new(lifetime: Duration, cause: Option<Principal>, path: PathId, now: Instant) -> Self {
        Self {
            state: State::INITIAL,
            handshake: Handshake::new(now, None),
            peer: None,
            handle: None,
            route: None,
            candidates: Vec::new(),
            ip_distance: None,
            validity: Duration::ZERO,
            valid_until: None,
            lifetime,
            suspect: false,
            protected: false,
            used: false,
            stored: Waiting::default(),
            cause: cause.map(Box::new),
            path,
        }
    }

    /// When the process of asking ends: T2 after its start (G-192), earlier if nobody waits so long (G-193), and for a
    /// refresh when the peer forgets.
    pub(super) fn handshake_deadline(&self, timer: Duration) -> Instant {
        let bound = self.handshake.started + timer.saturating_mul(MAX_BACKOFF);
        let wanted = match self.state {
            State::AwaitingRefresh => self.valid_until.map(|until| until.max(self.handshake.started + timer)),
            _ => self.stored.iter().map(|stored| stored.deadline.unwrap_or(bound)).max(),
        };
        wanted.map_or(bound, |wanted| wanted.min(bound))
    }

    /// The moment No_Response expires: the interval doubles with each transmission (G-190).
    pub(super) fn retransmission(&self, timer: Duration, now: Instant) -> Instant {
        let doublings = u32::try_from(self.handshake.cookies.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let interval = timer.saturating_mul(2_u32.saturating_pow(doublings).min(MAX_BACKOFF));
        (now + interval).min(self.handshake_deadline(timer))
    }

    /// When the first message that waits has waited long enough.
    pub(super) fn first_deadline(&self) -> Option<Instant> {
        self.stored.iter().filter_map(|stored| stored.deadline).min()
    }

    /// When the Query with this cookie was sent; `None` if it is no cookie of this handshake.
    pub(super) fn asked_at(&self, cookie: &Cookie) -> Option<Instant> {
        self.handshake.cookies.iter().find(|(own, _)| own == cookie.as_bytes()).map(|(_, at)| *at)
    }
}

impl Node {
    /// Gives an event to the machine. The machine is out of the table while it acts.
    pub(super) fn querying_event(&mut self, key: &RoutingKey, event: Event, input: QueryingInput, now: Instant) {
        let Some((key, mut machine)) = self.querying.remove_entry(key) else { return };
        let guards = self.querying_guards(&machine, &input, now);
        let state = machine.state;
        match step(state, event, guards) {
            Outcome::Take(transition) => {
                machine.state = transition.next;
                Self::taken("gist-querying", state, event, transition.rule, transition.next);
                for action in transition.actions {
                    self.querying_action(&key, &mut machine, *action, &input, now);
                }
            }
            Outcome::Refuse(rule) => self.refused("gist-querying", state, event, rule),
            Outcome::Ignore => self.ignored("gist-querying", state, event),
        }
        if machine.state.is_final() {
            self.forget_cause(machine.cause.as_deref().copied());
        } else {
            self.querying.insert(key, machine);
        }
    }

    fn querying_guards(&self, machine: &Querying, input: &QueryingInput, now: Instant) -> Guards {
        let timer = self.config.query_timer;
        let response = if let QueryingInput::Response(accepted) = input { Some(&**accepted) } else { None };
        let candidate = machine.candidate_of(input);
        let answered = response.or(candidate.map(|candidate| &candidate.accepted));
        Guards {
            nresp_reached: now >= machine.handshake_deadline(timer),
            reachable: response.is_some_and(|accepted| accepted.plan.is_some()),
            pending: response.is_some_and(Self::is_pending),
            candidate: candidate.is_some_and(|candidate| {
                !matches!(input, QueryingInput::Proven { .. }) || self.may_lead(machine, candidate.association, now)
            }),
            new_peer: answered
                .is_some_and(|accepted| machine.peer.as_ref().is_some_and(|peer| *peer != Peer::from(&accepted.response.nli))),
            restart_due: now >= machine.handshake.started + timer,
            suspect: machine.suspect,
            urgent: matches!(input, QueryingInput::Invalidate { urgent: true, .. }),
            bad: matches!(input, QueryingInput::Invalidate { status: RoutingStatus::Bad, .. }),
            wanted: matches!(input, QueryingInput::Lifetime(lifetime) if !lifetime.is_zero()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    /// There may be a million of them, each in a piece of memory of its own.
    #[test]
    fn a_querying_state_takes_twenty_nine_words() {
        assert!(size_of::<Querying>() <= 232, "{}", size_of::<Querying>());
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
            machine.handshake.cookies.push(([0; COOKIE_LENGTH], moment));
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
