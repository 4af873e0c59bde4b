//! Packets with AH that a node on the path has changed, on a real link into a real router: every one is dropped for a reason that is
//! counted, none arrives, and the flow goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pbs_lab::attack::injector::Injector;
use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::topology::{LEFT_LINK, SENDER, SENDER_LINK};
use smoltcp::wire::Ipv4Packet;

use crate::garbage::Living;
use crate::support::daemon::{Daemon, wait_until};

/// Octets of the IPv4 header; AH begins behind it.
const AH: usize = 20;
/// Octets of the AH of HMAC-SHA-256-128.
const AH_LEN: usize = 28;
/// Where its number ends.
const NUMBER: usize = AH + 11;

#[test]
fn no_packet_changed_on_its_way_passes_a_router_and_each_is_counted() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let living = Living::build();
    let before = living.tables();
    let chain = &living.site.chain;
    let capture = Capture::start(&chain.router, LEFT_LINK, Instant::now()).unwrap();
    living.must_be_as_before(&before);
    let genuine = capture.look(|frames| {
        let sealed = |ip: &&[u8]| frame::read(ip).is_some_and(|seen| seen.source == SENDER && seen.authentication.is_some());
        frames.iter().filter_map(|frame| frame.ip()).rfind(sealed).expect("a packet under AH").to_vec()
    });
    let changed = changed(&genuine);
    let injector = Injector::new(&chain.sender, SENDER_LINK, &chain.router, LEFT_LINK).unwrap();
    let (counted, accepted) = (drops(&living.router), accepted(&living.router));
    for packets in changed.chunks(32) {
        injector.send(packets).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let all = |drops: &BTreeMap<String, u64>| drops.values().sum::<u64>();
    wait_until("every one is counted", || all(&drops(&living.router)) >= all(&counted) + changed.len() as u64);
    let after = drops(&living.router);
    assert_eq!(all(&after) - all(&counted), changed.len() as u64, "each once");
    for reason in ["replayed", "bad_icv", "unknown_spi", "flow_mismatch", "malformed", "missing_ah", "too_far_ahead"] {
        let more = after.get(reason).unwrap_or(&0) - counted.get(reason).unwrap_or(&0);
        assert!(more > 0, "{reason} is a reason that occurs: {after:?}");
    }
    assert_eq!(self::accepted(&living.router), accepted, "none passes");
    assert_eq!(living.arrived(), 0, "none arrives");
    living.must_be_as_before(&before);
}

/// Every bit of AH and of what it protects, under the number of the packet and under one that is new; cut anywhere; without AH, with two.
fn changed(genuine: &[u8]) -> Vec<Vec<u8>> {
    let mut newer = genuine.to_vec();
    newer[NUMBER] = newer[NUMBER].wrapping_add(9);
    let mut all = vec![genuine.to_vec(), newer.clone()];
    for octet in AH..genuine.len() {
        for packet in [genuine, &newer] {
            let mut changed = packet.to_vec();
            changed[octet] ^= 1 << (octet % 8);
            // Another number may be a good one again, if nothing else is changed.
            if changed != genuine {
                all.push(changed);
            }
        }
    }
    all.extend((AH + 8..genuine.len()).map(|length| finished(newer[..length].to_vec())));
    let mut bare = [&genuine[..AH], &genuine[AH + AH_LEN..]].concat();
    bare[9] = genuine[AH];
    let mut twice = [&newer[..AH + AH_LEN], &newer[AH..]].concat();
    twice[AH] = 51;
    all.extend([finished(bare), finished(twice), finished([&newer[..], &[0; 50]].concat())]);
    all
}

/// With the length and checksum that it has now.
fn finished(mut packet: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(packet.len()).unwrap();
    let mut header = Ipv4Packet::new_unchecked(&mut packet);
    header.set_total_len(length);
    header.fill_checksum();
    packet
}

/// Packets that the router has dropped, by reason.
fn drops(router: &Daemon) -> BTreeMap<String, u64> {
    let counters = router.ask("counters");
    let reasons = counters["data"]["dropped"].as_array().unwrap();
    reasons.iter().map(|entry| (entry["reason"].as_str().unwrap().to_owned(), entry["packets"].as_u64().unwrap())).collect()
}

fn accepted(router: &Daemon) -> u64 {
    router.ask("counters")["data"]["accepted"]["packets"].as_u64().unwrap()
}
