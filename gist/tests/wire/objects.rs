//! Objects other than the MRI, in every shape the pictures of Appendix A.3 and A.4 allow.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use gist::wire::{
    Cookie, EncodeError, ErrorClass, ErrorInfo, GistError, MAX_VALUE_LENGTH, MaOptions, MaProtocol, NatTraversal, NetworkLayerInformation,
    ObjectType, ObjectValueInfo, PeerIdentity, Profile, StackConfiguration, StackProposal, ValueError,
};

use crate::picture::{object, picture};
use crate::samples::{self, CONFIGURATION_OF_RESPONSE, ERROR, NAT, NLI, PROPOSAL, downstream, nat, nli, proposal, response_offer};

/// G-365, G-396.
#[test]
fn network_layer_information_has_every_field_in_its_place() {
    both_ways(NLI, &nli(), NetworkLayerInformation::decode, NetworkLayerInformation::encode);
    let six = NetworkLayerInformation {
        ip_ttl: 0,
        validity: Duration::from_millis(u32::MAX.into()),
        peer: PeerIdentity::new(&b"abcd"[..]).unwrap(),
        address: "2001:db8::1".parse().unwrap(),
    };
    let rows = "04 00 60 00 ffffffff 61626364 20010db8 00000000 00000000 00000001";
    both_ways(rows, &six, NetworkLayerInformation::decode, NetworkLayerInformation::encode);
    let longest = NetworkLayerInformation { peer: PeerIdentity::new(vec![b'x'; 255]).unwrap(), ..six };
    let rows = format!("ff 00 60 00 ffffffff {} 00 20010db8 00000000 00000000 00000001", "78".repeat(255));
    both_ways(&rows, &longest, NetworkLayerInformation::decode, NetworkLayerInformation::encode);
}

/// G-348: reserved bits and padding.
#[test]
fn reserved_bits_and_padding_in_objects_are_ignored() {
    let noisy = "05 40 4f ff 00007530 686f737431 aabbcc c0000201";
    assert_eq!(NetworkLayerInformation::decode(picture(noisy)), Ok(nli()));
    let noisy = "02 ffffff 02 02 01 ff 01 01 ffff";
    assert_eq!(StackProposal::decode(picture(noisy)), Ok(proposal()));
    let noisy = "02 ffffff 00009c40 01 01 02 7f 763e ffff 01 02 02 7f 763f ffff";
    assert_eq!(StackConfiguration::decode(picture(noisy)), Ok(response_offer().configuration));
    let noisy = NAT.replace("05 02 02 00", "05 02 02 ff").replace("616263 000000", "616263 ffffff");
    assert_eq!(NatTraversal::decode(picture(&noisy)), Ok(nat()));
    let noisy = ERROR.replace("f8 00 05 01", "ff ff 05 01").replace("0006 0000", "0006 ffff");
    assert_eq!(GistError::decode(picture(&noisy)), Ok(samples::error()));
}

/// G-220, G-345, G-366.
#[test]
fn a_stack_proposal_lists_profiles_from_top_to_bottom() {
    both_ways(PROPOSAL, &proposal(), StackProposal::decode, StackProposal::encode);
    // No padding, and a profile over two words; 3 and 120 are other protocols.
    let long = StackProposal {
        profiles: vec![
            Profile(vec![MaProtocol::Tls, MaProtocol::ForwardsTcp, MaProtocol::Other(3)]),
            Profile(vec![MaProtocol::Other(120); 4]),
        ],
    };
    both_ways("02 000000 03 020103 04 787878 78 000000", &long, StackProposal::decode, StackProposal::encode);
    let longest = StackProposal { profiles: vec![Profile(vec![MaProtocol::Tls; 63]); 255] };
    let rows = format!("ff 000000 {}", format!("3f {}", "02".repeat(63)).repeat(255));
    both_ways(&rows, &longest, StackProposal::decode, StackProposal::encode);
}

/// G-221, G-367.
#[test]
fn stack_configuration_data_has_every_field_in_its_place() {
    both_ways(CONFIGURATION_OF_RESPONSE, &response_offer().configuration, StackConfiguration::decode, StackConfiguration::encode);
    let configuration = StackConfiguration {
        hold_time: Duration::from_millis(1),
        options: vec![
            MaOptions { protocol: MaProtocol::Other(3), profile: 7, forbidden: true, data: Bytes::new() },
            MaOptions { protocol: MaProtocol::Tls, profile: 0, forbidden: false, data: Bytes::from_static(b"12345") },
        ],
    };
    let rows = "02 000000 00000001 03 07 00 80 02 00 05 00 3132333435 000000";
    both_ways(rows, &configuration, StackConfiguration::decode, StackConfiguration::encode);
}

/// G-234: a port of two bytes and two bytes of padding, whether the length counts them or not.
#[test]
fn the_port_of_forwards_tcp_is_read_from_a_response() {
    let options = |protocol, data: &'static [u8]| MaOptions { protocol, profile: 0, forbidden: false, data: data.into() };
    assert_eq!(MaOptions::tcp_response(0, 30270).tcp_port(), Some(30270));
    assert_eq!(options(MaProtocol::ForwardsTcp, b"\x76\x3e\0\0").tcp_port(), Some(30270));
    assert_eq!(options(MaProtocol::ForwardsTcp, b"\0\0").tcp_port(), None, "no port");
    assert_eq!(options(MaProtocol::ForwardsTcp, b"\x76").tcp_port(), None, "half a port");
    assert_eq!(options(MaProtocol::Tls, b"\x76\x3e").tcp_port(), None, "not TCP");
    assert_eq!(MaOptions::tcp_query(0).tcp_port(), None);
}

/// Options of one profile go before those for all (RFC 5971 A.3.5).
#[test]
fn options_are_found_by_protocol_and_profile() {
    let mut offer = response_offer();
    offer.configuration.options = vec![MaOptions::tcp_response(0, 1000), MaOptions::tcp_response(2, 2000)];
    let port = |profile| offer.options(MaProtocol::ForwardsTcp, profile).and_then(MaOptions::tcp_port);
    assert_eq!((port(1), port(2)), (Some(1000), Some(2000)));
    assert_eq!(offer.options(MaProtocol::Tls, 1), None);
}

/// G-369: with an even and an odd number of types, and notes of all lengths modulo a word.
#[test]
fn nat_traversal_has_every_field_in_its_place() {
    both_ways(NAT, &nat(), NatTraversal::decode, NatTraversal::encode);
    let mri = "00 00 48c0 0a000001 c6336407 20 20 11 00 1388 2328";
    let odd = NatTraversal { translated: vec![0x4004], opaque: ["", "a", "ab", "abc"].map(Bytes::from).to_vec(), ..nat() };
    let rows = format!("05 01 04 00 {mri} 4004 0000 0000 0000 0001 6100 0002 6162 0003 616263 000000");
    both_ways(&rows, &odd, NatTraversal::decode, NatTraversal::encode);
    assert!(odd.translates(ObjectType::StackConfigurationData), "whatever its flags");
    assert!(!odd.translates(ObjectType::MessageRoutingInformation));
    let none = NatTraversal { translated: vec![], opaque: vec![], ..nat() };
    both_ways(&format!("05 00 00 00 {mri}"), &none, NatTraversal::decode, NatTraversal::encode);
}

/// G-371, G-373, G-374.
#[test]
fn an_error_object_has_every_field_in_its_place() {
    both_ways(ERROR, &samples::error(), GistError::decode, GistError::encode);
    let every_info = GistError {
        class: ErrorClass::Reserved(9),
        code: 300,
        subcode: 77,
        datagram_mode: true,
        query_mode: false,
        header: [1, 2, 3, 4, 5, 6, 7, 8],
        session: None,
        mri: Some(downstream()),
        info: vec![
            ErrorInfo::MessageLength(26),
            ErrorInfo::LinkMtu(1400),
            ErrorInfo::ObjectType(11),
            ErrorInfo::ObjectValue(ObjectValueInfo { offset: 4, object: object(10, "00000000") }),
            ErrorInfo::Other { kind: 0xabcd, value: Bytes::new() },
            ErrorInfo::Other { kind: 5, value: Bytes::from_static(b"12345678") },
        ],
        comment: Some(String::new()),
    };
    let rows = "
        09 012c 4d                ; class 9, code 300, subcode 77
        70 00 05 06               ; M C D; MRI of five words; six fields
        01020304 05060708
        00 00 48c0 c0000201 c6336407 20 20 11 00 1388 2328
        0001 0001 001a 0000       ; Message Length Info
        0002 0001 0578 0000       ; MTU Info
        0003 0001 000b 0000       ; Object Type Info
        0004 0003 0002 0004       ; Object Value Info: two words, byte 4
        000a 0001 00000000        ; the Hello-ID object
        abcd 0000                 ; not known, no value
        0005 0002 31323334 35363738
        00000000                  ; an empty comment";
    both_ways(rows, &every_info, GistError::decode, GistError::encode);
    let session_only = GistError { session: Some(samples::session()), mri: None, info: vec![], comment: None, ..every_info };
    let rows = "09 012c 4d 90 00 00 00 01020304 05060708 00010203 04050607 08090a0b 0c0d0e0f";
    both_ways(rows, &session_only, GistError::decode, GistError::encode);
}

/// G-371: comments of all lengths modulo a word.
#[test]
fn a_comment_ends_with_at_least_one_nul() {
    for (text, rows) in [("abc", "61626300"), ("abcd", "61626364 00000000"), ("abcde", "61626364 65000000"), ("ab", "61620000")] {
        let error = GistError { session: None, mri: None, info: vec![], comment: Some(text.into()), ..samples::error() };
        let rows = format!("02 0009 02 38 00 00 00 01 09 0018 7fc0 80 c0 {rows}");
        both_ways(&rows, &error, GistError::decode, GistError::encode);
    }
}

/// G-368.
#[test]
fn cookies_are_whole_words() {
    for (length, whole) in [(0, true), (4, true), (MAX_VALUE_LENGTH, true), (3, false), (MAX_VALUE_LENGTH + 4, false)] {
        assert_eq!(Cookie::new(vec![1; length]).is_some(), whole, "{length} bytes");
    }
}

/// G-365: one byte holds the length.
#[test]
fn a_peer_identity_has_1_to_255_bytes() {
    for (length, fits) in [(0, false), (1, true), (255, true), (256, false)] {
        assert_eq!(PeerIdentity::new(vec![1; length]).is_some(), fits, "{length} bytes");
    }
    assert_eq!(PeerIdentity::new(&b"\x0a\xff"[..]).unwrap().to_string(), "0aff");
    assert_eq!(samples::session().to_string(), "000102030405060708090a0b0c0d0e0f");
}

/// G-164, G-372, and everything else that no receiver would take.
#[test]
fn values_that_cannot_be_expressed_are_not_written() {
    let millis = |millis| Duration::from_micros(millis);
    for bad in [Duration::ZERO, millis(999), Duration::from_millis(1 << 32)] {
        refused(NetworkLayerInformation { validity: bad, ..nli() }.encode(&mut BytesMut::new()));
        refused(StackConfiguration { hold_time: bad, options: vec![] }.encode(&mut BytesMut::new()));
    }
    for profiles in [vec![], vec![Profile(vec![])], vec![Profile::tcp(); 256], vec![Profile(vec![MaProtocol::Tls; 256])]] {
        refused(StackProposal { profiles }.encode(&mut BytesMut::new()));
    }
    refused(StackProposal { profiles: vec![Profile(vec![MaProtocol::Other(0)])] }.encode(&mut BytesMut::new()));
    let long = MaOptions { data: vec![0; 256].into(), ..MaOptions::tcp_query(0) };
    refused(StackConfiguration { hold_time: millis(1000), options: vec![long] }.encode(&mut BytesMut::new()));
    let many = vec![MaOptions::tcp_query(0); 256];
    refused(StackConfiguration { hold_time: millis(1000), options: many }.encode(&mut BytesMut::new()));
    refused(NatTraversal { translated: vec![0; 256], ..nat() }.encode(&mut BytesMut::new()));
    refused(NatTraversal { opaque: vec![Bytes::new(); 256], ..nat() }.encode(&mut BytesMut::new()));
    refused(NatTraversal { opaque: vec![vec![0; 65536].into()], ..nat() }.encode(&mut BytesMut::new()));
    refused(GistError { datagram_mode: false, ..samples::error() }.encode(&mut BytesMut::new()));
    refused(GistError { comment: Some("a\0b".into()), ..samples::error() }.encode(&mut BytesMut::new()));
    refused(GistError { info: vec![ErrorInfo::LinkMtu(0); 256], ..samples::error() }.encode(&mut BytesMut::new()));
    let odd = ErrorInfo::ObjectValue(ObjectValueInfo { offset: 0, object: Bytes::from_static(b"123") });
    refused(GistError { info: vec![odd], ..samples::error() }.encode(&mut BytesMut::new()));
}

fn refused(result: Result<(), EncodeError>) {
    assert!(matches!(result, Err(EncodeError::Field { .. })), "{result:?}");
}

fn both_ways<T: PartialEq + core::fmt::Debug>(
    rows: &str,
    value: &T,
    decode: impl Fn(Bytes) -> Result<T, ValueError>,
    encode: impl Fn(&T, &mut BytesMut) -> Result<(), EncodeError>,
) {
    let bytes = picture(rows);
    assert_eq!(decode(bytes.clone()).as_ref(), Ok(value), "{rows}");
    let mut out = BytesMut::new();
    encode(value, &mut out).unwrap();
    assert_eq!(out, bytes, "{rows}");
    for length in 0..bytes.len() {
        assert!(decode(bytes.slice(..length)).is_err(), "cut to {length} bytes: {rows}");
    }
    assert!(decode([&bytes[..], &[0; 4]].concat().into()).is_err(), "a word too long: {rows}");
}
