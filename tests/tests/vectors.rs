//! `pbs-lab vectors` as a program: exit codes, the last line, and what it names when asked.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const FILES: [&str; 3] = ["vectors-shared.jsonl", "replay-shared.jsonl", "gmac-primitive-kat.jsonl"];

fn shared(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/ah").join(name)
}

fn vectors(files: &[PathBuf], options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("vectors").args(options).args(files).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Passed, failed and skipped, from the last line.
fn totals(text: &str) -> [usize; 3] {
    let words: Vec<&str> = text.lines().last().unwrap().split(' ').collect();
    let [passed, "passed,", failed, "failed,", skipped, "skipped"] = words[..] else { panic!("the last line is none: {text}") };
    [passed, failed, skipped].map(|number| number.parse().unwrap())
}

/// A file of its own for a test, gone afterwards.
struct Temporary(PathBuf);

impl Temporary {
    fn write(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("pbs-lab-vectors-{}-{name}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_shared_files_pass_and_every_line_of_them_is_accounted_for() {
    let files = FILES.map(shared);
    let output = vectors(&files, &[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let lines: usize = files.iter().map(|file| std::fs::read_to_string(file).unwrap().lines().count()).sum();
    let [passed, failed, skipped] = totals(&text);
    assert_eq!((passed + failed + skipped, failed), (lines, 0), "{text}");
    assert!(passed > 0 && skipped > 0, "{text}");
    assert!(text.contains("is not implemented)"), "what is skipped is named: {text}");
}

#[test]
fn one_changed_expectation_is_a_failure_that_names_its_vector() {
    let text = std::fs::read_to_string(shared("vectors-shared.jsonl")).unwrap();
    let mut lines: Vec<Value> = text.lines().take(40).map(|line| serde_json::from_str(line).unwrap()).collect();
    let flipped = lines.iter_mut().find(|line| line["alg"] == "hmac-sha256-128").unwrap();
    flipped["valid"] = Value::Bool(!flipped["valid"].as_bool().unwrap());
    let id = flipped["id"].as_str().unwrap().to_owned();
    let content: Vec<String> = lines.iter().map(Value::to_string).collect();
    let file = Temporary::write("flipped", &content.join("\n"));
    let output = vectors(std::slice::from_ref(&file.0), &[]);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(totals(&text)[1], 1, "{text}");
    let failed: Vec<&str> = text.lines().filter(|line| line.starts_with("failed: ")).collect();
    assert!(matches!(failed[..], [line] if line.contains(&format!("({id})")) || line.contains(&id)), "{text}");
}

#[test]
fn a_file_that_is_not_there_is_an_error_that_names_it() {
    let output = vectors(&[shared("vectors-shared.jsonl"), PathBuf::from("/no/such/file.jsonl")], &[]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("/no/such/file.jsonl") && error.contains("No such file"), "{error}");
    assert_eq!(vectors(&[], &[]).status.code(), Some(2), "no file at all");
}

#[test]
fn a_file_that_holds_no_vectors_is_one_error_that_names_file_and_line() {
    let good = std::fs::read_to_string(shared("replay-shared.jsonl")).unwrap();
    let first = good.lines().next().unwrap();
    let contents = [
        ("other", "# Vectors\n\nNone here.\nNor here.\n".to_owned(), 1),
        ("pretty", "{\n  \"id\": \"x\"\n}\n".to_owned(), 1),
        ("cut", format!("{first}\n\n{}\n{first}\n", &first[..100]), 3),
    ];
    for (name, content, line) in contents {
        let file = Temporary::write(name, &content);
        let output = vectors(std::slice::from_ref(&file.0), &[]);
        assert_eq!((output.status.code(), said(&output)), (Some(2), String::new()), "{name}");
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains(&format!("{}:{line}: not a file of vectors", file.0.display())), "{error}");
    }
}

#[test]
fn verbose_names_what_is_skipped_and_what_the_rfc_takes_and_pbs_refuses() {
    let files = FILES.map(shared);
    let (plain, verbose) = (said(&vectors(&files, &[])), said(&vectors(&files, &["--verbose"])));
    let count = |text: &str, words: &str| text.lines().filter(|line| line.contains(words)).count();
    assert_eq!(count(&plain, "refused by PBS"), 0, "{plain}");
    // The summary counts packets by reason; each of those vectors is named once, and each that is skipped.
    let summary = plain.lines().find(|line| line.starts_with("policy: ")).unwrap();
    for reason in ["source_route", "extended_sequence"] {
        assert!(summary.contains(reason), "{summary}");
        assert!(count(&verbose, &format!("refused by PBS ({reason})")) > 0, "no vector refused as {reason} is named");
    }
    let [_, _, skipped] = totals(&plain);
    let reasons = plain.lines().filter(|line| line.starts_with("skipped: ")).count();
    assert_eq!(count(&verbose, "is not implemented"), skipped + reasons);
    assert_eq!(totals(&verbose), totals(&plain));
}
