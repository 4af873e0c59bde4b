//! Writes netlink messages into one buffer.

use super::{ACK, ATTRIBUTE_HEADER_LEN, NESTED, REQUEST, align};

/// The part of a message header that its sender chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the message is; its meaning depends on the socket's protocol.
    pub kind: u16,
    /// Flags such as [`REQUEST`](super::REQUEST).
    pub flags: u16,
    /// Comes back in the answer.
    pub sequence: u32,
}

/// A value, an attribute or a message is longer than its length field can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a netlink attribute is longer than 65531 octets")]
pub struct TooLong;

/// Appends messages and attributes to a buffer, with lengths and padding filled in.
///
/// A value that does not fit is noticed when the buffer is taken with [`finish`](Self::finish).
#[derive(Debug, Default)]
pub struct Writer {
    octets: Vec<u8>,
    too_long: bool,
}

impl Writer {
    /// Takes over an old buffer, emptied, so that its memory is used again.
    pub fn reusing(mut octets: Vec<u8>) -> Self {
        octets.clear();
        Self { octets, too_long: false }
    }

    /// Writes behind what is there already: whole messages.
    pub const fn appending(octets: Vec<u8>) -> Self {
        Self { octets, too_long: false }
    }

    /// Appends one message: `fixed` is the kind's fixed part, `fill` puts the attributes.
    pub fn message(&mut self, header: Header, fixed: &[u8], fill: impl FnOnce(&mut Self)) {
        let start = self.octets.len();
        self.octets.extend_from_slice(&0u32.to_ne_bytes());
        self.octets.extend_from_slice(&header.kind.to_ne_bytes());
        self.octets.extend_from_slice(&header.flags.to_ne_bytes());
        self.octets.extend_from_slice(&header.sequence.to_ne_bytes());
        // Port 0: the kernel fills in the sending socket's own.
        self.octets.extend_from_slice(&0u32.to_ne_bytes());
        self.put_fixed(fixed);
        fill(self);
        let len = self.octets.len().saturating_sub(start);
        match (u32::try_from(len), self.octets.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<4>())) {
            (Ok(len), Some(field)) => *field = len.to_ne_bytes(),
            _ => self.too_long = true,
        }
    }

    /// Appends one attribute.
    pub fn put(&mut self, kind: u16, value: &[u8]) {
        let Ok(len) = u16::try_from(ATTRIBUTE_HEADER_LEN.saturating_add(value.len())) else {
            self.too_long = true;
            return;
        };
        self.octets.extend_from_slice(&len.to_ne_bytes());
        self.octets.extend_from_slice(&kind.to_ne_bytes());
        self.octets.extend_from_slice(value);
        self.pad();
    }

    /// Appends one attribute that holds what `fill` puts.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.octets.len();
        self.octets.extend_from_slice(&0u16.to_ne_bytes());
        self.octets.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        let len = self.octets.len().saturating_sub(start);
        match (u16::try_from(len), self.octets.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<2>())) {
            (Ok(len), Some(field)) => *field = len.to_ne_bytes(),
            _ => self.too_long = true,
        }
    }

    /// Appends octets as they are: the fixed part of a message within an attribute.
    pub fn put_fixed(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
        self.pad();
    }

    /// Appends an attribute of one octet.
    pub fn put_u8(&mut self, kind: u16, value: u8) {
        self.put(kind, &[value]);
    }

    /// Appends an attribute of 32 bits in host order.
    pub fn put_u32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_ne_bytes());
    }

    /// Appends an attribute of 32 bits in network order.
    pub fn put_be32(&mut self, kind: u16, value: u32) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Appends an attribute of 64 bits in network order.
    pub fn put_be64(&mut self, kind: u16, value: u64) {
        self.put(kind, &value.to_be_bytes());
    }

    /// Appends a text and the NUL that ends it.
    pub fn put_text(&mut self, kind: u16, value: &str) {
        let mut octets = Vec::with_capacity(value.len().saturating_add(1));
        octets.extend_from_slice(value.as_bytes());
        octets.push(0);
        self.put(kind, &octets);
    }

    /// Octets written so far.
    pub fn len(&self) -> usize {
        self.octets.len()
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// The octets written, or an error if something was too long.
    pub fn finish(self) -> Result<Vec<u8>, TooLong> {
        if self.too_long { Err(TooLong) } else { Ok(self.octets) }
    }

    fn pad(&mut self) {
        self.octets.resize(align(self.octets.len()), 0);
    }
}

/// Requests that go to the kernel in one piece, each with its own number and a name for errors.
#[derive(Debug)]
pub struct Batch {
    writer: Writer,
    name: String,
    names: Vec<String>,
    /// Where the last request starts.
    last: usize,
}

impl Batch {
    /// Sequence number of the first request; the others follow.
    pub(super) const FIRST: u32 = 1;

    /// Starts a batch. `name` is how an error calls it as a whole.
    pub fn new(name: impl Into<String>) -> Self {
        Self { writer: Writer::default(), name: name.into(), names: Vec::new(), last: 0 }
    }

    /// Appends a request, with [`REQUEST`] set besides `flags`. `name` is how an error calls it.
    pub fn request(&mut self, name: impl Into<String>, kind: u16, flags: u16, fixed: &[u8], fill: impl FnOnce(&mut Writer)) {
        let header = Header { kind, flags: flags | REQUEST, sequence: self.next_sequence() };
        self.last = self.writer.len();
        self.writer.message(header, fixed, fill);
        self.names.push(name.into());
    }

    /// Appends a message that the kernel does not answer unless it fails, and then for the batch as a whole.
    pub fn unanswered(&mut self, kind: u16, fixed: &[u8]) {
        self.writer.message(Header { kind, flags: REQUEST, sequence: 0 }, fixed, |_| {});
    }

    /// Octets, name of the batch and names of its requests.
    ///
    /// [`ACK`] is set on the last request alone. The kernel answers in order, and errors without being asked: so that answer
    /// ends the batch, and a long batch does not fill the socket's buffer with confirmations.
    pub(super) fn finish(self) -> Result<(Vec<u8>, String, Vec<String>), TooLong> {
        const FLAGS_AT: usize = 6;
        let mut octets = self.writer.finish()?;
        if let Some(field) = octets.get_mut(self.last.saturating_add(FLAGS_AT)..).and_then(|rest| rest.first_chunk_mut::<2>()) {
            *field = (u16::from_ne_bytes(*field) | ACK).to_ne_bytes();
        }
        Ok((octets, self.name, self.names))
    }

    fn next_sequence(&self) -> u32 {
        Self::FIRST.wrapping_add(u32::try_from(self.names.len()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{attributes, messages};
    use super::*;

    #[test]
    fn what_is_written_reads_back_the_same() {
        let mut writer = Writer::default();
        writer.message(Header { kind: 7, flags: 5, sequence: 9 }, &[1, 2], |writer| {
            writer.put_u8(1, 0xab);
            writer.nest(2, |writer| writer.put_text(3, "pbs"));
            writer.put_be64(4, 5);
        });
        let octets = writer.finish().unwrap();
        let message = messages(&octets).next().unwrap().unwrap();
        assert_eq!((message.kind, message.flags, message.sequence), (7, 5, 9));
        let read: Vec<_> = attributes(message.after(4).unwrap()).map(Result::unwrap).collect();
        assert_eq!(read.iter().map(|attribute| attribute.kind).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(read[0].u8().unwrap(), 0xab);
        assert_eq!(read[1].nested().next().unwrap().unwrap().text().unwrap(), "pbs");
        assert_eq!(read[2].be64().unwrap(), 5);
    }

    #[test]
    fn only_the_last_request_of_a_batch_asks_for_an_answer() {
        let mut batch = Batch::new("batch");
        batch.unanswered(0x10, &[]);
        for name in ["first", "second", "third"] {
            batch.request(name, 7, 0, &[1, 2, 3, 4], |writer| writer.put_text(1, name));
        }
        batch.unanswered(0x11, &[]);
        let (octets, _, names) = batch.finish().unwrap();
        let flags: Vec<_> = messages(&octets).map(|message| message.unwrap().flags).collect();
        assert_eq!(flags, [REQUEST, REQUEST, REQUEST, REQUEST | ACK, REQUEST]);
        assert_eq!(names, ["first", "second", "third"]);
    }

    #[test]
    fn a_value_longer_than_its_length_field_is_an_error_and_not_cut() {
        let mut writer = Writer::default();
        writer.put(1, &vec![0; 65_531]);
        assert!(writer.finish().is_ok());
        let mut writer = Writer::default();
        writer.put(1, &vec![0; 65_532]);
        assert_eq!(writer.finish(), Err(TooLong));
        let mut writer = Writer::default();
        writer.nest(1, |writer| {
            writer.put(2, &vec![0; 40_000]);
            writer.put(3, &vec![0; 40_000]);
        });
        assert_eq!(writer.finish(), Err(TooLong));
    }
}
