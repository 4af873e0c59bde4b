//! Known answers and anti-replay sequences, judged by the very code that judges packets.
//!
//! A file holds one JSON object a line. Three forms are told apart by their fields:
//!
//! | fields | is | judged by |
//! |---|---|---|
//! | `packet_hex`, `valid` | a packet after AH | [`InboundAssociation::verify_icv`], then [`policy`] |
//! | `steps` | packets of one association, in order | [`InboundAssociation::verify`] and `commit`, then [`policy`] |
//! | `aad_hex`, `tag_hex` | an answer of the GMAC primitive | the MAC alone, in pieces |
//!
//! `valid` and `accept` are what RFC 4302 says; whether PBS takes the packet is reported beside it, and no file says
//! what is expected there.

mod line;
mod report;

use std::path::Path;

pub use self::line::Skip;
use self::line::{KnownAnswer, Line, Primitive, ReplaySequence};
pub use self::report::{Judgement, Outcome, Report, VectorResult};
use crate::ah::{InboundAssociation, policy};
use crate::algorithm::Standard;
use crate::checks::Strict;
use crate::packet::IpPacket;
use crate::reason::DropReason;
use crate::replay::{MIN_SIZE, Numbering, Window};

/// A file of which nothing can be judged.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It could not be read.
    #[error("{file}: {error}")]
    Unreadable {
        /// The file's path as given.
        file: String,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
    /// It is of another kind, or damaged.
    #[error("{file}:{line}: not a file of vectors: each line must be one JSON object ({why})")]
    NotVectors {
        /// The file's path as given.
        file: String,
        /// The first line that is no JSON object, from 1.
        line: usize,
        /// What the reader stumbled over.
        why: String,
    },
}

/// Judges every line of every file.
///
/// A JSON object that is none of the forms above is a failure that names file and line.
///
/// # Errors
///
/// The first file that cannot be read, or that holds a line which is no JSON object.
pub fn run<P: AsRef<Path>>(files: &[P]) -> Result<Report, ReadError> {
    let mut report = Report::default();
    for path in files {
        let file = path.as_ref().display().to_string();
        match std::fs::read(path) {
            Ok(content) => run_content(&file, &content, &mut report)?,
            Err(error) => return Err(ReadError::Unreadable { file, error }),
        }
    }
    Ok(report)
}

/// Judges the lines of one file's content; `file` is the name that results show.
///
/// # Errors
///
/// The first line that is no JSON object: the file is not what its reader took it for, and its other lines say nothing.
pub fn run_content(file: &str, content: &[u8], report: &mut Report) -> Result<(), ReadError> {
    for (at, text) in content.split(|octet| *octet == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let place = format!("{file}:{}", at + 1);
        let fields = Line::fields(text).map_err(|why| ReadError::NotVectors { file: file.to_owned(), line: at + 1, why })?;
        report.results.push(match Line::read(fields) {
            Ok(line) => {
                let outcome = match &line {
                    Line::KnownAnswer(vector) => known_answer(vector),
                    Line::Replay(sequence) => replay_sequence(sequence),
                    Line::Primitive(answer) => primitive(answer),
                };
                VectorResult { place, id: line.id().to_owned(), algorithm: line.algorithm().to_owned(), outcome }
            }
            Err(error) => VectorResult { place, id: "-".to_owned(), algorithm: "-".to_owned(), outcome: Outcome::Unreadable(error) },
        });
    }
    Ok(())
}

fn known_answer(vector: &KnownAnswer) -> Outcome {
    let key = match vector.secret.key() {
        Ok(key) => key,
        Err(outcome) => return outcome,
    };
    let numbering = if vector.esn_hi.is_some() { Numbering::Extended } else { Numbering::Short };
    let (packet, window) = match (hex::decode(&vector.packet_hex), Window::new(MIN_SIZE, numbering)) {
        (Ok(packet), Ok(window)) => (packet, window),
        (Err(error), _) => return Outcome::Unreadable(format!("packet_hex: {error}")),
        (_, Err(error)) => return Outcome::Unreadable(error.to_string()),
    };
    let association = InboundAssociation::new(vector.spi, key, window);
    let judgement = judge(&packet, vector.valid, numbering, |packet| Ok(association.verify_icv(packet, vector.esn_hi, &Strict)?));
    Outcome::Judged(vec![judgement])
}

fn replay_sequence(sequence: &ReplaySequence) -> Outcome {
    let key = match sequence.secret.key() {
        Ok(key) => key,
        Err(outcome) => return outcome,
    };
    let numbering = if sequence.esn { Numbering::Extended } else { Numbering::Short };
    let window = match Window::new(sequence.window, numbering) {
        Ok(window) => window.starting_at(sequence.start_seq64),
        Err(error) => return Outcome::Unreadable(error.to_string()),
    };
    let mut association = InboundAssociation::new(sequence.spi, key, window);
    let mut judgements = Vec::new();
    for step in &sequence.steps {
        let packet = match hex::decode(&step.packet_hex) {
            Ok(packet) => packet,
            Err(error) => return Outcome::Unreadable(format!("packet_hex of step {}: {error}", judgements.len() + 1)),
        };
        judgements.push(judge(&packet, step.accept, numbering, |packet| {
            let verified = association.verify(packet, &Strict)?;
            association.commit(verified);
            Ok(())
        }));
    }
    Outcome::Judged(judgements)
}

fn primitive(answer: &Primitive) -> Outcome {
    let (key, iv) = match answer.key() {
        Ok(key) => key,
        Err(outcome) => return outcome,
    };
    let (Ok(data), Ok(tag)) = (hex::decode(&answer.aad_hex), hex::decode(&answer.tag_hex)) else {
        return Outcome::Unreadable("aad_hex or tag_hex: not hexadecimal".to_owned());
    };
    let mut context = key.begin::<Standard>(iv);
    data.chunks(23).for_each(|piece| context.update(piece));
    let rfc = if context.verifies(&tag) { Ok(()) } else { Err(DropReason::BadIcv) };
    Outcome::Judged(vec![Judgement { expected: true, rfc, policy: None }])
}

/// Parses and judges one packet by the RFC, and what passes by PBS policy as well.
fn judge(bytes: &[u8], expected: bool, numbering: Numbering, rfc: impl FnOnce(&IpPacket<'_>) -> Result<(), DropReason>) -> Judgement {
    let parsed = IpPacket::parse(bytes).map_err(DropReason::from);
    let (rfc, policy) = match parsed.and_then(|packet| rfc(&packet).map(|()| packet)) {
        Ok(packet) => (Ok(()), Some(policy::check(&packet, numbering))),
        Err(reason) => (Err(reason), None),
    };
    Judgement { expected, rfc, policy }
}
