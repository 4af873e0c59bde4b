//! Each object and message against bytes written by hand from the draft's pictures, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod wire_support;

use core::time::Duration;

use bytes::Bytes;
use pbs_nslp::flow::FlowId;
use pbs_nslp::wire::{
    CgaParameters, Credential, Defense, Message, MessageKind, Notify, NotifyCode, Permission, PublicKeyAlgorithm, PuzzleChallenge,
    PuzzleSolution, Query, SaParameters, SharedKey, SymmetricAlgorithm, Volume, VolumeContext, build_notify, build_permission, build_query,
};
use wire_support::bytes_of::*;
use wire_support::*;

fn query() -> Query {
    Query {
        flow: flow(),
        number: 0x6a5e_1234,
        requested: Some(Volume(0x10_0000)),
        sent: None,
        credential: credential(),
        context: None,
        algorithms: None,
        puzzle: None,
    }
}

fn permission() -> Permission {
    let key = SharedKey::new(SymmetricAlgorithm::HmacSha256, (0..32).collect()).unwrap();
    Permission {
        flow: flow(),
        number: 0x6a5e_1234,
        allowed: Volume(0x10_0000),
        ttl: Duration::from_secs(600),
        refresh: Duration::from_secs(5),
        credential: credential(),
        defense: Some(Defense::SymmetricKey { algorithm: SymmetricAlgorithm::HmacSha256, key }),
        sa: Some(SaParameters { spi: 0x1001, drain: Duration::from_secs(2), new_epoch: true }),
        echo: None,
    }
}

fn check_query(expected: &Query, bytes: &[u8]) {
    let Message::Query(signed) = decode_bytes(bytes).unwrap() else { panic!("a Query") };
    assert_eq!(&signed.message, expected);
    assert_eq!(signed.raw, bytes);
    assert_eq!(signed.signature, hex("a1a2 a3a4 a5a6"));
    assert_eq!(build_query(expected, SESSION, NSLP, &FixedSigner::new()).unwrap(), bytes);
}

fn check_permission(expected: &Permission, bytes: &[u8]) {
    let Message::Permission(signed) = decode_bytes(bytes).unwrap() else { panic!("a Permission") };
    assert_eq!(&signed.message, expected);
    assert_eq!(signed.raw, bytes);
    assert_eq!(build_permission(expected, SESSION, NSLP, &FixedSigner::new()).unwrap(), bytes);
}

/// P-014, P-016, P-019, P-021, P-023, P-028 to P-030, P-038, P-046, P-053, P-067.
#[test]
fn first_query_matches_the_pictures() {
    let bytes = hex("0100 0000
        0010 0010  4110 0000 1388 2328 c000 0201 c633 6402
        0020 0004  6a5e 1234
        0030 0004  0010 0000
        0080 0005  3003 0201 2a00 0000
        00a0 0006  a1a2 a3a4 a5a6 0000");
    check_query(&query(), &bytes);
    let message = decode_bytes(&bytes).unwrap();
    assert_eq!((message.kind(), message.flow()), (MessageKind::Query, flow()));
}

/// P-019, P-054, P-072; appendix B: Vol-Context, Cert-Chain, Algs and Puzzle-Solution stand before Auth-data.
#[test]
fn refresh_query_with_all_extensions_matches_the_pictures() {
    // P-037.
    let mut expected = query();
    expected.sent = Some(Volume(0x4000));
    expected.credential = Credential::Certificate {
        certificate: Bytes::from_static(&[0x30, 3, 2, 1, 0x2a]),
        chain: vec![Bytes::from_static(&[0x30, 2, 5, 0]), Bytes::from_static(&[0x30, 1, 1])],
    };
    expected.context = Some(VolumeContext { spi: 0x1001, highest: 0xabc, permission: 0x6a5e_1111 });
    expected.algorithms = Some(vec![2, 1]);
    expected.puzzle = Some(PuzzleSolution { issuer: 7, nonce: 0x1111_1111_2222_2222, solution: 0x3333_3333_4444_4444 });
    let objects = [FID, MESSAGE_SEQ, REQ_VOL, SEND_VOL, PK_CERT, VOL_CONTEXT, CERT_CHAIN, ALGS, PUZZLE_SOLUTION, AUTH_DATA];
    check_query(&expected, &message(QUERY, &objects));
}

/// P-014, P-016, P-020, P-021, P-024, P-055 to P-058, P-075, P-079, P-080.
#[test]
fn permission_matches_the_pictures() {
    // P-056, P-057, P-029.
    let bytes = hex("0200 0000
        0010 0010  4110 0000 1388 2328 c000 0201 c633 6402
        0020 0004  6a5e 1234
        0050 0004  0010 0000
        0060 0004  0009 27c0
        0070 0004  0000 1388
        0080 0005  3003 0201 2a00 0000
        0090 0024  0202 0000
                   0001 0203 0405 0607 0809 0a0b 0c0d 0e0f 1011 1213 1415 1617 1819 1a1b 1c1d 1e1f
        0e00 0008  0000 1001 07d0 8000
        8e20 0004  6a5e 1234
        00a0 0006  a1a2 a3a4 a5a6 0000");
    check_permission(&Permission { echo: Some(0x6a5e_1234), ..permission() }, &bytes);
}

/// P-076, P-077, X-17, X-18: the solutions that carry no key, and the flag NEW clear.
#[test]
fn defense_without_key_matches_the_picture() {
    let head = [FID, MESSAGE_SEQ, ALLOW_VOL, TTL, REFRESH, PK_CERT];
    let with = |rest: &[&str]| message(PERMISSION, &[&head, rest, &[AUTH_DATA]].concat());
    let without_key = |defense, sa| Permission { defense: Some(defense), sa, ..permission() };
    check_permission(&without_key(Defense::NoAction, None), &with(&["0090 0004  0100 0000"]));
    check_permission(&without_key(Defense::ChangePath, None), &with(&["0090 0004  0400 0000"]));
    let sa = SaParameters { spi: 256, drain: Duration::from_millis(0xffff), new_epoch: false };
    check_permission(
        &without_key(Defense::PublicKey { algorithm: PublicKeyAlgorithm::FromCertificate }, Some(sa)),
        &with(&["0090 0004  030a 0000", "0e00 0008  0000 0100 ffff 0000"]),
    );
}

/// P-062, X-30: above 2³² − 1 the 32-bit object saturates and the twin carries the value; up to it there is no twin.
#[test]
fn large_volumes_have_a_saturated_object_and_a_twin() {
    let expected = Query { requested: Some(Volume(0x1_0000_0000)), sent: Some(Volume(0x0102_0304_0506_0708)), ..query() };
    let objects = [
        FID,
        MESSAGE_SEQ,
        "0030 0004 ffff ffff",
        "0040 0004 ffff ffff",
        PK_CERT,
        "8e30 0008 0000 0001 0000 0000",
        "8e40 0008 0102 0304 0506 0708",
        AUTH_DATA,
    ];
    check_query(&expected, &message(QUERY, &objects));

    let expected = Query { requested: Some(Volume(0xffff_ffff)), ..query() };
    check_query(&expected, &message(QUERY, &[FID, MESSAGE_SEQ, "0030 0004 ffff ffff", PK_CERT, AUTH_DATA]));

    let expected = Permission { allowed: Volume(u64::MAX), defense: Some(Defense::NoAction), sa: None, ..permission() };
    let objects =
        [FID, MESSAGE_SEQ, "0050 0004 ffff ffff", TTL, REFRESH, PK_CERT, "0090 0004 0100 0000", "8e50 0008 ffff ffff ffff ffff", AUTH_DATA];
    check_permission(&expected, &message(PERMISSION, &objects));
}

/// P-038 to P-040, X-11: protocol 132 does not fit into the figure's seven bits; IPv6 has 40 bytes of value.
#[test]
fn flow_identifier_has_the_split_of_the_text() {
    let address = |text: &str| text.parse().unwrap();
    let flow = FlowId::new(address("2001:db8::1"), address("2001:db8::2"), 132, 1, 65535).unwrap();
    let fid = "0010 0028  6840 0000 0001 ffff
        2001 0db8 0000 0000 0000 0000 0000 0001  2001 0db8 0000 0000 0000 0000 0000 0002";
    check_query(&Query { flow, ..query() }, &message(QUERY, &[fid, MESSAGE_SEQ, REQ_VOL, PK_CERT, AUTH_DATA]));

    let flow = FlowId::new(address("192.0.2.1"), address("198.51.100.2"), 1, 0, 0).unwrap();
    let fid = "0010 0010  4010 0000 0000 0000 c000 0201 c633 6402";
    check_query(&Query { flow, ..query() }, &message(QUERY, &[fid, MESSAGE_SEQ, REQ_VOL, PK_CERT, AUTH_DATA]));
}

/// CGA-Params replaces PK-cert on IPv6. Its 28 bytes are 16 of modifier, 8 of prefix, 1 of count and the key.
#[test]
fn address_parameters_replace_the_certificate_on_ipv6() {
    let address = |text: &str| text.parse().unwrap();
    let flow = FlowId::new(address("2001:db8:0:1::1"), address("2001:db8::2"), 6, 1, 2).unwrap();
    let fid = "0010 0028  6060 0000 0001 0002
        2001 0db8 0000 0001 0000 0000 0000 0001  2001 0db8 0000 0000 0000 0000 0000 0002";
    let cga = CgaParameters {
        modifier: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        subnet_prefix: [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 1],
        collision_count: 1,
        public_key: Bytes::from_static(&[0x30, 0x81, 0xaa]),
    };
    let expected = Query { flow, credential: Credential::Cga(cga), ..query() };
    check_query(&expected, &message(QUERY, &[fid, MESSAGE_SEQ, REQ_VOL, CGA_PARAMS, AUTH_DATA]));
    let (code, detail) = refusal(&message(QUERY, &[FID, MESSAGE_SEQ, REQ_VOL, CGA_PARAMS, AUTH_DATA]));
    assert_eq!((code, detail), (NotifyCode::BadValue, 0xE7), "IPv4 has no such addresses");
}

/// and appendix B: Notify with IPv4 and IPv6 reporter, with and without a challenge.
#[test]
fn notify_matches_the_pictures() {
    let mut expected = Notify {
        flow: flow(),
        class: 3,
        code: NotifyCode::FlowMismatch,
        detail: 2,
        number: 0x6a5e_1234,
        reporter: "192.0.2.254".parse().unwrap(),
        challenge: Some(PuzzleChallenge { algorithm: 1, difficulty: 12, lifetime: 30, issuer: 7, nonce: 0x1111_1111_2222_2222 }),
    };
    check_notify(&expected, &message(NOTIFY, &[FID, INFO, PUZZLE_CHALLENGE]));

    expected.challenge = None;
    expected.code = NotifyCode::Other(99);
    expected.reporter = "2001:db8::fe".parse().unwrap();
    let info = "4ea0 001c  0363 0002 6a5e 1234 0600 0000 2001 0db8 0000 0000 0000 0000 0000 00fe";
    check_notify(&expected, &message(NOTIFY, &[FID, info]));
}

fn check_notify(expected: &Notify, bytes: &[u8]) {
    let Message::Notify(received) = decode_bytes(bytes).unwrap() else { panic!("a Notify") };
    assert_eq!(&received.message, expected);
    assert_eq!((&received.raw[..], &received.forwarded[..]), (bytes, bytes));
    assert_eq!(build_notify(expected).unwrap(), bytes);
}

/// Appendix C: numbers and classes as listed.
#[test]
fn notify_codes_have_the_numbers_and_classes_of_the_list() {
    let classes = [2, 2, 2, 2, 2, 2, 2, 4, 2, 4, 2, 4, 3, 3, 0, 3, 3, 4];
    for (index, (code, class)) in NotifyCode::ALL.into_iter().zip(classes).enumerate() {
        let number = u8::try_from(index + 1).unwrap();
        assert_eq!((code.number(), code.class()), (number, class), "{code:?}");
        assert_eq!(NotifyCode::from_number(number), code);
    }
    assert_eq!(NotifyCode::from_number(0), NotifyCode::Other(0));
    assert_eq!(NotifyCode::from_number(19), NotifyCode::Other(19));
}

/// P-095: neither the key nor the bytes that contain it are printed.
#[test]
fn printing_a_permission_does_not_show_the_key() {
    let printed = format!("{:?}", decode_bytes(&message(PERMISSION, &least_permission())).unwrap());
    assert!(printed.contains("redacted"), "{printed}");
    for trace in ["\\x1c\\x1d", "28, 29", "1c1d"] {
        assert!(!printed.contains(trace), "{trace} in {printed}");
    }
}
