//! Error messages sent (RFC 5971 §5.6): to whom, how, and what they contain.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use bytes::BytesMut;

use super::Node;
use super::association::AssociationInput;
use super::machines::association::Event;
use super::rate::Purpose;
use super::receive::Received;
use super::receive_confirm::is_new;
use super::receive_error::ends_routing_state;
use super::routing_state::{DatagramOrigin, Origin};
use super::task::Task;
use crate::api::AssociationId;
use crate::time::Instant;
use crate::wire::{
    Body, DecodeError, ErrorBody, ErrorCause, ErrorInfo, GistError, Message, MessageType, Mri, NatTraversal, Nli, NslpId, ObjectType,
    ObjectTypeFault, ObjectValueInfo,
};

/// Messages within [`UNANSWERED_FOR`] that only their sender can be blamed for and that are not answered any more, at which their
/// association ends.
const MOST_UNANSWERED: u32 = 256;

/// How long they count together: what happens now and then ends nothing (G-397).
const UNANSWERED_FOR: Duration = Duration::from_secs(60);

impl Node {
    /// Answers a message that decodes. Errors are never answered (G-129); nothing is stored and nothing repeated (G-214).
    pub(super) fn answer(&mut self, received: &Received, cause: ErrorCause, info: Vec<ErrorInfo>, now: Instant) {
        self.counters.refused.count(Some(cause));
        let message = &received.message;
        if message.message_type() == MessageType::Error {
            return;
        }
        let mut error = GistError { info, ..message.refused_for(cause, received.header()) };
        let origin = match received.origin {
            Origin::Association(id) => return self.answer_over(id, received, error, now),
            Origin::Datagram(origin) => origin,
        };
        error.datagram_mode = true;
        error.query_mode = origin.query_mode;
        let destination = error_to(&origin, message.nli().map(|nli| nli.address), message.source_is_signalling);
        self.send_error(error, message.nat().cloned(), &received.origin, destination, None, now);
    }

    /// The same over an association, as often as its account allows, and what is owed in any case.
    fn answer_over(&mut self, id: AssociationId, received: &Received, error: GistError, now: Instant) {
        let is_new = self.associations.get(id).is_some_and(is_new);
        let code = error.code;
        let message = error_message(error, received.message.nat().cloned(), None);
        if !is_new && self.is_owed(id, received, &message) {
            // Of what is owed a peer can take too little only if it wants to; when the association has ended nothing behind proves anything.
            if self.is_overloaded(id) {
                return self.end_misused(id, "its peer takes nothing that is said to it");
            }
            let sent = self.say_on_association(id, &message);
            return self.note_sent(sent, code);
        }
        if self.takes_error(id, now) {
            let sent = self.send_on_association(id, &message);
            self.note_sent(sent, code);
        } else if is_new {
            // Before its first Confirm a peer has nothing to say. Afterwards what it says may be refused for what has happened here.
            self.note_unanswered(id, now);
        }
    }

    /// What is said of a message in any case over an association that goes on, since its sender acts upon it. That a Confirm was refused: what
    /// is sent behind it, the answer to an MA-Hello whatever else is withheld, would be taken for a proof that it was not (note 4c of the
    /// querying machine). That its Data are nobody's here, which it would go on sending until its next refresh: as long as it takes what is
    /// said to it, and in no more octets than it has said.
    fn is_owed(&self, id: AssociationId, received: &Received, error: &Message) -> bool {
        let Body::Error(ErrorBody { error: about, .. }) = &error.body else { return false };
        match received.message.message_type() {
            MessageType::Confirm => true,
            MessageType::Data if about.cause().is_some_and(ends_routing_state) && !self.is_overloaded(id) => {
                Self::encode(error).is_some_and(|error| error.len() <= received.raw.len())
            }
            _ => false,
        }
    }

    /// A NAT that does not know GIST is on the way (G-317, G-318); anything but a Query is dropped (G-319).
    pub(super) fn answer_untranslated(&mut self, received: &Received, origin: &DatagramOrigin, now: Instant) {
        let cause = ErrorCause::ObjectType(ObjectTypeFault::Untranslated);
        self.counters.refused.count(Some(cause));
        if received.message.message_type() != MessageType::Query {
            return;
        }
        let mut error = received.message.refused_for(cause, received.header());
        error.info.push(ErrorInfo::ObjectType(ObjectType::MessageRoutingInformation.number()));
        (error.datagram_mode, error.query_mode) = (true, origin.query_mode);
        let source = self.is_local(origin.destination).then_some(origin.destination);
        self.send_error(error, None, &received.origin, Some(origin.source), source, now);
    }

    /// Answers a message that does not decode.
    pub(super) fn answer_undecodable(&mut self, fault: &DecodeError, origin: Origin, now: Instant) {
        self.counters.malformed += 1;
        self.counters.refused.count(fault.cause());
        tracing::debug!(%fault, "malformed message");
        if let Origin::Association(id) = origin
            && !self.takes_error(id, now)
        {
            return self.note_unanswered(id, now);
        }
        let Some(mut error) = fault.to_gist_error() else { return };
        let destination = match &origin {
            Origin::Association(_) => None,
            Origin::Datagram(origin) => {
                (error.datagram_mode, error.query_mode) = (true, origin.query_mode);
                let signalling = fault.context.nli.as_ref().map(|nli| nli.address);
                let is_source = fault.context.common_header().is_some_and(|header| header.source_is_signalling);
                error_to(origin, signalling, is_source)
            }
        };
        self.send_error(error, fault.context.nat.clone(), &origin, destination, None, now);
    }

    /// Answers a message that need not decode, for another reason than that.
    pub(super) fn answer_unread(
        &mut self,
        fault: &DecodeError,
        cause: ErrorCause,
        info: Option<ErrorInfo>,
        origin: &DatagramOrigin,
        now: Instant,
    ) {
        self.counters.refused.count(Some(cause));
        let context = &fault.context;
        let Some(header) = context.header else { return };
        let mut error = GistError::new(cause, header);
        (error.session, error.mri) = (context.session, context.mri.clone());
        (error.datagram_mode, error.query_mode) = (true, origin.query_mode);
        error.info.extend(info);
        let is_source = context.common_header().is_some_and(|header| header.source_is_signalling);
        let destination = error_to(origin, context.nli.as_ref().map(|nli| nli.address), is_source);
        self.send_error(error, context.nat.clone(), &Origin::Datagram(*origin), destination, None, now);
    }

    /// Routing state plays no part in where an Error goes (G-219).
    fn send_error(
        &mut self,
        error: GistError,
        nat: Option<NatTraversal>,
        origin: &Origin,
        destination: Option<SocketAddr>,
        source: Option<IpAddr>,
        now: Instant,
    ) {
        if destination.is_some_and(|to| !self.takes_answers(to.ip())) {
            return;
        }
        let own = destination.and_then(|to| source.or_else(|| self.backend.0.egress_address(to.ip())));
        let code = error.code;
        let message = error_message(error, nat, own.map(|own| self.nli(own, 0, self.validity())));
        let sent = match (origin, destination, own) {
            (Origin::Association(id), _, _) => self.send_on_association(*id, &message),
            (Origin::Datagram(origin), Some(to), Some(own)) => {
                self.send_normal(to, Some(own), &message, Purpose::Error(origin.asker(to.ip())), now)
            }
            (Origin::Datagram(_), _, _) => false,
        };
        self.note_sent(sent, code);
    }

    fn note_sent(&mut self, sent: bool, code: u16) {
        if sent {
            self.counters.errors_sent += 1;
        } else {
            // G-218.
            tracing::info!(code, "Error message cannot be sent");
        }
    }

    /// Whoever says over an association what is refused has it refused without a word from some number on: an Error may take more octets
    /// than what is wrong.
    fn takes_error(&mut self, id: AssociationId, now: Instant) -> bool {
        let rate = self.config.datagram_rate;
        let takes = self.associations.get_mut(id).is_some_and(|association| association.errors.take_error(rate, now));
        self.counters.rate_dropped += u64::from(!takes);
        takes
    }

    /// The peer says what only it can be blamed for more often than it is answered.
    fn note_unanswered(&mut self, id: AssociationId, now: Instant) {
        let Some(association) = self.associations.get_mut(id) else { return };
        let (since, times) = association.unanswered.unwrap_or((now, 0));
        let (since, times) = if now.saturating_duration_since(since) > UNANSWERED_FOR { (now, 1) } else { (since, times + 1) };
        association.unanswered = Some((since, times));
        if times == MOST_UNANSWERED {
            self.end_misused(id, "its peer goes on saying what is refused");
        }
    }

    fn end_misused(&mut self, id: AssociationId, why: &str) {
        self.counters.misused_ended += 1;
        self.tasks.push_back(Task::Association(id, Event::ErMisused, AssociationInput::Reason(why.to_owned())));
    }
}

fn error_message(error: GistError, nat: Option<NatTraversal>, nli: Option<Nli>) -> Message {
    let body = Body::Error(ErrorBody { nat, nli, error });
    Message { hop_count: super::transmit::HOP_COUNT, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() }
}

/// G-215: to the NLI's address; without one to the IP source, if that is the signalling address.
fn error_to(origin: &DatagramOrigin, signalling: Option<IpAddr>, source_is_signalling: bool) -> Option<SocketAddr> {
    signalling.or_else(|| source_is_signalling.then(|| origin.source.ip())).map(|address| origin.reply_to(address))
}

/// Object Value Info about an MRI (A.4.4.12); `offset` counts within the value.
pub(super) fn mri_info(mri: &Mri, offset: usize) -> Option<ErrorInfo> {
    let mut value = BytesMut::new();
    mri.encode(&mut value).ok()?;
    Some(ErrorInfo::ObjectValue(ObjectValueInfo::from_value(ObjectType::MessageRoutingInformation, &value, offset)))
}
