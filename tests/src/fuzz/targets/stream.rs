//! The octets of a messaging association.

use gist::wire::stream::Framer;

use crate::fuzz::mark;

/// Messages are accepted up to this length, in octets.
const CAP: usize = 4096;

/// How a stream arrives does not matter, nothing is lost or made up, and never more is held than one message and what has just come.
pub(super) fn take(input: &[u8]) -> u64 {
    let Some((piece, stream)) = input.split_first() else { return 0 };
    let piece = usize::from(*piece).max(1);
    let whole = cut(stream, stream.len().max(1));
    let pieces = cut(stream, piece);
    assert_eq!(pieces, whole, "pieces of {piece} octets make a difference");
    let (messages, rest, error) = whole;
    let read: usize = messages.iter().map(Vec::len).sum();
    assert_eq!(stream.get(..read).unwrap_or_default(), messages.concat(), "something else than what came");
    assert!(error || read + rest == stream.len(), "{read} and {rest} of {} octets", stream.len());
    mark(&(messages.len().min(6), error, rest.min(16)))
}

/// Whole messages, what is left over, and whether nothing more can be found.
fn cut(stream: &[u8], piece: usize) -> (Vec<Vec<u8>>, usize, bool) {
    let mut framer = Framer::new(CAP);
    let mut messages = Vec::new();
    for piece in stream.chunks(piece) {
        framer.push(piece);
        loop {
            match framer.next_message() {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(framer.next_message(), Err(error), "it does not stay so");
                    return (messages, 0, true);
                }
            }
        }
        assert!(framer.buffered() <= CAP, "{} octets held", framer.buffered());
    }
    (messages, framer.buffered(), false)
}
