//! Input after input, until one breaks something or the time is over.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::{Mutator, Target};

/// Inputs that led somewhere new and are changed further, at most.
const POOL: usize = 4096;
/// No input may take longer. Far above what any takes, so that a busy machine is not found fault with.
const SLOW: Duration = Duration::from_secs(5);
/// What the process may grow by in a campaign, in octets: the pool, and what an allocator keeps.
const GROWTH: u64 = 256 << 20;

/// How long, and what chance begins with.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// At most so many mutations.
    pub inputs: u64,
    /// At most so long.
    pub time: Duration,
    /// The same seed makes the same inputs.
    pub seed: u64,
}

/// An input that broke something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
    /// What it broke.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n{}", self.what, hex::encode(&self.input))
    }
}

/// How a campaign went.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Inputs taken.
    pub inputs: u64,
    /// Different things that became of them.
    pub kinds: usize,
    /// The first that broke something.
    pub finding: Option<Finding>,
}

/// Replays the inputs, then goes on with changes of them.
pub fn run(target: &Target, corpus: &[Vec<u8>], options: Options) -> Outcome {
    let mut pool = corpus.to_vec();
    pool.extend((target.seeds)());
    let mut kinds = BTreeSet::new();
    let mut inputs = 0;
    for input in &pool {
        inputs += 1;
        match give(target, input) {
            Ok(kind) => drop(kinds.insert(kind)),
            Err(finding) => return Outcome { inputs, kinds: kinds.len(), finding: Some(finding) },
        }
    }
    let mut mutator = Mutator::new(target.layout, options.seed);
    let (started, before) = (Instant::now(), resident());
    let mut made = 0;
    while made < options.inputs && started.elapsed() < options.time {
        made += 1;
        let input = mutator.next(&pool);
        match give(target, &input) {
            Ok(kind) => {
                if kinds.insert(kind) && pool.len() < POOL {
                    pool.push(input);
                }
            }
            Err(finding) => return Outcome { inputs: inputs + made, kinds: kinds.len(), finding: Some(finding) },
        }
    }
    let grown = resident().saturating_sub(before);
    let finding = (grown > GROWTH).then(|| Finding { input: Vec::new(), what: format!("the process has grown by {grown} octets") });
    Outcome { inputs: inputs + made, kinds: kinds.len(), finding }
}

fn give(target: &Target, input: &[u8]) -> Result<u64, Finding> {
    let started = Instant::now();
    let taken = catch_unwind(AssertUnwindSafe(|| (target.take)(input)));
    let finding = |what: String| Finding { input: input.to_vec(), what };
    match taken {
        Ok(_) if started.elapsed() > SLOW => Err(finding(format!("it took {:?}", started.elapsed()))),
        Ok(kind) => Ok(kind),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(finding(text.unwrap_or_else(|| "a panic without words".to_owned())))
        }
    }
}

/// Octets of memory that the process has now.
fn resident() -> u64 {
    const PAGE: u64 = 4096;
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * PAGE
}
