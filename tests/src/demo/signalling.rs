//! Signalling of other applications on its way through the router.

use std::io;
use std::time::Duration;

use super::line::Line;
use super::site::{LISTED_NSLP, Site};
use super::trial::Trial;
use crate::attack::packet;
use crate::network::frame;
use crate::network::topology::Family::Ipv4;

/// Queries sent.
const PACKETS: usize = 20;
/// Where the GIST hop count stands behind the UDP header: magic number, version, hop count.
const HOP_COUNT: usize = 5;

/// A Query of a listed application passes, changed in nothing but IP TTL, GIST hop count and the checksums over them.
pub(super) fn passed_on(site: &mut Site) -> io::Result<Vec<Line>> {
    let mark = b"a listed application";
    let query = super::forged::query_of(LISTED_NSLP, mark);
    let sent = packet::udp((Ipv4.sender(), 270), (Ipv4.receiver(), 270), &query)?;
    let mut trial = Trial::start(site, "listed-nslp", "UDP 270, magic number, NSLP listed: passed on", Ipv4, 270)?.only_payload(mark);
    trial.line.sent = site.attacker.send(&vec![sent.clone(); PACKETS])?;
    std::thread::sleep(Duration::from_millis(100));
    let arrived: Vec<Vec<u8>> = site.right.look(|frames| {
        let passed = |ip: &&[u8]| frame::read(ip).is_some_and(|seen| seen.payload.ends_with(mark));
        frames.iter().filter_map(|frame| frame.ip()).filter(passed).map(<[u8]>::to_vec).collect()
    });
    let expected = one_hop_further(&sent);
    let mut line = trial.finish()?;
    line.must(line.arrived == line.sent, format!("{} of {} passed", line.arrived, line.sent));
    line.must(arrived.iter().all(|packet| *packet == expected), "something else than TTL, hop count and checksums changed");
    Ok(vec![line])
}

/// The packet as it must look behind the router, checksums made anew.
fn one_hop_further(packet: &[u8]) -> Vec<u8> {
    use smoltcp::wire::{IpAddress, Ipv4Packet, UdpPacket};
    let mut packet = packet.to_vec();
    let mut ip = Ipv4Packet::new_unchecked(&mut packet);
    ip.set_hop_limit(ip.hop_limit().saturating_sub(1));
    ip.fill_checksum();
    let (from, to) = (IpAddress::from(ip.src_addr()), IpAddress::from(ip.dst_addr()));
    let mut udp = UdpPacket::new_unchecked(ip.payload_mut());
    if let Some(hops) = udp.payload_mut().get_mut(HOP_COUNT) {
        *hops = hops.saturating_sub(1);
    }
    udp.fill_checksum(&from, &to);
    packet
}
