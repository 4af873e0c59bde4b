//! What a router does with a frame that it sends on, besides judging it: no sockets, no look-ups.
//!
//! Which way a frame goes was found out in the kernel, before user space was given it (`program`): frames whose packets are too long for
//! it, have no hop left, or whose neighbour is not known do not come here.
//!
//! ```text
//!        32 octets before                        14                      IP packet                  padding
//! | interface | own | neighbour's | its address |  Ethernet  | header, AH, …                       | (if short)
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smoltcp::wire::{Ipv4Packet, Ipv6Packet};

use super::program::{ETHERNET_LEN, WAY_LEN};
use crate::reason::DropReason;

/// Where a frame goes, as the kernel's routes and neighbours were when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Way {
    /// The interface to leave by, by the kernel's index.
    pub(super) interface: u32,
    /// That interface's hardware address.
    from: [u8; 6],
    /// The neighbour's.
    to: [u8; 6],
    /// Who the neighbour is, by an address on its link.
    pub(super) neighbour: IpAddr,
}

impl Way {
    /// Reads what the kernel's program has written before a frame.
    pub(super) fn read(before: &[u8; WAY_LEN]) -> Self {
        let [i0, i1, i2, i3, a, b, c, d, e, f, t, u, v, w, x, y, address @ ..] = *before;
        let neighbour = match address {
            // No IPv6 neighbour has such an address: it is that of all routers of a prefix (RFC 4291 §2.6.1).
            [a, b, c, d, rest @ ..] if rest == [0; 12] => Ipv4Addr::new(a, b, c, d).into(),
            octets => Ipv6Addr::from(octets).into(),
        };
        Self { interface: u32::from_ne_bytes([i0, i1, i2, i3]), from: [a, b, c, d, e, f], to: [t, u, v, w, x, y], neighbour }
    }
}

/// The IP packet in a frame, without what pads it.
///
/// # Errors
///
/// It is shorter than it says, or its header's checksum is wrong: the kernel's path would not have taken it either.
pub(super) fn packet(frame: &[u8]) -> Result<&[u8], DropReason> {
    let (ethernet, rest) = frame.split_first_chunk::<ETHERNET_LEN>().ok_or(DropReason::Malformed)?;
    let len = match ethernet {
        [.., 0x08, 0x00] => {
            let view = Ipv4Packet::new_checked(rest).map_err(|_| DropReason::Malformed)?;
            if !view.verify_checksum() {
                return Err(DropReason::Malformed);
            }
            usize::from(view.total_len())
        }
        [.., 0x86, 0xdd] => Ipv6Packet::new_checked(rest).map_err(|_| DropReason::Malformed)?.total_len(),
        _ => return Err(DropReason::Malformed),
    };
    rest.get(..len).ok_or(DropReason::Malformed)
}

/// Makes a frame that [`packet`] has found a packet in one to the next hop: one hop less, and other hardware addresses (RFC 1812 §5.3.1,
/// RFC 8200 §3). Gives its length; `None` if the packet may go no further.
pub(super) fn send_on(frame: &mut [u8], way: &Way) -> Option<usize> {
    let (ethernet, rest) = frame.split_first_chunk_mut::<ETHERNET_LEN>()?;
    let hops = |limit: u8| limit.checked_sub(1).filter(|left| *left > 0);
    let len = match ethernet {
        [.., 0x08, 0x00] => {
            let mut view = Ipv4Packet::new_checked(rest).ok()?;
            view.set_hop_limit(hops(view.hop_limit())?);
            view.fill_checksum();
            usize::from(view.total_len())
        }
        _ => {
            let mut view = Ipv6Packet::new_checked(rest).ok()?;
            view.set_hop_limit(hops(view.hop_limit())?);
            view.total_len()
        }
    };
    let (to, from) = ethernet.split_first_chunk_mut::<6>()?;
    *to = way.to;
    *from.first_chunk_mut::<6>()? = way.from;
    Some(ETHERNET_LEN + len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAY: [u8; WAY_LEN] = [9, 0, 0, 0, 2, 2, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn ipv4(hops: u8, payload: usize, padding: usize) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET_LEN + 20 + payload + padding];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let mut view = Ipv4Packet::new_unchecked(&mut frame[ETHERNET_LEN..]);
        view.set_version(4);
        view.set_header_len(20);
        view.set_total_len(20 + u16::try_from(payload).unwrap());
        view.set_hop_limit(hops);
        view.fill_checksum();
        frame
    }

    fn ipv6(hops: u8, payload: usize, padding: usize) -> Vec<u8> {
        let mut frame = vec![0; ETHERNET_LEN + 40 + payload + padding];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        let mut view = Ipv6Packet::new_unchecked(&mut frame[ETHERNET_LEN..]);
        view.set_version(6);
        view.set_payload_len(u16::try_from(payload).unwrap());
        view.set_hop_limit(hops);
        frame
    }

    #[test]
    fn a_frame_goes_on_with_one_hop_less_to_the_neighbours_address_and_without_padding() {
        let way = Way::read(&WAY);
        assert_eq!(way.interface, u32::from_ne_bytes([9, 0, 0, 0]));
        assert_eq!(way.neighbour, IpAddr::from([192, 0, 2, 1]));
        let mut other = WAY;
        other[31] = 1;
        assert_eq!(Way::read(&other).neighbour, "c000:201::1".parse::<IpAddr>().unwrap());
        for (mut frame, header, hops_at) in [(ipv4(64, 4, 22), 20, 8), (ipv6(64, 4, 9), 40, 7)] {
            let before = frame.clone();
            assert_eq!(packet(&frame).unwrap().len(), header + 4);
            assert_eq!(send_on(&mut frame, &way), Some(ETHERNET_LEN + header + 4));
            assert_eq!(frame[..12], [4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2]);
            assert_eq!(frame[ETHERNET_LEN + hops_at], 63);
            assert_eq!(frame[12..14], before[12..14]);
            assert_eq!(frame[ETHERNET_LEN + header..], before[ETHERNET_LEN + header..]);
            assert!(packet(&frame).is_ok(), "its checksum is right");
        }
    }

    #[test]
    fn what_has_no_hop_left_goes_no_further() {
        for hops in [0, 1] {
            assert_eq!(send_on(&mut ipv4(hops, 0, 0), &Way::read(&WAY)), None);
            assert_eq!(send_on(&mut ipv6(hops, 0, 0), &Way::read(&WAY)), None);
        }
    }

    #[test]
    fn a_wrong_checksum_and_a_length_beyond_the_frame_are_malformed() {
        let mut frame = ipv4(64, 8, 0);
        frame[ETHERNET_LEN + 10] ^= 1;
        assert_eq!(packet(&frame), Err(DropReason::Malformed));
        for frame in [ipv4(64, 8, 0), ipv6(64, 8, 0)] {
            assert_eq!(packet(&frame[..frame.len() - 1]), Err(DropReason::Malformed));
        }
        assert_eq!(packet(&[0; 13]), Err(DropReason::Malformed));
    }

    proptest! {
        #[test]
        fn no_frame_makes_it_panic_and_none_grows(mut frame in proptest::collection::vec(any::<u8>(), 0..100), v6: bool) {
            let kind: [u8; 2] = if v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
            if let Some(place) = frame.get_mut(12..14) {
                place.copy_from_slice(&kind);
            }
            let found = packet(&frame).map(<[u8]>::len);
            let sent = send_on(&mut frame, &Way::read(&WAY));
            if let (Ok(len), Some(sent)) = (found, sent) {
                prop_assert_eq!(sent, ETHERNET_LEN + len);
            }
        }
    }
}
