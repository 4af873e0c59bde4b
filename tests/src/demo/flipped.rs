//! Packets changed on the way: somebody on the sender's link holds genuine packets back, flips one bit of what each carries, and
//! sends them on. Number and ICV are right and nobody has seen them before: only that the ICV covers the payload keeps them out.

use std::io;

use super::forged;
use super::held_back;
use super::line::Line;
use super::site::Site;
use super::trial::{Trial, of_family};
use crate::network::frame;
use crate::network::topology::Family::{self, Ipv4, Ipv6};

/// Packets held back, each with another bit flipped.
const PACKETS: u64 = 50;
/// What each carries.
const PAYLOAD: [u8; 64] = [0x42; 64];

/// One line for each IP version.
pub(super) fn on_the_way(site: &mut Site) -> io::Result<Vec<Line>> {
    Ok(vec![flipped(site, Ipv4, 9006)?, flipped(site, Ipv6, 9007)?])
}

fn flipped(site: &Site, family: Family, port: u16) -> io::Result<Line> {
    let granted = held_back::grant(site, family, port)?;
    let genuine = held_back::hold_back(site, family, port, PACKETS, &PAYLOAD)?;
    let changed: Vec<Vec<u8>> = genuine.iter().enumerate().map(|(place, packet)| flip(packet.clone(), place)).collect();
    let (name, tried) = of_family(family, "bit-flipped", "genuine packets held back on the way, one bit of the payload flipped");
    let mut line = forged::run(site, Trial::start(site, name, tried, family, port)?, &changed, "bad_icv")?;
    line.must(granted, "there was no permission");
    line.must(genuine.len() as u64 == PACKETS, format!("{} packets of {PACKETS} were held back", genuine.len()));
    let passed = held_back::send_on(site, family, port, &genuine)?;
    line.measure(format!("{passed} of {PACKETS} passed afterwards as they were"));
    line.must(passed == PACKETS, "as they were they did not pass: that they were dropped when changed shows nothing");
    Ok(line)
}

/// Flips one bit of the payload, another one for each place, from the first octet to the last.
fn flip(mut packet: Vec<u8>, place: usize) -> Vec<u8> {
    let length = frame::read(&packet).map_or(0, |seen| seen.payload.len());
    let begin = packet.len().saturating_sub(length);
    let octet = begin + place * length.saturating_sub(1) / (PACKETS as usize - 1);
    if let Some(octet) = packet.get_mut(octet) {
        *octet ^= 1 << (place % 8);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::packet;

    #[test]
    fn each_packet_has_another_bit_of_its_payload_flipped_from_the_first_octet_to_the_last() {
        for family in [Ipv4, Ipv6] {
            let genuine = packet::udp((family.sender(), 1), (family.receiver(), 2), &PAYLOAD).unwrap();
            let begin = genuine.len() - PAYLOAD.len();
            let places: Vec<usize> = (0..PACKETS as usize)
                .map(|place| {
                    let flipped = flip(genuine.clone(), place);
                    let changed: Vec<usize> = (0..genuine.len()).filter(|at| flipped[*at] != genuine[*at]).collect();
                    assert!(matches!(changed[..], [at] if (flipped[at] ^ genuine[at]).count_ones() == 1), "{place}: {changed:?}");
                    changed[0] - begin
                })
                .collect();
            assert_eq!((places[0], places[PACKETS as usize - 1]), (0, PAYLOAD.len() - 1));
        }
    }
}
