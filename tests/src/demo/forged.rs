//! What an attacker on the sender's link tries against a living permission.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use super::SETTLE;
use super::grant::to_port;
use super::line::Line;
use super::site::{ASSOCIATION_PORT, Site};
use crate::attack::packet;
use crate::network::capture::Frame;
use crate::network::frame;
use crate::network::topology::{RECEIVER, SENDER};

/// Packets of each attack.
const PACKETS: usize = 50;
/// The flow that is attacked: it has a permission from before.
const VICTIM: u16 = 9001;

/// Each attack is tried `PACKETS` times; none may arrive, each counts under its reason.
pub(super) fn attacks(site: &mut Site) -> io::Result<Vec<Line>> {
    let (from, to) = addresses()?;
    let genuine = captured(site)?;
    let udp = |port: u16, payload: &[u8]| vec![packet::udp(from, 20_000 + VICTIM, to, port, payload); PACKETS];
    let changed = |change: fn(&mut Vec<u8>)| -> Vec<Vec<u8>> {
        genuine
            .iter()
            .take(PACKETS)
            .cloned()
            .map(|mut packet| {
                change(&mut packet);
                packet
            })
            .collect()
    };
    let magic = [0x4e, 0x04, 0xbd, 0xa5];
    let foreign_query = [&magic[..], &[1, 16, 0, 0, 0x7f, 0xf0, 0x80, 0x40]].concat();
    Ok(vec![
        attack(site, "no-ah", "forged: no AH", &udp(VICTIM, b"no header"), "missing_ah")?,
        attack(site, "unknown-spi", "forged: AH with a made-up SPI", &changed(make_up_spi), "unknown_spi")?,
        attack(site, "wrong-key", "forged: AH with a wrong key", &changed(spoil_and_advance), "bad_icv")?,
        attack(site, "replayed", "replayed: a capture, bit by bit", &changed(|_| ()), "replayed")?,
        attack(site, "port-270", "UDP 270 without magic number", &udp(270, b"not GIST at all"), "no_permission")?,
        attack(site, "foreign-nslp", "UDP 270, magic number, NSLP not listed", &udp(270, &foreign_query), "no_permission")?,
        attack(site, "association-port", "TCP to the receiver's association port", &syns(from, to), "no_permission")?,
    ])
}

fn attack(site: &Site, name: &'static str, tried: &str, packets: &[Vec<u8>], reason: &str) -> io::Result<Line> {
    let mut line = Line::new(name, tried);
    let before = site.drops()?;
    let mark = site.right.mark();
    line.sent = site.attacker.send(packets)?;
    std::thread::sleep(SETTLE);
    line.arrived = site.right.count(mark, |frame| is_attack(frame, packets));
    line.dropped = site.drops()?.since(&before);
    line.must(line.sent == PACKETS as u64, format!("only {} packets could be made", line.sent));
    line.must(line.arrived == 0, "forged packets passed the router");
    let dropped = line.dropped_at("router", reason);
    line.must(dropped == line.sent, format!("the router dropped {dropped} of {} for {reason}", line.sent));
    Ok(line)
}

/// Genuine packets of the victim flow as they were on the sender's link.
fn captured(site: &Site) -> io::Result<Vec<Vec<u8>>> {
    let of_victim = |frame: &Frame| !frame.outgoing && to_port(frame, VICTIM).is_some_and(|seen| seen.authentication.is_some());
    let frames = site.left.since(std::time::Duration::ZERO, of_victim);
    let packets: Vec<Vec<u8>> = frames.iter().filter_map(|frame| frame.ip().map(<[u8]>::to_vec)).collect();
    // The newest ones lie inside the replay window: there only the window itself keeps them out.
    let newest = packets.len().checked_sub(PACKETS).ok_or_else(|| io::Error::other("too few packets captured to replay"))?;
    Ok(packets.get(newest..).unwrap_or_default().to_vec())
}

/// Whether what left towards the receiver carries the payload of one of the attack's packets.
fn is_attack(frame: &Frame, packets: &[Vec<u8>]) -> bool {
    let Some(seen) = frame::read(frame) else { return false };
    let Some(ip) = frame.ip() else { return false };
    frame.outgoing
        && seen.source == SENDER
        && packets.iter().any(|packet| packet.len() == seen.length && packet.get(20..) == ip.get(20..seen.length))
}

fn make_up_spi(packet: &mut Vec<u8>) {
    set(packet, 20 + 4, &0x00c0_ffee_u32.to_be_bytes());
}

/// A number to the right of the window, and an ICV that was made with another key for it.
fn spoil_and_advance(packet: &mut Vec<u8>) {
    let sequence = packet.get(28..32).and_then(|bytes| bytes.first_chunk()).copied().map_or(0, u32::from_be_bytes);
    set(packet, 28, &sequence.saturating_add(100_000).to_be_bytes());
    set(packet, 32, &[0x5a; 16]);
}

fn set(packet: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = packet.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

fn syns(from: Ipv4Addr, to: Ipv4Addr) -> Vec<Vec<u8>> {
    vec![packet::tcp_syn(from, 40_000, to, ASSOCIATION_PORT); PACKETS]
}

fn addresses() -> io::Result<(Ipv4Addr, Ipv4Addr)> {
    match (SENDER, RECEIVER) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Ok((from, to)),
        _ => Err(io::Error::other("the attacks are made for IPv4")),
    }
}
