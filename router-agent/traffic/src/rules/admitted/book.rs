//! Which permissions are to stand in the kernel, and what the kernel has been told of them: no socket, no clock, no thread.
//!
//! What is kept is a state and not a list of requests: a permission that changes several times before the kernel is told costs one
//! change. Each request has a ticket, and tickets are settled in their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::elements::Changes;
use crate::flow::Flow;

/// Changes of one transaction: at 17,000 permissions coming and going a second so many cost 5 % of a processor, and no packet waits.
pub(super) const AT_ONCE: usize = 170;
/// How long a change waits for rules that do not stand, which somebody puts back meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// Refusals that are kept for who asked. Whoever does not ask soon takes his request for carried out, which harms no packet.
const MOST_REFUSALS: usize = 1024;

/// What the kernel tells permissions apart by: source, destination, SPI.
pub(super) type Association = (IpAddr, IpAddr, u32);

/// A permission whose packets the kernel is to know.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    flow: Flow,
    /// Until when it is to stand; `None` if it is to go.
    ends: Option<Instant>,
    /// Until when it stands.
    told: Option<Instant>,
}

/// What is to be told of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Changed {
    ticket: u64,
    association: Association,
    flow: Flow,
}

/// How the next changes are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Many at once, as if the kernel had what it has been told.
    Trusting,
    /// The same, whatever the kernel has.
    Careful,
    /// So many one by one, since the kernel has refused them together.
    Alone(usize),
}

/// The state.
#[derive(Debug, Clone)]
pub(super) struct Book {
    most: usize,
    known: BTreeMap<Association, Known>,
    ends: BTreeSet<(Instant, Association)>,
    /// The associations of each flow, and until when the flow itself stands.
    flows: BTreeMap<Flow, (Vec<Association>, Option<Instant>)>,
    changed: VecDeque<Changed>,
    under_way: Vec<Changed>,
    sent: Changes,
    manner: Manner,
    missing_since: Option<Instant>,
    last: u64,
    settled: u64,
    refused: BTreeMap<u64, String>,
    refusals: u64,
    /// Somebody has opened the node: there is nothing to tell any more.
    opened: bool,
}

impl Book {
    /// An empty book of at most `most` permissions.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            known: BTreeMap::new(),
            ends: BTreeSet::new(),
            flows: BTreeMap::new(),
            changed: VecDeque::new(),
            under_way: Vec::new(),
            sent: Changes::default(),
            manner: Manner::Trusting,
            missing_since: None,
            last: 0,
            settled: 0,
            refused: BTreeMap::new(),
            refusals: 0,
            opened: false,
        }
    }

    /// Wants a permission to stand until `ends`.
    pub(super) fn admit(&mut self, flow: Flow, spi: u32, ends: Instant, now: Instant) -> u64 {
        let association = (flow.source, flow.destination, spi);
        let ticket = self.next_ticket();
        if self.opened || self.belongs_to_another(&association, &flow, now) {
            return self.change_nothing(ticket, association, flow);
        }
        if !self.known.contains_key(&association) && self.known.len() >= self.most {
            self.forget_ended(now);
            if self.known.len() >= self.most {
                self.refuse(ticket, format!("the filter rules hold {} permissions already", self.most));
                return self.change_nothing(ticket, association, flow);
            }
        }
        self.put(association, flow, Some(ends));
        self.changed.push_back(Changed { ticket, association, flow });
        ticket
    }

    /// Wants a permission to end no later than `ends`, if there is one.
    pub(super) fn shorten(&mut self, flow: Flow, spi: u32, ends: Instant, now: Instant) -> u64 {
        let known = self.known.get(&(flow.source, flow.destination, spi)).filter(|known| known.flow == flow);
        match known.and_then(|known| known.ends) {
            Some(before) if before > ends => self.admit(flow, spi, ends, now),
            _ => {
                let ticket = self.next_ticket();
                self.change_nothing(ticket, (flow.source, flow.destination, spi), flow)
            }
        }
    }

    /// Wants a permission to go; what is another flow's stays.
    pub(super) fn forget(&mut self, flow: Flow, spi: u32, now: Instant) -> u64 {
        let association = (flow.source, flow.destination, spi);
        let ticket = self.next_ticket();
        if !self.known.contains_key(&association) || self.belongs_to_another(&association, &flow, now) {
            return self.change_nothing(ticket, association, flow);
        }
        self.put(association, flow, None);
        self.changed.push_back(Changed { ticket, association, flow });
        ticket
    }

    /// The table is new and has nothing: everything is to be told again.
    pub(super) fn refill(&mut self, now: Instant) {
        self.forget_ended(now);
        for (_, told) in self.flows.values_mut() {
            *told = None;
        }
        // What is under way may go into the table that is no more.
        self.put_back();
        self.sent = Changes::default();
        let ticket = self.settled;
        for (association, known) in &mut self.known {
            known.told = None;
            self.changed.push_front(Changed { ticket, association: *association, flow: known.flow });
        }
        self.missing_since = None;
    }

    /// The node is open: every request is carried out, now and from now on.
    pub(super) fn open(&mut self) {
        let (most, last, refusals) = (self.most, self.last, self.refusals);
        *self = Self { last, settled: last, refusals, opened: true, ..Self::new(most) };
    }

    /// What of a request has become: `None` if that is not known yet, or why it was refused. It is said once.
    pub(super) fn outcome(&mut self, ticket: u64) -> Option<Result<(), String>> {
        let refused = self.refused.remove(&ticket);
        refused.map(Err).or_else(|| (ticket <= self.settled).then_some(Ok(())))
    }

    /// Whether every request is settled.
    pub(super) fn is_settled(&self) -> bool {
        self.changed.is_empty() && self.under_way.is_empty()
    }

    /// Permissions that stand or are to, and how often one was refused.
    pub(super) fn counts(&self) -> (usize, u64) {
        (self.known.values().filter(|known| known.ends.is_some()).count(), self.refusals)
    }

    /// What is to be told the kernel next. Then comes [`settle`](Self::settle) or [`fail`](Self::fail).
    pub(super) fn take_changes(&mut self, now: Instant) -> Option<Changes> {
        let most = if let Manner::Alone(_) = self.manner { 1 } else { AT_ONCE };
        self.under_way = self.changed.drain(..most.min(self.changed.len())).collect();
        if self.under_way.is_empty() {
            return None;
        }
        let live = |ends: Option<Instant>| ends.filter(|ends| *ends > now);
        let mut changes = Changes { careful: self.manner != Manner::Trusting, ..Changes::default() };
        for Changed { association, flow, .. } in &self.under_way {
            if let Some(known) = self.known.get(association) {
                changes.associations.insert(*association, (live(known.told), live(known.ends)));
            }
            let (associations, told) = self.flows.get(flow).cloned().unwrap_or_default();
            let ends = associations.iter().filter_map(|association| live(self.known.get(association)?.ends)).max();
            changes.flows.insert(*flow, (live(told), ends));
        }
        self.sent = changes.clone();
        Some(changes)
    }

    /// The kernel has taken the changes.
    pub(super) fn settle(&mut self) {
        let Changes { associations, flows, .. } = std::mem::take(&mut self.sent);
        for (association, (_, sent)) in associations {
            if let Some(known) = self.known.get_mut(&association) {
                known.told = sent;
            }
            // What was forgotten while it was told stands now: it goes with the change that waits.
            if sent.is_none() {
                self.drop_if_gone(&association);
            }
        }
        for (flow, (_, sent)) in flows {
            if let Some((_, told)) = self.flows.get_mut(&flow) {
                *told = sent;
            }
            self.drop_flow_if_gone(&flow);
        }
        self.missing_since = None;
        self.advance();
    }

    /// The kernel has refused the changes, all of them; `missing` says that there is nothing to change. Whether to try again after a
    /// while, and not at once.
    pub(super) fn fail(&mut self, missing: bool, why: &str, now: Instant) -> bool {
        let since = missing.then(|| *self.missing_since.get_or_insert(now));
        if self.manner == Manner::Trusting {
            self.manner = Manner::Careful;
            self.put_back();
            return false;
        }
        if since.is_some_and(|since| now.saturating_duration_since(since) < PATIENCE) {
            self.put_back();
            return true;
        }
        if self.under_way.len() > 1 {
            self.manner = Manner::Alone(self.under_way.len());
            self.put_back();
            return false;
        }
        let refused = self.under_way.clone();
        self.sent = Changes::default();
        for Changed { ticket, association, .. } in refused {
            if ticket > self.settled {
                self.refuse(ticket, why.to_owned());
            } else {
                self.refusals = self.refusals.saturating_add(1);
            }
            // What has been asked for since then is still to be told.
            if self.changed.iter().any(|later| later.association == association) {
                continue;
            }
            // The kernel takes a batch as a whole or not at all: what it has of before it keeps.
            if let Some(Known { flow, ends, told }) = self.known.get(&association).cloned() {
                self.put(association, flow, told.filter(|_| ends.is_some()));
            }
            self.drop_if_gone(&association);
        }
        self.advance();
        false
    }

    fn put_back(&mut self) {
        for changed in std::mem::take(&mut self.under_way).into_iter().rev() {
            self.changed.push_front(changed);
        }
    }

    /// The tickets under way are settled.
    fn advance(&mut self) {
        self.manner = match self.manner {
            Manner::Alone(left) if left > 1 => Manner::Alone(left - 1),
            _ => Manner::Trusting,
        };
        for changed in std::mem::take(&mut self.under_way) {
            self.settled = self.settled.max(changed.ticket);
        }
    }

    fn next_ticket(&mut self) -> u64 {
        self.last = self.last.saturating_add(1);
        self.last
    }

    /// Settles a ticket in its turn.
    fn change_nothing(&mut self, ticket: u64, association: Association, flow: Flow) -> u64 {
        if self.is_settled() {
            self.settled = ticket;
        } else {
            self.changed.push_back(Changed { ticket, association, flow });
        }
        ticket
    }

    fn refuse(&mut self, ticket: u64, why: String) {
        self.refusals = self.refusals.saturating_add(1);
        self.refused.insert(ticket, why);
        while self.refused.len() > MOST_REFUSALS {
            self.refused.pop_first();
        }
    }

    /// Whether the SPI between these addresses lives for another flow.
    fn belongs_to_another(&self, association: &Association, flow: &Flow, now: Instant) -> bool {
        let known = self.known.get(association);
        known.is_some_and(|known| known.flow != *flow && known.ends.is_some_and(|ends| ends > now))
    }

    /// What has ended the kernel has forgotten by itself.
    fn forget_ended(&mut self, now: Instant) {
        while let Some((ends, association)) = self.ends.first().copied()
            && ends <= now
        {
            if let Some(known) = self.take(&association) {
                self.drop_flow_if_gone(&known.flow);
            }
        }
    }

    fn take(&mut self, association: &Association) -> Option<Known> {
        let known = self.known.remove(association)?;
        if let Some(ends) = known.ends {
            self.ends.remove(&(ends, *association));
        }
        if let Some((associations, _)) = self.flows.get_mut(&known.flow) {
            associations.retain(|of| of != association);
        }
        Some(known)
    }

    /// Writes down until when a permission is to stand; what the kernel has of it stays as it is.
    fn put(&mut self, association: Association, flow: Flow, ends: Option<Instant>) {
        let former = self.take(&association);
        self.flows.entry(flow).or_default().0.push(association);
        self.ends.extend(ends.map(|ends| (ends, association)));
        let told = former.as_ref().and_then(|former| former.told);
        self.known.insert(association, Known { flow, ends, told });
        if let Some(former) = former {
            self.drop_flow_if_gone(&former.flow);
        }
    }

    fn drop_if_gone(&mut self, association: &Association) {
        if self.known.get(association).is_some_and(|known| known.ends.is_none())
            && let Some(known) = self.take(association)
        {
            self.drop_flow_if_gone(&known.flow);
        }
    }

    fn drop_flow_if_gone(&mut self, flow: &Flow) {
        if self.flows.get(flow).is_some_and(|(associations, _)| associations.is_empty()) {
            self.flows.remove(flow);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn flow(port: u16) -> Flow {
        let [source, destination] = [1, 2].map(|host| IpAddr::from([192, 0, 2, host]));
        Flow { source, destination, protocol: 17, source_port: port, destination_port: 9000 }
    }

    /// What the kernel has after it has been told everything, as a kernel that refuses nothing.
    fn tell_all(book: &mut Book, now: Instant) -> usize {
        let mut transactions = 0;
        while let Some(changes) = book.take_changes(now) {
            assert!(changes.associations.len() <= AT_ONCE);
            book.settle();
            transactions += 1;
        }
        transactions
    }

    /// a removal that comes while the kernel is told to admit is told too, and not taken for carried out before it is.
    #[test]
    fn what_is_forgotten_while_it_is_being_told_goes_with_the_next_transaction() {
        let now = Instant::now();
        let association = (flow(1).source, flow(1).destination, 7);
        let mut book = Book::new(1000);
        book.admit(flow(1), 7, now + HOUR, now);
        book.take_changes(now).unwrap();
        let ticket = book.forget(flow(1), 7, now);
        book.settle();
        assert_eq!(book.outcome(ticket), None, "it stands");
        let changes = book.take_changes(now).unwrap();
        assert_eq!(changes.associations[&association], (Some(now + HOUR), None));
        assert_eq!(changes.flows[&flow(1)], (Some(now + HOUR), None));
        book.settle();
        assert_eq!((book.outcome(ticket), book.known.len(), book.flows.len()), (Some(Ok(())), 0, 0));
        // The same with an update that the kernel refuses.
        book.admit(flow(1), 7, now + HOUR, now);
        tell_all(&mut book, now);
        let update = book.admit(flow(1), 7, now + 2 * HOUR, now);
        book.take_changes(now).unwrap();
        let ticket = book.forget(flow(1), 7, now);
        for _ in 0..8 {
            if book.outcome(update).is_some() {
                break;
            }
            book.fail(false, "refused", now);
            book.take_changes(now);
        }
        book.settle();
        assert_eq!((book.outcome(ticket), book.known.len(), book.flows.len()), (Some(Ok(())), 0, 0));
    }

    #[test]
    fn what_comes_while_a_transaction_is_under_way_is_told_together_and_each_ticket_in_its_turn() {
        let now = Instant::now();
        let mut book = Book::new(1000);
        let first = book.admit(flow(1), 300, now + HOUR, now);
        assert!(book.take_changes(now).is_some());
        let later: Vec<u64> = (2..402).map(|port| book.admit(flow(port), 300 + u32::from(port), now + HOUR, now)).collect();
        assert_eq!((book.outcome(first), book.outcome(later[0])), (None, None));
        book.settle();
        assert_eq!((book.outcome(first), book.outcome(later[0])), (Some(Ok(())), None));
        assert_eq!(tell_all(&mut book, now), 400usize.div_ceil(AT_ONCE));
        assert!(later.iter().all(|ticket| book.outcome(*ticket) == Some(Ok(()))));
        assert_eq!((book.counts(), book.is_settled()), ((401, 0), true));
    }

    #[test]
    fn a_permission_that_comes_and_goes_before_it_is_told_costs_nothing_and_leaves_nothing() {
        let now = Instant::now();
        let mut book = Book::new(10);
        book.admit(flow(1), 300, now + HOUR, now);
        let gone = book.forget(flow(1), 300, now);
        let changes = book.take_changes(now).unwrap();
        assert!(changes.associations.values().all(|change| *change == (None, None)), "{changes:?}");
        book.settle();
        assert_eq!((book.outcome(gone), book.counts()), (Some(Ok(())), (0, 0)));
        assert!(book.known.is_empty() && book.flows.is_empty() && book.ends.is_empty());
    }

    #[test]
    fn a_flow_stands_as_long_as_any_of_its_epochs_and_nobody_ends_that_of_another() {
        let now = Instant::now();
        let mut book = Book::new(10);
        book.admit(flow(1), 300, now + HOUR, now);
        book.admit(flow(1), 301, now + HOUR * 2, now);
        tell_all(&mut book, now);
        book.forget(flow(2), 300, now);
        book.admit(flow(2), 301, now + HOUR, now);
        assert_eq!(tell_all(&mut book, now), 0, "it is another flow's");
        book.forget(flow(1), 301, now);
        let changes = book.take_changes(now).unwrap();
        assert_eq!(changes.flows[&flow(1)], (Some(now + HOUR * 2), Some(now + HOUR)));
        book.settle();
        book.forget(flow(1), 300, now);
        let changes = book.take_changes(now).unwrap();
        assert_eq!(changes.flows[&flow(1)], (Some(now + HOUR), None));
        book.settle();
        assert!(book.known.is_empty() && book.flows.is_empty());
    }

    #[test]
    fn one_that_the_kernel_refuses_is_found_among_many_and_only_it_is_refused() {
        let now = Instant::now();
        let mut book = Book::new(10);
        let tickets: Vec<u64> = (0..5).map(|spi| book.admit(flow(1), 300 + spi, now + HOUR, now)).collect();
        while let Some(changes) = book.take_changes(now) {
            if changes.associations.keys().any(|(.., spi)| *spi == 303) {
                assert!(!book.fail(false, "no room", now));
            } else {
                book.settle();
            }
        }
        let outcomes: Vec<_> = tickets.iter().map(|ticket| book.outcome(*ticket).unwrap().is_ok()).collect();
        assert_eq!((outcomes, book.counts()), (vec![true, true, true, false, true], (4, 1)));
        let again = book.admit(flow(1), 303, now + HOUR, now);
        assert_eq!((tell_all(&mut book, now), book.outcome(again)), (1, Some(Ok(()))));
    }

    #[test]
    fn rules_that_are_missing_are_waited_for_but_not_for_ever() {
        let now = Instant::now();
        let mut book = Book::new(10);
        let ticket = book.admit(flow(1), 300, now + HOUR, now);
        let fail = |book: &mut Book, now| {
            book.take_changes(now).unwrap();
            book.fail(true, "no table", now)
        };
        assert!(!fail(&mut book, now), "once more with care");
        assert!(fail(&mut book, now));
        assert_eq!(book.outcome(ticket), None);
        assert!(!fail(&mut book, now + PATIENCE));
        assert_eq!(book.outcome(ticket), Some(Err("no table".to_owned())));
        // While they are put back everything is told anew, also what was under way.
        let ticket = book.admit(flow(2), 301, now + HOUR, now);
        book.take_changes(now).unwrap();
        book.refill(now);
        book.settle();
        assert_eq!(book.outcome(ticket), None);
        let changes = book.take_changes(now).unwrap();
        assert_eq!(changes.associations.values().copied().collect::<Vec<_>>(), [(None, Some(now + HOUR))]);
        book.settle();
        assert_eq!((book.outcome(ticket), book.counts()), (Some(Ok(())), (1, 1)));
    }

    #[test]
    fn a_full_book_refuses_until_something_has_ended_and_an_open_node_has_nothing_to_tell() {
        let now = Instant::now();
        let mut book = Book::new(2);
        book.admit(flow(1), 300, now + HOUR, now);
        book.admit(flow(2), 301, now + HOUR * 2, now);
        let refused = book.admit(flow(3), 302, now + HOUR, now);
        tell_all(&mut book, now);
        assert!(matches!(book.outcome(refused), Some(Err(why)) if why.contains("2 permissions")));
        let later = now + HOUR;
        let taken = book.admit(flow(3), 302, later + HOUR, later);
        tell_all(&mut book, later);
        assert_eq!((book.outcome(taken), book.counts().0), (Some(Ok(())), 2));
        let waiting = book.forget(flow(3), 302, later);
        book.open();
        assert_eq!((book.outcome(waiting), book.is_settled()), (Some(Ok(())), true));
        let after = book.admit(flow(4), 303, later + HOUR, later);
        assert_eq!((book.outcome(after), book.counts().0), (Some(Ok(())), 0));
    }
}
