//! What protects a packet: integrity algorithms of AH, their keys, and the values they give.
//!
//! Everything else about AH is the same for a message authentication code and a signature: the input is fed in pieces, and in
//! the end the value is made, or a received one is judged.

mod carryless;
mod gmac;
mod integrity;
mod lanes;
mod mac;
mod signature;
mod standard;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use integrity::LONGEST;

pub use integrity::{Integrity, Iv, MacValue};
pub use mac::{KeyLengthError, MacAlgorithm, MacKey};
pub use signature::{LONGEST_SIGNATURE, PacketSigner, SignatureAlgorithm, VerifyingKey};
pub(crate) use standard::Input;
pub use standard::Standard;

/// An integrity algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IcvAlgorithm {
    /// A key that sender, routers and receiver share (Solution 2).
    Mac(MacAlgorithm),
    /// A signature by the sender (Solution 3).
    Signature(SignatureAlgorithm),
}

impl IcvAlgorithm {
    /// Length of what AH carries in its ICV field, in octets, without padding.
    pub const fn icv_len(self) -> usize {
        match self {
            Self::Mac(algorithm) => algorithm.icv_len(),
            Self::Signature(algorithm) => algorithm.icv_len(),
        }
    }

    /// How many of these octets come first and are an initialization vector; 0 for most.
    pub const fn iv_len(self) -> usize {
        match self {
            Self::Mac(algorithm) => algorithm.iv_len(),
            Self::Signature(_) => 0,
        }
    }

    /// The name in status output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mac(algorithm) => algorithm.name(),
            Self::Signature(algorithm) => algorithm.name(),
        }
    }
}

impl fmt::Display for IcvAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What makes or checks ICVs, bound to its algorithm and prepared for per-packet use. `Debug` shows the algorithm alone.
#[derive(Clone)]
pub enum IcvKey {
    /// Makes and checks.
    Mac(MacKey),
    /// Checks what the sender signed; makes nothing.
    Verifying(VerifyingKey),
    /// Signs; at the sender, who checks nothing.
    Signing(Arc<dyn PacketSigner>),
}

impl IcvKey {
    /// Prepares `octets` as a key of a message authentication code.
    ///
    /// Fails if the length is not the one that the algorithm's RFC fixes (RFC 4868 §2.1.1, RFC 2404 §3, RFC 4543 §5.4).
    pub fn new(algorithm: MacAlgorithm, octets: &[u8]) -> Result<Self, KeyLengthError> {
        MacKey::new(algorithm, octets).map(Self::Mac)
    }

    /// The algorithm the key is for.
    pub fn algorithm(&self) -> IcvAlgorithm {
        match self {
            Self::Mac(key) => IcvAlgorithm::Mac(key.algorithm()),
            Self::Verifying(key) => IcvAlgorithm::Signature(key.algorithm()),
            Self::Signing(key) => IcvAlgorithm::Signature(key.algorithm()),
        }
    }

    /// What a check by it costs a budget of signatures; `None` for a MAC, which costs none.
    pub fn weight(&self) -> Option<u32> {
        match self.algorithm() {
            IcvAlgorithm::Mac(_) => None,
            IcvAlgorithm::Signature(algorithm) => Some(algorithm.weight()),
        }
    }

    /// Something of what a check by it begins with, and nothing of a secret: who looks at it has it in the processor's cache.
    pub(crate) fn touch(&self) -> u64 {
        match self {
            Self::Mac(key) => u64::from(key.fingerprint()[0]),
            Self::Verifying(key) => key.octets().first().copied().unwrap_or_default().into(),
            Self::Signing(_) => 0,
        }
    }

    /// Tells, with the algorithm, whether a key is this one, and nothing of a secret.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        let digest = match self {
            Self::Mac(key) => key.fingerprint(),
            Self::Verifying(key) => standard::digest(key.octets()),
            Self::Signing(key) => standard::digest(key.public_key()),
        };
        Fingerprint { algorithm: self.algorithm(), digest }
    }

    /// Begins an ICV over data that comes in pieces; `iv` as in [`Integrity::begin`].
    pub(crate) fn begin<M: Integrity>(&self, iv: Iv) -> IcvContext<'_, M> {
        match self {
            Self::Mac(key) => IcvContext::Mac(M::begin(key, iv)),
            Self::Verifying(_) | Self::Signing(_) => IcvContext::Signature { key: self, input: Vec::with_capacity(2048) },
        }
    }
}

/// Two signing keys are the same if their public halves are. MAC keys are compared in constant time.
impl PartialEq for IcvKey {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Mac(one), Self::Mac(other)) => one == other,
            (Self::Verifying(one), Self::Verifying(other)) => one == other,
            (Self::Signing(one), Self::Signing(other)) => one.algorithm() == other.algorithm() && one.public_key() == other.public_key(),
            _ => false,
        }
    }
}

impl Eq for IcvKey {}

impl Hash for IcvKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Mac(key) => (0_u8, key).hash(state),
            Self::Verifying(key) => (1_u8, key).hash(state),
            Self::Signing(key) => (2_u8, key.algorithm(), key.public_key()).hash(state),
        }
    }
}

impl fmt::Debug for IcvKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IcvKey").field("algorithm", &self.algorithm()).finish_non_exhaustive()
    }
}

/// What is left of a key when the key is wiped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Fingerprint {
    algorithm: IcvAlgorithm,
    digest: [u8; LONGEST],
}

/// An ICV computation under way.
pub(crate) enum IcvContext<'k, M: Integrity> {
    Mac(M::Context),
    /// Signatures are made over the whole input at once: Ed25519 reads it twice.
    Signature {
        key: &'k IcvKey,
        input: Vec<u8>,
    },
}

impl<M: Integrity> IcvContext<'_, M> {
    /// Takes the next piece of the ICV input.
    pub(crate) fn update(&mut self, piece: &[u8]) {
        match self {
            Self::Mac(context) => M::update(context, piece),
            Self::Signature { input, .. } => input.extend_from_slice(piece),
        }
    }

    /// Makes the value; `None` for a key that cannot.
    pub(crate) fn finish(self) -> Option<Icv> {
        match self {
            Self::Mac(context) => Some(Icv::Mac(M::finish(context))),
            Self::Signature { key: IcvKey::Signing(signer), input } => {
                let value = signer.sign(&input).filter(|value| value.len() == signer.algorithm().icv_len())?;
                Some(Icv::Signature(value))
            }
            Self::Signature { .. } => None,
        }
    }

    /// Whether `received`, what stands behind the initialization vector, begins with the right value.
    pub(crate) fn verifies(self, received: &[u8]) -> bool {
        match self {
            Self::Mac(context) => M::finish(context).matches(received),
            Self::Signature { key: IcvKey::Verifying(key), input } => {
                received.get(..key.algorithm().icv_len()).is_some_and(|signature| M::verifies(key, &input, signature))
            }
            Self::Signature { .. } => false,
        }
    }
}

/// An integrity check value, without an initialization vector before it.
#[derive(Debug, Clone)]
pub(crate) enum Icv {
    Mac(MacValue),
    Signature(Vec<u8>),
}

impl Icv {
    /// The value's octets.
    pub(crate) fn octets(&self) -> &[u8] {
        match self {
            Self::Mac(value) => value.octets(),
            Self::Signature(value) => value,
        }
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    use super::*;

    #[derive(Debug)]
    enum Signer {
        Ed25519(Ed25519KeyPair),
        EcdsaP256(EcdsaKeyPair),
    }

    impl PacketSigner for Signer {
        fn algorithm(&self) -> SignatureAlgorithm {
            match self {
                Self::Ed25519(_) => SignatureAlgorithm::Ed25519,
                Self::EcdsaP256(_) => SignatureAlgorithm::EcdsaP256,
            }
        }

        fn public_key(&self) -> &[u8] {
            match self {
                Self::Ed25519(key) => key.public_key().as_ref(),
                Self::EcdsaP256(key) => key.public_key().as_ref(),
            }
        }

        fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
            match self {
                Self::Ed25519(key) => Some(key.sign(input).as_ref().to_vec()),
                Self::EcdsaP256(key) => key.sign(&SystemRandom::new(), input).ok().map(|value| value.as_ref().to_vec()),
            }
        }
    }

    fn signers() -> [Arc<dyn PacketSigner>; 2] {
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let p256 = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, p256.as_ref(), &random).unwrap();
        [Arc::new(Signer::Ed25519(Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap())), Arc::new(Signer::EcdsaP256(p256))]
    }

    fn of(key: &IcvKey, pieces: &[&[u8]]) -> Option<Icv> {
        let mut context = key.begin::<Standard>([0; 8]);
        pieces.iter().for_each(|piece| context.update(piece));
        context.finish()
    }

    fn verifies(key: &IcvKey, input: &[u8], value: &[u8]) -> bool {
        let mut context = key.begin::<Standard>([0; 8]);
        context.update(input);
        context.verifies(value)
    }

    #[test]
    fn what_the_sender_signs_in_pieces_everybody_with_the_public_key_verifies_and_nothing_else() {
        for signer in signers() {
            let public = IcvKey::Verifying(VerifyingKey::new(signer.algorithm(), signer.public_key()));
            let own = IcvKey::Signing(signer);
            let icv = of(&own, &[b"pack", b"et"]).unwrap();
            assert_eq!(icv.octets().len(), 64);
            assert!(verifies(&public, b"packet", icv.octets()));
            assert!(!verifies(&public, b"packed", icv.octets()));
            let mut other = icv.octets().to_vec();
            other[40] ^= 1;
            assert!(!verifies(&public, b"packet", &other));
            assert!(!verifies(&public, b"packet", &icv.octets()[..63]), "cut short");
            assert!(!verifies(&own, b"packet", icv.octets()), "the sender checks nothing");
            assert!(of(&public, &[b"packet"]).is_none(), "who checks cannot make");
        }
    }

    #[test]
    fn keys_of_different_kinds_are_never_the_same_and_none_is_shown() {
        let [ed25519, p256] = signers().map(IcvKey::Signing);
        let mac = IcvKey::new(MacAlgorithm::HmacSha256_128, &[1; 32]).unwrap();
        assert_ne!(ed25519, p256);
        assert_ne!(ed25519, mac);
        assert_eq!(ed25519, ed25519.clone());
        assert_ne!(ed25519.fingerprint(), p256.fingerprint());
        assert_eq!(format!("{ed25519:?}"), "IcvKey { algorithm: Signature(Ed25519), .. }");
    }
}
