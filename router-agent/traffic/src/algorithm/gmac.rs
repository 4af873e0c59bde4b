//! AES-GMAC (RFC 4543; NIST SP 800-38D): GCM that encrypts nothing.

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Aes256Enc};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Iv;
use super::carryless::{self, BLOCK, Block, Level, Powers};

/// Octets of the salt that the end of a key is (RFC 4543 §3.2).
const SALT: usize = 4;

/// A key prepared for many packets: the block cipher's round keys, the hash's key, and the salt. All are wiped when it is dropped.
pub(super) struct Key {
    prepared: Prepared,
    salt: [u8; SALT],
}

enum Prepared {
    /// By the processor's instructions for four blocks at a time.
    Wide {
        level: Level,
        rounds: Box<[Block]>,
        /// The first power of the hash's key. The others are made for each packet, which takes less than to fetch them from memory.
        hash: Block,
    },
    /// By the libraries, who choose among other instructions.
    Library(Box<Library>),
}

struct Library {
    cipher: Cipher,
    hash: GHash,
}

enum Cipher {
    Aes128(Aes128Enc),
    Aes256(Aes256Enc),
}

impl Key {
    /// A key of 16 or 32 octets with its salt behind it; `None` for any other length.
    pub(super) fn new(octets: &[u8]) -> Option<Self> {
        Self::by(Level::detect(), octets)
    }

    fn by(level: Option<Level>, octets: &[u8]) -> Option<Self> {
        let (key, salt) = octets.split_last_chunk::<SALT>()?;
        let prepared = match level {
            Some(level) => {
                let rounds = level.round_keys(key)?;
                let hash = carryless::hash_key(level.encrypt(&rounds, [0; BLOCK])).to_ne_bytes();
                Prepared::Wide { level, rounds, hash }
            }
            None => {
                let cipher = match key.len() {
                    16 => Cipher::Aes128(Aes128Enc::new_from_slice(key).ok()?),
                    32 => Cipher::Aes256(Aes256Enc::new_from_slice(key).ok()?),
                    _ => return None,
                };
                let mut hash_key = cipher.encrypted([0; BLOCK]);
                let hash = GHash::new(&Array(hash_key));
                hash_key.zeroize();
                Prepared::Library(Box::new(Library { cipher, hash }))
            }
        };
        Some(Self { prepared, salt: *salt })
    }

    /// Begins a MAC under the nonce that salt and vector make together.
    pub(super) fn begin(&self, iv: Iv) -> Context {
        let counter = self.counter(iv);
        let (mask, hash) = match &self.prepared {
            Prepared::Wide { level, rounds, hash } => (
                level.encrypt(rounds, counter),
                Hash::Wide { level: *level, powers: level.powers(u128::from_ne_bytes(*hash)), value: [0; BLOCK] },
            ),
            Prepared::Library(library) => (library.cipher.encrypted(counter), Hash::Library(library.hash.clone())),
        };
        Context { hash, mask, open: [0; BLOCK], open_len: 0, len: 0 }
    }
}

/// Blocks made of what a message begins with: a head of IPv6 with AH and few options, what fills its last block, and up to three of the
/// body.
const STAGED: usize = 12;

/// MACs of whole messages, one after the other: what the first needs of its key is there for those behind it that have the same. Wiped
/// when it is dropped.
pub(super) struct Series<'k> {
    /// Whose powers are there.
    of: Option<&'k Key>,
    powers: Powers,
    value: Block,
    mask: Block,
}

impl<'k> Series<'k> {
    /// One that has no key's powers yet.
    pub(super) const fn new() -> Self {
        Self { of: None, powers: Powers::ZERO, value: [0; BLOCK], mask: [0; BLOCK] }
    }

    /// The MAC of a message in two pieces, of which the first is short.
    pub(super) fn value(&mut self, key: &'k Key, iv: Iv, head: &[u8], body: &[u8]) -> Block {
        if let Prepared::Wide { level, rounds, hash } = &key.prepared {
            if !self.of.is_some_and(|of| std::ptr::eq(of, key)) {
                (self.of, self.powers) = (Some(key), level.powers(u128::from_ne_bytes(*hash)));
            }
            (self.mask, self.value) = (level.encrypt(rounds, key.counter(iv)), [0; BLOCK]);
            if self.absorb(*level, head, body).is_some() {
                return (u128::from_ne_bytes(self.value) ^ u128::from_ne_bytes(self.mask)).to_ne_bytes();
            }
        }
        let mut context = key.begin(iv);
        context.update(head);
        context.update(body);
        context.finish()
    }

    /// Takes all of a message, if it is one of those that are not short. What lies in the body in fours of blocks is taken where it lies;
    /// what is before and behind it is put together with one copy, in moves whose lengths are known.
    fn absorb(&mut self, level: Level, head: &[u8], body: &[u8]) -> Option<()> {
        let aligned = head.len().next_multiple_of(BLOCK);
        let (blocks, rest) = body.get(aligned - head.len()..)?.as_chunks::<BLOCK>();
        // The last four: blocks, what is left, the lengths.
        let mut last = [[0; BLOCK]; 4];
        last[3] = lengths((head.len() + body.len()) as u64);
        let blocks = if rest.is_empty() {
            let (blocks, ending) = blocks.split_last_chunk()?;
            *last.first_chunk_mut::<3>()? = *ending;
            blocks
        } else {
            let (blocks, ending) = blocks.split_last_chunk()?;
            *last.first_chunk_mut::<2>()? = *ending;
            last[2].get_mut(..rest.len())?.copy_from_slice(rest);
            blocks
        };
        let (odd, fours) = blocks.split_at_checked(blocks.len() % 4)?;
        let mut first = [[0; BLOCK]; STAGED];
        // A longer head has no room here, and goes the other way.
        let (place, behind) = first.as_flattened_mut().split_at_mut_checked(head.len())?;
        place.copy_from_slice(head);
        // More than fills the last block: what is too much is written over, or stands behind what is taken.
        *behind.first_chunk_mut::<BLOCK>()? = *body.first_chunk()?;
        let place = first.get_mut(aligned / BLOCK..)?;
        match blocks.first_chunk::<3>() {
            Some(three) => *place.first_chunk_mut()? = *three,
            None => place.get_mut(..odd.len())?.copy_from_slice(odd),
        }
        let first = first.get(..aligned / BLOCK + odd.len()).filter(|first| !first.is_empty())?;
        level.absorb(&self.powers, &mut self.value, first, fours.as_chunks().0, &[last]);
        Some(())
    }
}

impl Drop for Series<'_> {
    fn drop(&mut self) {
        (self.powers, self.value, self.mask) = (Powers::ZERO, [0; BLOCK], [0; BLOCK]);
        zeroize::optimization_barrier(self);
    }
}

impl Key {
    /// The first counter block of a packet (SP 800-38D §7.1): salt and vector are a nonce of 96 bits.
    fn counter(&self, iv: Iv) -> Block {
        let ([a, b, c, d], [e, f, g, h, i, j, k, l]) = (self.salt, iv);
        [a, b, c, d, e, f, g, h, i, j, k, l, 0, 0, 0, 1]
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.salt.zeroize();
        // What the libraries have they wipe themselves.
        if let Prepared::Wide { rounds, hash, .. } = &mut self.prepared {
            rounds.as_flattened_mut().zeroize();
            hash.zeroize();
        }
    }
}

impl ZeroizeOnDrop for Key {}

impl Cipher {
    fn encrypted(&self, block: Block) -> Block {
        let mut block = Array(block);
        match self {
            Self::Aes128(cipher) => cipher.encrypt_block(&mut block),
            Self::Aes256(cipher) => cipher.encrypt_block(&mut block),
        }
        block.0
    }
}

/// A MAC under way; wiped when it is dropped.
pub(super) struct Context {
    hash: Hash,
    /// What the hash is encrypted with.
    mask: Block,
    /// The last block, as long as it is not whole.
    open: Block,
    open_len: usize,
    /// Octets up to now.
    len: u64,
}

enum Hash {
    Wide { level: Level, powers: Powers, value: Block },
    Library(GHash),
}

impl Hash {
    fn absorb(&mut self, blocks: &[Block]) {
        match self {
            Self::Wide { level, powers, value } => level.absorb(powers, value, blocks, &[], &[]),
            Self::Library(hash) => hash.update(Array::cast_slice_from_core(blocks)),
        }
    }

    fn value(&self) -> Block {
        match self {
            Self::Wide { value, .. } => *value,
            Self::Library(hash) => hash.clone().finalize().0,
        }
    }
}

impl Context {
    /// Takes the next piece.
    pub(super) fn update(&mut self, mut piece: &[u8]) {
        self.len += piece.len() as u64;
        if self.open_len > 0 {
            let place = self.open.get_mut(self.open_len..).unwrap_or_default();
            let (now, later) = piece.split_at(piece.len().min(place.len()));
            place.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
            (piece, self.open_len) = (later, self.open_len + now.len());
            if self.open_len < BLOCK {
                return;
            }
            self.hash.absorb(&[self.open]);
        }
        let (whole, rest) = piece.as_chunks();
        if !whole.is_empty() {
            self.hash.absorb(whole);
        }
        self.open.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.open_len = rest.len();
    }

    /// Ends the computation.
    pub(super) fn finish(&mut self) -> Block {
        let lengths = lengths(self.len);
        if self.open_len > 0 {
            self.open.iter_mut().skip(self.open_len).for_each(|octet| *octet = 0);
            self.hash.absorb(&[self.open, lengths]);
        } else {
            self.hash.absorb(&[lengths]);
        }
        self.masked()
    }

    fn masked(&self) -> Block {
        let mut value = self.hash.value();
        value.iter_mut().zip(&self.mask).for_each(|(octet, mask)| *octet ^= mask);
        value
    }
}

/// All of a message is additional data, and the length of what is encrypted is 0; both in bits (SP 800-38D §6.4).
fn lengths(len: u64) -> Block {
    let mut lengths = [0; BLOCK];
    lengths.iter_mut().zip((len * 8).to_be_bytes()).for_each(|(to, from)| *to = from);
    lengths
}

impl Drop for Context {
    fn drop(&mut self) {
        (self.mask, self.open) = ([0; BLOCK], [0; BLOCK]);
        if let Hash::Wide { powers, value, .. } = &mut self.hash {
            (*powers, *value) = (Powers::ZERO, [0; BLOCK]);
        }
        zeroize::optimization_barrier(self);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The value of a message in pieces, by the processor's instructions if it has them, and by the libraries.
    fn values(key: &[u8], iv: Iv, message: &[u8], size: usize) -> Vec<Block> {
        let levels = Level::detect().map(Some).into_iter().chain([None]);
        levels
            .map(|level| {
                let mut context = Key::by(level, key).unwrap().begin(iv);
                message.chunks(size).for_each(|piece| context.update(piece));
                let (head, body) = message.split_at(message.len().min(size));
                let value = context.finish();
                let key = Key::by(level, key).unwrap();
                let mut series = Series::new();
                for _ in 0..2 {
                    assert_eq!(series.value(&key, iv, head, body), value, "two pieces: {} {}", head.len(), body.len());
                }
                value
            })
            .collect()
    }

    #[test]
    fn every_length_gives_the_libraries_value_in_whatever_pieces() {
        for (len, size) in (0..=600).zip([1500, 1, 56, 16, 77].into_iter().cycle()) {
            let message: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
            for key_len in [20, 36] {
                let key: Vec<u8> = (0..key_len).map(|at| (at * 31 + len) as u8).collect();
                let values = values(&key, [len as u8; 8], &message, size);
                assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{len} {size} {key_len}: {values:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_the_key_all_give_one_value(
            key in proptest::collection::vec(any::<u8>(), 36),
            short in any::<bool>(),
            iv in any::<[u8; 8]>(),
            message in proptest::collection::vec(any::<u8>(), 0..2000),
            size in 1_usize..2000,
        ) {
            let values = values(&key[if short { 16 } else { 0 }..], iv, &message, size);
            prop_assert!(values.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", values);
        }
    }

    #[test]
    fn a_series_under_two_keys_in_turn_gives_what_each_gives_by_itself() {
        for level in Level::detect().map(Some).into_iter().chain([None]) {
            let keys = [[1; 20].as_slice(), &[2; 36]].map(|octets| Key::by(level, octets).unwrap());
            let mut series = Series::new();
            for (at, turn) in [0, 0, 1, 1, 0, 1, 0].into_iter().enumerate() {
                let (iv, message) = ([at as u8; 8], vec![at as u8; 40 * at]);
                let (head, body) = message.split_at(message.len().min(56));
                let mut alone = keys[turn].begin(iv);
                alone.update(&message);
                assert_eq!(series.value(&keys[turn], iv, head, body), alone.finish(), "{at}");
            }
        }
    }

    #[test]
    fn a_key_of_another_length_is_none() {
        for level in Level::detect().map(Some).into_iter().chain([None]) {
            assert!([0, 4, 16, 28, 32, 40].into_iter().all(|len| Key::by(level, &vec![0; len]).is_none()));
        }
    }
}
