//! Who holds how much of what waits, so that room is made at the expense of the biggest holder.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::flow::Flow;
use crate::processor::UserId;
use crate::state::Map;

/// Whose packets they are. What the kernel names no user for (packets of its own, sockets already closed) shares one place.
pub(super) type Owner = Option<UserId>;

/// The flows that have waiting packets, by user and destination.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Holders {
    users: Map<Owner, Destinations>,
    by_weight: BTreeSet<(usize, Owner)>,
}

/// What one user's packets are for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Destinations {
    weight: usize,
    piles: Map<IpAddr, Pile>,
    /// Of equally heavy piles the one with the oldest packet comes last.
    by_weight: BTreeSet<(usize, Reverse<u64>, IpAddr)>,
}

/// What one user holds for one destination.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Pile {
    weight: usize,
    /// The age of the first packet of each flow; the smaller, the older.
    fronts: BTreeSet<(u64, Flow)>,
}

/// What has become of a flow.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    pub(super) owner: Owner,
    pub(super) flow: Flow,
    /// Weight that has come.
    pub(super) more: usize,
    /// Weight that has gone.
    pub(super) less: usize,
    /// Age of the packet that was its first, `None` if it had none.
    pub(super) front_before: Option<u64>,
    /// Age of the packet that is its first now, `None` if it has none.
    pub(super) front: Option<u64>,
}

impl Holders {
    /// Takes note of a change.
    pub(super) fn change(&mut self, change: Change) {
        let user = self.users.entry(change.owner).or_default();
        self.by_weight.remove(&(user.weight, change.owner));
        user.change(change);
        if user.piles.is_empty() {
            self.users.remove(&change.owner);
        } else {
            self.by_weight.insert((user.weight, change.owner));
        }
    }

    /// The flow with the oldest packet among those of the biggest holder: the user with the most, and of that user's
    /// destinations the one with the most.
    pub(super) fn biggest(&self) -> Option<Flow> {
        let (_, owner) = self.by_weight.last()?;
        let user = self.users.get(owner)?;
        let (_, _, destination) = user.by_weight.last()?;
        user.piles.get(destination)?.fronts.first().map(|(_, flow)| *flow)
    }
}

impl Destinations {
    fn change(&mut self, change: Change) {
        let destination = change.flow.destination;
        let pile = self.piles.entry(destination).or_default();
        if let Some(rank) = pile.rank(destination) {
            self.by_weight.remove(&rank);
        }
        self.weight = self.weight.saturating_add(change.more).saturating_sub(change.less);
        pile.weight = pile.weight.saturating_add(change.more).saturating_sub(change.less);
        if let Some(age) = change.front_before {
            pile.fronts.remove(&(age, change.flow));
        }
        if let Some(age) = change.front {
            pile.fronts.insert((age, change.flow));
        }
        match pile.rank(destination) {
            Some(rank) => {
                self.by_weight.insert(rank);
            }
            None => {
                self.piles.remove(&destination);
            }
        }
    }
}

impl Pile {
    fn rank(&self, destination: IpAddr) -> Option<(usize, Reverse<u64>, IpAddr)> {
        let (oldest, _) = self.fronts.first()?;
        Some((self.weight, Reverse(*oldest), destination))
    }
}
