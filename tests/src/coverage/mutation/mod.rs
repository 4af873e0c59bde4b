//! `coverage --mutate N`: breaks the tables one thing at a time, and looks whether the tests notice that name what is broken.
//!
//! All mutants of all tables are built at once, into a copy of the tree, where an environment variable says which of them a process is
//! ([`fsm_specs::rust_with_mutants`]). What is built from the tree itself knows no mutants.

mod binaries;
mod copy;
mod excuse;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use fsm_specs::{Mutant, Table};
use serde::{Deserialize, Serialize};

use super::transition::{Transition, Tried};
use crate::dice::Dice;
use binaries::Place;
use excuse::Excuse;

/// The least share of the mutants, in percent, that the tests must notice.
pub const LEAST_SCORE: f64 = 95.0;

/// What decides about transitions: the tables, and the crates that have them, with their tests.
const SOURCES: [&str; 5] = ["fsm-specs/src", "fsm-specs/tables", "gist", "pbs-nslp", "router-agent/traffic"];

/// What to try.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many mutants; with none the tests run once, so that it is known what they take.
    pub mutants: usize,
    /// Which of them: the same seed draws the same of the same tables.
    pub seed: u64,
    /// Only of the transitions whose name begins so ([`Transition::name`]); what comes of these alone is not kept.
    pub of: Option<String>,
}

impl Options {
    fn is_of(&self, transition: &Transition) -> bool {
        self.of.as_ref().is_none_or(|of| transition.name().starts_with(of.as_str()))
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mutation {
    /// What drew the mutants.
    pub seed: u64,
    /// How many mutants there are.
    pub of: usize,
    /// How many of these were not drawn from, since they are equivalent for a reason that stands in the tree.
    pub excused: usize,
    /// How many were tried.
    pub tried: usize,
    /// How many of these made a test fail that names their transition.
    pub caught: usize,
    /// The others: the transition, and what was wrong with it.
    pub survivors: Vec<String>,
}

impl Mutation {
    /// The share that was caught, in percent.
    pub fn score(&self) -> f64 {
        if self.tried == 0 { 100.0 } else { 100.0 * self.caught as f64 / self.tried as f64 }
    }
}

/// The last run, as it is kept beside the copy.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Of which sources.
    sources: u64,
    mutation: Mutation,
    /// By the transition's name: the tests that take it, and its mutants.
    transitions: BTreeMap<String, (Vec<String>, Tried)>,
}

/// Runs the tests, then N mutants. `progress` is told what is being done.
///
/// # Errors
///
/// Sources that cannot be read, a copy that cannot be made or built, tests that fail without a mutant, an excuse that excuses nothing.
pub(super) fn run(
    tree: &Path,
    tables: &[Table],
    transitions: &mut [Transition],
    options: Options,
    progress: &(impl Fn(&str) + Sync),
) -> io::Result<Mutation> {
    let scratch = scratch()?;
    let excuses = excuse::read(tree)?;
    progress("copying the tree, and building all mutants of its tables");
    let copy = scratch.join("tree");
    copy::update(tree, &copy)?;
    let tests = transitions.iter().filter(|transition| options.is_of(transition)).flat_map(|transition| transition.tests.iter().cloned());
    let tests: BTreeSet<String> = tests.collect();
    let places = binaries::build(&copy, &scratch.join("build"), &tests)?;
    progress(&format!("running the {} tests that name a transition, without a mutant", places.len()));
    let taken = taken(tables, &places, &scratch)?;
    let places_of = tables.iter().enumerate().flat_map(|(number, table)| (0..table.transitions().len()).map(move |place| (number, place)));
    for (transition, place) in transitions.iter_mut().zip(places_of).filter(|(transition, _)| options.is_of(transition)) {
        let by = taken.get(&place).cloned().unwrap_or_default();
        transition.taken_by = Some(transition.tests.iter().filter(|test| by.contains(*test)).cloned().collect());
        transition.mutants = Some(Tried::default());
    }
    let mutation = mutate(tables, transitions, &places, &excuses, &options, progress)?;
    if options.of.is_some() {
        return Ok(mutation);
    }
    let kept = |transition: &Transition| {
        (transition.name(), (transition.taken_by.clone().unwrap_or_default(), transition.mutants.unwrap_or_default()))
    };
    let record = Record { sources: hash(tree)?, mutation: mutation.clone(), transitions: transitions.iter().map(kept).collect() };
    std::fs::write(scratch.join("record.json"), serde_json::to_vec(&record)?)?;
    Ok(mutation)
}

/// What the last run found, if it was of these very sources.
pub(super) fn recall(tree: &Path, transitions: &mut [Transition]) -> Option<Mutation> {
    let record: Record = serde_json::from_slice(&std::fs::read(scratch().ok()?.join("record.json")).ok()?).ok()?;
    if record.sources != hash(tree).ok()? {
        return None;
    }
    for transition in transitions {
        if let Some((taken_by, mutants)) = record.transitions.get(&transition.name()) {
            (transition.taken_by, transition.mutants) = (Some(taken_by.clone()), Some(*mutants));
        }
    }
    Some(record.mutation)
}

/// Which tests take which transition, by table and place in it.
fn taken(tables: &[Table], places: &BTreeMap<String, Place>, scratch: &Path) -> io::Result<BTreeMap<(usize, usize), BTreeSet<String>>> {
    let mut taken: BTreeMap<(usize, usize), BTreeSet<String>> = BTreeMap::new();
    let programs: BTreeSet<(&Path, &Path)> = places.values().map(|place| (&*place.folder, &*place.program)).collect();
    for (folder, program) in programs {
        let here: BTreeMap<&str, &String> =
            places.iter().filter(|(_, place)| place.program == program).map(|(test, place)| (&*place.name, test)).collect();
        let names: Vec<&str> = here.keys().copied().collect();
        let notes = scratch.join("notes");
        drop(std::fs::remove_file(&notes));
        if !binaries::run(folder, program, &names, &[("TABLE_NOTES", notes.display().to_string())])? {
            return Err(io::Error::other(format!("{}: these tests fail without a mutant: {}", program.display(), names.join(" "))));
        }
        for line in std::fs::read_to_string(&notes).unwrap_or_default().lines() {
            let [machine, place, thread] = *line.split('\t').collect::<Vec<_>>() else { continue };
            let table = tables.iter().position(|table| table.machine.name == machine);
            if let (Some(table), Ok(place), Some(test)) = (table, place.parse(), here.get(thread)) {
                taken.entry((table, place)).or_default().insert((*test).clone());
            }
        }
    }
    Ok(taken)
}

/// A mutant, where it stands.
struct Drawn<'a> {
    /// The transition, among all of them.
    transition: usize,
    /// What `TABLE_MUTANT` says to be it.
    word: String,
    table: &'a Table,
    mutant: Mutant,
}

impl Drawn<'_> {
    fn what(&self) -> String {
        let cells = self.table.transitions();
        cells.get(self.mutant.transition).map(|cell| self.mutant.change.describe(cell.row)).unwrap_or_default()
    }
}

/// How many mutants there are, and those that nothing excuses.
fn unexcused<'t>(tables: &'t [Table], transitions: &[Transition], excuses: &[Excuse]) -> io::Result<(usize, Vec<Drawn<'t>>)> {
    let (mut all, mut offset) = (Vec::new(), 0);
    for table in tables {
        for (number, mutant) in fsm_specs::mutants(table).into_iter().enumerate() {
            let word = format!("{} {number}", table.machine.name);
            all.push(Drawn { transition: offset + mutant.transition, word, table, mutant });
        }
        offset += table.transitions().len();
    }
    let of = all.len();
    let mut used = BTreeSet::new();
    all.retain(|drawn| {
        let Some(transition) = transitions.get(drawn.transition) else { return true };
        let what = drawn.what();
        let excuse = excuses.iter().position(|excuse| excuse.is_for(transition, &what));
        used.extend(excuse.iter().flat_map(|number| excuses.get(*number).into_iter().flat_map(|excuse| excuse.used_by(transition, &what))));
        excuse.is_none()
    });
    let idle: Vec<String> = excuses.iter().flat_map(Excuse::words).filter(|word| !used.contains(word)).collect();
    if !idle.is_empty() {
        return Err(io::Error::other(format!("these excuse no mutant (or those before them excuse all of them): {}", idle.join(", "))));
    }
    Ok((of, all))
}

/// How many mutants of the tables there are, and how many of them are excused.
///
/// # Errors
///
/// Excuses that cannot be read; one of which a word excuses nothing.
pub(super) fn excused(tree: &Path, tables: &[Table], transitions: &[Transition]) -> io::Result<(usize, usize)> {
    let (of, left) = unexcused(tables, transitions, &excuse::read(tree)?)?;
    Ok((of, of - left.len()))
}

fn mutate(
    tables: &[Table],
    transitions: &mut [Transition],
    places: &BTreeMap<String, Place>,
    excuses: &[Excuse],
    options: &Options,
    progress: &(impl Fn(&str) + Sync),
) -> io::Result<Mutation> {
    let (of, mut all) = unexcused(tables, transitions, excuses)?;
    let excused = of - all.len();
    all.retain(|drawn| transitions.get(drawn.transition).is_some_and(|transition| options.is_of(transition)));
    let mut dice = Dice::new(options.seed);
    for left in (1..all.len()).rev() {
        all.swap(left, dice.below(left as u64 + 1) as usize);
    }
    all.truncate(options.mutants);

    let (next, done, results) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::new(Vec::new()));
    let transitions_ = &*transitions;
    let work = || -> io::Result<()> {
        while let Some((number, drawn)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|number| Some((number, all.get(number)?))) {
            let Some(transition) = transitions_.get(drawn.transition) else { continue };
            let caught = is_caught(drawn, transition, places)?;
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            if done % 50 == 0 || !caught {
                let survivor = if caught { String::new() } else { format!(": nobody notices {}: {}", transition.name(), drawn.what()) };
                progress(&format!("{done} of {} mutants{survivor}", all.len()));
            }
            results.lock().map_err(|_| io::Error::other("another worker died"))?.push((number, caught));
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..std::thread::available_parallelism().map_or(1, usize::from)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker died"))))
    })?;
    let mut results = results.into_inner().map_err(|_| io::Error::other("a worker died"))?;
    results.sort_unstable();
    let mut mutation = Mutation { seed: options.seed, of, excused, tried: 0, caught: 0, survivors: Vec::new() };
    for (number, caught) in results {
        let Some((drawn, transition)) = all.get(number).and_then(|drawn| Some((drawn, transitions.get_mut(drawn.transition)?))) else {
            continue;
        };
        let tried = transition.mutants.get_or_insert_default();
        mutation.tried += 1;
        tried.tried += 1;
        if caught {
            mutation.caught += 1;
            tried.caught += 1;
        } else {
            mutation.survivors.push(format!("{}: {}", transition.name(), drawn.what()));
        }
    }
    mutation.survivors.sort();
    Ok(mutation)
}

/// Whether a test that names the transition fails when the process is the mutant. Those that take it are asked first.
fn is_caught(drawn: &Drawn<'_>, transition: &Transition, places: &BTreeMap<String, Place>) -> io::Result<bool> {
    let takes = |test: &String| transition.taken_by.iter().flatten().any(|by| by == test);
    let environment = [("TABLE_MUTANT", drawn.word.clone())];
    for first in [true, false] {
        let mut programs: BTreeMap<(&Path, &Path), Vec<&str>> = BTreeMap::new();
        for test in transition.tests.iter().filter(|test| takes(test) == first) {
            if let Some(place) = places.get(test) {
                programs.entry((&place.folder, &place.program)).or_default().push(&place.name);
            }
        }
        for ((folder, program), names) in programs {
            if !binaries::run(folder, program, &names, &environment)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Where the copy, its build and the record are: beside what cargo built this program into.
fn scratch() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let profile = program.ancestors().skip(1).find(|folder| !folder.ends_with("deps"));
    let target = profile.and_then(Path::parent).ok_or_else(|| io::Error::other("this program stands in no build directory"))?;
    Ok(target.join("mutants"))
}

/// A number that another state of the sources does not have.
fn hash(tree: &Path) -> io::Result<u64> {
    let mut hasher = DefaultHasher::new();
    for folder in SOURCES {
        for file in copy::files(&tree.join(folder))? {
            std::fs::read(tree.join(folder).join(&file))?.hash(&mut hasher);
            file.hash(&mut hasher);
        }
    }
    Ok(hasher.finish())
}
