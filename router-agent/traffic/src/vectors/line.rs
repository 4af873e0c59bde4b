//! The lines of a vector file.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::report::Outcome;
use crate::algorithm::{IcvKey, Iv, MacAlgorithm};

/// One line. Fields that are not read here (what other programs said, and so on) may be there or not.
#[derive(Debug)]
pub(super) enum Line {
    /// One packet.
    KnownAnswer(KnownAnswer),
    /// Packets of one association.
    Replay(ReplaySequence),
    /// An answer of a primitive.
    Primitive(Primitive),
}

/// One packet after AH, and whether it is right.
#[derive(Debug, Deserialize)]
pub(super) struct KnownAnswer {
    id: String,
    pub(super) spi: u32,
    /// High-order bits of the number; there if the association uses extended ones.
    pub(super) esn_hi: Option<u32>,
    pub(super) packet_hex: String,
    pub(super) valid: bool,
    #[serde(flatten)]
    pub(super) secret: Secret,
}

/// Packets of one association, in the order of their arrival.
#[derive(Debug, Deserialize)]
pub(super) struct ReplaySequence {
    id: String,
    pub(super) spi: u32,
    pub(super) window: u32,
    #[serde(default)]
    pub(super) esn: bool,
    /// Right edge of the window before the first packet.
    #[serde(default)]
    pub(super) start_seq64: u64,
    pub(super) steps: Vec<Step>,
    #[serde(flatten)]
    pub(super) secret: Secret,
}

/// One packet of a sequence.
#[derive(Debug, Deserialize)]
pub(super) struct Step {
    pub(super) packet_hex: String,
    pub(super) accept: bool,
}

/// Algorithm and key.
#[derive(Debug, Deserialize)]
pub(super) struct Secret {
    alg: String,
    key_hex: String,
    icv_bits: Option<usize>,
}

/// An answer of the GMAC primitive.
#[derive(Debug, Deserialize)]
pub(super) struct Primitive {
    id: String,
    key_hex: String,
    /// The whole nonce; in a packet salt and initialization vector.
    iv_hex: String,
    pub(super) aad_hex: String,
    pub(super) tag_hex: String,
}

/// Why a vector was not judged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Skip {
    /// An algorithm that this program does not compute, or not at this length.
    #[error("{0} is not implemented")]
    Algorithm(String),
}

impl Line {
    /// The fields of a line, or why it is no JSON object.
    pub(super) fn fields(text: &[u8]) -> Result<Map<String, Value>, String> {
        serde_json::from_slice(text).map_err(|error| {
            // The line of the file is told besides; within one line only the column says anything.
            let words = error.to_string();
            let what = words.split(" at line ").next().unwrap_or_default();
            format!("{what} at column {}", error.column())
        })
    }

    /// Takes a line's fields, or says what is wrong with them.
    pub(super) fn read(fields: Map<String, Value>) -> Result<Self, String> {
        if fields.contains_key("steps") {
            typed(fields).map(Line::Replay)
        } else if fields.contains_key("packet_hex") {
            typed(fields).map(Line::KnownAnswer)
        } else if fields.contains_key("aad_hex") && fields.contains_key("tag_hex") {
            typed(fields).map(Line::Primitive)
        } else {
            Err("neither `packet_hex` nor `steps` nor `aad_hex` with `tag_hex`".to_owned())
        }
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Line::KnownAnswer(vector) => &vector.id,
            Line::Replay(sequence) => &sequence.id,
            Line::Primitive(primitive) => &primitive.id,
        }
    }

    pub(super) fn algorithm(&self) -> &str {
        match self {
            Line::KnownAnswer(vector) => &vector.secret.alg,
            Line::Replay(sequence) => &sequence.secret.alg,
            Line::Primitive(_) => "gmac-primitive",
        }
    }
}

fn typed<T: DeserializeOwned>(fields: Map<String, Value>) -> Result<T, String> {
    serde_json::from_value(Value::Object(fields)).map_err(|error| error.to_string())
}

impl Primitive {
    /// The key with its salt, and the initialization vector, or why the answer cannot be judged.
    pub(super) fn key(&self) -> Result<(IcvKey, Iv), Outcome> {
        let unreadable = |error: &dyn std::fmt::Display| Outcome::Unreadable(error.to_string());
        let mut octets = hex::decode(&self.key_hex).map_err(|error| unreadable(&error))?;
        let algorithm = match octets.len() {
            16 => MacAlgorithm::Aes128Gmac,
            32 => MacAlgorithm::Aes256Gmac,
            other => return Err(Outcome::Skipped(Skip::Algorithm(format!("aes-{}-gmac", 8 * other)))),
        };
        let nonce = hex::decode(&self.iv_hex).map_err(|error| unreadable(&error))?;
        let Some((salt, iv)) = nonce.split_last_chunk().filter(|(salt, _)| salt.len() == 4) else {
            return Err(unreadable(&"iv_hex: not 12 octets"));
        };
        octets.extend_from_slice(salt);
        IcvKey::new(algorithm, &octets).map(|key| (key, *iv)).map_err(|error| unreadable(&error))
    }
}

impl Secret {
    /// The key, or why the vector cannot be judged.
    pub(super) fn key(&self) -> Result<IcvKey, Outcome> {
        let named = |algorithm: &&MacAlgorithm| algorithm.name() == self.alg;
        let skip = |name: String| Outcome::Skipped(Skip::Algorithm(name));
        let algorithm = *MacAlgorithm::ALL.iter().find(named).ok_or_else(|| skip(self.alg.clone()))?;
        if let Some(bits) = self.icv_bits.filter(|bits| *bits != 8 * algorithm.value_len()) {
            return Err(skip(format!("{} with an ICV of {bits} bits", self.alg)));
        }
        let octets = hex::decode(&self.key_hex).map_err(|error| Outcome::Unreadable(format!("key_hex: {error}")))?;
        IcvKey::new(algorithm, &octets).map_err(|error| Outcome::Unreadable(error.to_string()))
    }
}
