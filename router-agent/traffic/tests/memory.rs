//! What a permission takes up in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::net::IpAddr;

use smoltcp::time::{Duration, Instant};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::flow::Flow;
use traffic::replay::{DEFAULT_SIZE, MIN_SIZE};
use traffic::table::inbound::{self, InboundTable};
use traffic::update::{Grant, Update};

const ENTRIES: u32 = 100_000;
/// What the allocator gives out at the least, for the window of a few numbers.
const LEAST: usize = 32;

/// The bounds that the documentation of the table states; with what the allocator needs for itself. One test, since each counts all that this
/// process holds.
#[test]
fn a_permission_takes_256_octets_without_window_and_key_and_512_with_those_of_hmac_sha_256() {
    let algorithm = MacAlgorithm::HmacSha256_128;
    let one = IcvKey::new(algorithm, &[1; 32]).unwrap();
    let (bare, _first) = held(MIN_SIZE, |_| one.clone());
    let (whole, mut table) = held(DEFAULT_SIZE, |number| key(algorithm, number));
    let (gmac, _third) = held(DEFAULT_SIZE, |number| key(MacAlgorithm::Aes128Gmac, number));
    eprintln!("without window and key: {bare} octets with {LEAST} for the least window; with both: {whole}; with those of GMAC: {gmac}");
    assert!(bare <= 256 + LEAST, "{bare}");
    assert!(whole <= 512, "{whole}");
    assert!(gmac <= 768, "{gmac}");

    // Their places are used again, whoever comes; and what ends, ends without a search.
    let before = resident();
    let now = Instant::from_secs(1_000_000) + Duration::from_secs(11);
    table.handle_timeout(now);
    assert!(table.is_empty() && table.poll_timeout().is_none());
    fill(&mut table, ENTRIES, |number| key(algorithm, number), now);
    let grown = resident().saturating_sub(before) / ENTRIES as usize;
    assert!(grown <= 64, "{grown} octets an entry for those that came instead of others");
}

/// Octets that the process holds for each of many permissions, and the table.
fn held(window: u32, key: impl Fn(u32) -> IcvKey) -> (usize, InboundTable) {
    let before = resident();
    let mut table = InboundTable::new(ENTRIES as usize, inbound::window(window, false).unwrap(), None);
    fill(&mut table, 0, key, Instant::ZERO);
    ((resident() - before) / ENTRIES as usize, table)
}

fn fill(table: &mut InboundTable, first: u32, key: impl Fn(u32) -> IcvKey, now: Instant) {
    for number in first..first + ENTRIES {
        let destination: IpAddr = std::net::Ipv4Addr::from(0x0a00_0000 + number / 16).into();
        let flow = Flow { source: [192, 0, 2, 1].into(), destination, protocol: 17, source_port: number as u16, destination_port: 9000 };
        let expires_at = now + Duration::from_secs(1_000_000);
        let grant = Grant { flow, spi: 4096 + number, key: key(number), allowed: 1 << 50, counted: 0, highest: 0, expires_at };
        table.apply(Update::Install { token: 1, grant }, now).unwrap();
    }
    assert_eq!(table.len(), ENTRIES as usize);
}

fn key(algorithm: MacAlgorithm, number: u32) -> IcvKey {
    let octets: Vec<u8> = number.to_be_bytes().into_iter().cycle().take(algorithm.key_len()).collect();
    IcvKey::new(algorithm, &octets).unwrap()
}

/// What the process holds in memory: the second figure of `statm`, in pages.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    4096 * text.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
}
