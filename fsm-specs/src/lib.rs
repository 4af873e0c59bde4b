//! The state machines as tables: what reads, checks, compiles and draws `tables/**/*.fsm`.
//!
//! A table is the only copy of its machine. [`generate`] turns it into `State`, `Event`, `Guards`, `Action` and one
//! total `step` for a crate's build script; [`diagram()`] turns it into the page in `diagrams/`; [`check()`] refuses a
//! table that is ambiguous, unreachable, stuck or without a clock. README.md describes the format.

mod check;
mod diagram;
mod error;
mod mutate;
mod names;
mod read;
mod rust;
mod table;
mod walk;

pub use check::{check, check_name};
pub use diagram::diagram;
pub use error::{Error, Problem};
pub use mutate::{Change, Mutant, mutants};
pub use read::read;
pub use rust::{rust, rust_with_mutants};
pub use table::{Action, Cell, Declared, Excused, Literal, Next, Note, Row, Scope, Table};

use std::path::{Path, PathBuf};
use std::{env, fs};

/// Writes the code of the named tables into `$OUT_DIR`, for a build script.
///
/// A name is the table's path below `tables/` without its ending: `gist/querying` is written to
/// `$OUT_DIR/gist_querying.rs`. Prints the lines that make cargo run the build script again when a table changes.
///
/// # Errors
///
/// Every problem of every named table, each with file and line; a missing table names its path.
pub fn generate(names: &[&str]) -> Result<(), Error> {
    write(names, rust)
}

/// As [`generate`], with a `step` that can be told to be one of the table's [`mutants`], and notes what it does.
///
/// No build script of this tree calls it: `pbs-lab coverage` puts it in the place of [`generate`] in a copy of the tree.
///
/// # Errors
///
/// As [`generate`].
pub fn generate_mutants(names: &[&str]) -> Result<(), Error> {
    write(names, rust_with_mutants)
}

#[expect(clippy::print_stdout, reason = "a build script talks to cargo through its standard output")]
fn write(names: &[&str], rust: impl Fn(&Table) -> String) -> Result<(), Error> {
    let out = env::var_os("OUT_DIR").ok_or_else(|| Error::new("build.rs", 0, "OUT_DIR is not set: not run by cargo"))?;
    let mut problems = Error::default();
    for name in names {
        println!("cargo:rerun-if-changed={}", path(name).display());
        match load(name) {
            Ok(table) => {
                let target = Path::new(&out).join(table.file_stem()).with_extension("rs");
                fs::write(&target, rust(&table)).map_err(|e| Error::new(&target.display().to_string(), 0, e))?;
            }
            Err(error) => problems.extend(error),
        }
    }
    problems.into_result(())
}

/// Reads and checks one table of this crate, named by its path below `tables/` without its ending.
///
/// # Errors
///
/// A table that cannot be read, or every problem found in it.
pub fn load(name: &str) -> Result<Table, Error> {
    load_in(&directory(), name)
}

/// As [`load`], of the crate in another tree.
///
/// # Errors
///
/// As [`load`].
pub fn load_in(directory: &Path, name: &str) -> Result<Table, Error> {
    let file = format!("fsm-specs/tables/{name}.fsm");
    let text = fs::read_to_string(directory.join("tables").join(format!("{name}.fsm"))).map_err(|e| Error::new(&file, 0, e))?;
    let table = read(&file, &text)?;
    check_name(&table, name)?;
    check(&table)?;
    Ok(table)
}

/// The names of all tables of this crate, sorted.
///
/// # Errors
///
/// A directory that cannot be read.
pub fn names() -> Result<Vec<String>, Error> {
    names_in(&directory())
}

/// As [`names`], of the crate in another tree.
///
/// # Errors
///
/// As [`names`].
pub fn names_in(directory: &Path) -> Result<Vec<String>, Error> {
    let root = directory.join("tables");
    let mut found = Vec::new();
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        let failed = |e| Error::new(&folder.display().to_string(), 0, e);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "fsm")
                && let Ok(name) = path.with_extension("").strip_prefix(&root)
            {
                found.push(name.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The pages that `diagrams/` should hold: each file name with its content, sorted.
///
/// # Errors
///
/// Every problem of every table.
pub fn pages() -> Result<Vec<(String, String)>, Error> {
    let mut pages = Vec::new();
    let mut problems = Error::default();
    for name in names()? {
        match load(&name) {
            Ok(table) => pages.push((format!("{}.md", table.machine.name), diagram(&table))),
            Err(error) => problems.extend(error),
        }
    }
    pages.sort();
    problems.into_result(pages)
}

/// The directory of this crate, where `tables/` and `diagrams/` are.
#[must_use]
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn path(name: &str) -> PathBuf {
    directory().join("tables").join(format!("{name}.fsm"))
}
