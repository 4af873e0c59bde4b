//! Reads netlink messages. Everything is checked: what the kernel sends is input like any other.

use super::{ATTRIBUTE_HEADER_LEN, DUMP_INTERRUPTED, HEADER_LEN, KIND_MASK, align};

/// A message or attribute that ends too early or says a wrong length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed netlink {0}")]
pub struct Malformed(pub &'static str);

/// One message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// What the message is.
    pub kind: u16,
    /// Its flags.
    pub flags: u16,
    /// The sequence number of the request it answers.
    pub sequence: u32,
    /// Port of the socket whose request it answers, or tells others about; 0 if the kernel speaks for itself.
    pub port: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Octets up to the next message, header and padding included.
    pub const fn extent(&self) -> usize {
        align(HEADER_LEN + self.body.len())
    }

    /// What follows the header and a fixed part of `fixed` octets: the attributes.
    pub fn after(&self, fixed: usize) -> Result<&'a [u8], Malformed> {
        self.body.get(align(fixed)..).ok_or(Malformed("message: shorter than its fixed part"))
    }

    /// The fixed part, `N` octets long.
    pub fn fixed<const N: usize>(&self) -> Result<&'a [u8; N], Malformed> {
        self.body.first_chunk::<N>().ok_or(Malformed("message: shorter than its fixed part"))
    }

    /// Whether the entries changed while they were listed, so that the list may miss some.
    pub const fn is_interrupted(&self) -> bool {
        self.flags & DUMP_INTERRUPTED != 0
    }
}

/// The messages in one received buffer; see [`messages`].
#[derive(Debug, Clone)]
pub struct Messages<'a>(&'a [u8]);

/// Walks through the messages in `octets`. The walk ends after the first error.
pub const fn messages(octets: &[u8]) -> Messages<'_> {
    Messages(octets)
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((header, len)) = self.0.first_chunk::<HEADER_LEN>().and_then(|header| {
            let [l0, l1, l2, l3, ..] = *header;
            let len = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).ok()?;
            (HEADER_LEN..=self.0.len()).contains(&len).then_some((header, len))
        }) else {
            self.0 = &[];
            return Some(Err(Malformed("message: length")));
        };
        let [_, _, _, _, k0, k1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = *header;
        let body = self.0.get(HEADER_LEN..len).unwrap_or_default();
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some(Ok(Message {
            kind: u16::from_ne_bytes([k0, k1]),
            flags: u16::from_ne_bytes([f0, f1]),
            sequence: u32::from_ne_bytes([s0, s1, s2, s3]),
            port: u32::from_ne_bytes([p0, p1, p2, p3]),
            body,
        }))
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Its number, without the flags for nesting and byte order.
    pub kind: u16,
    /// Its value, without padding.
    pub value: &'a [u8],
}

impl<'a> Attribute<'a> {
    /// The value as one octet.
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.array().map(|[octet]| octet)
    }

    /// The value as 32 bits in host order.
    pub fn u32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// The value as 32 bits in network order.
    pub fn be32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// The value as 64 bits in network order.
    pub fn be64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// The value as a text, up to the first NUL.
    pub fn text(&self) -> Result<&'a str, Malformed> {
        let text = self.value.split(|octet| *octet == 0).next().unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| Malformed("attribute: not a text"))
    }

    /// The attributes in the value.
    pub const fn nested(&self) -> Attributes<'a> {
        attributes(self.value)
    }

    fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.try_into().map_err(|_| Malformed("attribute: length of a number"))
    }
}

/// A row of attributes; see [`attributes`].
#[derive(Debug, Clone)]
pub struct Attributes<'a>(&'a [u8]);

/// Walks through the attributes in `octets`. The walk ends after the first error.
pub const fn attributes(octets: &[u8]) -> Attributes<'_> {
    Attributes(octets)
}

impl<'a> Attributes<'a> {
    /// The first attribute of the given kind, if there is one.
    pub fn find(mut self, kind: u16) -> Result<Option<Attribute<'a>>, Malformed> {
        Iterator::find(&mut self, |attribute| attribute.as_ref().map_or(true, |attribute| attribute.kind == kind)).transpose()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let Some((kind, len)) = self.0.first_chunk::<ATTRIBUTE_HEADER_LEN>().and_then(|[l0, l1, k0, k1]| {
            let len = usize::from(u16::from_ne_bytes([*l0, *l1]));
            let kind = u16::from_ne_bytes([*k0, *k1]) & KIND_MASK;
            (ATTRIBUTE_HEADER_LEN..=self.0.len()).contains(&len).then_some((kind, len))
        }) else {
            self.0 = &[];
            return Some(Err(Malformed("attribute: length")));
        };
        let value = self.0.get(ATTRIBUTE_HEADER_LEN..len).unwrap_or_default();
        self.0 = self.0.get(align(len)..).unwrap_or_default();
        Some(Ok(Attribute { kind, value }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_length_that_points_behind_the_end_is_an_error() {
        let mut octets = 20u32.to_ne_bytes().to_vec();
        octets.resize(HEADER_LEN, 0);
        assert_eq!(messages(&octets).collect::<Vec<_>>(), [Err(Malformed("message: length"))]);
        assert_eq!(attributes(&[9, 0, 1, 0, 0]).collect::<Vec<_>>(), [Err(Malformed("attribute: length"))]);
        assert_eq!(attributes(&[0, 0, 1, 0]).collect::<Vec<_>>(), [Err(Malformed("attribute: length"))]);
    }

    proptest! {
        #[test]
        fn no_input_makes_the_reader_panic_or_walk_forever(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&octets).flatten() {
                for attribute in attributes(message.body).flatten() {
                    let _ = (attribute.text(), attribute.be32(), attribute.nested().count());
                }
            }
            prop_assert!(attributes(&octets).count() <= octets.len());
        }
    }
}
