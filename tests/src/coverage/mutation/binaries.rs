//! The test programs that hold the tests, built in the copy of the tree, and how they are run.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// The crates with tables: where they stand, their names, and the names of their libraries.
const CRATES: [(&str, &str, &str); 3] =
    [("gist", "gist", "gist"), ("pbs-nslp", "pbs-nslp", "pbs_nslp"), ("router-agent/traffic", "traffic", "traffic")];

/// Processor time in seconds after which a test program is taken to go round in circles.
const LONGEST: u32 = 120;
/// Time in seconds after which it is taken to wait for nothing.
const LONGEST_WAIT: u32 = 900;
/// Memory in KiB after which it is taken to keep everything.
const LARGEST: u32 = 8 << 20;

/// Where a test stands: its program, and its name there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Where the program is run: the folder of its crate.
    pub(super) folder: PathBuf,
    pub(super) program: PathBuf,
    pub(super) name: String,
}

/// What is asked of a program besides its own: names and values for its environment.
pub(super) type Environment<'a> = [(&'a str, String)];

/// Builds the programs of these tests (`file::function`), and gives where each stands. A test that no program of the cores has is left
/// out: it is one of a shell, or of a feature that is not built.
///
/// # Errors
///
/// A build that fails, with what the compiler said.
pub(super) fn build(copy: &Path, target: &Path, tests: &BTreeSet<String>) -> io::Result<BTreeMap<String, Place>> {
    let wanted: BTreeSet<(usize, String)> =
        tests.iter().filter_map(|test| source(test)).map(|source| (source.crate_, source.program)).collect();
    let mut places = BTreeMap::new();
    // A crate at a time, since a program is named without its crate; those of one kind are built together.
    for (number, (folder, name, library)) in CRATES.iter().enumerate() {
        let programs: Vec<&str> = wanted.iter().filter(|(of, _)| *of == number).map(|(_, program)| program.as_str()).collect();
        if programs.is_empty() {
            continue;
        }
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(copy).env("CARGO_TARGET_DIR", target).env("CARGO_PROFILE_DEV_DEBUG", "0");
        cargo.args(["test", "--no-run", "--locked", "--message-format=json", "-p", name]);
        for program in &programs {
            if program == library {
                cargo.arg("--lib");
            } else {
                cargo.args(["--test", program]);
            }
        }
        let output = cargo.stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            return Err(io::Error::other(format!("the tests of {name} do not build with their mutants")));
        }
        for line in output.stdout.split(|byte| *byte == b'\n') {
            let Ok(message) = serde_json::from_slice::<Value>(line) else { continue };
            let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
            let is_test = message.pointer("/profile/test") == Some(&Value::Bool(true));
            if let (Some(program), Some(target), true) = (text("/executable"), text("/target/name"), is_test) {
                let here = tests
                    .iter()
                    .filter_map(|test| Some((test, source(test)?)))
                    .filter(|(_, of)| of.crate_ == number && of.program == target);
                let here: Vec<_> = here.collect();
                let has = list(&copy.join(folder), Path::new(program))?;
                for (test, source) in here {
                    let place = |name: &String| Place { folder: copy.join(folder), program: program.into(), name: name.clone() };
                    places.extend(has.iter().find(|name| source.is(name)).map(|name| (test.clone(), place(name))));
                }
            }
        }
    }
    Ok(places)
}

/// Runs tests of one program, and gives whether all of them passed. A program that takes far too long or too much has failed.
///
/// # Errors
///
/// A program that cannot be started.
pub(super) fn run(folder: &Path, program: &Path, names: &[&str], environment: &Environment<'_>) -> io::Result<bool> {
    // The shell's bounds hold for what it becomes.
    let script = format!("ulimit -c 0; ulimit -t {LONGEST}; ulimit -v {LARGEST}; exec \"$@\"");
    let mut command = Command::new("timeout");
    command.args([&LONGEST_WAIT.to_string(), "sh", "-c", &script, "sh"]).arg(program).args(["--exact", "--test-threads=2"]).args(names);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let status = command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    Ok(status.success())
}

/// The tests that a program has.
fn list(folder: &Path, program: &Path) -> io::Result<Vec<String>> {
    let output = Command::new(program).arg("--list").current_dir(folder).stderr(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Where a test stands in the sources.
struct Source {
    crate_: usize,
    /// The name of the program, which for unit tests is that of the library.
    program: String,
    /// The modules before the test's name; a unit test may stand in a module further in.
    modules: String,
    function: String,
}

impl Source {
    fn is(&self, name: &str) -> bool {
        let rest =
            name.strip_prefix(&self.modules).and_then(|rest| if self.modules.is_empty() { Some(rest) } else { rest.strip_prefix("::") });
        rest.is_some_and(|rest| rest.rsplit("::").next() == Some(&self.function))
    }
}

/// `pbs-nslp/tests/machines/setup.rs::asks` is `setup::asks` of the program `machines` of `pbs-nslp`.
fn source(test: &str) -> Option<Source> {
    let (file, function) = test.split_once(".rs::")?;
    let (crate_, (folder, _, library)) =
        CRATES.iter().enumerate().find(|(_, (folder, ..))| file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')))?;
    let path = file.strip_prefix(folder)?.trim_start_matches('/');
    let (program, modules) = if let Some(path) = path.strip_prefix("src/") {
        ((*library).to_owned(), path)
    } else {
        let path = path.strip_prefix("tests/")?;
        path.split_once('/').map_or((path.to_owned(), ""), |(program, modules)| (program.to_owned(), modules))
    };
    let modules: Vec<_> = modules.split('/').filter(|module| !["", "mod", "lib", "main"].contains(module)).collect();
    Some(Source { crate_, program, modules: modules.join("::"), function: function.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_found_in_its_program_under_its_modules() {
        let of = |test| source(test).map(|s| (s.program.clone(), s.modules.clone()));
        assert_eq!(of("pbs-nslp/tests/machines/setup.rs::asks"), Some(("machines".to_owned(), "setup".to_owned())));
        assert_eq!(of("pbs-nslp/tests/machines/main.rs::asks"), Some(("machines".to_owned(), String::new())));
        assert_eq!(of("gist/tests/node_errors.rs::asks"), Some(("node_errors".to_owned(), String::new())));
        assert_eq!(of("router-agent/traffic/src/machine.rs::asks"), Some(("traffic".to_owned(), "machine".to_owned())));
        assert_eq!(of("tests/tests/demo.rs::asks"), None);
        assert_eq!(of("router-agent/src/lib.rs::asks"), None);
        let unit = source("router-agent/traffic/src/machine.rs::asks").unwrap();
        assert!(unit.is("machine::tests::asks") && !unit.is("machines::asks") && !unit.is("machine::tests::tasks"));
        let top = source("gist/tests/node_errors.rs::asks").unwrap();
        assert!(top.is("asks") && !top.is("tasks"));
    }
}
