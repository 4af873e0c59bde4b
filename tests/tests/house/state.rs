//! The state of every core is a value: it can be copied, compared and hashed, so that the code that runs can be model-checked.

use std::hash::Hash;

use super::{CORES, root};
use crate::source::{product_code, sources};

const fn is_a_value<T: Clone + Eq + Hash>() {}

/// Compiled is proven.
const _: () = {
    is_a_value::<gist::node::Node>();
    is_a_value::<pbs_nslp::sender::Sender>();
    is_a_value::<pbs_nslp::receiver::Receiver>();
    is_a_value::<pbs_nslp::router::Router>();
    is_a_value::<pbs_nslp::host::Host>();
    is_a_value::<traffic::verifier::Verifier>();
    is_a_value::<traffic::inserter::Inserter>();
    is_a_value::<traffic::table::inbound::InboundTable>();
    is_a_value::<traffic::table::outbound::OutboundTable>();
    is_a_value::<traffic::ah::InboundAssociation>();
    is_a_value::<traffic::replay::Window>();
    is_a_value::<traffic::ledger::Ledger>();
};

/// Where cryptography is named: shells, and the modules that implement the cores' traits with it.
const IMPLEMENT: [&str; 5] = [
    "gist/src/io",
    "pbs-nslp/src/credentials",
    "router-agent/traffic/src/algorithm/standard.rs",
    "router-agent/traffic/src/algorithm/gmac.rs",
    "router-agent/traffic/src/algorithm/lanes",
];

#[test]
fn cores_reach_cryptography_through_their_traits_alone() {
    let libraries =
        ["ring::", "rustls::", "webpki::", "hmac::", "sha1::", "sha2::", "digest::", "aes::", "ghash::", "aws_lc_rs::", "ed25519_dalek::"];
    let mut named = [false; IMPLEMENT.len()];
    for path in CORES.iter().chain(&["router-agent/traffic/src"]).flat_map(|directory| sources(&root().join(directory))) {
        let code = product_code(&path);
        let Some(library) = libraries.into_iter().find(|library| names(&code, library)) else { continue };
        let place = IMPLEMENT.iter().position(|implements| path.starts_with(root().join(implements)));
        named[place.unwrap_or_else(|| panic!("{} names {library}", path.display()))] = true;
    }
    assert_eq!(named, [true; IMPLEMENT.len()], "an exception that nobody needs");
}

/// Whether a path begins with the library's name; `String::new` does not begin with `ring::`.
fn names(code: &str, library: &str) -> bool {
    let is_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
    code.match_indices(library).any(|(at, _)| !code[..at].chars().last().is_some_and(is_word))
}

#[test]
fn a_library_is_named_where_a_path_begins_with_it() {
    assert!(names("use ring::hmac;", "ring::") && names("x(ring::sign)", "ring::"));
    assert!(!names("String::new()", "ring::") && !names("a::ring::b", "ring::") && !names("sort::Ordering::Less", "ring::"));
}
