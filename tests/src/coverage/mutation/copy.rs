//! A copy of the tree whose tables are built with their mutants.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Not a part of the sources.
const LEFT_OUT: [&str; 2] = [".git", "target"];

/// The build scripts that compile tables, and what they are made to call instead.
const SCRIPTS: [&str; 3] = ["gist/build.rs", "pbs-nslp/build.rs", "router-agent/traffic/build.rs"];
const CALL: &str = "fsm_specs::generate(";
const CALL_IN_COPY: &str = "fsm_specs::generate_mutants(";

/// Makes `copy` a copy of `tree`. What has not changed since the last time is left alone, so that little is built anew.
///
/// # Errors
///
/// What cannot be read or written, and a build script without the call that is to be replaced.
pub(super) fn update(tree: &Path, copy: &Path) -> io::Result<()> {
    let mut kept = BTreeSet::new();
    for file in files(tree)? {
        let (from, to) = (tree.join(&file), copy.join(&file));
        let mut content = fs::read(&from)?;
        if SCRIPTS.iter().any(|script| file == Path::new(script)) {
            let text = String::from_utf8(content).map_err(io::Error::other)?;
            if !text.contains(CALL) {
                return Err(io::Error::other(format!("{}: there is no call of {CALL}…)", from.display())));
            }
            content = text.replace(CALL, CALL_IN_COPY).into_bytes();
        }
        if !fs::read(&to).is_ok_and(|old| old == content) {
            to.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(&to, content)?;
        }
        kept.insert(file);
    }
    for file in files(copy)? {
        if !kept.contains(&file) {
            fs::remove_file(copy.join(file))?;
        }
    }
    Ok(())
}

/// The files of a tree, without its beginning, sorted.
///
/// # Errors
///
/// A directory that cannot be read.
pub(super) fn files(tree: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut open) = (Vec::new(), vec![tree.to_owned()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if LEFT_OUT.iter().any(|name| entry.file_name() == *name) || kind.is_symlink() {
                continue;
            }
            if kind.is_dir() {
                open.push(entry.path());
            } else if let Ok(file) = entry.path().strip_prefix(tree) {
                found.push(file.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}
