//! Properties of decoder and encoder over arbitrary bytes and values.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod wire_support;

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use pbs_nslp::flow::FlowId;
use pbs_nslp::wire::{
    CgaParameters, Credential, Defense, Message, Notify, NotifyCode, Permission, PublicKeyAlgorithm, PuzzleChallenge, PuzzleSolution,
    Query, SaParameters, SharedKey, SymmetricAlgorithm, Volume, VolumeContext, build_notify, build_permission, build_query,
};
use proptest::option;
use proptest::prelude::*;
use wire_support::*;

proptest! {
    /// P-018: any bytes are decoded or refused with a text; what is accepted comes out as it went in.
    /// P-205.
    #[test]
    fn decoder_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        check_any(&bytes);
    }

    /// The same with headers that lead deeper into the decoder.
    #[test]
    fn decoder_survives_any_objects(kind in prop::sample::select(vec![QUERY, PERMISSION, NOTIFY]), objects in prop::collection::vec(object(), 0..12)) {
        let bytes = [vec![kind, 0, 0, 0], objects.concat()].concat();
        check_any(&bytes);
    }

    /// The same with good messages damaged in a few places.
    #[test]
    fn decoder_survives_damaged_messages(query in query(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = build_query(&query, SESSION, NSLP, &signer(&query.credential)).unwrap().to_vec();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        check_any(&bytes);
    }

    #[test]
    fn queries_decode_to_what_was_built(query in query()) {
        let bytes = build_query(&query, SESSION, NSLP, &signer(&query.credential)).unwrap();
        let Message::Query(signed) = decode_bytes(&bytes).unwrap() else { panic!("a Query") };
        prop_assert_eq!(&signed.message, &query);
        prop_assert_eq!(build_query(&signed.message, SESSION, NSLP, &signer(&query.credential)).unwrap(), &bytes);
        prop_assert_eq!(signed.forwarded, bytes);
    }

    #[test]
    fn permissions_decode_to_what_was_built(permission in permission()) {
        let signer = signer(&permission.credential);
        let bytes = build_permission(&permission, SESSION, NSLP, &signer).unwrap();
        let Message::Permission(signed) = decode_bytes(&bytes).unwrap() else { panic!("a Permission") };
        prop_assert_eq!(&signed.message, &permission);
        prop_assert_eq!(build_permission(&signed.message, SESSION, NSLP, &signer).unwrap(), &bytes);
        prop_assert_eq!(signed.forwarded, bytes);
    }

    #[test]
    fn notices_decode_to_what_was_built(notify in notify()) {
        let bytes = build_notify(&notify).unwrap();
        let Message::Notify(received) = decode_bytes(&bytes).unwrap() else { panic!("a Notify") };
        prop_assert_eq!(&received.message, &notify);
        prop_assert_eq!(received.forwarded, bytes);
    }
}

fn check_any(bytes: &[u8]) {
    match decode_bytes(bytes) {
        Ok(Message::Query(signed)) => assert_eq!((&signed.raw[..], signed.forwarded.len() <= bytes.len()), (bytes, true)),
        Ok(Message::Permission(signed)) => assert_eq!((&signed.raw[..], signed.forwarded.len() <= bytes.len()), (bytes, true)),
        Ok(Message::Notify(notify)) => assert_eq!(notify.raw, bytes),
        Err(error) => {
            assert!(error.offset <= bytes.len(), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
}

fn signer(credential: &Credential) -> FixedSigner {
    let certificate = credential.certificate().map(|(certificate, _)| certificate.clone());
    FixedSigner::with_certificate(certificate.unwrap_or_default())
}

fn object() -> impl Strategy<Value = Vec<u8>> {
    let types = prop_oneof![1..=10_u8, 0xE0..=0xEE_u8, any::<u8>()];
    let treatment = prop_oneof![8 => Just(None), 1 => (0..4_u8).prop_map(Some)];
    let value = prop_oneof![prop::collection::vec(any::<u8>(), 4), prop::collection::vec(any::<u8>(), 0..48)];
    (types, treatment, value).prop_map(|(object, treatment, value)| {
        let usual = match object {
            0xE0 | 0xE7 => 0,
            0xE1..=0xE9 => 2,
            0xEA.. => 1,
            _ => 0,
        };
        let mut bytes = vec![treatment.unwrap_or(usual) << 6 | object >> 4, object << 4, 0, u8::try_from(value.len()).unwrap()];
        bytes.extend(&value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    })
}

fn address(version: u8) -> BoxedStrategy<IpAddr> {
    if version == 4 {
        (1..=126_u8, any::<[u8; 3]>()).prop_map(|(first, [b, c, d])| IpAddr::V4(Ipv4Addr::new(first, b, c, d))).boxed()
    } else {
        any::<[u8; 14]>()
            .prop_map(|rest| {
                let mut octets = [0; 16];
                octets[0] = 0x20;
                octets[2..].copy_from_slice(&rest);
                IpAddr::V6(Ipv6Addr::from(octets))
            })
            .boxed()
    }
}

prop_compose! {
    fn flow_of(version: u8)(
        source in address(version),
        destination in address(version),
        protocol in prop::sample::select(vec![1_u8, 6, 17, 33, 47, 50, 132, 136, 255]),
        source_port in 1..=u16::MAX,
        destination_port in 1..=u16::MAX,
    ) -> FlowId {
        FlowId::new(source, destination, protocol, source_port, destination_port)
            .or_else(|_| FlowId::new(source, destination, protocol, 0, 0))
            .unwrap()
    }
}

fn certificate() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 1..300).prop_map(Bytes::from)
}

fn credential(version: u8) -> BoxedStrategy<Credential> {
    let certificates = (certificate(), prop::collection::vec(certificate(), 0..=3))
        .prop_map(|(certificate, chain)| Credential::Certificate { certificate, chain });
    if version == 4 {
        return certificates.boxed();
    }
    let cga = (any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u8>(), certificate()).prop_map(
        |(modifier, subnet_prefix, collision_count, public_key)| {
            Credential::Cga(CgaParameters { modifier, subnet_prefix, collision_count, public_key })
        },
    );
    prop_oneof![3 => certificates, 1 => cga].boxed()
}

fn flow_and_credential() -> impl Strategy<Value = (FlowId, Credential)> {
    prop::sample::select(vec![4, 6]).prop_flat_map(|version| (flow_of(version), credential(version)))
}

fn volume() -> impl Strategy<Value = Volume> {
    prop_oneof![any::<u32>().prop_map(u64::from), any::<u64>(), Just(u64::from(u32::MAX)), Just(0)].prop_map(Volume)
}

fn volumes() -> impl Strategy<Value = (Option<Volume>, Option<Volume>)> {
    prop_oneof![
        volume().prop_map(|one| (Some(one), None)),
        volume().prop_map(|one| (None, Some(one))),
        (volume(), volume()).prop_map(|(one, other)| (Some(one), Some(other))),
    ]
}

prop_compose! {
    fn query()(
        (flow, credential) in flow_and_credential(),
        number: u32,
        (requested, sent) in volumes(),
        context in option::of(any::<(u32, u32, u32)>()),
        algorithms in option::of(prop::collection::vec(any::<u8>(), 1..8)),
        puzzle in option::of(any::<(u32, u64, u64)>()),
    ) -> Query {
        let context = context.map(|(spi, highest, permission)| VolumeContext { spi, highest, permission });
        let puzzle = puzzle.map(|(issuer, nonce, solution)| PuzzleSolution { issuer, nonce, solution });
        Query { flow, number, requested, sent, credential, context, algorithms, puzzle }
    }
}

fn milliseconds() -> impl Strategy<Value = Duration> {
    (1..=u32::MAX).prop_map(|milliseconds| Duration::from_millis(u64::from(milliseconds)))
}

fn defense() -> impl Strategy<Value = Defense> {
    let symmetric = (prop::sample::select(SymmetricAlgorithm::ALL.to_vec()), any::<u8>()).prop_map(|(algorithm, byte)| {
        let key = SharedKey::new(algorithm, vec![byte; algorithm.key_length()]).unwrap();
        Defense::SymmetricKey { algorithm, key }
    });
    let public = prop::sample::select(PublicKeyAlgorithm::ALL.to_vec()).prop_map(|algorithm| Defense::PublicKey { algorithm });
    prop_oneof![Just(Defense::NoAction), Just(Defense::ChangePath), symmetric, public]
}

prop_compose! {
    fn permission()(
        (flow, credential) in flow_and_credential(),
        number: u32,
        allowed in volume(),
        ttl in milliseconds(),
        refresh in milliseconds(),
        defense in defense(),
        spi in 256..=u32::MAX,
        drain: u16,
        new_epoch: bool,
        echo in option::of(any::<u32>()),
    ) -> Permission {
        let sa = defense.has_association().then_some(SaParameters { spi, drain: Duration::from_millis(u64::from(drain)), new_epoch });
        Permission { flow, number, allowed, ttl, refresh, credential, defense: Some(defense), sa, echo }
    }
}

prop_compose! {
    fn notify()(
        (flow, _) in flow_and_credential(),
        (class, code, detail, number) in any::<(u8, u8, u16, u32)>(),
        reporter: IpAddr,
        challenge in option::of(any::<(u8, u8, u16, u32, u64)>()),
    ) -> Notify {
        let challenge = challenge.map(|(algorithm, difficulty, lifetime, issuer, nonce)| {
            PuzzleChallenge { algorithm, difficulty, lifetime, issuer, nonce }
        });
        Notify { flow, class, code: NotifyCode::from_number(code), detail, number, reporter, challenge }
    }
}
