//! Lengths and values of objects at their limits, in messages received and messages to build.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod wire_support;

use core::time::Duration;

use bytes::Bytes;
use pbs_nslp::wire::{
    AlgorithmStanding, BuildError, Credential, Defense, MESSAGE_LIMIT, Malformation, Message, NotifyCode, ObjectType, Permission,
    PublicKeyAlgorithm, Query, SaParameters, SharedKey, SymmetricAlgorithm, Volume, build_permission, build_query,
};
use wire_support::bytes_of::*;
use wire_support::*;

/// P-018: a message that ends anywhere but after an object, and one that ends before its mandatory objects.
#[test]
fn messages_cut_at_any_byte_are_refused() {
    for (kind, objects) in [(QUERY, least_query()), (PERMISSION, least_permission()), (NOTIFY, vec![FID, INFO])] {
        let whole = message(kind, &objects);
        for length in 0..whole.len() {
            let (code, _) = refusal(&whole[..length]);
            assert!(matches!(code, NotifyCode::Malformed | NotifyCode::MissingObject), "{length}: {code:?}");
            // Left-over bytes after a whole message are an object header cut short.
            let rest = [&whole[..], &whole[..length % 4]].concat();
            assert_eq!(decode_bytes(&rest).is_ok(), length % 4 == 0, "{length}");
        }
    }
}

/// P-030, P-040, X-03: fixed objects have one length each; 8 for a 32-bit value (header counted) is refused.
#[test]
fn fixed_objects_of_another_length_are_refused() {
    let words = |length: usize| "00".repeat(length.next_multiple_of(4));
    for (kind, object, right) in [
        (QUERY, "002", 4..=4),
        (QUERY, "003", 4..=4),
        (QUERY, "004", 4..=4),
        (PERMISSION, "005", 4..=4),
        (PERMISSION, "006", 4..=4),
        (PERMISSION, "007", 4..=4),
        (PERMISSION, "0e0", 8..=8),
        (QUERY, "8e1", 12..=12),
        (PERMISSION, "8e2", 4..=4),
        (QUERY, "8e9", 20..=20),
        (QUERY, "8e3", 8..=8),
        (NOTIFY, "4eb", 16..=16),
    ] {
        let least = match kind {
            QUERY => least_query(),
            PERMISSION => least_permission(),
            _ => vec![FID, INFO],
        };
        for length in (0..=24_usize).filter(|length| !right.contains(length)) {
            let tested = format!("{object}0 {length:04x} {}", words(length));
            let mut objects: Vec<&str> = least.iter().copied().filter(|other| other[..3] != object[..3]).collect();
            objects.insert(0, &tested);
            let (code, detail) = refusal(&message(kind, &objects));
            assert_eq!((code, detail), (NotifyCode::Malformed, type_of(object)), "{tested}");
        }
    }
    for fid in [
        "0010 0014 4110 0000 1388 2328 c000 0201 c633 6402 0000 0000",
        "0010 000c 4110 0000 1388 2328 c000 0201",
        "0010 0010 6110 0000 1388 2328 c000 0201 c633 6402",
    ] {
        assert_eq!(refusal(&message(QUERY, &[fid, MESSAGE_SEQ, REQ_VOL, PK_CERT, AUTH_DATA])), (NotifyCode::Malformed, 1));
    }
}

/// P-031, X-04.
#[test]
fn padding_that_is_not_zero_is_refused() {
    for certificate in ["0080 0005 3003 0201 2a00 0001", "0080 0005 3003 0201 2a80 0000", "0080 0007 3003 0201 2a00 0001"] {
        assert_eq!(refusal(&message(QUERY, &[FID, MESSAGE_SEQ, REQ_VOL, certificate, AUTH_DATA])), (NotifyCode::Malformed, 8));
    }
    let signature = "00a0 0006 a1a2 a3a4 a5a6 0001";
    assert_eq!(refusal(&message(QUERY, &[FID, MESSAGE_SEQ, REQ_VOL, PK_CERT, signature])), (NotifyCode::Malformed, 10));
}

/// Variable objects that would be empty, and Cert-Chain (X-22, P-072).
#[test]
fn empty_values_and_bad_chains_are_refused() {
    let query = |certificate: &str, extra: &str, signature: &str| {
        refusal(&message(QUERY, &[FID, MESSAGE_SEQ, REQ_VOL, certificate, extra, signature]))
    };
    assert_eq!(query("0080 0000", "", AUTH_DATA), (NotifyCode::Malformed, 8));
    assert_eq!(query(PK_CERT, "", "00a0 0000"), (NotifyCode::Malformed, 10));
    assert_eq!(query(PK_CERT, "8e80 0000", AUTH_DATA), (NotifyCode::Malformed, 0xE8));
    for (chain, code) in [
        ("8e60 0000", NotifyCode::Malformed),
        ("8e60 0001 0000 0000", NotifyCode::Malformed),
        ("8e60 0004 0003 3001", NotifyCode::Malformed),
        ("8e60 0002 0000 0000", NotifyCode::BadValue),
        ("8e60 000c 0001 30 0001 30 0001 30 0001 30", NotifyCode::BadValue),
    ] {
        assert_eq!(query(PK_CERT, chain, AUTH_DATA), (code, 0xE6), "{chain}");
    }
    let three = message(QUERY, &[FID, MESSAGE_SEQ, REQ_VOL, PK_CERT, "8e60 0009 0001 30 0001 30 0001 30 000000", AUTH_DATA]);
    decode_bytes(&three).unwrap();
    assert_eq!(query(PK_CERT, CGA_PARAMS, AUTH_DATA), (NotifyCode::Malformed, 0xE7), "X-81: instead of PK-cert, not beside it");
}

/// P-078, X-17: the whole matrix of solution and algorithm, P-081, X-16: with every key length.
#[test]
fn solution_algorithm_and_key_length_must_fit() {
    let key_length = |solution: u8, algorithm: u8| match (solution, algorithm) {
        (1 | 4, 0) | (3, 4..=10) => Some(0),
        (2, 1) => Some(20),
        (2, 2) => Some(32),
        (2, 3) => Some(16),
        (2, 224) => Some(20),
        (2, 225) => Some(36),
        _ => None,
    };
    for solution in [0, 1, 2, 3, 4, 5, 255] {
        for algorithm in (0..=12).chain([223, 224, 225, 226, 255]) {
            for length in [0, 1, 15, 16, 17, 19, 20, 21, 31, 32, 33, 35, 36, 37, 64_usize] {
                let defense = format!("0090 {:04x} {solution:02x}{algorithm:02x} 0000 {}", 4 + length, "5a".repeat(length));
                let padded = format!("{defense}{}", "00".repeat(length.next_multiple_of(4) - length));
                let sa = if matches!(solution, 2 | 3) { SA_PARAMS } else { "" };
                let bytes = message(PERMISSION, &[FID, MESSAGE_SEQ, ALLOW_VOL, TTL, REFRESH, PK_CERT, &padded, sa, AUTH_DATA]);
                if key_length(solution, algorithm) == Some(length) {
                    let Message::Permission(permission) = decode_bytes(&bytes).unwrap() else { panic!("a Permission") };
                    let defense = permission.message.defense.unwrap();
                    assert_eq!((defense.solution(), defense.algorithm_number()), (solution, algorithm));
                } else {
                    assert_eq!(refusal(&bytes), (NotifyCode::BadValue, 9), "{solution}/{algorithm} with {length} bytes");
                }
            }
        }
    }
}

/// P-082, P-083, X-67: all code points are read, few are used.
#[test]
fn algorithms_have_their_standing() {
    let standing = |refused: AlgorithmStanding| {
        let symmetric = SymmetricAlgorithm::ALL.into_iter().filter(|one| one.standing() == refused).map(SymmetricAlgorithm::number);
        let public = PublicKeyAlgorithm::ALL.into_iter().filter(|one| one.standing() == refused).map(PublicKeyAlgorithm::number);
        symmetric.chain(public).collect::<Vec<_>>()
    };
    assert_eq!(standing(AlgorithmStanding::Supported), [2, 224, 225, 5, 10]);
    assert_eq!(standing(AlgorithmStanding::ByConfiguration), [1, 7, 9]);
    assert_eq!(standing(AlgorithmStanding::Refused), [3, 4, 6, 8]);
    assert_eq!(Defense::NoAction.standing(), AlgorithmStanding::Supported);
}

/// P-064 to P-066, X-25: zero refuses or revokes, but never as a refresh period with a volume.
#[test]
fn zeros_mean_what_the_profile_says() {
    // P-065.
    let permission = |allowed: &str, ttl: &str, refresh: &str, rest: &[&str]| {
        message(PERMISSION, &[&[FID, MESSAGE_SEQ, allowed, ttl, refresh, PK_CERT], rest, &[AUTH_DATA]].concat())
    };
    let (no_volume, no_ttl, no_refresh) = ("0050 0004 00000000", "0060 0004 00000000", "0070 0004 00000000");
    let association = [DEFENSE, SA_PARAMS];
    let removes = |bytes: &[u8]| match decode_bytes(bytes).unwrap() {
        Message::Permission(permission) => permission.message.is_removal(),
        _ => panic!("a Permission"),
    };
    assert!(!removes(&permission(ALLOW_VOL, TTL, REFRESH, &association)));
    assert!(removes(&permission(no_volume, TTL, REFRESH, &[])));
    assert!(removes(&permission(no_volume, no_ttl, no_refresh, &[])));
    assert!(removes(&permission(no_volume, TTL, REFRESH, &association)));
    assert!(removes(&permission(no_volume, TTL, REFRESH, &[SA_PARAMS])));
    assert!(removes(&permission(ALLOW_VOL, no_ttl, REFRESH, &association)));
    assert_eq!(refusal(&permission(ALLOW_VOL, TTL, no_refresh, &association)), (NotifyCode::BadValue, 7));
    assert_eq!(refusal(&permission(ALLOW_VOL, no_ttl, no_refresh, &association)), (NotifyCode::BadValue, 7));

    let release = message(QUERY, &[FID, MESSAGE_SEQ, "0030 0004 00000000", SEND_VOL, PK_CERT, AUTH_DATA]);
    let Message::Query(query) = decode_bytes(&release).unwrap() else { panic!("a Query") };
    assert!(query.message.is_release());
}

/// P-024, X-53: SA-Params with Solutions 2 and 3, and X-18: not with 1 and 4; X-74: no reserved SPI.
#[test]
fn security_association_goes_with_its_solutions() {
    let permission =
        |rest: &[&str]| message(PERMISSION, &[&[FID, MESSAGE_SEQ, ALLOW_VOL, TTL, REFRESH, PK_CERT], rest, &[AUTH_DATA]].concat());
    assert_eq!(refusal(&permission(&[DEFENSE])), (NotifyCode::MissingObject, 0xE0));
    assert_eq!(refusal(&permission(&["0090 0004 030a 0000"])), (NotifyCode::MissingObject, 0xE0));
    for without in ["0090 0004 0100 0000", "0090 0004 0400 0000"] {
        assert_eq!(refusal(&permission(&[without, SA_PARAMS])), (NotifyCode::Malformed, 0xE0));
    }
    assert_eq!(refusal(&permission(&[DEFENSE, "0e00 0008 000000ff 07d0 8000"])), (NotifyCode::BadValue, 0xE0));
    decode_bytes(&permission(&[DEFENSE, "0e00 0008 00000100 07d0 8000"])).unwrap();
}

/// a 64-bit volume goes with its saturated 32-bit object or not at all.
#[test]
fn twins_must_agree() {
    for (word, twin, agrees) in [
        ("00000000", "0000000000000000", true),
        ("00100000", "0000000000100000", true),
        ("ffffffff", "00000000ffffffff", true),
        ("ffffffff", "0000000100000000", true),
        ("ffffffff", "ffffffffffffffff", true),
        ("00000000", "0000000100000000", false),
        ("00100000", "0000000000100001", false),
        ("ffffffff", "00000000fffffffe", false),
        ("fffffffe", "0000000100000000", false),
    ] {
        for (object, extension) in [("003", "8e3"), ("004", "8e4")] {
            let (word, twin) = (format!("{object}0 0004 {word}"), format!("{extension}0 0008 {twin}"));
            let bytes = message(QUERY, &[FID, MESSAGE_SEQ, &twin, &word, PK_CERT, AUTH_DATA]);
            match agrees {
                true => assert!(decode_bytes(&bytes).is_ok(), "{word} {twin}"),
                false => assert_eq!(refusal(&bytes), (NotifyCode::Malformed, type_of(extension)), "{word} {twin}"),
            }
        }
    }
    let alone = message(QUERY, &[FID, MESSAGE_SEQ, REQ_VOL, "8e40 0008 0000000000004000", PK_CERT, AUTH_DATA]);
    assert_eq!(refusal(&alone), (NotifyCode::MissingObject, 4));
}

/// P-027, X-23: 16380 bytes are the most, built or received.
#[test]
fn larger_messages_are_refused() {
    let certificate = |length: usize| Bytes::from(vec![0x30; length]);
    let build = |certificate: &Bytes| {
        let query = Query { credential: Credential::Certificate { certificate: certificate.clone(), chain: vec![] }, ..query() };
        build_query(&query, SESSION, NSLP, &FixedSigner::with_certificate(certificate.clone()))
    };
    let others = message(QUERY, &[FID, MESSAGE_SEQ, REQ_VOL, AUTH_DATA]).len() + 4;
    let most = build(&certificate(MESSAGE_LIMIT - others)).unwrap();
    assert_eq!(most.len(), MESSAGE_LIMIT);
    decode_bytes(&most).unwrap();
    for length in [MESSAGE_LIMIT - others + 1, MESSAGE_LIMIT, 65_536, 1 << 20] {
        assert_eq!(build(&certificate(length)), Err(BuildError::TooLarge));
    }
    let larger = [&most[..], &hex("4ef0 0000")].concat();
    assert_eq!(refusal(&larger), (NotifyCode::Malformed, 0));
}

/// What receivers refuse is not built.
#[test]
fn messages_that_receivers_refuse_are_not_built() {
    let of_query = |query: Query| build_query(&query, SESSION, NSLP, &FixedSigner::new()).unwrap_err();
    let of_permission = |permission: Permission| build_permission(&permission, SESSION, NSLP, &FixedSigner::new()).unwrap_err();
    let invalid = |object, reason| BuildError::Invalid { object, reason };

    assert_eq!(of_query(Query { requested: None, ..query() }), invalid(ObjectType::REQ_VOL, Malformation::Missing));
    assert_eq!(of_query(Query { algorithms: Some(vec![]), ..query() }), invalid(ObjectType::ALGS, Malformation::Length(0)));
    let chain = |chain| Credential::Certificate { certificate: Bytes::from_static(&[0x30, 3, 2, 1, 0x2a]), chain };
    let too_long = chain(vec![Bytes::from_static(&[0x30]); 4]);
    assert!(matches!(of_query(Query { credential: too_long, ..query() }), BuildError::Invalid { object: ObjectType::CERT_CHAIN, .. }));
    let empty = chain(vec![Bytes::new()]);
    assert!(matches!(of_query(Query { credential: empty, ..query() }), BuildError::Invalid { object: ObjectType::CERT_CHAIN, .. }));
    let foreign = Credential::Certificate { certificate: Bytes::from_static(&[0x30, 0]), chain: vec![] };
    assert_eq!(of_query(Query { credential: foreign, ..query() }), BuildError::ForeignCertificate);

    let missing = |object| invalid(object, Malformation::Missing);
    assert_eq!(of_permission(Permission { defense: None, sa: None, ..permission() }), missing(ObjectType::DEFENSE));
    assert_eq!(of_permission(Permission { sa: None, ..permission() }), missing(ObjectType::SA_PARAMS));
    let at_fault = |permission| match of_permission(permission) {
        BuildError::Invalid { object, .. } => object,
        other => panic!("{other}"),
    };
    assert_eq!(at_fault(Permission { refresh: Duration::from_micros(999), ..permission() }), ObjectType::REFRESH);
    assert_eq!(at_fault(Permission { ttl: Duration::from_millis(1 << 32), ..permission() }), ObjectType::TTL);
    let sa = |spi, drain| Some(SaParameters { spi, drain: Duration::from_millis(drain), new_epoch: false });
    assert_eq!(at_fault(Permission { sa: sa(255, 0), ..permission() }), ObjectType::SA_PARAMS);
    assert_eq!(at_fault(Permission { sa: sa(256, 65_536), ..permission() }), ObjectType::SA_PARAMS);
}

fn query() -> Query {
    Query {
        flow: flow(),
        number: 1,
        requested: Some(Volume(1)),
        sent: None,
        credential: credential(),
        context: None,
        algorithms: None,
        puzzle: None,
    }
}

fn permission() -> Permission {
    Permission {
        flow: flow(),
        number: 1,
        allowed: Volume(1),
        ttl: Duration::from_secs(1),
        refresh: Duration::from_secs(1),
        credential: credential(),
        defense: Some(Defense::SymmetricKey {
            algorithm: SymmetricAlgorithm::HmacSha256,
            key: SharedKey::new(SymmetricAlgorithm::HmacSha256, vec![7; 32]).unwrap(),
        }),
        sa: Some(SaParameters { spi: 256, drain: Duration::ZERO, new_epoch: true }),
        echo: None,
    }
}

/// The type in the first three hexadecimal digits of an object.
fn type_of(object: &str) -> u16 {
    u16::from_str_radix(&object[1..3], 16).unwrap()
}
