//! Whose message is checked next, and who goes when there is no room (issue text "Flood of Queries"; X-82).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use gist::api::{PeerHandle, Principal, ReceivedMessage};
use gist::wire::{Direction, NslpId, PeerIdentity, SessionId};
use pbs_nslp::fair_queue::{ENTRY_OCTETS, FairQueue, MESSAGE_COST, SIGNATURE_COST};
use pbs_nslp::flow::FlowId;

const ORDINARY: u32 = MESSAGE_COST + SIGNATURE_COST;

fn address(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    [10, 0, high, low].into()
}

/// A message of `peer` about the flow from host `from` to host `to`, towards the receiver.
fn message(peer: u16, from: u16, to: u16, tag: u16) -> ReceivedMessage {
    let flow = FlowId::new(address(from), [172, 16, 0, to as u8 + 1].into(), 17, 1, 1).unwrap();
    let mut principal = [7; 32];
    principal[..2].copy_from_slice(&peer.to_be_bytes());
    ReceivedMessage {
        nslp_id: NslpId(32704),
        session: SessionId([1; 16]),
        mri: flow.to_mri(Direction::Downstream),
        payload: Bytes::copy_from_slice(&[&tag.to_be_bytes()[..], &[0; 1000]].concat()),
        association: None,
        peer: PeerIdentity::new(vec![1; 4]).unwrap(),
        peer_handle: PeerHandle([0; 16]),
        principal: Principal(principal),
        tentative: false,
        authenticated: true,
        hop_count: 60,
        ip_distance: None,
        reception: Default::default(),
    }
}

fn tag(message: &ReceivedMessage) -> u16 {
    u16::from_be_bytes([message.payload[0], message.payload[1]])
}

fn peer_of(message: &ReceivedMessage) -> u16 {
    u16::from_be_bytes([message.principal.0[0], message.principal.0[1]])
}

/// Serves `count` messages, each at the cost that `cost` gives it, and counts them by their tag.
fn serve(queue: &mut FairQueue, count: usize, cost: impl Fn(u16) -> u32) -> BTreeMap<u16, usize> {
    let mut served = BTreeMap::new();
    for _ in 0..count {
        let turn = queue.pop().unwrap();
        queue.charge(&turn.account, cost(tag(&turn.message)));
        *served.entry(tag(&turn.message)).or_insert(0) += 1;
    }
    served
}

#[test]
fn peers_take_turns_whatever_one_of_them_has_sent_before() {
    let mut queue = FairQueue::new(64 << 20);
    for _ in 0..1000 {
        queue.push(message(1, 1, 0, 1));
    }
    for n in 0..10 {
        queue.push(message(2, 2, n, 2));
    }
    assert_eq!(serve(&mut queue, 20, |_| ORDINARY), BTreeMap::from([(1, 10), (2, 10)]));
}

#[test]
fn hosts_behind_one_peer_take_turns_and_so_do_the_other_ends_of_one_host() {
    let mut queue = FairQueue::new(64 << 20);
    for _ in 0..1000 {
        queue.push(message(1, 1, 0, 1));
    }
    for host in 2..=10 {
        queue.push(message(1, host, 0, host));
    }
    let served = serve(&mut queue, 10, |_| ORDINARY);
    assert!((2..=10).all(|host| served[&host] == 1), "{served:?}");
    // An answer for somebody else waits for one of those before it, not for all.
    queue.push(message(1, 1, 9, 99));
    assert_eq!(serve(&mut queue, 2, |_| ORDINARY)[&99], 1);
}

#[test]
fn a_peer_that_makes_up_hosts_divides_its_own_turn() {
    let mut queue = FairQueue::new(64 << 20);
    for host in 1..=1000 {
        queue.push(message(1, host, 0, 1));
    }
    for host in 1..=100 {
        queue.push(message(2, 2000 + host, 0, 2));
    }
    assert_eq!(serve(&mut queue, 100, |_| ORDINARY), BTreeMap::from([(1, 50), (2, 50)]));
}

#[test]
fn turns_are_of_cost_and_not_of_messages() {
    // Host 1 signs with a key that costs sixteen times as much to verify.
    let mut queue = FairQueue::new(64 << 20);
    for _ in 0..500 {
        queue.push(message(1, 1, 0, 1));
        queue.push(message(1, 2, 0, 2));
        queue.push(message(1, 3, 0, 3));
    }
    let served = serve(&mut queue, 330, |tag| if tag == 1 { 16 * ORDINARY } else { ORDINARY });
    assert!((8..=12).contains(&served[&1]) && served[&2].abs_diff(served[&3]) <= 1, "{served:?}");
}

#[test]
fn who_sends_one_dear_message_at_a_time_does_not_escape_its_debt() {
    let mut queue = FairQueue::new(64 << 20);
    for _ in 0..500 {
        queue.push(message(1, 2, 0, 2));
        queue.push(message(1, 3, 0, 3));
    }
    let mut served = BTreeMap::<u16, usize>::new();
    let mut waits = false;
    for _ in 0..300 {
        if !waits {
            queue.push(message(1, 1, 0, 1));
            waits = true;
        }
        let turn = queue.pop().unwrap();
        let tag = tag(&turn.message);
        queue.charge(&turn.account, if tag == 1 { 16 * ORDINARY } else { ORDINARY });
        *served.entry(tag).or_default() += 1;
        waits &= tag != 1;
    }
    assert!(served[&1] <= 11, "{served:?}");
}

#[test]
fn a_debt_that_no_message_could_pay_off_holds_up_nobody() {
    let mut queue = FairQueue::new(64 << 20);
    for _ in 0..5 {
        queue.push(message(1, 1, 0, 1));
    }
    assert_eq!(serve(&mut queue, 5, |_| u32::MAX), BTreeMap::from([(1, 5)]));
    assert!(queue.is_empty() && queue.octets() == 0 && queue.pop().is_none());
}

#[test]
fn the_messages_of_one_session_keep_their_order() {
    let mut queue = FairQueue::new(64 << 20);
    for n in 0..50 {
        queue.push(message(1, 1, 0, n));
        queue.push(message(2, 2, 0, 1000 + n));
    }
    let mut last = [None, None];
    while let Some(turn) = queue.pop() {
        queue.charge(&turn.account, ORDINARY);
        let tag = tag(&turn.message);
        let last = &mut last[usize::from(tag >= 1000)];
        assert!(last.is_none_or(|last| last < tag));
        *last = Some(tag);
    }
}

#[test]
fn when_full_the_newest_goes_of_who_takes_up_most() {
    let entry = ENTRY_OCTETS + 1002;
    let mut queue = FairQueue::new(10 * entry);
    let gone: Vec<_> = (0..100).flat_map(|n| queue.push(message(1, 1, 0, n))).map(|gone| tag(&gone)).collect();
    assert_eq!(gone, (10..100).collect::<Vec<_>>(), "what came last");
    // Nobody else's: not by a peer's flood, and not by a host's behind the same peer.
    for (n, from) in [(1, 2), (1, 3), (2, 4), (3, 5)] {
        let gone = queue.push(message(n, from, 0, 1000));
        assert!(gone.iter().all(|gone| tag(gone) < 1000) && gone.len() == 1, "{gone:?}");
    }
    for host in 100..2000 {
        let gone = queue.push(message(1, host, 0, 2000));
        assert!(gone.iter().all(|gone| peer_of(gone) == 1), "{gone:?}");
    }
    assert_eq!((queue.len(), queue.octets(), queue.turned_away()), (10, 10 * entry, 90 + 4 + 1900));
    let served = serve(&mut queue, 10, |_| ORDINARY);
    assert!(served[&1000] >= 2, "{served:?}");
}

#[test]
fn a_queue_without_room_turns_everything_away() {
    let mut queue = FairQueue::new(0);
    assert_eq!(queue.push(message(1, 1, 0, 1)).len(), 1);
    assert!(queue.is_empty() && queue.pop().is_none());
}

#[test]
fn strangers_who_choose_their_names_share_one_turn() {
    let mut queue = FairQueue::new(64 << 20);
    for n in 1..=1000 {
        queue.push(ReceivedMessage { authenticated: false, ..message(n, n, 0, 1) });
    }
    for _ in 0..10 {
        queue.push(message(2000, 1, 0, 2));
    }
    assert_eq!(serve(&mut queue, 20, |_| ORDINARY), BTreeMap::from([(1, 10), (2, 10)]));
}

#[test]
fn the_queue_takes_up_no_more_memory_than_it_says() {
    // Each message is the only one of its peer and host: what costs most besides the payload. Then the debts of the forgotten.
    let limit = 64 << 20;
    let before = resident();
    let mut queue = FairQueue::new(limit);
    for n in 0..30_000_u16 {
        queue.push(message(n, n, n % 200, 1));
    }
    assert!(queue.turned_away() > 0 && queue.octets() <= limit);
    let used = resident().saturating_sub(before);
    assert!(used <= limit, "{used} octets are in use, {} were counted", queue.octets());
    for n in 0..30_000_u16 {
        if let Some(turn) = queue.pop() {
            queue.charge(&turn.account, 1000);
        }
        queue.push(message(n, n, n % 200, 1));
    }
    let used = resident().saturating_sub(before);
    assert!(used <= limit + (1 << 20), "{used} octets are in use, {} were counted", queue.octets());
}

/// Octets of memory that this process has in use.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}
