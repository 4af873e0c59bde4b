//! HMAC of one message that comes in pieces.

use zeroize::ZeroizeOnDrop;

use super::{BLOCK, HashFunction, HmacKey, wipe};

/// A message under way; wiped when it is dropped.
pub(in crate::algorithm) struct Stream<const WORDS: usize> {
    function: &'static HashFunction<WORDS>,
    state: [u32; WORDS],
    /// What goes on with the inner hash.
    outer: [u32; WORDS],
    /// The last block, as long as it is not whole.
    open: [u8; BLOCK],
    open_len: usize,
    /// Octets up to now, with those of the padded key.
    len: u64,
}

impl<const WORDS: usize> Stream<WORDS> {
    /// Begins a message under `key`.
    pub(in crate::algorithm) const fn new(function: &'static HashFunction<WORDS>, key: &HmacKey<WORDS>) -> Self {
        Self { function, state: key.inner, outer: key.outer, open: [0; BLOCK], open_len: 0, len: BLOCK as u64 }
    }

    /// Takes the next piece.
    pub(in crate::algorithm) fn update(&mut self, mut piece: &[u8]) {
        self.len += piece.len() as u64;
        if self.open_len > 0 {
            let place = self.open.get_mut(self.open_len..).unwrap_or_default();
            let (now, later) = piece.split_at(piece.len().min(place.len()));
            place.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            (piece, self.open_len) = (later, self.open_len + now.len());
            if self.open_len < BLOCK {
                return;
            }
            (self.function.one)(&mut self.state, &[self.open]);
        }
        let (whole, rest) = piece.as_chunks();
        if !whole.is_empty() {
            (self.function.one)(&mut self.state, whole);
        }
        self.open.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.open_len = rest.len();
    }

    /// The HMAC (RFC 2104 §2).
    pub(in crate::algorithm) fn finish(&mut self) -> [u32; WORDS] {
        self.end();
        let inner = std::mem::replace(&mut self.state, self.outer);
        self.open.as_chunks_mut::<4>().0.iter_mut().zip(inner).for_each(|(place, word)| *place = word.to_be_bytes());
        (self.open_len, self.len) = (4 * WORDS, (BLOCK + 4 * WORDS) as u64);
        self.end();
        self.state
    }

    /// Pads what is open and hashes it (FIPS 180-4 §5.1.1).
    fn end(&mut self) {
        const LENGTH_AT: usize = BLOCK - size_of::<u64>();
        let bits = (self.len * 8).to_be_bytes();
        if let Some((first, padding)) = self.open.get_mut(self.open_len..).and_then(<[u8]>::split_first_mut) {
            *first = 0x80;
            padding.fill(0);
        }
        if self.open_len >= LENGTH_AT {
            (self.function.one)(&mut self.state, &[self.open]);
            self.open = [0; BLOCK];
        }
        if let Some(length) = self.open.last_chunk_mut() {
            *length = bits;
        }
        (self.function.one)(&mut self.state, &[self.open]);
    }
}

impl<const WORDS: usize> Drop for Stream<WORDS> {
    fn drop(&mut self) {
        wipe(&mut self.state);
        wipe(&mut self.outer);
        wipe(&mut self.open);
    }
}

impl<const WORDS: usize> ZeroizeOnDrop for Stream<WORDS> {}
