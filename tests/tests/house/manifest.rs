//! What crates list as dependencies, they use.

use std::collections::BTreeMap;
use std::path::Path;

use super::source::{bare, product_code, root, sources};

/// A library whose name in code is not that of its package.
const RENAMED: (&str, &str) = ("rustls-webpki", "webpki");

/// Names under each heading of a manifest that ends in `dependencies`.
fn listed(manifest: &str) -> Vec<(String, String)> {
    let mut heading = String::new();
    let mut found = Vec::new();
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[') {
            name.trim_end_matches(']').clone_into(&mut heading);
        } else if heading.ends_with("dependencies") && line.starts_with(|letter: char| letter.is_ascii_alphanumeric()) {
            let name = line.split(['.', ' ', '=']).next().unwrap();
            found.push((heading.clone(), name.to_owned()));
        }
    }
    found
}

/// Whether the code names the library: a path that begins with it, or an import of it.
fn names(code: &str, package: &str) -> bool {
    let package = if package == RENAMED.0 { RENAMED.1 } else { package };
    let library = package.replace('-', "_");
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    code.match_indices(&library).any(|(at, _)| {
        let (before, behind) = (code[..at].chars().last(), &code[at + library.len()..]);
        !before.is_some_and(is_word) && (behind.starts_with("::") || behind.starts_with(';') || behind.starts_with(" as "))
    })
}

fn members() -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, list) = manifest.split_once("members = [").unwrap();
    list.split_once(']').unwrap().0.split(',').map(|member| member.trim().trim_matches('"').to_owned()).collect()
}

/// The code that may use what stands under a heading.
fn code_for(heading: &str, member: &Path) -> String {
    let whole = |path: &Path| bare(&std::fs::read_to_string(path).unwrap());
    match heading {
        "build-dependencies" => whole(&member.join("build.rs")),
        "dev-dependencies" => ["src", "tests", "examples", "benches"]
            .iter()
            .flat_map(|folder| sources(&member.join(folder)))
            .map(|path| whole(&path))
            .collect(),
        _ => sources(&member.join("src")).iter().map(|path| product_code(path)).collect(),
    }
}

#[test]
fn every_listed_dependency_is_used_in_its_crate() {
    let members = members();
    assert!(members.len() >= 8, "{members:?}");
    let mut unused = Vec::new();
    for member in members {
        let directory = root().join(&member);
        let listed = listed(&std::fs::read_to_string(directory.join("Cargo.toml")).unwrap());
        assert!(!listed.is_empty(), "{member} lists nothing at all");
        let mut code = BTreeMap::new();
        for (heading, package) in listed {
            let code = code.entry(heading.clone()).or_insert_with(|| code_for(&heading, &directory));
            if !names(code, &package) {
                unused.push(format!("{member} does not use {package} of its [{heading}]"));
            }
        }
    }
    assert!(unused.is_empty(), "{unused:#?}");
}

#[test]
fn every_shared_version_is_used_by_some_crate() {
    let shared = listed(&std::fs::read_to_string(root().join("Cargo.toml")).unwrap());
    let used: Vec<_> =
        members().iter().flat_map(|member| listed(&std::fs::read_to_string(root().join(member).join("Cargo.toml")).unwrap())).collect();
    for (_, package) in shared {
        assert!(used.iter().any(|(_, other)| *other == package), "no crate uses {package}");
    }
}

#[test]
fn a_name_in_a_longer_word_or_a_path_is_no_use() {
    for (code, used) in [
        ("use ring::rand;", true),
        ("let a = ring::digest;", true),
        ("use ring;", true),
        ("spring::rand", false),
        ("ring_buffer::new()", false),
        ("crate::ring::x", false),
        ("// nothing", false),
        ("let ring = 1;", false),
    ] {
        assert_eq!(names(code, "ring"), used, "{code}");
    }
}
