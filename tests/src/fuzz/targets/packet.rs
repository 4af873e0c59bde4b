//! IP packets as traffic management sees them: with AH (RFC 4302) or without, in tunnels, and quoted by ICMP errors.

use std::net::IpAddr;

use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::icmp::{QuotingError, translate};
use traffic::packet::IpPacket;
use traffic::replay::Numbering;
use traffic::tunnel::{Ends, pack, unpack};

use crate::fuzz::mark;

const KEY: [u8; 32] = [0x42; 32];
/// IPv6 extension headers and AH: one behind AH counts as a protocol of its own, for which there is never a permission.
const EXTENSIONS: [u8; 5] = [0, 43, 44, 51, 60];

/// AH that is put in can be verified, and taken out leaves what there was; AH that is there can be taken out once, and the flow behind it
/// is the same. An error about a packet with AH gets no longer by being translated.
pub(super) fn take(input: &[u8]) -> u64 {
    let packet = match IpPacket::parse(input) {
        Ok(packet) => packet,
        Err(error) => return mark(&(error.what, error.at.min(64))),
    };
    assert_eq!(packet.total_len(), input.len());
    let Ok(key) = IcvKey::new(MacAlgorithm::HmacSha256_128, &KEY) else { return 0 };
    let _ = ah::icv_matches(&packet, &key, None);
    let judged = ah::policy::check(&packet, Numbering::Short);
    let mut out = Vec::new();
    let inserted = ah::insert(&packet, 0x1001, Number { low: 7, high: None }, &key, &mut out);
    if inserted.is_ok() && packet.ah().is_none() {
        let Ok(with) = IpPacket::parse(&out) else { panic!("with AH it is no packet") };
        assert!(ah::icv_matches(&with, &key, None), "its own ICV is wrong");
        assert_eq!(with.flow(), packet.flow(), "with AH it is of another flow");
        let mut without = Vec::new();
        assert_eq!(ah::remove(&with, &mut without), Ok(()));
        let (mut expected, found) = (input.to_vec(), without);
        // The header's checksum is made true, whatever it was.
        let checksum = if packet.source().is_ipv4() { 10..12 } else { 0..0 };
        if let (Some(field), Some(made)) = (expected.get_mut(checksum.clone()), found.get(checksum)) {
            field.copy_from_slice(made);
        }
        assert_eq!(found, expected, "AH in and out is not what there was");
    }
    let removed = ah::remove(&packet, &mut out);
    assert_eq!(removed.is_ok(), packet.ah().is_some());
    if removed.is_ok() {
        assert!(out.len() < input.len());
        if let Ok(without) = IpPacket::parse(&out)
            && !EXTENSIONS.contains(&packet.protocol())
        {
            assert_eq!(without.flow(), packet.flow(), "without AH it is of another flow");
        }
    }
    let quoted = QuotingError::read(&packet).map(|error| {
        let translated = translate(&error, 1280, &mut out);
        assert!(out.len() < input.len(), "translated longer than it came");
        assert!(translated.is_err() || IpPacket::parse(&out).is_ok(), "translated into no packet");
        (translated.is_ok(), error.quote.flow().is_some())
    });
    let shape = (packet.source().is_ipv4(), packet.fragment().is_some(), packet.ah().is_some(), packet.is_source_routed());
    mark(&(shape, packet.protocol(), packet.flow().is_some(), judged, inserted.err().map(|error| error.to_string()), quoted.ok()))
}

/// What comes out of a tunnel is a packet that was in it, and goes in again.
pub(super) fn take_tunnel(input: &[u8]) -> u64 {
    let unpacked = match unpack(input) {
        Ok(unpacked) => unpacked,
        Err(error) => return mark(&error.to_string()),
    };
    assert!(unpacked.inner.len() < input.len() && IpPacket::parse(unpacked.inner).is_ok());
    let mut again = Vec::new();
    if pack(unpacked.inner, &unpacked.ends, 64, &mut again).is_ok() {
        let Ok(twice) = unpack(&again) else { panic!("packed anew nothing comes out") };
        assert_eq!((twice.inner, twice.ends), (unpacked.inner, unpacked.ends));
    }
    let Ends { source, destination } = unpacked.ends;
    mark(&(source.is_ipv4(), IpAddr::is_multicast(&destination), unpacked.congested, unpacked.inner.first().map(|octet| octet >> 4)))
}
