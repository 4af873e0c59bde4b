//! What the house promises about its own sources.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

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

/// Sources that may know neither sockets nor clocks nor tasks nor randomness.
const CORES: [&str; 2] = ["gist/src", "pbs-nslp/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The text of a source without its comments and its unit tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let product = text.split("#[cfg(test)]").next().unwrap_or_default();
    product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
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
    let forbidden = ["tokio", "Instant::now", "SystemTime", "UdpSocket", "TcpStream", "std::thread", "std::fs", "std::env"];
    for path in CORES.iter().flat_map(|directory| sources(&root().join(directory))) {
        if path.components().any(|part| part.as_os_str() == "io") {
            continue;
        }
        let code = code(&path);
        for word in forbidden {
            assert!(!code.contains(word), "{} names {word}", path.display());
        }
    }
}

#[test]
fn no_product_source_has_unsafe_code() {
    for path in PRODUCT.iter().flat_map(|directory| sources(&root().join(directory))) {
        let code = code(&path);
        assert!(!code.contains("unsafe "), "{} has unsafe code", path.display());
    }
}

#[test]
fn the_packet_side_and_signalling_do_not_know_each_other() {
    for path in sources(&root().join("router-agent/traffic/src")) {
        let code = code(&path);
        assert!(!code.contains("gist::") && !code.contains("pbs_nslp::"), "{} knows signalling", path.display());
    }
    for path in sources(&root().join("pbs-nslp/src")) {
        assert!(!code(&path).contains("traffic::"), "{} knows the packet side", path.display());
    }
}
