//! What each flow has used up, over all its epochs: without it a sender that names an unknown SPI, or begins a new session,
//! would be given its volume anew each time.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gist::api::Principal;
use gist::time::Instant;

use crate::datapath::Token;
use crate::flow::FlowId;
use crate::shares::{Owner, Shares};
use crate::wire::Volume;

/// Whose volume: one flow of one signer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Account {
    pub(super) flow: FlowId,
    /// The sender's key.
    pub(super) key_hash: [u8; 32],
}

/// The accounts that have a live epoch, or had one within its time limit. None is given up before its time: when a peer has
/// no room for another account, its flow is refused.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Budgets {
    limit: usize,
    accounts: BTreeMap<Account, Spent>,
    /// Accounts without a live epoch, by when their last one stops counting.
    by_end: BTreeSet<(Instant, Account)>,
    shares: Shares,
    /// Epochs whose removal is under way.
    ending: BTreeMap<Token, Ending>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Spent {
    owner: Principal,
    /// AV of the epochs that have not ended, by SPI.
    open: BTreeMap<u32, u64>,
    past: VecDeque<Past>,
}

/// Bytes counted in an epoch that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Past {
    until: Instant,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Ending {
    account: Account,
    spi: u32,
    ttl: Duration,
}

/// Ended epochs kept apart; older ones count together, as long as the later of them.
const PAST_LIMIT: usize = 8;

impl Budgets {
    /// At most `limit` accounts.
    pub(super) fn new(limit: usize) -> Self {
        let (accounts, by_end, ending) = Default::default();
        Self { limit, accounts, by_end, shares: Shares::default(), ending }
    }

    /// Whether the flow's volume can be kept account of.
    pub(super) fn has_room(&mut self, account: &Account, owner: Principal, now: Instant) -> bool {
        self.forget_ended(now);
        self.accounts.contains_key(account) || self.shares.has_room(account.owned_by(owner), self.limit)
    }

    /// Begins an epoch; an account that there is no room for is not kept.
    pub(super) fn open(&mut self, account: Account, spi: u32, allowed: Volume, owner: Principal, now: Instant) {
        if !self.has_room(&account, owner, now) {
            return;
        }
        if let Some(end) = self.accounts.get(&account).and_then(Spent::end) {
            self.by_end.remove(&(end, account));
        }
        let spent = self.accounts.entry(account).or_insert_with(|| {
            self.shares.add(account.owned_by(owner));
            Spent { owner, open: BTreeMap::new(), past: VecDeque::new() }
        });
        spent.open.insert(spi, allowed.0);
    }

    /// Takes note of a changed AV.
    pub(super) fn allow(&mut self, account: &Account, spi: u32, allowed: Volume) {
        if let Some(reserved) = self.accounts.get_mut(account).and_then(|spent| spent.open.get_mut(&spi)) {
            *reserved = allowed.0;
        }
    }

    /// Takes note that an epoch is being removed. What it counted will count for `ttl`.
    pub(super) fn end(&mut self, token: Token, account: Account, spi: u32, ttl: Duration) {
        self.ending.insert(token, Ending { account, spi, ttl });
    }

    /// Takes the final counter of an epoch.
    pub(super) fn ended(&mut self, token: Token, counted: Volume, now: Instant) {
        let Some(Ending { account, spi, ttl }) = self.ending.remove(&token) else {
            return;
        };
        let Some(spent) = self.accounts.get_mut(&account).filter(|spent| spent.open.contains_key(&spi)) else {
            return;
        };
        spent.open.remove(&spi);
        if !counted.is_zero() {
            spent.add(Past { until: now + ttl, bytes: counted.0 });
        }
        match spent.end() {
            _ if !spent.open.is_empty() => {}
            Some(end) => drop(self.by_end.insert((end, account))),
            None => self.close(&account),
        }
    }

    /// Whether an epoch of the account has not ended.
    pub(super) fn is_open(&self, account: &Account) -> bool {
        self.accounts.get(account).is_some_and(|spent| !spent.open.is_empty())
    }

    /// What is left of a limit, not counting the epoch `besides`. All that an epoch may still count is taken as counted.
    pub(super) fn left(&self, account: &Account, besides: Option<u32>, limit: Volume, now: Instant) -> Volume {
        let Some(spent) = self.accounts.get(account) else {
            return limit;
        };
        let open = spent.open.iter().filter(|(spi, _)| Some(**spi) != besides).map(|(_, allowed)| *allowed);
        let past = spent.past.iter().filter(|past| past.until > now).map(|past| past.bytes);
        Volume(open.chain(past).fold(limit.0, u64::saturating_sub))
    }

    fn forget_ended(&mut self, now: Instant) {
        while let Some(&(end, account)) = self.by_end.first()
            && end <= now
        {
            self.by_end.pop_first();
            self.close(&account);
        }
    }

    fn close(&mut self, account: &Account) {
        if let Some(spent) = self.accounts.remove(account) {
            self.shares.remove(account.owned_by(spent.owner));
        }
    }
}

impl Account {
    /// Whose part of the table it takes up, if it came from this peer.
    fn owned_by(&self, peer: Principal) -> Owner {
        Owner { peer, signer: self.key_hash }
    }
}

impl Spent {
    /// When the last epoch that has ended stops counting.
    fn end(&self) -> Option<Instant> {
        self.past.iter().map(|past| past.until).max()
    }

    fn add(&mut self, past: Past) {
        self.past.push_back(past);
        if self.past.len() > PAST_LIMIT
            && let Some(oldest) = self.past.pop_front()
            && let Some(next) = self.past.front_mut()
        {
            *next = Past { until: next.until.max(oldest.until), bytes: next.bytes.saturating_add(oldest.bytes) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(600);
    const LIMIT: Volume = Volume(1000);

    fn account(port: u16) -> Account {
        let flow = FlowId::new([192, 0, 2, 1].into(), [192, 0, 2, 2].into(), 17, 1, port).unwrap();
        Account { flow, key_hash: [1; 32] }
    }

    fn peer(name: u8) -> Principal {
        Principal([name; 32])
    }

    /// One epoch from its beginning to its end.
    fn epoch(budgets: &mut Budgets, port: u16, counted: u64, now: Instant) {
        let spi = u32::try_from(budgets.ending.len()).unwrap() + 300;
        budgets.open(account(port), spi, Volume(counted), peer(1), now);
        budgets.end(Token(7), account(port), spi, TTL);
        budgets.ended(Token(7), Volume(counted), now);
    }

    #[test]
    fn a_live_epoch_counts_in_full_and_an_ended_one_by_what_it_counted() {
        let mut budgets = Budgets::new(4);
        let start = Instant::ZERO;
        budgets.open(account(1), 300, Volume(400), peer(1), start);
        assert_eq!(budgets.left(&account(1), None, LIMIT, start), Volume(600));
        assert_eq!(budgets.left(&account(1), Some(300), LIMIT, start), LIMIT);
        budgets.allow(&account(1), 300, Volume(700));
        assert_eq!(budgets.left(&account(1), None, LIMIT, start), Volume(300));
        budgets.end(Token(1), account(1), 300, TTL);
        assert!(budgets.is_open(&account(1)), "until the packet side says so");
        budgets.ended(Token(1), Volume(250), start);
        assert!(!budgets.is_open(&account(1)));
        assert_eq!(budgets.left(&account(1), None, LIMIT, start), Volume(750));
        assert_eq!(budgets.left(&account(1), None, LIMIT, start + TTL), LIMIT);
        assert_eq!(budgets.left(&account(2), None, LIMIT, start), LIMIT, "another flow");
    }

    #[test]
    fn many_short_epochs_count_as_much_as_a_long_one_and_take_no_more_room() {
        let mut budgets = Budgets::new(4);
        for second in 0..100 {
            epoch(&mut budgets, 1, 10, Instant::from_micros(second * 1_000_000));
        }
        let now = Instant::from_micros(100_000_000);
        assert_eq!(budgets.left(&account(1), None, LIMIT, now), Volume(0));
        assert_eq!((budgets.accounts.len(), budgets.by_end.len()), (1, 1));
        assert_eq!(budgets.left(&account(1), None, LIMIT, now + TTL), LIMIT);
    }

    #[test]
    fn an_account_is_kept_for_its_time_and_not_longer_and_one_peer_gets_not_all_of_them() {
        let mut budgets = Budgets::new(8);
        let start = Instant::ZERO;
        for port in 1..=20 {
            epoch(&mut budgets, port, 1, start);
        }
        assert_eq!(budgets.accounts.len(), 6);
        assert!(!budgets.has_room(&account(21), peer(1), start));
        assert!(budgets.has_room(&account(1), peer(1), start), "known already");
        assert!(budgets.has_room(&account(21), peer(2), start));
        assert!(budgets.has_room(&account(21), peer(1), start + TTL));
        assert!(budgets.accounts.is_empty() && budgets.by_end.is_empty());
        assert_eq!(budgets.shares.total(), 0);
    }

    #[test]
    fn an_epoch_that_counted_nothing_leaves_nothing_behind() {
        let mut budgets = Budgets::new(4);
        epoch(&mut budgets, 1, 0, Instant::ZERO);
        assert!(budgets.accounts.is_empty() && budgets.by_end.is_empty());
    }
}
