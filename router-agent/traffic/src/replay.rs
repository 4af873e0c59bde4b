//! The anti-replay window (RFC 4302 §3.4.3, appendix B; X-71).
//!
//! Checking and moving are apart: a packet is checked first, then its ICV, and only a right ICV moves the window.

/// Smallest window, in numbers (RFC 4302 §3.4.3).
pub const MIN_SIZE: u32 = 32;
/// Largest window, in numbers: a bound on memory, far above any reordering.
pub const MAX_SIZE: u32 = 1 << 20;
/// Size used unless told otherwise.
pub const DEFAULT_SIZE: u32 = 1024;

const WORD: u64 = u64::BITS as u64;

/// How an association numbers its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Numbering {
    /// 32 bits, all of them in the packet.
    Short,
    /// 64 bits, of which the packet carries the lower half (RFC 4302 §2.5.1). PBS refuses them.
    Extended,
}

/// Why a number is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Replay {
    /// Number 0 is never sent.
    Zero,
    /// Left of the window, or from before it began.
    TooOld,
    /// In the window and seen before.
    Seen,
}

/// A window size outside [`MIN_SIZE`]…[`MAX_SIZE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a window of {0} numbers; it must have {MIN_SIZE} to {MAX_SIZE}")]
pub struct SizeError(pub u32);

/// Which sequence numbers of one association have been seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Window {
    size: u32,
    numbering: Numbering,
    /// Right edge: the highest number verified.
    highest: u64,
    /// Nothing up to here is let through: it was used before this window began.
    floor: u64,
    /// One bit a number, at its place modulo the number of bits, which is a power of two.
    seen: Box<[u64]>,
    /// The first octets of the ICV under which each number was accepted; empty if not wanted.
    tags: Box<[[u8; 4]]>,
}

impl Window {
    /// A window of `size` numbers that has seen nothing.
    ///
    /// # Errors
    ///
    /// A size outside [`MIN_SIZE`]…[`MAX_SIZE`].
    pub fn new(size: u32, numbering: Numbering) -> Result<Self, SizeError> {
        if !(MIN_SIZE..=MAX_SIZE).contains(&size) {
            return Err(SizeError(size));
        }
        let words = usize::try_from(size.div_ceil(u64::BITS).next_power_of_two()).map_err(|_| SizeError(size))?;
        Ok(Self { size, numbering, highest: 0, floor: 0, seen: vec![0; words].into(), tags: Box::default() })
    }

    /// The same window, which also remembers 4 octets of ICV a number (X-42: 4 octets of memory a number).
    #[must_use]
    pub fn with_tags(mut self) -> Self {
        self.tags = vec![[0; 4]; self.seen.len().saturating_mul(WORD as usize)].into();
        self
    }

    /// The same window with its right edge moved to `highest`, nothing in it seen.
    #[must_use]
    pub fn starting_at(mut self, highest: u64) -> Self {
        self.highest = highest;
        self
    }

    /// The same window, beginning after `last`: numbers up to it have been used already, and none of them is let through.
    #[must_use]
    pub fn starting_after(mut self, last: u64) -> Self {
        self.floor = last;
        self.starting_at(last)
    }

    /// The highest number verified so far, or the last one before the window began; 0 before the first.
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Its size, in numbers.
    pub const fn size(&self) -> u64 {
        self.size as u64
    }

    /// How the association numbers its packets.
    pub const fn numbering(&self) -> Numbering {
        self.numbering
    }

    /// The whole number of a packet that carries `low` (RFC 4302 appendix B2.2).
    ///
    /// `None` where that number would lie before the first or beyond the last.
    pub fn number(&self, low: u32) -> Option<u64> {
        if self.numbering == Numbering::Short {
            return Some(u64::from(low));
        }
        const SUBSPACE: u64 = 1 << 32;
        let low = u64::from(low);
        let (subspace, right) = (self.highest / SUBSPACE, self.highest % SUBSPACE);
        let whole = |subspace: u64| Some(subspace * SUBSPACE + low);
        if right >= self.size() - 1 {
            // Case A: the window lies within one subspace.
            let left = right - (self.size() - 1);
            if low >= left { whole(subspace) } else { whole((subspace < SUBSPACE - 1).then_some(subspace + 1)?) }
        } else {
            // Case B: it spans two.
            let left = right + SUBSPACE - (self.size() - 1);
            if low >= left { whole(subspace.checked_sub(1)?) } else { whole(subspace) }
        }
    }

    /// Whether a packet of this whole number may be looked at further. Changes nothing.
    ///
    /// # Errors
    ///
    /// Number 0, one left of the window, or one seen before.
    pub fn check(&self, number: u64) -> Result<(), Replay> {
        if number == 0 {
            Err(Replay::Zero)
        } else if number > self.highest {
            Ok(())
        } else if number <= self.floor || self.highest - number >= self.size() {
            Err(Replay::TooOld)
        } else if self.is_seen(number) {
            Err(Replay::Seen)
        } else {
            Ok(())
        }
    }

    /// Notes a number whose packet's ICV was right, and moves the right edge to it if it lies beyond.
    ///
    /// `tag` are the first octets of that ICV. A number left of the window, or from before it began, is not noted.
    pub fn commit(&mut self, number: u64, tag: [u8; 4]) {
        if number <= self.floor {
            return;
        }
        if number > self.highest {
            let slots = self.seen.len() as u64 * WORD;
            if number - self.highest >= slots {
                self.seen.fill(0);
            } else {
                for passed in self.highest + 1..=number {
                    self.set(passed, false);
                }
            }
            self.highest = number;
        } else if self.highest - number >= self.size() {
            return;
        }
        self.set(number, true);
        let slot = self.slot(number);
        if let Some(place) = self.tags.get_mut(slot) {
            *place = tag;
        }
    }

    /// The first octets of the ICV under which a seen number in the window was accepted, if the window keeps them.
    pub fn tag(&self, number: u64) -> Option<[u8; 4]> {
        let in_window = number <= self.highest && self.highest - number < self.size() && self.is_seen(number);
        if in_window { self.tags.get(self.slot(number)).copied() } else { None }
    }

    /// Some of it: who looks at it has it in the processor's cache.
    pub(crate) fn touch(&self) -> u64 {
        self.highest ^ self.seen.get(self.slot(self.highest) / WORD as usize).copied().unwrap_or_default()
    }

    fn is_seen(&self, number: u64) -> bool {
        let slot = self.slot(number);
        self.seen.get(slot / WORD as usize).is_some_and(|word| word & (1 << (slot % WORD as usize)) != 0)
    }

    fn set(&mut self, number: u64, seen: bool) {
        let slot = self.slot(number);
        if let Some(word) = self.seen.get_mut(slot / WORD as usize) {
            let bit = 1 << (slot % WORD as usize);
            *word = if seen { *word | bit } else { *word & !bit };
        }
    }

    /// There are at least as many slots as the window has numbers, so that two numbers in it never share one.
    fn slot(&self, number: u64) -> usize {
        (number & (self.seen.len() as u64 * WORD).wrapping_sub(1)) as usize
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The window as RFC 4302 §3.4.3 describes it, with nothing clever: everything ever accepted is remembered.
    struct Naive {
        size: u64,
        floor: u64,
        highest: u64,
        accepted: HashSet<u64>,
    }

    impl Naive {
        fn check(&self, number: u64) -> Result<(), Replay> {
            let left = (self.highest + 1).saturating_sub(self.size);
            match number {
                0 => Err(Replay::Zero),
                _ if number < left || number <= self.floor => Err(Replay::TooOld),
                _ if self.accepted.contains(&number) => Err(Replay::Seen),
                _ => Ok(()),
            }
        }

        fn commit(&mut self, number: u64) {
            self.accepted.insert(number);
            self.highest = self.highest.max(number);
        }
    }

    /// Numbers that wander: mostly near the last one, sometimes far away.
    fn walk(start: u64) -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![6 => -80i64..80, 2 => -3000i64..3000, 1 => -100_000i64..1_000_000];
        proptest::collection::vec(step, 1..200).prop_map(move |steps| {
            let mut number = start;
            let mut numbers = Vec::new();
            for step in steps {
                number = number.saturating_add_signed(step);
                numbers.push(number);
            }
            numbers
        })
    }

    proptest! {
        #[test]
        fn the_window_agrees_with_a_naive_model(
            size in MIN_SIZE..2100,
            floor in prop_oneof![Just(0u64), 1u64..5000],
            numbers in walk(1),
            right_icv in proptest::collection::vec(any::<bool>(), 200),
        ) {
            let mut window = Window::new(size, Numbering::Short).unwrap().with_tags().starting_after(floor);
            let mut naive = Naive { size: u64::from(size), floor, highest: floor, accepted: HashSet::new() };
            for (number, right_icv) in numbers.into_iter().zip(right_icv) {
                let tag = (number as u32).to_be_bytes();
                prop_assert_eq!(window.check(number), naive.check(number));
                if naive.check(number).is_ok() && right_icv {
                    window.commit(number, tag);
                    naive.commit(number);
                    prop_assert_eq!(window.tag(number), Some(tag));
                }
                prop_assert_eq!(window.highest(), naive.highest);
            }
        }

        #[test]
        fn extended_numbers_are_told_from_their_lower_half(size in MIN_SIZE..2100, numbers in walk((1 << 32) - 500)) {
            // A sender numbers onwards; whatever arrives in the window, or less than 2^32 - size ahead, is told right.
            let mut window = Window::new(size, Numbering::Extended).unwrap();
            for number in numbers {
                let left = i128::from(window.highest()) - i128::from(size) + 1;
                let told = window.number(number as u32);
                if (left..left + (1 << 32)).contains(&i128::from(number)) {
                    prop_assert_eq!(told, Some(number));
                    if window.check(number).is_ok() {
                        window.commit(number, [0; 4]);
                    }
                } else {
                    // Anything else is taken for another number, under which its ICV will be wrong.
                    prop_assert_ne!(told, Some(number));
                }
            }
        }

        #[test]
        fn nothing_makes_the_window_panic(size in any::<u32>(), start in any::<u64>(), numbers in proptest::collection::vec(any::<u64>(), 0..50)) {
            for numbering in [Numbering::Short, Numbering::Extended] {
                let Ok(window) = Window::new(size % 5000, numbering) else { continue };
                let window = if size % 2 == 0 { window.starting_at(start) } else { window.starting_after(start) };
                let mut window = window.with_tags();
                for number in &numbers {
                    let _ = (window.number(*number as u32), window.check(*number), window.tag(*number));
                    window.commit(*number, [0; 4]);
                }
            }
        }
    }

    #[test]
    fn a_size_below_32_is_refused() {
        assert_eq!(Window::new(31, Numbering::Short), Err(SizeError(31)));
        assert!(Window::new(32, Numbering::Short).is_ok());
        assert_eq!(Window::new(MAX_SIZE + 1, Numbering::Short), Err(SizeError(MAX_SIZE + 1)));
    }

    #[test]
    fn a_window_that_begins_after_a_number_lets_only_later_ones_through_in_whatever_order() {
        let mut window = Window::new(64, Numbering::Short).unwrap().with_tags().starting_after(1000);
        assert_eq!(window.highest(), 1000);
        for used in [1, 936, 937, 999, 1000] {
            assert_eq!(window.check(used), Err(Replay::TooOld));
            window.commit(used, [1; 4]);
            assert_eq!(window.tag(used), None, "nothing is known of it");
        }
        for later in [1003, 1001, 1002] {
            assert_eq!(window.check(later), Ok(()));
            window.commit(later, [2; 4]);
            assert_eq!(window.check(later), Err(Replay::Seen));
        }
        assert_eq!(window.check(1000), Err(Replay::TooOld));
    }

    #[test]
    fn the_number_of_the_second_subspace_that_ends_in_zero_is_a_number() {
        let window = Window::new(64, Numbering::Extended).unwrap().starting_at(0xffff_ffff);
        assert_eq!(window.number(0), Some(1 << 32));
        assert_eq!(window.check(1 << 32), Ok(()));
        assert_eq!(window.check(0), Err(Replay::Zero));
    }

    #[test]
    fn before_the_first_packet_a_number_just_below_zero_is_none() {
        let window = Window::new(64, Numbering::Extended).unwrap();
        assert_eq!(window.number(0xffff_ffff), None);
        assert_eq!(window.number(1), Some(1));
    }

    #[test]
    fn after_the_last_subspace_no_number_follows() {
        let window = Window::new(64, Numbering::Extended).unwrap().starting_at(u64::MAX);
        assert_eq!(window.number(5), None);
    }
}
