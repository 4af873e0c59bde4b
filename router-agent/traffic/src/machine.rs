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

    #[test]
    fn no_row_waits_to_be_acted_upon() {
        assert!(LATER.is_empty(), "{LATER:?}");
    }
}
