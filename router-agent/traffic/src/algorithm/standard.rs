//! The cryptography of daemons: HMAC by RustCrypto's hash functions or in lanes of our own, GMAC by the processor's instructions or RustCrypto's,
//! signatures by ring.

use ring::signature::{ECDSA_P256_SHA256_FIXED, ED25519, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm};
use sha2::{Digest, Sha256};

use super::gmac;
use super::integrity::{Integrity, Iv, LONGEST, MacValue};
use super::lanes::{self, HashFunction, HmacKey, LONGEST_HEAD, Message, Stream};
use super::{KeyLengthError, MacAlgorithm, MacKey, SignatureAlgorithm, VerifyingKey};

/// MACs and signatures as the RFCs have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Standard;

/// What a key's MACs begin with, and what tells it from others. Wiped when it is dropped.
pub(super) struct Prepared {
    state: State,
    fingerprint: [u8; LONGEST],
}

/// The states of the hash function behind the two padded keys (RFC 2104 §4), or what GMAC prepares.
enum State {
    Sha256(HmacKey<8>),
    Sha1(HmacKey<5>),
    Gmac(gmac::Key),
}

impl Prepared {
    pub(super) fn new(algorithm: MacAlgorithm, octets: &[u8]) -> Result<Self, KeyLengthError> {
        let wrong_length = KeyLengthError { algorithm, expected: algorithm.key_len(), given: octets.len() };
        if octets.len() != algorithm.key_len() {
            return Err(wrong_length);
        }
        let state = match algorithm {
            MacAlgorithm::HmacSha256_128 => State::Sha256(HmacKey::new(&lanes::SHA256, octets)),
            MacAlgorithm::HmacSha1_96 => State::Sha1(HmacKey::new(&lanes::SHA1, octets)),
            MacAlgorithm::Aes128Gmac | MacAlgorithm::Aes256Gmac => State::Gmac(gmac::Key::new(octets).ok_or(wrong_length)?),
        };
        Ok(Self { state, fingerprint: fingerprint(algorithm, octets) })
    }

    /// A MAC of a fixed text: tells two keys apart without keeping either.
    pub(super) const fn fingerprint(&self) -> [u8; LONGEST] {
        self.fingerprint
    }
}

/// A MAC of a fixed text, to tell keys apart: that of the algorithm itself if it is an HMAC. GMAC would use up an initialization
/// vector, and has HMAC-SHA-256 do it.
fn fingerprint(algorithm: MacAlgorithm, octets: &[u8]) -> [u8; LONGEST] {
    const TEXT: &[u8] = b"which key is this";
    let value = match algorithm {
        MacAlgorithm::HmacSha1_96 => value_of(algorithm, of_text(&lanes::SHA1, octets, TEXT)),
        MacAlgorithm::HmacSha256_128 | MacAlgorithm::Aes128Gmac | MacAlgorithm::Aes256Gmac => {
            value_of(algorithm, of_text(&lanes::SHA256, octets, TEXT))
        }
    };
    value.padded()
}

fn of_text<const WORDS: usize>(function: &'static HashFunction<WORDS>, octets: &[u8], text: &[u8]) -> [u32; WORDS] {
    let mut stream = Stream::new(function, &HmacKey::new(function, octets));
    stream.update(text);
    stream.finish()
}

/// What one of many MACs is computed over: all that stands before the payload, and the payload where it lies.
pub(crate) struct Input<'a> {
    pub(crate) key: &'a MacKey,
    pub(crate) iv: Iv,
    /// At most [`Standard::LONGEST_HEAD`] octets.
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

impl Standard {
    /// Octets of an input's head at the most.
    pub(crate) const LONGEST_HEAD: usize = LONGEST_HEAD;

    /// Computes many MACs, and tells each with its input's number, in any order. The same as one by one, but HMACs go side by side.
    pub(crate) fn compute_many<'a>(inputs: impl Iterator<Item = (usize, Input<'a>)> + Clone, done: &mut dyn FnMut(usize, MacValue)) {
        let (mut series, mut any_sha256, mut any_sha1) = (gmac::Series::new(), false, false);
        for (at, Input { key, iv, head, body }) in inputs.clone() {
            match &key.prepared().state {
                State::Gmac(prepared) => done(at, MacValue::cut(key.algorithm(), &series.value(prepared, iv, head, body))),
                State::Sha256(_) => any_sha256 = true,
                State::Sha1(_) => any_sha1 = true,
            }
        }
        drop(series);
        // Mostly there are those of one algorithm: lanes are not set up for nothing.
        let level = lanes::best();
        let sha256 = inputs.clone().filter_map(|(at, Input { key, head, body, .. })| match &key.prepared().state {
            State::Sha256(key) => Some((at, Message { key, head, body })),
            State::Sha1(..) | State::Gmac(_) => None,
        });
        if any_sha256 {
            lanes::hmac(&lanes::SHA256, level, sha256, |at, state| done(at, value_of(MacAlgorithm::HmacSha256_128, state)));
        }
        let sha1 = inputs.filter_map(|(at, Input { key, head, body, .. })| match &key.prepared().state {
            State::Sha1(key) => Some((at, Message { key, head, body })),
            State::Sha256(..) | State::Gmac(_) => None,
        });
        if any_sha1 {
            lanes::hmac(&lanes::SHA1, level, sha1, |at, state| done(at, value_of(MacAlgorithm::HmacSha1_96, state)));
        }
    }

    /// Computes one.
    pub(crate) fn compute(Input { key, iv, head, body }: &Input<'_>) -> MacValue {
        match &key.prepared().state {
            State::Sha256(key) => value_of(MacAlgorithm::HmacSha256_128, lanes::hmac_one(&lanes::SHA256, &Message { key, head, body })),
            State::Sha1(key) => value_of(MacAlgorithm::HmacSha1_96, lanes::hmac_one(&lanes::SHA1, &Message { key, head, body })),
            State::Gmac(prepared) => MacValue::cut(key.algorithm(), &gmac::Series::new().value(prepared, *iv, head, body)),
        }
    }
}

fn value_of<const WORDS: usize>(algorithm: MacAlgorithm, state: [u32; WORDS]) -> MacValue {
    let mut octets = [0; 32];
    octets.as_chunks_mut::<4>().0.iter_mut().zip(state).for_each(|(place, word)| *place = word.to_be_bytes());
    MacValue::cut(algorithm, &octets)
}

/// A MAC under way; wiped when it is dropped.
pub struct Context(Open);

enum Open {
    Sha256(Stream<8>),
    Sha1(Stream<5>),
    Gmac(MacAlgorithm, gmac::Context),
}

impl Integrity for Standard {
    type Context = Context;

    fn begin(key: &MacKey, iv: Iv) -> Context {
        Context(match &key.prepared().state {
            State::Sha256(key) => Open::Sha256(Stream::new(&lanes::SHA256, key)),
            State::Sha1(key) => Open::Sha1(Stream::new(&lanes::SHA1, key)),
            State::Gmac(prepared) => Open::Gmac(key.algorithm(), prepared.begin(iv)),
        })
    }

    fn update(context: &mut Context, piece: &[u8]) {
        match &mut context.0 {
            Open::Sha256(stream) => stream.update(piece),
            Open::Sha1(stream) => stream.update(piece),
            Open::Gmac(_, state) => state.update(piece),
        }
    }

    /// None of the RFCs asks for implicit padding of the input.
    fn finish(mut context: Context) -> MacValue {
        match &mut context.0 {
            Open::Sha256(stream) => value_of(MacAlgorithm::HmacSha256_128, stream.finish()),
            Open::Sha1(stream) => value_of(MacAlgorithm::HmacSha1_96, stream.finish()),
            Open::Gmac(algorithm, state) => MacValue::cut(*algorithm, &state.finish()),
        }
    }

    fn verifies(key: &VerifyingKey, input: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(verification(key.algorithm()), key.octets()).verify(input, signature).is_ok()
    }
}

fn verification(algorithm: SignatureAlgorithm) -> &'static dyn VerificationAlgorithm {
    match algorithm {
        SignatureAlgorithm::Ed25519 => &ED25519,
        SignatureAlgorithm::EcdsaP256 => &ECDSA_P256_SHA256_FIXED,
        SignatureAlgorithm::RsaPss { .. } => &RSA_PSS_2048_8192_SHA256,
    }
}

/// The first octets of a hash: tells public keys apart.
pub(super) fn digest(octets: &[u8]) -> [u8; LONGEST] {
    Sha256::digest(octets).first_chunk().copied().unwrap_or_default()
}
