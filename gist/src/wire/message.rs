//! The six messages (RFC 5971 §5.1), as values that can only hold what their grammar allows.

use bytes::Bytes;

use super::cookie::Cookie;
use super::error_cause::ErrorCause;
use super::error_object::GistError;
use super::header::{HEADER_LENGTH, MessageType};
use super::identifiers::{NslpId, SessionId};
use super::mri::Mri;
use super::nat_traversal::NatTraversal;
use super::nli::NetworkLayerInformation;
use super::object::UnknownObject;
use super::stack_configuration::StackConfiguration;
use super::stack_offer::StackOffer;
use super::stack_proposal::StackProposal;

/// A whole GIST message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// How many GIST nodes may still process the message, the destination included.
    pub hop_count: u8,
    /// The signalling application; Error and MA-Hello are always written with [`NslpId::NONE`].
    pub nslp_id: NslpId,
    /// S: the IP source address is the signalling source address; always so in C-mode.
    pub source_is_signalling: bool,
    /// The message proper.
    pub body: Body,
    /// Objects this node does not know and passes on (AB=10); written after all others.
    pub unknown: Vec<UnknownObject>,
}

/// The message proper, by type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Body {
    /// Asks for a peer.
    Query(Query),
    /// Answers a Query.
    Response(Response),
    /// Ends the handshake.
    Confirm(Confirm),
    /// Carries a signalling application's message.
    Data(Data),
    /// Reports an error.
    Error(ErrorBody),
    /// Keeps a messaging association alive.
    Hello(Hello),
}

/// Query: always R=1 and C=1.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Query {
    /// Left by NATs on the way.
    pub nat: Option<NatTraversal>,
    /// How the message is routed.
    pub mri: Mri,
    /// The session.
    pub session: SessionId,
    /// The Querying node.
    pub nli: NetworkLayerInformation,
    /// To be repeated in the Response.
    pub cookie: Cookie,
    /// If a messaging association may be set up.
    pub stack: Option<StackOffer>,
    /// The signalling application's part, whole words.
    pub payload: Option<Bytes>,
}

/// Response: C=0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Response {
    /// The Query's, repeated.
    pub nat: Option<NatTraversal>,
    /// The Query's, inverted.
    pub mri: Mri,
    /// The session.
    pub session: SessionId,
    /// The Responding node.
    pub nli: NetworkLayerInformation,
    /// The Query's cookie.
    pub query_cookie: Cookie,
    /// R: a Confirm is asked for; always so with a Responder-Cookie.
    pub confirm_requested: bool,
    /// The Responder-Cookie and, if an association may be set up, the Responding node's offer.
    pub responder: Option<ResponderPart>,
    /// The signalling application's part, whole words.
    pub payload: Option<Bytes>,
}

/// What a Response carries if its Confirm has to prove something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResponderPart {
    /// To be repeated in the Confirm.
    pub cookie: Cookie,
    /// If a messaging association may be set up.
    pub stack: Option<StackOffer>,
}

/// Confirm: R=0 and C=0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Confirm {
    /// The Response's, inverted.
    pub mri: Mri,
    /// The session.
    pub session: SessionId,
    /// The Querying node.
    pub nli: NetworkLayerInformation,
    /// The Response's cookie.
    pub responder_cookie: Option<Cookie>,
    /// The Response's proposal, in C-mode; only with a cookie.
    pub proposal: Option<StackProposal>,
    /// The Query's hold time, on a new association; only with a proposal.
    pub configuration: Option<StackConfiguration>,
    /// The signalling application's part, whole words.
    pub payload: Option<Bytes>,
}

/// Data: R=0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Data {
    /// Left by NATs on the way.
    pub nat: Option<NatTraversal>,
    /// How the message is routed.
    pub mri: Mri,
    /// The session.
    pub session: SessionId,
    /// The sender, in D-mode; never in C-mode.
    pub nli: Option<NetworkLayerInformation>,
    /// The signalling application's message, whole words.
    pub payload: Bytes,
    /// E: explicitly routed (RFC 5971 §7.1.5).
    pub explicit: bool,
    /// C: sent in Q-mode, without routing state.
    pub context_free: bool,
}

/// Error: R=0 and C=0, NSLPID 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ErrorBody {
    /// The refused message's, repeated (RFC 5971 §7.2.3).
    pub nat: Option<NatTraversal>,
    /// The error's sender, in D-mode.
    pub nli: Option<NetworkLayerInformation>,
    /// What is wrong.
    pub error: GistError,
}

/// MA-Hello: C=0, NSLPID 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hello {
    /// R: an answer with the same ID is asked for; only with an ID that is not 0.
    pub request: bool,
    /// The Hello-ID; 0 unless this is a request or the answer to one.
    pub id: u32,
}

impl Message {
    /// The message's type.
    #[must_use]
    pub fn message_type(&self) -> MessageType {
        match &self.body {
            Body::Query(_) => MessageType::Query,
            Body::Response(_) => MessageType::Response,
            Body::Confirm(_) => MessageType::Confirm,
            Body::Data(_) => MessageType::Data,
            Body::Error(_) => MessageType::Error,
            Body::Hello(_) => MessageType::Hello,
        }
    }

    /// How the message is routed; Error and MA-Hello have none of their own.
    #[must_use]
    pub fn mri(&self) -> Option<&Mri> {
        match &self.body {
            Body::Query(body) => Some(&body.mri),
            Body::Response(body) => Some(&body.mri),
            Body::Confirm(body) => Some(&body.mri),
            Body::Data(body) => Some(&body.mri),
            Body::Error(_) | Body::Hello(_) => None,
        }
    }

    /// The session; Error and MA-Hello have none of their own.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match &self.body {
            Body::Query(body) => Some(body.session),
            Body::Response(body) => Some(body.session),
            Body::Confirm(body) => Some(body.session),
            Body::Data(body) => Some(body.session),
            Body::Error(_) | Body::Hello(_) => None,
        }
    }

    /// The Error object about this message, whose common header came as `header` (see [`header_bytes`]), for a message
    /// received in C-mode: the caller sets [`GistError::datagram_mode`] and [`GistError::query_mode`] if it was not, and
    /// adds the information fields the catalogue asks for.
    ///
    /// [`header_bytes`]: super::header_bytes
    #[must_use]
    pub fn refused_for(&self, cause: ErrorCause, header: [u8; HEADER_LENGTH]) -> GistError {
        let mut error = GistError::new(cause, header);
        // RFC 5971 A.4.4.1: neither MRI nor session go with a header error.
        if !matches!(cause, ErrorCause::CommonHeaderParse(_)) {
            error.session = self.session();
            error.mri = self.mri().cloned();
        }
        error
    }

    /// What the sender says of itself, if it does.
    #[must_use]
    pub fn nli(&self) -> Option<&NetworkLayerInformation> {
        match &self.body {
            Body::Query(body) => Some(&body.nli),
            Body::Response(body) => Some(&body.nli),
            Body::Confirm(body) => Some(&body.nli),
            Body::Data(body) => body.nli.as_ref(),
            Body::Error(body) => body.nli.as_ref(),
            Body::Hello(_) => None,
        }
    }

    /// What NATs have left in the message.
    #[must_use]
    pub fn nat(&self) -> Option<&NatTraversal> {
        match &self.body {
            Body::Query(body) => body.nat.as_ref(),
            Body::Response(body) => body.nat.as_ref(),
            Body::Data(body) => body.nat.as_ref(),
            Body::Error(body) => body.nat.as_ref(),
            Body::Confirm(_) | Body::Hello(_) => None,
        }
    }

    /// The signalling application's part.
    #[must_use]
    pub fn payload(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Query(body) => body.payload.as_ref(),
            Body::Response(body) => body.payload.as_ref(),
            Body::Confirm(body) => body.payload.as_ref(),
            Body::Data(body) => Some(&body.payload),
            Body::Error(_) | Body::Hello(_) => None,
        }
    }
}
