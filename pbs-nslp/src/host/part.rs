//! A host is sender of some flows and receiver of others: which of the two a word of GIST is for.

use gist::api::{Indication, SendMessage};
use gist::wire::Direction;

/// A part of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// [`crate::sender::Sender`].
    Sender,
    /// [`crate::receiver::Receiver`].
    Receiver,
}

/// Whose word it is: messages that come with a flow are the receiver's, and news of messages sent with it the sender's.
pub fn part(indication: &Indication) -> Part {
    match indication {
        Indication::Received(received) => match received.mri.direction() {
            Direction::Downstream => Part::Receiver,
            Direction::Upstream => Part::Sender,
        },
        Indication::MessageStatus { mri, .. }
        | Indication::MessageProposed { message: SendMessage { mri, .. }, .. }
        | Indication::NetworkNotification { mri, .. } => match mri.direction() {
            Direction::Downstream => Part::Sender,
            Direction::Upstream => Part::Receiver,
        },
    }
}
