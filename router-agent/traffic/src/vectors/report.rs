//! What a run over vector files found.

use std::collections::BTreeMap;
use std::fmt;

use super::line::Skip;
use crate::reason::DropReason;

/// What was found about every vector.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// One for each line, in order.
    pub results: Vec<VectorResult>,
}

/// What was found about one vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VectorResult {
    /// File and line.
    pub place: String,
    /// The vector's own name, `-` if it could not be read.
    pub id: String,
    /// The algorithm that it names, `-` if it could not be read.
    pub algorithm: String,
    /// What was found.
    pub outcome: Outcome,
}

/// What became of a vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Judged: one judgement for a known answer, one for each step of a sequence.
    Judged(Vec<Judgement>),
    /// Not judged.
    Skipped(Skip),
    /// The line is not a vector; says why.
    Unreadable(String),
}

/// The judgement of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// What the file says about the packet.
    pub expected: bool,
    /// What RFC 4302 says: right, or why not.
    pub rfc: Result<(), DropReason>,
    /// What PBS says to a packet that is right by the RFC.
    pub policy: Option<Result<(), DropReason>>,
}

impl Judgement {
    /// Whether the RFC's verdict is the expected one.
    pub const fn agrees(&self) -> bool {
        self.rfc.is_ok() == self.expected
    }
}

impl VectorResult {
    /// Whether it was judged as expected throughout.
    pub fn is_passed(&self) -> bool {
        matches!(&self.outcome, Outcome::Judged(judgements) if judgements.iter().all(Judgement::agrees))
    }

    /// Whether it was not judged.
    pub const fn is_skipped(&self) -> bool {
        matches!(self.outcome, Outcome::Skipped(_))
    }

    /// Whether PBS refuses a packet of it that is right by RFC 4302.
    pub fn is_refused(&self) -> bool {
        matches!(&self.outcome, Outcome::Judged(judgements) if judgements.iter().any(|judgement| matches!(judgement.policy, Some(Err(_)))))
    }

    /// Whether it was judged otherwise than expected, or is no vector.
    pub fn is_failed(&self) -> bool {
        !self.is_passed() && !self.is_skipped()
    }
}

impl Report {
    /// Number of vectors judged as expected.
    pub fn passed(&self) -> usize {
        self.results.iter().filter(|result| result.is_passed()).count()
    }

    /// Number of vectors judged otherwise, and of lines that are no vectors.
    pub fn failed(&self) -> usize {
        self.results.iter().filter(|result| result.is_failed()).count()
    }

    /// Number of vectors not judged.
    pub fn skipped(&self) -> usize {
        self.results.iter().filter(|result| result.is_skipped()).count()
    }

    /// Why vectors were not judged, and how many for each reason.
    pub fn skips(&self) -> BTreeMap<&Skip, usize> {
        let mut skips = BTreeMap::new();
        for result in &self.results {
            if let Outcome::Skipped(skip) = &result.outcome {
                *skips.entry(skip).or_default() += 1;
            }
        }
        skips
    }

    /// Of the packets that are right by RFC 4302: how many PBS takes, and how many it refuses for which reason.
    pub fn policy(&self) -> (usize, BTreeMap<DropReason, usize>) {
        let (mut taken, mut refused) = (0, BTreeMap::new());
        for result in &self.results {
            let Outcome::Judged(judgements) = &result.outcome else { continue };
            for verdict in judgements.iter().filter_map(|judgement| judgement.policy) {
                match verdict {
                    Ok(()) => taken += 1,
                    Err(reason) => *refused.entry(reason).or_default() += 1,
                }
            }
        }
        (taken, refused)
    }
}

/// Failures, policy, reasons for skipping, and `N passed, N failed, N skipped` as the last line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for result in self.results.iter().filter(|result| result.is_failed()) {
            writeln!(f, "failed: {result}")?;
        }
        let (taken, refused) = self.policy();
        write!(f, "policy: of the packets right by RFC 4302, PBS takes {taken}")?;
        for (reason, count) in refused {
            write!(f, ", refuses {count} ({reason})")?;
        }
        writeln!(f)?;
        for (skip, count) in self.skips() {
            writeln!(f, "skipped: {count} ({skip})")?;
        }
        write!(f, "{} passed, {} failed, {} skipped", self.passed(), self.failed(), self.skipped())
    }
}

impl fmt::Display for VectorResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({}): ", self.place, self.id, self.algorithm)?;
        match &self.outcome {
            Outcome::Judged(judgements) => {
                for (at, judgement) in judgements.iter().enumerate() {
                    write!(f, "{}{}", if at == 0 { "" } else { "; " }, judgement)?;
                }
                Ok(())
            }
            Outcome::Skipped(skip) => write!(f, "{skip}"),
            Outcome::Unreadable(error) => f.write_str(error),
        }
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expected = if self.expected { "right" } else { "wrong" };
        match (self.rfc, self.policy) {
            (Err(reason), _) => write!(f, "expected {expected}, is wrong by RFC 4302 ({reason})"),
            (Ok(()), Some(Err(reason))) => write!(f, "expected {expected}, is right by RFC 4302, refused by PBS ({reason})"),
            (Ok(()), _) => write!(f, "expected {expected}, is right by RFC 4302"),
        }
    }
}
