//! What the machines want done, in the order it is polled.

use core::time::Duration;

use gist::api::{PeerHandle, Request, RoutingStatus, SendMessage};
use gist::wire::{Mri, NslpId, SessionId};

use crate::datapath::Command;
use crate::flow::FlowId;
use crate::report::Report;
use crate::wire::Volume;

/// One thing for the shell to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Hand a message to GIST.
    Send(SendMessage),
    /// Tell GIST how long the session's routing state is wanted.
    SetStateLifetime {
        /// The application.
        nslp_id: NslpId,
        /// The session.
        session: SessionId,
        /// The flow and the direction of messages.
        mri: Mri,
        /// The period without traffic after which the state goes; 0 = now.
        lifetime: Duration,
    },
    /// Tell GIST that the peer of this handle is the one upstream now: what it brought is newer and signed by the flow's
    /// source.
    AdoptPeer {
        /// The application.
        nslp_id: NslpId,
        /// The session.
        session: SessionId,
        /// The flow, upstream.
        mri: Mri,
        /// The peer.
        peer: PeerHandle,
    },
    /// Tell GIST that the next peer may be another one by now: the next message goes to the old one and asks.
    DoubtPeer {
        /// The application.
        nslp_id: NslpId,
        /// The session.
        session: SessionId,
        /// The flow, downstream.
        mri: Mri,
    },
    /// Tell GIST whether this node becomes the peer of those who ask from now on (router only; X-112).
    SetPeering {
        /// The application.
        nslp_id: NslpId,
        /// Whether it does.
        willing: bool,
    },
    /// Give the packet side a command; its answer comes back through `handle_datapath`.
    Datapath(Command),
    /// Ask whoever decides here (receiver only); the answer comes back through `Receiver::decide`.
    Ask(Ask),
    /// Write down what happened.
    Report(Report),
}

impl Output {
    /// The request for GIST, if that is what it is.
    pub fn into_gist_request(self) -> Option<Request> {
        match self {
            Self::Send(message) => Some(Request::Send(message)),
            Self::SetStateLifetime { nslp_id, session, mri, lifetime } => {
                Some(Request::SetStateLifetime { nslp_id, session, mri, lifetime })
            }
            Self::AdoptPeer { nslp_id, session, mri, peer } => Some(Request::AdoptPeer { nslp_id, session, mri, peer }),
            Self::DoubtPeer { nslp_id, session, mri } => {
                Some(Request::InvalidateRoutingState { nslp_id, session, mri, status: RoutingStatus::Tentative, urgent: false })
            }
            Self::SetPeering { nslp_id, willing } => Some(Request::SetPeering { nslp_id, willing }),
            Self::Datapath(_) | Self::Ask(_) | Self::Report(_) => None,
        }
    }
}

/// A Query that no rule decides about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ask {
    /// The flow.
    pub flow: FlowId,
    /// The session.
    pub session: SessionId,
    /// RV, if the Query names it.
    pub requested: Option<Volume>,
}
