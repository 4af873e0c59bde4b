//! Every reader of what the kernel says over netlink, by name: for whoever gives them octets that no kernel has sent (the laboratory's
//! fuzz targets). The daemon itself calls them where it asks.

use crate::netlink::{Answer, Malformed, Message, messages};
use crate::{next_hop, paths, routes, rules, segments};

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Heard {
    /// It says nothing to this reader.
    Nothing,
    /// Something was read of it.
    Kept,
    /// Something was read of it, which is read otherwise once it has been written again: a defect.
    Altered,
    /// It says that a request was refused.
    Refused,
}

impl Heard {
    pub(crate) const fn of<T>(kept: &Option<T>) -> Self {
        if kept.is_some() { Self::Kept } else { Self::Nothing }
    }
}

/// Reads one message.
pub type Reader = fn(&Message<'_>) -> Result<Heard, Malformed>;

/// The readers of links, neighbours, routes, routing rules, and of what stands in the packet filter or changes there.
pub const READERS: [(&str, Reader); 17] = [
    ("what a link carries", routes::heard::link),
    ("a route", routes::heard::route),
    ("a routing rule", routes::heard::rule),
    ("the way to a destination", next_hop::hear),
    ("whether a link is up", paths::heard::link),
    ("a neighbour", paths::heard::neighbour),
    ("a routing rule of ways", paths::heard::rule),
    ("a table of the filter", rules::heard::table),
    ("a counter of the filter", rules::heard::counter),
    ("an entry of the filter", rules::heard::entry),
    ("peers in a set of the filter", rules::heard::peers),
    ("a change of the filter", rules::heard::change),
    ("a connection", segments::hear),
    ("the route of frames", segments::hear_route),
    ("the link of frames", segments::hear_link),
    ("the neighbour of frames", segments::hear_neighbour),
    ("how many policies there are", segments::hear_policies),
];

/// Reads every message in what came with one call, as those that ask do.
///
/// # Errors
///
/// The first message that cannot be read; those before it are lost with it.
pub fn hear(reader: Reader, octets: &[u8]) -> Result<Vec<Heard>, Malformed> {
    let one = |message: Result<Message<'_>, Malformed>| {
        let message = message?;
        match Answer::read(&message)? {
            Answer::Refused(..) => Ok(Heard::Refused),
            Answer::Done => Ok(Heard::Nothing),
            Answer::None => reader(&message),
        }
    };
    messages(octets).map(one).collect()
}
