//! What the house promises about its own sources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod manifest;
mod reference;
mod source;
mod state;

use std::path::PathBuf;

use source::{product_code, root, sources};

/// Product sources: everything a daemon is built from. Tests and the laboratory are not.
const PRODUCT: [&str; 7] = [
    "fsm-specs/src",
    "gist/src",
    "pbs-nslp/src",
    "router-agent/src",
    "router-agent/daemon/src",
    "router-agent/traffic/src",
    "endpoint/src",
];

/// Sources that may know neither sockets nor clocks nor tasks nor randomness; [`SHELLS`] lie around one of them.
const CORES: [&str; 2] = ["gist/src", "pbs-nslp/src"];

/// Folders of shells in `gist/src`: its sockets and timers, and its server for other programs.
const SHELLS: [&str; 2] = ["io", "ipc"];

/// A signature on P-256 needs a random number that must never be known or used twice. It shows nowhere but in the signature.
const MAY_BE_RANDOM: &str = "pbs-nslp/src/credentials/signer.rs";

fn core_sources() -> impl Iterator<Item = PathBuf> {
    let all = CORES.iter().flat_map(|directory| sources(&root().join(directory)));
    all.filter(|path| path.components().all(|part| SHELLS.iter().all(|shell| part.as_os_str() != *shell)))
}

#[test]
fn no_product_source_is_longer_than_500_lines() {
    for path in PRODUCT.iter().flat_map(|directory| sources(&root().join(directory))) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 500, "{} has {lines} lines", path.display());
    }
}

#[test]
fn cores_know_neither_sockets_nor_clocks_nor_tasks() {
    let forbidden =
        ["tokio", "Instant::now", "SystemTime", "UdpSocket", "TcpStream", "std::thread", "std::fs", "std::env", "std::net::Tcp"];
    for path in core_sources() {
        let code = product_code(&path);
        for word in forbidden {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn cores_know_no_randomness_but_that_of_a_signature() {
    // A map with a random order is randomness too.
    let forbidden = ["SystemRandom", "SecureRandom", "rand::", "getrandom", "OsRng", "thread_rng", "RandomState", "HashMap", "HashSet"];
    let mut random = Vec::new();
    for path in core_sources() {
        let code = product_code(&path);
        if let Some(word) = forbidden.into_iter().find(|word| code.contains(word)) {
            random.push(format!("{} names {word}", path.strip_prefix(root()).unwrap().display()));
        }
    }
    assert_eq!(random, [format!("{MAY_BE_RANDOM} names SystemRandom")]);
}

#[test]
fn no_product_source_has_unsafe_code_but_two_with_vector_instructions_and_what_is_shared_with_the_kernel() {
    let mut found = Vec::new();
    for path in PRODUCT.iter().flat_map(|directory| sources(&root().join(directory))) {
        if product_code(&path).contains("unsafe ") {
            found.push(path.strip_prefix(root()).unwrap().display().to_string());
        }
    }
    found.sort();
    found.retain(|path| !path.starts_with(SHARED));
    assert_eq!(found, MAY_BE_UNSAFE);
}

/// Vector instructions, which the processor was asked for.
const MAY_BE_UNSAFE: [&str; 2] = ["router-agent/traffic/src/algorithm/carryless.rs", "router-agent/traffic/src/algorithm/lanes/simd.rs"];
/// Memory that frames lie in, rings, and calls that no library makes.
const SHARED: &str = "router-agent/traffic/src/af_xdp/kernel/";

#[test]
fn the_packet_side_and_signalling_do_not_know_each_other() {
    for path in sources(&root().join("router-agent/traffic/src")) {
        let code = product_code(&path);
        assert!(!code.contains("gist::") && !code.contains("pbs_nslp::"), "{} knows signalling", path.display());
    }
    for path in sources(&root().join("pbs-nslp/src")) {
        assert!(!product_code(&path).contains("traffic::"), "{} knows the packet side", path.display());
    }
}

#[test]
fn every_test_that_needs_privileges_asks_by_the_same_rule_whether_it_may_be_skipped() {
    let crates = ["fsm-specs", "gist", "pbs-nslp", "router-agent", "endpoint", "tests"];
    let mut rules = Vec::new();
    for path in crates.iter().flat_map(|directory| sources(&root().join(directory))) {
        let text = std::fs::read_to_string(&path).unwrap();
        if !["var(", "var_os("].iter().any(|call| text.contains(&format!("{call}\"CI\")"))) {
            continue;
        }
        assert!(text.contains("assert!(!in_ci(), \"network tests must not be skipped in CI"), "{} does not fail in CI", path.display());
        let (_, rule) = text.split_once("fn in_ci() -> bool {").unwrap_or_else(|| panic!("{} has a rule of its own", path.display()));
        rules.push(rule.split_once('}').unwrap().0.trim().to_owned());
    }
    assert!(rules.len() >= 3 && rules.iter().all(|rule| *rule == rules[0]), "{rules:#?}");
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.lines().any(|line| line == "export CI=true"), ".ci/run does not say that it is CI");
}
