//! Signalling of other applications on its way through the router.

use std::io;
use std::time::Duration;

use super::line::Line;
use super::site::{LISTED_NSLP, Site};
use super::trial::Trial;
use crate::attack::packet;
use crate::network::frame;
use crate::network::topology::Family::{self, Ipv4, Ipv6};

/// Queries sent.
const PACKETS: usize = 20;
/// Any value: it decides nothing.
const ROUTER_ALERT_VALUE: u16 = 1;
/// Where the GIST hop count stands behind the UDP header: magic number, version, hop count.
const HOP_COUNT: usize = 5;

/// A Query of a listed application passes, changed in nothing but IP TTL, GIST hop count and the checksums over them.
pub(super) fn passed_on(site: &mut Site) -> io::Result<Vec<Line>> {
    Ok(vec![
        pass_on(site, "listed-nslp", "UDP 270, magic number, NSLP listed: passed on", Ipv4)?,
        pass_on(site, "listed-nslp-ipv6", "UDP 270, magic number, NSLP listed: passed on, IPv6", Ipv6)?,
    ])
}

fn pass_on(site: &Site, name: &'static str, tried: &str, family: Family) -> io::Result<Line> {
    let mark = b"a listed application";
    let query = super::forged::query_of(LISTED_NSLP, mark);
    let mut sent = packet::udp((family.sender(), 270), (family.receiver(), 270), &query)?;
    if family == Ipv6 {
        // Without it an IPv6 packet is no Q-mode packet (RFC 5971 §5.3.2.2).
        sent = packet::alert_routers(sent, ROUTER_ALERT_VALUE)?;
    }
    let mut trial = Trial::start(site, name, tried, family, 270)?.only_payload(mark);
    trial.line.sent = site.attacker.send(&vec![sent.clone(); PACKETS])?;
    std::thread::sleep(Duration::from_millis(100));
    let arrived: Vec<Vec<u8>> = site.right.look(|frames| {
        let passed = |ip: &&[u8]| frame::read(ip).is_some_and(|seen| seen.destination == family.receiver() && seen.payload.ends_with(mark));
        frames.iter().filter_map(|frame| frame.ip()).filter(passed).map(<[u8]>::to_vec).collect()
    });
    let expected = one_hop_further(&sent, family);
    let mut line = trial.finish()?;
    line.must(line.arrived == line.sent, format!("{} of {} passed", line.arrived, line.sent));
    line.must(arrived.iter().all(|packet| *packet == expected), "something else than TTL, hop count and checksums changed");
    Ok(line)
}

/// The packet as it must look behind the router, checksums made anew.
fn one_hop_further(packet: &[u8], family: Family) -> Vec<u8> {
    use smoltcp::wire::{Ipv4Packet, Ipv6Packet};
    let mut packet = packet.to_vec();
    if family == Ipv4 {
        let mut ip = Ipv4Packet::new_unchecked(&mut packet);
        ip.set_hop_limit(ip.hop_limit().saturating_sub(1));
        ip.fill_checksum();
        count_hop(ip.payload_mut(), family);
    } else {
        let mut ip = Ipv6Packet::new_unchecked(&mut packet);
        ip.set_hop_limit(ip.hop_limit().saturating_sub(1));
        count_hop(ip.payload_mut().get_mut(packet::ROUTER_ALERT..).unwrap_or_default(), family);
    }
    packet
}

fn count_hop(datagram: &mut [u8], family: Family) {
    let mut udp = smoltcp::wire::UdpPacket::new_unchecked(datagram);
    if let Some(hops) = udp.payload_mut().get_mut(HOP_COUNT) {
        *hops = hops.saturating_sub(1);
    }
    udp.fill_checksum(&family.sender().into(), &family.receiver().into());
}
