//! Message-Routing-Information: every combination of flags, both methods, both IP versions.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Bytes, BytesMut};
use gist::wire::{Direction, LooseEnd, Mri, ObjectValueFault, PathCoupled, ValueError};

use crate::picture::picture;
use crate::samples::{MRI_DOWNSTREAM, MRI_UPSTREAM, downstream};

const EVERYTHING_IN_IPV6: &str = "
    00 00 6f e0                          ; IPv6, P T F S; A B D
    20010db8 00000000 00000000 00000001
    20010db8 00010000 00000000 00000002
    80 40 32 b8                          ; /128, /64, ESP, DS-field 46
    000abcde                             ; flow label
    01020304                             ; SPI
    1f90 0000                            ; port 8080, port not known yet";

const LOOSE_END: &str = "
    01 00 48 00 ; loose-end, N=0; IPv4, D=1
    c0000201
    c6336407";

/// G-358, G-359, G-361 to G-363.
#[test]
fn a_path_coupled_mri_has_every_field_in_its_place() {
    both_ways(MRI_DOWNSTREAM, &downstream());
    both_ways(MRI_UPSTREAM, &downstream().inverted());
    let everything = Mri::PathCoupled(PathCoupled {
        direction: Direction::Upstream,
        source: "2001:db8::1".parse().unwrap(),
        destination: "2001:db8:1::2".parse().unwrap(),
        source_prefix: 128,
        destination_prefix: 64,
        protocol: Some(50),
        ds_field: Some(46),
        flow_label: Some(0xabcde),
        spi: Some(0x0102_0304),
        source_port: Some(8080),
        destination_port: Some(0),
    });
    both_ways(EVERYTHING_IN_IPV6, &everything);
}

/// G-358, G-363, G-364.
#[test]
fn a_loose_end_mri_has_every_field_in_its_place() {
    let mri = Mri::LooseEnd(LooseEnd {
        direction: Direction::Upstream,
        source: Ipv4Addr::new(192, 0, 2, 1).into(),
        destination: Ipv4Addr::new(198, 51, 100, 7).into(),
    });
    both_ways(LOOSE_END, &mri);
    let six = Mri::LooseEnd(LooseEnd {
        direction: Direction::Downstream,
        source: Ipv6Addr::LOCALHOST.into(),
        destination: Ipv6Addr::UNSPECIFIED.into(),
    });
    both_ways("01 00 60 00 00000000 00000000 00000000 00000001 00000000 00000000 00000000 00000000", &six);
}

/// G-359, G-360, G-362: P, T, F, S, A, B and D in all 128 combinations, for both IP versions.
#[test]
fn every_combination_of_flags_is_either_read_exactly_or_refused() {
    for version in [4_u8, 6] {
        for flags in 0..128_u8 {
            let [p, t, f, s, a, b, d] = [6, 5, 4, 3, 2, 1, 0].map(|bit| flags >> bit & 1 == 1);
            let mut rows = format!("00 00 {:02x} {:02x}", version << 4 | flags >> 3, (flags & 7) << 5);
            let (source, destination): (IpAddr, IpAddr) = if version == 4 {
                rows += "c0000201 c6336407";
                (Ipv4Addr::new(192, 0, 2, 1).into(), Ipv4Addr::new(198, 51, 100, 7).into())
            } else {
                rows += "20010db8 00000000 00000000 00000001  20010db8 00000000 00000000 00000002";
                ("2001:db8::1".parse().unwrap(), "2001:db8::2".parse().unwrap())
            };
            // A field whose flag is clear is sent as 0.
            rows += "1820";
            rows += if p { "06" } else { "00" };
            rows += if t { "28" } else { "00" };
            rows += if f { "00012345" } else { "" };
            rows += if s { "deadbeef" } else { "" };
            rows += if a || b { if a { "1388" } else { "0000" } } else { "" };
            rows += if a || b { if b { "2328" } else { "0000" } } else { "" };

            let legal = (!f || version == 6) && (!s || p) && (!(a || b) || p);
            let value = Mri::PathCoupled(PathCoupled {
                direction: if d { Direction::Upstream } else { Direction::Downstream },
                source,
                destination,
                source_prefix: 24,
                destination_prefix: 32,
                protocol: p.then_some(6),
                ds_field: t.then_some(10),
                flow_label: f.then_some(0x12345),
                spi: s.then_some(0xdead_beef),
                source_port: a.then_some(5000),
                destination_port: b.then_some(9000),
            });
            if legal {
                both_ways(&rows, &value);
            } else {
                let error = Mri::decode(picture(&rows)).unwrap_err();
                assert_eq!(error.fault, ObjectValueFault::InvalidFlagFieldCombination);
                assert!(matches!(error.offset, 2 | 3), "the flags are at fault");
                assert!(value.encode(&mut BytesMut::new()).is_err(), "what is refused is not sent");
            }
        }
    }
}

/// G-348, G-361, G-362: reserved bits, and fields whose flag is clear.
#[test]
fn what_is_not_significant_is_ignored() {
    let Mri::PathCoupled(downstream) = downstream() else { panic!("the sample is path-coupled") };
    let plain = PathCoupled { protocol: None, source_port: None, destination_port: None, ..downstream.clone() };
    let noisy = "00 7f 40 1f c0000201 c6336407 20 20 11 ff";
    assert_eq!(Mri::decode(picture(noisy)), Ok(Mri::PathCoupled(plain)));
    let one_port = PathCoupled { source_port: None, ..downstream };
    let noisy = "00 00 48 40 c0000201 c6336407 20 20 11 00 aaaa 2328";
    assert_eq!(Mri::decode(picture(noisy)), Ok(Mri::PathCoupled(one_port)));
    let label = EVERYTHING_IN_IPV6.replace("000abcde", "fffabcde").replace("b8   ", "bb   ");
    assert_eq!(Mri::decode(picture(&label)), Mri::decode(picture(EVERYTHING_IN_IPV6)));
    assert_eq!(Mri::decode(picture(&LOOSE_END.replace("01 00 48 00", "01 7f 4f ff"))), Mri::decode(picture(LOOSE_END)));
}

/// G-358, G-384: an unknown method or IP version, N=1, prefixes longer than an address.
#[test]
fn values_out_of_range_are_refused_where_they_stand() {
    let unsupported = ObjectValueFault::ValueNotSupported;
    let contradiction = ObjectValueFault::InvalidFlagFieldCombination;
    let cases = [
        (MRI_DOWNSTREAM.replace("00 00 48c0", "02 00 48c0"), unsupported, 0),
        (MRI_DOWNSTREAM.replace("00 00 48c0", "78 00 48c0"), unsupported, 0),
        (MRI_DOWNSTREAM.replace("00 00 48c0", "00 80 48c0"), contradiction, 1),
        (MRI_DOWNSTREAM.replace("00 00 48c0", "00 00 58c0"), unsupported, 2),
        (MRI_DOWNSTREAM.replace("00 00 48c0", "00 00 08c0"), unsupported, 2),
        (MRI_DOWNSTREAM.replace("20 20 11 00", "21 20 11 00"), contradiction, 12),
        (MRI_DOWNSTREAM.replace("20 20 11 00", "20 21 11 00"), contradiction, 13),
        (EVERYTHING_IN_IPV6.replace("80 40 32 b8", "81 40 32 b8"), contradiction, 36),
        (EVERYTHING_IN_IPV6.replace("80 40 32 b8", "80 81 32 b8"), contradiction, 37),
        (LOOSE_END.replace("01 00 48", "01 80 48"), contradiction, 1),
        (LOOSE_END.replace("01 00 48", "01 00 78"), unsupported, 2),
    ];
    for (rows, fault, offset) in cases {
        assert_eq!(Mri::decode(picture(&rows)), Err(ValueError { fault, offset }), "{rows}");
    }
}

/// G-353: shorter or longer than the flags make it.
#[test]
fn only_the_exact_length_is_read() {
    for rows in [MRI_DOWNSTREAM, EVERYTHING_IN_IPV6, LOOSE_END] {
        let value = picture(rows);
        for length in 0..value.len() {
            let error = Mri::decode(value.slice(..length)).unwrap_err();
            assert_eq!(error, ValueError { fault: ObjectValueFault::IncorrectLength, offset: length });
        }
        let longer: Bytes = [&value[..], &[0; 4]].concat().into();
        let error = ValueError { fault: ObjectValueFault::IncorrectLength, offset: value.len() };
        assert_eq!(Mri::decode(longer), Err(error));
    }
}

/// What the decoder would refuse cannot be sent.
#[test]
fn contradicting_fields_are_not_written() {
    let Mri::PathCoupled(good) = downstream() else { panic!("the sample is path-coupled") };
    let bad = [
        PathCoupled { destination: Ipv6Addr::LOCALHOST.into(), ..good.clone() },
        PathCoupled { source_prefix: 33, ..good.clone() },
        PathCoupled { destination_prefix: 33, ..good.clone() },
        PathCoupled { ds_field: Some(64), ..good.clone() },
        PathCoupled { flow_label: Some(1), ..good.clone() },
        PathCoupled { protocol: None, destination_port: None, ..good.clone() },
        PathCoupled { protocol: None, source_port: None, ..good.clone() },
        PathCoupled { protocol: None, source_port: None, destination_port: None, spi: Some(1), ..good.clone() },
    ];
    for mri in bad {
        assert!(Mri::PathCoupled(mri.clone()).encode(&mut BytesMut::new()).is_err(), "{mri:?}");
    }
    let mixed = LooseEnd { direction: Direction::Upstream, source: good.source, destination: Ipv6Addr::LOCALHOST.into() };
    assert!(Mri::LooseEnd(mixed).encode(&mut BytesMut::new()).is_err());
}

/// G-142, G-146.
#[test]
fn inverting_changes_the_direction_only() {
    let mri = downstream();
    assert_eq!(mri.inverted().direction(), Direction::Upstream);
    assert_eq!(mri.inverted().inverted(), mri);
    assert_eq!((mri.inverted().source(), mri.inverted().destination()), (mri.source(), mri.destination()));
}

fn both_ways(rows: &str, value: &Mri) {
    assert_eq!(Mri::decode(picture(rows)).as_ref(), Ok(value), "{rows}");
    let mut out = BytesMut::new();
    value.encode(&mut out).unwrap();
    assert_eq!(out, picture(rows), "{rows}");
}
