//! What an attacker on the sender's link tries against a living permission.

use std::io;

use traffic::ah;
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::packet::IpPacket;

use super::line::Line;
use super::site::{ASSOCIATION_PORT, Site, UNLISTED_NSLP};
use super::trial::{Trial, of_family, source_port};
use crate::attack::packet;
use crate::network::frame;
use crate::network::topology::Family::{self, Ipv4, Ipv6};

/// Packets of each attack.
const PACKETS: usize = 50;
/// Between numbers that were used and such as nobody will use; no further than a sender could have come.
const BEYOND: u32 = 1000;
/// A key that no permission has.
const WRONG_KEY: [u8; 32] = [0x5a; 32];
/// Magic number of GIST.
const MAGIC: [u8; 4] = [0x4e, 0x04, 0xbd, 0xa5];

/// A flow that has a permission from before.
#[derive(Clone, Copy)]
struct Victim {
    family: Family,
    port: u16,
    /// Where the Authentication Header begins.
    ah: usize,
}

const VICTIM: Victim = Victim { family: Ipv4, port: 9001, ah: 20 };
const VICTIM6: Victim = Victim { family: Ipv6, port: 9004, ah: 40 };

/// Each attack is tried `PACKETS` times; none may arrive, each counts under its reason.
pub(super) fn attacks(site: &mut Site) -> io::Result<Vec<Line>> {
    let mut lines = against(site, VICTIM)?;
    lines.extend(against(site, VICTIM6)?);
    lines.extend(against_signalling(site)?);
    Ok(lines)
}

fn against(site: &Site, victim: Victim) -> io::Result<Vec<Line>> {
    let Victim { family, port, ah } = victim;
    let genuine = captured(site, victim)?;
    let clear = vec![packet::udp((family.sender(), source_port(port)), (family.receiver(), port), b"no header")?; PACKETS];
    let mut unknown_spi = genuine.clone();
    unknown_spi.iter_mut().for_each(|packet| make_up_spi(packet, ah));
    let attack = |name, tried, packets: &[Vec<u8>], reason| {
        let (name, tried) = of_family(family, name, tried);
        run(site, Trial::start(site, name, tried, family, port)?, packets, reason)
    };
    Ok(vec![
        attack("no-ah", "forged: no AH", &clear, "missing_ah")?,
        attack("unknown-spi", "forged: AH with a made-up SPI", &unknown_spi, "unknown_spi")?,
        attack("wrong-key", "forged: AH with a wrong key", &under_wrong_key(site, &genuine)?, "bad_icv")?,
        attack("replayed", "replayed: a capture, bit by bit", &genuine, "replayed")?,
    ])
}

fn against_signalling(site: &Site) -> io::Result<Vec<Line>> {
    let (from, to) = (Ipv4.sender(), Ipv4.receiver());
    let no_magic = b"not GIST at all";
    let mark = b"another application";
    let foreign = query_of(UNLISTED_NSLP, mark);
    let datagram = |payload: &[u8]| packet::udp((from, 270), (to, 270), payload).map(|packet| vec![packet; PACKETS]);
    let start = |name, tried, port| Trial::start(site, name, tried, Ipv4, port);
    let syns = vec![packet::tcp_syn((from, 40_000), (to, ASSOCIATION_PORT))?; PACKETS];
    Ok(vec![
        run(site, start("port-270", "UDP 270 without magic number", 270)?.only_payload(no_magic), &datagram(no_magic)?, "no_permission")?,
        run(
            site,
            start("foreign-nslp", "UDP 270, magic number, NSLP not listed", 270)?.only_payload(mark),
            &datagram(&foreign)?,
            "no_permission",
        )?,
        run(site, start("association-port", "TCP to the receiver's association port", ASSOCIATION_PORT)?, &syns, "no_permission")?,
    ])
}

/// Sends the packets; none may arrive, and the router must drop each for `reason`.
pub(super) fn run(site: &Site, mut trial: Trial<'_>, packets: &[Vec<u8>], reason: &str) -> io::Result<Line> {
    trial.line.sent = site.attacker.send(packets)?;
    let mut line = trial.finish()?;
    let on_link = line.sender_link.there.packets;
    line.must(line.sent == PACKETS as u64 && on_link == line.sent, format!("{on_link} of {PACKETS} were on the sender's link"));
    line.must(line.arrived == 0, "forged packets passed the router");
    let dropped = line.dropped_at("router", reason);
    line.must(dropped == line.sent, format!("the router dropped {dropped} of {} for {reason}", line.sent));
    Ok(line)
}

/// The newest genuine packets of the victim flow, as they were on the sender's link. They lie inside the replay window: there
/// only the window itself keeps them out.
fn captured(site: &Site, victim: Victim) -> io::Result<Vec<Vec<u8>>> {
    let genuine = |ip: &&[u8]| {
        frame::read(ip).is_some_and(|seen| {
            seen.destination == victim.family.receiver() && seen.ports.1 == victim.port && seen.authentication.is_some()
        })
    };
    let packets: Vec<Vec<u8>> =
        site.left.look(|frames| frames.iter().filter_map(|frame| frame.ip()).filter(genuine).map(<[u8]>::to_vec).collect());
    let newest = packets.len().checked_sub(PACKETS).ok_or_else(|| io::Error::other("too few packets captured to replay"))?;
    Ok(packets.get(newest..).unwrap_or_default().to_vec())
}

/// Magic number and common header of a GIST Query of another signalling application; `mark` stands for the rest, with zeros
/// before it up to whole words.
pub(super) fn query_of(nslp_id: u16, mark: &[u8]) -> Vec<u8> {
    let [high, low] = nslp_id.to_be_bytes();
    let words = mark.len().div_ceil(4);
    let zeros = vec![0; words * 4 - mark.len()];
    [&MAGIC[..], &[1, 16, 0, u8::try_from(words).unwrap_or(u8::MAX), high, low, 0x80, 0x40], &zeros, mark].concat()
}

fn make_up_spi(packet: &mut [u8], ah: usize) {
    set(packet, ah + 4, &0x00c0_ffee_u32.to_be_bytes());
}

/// The same packets sealed once more in the same way, with numbers to the right of the window, by somebody who has another key.
fn under_wrong_key(site: &Site, genuine: &[Vec<u8>]) -> io::Result<Vec<Vec<u8>>> {
    let key = IcvKey::new(MacAlgorithm::HmacSha256_128, &WRONG_KEY).map_err(io::Error::other)?;
    let mut clear = Vec::new();
    let seal_again = |packet: &Vec<u8>| {
        let packet = IpPacket::parse(packet).map_err(io::Error::other)?;
        let (spi, number) = packet.ah().map_or((0, 0), |ah| (ah.spi(), ah.sequence()));
        ah::remove(&packet, &mut clear).map_err(io::Error::other)?;
        site.seal(&clear, spi, number.saturating_add(BEYOND), &key)
    };
    genuine.iter().map(seal_again).collect()
}

fn set(packet: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = packet.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}
