//! The rules for a node whose configuration nobody could read: nothing passes.

use super::expression::Expression;
use super::plan::{Base, Chain, Family, Hook, Interface, Policy, Rule, Table};
use super::{Role, expression};

/// The role's table in one family, without any exemption. A router forwards nothing and receives nothing, a host sends, receives and
/// forwards nothing, since it may have been meant to be a relay; what a router sends of itself stays as open as it always is. A node's traffic with itself reaches no link.
pub(super) fn plan(role: Role, family: Family) -> Table {
    let (forward, input) = (("forward", Hook::Forward, Interface::Leaving), ("input", Hook::Input, Interface::Arriving));
    let output = ("output", Hook::Output, Interface::Leaving);
    let hooks = match role {
        Role::Router => vec![forward, input],
        Role::Host => vec![output, forward, input],
    };
    let mut table = Table::new(family);
    table.chains.extend(hooks.into_iter().map(|(name, hook, interface)| {
        let loopback = [expression::interface(interface, "lo"), vec![Expression::Counter, Expression::Accept]];
        Chain {
            name: name.into(),
            base: Some(Base { hook, priority: 0, kind: "filter", policy: Policy::Drop }),
            rules: vec![Rule::new("loopback", loopback), Rule::new("closed", [vec![Expression::Counter, Expression::Drop]])],
        }
    }));
    table
}
