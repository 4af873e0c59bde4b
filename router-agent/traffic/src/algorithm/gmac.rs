//! AES-GMAC (RFC 4543; NIST SP 800-38D): GCM that encrypts nothing.

use aes::cipher::{Array, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::Iv;

const BLOCK: usize = 16;
/// Octets of the salt that the end of a key is (RFC 4543 §3.2).
const SALT: usize = 4;

/// A key prepared for many packets: the block cipher's round keys, the hash's powers of its key, and the salt. All are wiped when it
/// is dropped.
#[derive(Clone)]
pub(super) struct Key {
    cipher: Cipher,
    hash: GHash,
    salt: [u8; SALT],
}

#[derive(Clone)]
enum Cipher {
    Aes128(Aes128),
    Aes256(Aes256),
}

impl Key {
    /// A key of 16 or 32 octets with its salt behind it; `None` for any other length.
    pub(super) fn new(octets: &[u8]) -> Option<Self> {
        let (key, salt) = octets.split_last_chunk::<SALT>()?;
        let cipher = match key.len() {
            16 => Cipher::Aes128(Aes128::new_from_slice(key).ok()?),
            32 => Cipher::Aes256(Aes256::new_from_slice(key).ok()?),
            _ => return None,
        };
        let mut hash_key = cipher.encrypted([0; BLOCK]);
        let hash = GHash::new(&hash_key);
        hash_key.zeroize();
        Some(Self { cipher, hash, salt: *salt })
    }

    /// Begins a MAC under the nonce that salt and vector make together.
    pub(super) fn begin(&self, iv: Iv) -> Context {
        let mut counter = [0; BLOCK];
        let (salt, rest) = counter.split_at_mut(SALT);
        salt.copy_from_slice(&self.salt);
        rest.iter_mut().zip(iv).for_each(|(to, from)| *to = from);
        // SP 800-38D §7.1: the first counter of a nonce of 96 bits.
        counter[BLOCK - 1] = 1;
        let mask = self.cipher.encrypted(counter);
        Context { hash: self.hash.clone(), mask, open: Block::default(), open_len: 0, len: 0 }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.salt.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}

impl Cipher {
    fn encrypted(&self, block: [u8; BLOCK]) -> Block {
        let mut block = Array(block);
        match self {
            Self::Aes128(cipher) => cipher.encrypt_block(&mut block),
            Self::Aes256(cipher) => cipher.encrypt_block(&mut block),
        }
        block
    }
}

/// A MAC under way; wiped when it is dropped.
pub(super) struct Context {
    hash: GHash,
    /// What the hash is encrypted with.
    mask: Block,
    /// The last block, as long as it is not whole.
    open: Block,
    open_len: usize,
    /// Octets up to now.
    len: u64,
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
            self.hash.update(&[self.open]);
        }
        let (whole, rest) = Array::slice_as_chunks(piece);
        if !whole.is_empty() {
            self.hash.update(whole);
        }
        self.open.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.open_len = rest.len();
    }

    /// Ends the computation.
    pub(super) fn finish(mut self) -> [u8; BLOCK] {
        if self.open_len > 0 {
            self.open.iter_mut().skip(self.open_len).for_each(|octet| *octet = 0);
            self.hash.update(&[self.open]);
        }
        // All of it is additional data, and the length of what is encrypted is 0; both in bits (SP 800-38D §6.4).
        let mut lengths = Block::default();
        lengths.iter_mut().zip((self.len * 8).to_be_bytes()).for_each(|(to, from)| *to = from);
        self.hash.update(&[lengths]);
        let mut value = self.hash.clone().finalize();
        value.iter_mut().zip(&self.mask).for_each(|(octet, mask)| *octet ^= mask);
        value.0
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        self.mask.zeroize();
        self.open.zeroize();
    }
}
