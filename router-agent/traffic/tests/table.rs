//! The table of permissions at a router or receiver, beside one that is nothing but a list.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use proptest::prelude::*;
use smoltcp::time::{Duration, Instant};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::flow::Flow;
use traffic::replay::MIN_SIZE;
use traffic::table::LINGER;
use traffic::table::inbound::{self, InboundTable};
use traffic::update::{Grant, Refusal, Update};

/// What there is in the naive table: flow, SPI, end, whether it drains; the oldest first.
type Known = Vec<(Flow, u32, Instant, bool)>;

fn table(capacity: usize) -> InboundTable {
    InboundTable::new(capacity, inbound::window(MIN_SIZE, false).unwrap(), None)
}

/// Flows to four destinations of both families, two to each.
fn flow(number: u8) -> Flow {
    let destination: IpAddr =
        if number & 4 == 0 { [192, 0, 2, number & 1].into() } else { [0x2001, 0, 0, 0, 0, 0, 0, u16::from(number & 1)].into() };
    Flow { source: destination, destination, protocol: 17, source_port: u16::from(number), destination_port: 9000 }
}

fn key() -> IcvKey {
    IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap()
}

fn grant(flow: Flow, spi: u32, expires_at: Instant, key: &IcvKey) -> Update {
    let grant = Grant { flow, spi, key: key.clone(), allowed: 1000, counted: 0, highest: 0, expires_at };
    Update::Install { token: 1, grant }
}

fn hash(table: &InboundTable) -> u64 {
    let mut hasher = DefaultHasher::new();
    table.hash(&mut hasher);
    hasher.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn it_holds_what_a_list_would_hold_whatever_comes_changes_ends_and_goes(
        steps in proptest::collection::vec((0_u8..6, 0_u8..8, 0_u32..4, 0_u64..40), 1..120),
    ) {
        const CAPACITY: usize = 10;
        let (mut table, mut known, key) = (table(CAPACITY), Known::new(), key());
        let mut now = Instant::from_secs(1000);
        for (what, number, spi, seconds) in steps {
            let (flow, spi, ends) = (flow(number), 256 + spi, now + Duration::from_secs(seconds));
            let own = known.iter().position(|(of, is, ..)| (*of, *is) == (flow, spi));
            match what {
                0 | 1 => {
                    let got = table.apply(grant(flow, spi, ends, &key), now).map_err(|refused| refused.why);
                    let taken = known.iter().any(|(of, is, ..)| of.destination == flow.destination && *is == spi && *of != flow);
                    let others: Vec<usize> = (0..known.len()).filter(|at| known[*at].0 == flow).collect();
                    let expected = if taken {
                        Err(Refusal::SpiTaken)
                    } else if let Some(own) = own {
                        known[own].2 = ends;
                        Ok(())
                    } else {
                        let draining = others.iter().copied().find(|at| known[*at].3);
                        if others.len() == 2 && draining.is_none() {
                            Err(Refusal::TableFull)
                        } else {
                            if others.len() == 2 {
                                known.remove(draining.unwrap());
                            }
                            if known.len() < CAPACITY {
                                known.push((flow, spi, ends, false));
                                Ok(())
                            } else {
                                Err(Refusal::TableFull)
                            }
                        }
                    };
                    prop_assert_eq!(got.map(|_| ()), expected);
                }
                2 => {
                    let update = Update::Update { token: 1, flow, spi, allowed: 1000, expires_at: ends };
                    prop_assert_eq!(table.apply(update, now).is_ok(), own.is_some());
                    own.into_iter().for_each(|own| known[own].2 = ends);
                }
                3 => {
                    prop_assert_eq!(table.apply(Update::Drain { token: 1, flow, spi, until: ends }, now).is_ok(), own.is_some());
                    if let Some(own) = own {
                        known[own] = (flow, spi, known[own].2.min(ends), true);
                    }
                }
                4 => {
                    table.apply(Update::Remove { token: 1, flow, spi }, now).unwrap();
                    if let Some(own) = own {
                        known.remove(own);
                    }
                }
                _ => {
                    now += Duration::from_secs(seconds);
                    table.handle_timeout(now);
                    known.retain(|(_, _, ends, _)| *ends + LINGER > now);
                }
            }
            prop_assert_eq!(table.len(), known.len());
            prop_assert_eq!(table.poll_timeout(), known.iter().map(|(_, _, ends, _)| *ends + LINGER).min());
            for number in 0..8 {
                let flow = self::flow(number);
                prop_assert_eq!(table.covers(&flow), known.iter().any(|(of, ..)| *of == flow));
                for spi in 256..260 {
                    let expected = known.iter().find(|(of, is, ..)| of.destination == flow.destination && *is == spi);
                    let found = table.get((flow.destination, spi));
                    let found = found.map(|entry| (entry.flow, entry.association.spi(), entry.expires_at, entry.draining));
                    prop_assert_eq!(found, expected.copied());
                }
            }
        }
        // One that was filled with the same in one go, and so lies otherwise, is equal and hashes alike.
        let mut other = self::table(CAPACITY);
        for (flow, spi, ends, draining) in &known {
            other.apply(grant(*flow, *spi, *ends, &key), now).unwrap();
            if *draining {
                other.apply(Update::Drain { token: 1, flow: *flow, spi: *spi, until: *ends }, now).unwrap();
            }
        }
        prop_assert_eq!(hash(&table), hash(&other));
        prop_assert!(table == other);
    }
}

#[test]
fn a_place_that_another_permission_has_now_is_not_taken_for_the_one_that_was_there() {
    let (mut table, key, now) = (table(10), key(), Instant::from_secs(1));
    let ends = now + Duration::from_secs(1000);
    let (first, second) = (flow(0), flow(1));
    table.apply(grant(first, 256, ends, &key), now).unwrap();
    let (keys, mut places) = ([Some((first.destination, 256)), None, Some((second.destination, 257))], [None; 3]);
    table.locate(&keys, &mut places);
    assert!(places[0].is_some() && places[1..] == [None; 2]);
    assert_eq!(table.get_at(places[0], (first.destination, 256)).unwrap().flow, first);

    // Removed: the next packet does not find it, and not the one that has its place either.
    table.apply(Update::Remove { token: 1, flow: first, spi: 256 }, now).unwrap();
    assert!(table.get_at(places[0], (first.destination, 256)).is_none());
    table.apply(grant(second, 257, ends, &key), now).unwrap();
    assert!(table.get_mut_at(places[0], (first.destination, 256)).is_none());
    assert_eq!(table.get_mut_at(places[0], (second.destination, 257)).unwrap().flow, second, "its place is used again");

    // Where nobody was asked, or was asked in vain, it is looked for.
    assert_eq!(table.get_at(None, (second.destination, 257)).unwrap().flow, second);
}
