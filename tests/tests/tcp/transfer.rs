//! Files, one way and the other.

use std::time::Instant;

use pbs_lab::network::topology::{Family, MTU};
use pbs_lab::transfer::make_file;
use serde_json::Value;

use crate::site::{LARGE, SMALL, Site, Terms, give, take};

pub(crate) const FILE: usize = 10_000_000;

pub(crate) fn ten_megabytes_over_ipv4() {
    // Full size: the link's MTU less what the largest AH would need, plus the AH that is there.
    upload(Family::Ipv4, LARGE, MTU as usize - 76 + 28);
}

pub(crate) fn ten_megabytes_over_ipv6() {
    upload(Family::Ipv6, LARGE, MTU as usize - 80 + 32);
}

/// The file is ten times as large as what is granted at first (FS-33, FS-41, FR-32).
pub(crate) fn extended_forward() {
    upload(Family::Ipv4, SMALL, MTU as usize - 76 + 28);
}

/// Cut by the daemon, with the same on both links as if the kernel had done it, and far fewer packets in the sender's queues.
pub(crate) fn in_super_packets() {
    for (family, terms, full_size) in [
        (Family::Ipv4, LARGE, MTU as usize - 76 + 28),
        (Family::Ipv6, LARGE, MTU as usize - 80 + 32),
        (Family::Ipv4, SMALL, MTU as usize - 76 + 28),
    ] {
        let site = Site::start_with_super_packets();
        upload_over(&site, family, terms, full_size);
        let queues = site.chain.sender.run(|| std::fs::read_to_string("/proc/thread-self/net/netfilter/nfnetlink_queue")).unwrap();
        let came = |queue: &str| -> usize {
            let lines = queues.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines.filter(|columns| columns[0] == queue).map(|columns| columns[7].parse::<usize>().unwrap()).sum()
        };
        let (whole, cut) = (came("6"), came("3"));
        println!("  {family:?}: {whole} super-packets, {cut} packets that the kernel has cut");
        assert!(whole > 10, "{queues}");
        assert!(terms.volume < FILE as u64 || whole + cut < FILE / full_size / 2, "{queues}");
    }
}

fn upload(family: Family, terms: Terms, full_size: usize) {
    upload_over(&Site::start(), family, terms, full_size);
}

pub(crate) fn upload_over(site: &Site, family: Family, terms: Terms, full_size: usize) {
    let file = make_file(FILE).unwrap();
    let server = site.serve(family, terms.port, take);
    let (stream, connected) = site.connect(family, terms.port);
    let started = Instant::now();
    give(stream, &file).unwrap();
    assert!(server.join().unwrap().unwrap() == file, "the file did not arrive intact");
    let rate = FILE as f64 * 8.0 / 1e6 / started.elapsed().as_secs_f64();
    println!("  {family:?}: connected after {:.1} ms, {rate:.0} Mbit/s", connected.as_secs_f64() * 1e3);
    check_links(site, terms.port, full_size, true);
    check_permissions(site);
}

/// The client asks for a file: the flow it began carries the question, the reverse flow the file.
pub(crate) fn extended_reverse() {
    let site = Site::start();
    let file = make_file(FILE).unwrap();
    let sent = file.clone();
    let server = site.serve(Family::Ipv4, SMALL.port, move |stream| give(stream, &sent));
    let (stream, _) = site.connect(Family::Ipv4, SMALL.port);
    let started = Instant::now();
    assert!(take(stream).unwrap() == file, "the file did not come back intact");
    server.join().unwrap().unwrap();
    let rate = FILE as f64 * 8.0 / 1e6 / started.elapsed().as_secs_f64();
    println!("  Ipv4, back, from 256 KiB on: {rate:.0} Mbit/s");
    check_links(&site, SMALL.port, MTU as usize - 76 + 28, false);
    check_permissions(&site);
}

fn check_links(site: &Site, port: u16, full_size: usize, there: bool) {
    for capture in [&site.left, &site.right] {
        let seen = site.seen_in_the_end(capture, port);
        assert_eq!(capture.lost(), 0);
        let (with_file, answers) = if there { (&seen.there, &seen.back) } else { (&seen.back, &seen.there) };
        assert!(with_file.packets as usize >= FILE / full_size, "{seen:?}");
        assert!(answers.packets > 10, "{seen:?}");
        assert_eq!((seen.there.clear, seen.back.clear), (0, 0), "without AH: {seen:?}");
        assert_eq!(with_file.longest, full_size, "{seen:?}");
    }
}

/// Each host has one permission to send and one to be sent to, and no node has counted more than is allowed.
fn check_permissions(site: &Site) {
    for daemon in [&site.sender, &site.router, &site.receiver] {
        let flows = site.flows(daemon);
        assert_eq!(flows.len(), 2, "{flows:#?}");
        assert_ne!(flows[0]["session"], flows[1]["session"]);
        for flow in &flows {
            let number = |name: &str| flow[name].as_u64().unwrap_or_else(|| panic!("{flow:#}"));
            assert!(number("counted") <= number("allowed"), "{flow:#}");
            assert_ne!(flow["spi"], Value::Null);
        }
    }
}
