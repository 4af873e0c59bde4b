//! One level of turns: a class has members, which are classes themselves, or at the lowest level messages.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

use gist::api::{Principal, ReceivedMessage};

use super::{ENTRY_OCTETS, MESSAGE_COST, SIGNATURE_COST};

/// Levels below the whole queue: peer, host that a message comes from, host at the other end.
pub(super) const LEVELS: usize = 3;

/// How many members without messages are remembered at each level for what they have had beyond their turn. Who is forgotten owes
/// nothing itself; the class above it still does.
const RESTING: [usize; LEVELS] = [256, 64, 0];

/// What each member may cost in a round: an ordinary Query of a signer whose certificate is known.
const QUANTUM: u64 = (MESSAGE_COST + SIGNATURE_COST) as u64;

/// Name of a member within its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Name {
    Peer(Principal),
    Host(IpAddr),
}

/// Messages of one name, divided by further names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Class {
    /// What it has cost beyond its turn.
    debt: u64,
    /// Octets that its messages count for.
    octets: usize,
    /// Its place among the turns of the class that it is a member of.
    place: u64,
    /// Messages, at the lowest level.
    waiting: VecDeque<ReceivedMessage>,
    /// Members, at all others.
    members: BTreeMap<Name, Box<Class>>,
    /// All members, in the order of their turns.
    turns: BTreeMap<u64, Name>,
    /// Places given so far.
    places: u64,
    /// Those that have messages, by octets.
    by_octets: BTreeSet<(usize, Name)>,
}

impl Class {
    /// Octets that its messages count for.
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// Takes a message in for the member that `path` leads to.
    pub(super) fn push(&mut self, path: &[Name], message: ReceivedMessage) {
        self.octets += counted(&message);
        let Some((name, rest)) = path.split_first() else {
            return self.waiting.push_back(message);
        };
        let (places, turns) = (&mut self.places, &mut self.turns);
        let member = self.members.entry(*name).or_insert_with(|| {
            *places += 1;
            turns.insert(*places, *name);
            Box::new(Self { place: *places, ..Self::default() })
        });
        let before = member.octets;
        member.push(rest, message);
        let after = member.octets;
        self.reorder(*name, before, after);
    }

    /// Takes out the message whose turn it is; `level` 0 is the whole queue.
    pub(super) fn pop(&mut self, level: usize) -> Option<ReceivedMessage> {
        if self.octets == 0 {
            return None;
        }
        let message = if level == LEVELS { self.waiting.pop_front() } else { self.pop_member(level) };
        self.octets = self.octets.saturating_sub(message.as_ref().map_or(0, counted));
        if self.octets == 0 {
            // Whoever waits no more here competes with nobody here.
            (self.members, self.turns) = Default::default();
        }
        message
    }

    /// Whoever has had less than its turn stays in front; who has had more goes to the back, and its debt is less by a turn.
    fn pop_member(&mut self, level: usize) -> Option<ReceivedMessage> {
        let mut passed_over = 0;
        while let Some((_, &name)) = self.turns.first_key_value() {
            if passed_over > self.turns.len() {
                self.pass_rounds();
                passed_over = 0;
            }
            let member = self.members.get_mut(&name)?;
            if member.debt >= QUANTUM {
                member.debt -= QUANTUM;
                self.put_back(name);
                passed_over += 1;
                continue;
            }
            let before = member.octets;
            let message = member.pop(level + 1);
            let after = member.octets;
            self.reorder(name, before, after);
            if before == 0 || (after == 0 && self.resting() > RESTING.get(level).copied().unwrap_or(0)) {
                self.forget(name);
            }
            if message.is_some() {
                return message;
            }
        }
        None
    }

    fn put_back(&mut self, name: Name) {
        if let Some(member) = self.members.get_mut(&name) {
            self.turns.remove(&member.place);
            self.places += 1;
            member.place = self.places;
            self.turns.insert(self.places, name);
        }
    }

    /// When all are in debt, nobody has to wait for anybody: as many rounds pass at once as the first to be served needs.
    fn pass_rounds(&mut self) {
        let waiting = self.by_octets.iter().filter_map(|(_, name)| self.members.get(name));
        let rounds = waiting.map(|member| member.debt / QUANTUM).min().unwrap_or(0);
        for member in self.members.values_mut() {
            member.debt = member.debt.saturating_sub(rounds.saturating_mul(QUANTUM));
        }
    }

    /// Charges the members that `path` leads to.
    pub(super) fn charge(&mut self, path: &[Name], cost: u32) {
        self.debt = self.debt.saturating_add(cost.into());
        if let Some((name, rest)) = path.split_first()
            && let Some(member) = self.members.get_mut(name)
        {
            member.charge(rest, cost);
        }
    }

    /// Gives up the newest message of whoever takes up most.
    pub(super) fn give_up(&mut self) -> Option<ReceivedMessage> {
        let message = match self.by_octets.last().copied() {
            None => self.waiting.pop_back(),
            Some((before, name)) => {
                let member = self.members.get_mut(&name)?;
                let message = member.give_up();
                let (after, debt) = (member.octets, member.debt);
                self.reorder(name, before, after);
                if after == 0 && debt == 0 {
                    self.forget(name);
                }
                message
            }
        };
        self.octets = self.octets.saturating_sub(message.as_ref().map_or(0, counted));
        message
    }

    /// Members without messages.
    fn resting(&self) -> usize {
        self.members.len().saturating_sub(self.by_octets.len())
    }

    fn forget(&mut self, name: Name) {
        if let Some(member) = self.members.remove(&name) {
            self.turns.remove(&member.place);
        }
    }

    fn reorder(&mut self, name: Name, before: usize, after: usize) {
        self.by_octets.remove(&(before, name));
        if after > 0 {
            self.by_octets.insert((after, name));
        }
    }
}

fn counted(message: &ReceivedMessage) -> usize {
    message.payload.len() + ENTRY_OCTETS
}
