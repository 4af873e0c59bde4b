//! The last line: what both captures show as a whole. A leak that no other line looks for cannot leave the demonstration green.

use super::line::Line;
use crate::audit::laws;
use crate::audit::links::Links;

/// Name of the line.
pub const NAME: &str = "whole-captures";

/// Holds only if every law of captures does. `lines` are those tried before.
pub(super) fn line(links: &Links, lines: &[Line]) -> Line {
    let mut line = Line::new(NAME, "whole captures: both links, both ways, whatever the lines look at");
    let Links { sender, receiver, there, back } = links;
    let before_rules = lines.iter().filter(|line| line.before_rules).map(|line| line.sender_link.there.clear).sum();
    line.sent = there.entered + back.entered;
    line.arrived = there.left + back.left;
    let queries = receiver.clear_left.gist_queries + sender.clear_left.gist_queries;
    let listed = receiver.clear_left.listed_nslp + sender.clear_left.listed_nslp;
    line.measure(format!("{} frames", sender.frames + receiver.frames));
    line.measure(format!("through the router in the clear {queries} GIST Queries and {listed} of the listed NSLP"));
    for law in laws::of_links(links, before_rules) {
        line.must(law.holds(), format!("not true: {} ({})", law.law, law.against));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::links::{Clear, Link};

    #[test]
    fn a_leak_that_no_line_looks_for_breaks_the_last_line() {
        let clean = Links::default();
        assert!(line(&clean, &[]).holds);
        let leak = Clear { other: 1, ..Clear::default() };
        let leaking = Links { receiver: Link { clear_left: leak, ..Link::default() }, ..Links::default() };
        let line = line(&leaking, &[Line::new("granted", "looks at one port alone, and holds")]);
        assert!(!line.holds && line.broken[0].contains("towards the receiver"), "{:?}", line.broken);
    }
}
