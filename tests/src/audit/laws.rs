//! What must be true of every pair of captures, whatever the lines of the table look at.

use serde::Serialize;

use super::links::Links;

/// Something that must be true of every pair of captures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Law {
    /// What must be true.
    pub law: &'static str,
    /// How many packets break it.
    pub against: u64,
}

impl Law {
    /// Whether no packet breaks it.
    pub fn holds(&self) -> bool {
        self.against == 0
    }
}

/// The laws about what the router let pass and what genuine hosts sent. `before_rules` is how many packets the sender sent to the
/// receiver in the clear before its daemon first ran; these, and what an attacker sent, may have entered.
///
/// That what an attacker sent again was stopped is not among them: it has lines of its own.
pub fn of_links(links: &Links, before_rules: u64) -> Vec<Law> {
    let law = |law, against| Law { law, against };
    let Links { sender, receiver, there, back } = links;
    vec![
        law(
            "no packet without AH left the router towards the receiver, except GIST Queries and the listed NSLP",
            receiver.clear_left.other,
        ),
        law("no packet without AH left the router towards the sender, except GIST Queries and the listed NSLP", sender.clear_left.other),
        law(
            "no packet without AH came from the sender's host for the receiver, except GIST Queries, once its rules stood",
            sender.clear_entered.other.abs_diff(before_rules),
        ),
        law("no packet without AH came from the receiver's host for the sender, except GIST Queries", receiver.clear_entered.other),
        law(
            "what programs at the two ends of a link said without AH was GIST or an association",
            sender.unexplained_neighbours + receiver.unexplained_neighbours,
        ),
        law("every packet under AH that left the router had entered it, unchanged", there.never_entered + back.never_entered),
        law("no packet under AH left the router twice that nobody had sent twice", there.left_again + back.left_again),
        law("every IP packet on the receiver's link can be read", receiver.unreadable),
    ]
}

/// Those laws, and those of an audit alone.
pub(super) fn of_captures(links: &Links, before_rules: u64, lost_frames: u32) -> Vec<Law> {
    let mut laws = of_links(links, before_rules);
    laws.push(Law {
        law: "no packet under AH left the router twice, though an attacker sent it again",
        against: links.there.replayed + links.back.replayed,
    });
    laws.push(Law { law: "no capture lost a frame, as the run itself says", against: lost_frames.into() });
    laws
}

#[cfg(test)]
mod tests {
    use super::super::links::{Clear, Link, Passage};
    use super::*;

    fn broken(links: &Links, before_rules: u64) -> usize {
        of_links(links, before_rules).iter().filter(|law| !law.holds()).count()
    }

    #[test]
    fn each_leak_breaks_a_law_of_its_own_and_none_breaks_none() {
        assert_eq!(broken(&Links::default(), 0), 0);
        let clear = Clear { gist_queries: 5, listed_nslp: 0, other: 1 };
        let entered = Link { clear_entered: clear.clone(), ..Link::default() };
        let left = Link { clear_left: clear, ..Link::default() };
        let neighbours = Link { unexplained_neighbours: 1, ..Link::default() };
        let leaks = [
            Links { sender: entered.clone(), ..Links::default() },
            Links { receiver: entered, ..Links::default() },
            Links { sender: left.clone(), ..Links::default() },
            Links { receiver: left, ..Links::default() },
            Links { sender: neighbours, ..Links::default() },
            Links { receiver: Link { unreadable: 1, ..Link::default() }, ..Links::default() },
            Links { there: Passage { never_entered: 1, ..Passage::default() }, ..Links::default() },
            Links { back: Passage { left_again: 1, ..Passage::default() }, ..Links::default() },
        ];
        for links in leaks {
            assert_eq!(broken(&links, 0), 1, "{links:?}");
        }
    }

    #[test]
    fn a_host_without_rules_is_excused_for_exactly_what_it_sent() {
        let sent =
            |other| Links { sender: Link { clear_entered: Clear { other, ..Clear::default() }, ..Link::default() }, ..Links::default() };
        assert_eq!(broken(&sent(20), 20), 0);
        assert_eq!(broken(&sent(21), 20), 1, "one more than the line saw");
    }
}
