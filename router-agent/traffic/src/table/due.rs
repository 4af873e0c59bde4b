//! Which entry is to be deleted next: a heap in which each knows its place, so that none is looked for.

use smoltcp::time::Instant;

/// What a heap orders: things with a number each, that remember where in the heap they are.
pub(super) trait Ordered {
    /// Whether the first goes before the second where both are due at one moment.
    fn precedes(&self, first: u32, second: u32) -> bool;

    /// A thing has another place now.
    fn moved(&mut self, thing: u32, place: u32);
}

/// Things by when they are due. The first is due next; each of the others not before the one at half its place.
#[derive(Debug, Clone, Default)]
pub(super) struct Due(Vec<(Instant, u32)>);

impl Due {
    /// What is due next, and when.
    pub(super) fn first(&self) -> Option<(Instant, u32)> {
        self.0.first().copied()
    }

    /// Adds a thing.
    pub(super) fn add(&mut self, at: Instant, thing: u32, things: &mut impl Ordered) {
        let place = self.0.len();
        self.0.push((at, thing));
        self.settle(place, things);
    }

    /// The thing at a place is due at another moment.
    pub(super) fn change(&mut self, place: u32, at: Instant, things: &mut impl Ordered) {
        let place = index(place);
        if let Some(due) = self.0.get_mut(place) {
            due.0 = at;
            self.settle(place, things);
        }
    }

    /// Takes the thing at a place out.
    pub(super) fn remove(&mut self, place: u32, things: &mut impl Ordered) {
        let place = index(place);
        if place < self.0.len() {
            self.0.swap_remove(place);
            if place < self.0.len() {
                self.settle(place, things);
            }
        }
    }

    /// Moves the thing at a place to where it belongs.
    fn settle(&mut self, mut place: usize, things: &mut impl Ordered) {
        while place > 0 && self.is_before(place, (place - 1) / 2, things) {
            place = self.exchange(place, (place - 1) / 2, things);
        }
        loop {
            let (left, right) = (2 * place + 1, 2 * place + 2);
            let sooner = if self.is_before(right, left, things) { right } else { left };
            if !self.is_before(sooner, place, things) {
                break;
            }
            place = self.exchange(place, sooner, things);
        }
        if let Some((_, thing)) = self.0.get(place) {
            things.moved(*thing, u32::try_from(place).unwrap_or(u32::MAX));
        }
    }

    fn is_before(&self, first: usize, second: usize, things: &impl Ordered) -> bool {
        match (self.0.get(first), self.0.get(second)) {
            (Some((at, first)), Some((then, second))) => at < then || at == then && things.precedes(*first, *second),
            _ => false,
        }
    }

    /// The thing at `from` goes to `to`, and the one there to `from`. Gives `to`.
    fn exchange(&mut self, from: usize, to: usize, things: &mut impl Ordered) -> usize {
        self.0.swap(from, to);
        if let Some((_, thing)) = self.0.get(from) {
            things.moved(*thing, u32::try_from(from).unwrap_or(u32::MAX));
        }
        to
    }
}

fn index(place: u32) -> usize {
    usize::try_from(place).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Things that are their numbers; each one's place, if it has one.
    #[derive(Default)]
    struct Numbers(Vec<Option<u32>>);

    impl Ordered for Numbers {
        fn precedes(&self, first: u32, second: u32) -> bool {
            first < second
        }

        fn moved(&mut self, thing: u32, place: u32) {
            self.0[thing as usize] = Some(place);
        }
    }

    proptest! {
        #[test]
        fn what_is_due_next_is_what_a_search_finds_whatever_came_went_and_changed(
            steps in proptest::collection::vec((0_u32..40, 0_i64..20, 0_u8..4), 0..300),
        ) {
            let (mut due, mut numbers, mut naive) = (Due::default(), Numbers(vec![None; 40]), [None; 40]);
            for (thing, at, what) in steps {
                let at = Instant::from_secs(at);
                match (numbers.0[thing as usize], what) {
                    (None, _) => due.add(at, thing, &mut numbers),
                    (Some(place), 0) => {
                        numbers.0[thing as usize] = None;
                        due.remove(place, &mut numbers);
                    }
                    (Some(place), _) => due.change(place, at, &mut numbers),
                }
                naive[thing as usize] = numbers.0[thing as usize].map(|_| at);
                let next = naive.iter().zip(0..).filter_map(|(at, thing)| at.map(|at| (at, thing))).min();
                prop_assert_eq!(due.first(), next);
                for (place, (_, thing)) in due.0.iter().enumerate() {
                    prop_assert_eq!(numbers.0[*thing as usize], Some(place as u32));
                }
            }
        }
    }
}
