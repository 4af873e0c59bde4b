//! What goes beyond a router's own buckets while an interface is observed: it must not be lost there, since it would pass if this
//! table were not.

use super::expression::{Expression, interface};
use super::mode::{Mode, Modes};
use super::plan::{Chain, Interface, Rule, Table};

const LEAVING: &str = "above-leaving";

/// What becomes of a packet above a bucket.
enum Instead {
    /// It is judged as if it belonged to no exemption, by the mode of its interface.
    Judged,
    /// It passes if the interface that it leaves by is observed.
    ByItsInterface,
}

/// Replaces what drops by what depends on the interface, in every chain of a bucket but those for this node's own signalling: nobody
/// would have listened there.
pub(super) fn spare(modes: &Modes, table: &mut Table) {
    if !modes.observe() {
        return;
    }
    for chain in &mut table.chains {
        let Some(instead) = instead(&chain.name) else { continue };
        for expression in chain.rules.iter_mut().flat_map(|rule| &mut rule.expressions) {
            match (&mut *expression, &instead) {
                (Expression::Drop, Instead::Judged) => *expression = Expression::Return,
                (Expression::Drop, Instead::ByItsInterface) => *expression = Expression::Jump(LEAVING.into()),
                // Without a daemon signalling is a datagram like others.
                (Expression::Queue(number), _) => *expression = Expression::QueueOrPass(*number),
                _ => {}
            }
        }
    }
    table.chains.insert(0, leaving(modes));
}

fn instead(chain: &str) -> Option<Instead> {
    match chain {
        "signalling" | "passed-signalling" | "in-icmp-errors" | "in-dhcp" | "in-neighbour-discovery" => Some(Instead::Judged),
        "own-errors" | "own-errors-about-size" | "own-errors-permitted" => Some(Instead::ByItsInterface),
        _ => ["in-exempt-", "ask-exempt-", "answer-exempt-"].iter().any(|of| chain.starts_with(of)).then_some(Instead::Judged),
    }
}

/// What the router itself sends above a bucket.
fn leaving(modes: &Modes) -> Chain {
    let rule = |test: Vec<Expression>, mode| match mode {
        Mode::Observe => Rule::new("would drop, above the bucket", [test, vec![Expression::Counter, Expression::Accept]]),
        Mode::Closed | Mode::Open { .. } => Rule::new("above the bucket", [test, vec![Expression::Counter, Expression::Drop]]),
    };
    let listed = modes.interfaces.iter().map(|(name, mode)| rule(interface(Interface::Leaving, name), *mode));
    Chain { name: LEAVING.into(), base: None, rules: listed.chain([rule(Vec::new(), modes.others)]).collect() }
}
