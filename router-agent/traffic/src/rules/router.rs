//! The rules of a router.

use super::expression::{ADDRESS_LOCAL, Expression, destination_port, host, protocol, reassembly, unfragmented};
use super::plan::{Base, Chain, Family, Hook, Policy, Rule, Table, bucket_chain};
use super::{GIST_PORT, RouterRules, SIGNALLING_PASSED};

const UDP: u8 = 17;

/// The router's table in one family.
pub(super) fn plan(rules: &RouterRules, family: Family) -> Table {
    Table {
        family,
        chains: vec![
            bucket_chain("signalling", rules.signalling, Expression::Queue(rules.signalling_queue)),
            bucket_chain("passed-signalling", rules.passed_signalling, Expression::Accept),
            interception(family),
            reassembly_chain(),
            forward(rules),
        ],
    }
}

/// Takes signalling out before reassembly: a fragment is ordinary data, and so is what is for the router itself,
/// which its socket receives.
fn interception(family: Family) -> Chain {
    let test = [
        protocol(UDP),
        unfragmented(family),
        destination_port(GIST_PORT),
        vec![Expression::LoadDestinationType, Expression::Unequal(host(ADDRESS_LOCAL))],
        vec![Expression::Jump("signalling")],
    ];
    Chain {
        name: "interception",
        base: Some(Base { hook: Hook::Prerouting, priority: -450, kind: "filter", policy: Policy::Accept }),
        rules: vec![Rule::new("signalling", test)],
    }
}

/// Whole datagrams for everything behind −400.
fn reassembly_chain() -> Chain {
    Chain {
        name: "reassembly",
        base: Some(Base { hook: Hook::Prerouting, priority: -300, kind: "filter", policy: Policy::Accept }),
        rules: vec![Rule::new("reassembly", [reassembly()])],
    }
}

fn forward(rules: &RouterRules) -> Chain {
    let passed = [
        vec![Expression::LoadMark, Expression::Equal(host(SIGNALLING_PASSED))],
        protocol(UDP),
        destination_port(GIST_PORT),
        vec![Expression::Jump("passed-signalling")],
    ];
    Chain {
        name: "forward",
        base: Some(Base { hook: Hook::Forward, priority: 0, kind: "filter", policy: Policy::Drop }),
        rules: vec![
            Rule::new("passed signalling", passed),
            Rule::new("data", [vec![Expression::Counter, Expression::Queue(rules.data_queue)]]),
        ],
    }
}
