//! `check` prints one line for each table; `diagrams` writes the pages of all tables into `diagrams/`; `mutants TABLE` lists the
//! mutants of one, each with the word by which `TABLE_MUTANT` names it.

use std::process::ExitCode;
use std::{env, fs};

use fsm_specs::Error;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["check"] => check(),
        ["diagrams"] => diagrams(),
        ["mutants", table] => mutants(table),
        _ => {
            eprintln!("usage: cargo run -p fsm-specs -- check | diagrams | mutants TABLE");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A bad table does not keep the others from being shown.
#[expect(clippy::print_stdout, reason = "the lines are the answer")]
fn check() -> Result<(), Error> {
    let mut bad = None;
    for name in fsm_specs::names()? {
        match fsm_specs::load(&name) {
            Ok(table) => {
                let (rules, later) = (table.rules().len(), table.later_rules().len());
                let (machine, states) = (&table.machine.name, table.states.len());
                println!("{machine}: {states} states, {rules} rules ({} acted upon, {later} later)", rules - later);
            }
            Err(error) => {
                eprintln!("{error}");
                bad = Some(Error::new("fsm-specs/tables", 0, "some tables are wrong"));
            }
        }
    }
    bad.map_or(Ok(()), Err)
}

#[expect(clippy::print_stdout, reason = "the lines are the answer")]
fn mutants(name: &str) -> Result<(), Error> {
    let table = fsm_specs::load(name)?;
    let cells = table.transitions();
    for (number, mutant) in fsm_specs::mutants(&table).iter().enumerate() {
        if let Some(cell) = cells.get(mutant.transition) {
            println!("{} {number} | {cell} | {}", table.machine.name, mutant.change.describe(cell.row));
        }
    }
    Ok(())
}

/// Pages of machines that are no more are removed.
fn diagrams() -> Result<(), Error> {
    let folder = fsm_specs::directory().join("diagrams");
    let failed = |e: std::io::Error| Error::new(&folder.display().to_string(), 0, e);
    let pages = fsm_specs::pages()?;
    fs::create_dir_all(&folder).map_err(failed)?;
    for entry in fs::read_dir(&folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let is_page = path.extension().is_some_and(|ending| ending == "md");
        if is_page && !pages.iter().any(|(file, _)| path.ends_with(file)) {
            fs::remove_file(path).map_err(failed)?;
        }
    }
    for (file, page) in pages {
        fs::write(folder.join(file), page).map_err(failed)?;
    }
    Ok(())
}
