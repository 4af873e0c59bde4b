//! Which permissions are to stand in the kernel, and what the kernel has been told of them: no socket, no clock, no thread.
//!
//! What is kept is a state and not a list of requests: a permission that changes several times before the kernel is told costs one
//! change. Each request has a ticket, and tickets are settled in their order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::elements::Changes;
use crate::flow::Flow;
use crate::rules::key::ANY_TUNNEL;
use crate::tunnel::{IPV4_INSIDE, IPV6_INSIDE};

/// Changes of one transaction: at 17,000 permissions coming and going a second so many cost 5 % of a processor, and no packet waits.
pub(super) const AT_ONCE: usize = 170;
/// Permissions that have ended and are forgotten with each transaction: more than come with one, so that they do not pile up.
const ENDED_AT_ONCE: usize = 2 * AT_ONCE;
/// How long a change waits for rules that do not stand, which somebody puts back meanwhile: that takes milliseconds, and seconds on a
/// machine that has no time.
const PATIENCE: Duration = Duration::from_secs(10);
/// Refusals that are kept for who asked. Whoever does not ask soon takes his request for carried out, which harms no packet.
const MOST_REFUSALS: usize = 1024;

/// What the kernel tells permissions apart by: source, destination, SPI.
pub type Association = (IpAddr, IpAddr, u32);

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

/// What follows when the kernel has refused changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// They are told again, otherwise.
    AtOnce,
    /// They are told again, later.
    AfterAWhile,
    /// They are given up: until when these permissions stand now, if they do.
    Without(Vec<(Association, Option<Instant>)>),
}

/// The state.
#[derive(Debug, Clone)]
pub(super) struct Book {
    most: usize,
    known: BTreeMap<Association, Known>,
    ends: BTreeSet<(Instant, Association)>,
    /// The associations of each flow, and of all tunnels of a source, and until when that itself stands.
    flows: BTreeMap<Flow, (Vec<Association>, Option<Instant>)>,
    /// What has ended and is forgotten here: who stands before the rules has yet to be told.
    ended: VecDeque<Association>,
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
            ended: VecDeque::new(),
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
            self.forget_ended(now, ENDED_AT_ONCE);
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
        self.forget_ended(now, usize::MAX);
        for (_, told) in self.flows.values_mut() {
            *told = None;
        }
        // What is under way may go into the table that is no more.
        self.put_back();
        self.ended.extend(std::mem::take(&mut self.sent).ended);
        let ticket = self.settled;
        // Of an earlier time something may be left, where the kernel is slow and tables come and go.
        self.changed.retain(|changed| changed.ticket > ticket);
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
        self.forget_ended(now, ENDED_AT_ONCE);
        let ended = self.ended.drain(..ENDED_AT_ONCE.min(self.ended.len()));
        // What has come back since stands again, or is told to.
        let ended = ended.filter(|association| !self.known.contains_key(association)).collect();
        let live = |ends: Option<Instant>| ends.filter(|ends| *ends > now);
        let mut changes = Changes { ended, careful: self.manner != Manner::Trusting, ..Changes::default() };
        for Changed { association, flow, .. } in &self.under_way {
            if let Some(known) = self.known.get(association) {
                changes.associations.insert(*association, (live(known.told), live(known.ends)));
            }
            for flow in entries(flow, association.2) {
                // Once for all of them: a source may have many tunnels.
                changes.flows.entry(flow).or_insert_with(|| {
                    let (associations, told) = self.flows.get(&flow).map_or((&[][..], None), |(of, told)| (of, *told));
                    let ends = associations.iter().filter_map(|association| live(self.known.get(association)?.ends)).max();
                    (live(told), ends)
                });
            }
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
            self.drop_if_nobodys(&flow);
        }
        self.missing_since = None;
        self.advance();
    }

    /// The kernel has refused the changes, all of them; `missing` says that there is nothing to change.
    pub(super) fn fail(&mut self, missing: bool, why: &str, now: Instant) -> Next {
        self.ended.extend(std::mem::take(&mut self.sent.ended));
        let since = missing.then(|| *self.missing_since.get_or_insert(now));
        if self.manner == Manner::Trusting {
            self.manner = Manner::Careful;
            self.put_back();
            return Next::AtOnce;
        }
        if since.is_some_and(|since| now.saturating_duration_since(since) < PATIENCE) {
            self.put_back();
            return Next::AfterAWhile;
        }
        if self.under_way.len() > 1 {
            self.manner = Manner::Alone(self.under_way.len());
            self.put_back();
            return Next::AtOnce;
        }
        let refused = self.under_way.clone();
        let mut stands = Vec::new();
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
                let until = told.filter(|_| ends.is_some());
                self.put(association, flow, until);
                stands.push((association, until));
            }
            self.drop_if_gone(&association);
        }
        self.advance();
        Next::Without(stands)
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

    /// What has ended the rules have forgotten by themselves. What they still have, since it was to end later, is yet to be told.
    fn forget_ended(&mut self, now: Instant, most: usize) {
        let ended = self.ends.iter().take_while(|(ends, _)| *ends <= now).map(|(_, association)| *association);
        let has_gone =
            |association: &Association| self.known.get(association).is_none_or(|known| known.told.is_none_or(|told| told <= now));
        let ended: Vec<Association> = ended.filter(has_gone).take(most).collect();
        for association in ended {
            if let Some(known) = self.take(&association) {
                self.drop_entries_if_gone(&known.flow, association.2);
            }
            self.ended.push_back(association);
        }
    }

    fn take(&mut self, association: &Association) -> Option<Known> {
        let known = self.known.remove(association)?;
        if let Some(ends) = known.ends {
            self.ends.remove(&(ends, *association));
        }
        for flow in entries(&known.flow, association.2) {
            if let Some((associations, _)) = self.flows.get_mut(&flow) {
                associations.retain(|of| of != association);
            }
        }
        Some(known)
    }

    /// Writes down until when a permission is to stand; what the kernel has of it stays as it is.
    fn put(&mut self, association: Association, flow: Flow, ends: Option<Instant>) {
        let former = self.take(&association);
        for flow in entries(&flow, association.2) {
            self.flows.entry(flow).or_default().0.push(association);
        }
        self.ends.extend(ends.map(|ends| (ends, association)));
        let told = former.as_ref().and_then(|former| former.told);
        self.known.insert(association, Known { flow, ends, told });
        if let Some(former) = former {
            self.drop_entries_if_gone(&former.flow, association.2);
        }
    }

    fn drop_if_gone(&mut self, association: &Association) {
        if self.known.get(association).is_some_and(|known| known.ends.is_none())
            && let Some(known) = self.take(association)
        {
            self.drop_entries_if_gone(&known.flow, association.2);
        }
    }

    fn drop_entries_if_gone(&mut self, flow: &Flow, spi: u32) {
        entries(flow, spi).for_each(|entry| self.drop_if_nobodys(&entry));
    }

    fn drop_if_nobodys(&mut self, entry: &Flow) {
        if self.flows.get(entry).is_some_and(|(associations, _)| associations.is_empty()) {
            self.flows.remove(entry);
        }
    }
}

/// What the kernel knows of a flow: itself, and of a tunnel besides its source, to which errors about the flows inside go, and its SPI, by
/// which its packets are told from others whatever stands in front of what is inside ([`key::tunnel`](crate::rules::key::tunnel)).
fn entries(flow: &Flow, spi: u32) -> impl Iterator<Item = Flow> + use<> {
    let is_tunnel = matches!(flow.protocol, IPV4_INSIDE | IPV6_INSIDE);
    let none = if flow.source.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let of_its_source = Flow { destination: none, protocol: ANY_TUNNEL, source_port: 0, destination_port: 0, ..*flow };
    let [a, b, c, d] = spi.to_be_bytes();
    let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    // No tunnel has ports, and no SPI is 0.
    let of_its_spi = Flow { protocol: ANY_TUNNEL, source_port: high, destination_port: low, ..*flow };
    std::iter::once(*flow).chain([of_its_source, of_its_spi].into_iter().filter(move |_| is_tunnel))
}

#[cfg(test)]
mod tests;
