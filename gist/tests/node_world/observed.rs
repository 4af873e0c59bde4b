//! What happened.

use bytes::Bytes;
use gist::api::{Indication, NetworkEvent, ReceivedMessage, SendError};
use gist::node::Transmit;
use gist::time::Instant;
use gist::wire::Message;

use super::{World, message_in};

impl World {
    pub fn received(&self, number: usize) -> Vec<ReceivedMessage> {
        let indications = self.members[number].indications.iter();
        indications.filter_map(|(_, i)| if let Indication::Received(message) = i { Some(message.clone()) } else { None }).collect()
    }

    pub fn payloads(&self, number: usize) -> Vec<Bytes> {
        self.received(number).into_iter().map(|message| message.payload).collect()
    }

    pub fn failures(&self, number: usize) -> Vec<(Instant, SendError)> {
        let pick = |(at, i): &(Instant, Indication)| {
            if let Indication::MessageStatus { error, .. } = i { Some((*at, error.clone())) } else { None }
        };
        self.members[number].indications.iter().filter_map(pick).collect()
    }

    pub fn events(&self, number: usize) -> Vec<NetworkEvent> {
        let pick = |(_, i): &(Instant, Indication)| {
            if let Indication::NetworkNotification { event, .. } = i { Some(*event) } else { None }
        };
        self.members[number].indications.iter().filter_map(pick).collect()
    }

    /// Datagrams of one node that hold a message of this kind: when, and what.
    pub fn datagrams_of(&self, number: usize, kind: gist::wire::MessageType) -> Vec<(Instant, Transmit, Message)> {
        let all = self.datagrams.iter().filter(|(_, from, _)| *from == number);
        let decoded = all.map(|(at, _, transmit)| (*at, transmit.clone(), message_in(transmit)));
        decoded.filter(|(_, _, message)| message.message_type() == kind).collect()
    }

    pub fn errors_of(&self, number: usize) -> Vec<gist::wire::GistError> {
        let datagrams = self.datagrams.iter().filter(|(_, from, _)| *from == number).map(|(_, _, transmit)| message_in(transmit));
        let others = self.on_associations.iter().filter(|(_, from, _)| *from == number).map(|(_, _, message)| message.clone());
        let error = |message: Message| if let gist::wire::Body::Error(body) = message.body { Some(body.error) } else { None };
        datagrams.chain(others).filter_map(error).collect()
    }
}
