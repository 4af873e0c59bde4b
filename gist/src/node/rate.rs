//! How many datagrams this node makes, and for whom (RFC 5971 §5.3.3, §8.4, G-202…G-205, G-340, G-341).
//!
//! One limit, in parts that cannot take from each other, because what strangers send must not decide what happens between
//! neighbours:
//!
//! ```text
//!            guaranteed                     for
//!  own       half, and more with the flows  Queries and all else this node begins; refreshes first. Waits if it must.
//!  answers   six sixteenths                 Responses to strangers: 2 for all, 3 split by interface, 1 by interface and source
//!  kept      a sixteenth                    Responses to refreshes of neighbours that have shown to be there: half of it split by interface,
//!                                           half for all, and no more than half for each of them
//!  errors    a sixteenth                    Errors, which go where a datagram only says that it came from
//! ```
//!
//! Within that no single destination gets more than [`MOST_TO_ONE`] answers and as many Errors in a [`WINDOW`]: a datagram names
//! the address that is answered, and it may be a victim's. Counted is what leaves, apart for each interface, and apart what comes
//! from the very address named, so that a flood in a neighbour's name leaves it room for a first contact; after that there is an
//! association.
//!
//! A source may be forged, an interface may not, so a flood costs others on its own link at most. Outside of the limit, since
//! they are no datagrams, are Responses over an association: a flow that exists gets one for each T1 whatever else arrives,
//! and beyond that each association has an [`Allowance`](super::allowance::Allowance); Errors about what came over it have one too.

use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use core::time::Duration;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};

use super::bucket::{Bucket, Flow, PARTS, TOKEN};
use super::{DatagramRate, Transmit};
use crate::time::Instant;

/// Sixteenths of the limit for each purpose.
const OWN: u64 = 8;
const ANSWERS: u64 = 2;
const INTERFACES: u64 = 3;
const SOURCES: u64 = 1;
pub(super) const KEPT: u64 = 1;
pub(super) const ERRORS: u64 = 1;

/// What is for neighbours is in so many parts: by interface, and for all.
const HALVES: u64 = 2;

/// Interfaces told apart; further ones share the part of interface 0.
const MOST_INTERFACES: usize = 16;

/// Groups of sources on each interface. Which one a source belongs to is secret.
const SOURCE_GROUPS: u64 = 8;

/// Responses, and Errors, to one destination on one account within a [`WINDOW`].
const MOST_TO_ONE: u32 = 16;

/// The same to all addresses of one network: as many first contacts in a window as an IPv4 /24 has hosts.
const MOST_TO_A_NETWORK: u32 = 256;

/// Seconds.
const WINDOW: u64 = 4;

/// What the datagram is to the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Keeps what exists: leaves before everything else that waits.
    Refresh,
    /// Something else of its own: waits if it must.
    Own,
    /// The Response to a stranger. It never waits, since whoever asked asks again.
    Answer(Asker),
    /// The Response to the refresh of a neighbour, whose own account has paid for it: a stranger's when there is nothing left for neighbours.
    Neighbour(Asker),
    /// An Error. It never waits, and is never repeated.
    Error(Asker),
}

/// Whose datagram is answered, as far as it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Asker {
    /// The interface it came in by.
    pub(super) interface: u32,
    /// Where the answer goes.
    pub(super) address: IpAddr,
    /// Whether it came from there.
    pub(super) is_source: bool,
}

impl Asker {
    /// Anybody of the same network: an IPv4 /24, an IPv6 /48.
    fn network(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => IpAddr::V4((address.to_bits() >> 8 << 8).into()),
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 80 << 80).into()),
        };
        Self { address, ..self }
    }
}

/// What became of a datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admission {
    Send(Transmit),
    Wait,
    Drop,
}

/// What each destination has got in the current window; no longer than what the limit lets out in it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Destinations {
    window: u64,
    sent: BTreeMap<(Asker, bool), u32>,
    /// By network: its first address stands for it.
    to_networks: BTreeMap<(Asker, bool), u32>,
}

impl Destinations {
    fn has_room(&mut self, asker: Asker, is_error: bool, now: Instant) -> bool {
        self.has_room_within(1, asker, is_error, now)
    }

    /// Whether less than one part in so many of what may go there has gone.
    fn has_room_within(&mut self, part: u32, asker: Asker, is_error: bool, now: Instant) -> bool {
        let window = now.micros() / (WINDOW * 1_000_000);
        if window != self.window {
            *self = Self { window, ..Self::default() };
        }
        self.sent.get(&(asker, is_error)).is_none_or(|sent| *sent < MOST_TO_ONE / part)
            && self.to_networks.get(&(asker.network(), is_error)).is_none_or(|sent| *sent < MOST_TO_A_NETWORK / part)
    }

    fn count(&mut self, asker: Asker, is_error: bool) {
        for sent in [self.sent.entry((asker, is_error)).or_default(), self.to_networks.entry((asker.network(), is_error)).or_default()] {
            *sent = sent.saturating_add(1);
        }
    }
}

/// The limit, and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct RateLimiter {
    rate: DatagramRate,
    cap: usize,
    /// What the flows need, in datagrams a second.
    needed: u64,
    own: Bucket,
    answers: Bucket,
    interfaces: BTreeMap<u32, Bucket>,
    sources: BTreeMap<(u32, u64), Bucket>,
    kept: Bucket,
    kept_by_interface: BTreeMap<u32, Bucket>,
    errors: Bucket,
    destinations: Destinations,
    refreshes: VecDeque<Transmit>,
    waiting: VecDeque<Transmit>,
    /// Tells which group a source belongs to.
    secret: u64,
}

impl RateLimiter {
    /// Full buckets; at most `cap` refreshes and `cap` other datagrams wait.
    pub(super) fn new(rate: DatagramRate, cap: usize, secret: u64) -> Self {
        let (per_second, burst) = (rate.per_second.max(1), rate.burst.max(1));
        let rate = DatagramRate { per_second, burst, most_per_second: rate.most_per_second.max(per_second) };
        let full = |sixteenths| Bucket::new(Flow::part(rate, sixteenths, 1), Instant::ZERO);
        Self {
            rate,
            cap: cap.max(1),
            needed: 0,
            own: full(OWN),
            answers: full(ANSWERS),
            interfaces: BTreeMap::new(),
            sources: BTreeMap::new(),
            kept: Bucket::new(Flow::part(rate, KEPT, HALVES), Instant::ZERO),
            kept_by_interface: BTreeMap::new(),
            errors: full(ERRORS),
            destinations: Destinations::default(),
            refreshes: VecDeque::new(),
            waiting: VecDeque::new(),
            secret,
        }
    }

    /// Says how many routing states this node refreshes, each for `validity`: its own part grows by what they need, up to the
    /// most that the configuration allows. Each is refreshed once in half to three quarters of that time, so two Queries in
    /// the time suffice.
    pub(super) fn scale(&mut self, states: usize, validity: Duration, now: Instant) {
        self.own.fill(self.own_flow(), now);
        let states = u64::try_from(states).unwrap_or(u64::MAX);
        let millis = u64::try_from(validity.as_millis()).unwrap_or(u64::MAX).max(1);
        self.needed = states.saturating_mul(2000) / millis;
    }

    pub(super) fn submit(&mut self, datagram: Transmit, purpose: Purpose, now: Instant) -> Admission {
        let queue = match purpose {
            Purpose::Refresh => &mut self.refreshes,
            Purpose::Own => &mut self.waiting,
            Purpose::Answer(asker) => return if self.admits(asker, false, now) { Admission::Send(datagram) } else { Admission::Drop },
            Purpose::Neighbour(asker) if self.admits_neighbour(asker.interface, now) => return Admission::Send(datagram),
            Purpose::Neighbour(asker) => return self.submit(datagram, Purpose::Answer(asker), now),
            Purpose::Error(asker) => return if self.admits(asker, true, now) { Admission::Send(datagram) } else { Admission::Drop },
        };
        if queue.len() >= self.cap {
            return Admission::Drop;
        }
        queue.push_back(datagram);
        // Whoever waits longer goes first.
        if self.refreshes.len() + self.waiting.len() == 1
            && let Some(datagram) = self.release(now)
        {
            return Admission::Send(datagram);
        }
        Admission::Wait
    }

    /// Whether half of what strangers get in this name has gone already, or half of what is there for all of them.
    pub(super) fn is_short(&mut self, asker: Asker, now: Instant) -> bool {
        let flow = Flow::part(self.rate, ANSWERS, 1);
        self.answers.fill(flow, now);
        self.answers.filled < flow.most() / 2 || !self.destinations.has_room_within(2, asker, false, now)
    }

    /// What does not leave counts for no destination, so that a flood of them fills nothing.
    fn admits(&mut self, asker: Asker, is_error: bool, now: Instant) -> bool {
        if !self.destinations.has_room(asker, is_error, now) {
            return false;
        }
        let admits = if is_error { self.errors.take(Flow::part(self.rate, ERRORS, 1), now) } else { self.admits_answer(asker, now) };
        if admits {
            self.destinations.count(asker, is_error);
        }
        admits
    }

    /// The part of its interface, then what is for all.
    fn admits_neighbour(&mut self, interface: u32, now: Instant) -> bool {
        let (interface, of) = place(&self.kept_by_interface, interface);
        let by_interface = Flow::part(self.rate, KEPT, of * HALVES);
        let own = self.kept_by_interface.entry(interface).or_insert_with(|| Bucket::new(by_interface, now));
        own.take(by_interface, now) || self.kept.take(Flow::part(self.rate, KEPT, HALVES), now)
    }

    /// The part of its source, then that of its interface, then what is for all.
    fn admits_answer(&mut self, asker: Asker, now: Instant) -> bool {
        let (interface, of) = place(&self.interfaces, asker.interface);
        let group = self.group(asker.address);
        let (by_source, by_interface) = (Flow::part(self.rate, SOURCES, of * SOURCE_GROUPS), Flow::part(self.rate, INTERFACES, of));
        let shared = self.interfaces.entry(interface).or_insert_with(|| Bucket::new(by_interface, now));
        let source = self.sources.entry((interface, group)).or_insert_with(|| Bucket::new(by_source, now));
        source.take(by_source, now) || shared.take(by_interface, now) || self.answers.take(Flow::part(self.rate, ANSWERS, 1), now)
    }

    fn group(&self, address: IpAddr) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.secret.hash(&mut hasher);
        match address {
            IpAddr::V4(address) => address.to_bits().hash(&mut hasher),
            // One host has a whole /64 to choose from.
            IpAddr::V6(address) => (address.to_bits() >> 64).hash(&mut hasher),
        }
        hasher.finish() % SOURCE_GROUPS
    }

    /// The next waiting datagram that may go now.
    pub(super) fn release(&mut self, now: Instant) -> Option<Transmit> {
        if self.refreshes.is_empty() && self.waiting.is_empty() || !self.own.take(self.own_flow(), now) {
            return None;
        }
        self.refreshes.pop_front().or_else(|| self.waiting.pop_front())
    }

    /// When the first waiting datagram may go; `None` if none waits.
    pub(super) fn next_release(&self) -> Option<Instant> {
        self.refreshes.front().or_else(|| self.waiting.front())?;
        let missing = TOKEN.saturating_sub(self.own.filled);
        let micros = missing.div_ceil(self.own_flow().per_second.max(1));
        Some(self.own.updated + Duration::from_micros(micros))
    }

    /// Datagrams a second that this node may make of its own, at most.
    pub(super) fn most_of_its_own(&self) -> u32 {
        let others = self.rate.per_second - self.rate.per_second / 2;
        (self.rate.most_per_second - others).max(1)
    }

    fn own_flow(&self) -> Flow {
        let least = Flow::part(self.rate, OWN, 1);
        let most = u64::from(self.most_of_its_own()) * PARTS;
        Flow { per_second: least.per_second.saturating_add(self.needed.saturating_mul(PARTS)).min(most), ..least }
    }
}

/// Under which interface one counts, and how many there are then.
fn place(known: &BTreeMap<u32, Bucket>, interface: u32) -> (u32, u64) {
    let interface = if known.contains_key(&interface) || known.len() < MOST_INTERFACES { interface } else { 0 };
    let of = known.len() + usize::from(!known.contains_key(&interface));
    (interface, u64::try_from(of).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::node::allowance::Allowance;

    fn datagram(number: u8) -> Transmit {
        Transmit::Normal { destination: "10.0.0.1:270".parse().unwrap(), source: None, payload: Bytes::from(vec![number]) }
    }

    fn rate(per_second: u32, burst: u32) -> DatagramRate {
        DatagramRate { per_second, burst, most_per_second: per_second }
    }

    fn asker(interface: u32, last: u8) -> Asker {
        Asker { interface, address: IpAddr::from([10, 0, 0, last]), is_source: true }
    }

    fn from(interface: u32, last: u8) -> Purpose {
        Purpose::Answer(asker(interface, last))
    }

    /// G-203: waits for a token, leaves in time, refreshes first.
    #[test]
    fn what_exceeds_the_burst_waits_for_its_token() {
        let mut limiter = RateLimiter::new(rate(20, 4), 1, 0);
        let now = Instant::from_micros(5);
        assert_eq!(limiter.submit(datagram(1), Purpose::Own, now), Admission::Send(datagram(1)));
        assert_eq!(limiter.submit(datagram(2), Purpose::Own, now), Admission::Send(datagram(2)));
        assert_eq!(limiter.submit(datagram(3), Purpose::Own, now), Admission::Wait);
        assert_eq!(limiter.submit(datagram(4), Purpose::Own, now), Admission::Drop);
        assert_eq!(limiter.submit(datagram(5), Purpose::Refresh, now), Admission::Wait);
        assert_eq!(limiter.next_release(), Some(Instant::from_micros(100_005)));
        assert_eq!(limiter.release(Instant::from_micros(100_004)), None);
        assert_eq!(limiter.release(Instant::from_micros(100_005)), Some(datagram(5)));
        assert_eq!(limiter.release(Instant::from_micros(200_005)), Some(datagram(3)));
        assert_eq!(limiter.next_release(), None);
    }

    /// Neither what waits nor a flood takes from what others are guaranteed.
    #[test]
    fn no_purpose_takes_from_another() {
        let mut limiter = RateLimiter::new(rate(16, 64), 1000, 7);
        let count = |limiter: &mut RateLimiter, purpose: Purpose| {
            (0..100).filter(|_| matches!(limiter.submit(datagram(0), purpose, Instant::ZERO), Admission::Send(_))).count()
        };
        assert_eq!(count(&mut limiter, Purpose::Own), 32);
        assert_eq!(count(&mut limiter, Purpose::Error(asker(1, 1))), 4);
        // Each group of sources (one, at least), the interface's three sixteenths, and the two for all.
        assert_eq!(count(&mut limiter, from(1, 1)), 16, "all that goes to one");
        let others = (2..40).map(|last| count(&mut limiter, from(1, last))).sum::<usize>();
        assert_eq!(16 + others, 8 + 12 + 8);
        assert_eq!(count(&mut limiter, from(2, 1)), 1 + 6, "another interface, of two now");
    }

    /// §8.4: by the destination, whatever else is free, and counted only when something leaves.
    #[test]
    fn one_destination_gets_few_answers_in_a_while() {
        let mut limiter = RateLimiter::new(DatagramRate::default(), 1, 7);
        let mut count = |purpose: Purpose, seconds: u64| {
            let now = Instant::from_micros(seconds * 1_000_000);
            (0..100).filter(|_| matches!(limiter.submit(datagram(0), purpose, now), Admission::Send(_))).count()
        };
        let named = Asker { is_source: false, ..asker(1, 1) };
        for seconds in [0, 4, 8] {
            assert_eq!(count(Purpose::Answer(named), seconds), 16);
            assert_eq!(count(Purpose::Answer(named), seconds + 3), 0);
            assert_eq!(count(Purpose::Error(named), seconds), 16);
            assert_eq!(count(from(1, 1), seconds), 16, "its own");
            assert_eq!(count(from(2, 1), seconds), 16, "on another interface");
        }
        assert!(limiter.destinations.sent.len() <= 4);
    }

    /// §8.4: nor does a network, by as many addresses as it may have.
    #[test]
    fn all_addresses_of_one_network_get_few_answers_in_a_while() {
        let count = |addresses: &mut dyn Iterator<Item = IpAddr>| {
            let mut limiter = RateLimiter::new(DatagramRate { per_second: 20_000, burst: 20_000, ..DatagramRate::default() }, 1, 7);
            let purposes = addresses.map(|address| Purpose::Answer(Asker { interface: 1, address, is_source: false }));
            purposes.filter(|purpose| matches!(limiter.submit(datagram(0), *purpose, Instant::ZERO), Admission::Send(_))).count()
        };
        assert_eq!(count(&mut (0..1000_u32).map(|host| [10, 0, 0, host as u8].into())), 256);
        assert_eq!(count(&mut (0..1000_u16).map(|host| [10, 0, (host / 250) as u8, host as u8].into())), 1000);
        assert_eq!(count(&mut (0..1000_u16).map(|host| [0x2001, 0xdb8, 1, host, 0, 0, 0, 1].into())), 256);
        assert_eq!(count(&mut (0..1000_u16).map(|site| [0x2001, 0xdb8, site, 0, 0, 0, 0, 1].into())), 1000);
    }

    /// G-341: what strangers use up neighbours have all the same, within a part of their own.
    #[test]
    fn refreshes_of_neighbours_have_a_part_that_strangers_do_not_take() {
        let mut limiter = RateLimiter::new(DatagramRate::default(), 1, 7);
        let count = |limiter: &mut RateLimiter, purpose: Purpose| {
            (0..1000).filter(|_| matches!(limiter.submit(datagram(0), purpose, Instant::ZERO), Admission::Send(_))).count()
        };
        assert!(!limiter.is_short(asker(1, 1), Instant::ZERO));
        assert_eq!(count(&mut limiter, from(1, 1)), 16);
        assert!(limiter.is_short(asker(1, 1), Instant::ZERO) && !limiter.is_short(asker(1, 2), Instant::ZERO));
        assert_eq!(count(&mut limiter, Purpose::Neighbour(asker(1, 1))), 32, "a sixteenth of the burst, and nothing of the strangers'");
        for last in 2..=20 {
            count(&mut limiter, from(1, last));
        }
        assert!(limiter.is_short(asker(2, 1), Instant::ZERO), "half of what is for all has gone");
        let mut account = Allowance::default();
        let turns = (0..100).filter(|_| account.take_turn_of_neighbour(DatagramRate::default(), Instant::ZERO)).count();
        assert_eq!((turns, account.has_turn_of_neighbour(DatagramRate::default(), Instant::ZERO)), (16, false));
    }

    /// G-341: nor do neighbours by one interface take what those by another need.
    #[test]
    fn neighbours_by_one_interface_leave_a_part_to_those_by_another() {
        let mut limiter = RateLimiter::new(DatagramRate::default(), 1, 7);
        let count = |limiter: &mut RateLimiter, interface: u32| {
            let says = |last| Purpose::Neighbour(asker(interface, last));
            // Beyond it they are strangers, of which one gets 16.
            let send =
                |limiter: &mut RateLimiter, last| matches!(limiter.submit(datagram(0), says(last), Instant::ZERO), Admission::Send(_));
            (0..100).filter(|_| send(limiter, 1)).count().saturating_sub(16)
        };
        assert_eq!(count(&mut limiter, 1), 32, "its part, and what is for all");
        assert_eq!((count(&mut limiter, 2), count(&mut limiter, 3)), (8, 5), "one of two, one of three");
    }

    #[test]
    fn interfaces_beyond_the_cap_share_one_part() {
        let mut limiter = RateLimiter::new(rate(1000, 256), 1, 7);
        for interface in 1..1000 {
            for last in 0..255 {
                limiter.submit(datagram(0), from(interface, last), Instant::ZERO);
            }
        }
        assert!(limiter.interfaces.len() <= MOST_INTERFACES + 1 && limiter.sources.len() <= (MOST_INTERFACES + 1) * 8);
    }

    /// 36,000 flows of 30 s each are refreshed within the default limit; what one may ask for has a bound (G-206).
    #[test]
    fn the_nodes_own_part_follows_the_flows_up_to_its_bound() {
        let mut limiter = RateLimiter::new(DatagramRate::default(), 4096, 0);
        let second = |limiter: &mut RateLimiter, from: u64| {
            let ticks = (0..1000).map(|tick| Instant::from_micros(from * 1_000_000 + tick * 1000));
            let sent = |limiter: &mut RateLimiter, now| {
                let first = (0..10).filter(|_| matches!(limiter.submit(datagram(0), Purpose::Own, now), Admission::Send(_))).count();
                first + std::iter::from_fn(|| limiter.release(now)).count()
            };
            ticks.map(|now| sent(limiter, now)).sum::<usize>()
        };
        second(&mut limiter, 0);
        assert_eq!(second(&mut limiter, 1), 1000);
        for (states, expected) in [(36_000, 3400), (1_000_000, 5000), (0, 1000)] {
            limiter.scale(states, Duration::from_secs(30), Instant::from_micros(2_000_000));
            second(&mut limiter, 2);
            assert_eq!(second(&mut limiter, 3), expected);
            limiter.own.updated = Instant::ZERO;
            limiter.own.filled = 0;
        }
    }

    proptest! {
        /// G-204: never more than the burst and the mean rate allow, whatever the purposes; each bucket holds at least one.
        #[test]
        fn the_buckets_bound_any_interval(steps in proptest::collection::vec((0_u64..200_000, 0_u8..6, 0_u32..3), 1..300)) {
            let rate = rate(32, 64);
            let mut limiter = RateLimiter::new(rate, 1000, 3);
            let (mut now, mut sent) = (Instant::ZERO, 0_u64);
            for (gap, purpose, interface) in steps {
                now += Duration::from_micros(gap);
                let purpose = match purpose {
                    0 => Purpose::Own,
                    1 => Purpose::Refresh,
                    2 => Purpose::Error(asker(interface, 1)),
                    last => from(interface, last),
                };
                sent += u64::from(matches!(limiter.submit(datagram(0), purpose, now), Admission::Send(_)));
                while limiter.release(now).is_some() {
                    sent += 1;
                }
                // Twelve for interface buckets that were made full when they were fewer; eight groups on each of three.
                let burst = u64::from(rate.burst) + 2 * 12 + 3 * 8;
                prop_assert!(sent * 1_000_000 <= burst * 1_000_000 + now.micros() * u64::from(rate.per_second));
            }
        }
    }
}
