//! HMAC of many messages at once, each in a lane of its own.
//!
//! One stream of SHA-256 or SHA-1 waits for itself: each round needs the one before. Messages of different packets do not wait for
//! each other, and vector instructions take a step of sixteen of them in the time of about five. A lane that has ended its message takes
//! the next one, whatever its length; when too few are left to be worth it, each is ended by the scalar function from where it stands.

mod simd;
mod stream;

use std::array::from_fn;

use zeroize::{Zeroize, ZeroizeOnDrop};

use simd::{Block, LANES, Level};

pub(super) use stream::Stream;

/// Octets of a block of both hash functions.
const BLOCK: usize = size_of::<Block>();
/// Longest head of a message, in octets.
pub(super) const LONGEST_HEAD: usize = 4 * BLOCK;
/// Blocks made of a head, or of what a message ends with: the longest head, one octet short of being aligned, and the padding.
const STAGED: usize = 6;

/// A hash function with a state of so many words (FIPS 180-4).
pub(super) struct HashFunction<const WORDS: usize> {
    initial: [u32; WORDS],
    one: fn(&mut [u32; WORDS], &[Block]),
    many: fn(Level, &mut [[u32; LANES]; WORDS], &simd::Blocks<'_>, usize),
    /// Busy lanes from which on lanes are quicker than one message after the other; more than there are for never.
    worthwhile: fn(Level) -> usize,
}

/// SHA-256 (FIPS 180-4 §5.3.3).
pub(super) const SHA256: HashFunction<8> = HashFunction {
    initial: [0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19],
    one: sha2::block_api::compress256,
    many: Level::sha256,
    // Measured with the processor's own instructions for one message: 33 ns a block, against 240 for sixteen blocks in wide lanes and
    // 610 in narrow ones (AMD, Zen 4); 36 against 248 in wide ones (Intel, at 4.1 GHz).
    worthwhile: |level| if level.is_narrow() { LANES + 1 } else { 8 },
};

/// SHA-1 (FIPS 180-4 §5.3.1).
pub(super) const SHA1: HashFunction<5> = HashFunction {
    initial: [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0],
    one: sha1::block_api::compress,
    many: Level::sha1,
    // 31 ns a block, against 130 for sixteen blocks in wide lanes and 300 in narrow ones.
    worthwhile: |level| if level.is_narrow() { 10 } else { 5 },
};

/// The states of a hash function behind the two padded keys (RFC 2104 §4); wiped when they are dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct HmacKey<const WORDS: usize> {
    inner: [u32; WORDS],
    outer: [u32; WORDS],
}

impl<const WORDS: usize> HmacKey<WORDS> {
    /// Prepares a key of at most a block's length; what is longer is cut.
    pub(super) fn new(function: &HashFunction<WORDS>, octets: &[u8]) -> Self {
        let padded = |pad: u8| {
            let mut block = [pad; BLOCK];
            block.iter_mut().zip(octets).for_each(|(place, octet)| *place ^= octet);
            let mut state = function.initial;
            (function.one)(&mut state, &[block]);
            wipe(&mut block);
            state
        };
        Self { inner: padded(0x36), outer: padded(0x5c) }
    }
}

/// A message in two pieces, and the key it goes under.
pub(super) struct Message<'a, const WORDS: usize> {
    pub(super) key: &'a HmacKey<WORDS>,
    /// At most [`LONGEST_HEAD`] octets; of a longer one the rest is left out.
    pub(super) head: &'a [u8],
    pub(super) body: &'a [u8],
}

/// The best vector instructions of this processor, if it has any that are of use.
pub(super) fn best() -> Option<Level> {
    Level::detect().next()
}

/// Writes zeros that the compiler does not leave out, many octets at a time.
fn wipe<T: Copy + Default, const LEN: usize>(value: &mut [T; LEN]) {
    *value = [T::default(); LEN];
    zeroize::optimization_barrier(value);
}

/// Computes the HMAC of every message, and tells each with the message's name, in any order.
pub(super) fn hmac<'a, N: Copy, const WORDS: usize>(
    function: &HashFunction<WORDS>,
    level: Option<Level>,
    mut messages: impl Iterator<Item = (N, Message<'a, WORDS>)>,
    mut done: impl FnMut(N, [u32; WORDS]),
) {
    let mut lanes: [Lane<'a, WORDS>; LANES] = [const { Lane::IDLE }; LANES];
    let mut names: [Option<N>; LANES] = [None; LANES];
    let mut states = [[0; LANES]; WORDS];
    if let Some(level) = level.filter(|level| (function.worthwhile)(*level) <= LANES) {
        loop {
            for (at, (lane, name)) in lanes.iter_mut().zip(&mut names).enumerate().filter(|(_, (_, name))| name.is_none()) {
                let Some((next, message)) = messages.next() else { break };
                set_column(&mut states, at, message.key.inner);
                lane.begin(&message);
                *name = Some(next);
            }
            let mut busy = lanes.iter().zip(&names).filter(|(_, name)| name.is_some()).map(|(lane, _)| lane.blocks());
            // An idle lane goes along with a busy one, and nobody looks at what comes of it.
            let Some(some) = busy.next() else { break };
            if busy.count() + 1 < (function.worthwhile)(level) {
                break;
            }
            let mut blocks = [some; LANES];
            let of_busy = blocks.iter_mut().zip(lanes.iter().zip(&names)).filter(|(_, (_, name))| name.is_some());
            of_busy.for_each(|(blocks, (lane, _))| *blocks = lane.blocks());
            let count = blocks.iter().map(|blocks| blocks.len()).min().unwrap_or(0);
            (function.many)(level, &mut states, &blocks, count);
            for (at, (lane, place)) in lanes.iter_mut().zip(&mut names).enumerate() {
                let Some(name) = *place else { continue };
                if !lane.take(count) {
                    continue;
                }
                let mut state = column(&states, at);
                if lane.go_on(&mut state) {
                    set_column(&mut states, at, state);
                    // It may be the outer padded key's.
                    wipe(&mut state);
                } else {
                    lane.wipe();
                    done(name, state);
                    *place = None;
                }
            }
        }
    }
    for (at, (lane, place)) in lanes.iter_mut().zip(&names).enumerate() {
        let Some(name) = place else { continue };
        let mut state = column(&states, at);
        one_by_one(function, lane, &mut state);
        done(*name, state);
    }
    if let Some(lane) = lanes.first_mut() {
        for (name, message) in messages {
            let mut state = message.key.inner;
            lane.begin(&message);
            one_by_one(function, lane, &mut state);
            done(name, state);
        }
    }
    states.iter_mut().for_each(wipe);
}

/// Computes one HMAC by itself.
pub(super) fn hmac_one<const WORDS: usize>(function: &HashFunction<WORDS>, message: &Message<'_, WORDS>) -> [u32; WORDS] {
    let (mut lane, mut state) = (Lane::IDLE, message.key.inner);
    lane.begin(message);
    one_by_one(function, &mut lane, &mut state);
    state
}

/// Ends a message from where it stands; `state` is its HMAC then.
fn one_by_one<const WORDS: usize>(function: &HashFunction<WORDS>, lane: &mut Lane<'_, WORDS>, state: &mut [u32; WORDS]) {
    loop {
        let blocks = lane.blocks();
        (function.one)(state, blocks);
        let count = blocks.len();
        if lane.take(count) && !lane.go_on(state) {
            return;
        }
    }
}

fn column<const WORDS: usize>(states: &[[u32; LANES]; WORDS], lane: usize) -> [u32; WORDS] {
    from_fn(|word| states.get(word).and_then(|word| word.get(lane)).copied().unwrap_or_default())
}

fn set_column<const WORDS: usize>(states: &mut [[u32; LANES]; WORDS], lane: usize, state: [u32; WORDS]) {
    for (word, value) in states.iter_mut().zip(state) {
        if let Some(place) = word.get_mut(lane) {
            *place = value;
        }
    }
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The head, and as much of the body as fills its last block.
    Head,
    /// Whole blocks of the body, where they lie.
    Body,
    /// What is left, and the padding.
    End,
    /// The hash of all that, under the other padded key.
    Outer,
}

/// A message under way. It always has blocks to go. Its key stays where it is, and is wiped there.
struct Lane<'a, const WORDS: usize> {
    stage: Stage,
    /// None before the first message.
    key: Option<&'a HmacKey<WORDS>>,
    /// Blocks that are made, not found; those from `from` to `to` are still to go.
    staged: [Block; STAGED],
    from: usize,
    to: usize,
    /// Blocks of the body still to go.
    whole: &'a [Block],
    /// What follows them.
    rest: &'a [u8],
    /// Octets hashed in the end, without the padded key.
    len: usize,
}

impl<'a, const WORDS: usize> Lane<'a, WORDS> {
    /// One that has no message yet.
    const IDLE: Self = Self { stage: Stage::Head, key: None, staged: [[0; BLOCK]; STAGED], from: 0, to: 0, whole: &[], rest: &[], len: 0 };

    /// Takes a message up; of the one before it nothing is left that counts.
    fn begin(&mut self, message: &Message<'a, WORDS>) {
        let head = message.head.get(..LONGEST_HEAD).unwrap_or(message.head);
        let aligned = head.len().next_multiple_of(BLOCK);
        self.len = head.len() + message.body.len();
        (self.stage, self.key, self.from, self.to) = (Stage::Head, Some(message.key), 0, aligned / BLOCK);
        (self.whole, self.rest) = (&[], &[]);
        self.put(0, head);
        match message.body.split_at_checked(aligned - head.len()) {
            Some((filling, body)) => {
                self.put(head.len(), filling);
                (self.whole, self.rest) = body.as_chunks();
                if aligned == 0 {
                    self.stage = Stage::Body;
                    if self.whole.is_empty() {
                        self.end_with_rest();
                    }
                }
            }
            None => {
                self.put(head.len(), message.body);
                self.end(self.len);
            }
        }
    }

    /// The blocks that come next.
    fn blocks(&self) -> &[Block] {
        if self.stage == Stage::Body { self.whole } else { self.staged.get(self.from..self.to).unwrap_or_default() }
    }

    /// So many of the next blocks have been hashed. Whether that was the stage's last.
    fn take(&mut self, count: usize) -> bool {
        if self.stage == Stage::Body {
            self.whole = self.whole.get(count..).unwrap_or_default();
            self.whole.is_empty()
        } else {
            self.from += count;
            self.from >= self.to
        }
    }

    /// Goes on to the next stage; `false` if there is none, and then `state` is the HMAC.
    fn go_on(&mut self, state: &mut [u32; WORDS]) -> bool {
        match self.stage {
            Stage::Head if !self.whole.is_empty() => self.stage = Stage::Body,
            Stage::Head | Stage::Body => {
                self.end_with_rest();
            }
            Stage::End => {
                for (place, word) in self.staged.as_flattened_mut().chunks_exact_mut(4).zip(*state) {
                    place.copy_from_slice(&word.to_be_bytes());
                }
                self.len = 4 * WORDS;
                self.end(4 * WORDS);
                self.stage = Stage::Outer;
                *state = self.key.map_or([0; WORDS], |key| key.outer);
            }
            Stage::Outer => return false,
        }
        true
    }

    /// Puts octets among the staged blocks.
    fn put(&mut self, at: usize, octets: &[u8]) {
        if let Some(place) = self.staged.as_flattened_mut().get_mut(at..at + octets.len()) {
            place.copy_from_slice(octets);
        }
    }

    fn end_with_rest(&mut self) {
        let rest = self.rest;
        self.put(0, rest);
        self.end(rest.len());
    }

    /// Pads what is staged and not hashed yet, `open` octets (FIPS 180-4 §5.1.1). The block of the padded key counts too.
    fn end(&mut self, open: usize) {
        const LENGTH: usize = size_of::<u64>();
        let to = (open + 1 + LENGTH).next_multiple_of(BLOCK);
        let bits = (self.len + BLOCK) as u64 * 8;
        if let Some(padding) = self.staged.as_flattened_mut().get_mut(open..to) {
            padding.fill(0);
            if let Some(first) = padding.first_mut() {
                *first = 0x80;
            }
            if let Some(length) = padding.last_chunk_mut() {
                *length = bits.to_be_bytes();
            }
        }
        (self.stage, self.from, self.to) = (Stage::End, 0, to / BLOCK);
    }

    /// Wipes what was staged last: what has come of the inner key. All before was the packet.
    fn wipe(&mut self) {
        self.staged.iter_mut().take(1).for_each(wipe);
    }
}

impl<const WORDS: usize> Drop for Lane<'_, WORDS> {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests;
