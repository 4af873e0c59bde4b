//! The packet machine, generated from `fsm-specs/tables/traffic/packet.fsm`.
//!
//! [`step`] is called for every packet: once to verify what comes in, once to compare its length with what is left of
//! the permission. Guards are computed and actions performed by [`crate::verifier`] and [`crate::inserter`].

include!(concat!(env!("OUT_DIR"), "/traffic_packet.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination of guards.
    fn all_guards() -> impl Iterator<Item = Guards> {
        (0u32..1 << 9).map(|bits| {
            let bit = |at: u32| bits & (1 << at) != 0;
            Guards {
                router: bit(0),
                valid: bit(1),
                second_holder: bit(2),
                fits: bit(3),
                draining: bit(4),
                lowered: bit(5),
                escalate: bit(6),
                numbers_left: bit(7),
                renewal_refused: bit(8),
            }
        })
    }

    /// The actions of a packet's one or two steps, and whether a row was refused.
    fn walk(mut state: State, event: Event, guards: Guards) -> (Vec<Action>, bool) {
        let mut actions = Vec::new();
        for _ in 0..2 {
            match step(state, event, guards) {
                Outcome::Take(transition) => {
                    actions.extend(transition.actions);
                    state = transition.next;
                }
                Outcome::Refuse(_) => return (actions, true),
                Outcome::Ignore => break,
            }
        }
        assert!(state.is_final(), "{guards:?} ends in {state}");
        (actions, false)
    }

    #[test]
    fn a_packet_that_comes_in_passes_only_if_valid_and_within_the_volume_and_is_counted_exactly_then() {
        for guards in all_guards() {
            let (actions, _) = walk(State::Verify, Event::RxPacket, guards);
            let passes = actions.contains(&Action::Pass);
            assert_eq!(passes, guards.valid && guards.fits, "{guards:?}");
            assert_eq!(passes, actions.contains(&Action::Count), "{guards:?}");
            assert_eq!(passes, actions.contains(&Action::MoveWindow), "{guards:?}");
        }
    }

    #[test]
    fn a_packet_that_goes_out_passes_only_within_the_volume_and_with_a_number_of_its_own() {
        for guards in all_guards() {
            let (actions, refused) = walk(State::Compare, Event::TgPacket, guards);
            let passes = actions.contains(&Action::Pass);
            assert!(!refused);
            assert_eq!(passes, guards.fits && guards.numbers_left, "{guards:?}");
            assert_eq!(passes, actions.contains(&Action::Count), "{guards:?}");
            assert_eq!(passes, actions.contains(&Action::TakeNumber), "{guards:?}");
        }
    }

    /// FN-40 to FN-43, FR-20 to FR-27: who is told of what, in every case of every guard.
    #[test]
    fn what_comes_in_is_reported_where_somebody_must_react() {
        // FN-40, FN-41, FN-42, FN-43 at a router; FR-20, FR-21, FR-22, FR-23, FR-24, FR-25, FR-26, FR-27 at a receiver.
        for guards in all_guards() {
            let (actions, refused) = walk(State::Verify, Event::RxPacket, guards);
            let has = |action| actions.contains(&action);
            assert!(!refused);
            assert_eq!(has(Action::Drop), !guards.valid, "{guards:?}");
            assert_eq!(has(Action::DropExcess), guards.valid && !guards.fits, "{guards:?}");
            let is_excused = !guards.router && (guards.draining || guards.lowered);
            assert_eq!(has(Action::ReportExcess), guards.valid && !guards.fits && !is_excused, "{guards:?}");
            assert_eq!(has(Action::ReportSecondHolder), !guards.router && !guards.valid && guards.second_holder, "{guards:?}");
        }
    }

    /// FS-40, FS-41, FS-42, FS-43: a packet that must not go yet is held and more is asked for, unless more was refused.
    #[test]
    fn what_goes_out_beyond_the_volume_or_the_numbers_waits_unless_more_was_refused() {
        for guards in all_guards() {
            let (actions, _) = walk(State::Compare, Event::TgPacket, guards);
            let has = |action| actions.contains(&action);
            let is_over = guards.numbers_left && !guards.fits;
            let waits = !guards.numbers_left || (is_over && !guards.renewal_refused);
            assert_eq!(has(Action::Hold), waits, "{guards:?}");
            assert_eq!(has(Action::ReportExcess), waits, "{guards:?}");
            assert_eq!(has(Action::DropExcess), is_over && guards.renewal_refused, "{guards:?}");
        }
    }

    #[test]
    fn no_row_waits_to_be_acted_upon() {
        assert!(LATER.is_empty(), "{LATER:?}");
    }
}
