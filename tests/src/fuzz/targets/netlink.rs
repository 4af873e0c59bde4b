//! What the kernel says over netlink: packets from its queue, routes, links, neighbours, rules, and what stands in the packet filter.
//!
//! The first octet of an input says who reads the rest.

use traffic::heard::{Heard, READERS, hear};
use traffic::netlink::{Header, Writer};
use traffic::queue::{Deliveries, Delivery};

use crate::fuzz::mark;

/// Above every number of the kernel's.
const ABOVE: u64 = 1 << 32;
/// Octets of a message's header.
const HEADER: usize = 16;
/// Kinds of the packet queue (`linux/netfilter/nfnetlink_queue.h`).
const QUEUED: u16 = 3 << 8;
const FAILED: u16 = 2;

/// What kernels say, as made by hand from their headers.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut seed = |reader: usize, kind: u16, fixed: &[u8], fill: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::default();
        writer.message(Header { kind, flags: 0, sequence: 1 }, fixed, fill);
        let octets = writer.finish().unwrap_or_default();
        seeds.push([vec![reader as u8], octets].concat());
    };
    let of = |name: &str| READERS.iter().position(|(reader, _)| *reader == name).unwrap_or(0);
    let link = [0, 0, 1, 0, 2, 0, 0, 0, 0x43, 0x10, 1, 0, 0, 0, 0, 0];
    for name in ["what a link carries", "whether a link is up"] {
        seed(of(name), 16, &link, &|writer| {
            writer.put_text(3, "eth1");
            writer.put_u32(4, 1500);
            writer.nest(26, |families| families.nest(10, |ipv6| ipv6.put(2, &[0, 0, 0, 0, 0, 0, 0, 0, 0xdc, 5, 0, 0])));
        });
    }
    for name in ["a route", "the way to a destination"] {
        let fixed = [2, 24, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
        seed(of(name), 24, &fixed, &|writer| {
            writer.put_u32(15, 254);
            writer.put(1, &[192, 0, 2, 0]);
            writer.put(5, &[203, 0, 113, 1]);
            writer.put_u32(4, 2);
            writer.nest(8, |metrics| {
                metrics.put_u32(1, 4);
                metrics.put_u32(2, 1472);
            });
        });
        seed(of(name), 24, &fixed, &|writer| {
            let hop = |link: u8, last: u8| [16, 0, 1, 0, link, 0, 0, 0, 8, 0, 5, 0, 203, 0, 113, last];
            writer.put(9, &[hop(2, 1), hop(3, 2)].concat());
            writer.put(12, &[0; 32]);
        });
        seed(of(name), 24, &fixed, &|writer| {
            writer.put(18, &[10, 0, 0xfd, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            writer.put_u32(4, 2);
            writer.put_u32(30, 7);
        });
    }
    for name in ["a routing rule", "a routing rule of ways"] {
        seed(of(name), 32, &[2, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0], &|writer| {
            writer.put_u32(6, 0);
            writer.put_u32(15, 20_547);
            writer.put_u32(10, 0x0100_0000);
            writer.put_u32(16, 0x0700_0000);
            writer.put_u8(21, 81);
        });
    }
    seed(of("a neighbour"), 28, &[2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 1], &|writer| {
        writer.put(1, &[203, 0, 113, 1]);
        writer.put(2, &[2, 0, 0, 0, 0, 1]);
    });
    let filter = [2, 0, 0, 1];
    seed(of("a table of the filter"), 0x0a00, &filter, &|writer| writer.put_text(1, "pbs-router"));
    for name in ["a counter of the filter", "an entry of the filter", "a change of the filter"] {
        seed(of(name), 0x0a06, &filter, &|writer| {
            writer.put_text(1, "pbs-router");
            writer.put_text(2, "forward");
            writer.put(3, &7_u64.to_be_bytes());
            writer.nest(4, |expressions| {
                expressions.nest(1, |element| {
                    element.put_text(1, "counter");
                    element.nest(2, |data| {
                        data.put(1, &1000_u64.to_be_bytes());
                        data.put(2, &10_u64.to_be_bytes());
                    });
                });
            });
            writer.put(7, b"\0\x05name\0");
        });
    }
    seed(of("peers in a set of the filter"), 0x0a0c, &filter, &|writer| {
        writer.nest(3, |elements| {
            elements.nest(1, |element| {
                element.nest(1, |key| key.put(1, &[198, 51, 100, 1]));
                element.put(5, &5000_u64.to_be_bytes());
            });
        });
    });
    seed(of("a change of the filter"), 0x0a0f, &filter, &|writer| {
        writer.put_be32(2, 99);
        writer.put_text(3, "nft");
    });
    seed(of("a route"), FAILED, &(-2_i32).to_ne_bytes(), &|_| {});
    seed(READERS.len(), QUEUED, &[2, 0, 0, 2], &|writer| {
        writer.put(1, &[0, 0, 0, 7, 8, 0, 0]);
        writer.put_be32(3, 80);
        writer.put_be32(5, 2);
        writer.put(10, &[0x45, 0, 0, 20, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 2]);
        writer.put_be32(13, 1500);
    });
    seeds
}

/// What is read of the queue lies in what came and has the number that was in it; what is read of a route is written so that it is read
/// the same; no more entries come out than there are messages.
pub(super) fn take(input: &[u8]) -> u64 {
    let Some((first, octets)) = input.split_first() else { return 0 };
    let reader = usize::from(*first) % (READERS.len() + 1);
    match READERS.get(reader) {
        Some((name, reader)) => match hear(*reader, octets) {
            Ok(heard) => {
                assert!(!heard.contains(&Heard::Altered), "{name}: what is written of it is read otherwise");
                assert!(heard.len() <= octets.len() / HEADER, "{name}: more than was said");
                mark(&(name, heard.iter().take(4).collect::<Vec<_>>()))
            }
            Err(malformed) => mark(&(name, malformed.0)),
        },
        None => take_queued(octets),
    }
}

fn take_queued(octets: &[u8]) -> u64 {
    let lies_within = |payload: &[u8]| octets.as_ptr_range().contains(&payload.as_ptr()) && payload.len() <= octets.len();
    let mut marks = Vec::new();
    for (count, delivery) in Deliveries::new(octets, ABOVE).enumerate() {
        assert!(count <= octets.len() / HEADER, "more than was delivered");
        marks.push(match delivery {
            Delivery::Packet(packet) => {
                assert!(packet.payload.is_empty() || lies_within(packet.payload), "a packet that was not delivered");
                assert_eq!(packet.id.0 & !u64::from(u32::MAX), ABOVE, "a number of another queue");
                assert_eq!(packet.is_cut(), packet.len > packet.payload.len());
                (0, u32::from(packet.hook.min(6)), packet.user.is_some(), packet.is_cut())
            }
            Delivery::Refused { .. } => (1, 0, false, false),
            Delivery::Unreadable { id } => (2, 0, id.is_some(), false),
        });
    }
    marks.truncate(4);
    mark(&marks)
}
