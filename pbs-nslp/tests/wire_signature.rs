//! What a signature covers, what is forwarded, and that nothing signed can be changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod credentials_support;
mod wire_support;

use core::time::Duration;

use bytes::Bytes;
use credentials_support::{Ca, ip, now};
use gist::wire::{NslpId, SessionId};
use pbs_nslp::credentials::{Authority, BadSignature, Signer, VerifiedKey, X509Authority, X509Signer};
use pbs_nslp::wire::{
    Credential, Defense, Message, Permission, Query, SaParameters, SharedKey, SymmetricAlgorithm, Volume, VolumeContext, build_permission,
    build_query, decode,
};
use wire_support::bytes_of::*;
use wire_support::*;

/// P-087, X-20, X-21: the signed bytes, put together by hand, reserved bits as they came and AB=01 left out.
#[test]
fn signed_bytes_are_label_session_nslpid_and_what_precedes_the_signature() {
    let objects = ["4ef0 0004 01020304", FID, "302f 0004 6a5e 1234", REQ_VOL, "4ee0 0000", "8ec0 0001 77000000", PK_CERT, AUTH_DATA];
    let mut bytes = message(QUERY, &[&objects[..], &["4ed0 0000"]].concat());
    bytes[1..4].copy_from_slice(&[9, 8, 7]);
    let expected = [
        &b"PBS-NSLP-SIG-1\0"[..],
        &[0x5e; 16],
        &[0x7f, 0xc0],
        &[1, 9, 8, 7],
        &hex(FID),
        &hex("302f 0004 6a5e 1234"),
        &hex(REQ_VOL),
        &hex("8ec0 0001 77000000"),
        &hex(PK_CERT),
        &hex("00a0 0006"),
    ]
    .concat();
    let Message::Query(query) = decode_bytes(&bytes).unwrap() else { panic!("a Query") };
    assert_eq!(query.signed_bytes, expected);
}

/// P-033, P-034, P-092: unknown AB=01 objects go, all the rest is passed on byte for byte in its order.
#[test]
fn forwarded_bytes_lack_only_unknown_hints() {
    let objects = [PK_CERT, "8ec0 0001 77000000", AUTH_DATA];
    let kept = [&[FID, "302f 0004 6a5e 1234", REQ_VOL], &objects[..]].concat();
    let with_hints =
        [&["4ef0 0004 01020304", FID, "302f 0004 6a5e 1234", "4ee0 0003 aabbcc00", REQ_VOL], &objects[..], &["4ed0 0000"]].concat();
    let Message::Query(query) = decode_bytes(&message(QUERY, &with_hints)).unwrap() else { panic!("a Query") };
    assert_eq!(query.forwarded, message(QUERY, &kept));
    assert_eq!(query.raw, message(QUERY, &with_hints));

    let Message::Query(query) = decode_bytes(&message(QUERY, &kept)).unwrap() else { panic!("a Query") };
    assert_eq!(query.forwarded, query.raw);

    let notify = message(NOTIFY, &[FID, "4ef0 0000", INFO, "8ec0 0000", PUZZLE_CHALLENGE]);
    let Message::Notify(notify) = decode_bytes(&notify).unwrap() else { panic!("a Notify") };
    assert_eq!(notify.forwarded, message(NOTIFY, &[FID, INFO, "8ec0 0000", PUZZLE_CHALLENGE]), "known hints stay");
}

/// P-084, P-086, P-088: both schemes verify, and no bit up to the end of the signature can be changed.
#[test]
fn no_bit_of_a_signed_message_can_be_flipped() {
    // P-052.
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256] {
        let world = World::new(algorithm);
        for bytes in [world.query(), world.permission()] {
            world.verify(&bytes, SESSION, NSLP).unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.to_vec();
                changed[bit / 8] ^= 1 << (bit % 8);
                world.verify(&changed.into(), SESSION, NSLP).expect_err("changed");
            }
        }
    }
}

/// P-087, X-21: a message moved to another session or another signalling application does not verify.
#[test]
fn messages_moved_elsewhere_do_not_verify() {
    let world = World::new(&rcgen::PKCS_ED25519);
    for bytes in [world.query(), world.permission()] {
        for bit in 0..128 {
            let mut session = SESSION;
            session.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(world.verify(&bytes, session, NSLP), Err(Refusal::Signature));
        }
        for bit in 0..16 {
            assert_eq!(world.verify(&bytes, SESSION, NslpId(NSLP.0 ^ (1 << bit))), Err(Refusal::Signature));
        }
    }
}

/// P-033: an unknown hint put in anywhere by a node on the path changes neither the message nor its signature.
#[test]
fn hints_inserted_on_the_way_are_ignored_and_not_forwarded() {
    let world = World::new(&rcgen::PKCS_ED25519);
    for bytes in [world.query(), world.permission()] {
        let original = decode(bytes.clone(), SESSION, NSLP).unwrap();
        for offset in object_offsets(&bytes) {
            let changed = inserted(&bytes, offset, &hex("4ef0 0005 ffffffff ff000000"));
            world.verify(&changed, SESSION, NSLP).unwrap();
            match (decode(changed, SESSION, NSLP).unwrap(), &original) {
                (Message::Query(changed), Message::Query(original)) => {
                    assert_eq!((&changed.message, &changed.forwarded), (&original.message, &bytes));
                }
                (Message::Permission(changed), Message::Permission(original)) => {
                    assert_eq!((&changed.message, &changed.forwarded), (&original.message, &bytes));
                }
                _ => panic!("kinds differ"),
            }
        }
    }
}

/// X-10, P-021, P-036: what means something to this node cannot be slipped in unsigned, nor removed.
#[test]
fn objects_that_matter_cannot_be_inserted_or_removed() {
    let world = World::new(&rcgen::PKCS_ED25519);
    let bytes = world.permission();
    let offsets = object_offsets(&bytes);
    for inserted_object in ["4e50 0008 00000000 00100000", "8e50 0008 00000000 00100000", "4e20 0004 00000001", "8ef0 0000", "0ef0 0000"] {
        for offset in &offsets {
            world.verify(&inserted(&bytes, *offset, &hex(inserted_object)), SESSION, NSLP).expect_err(inserted_object);
        }
    }
    for pair in offsets.windows(2) {
        let removed = [&bytes[..pair[0]], &bytes[pair[1]..]].concat();
        world.verify(&removed.into(), SESSION, NSLP).expect_err("removed");
    }
}

/// order is signed as sent.
#[test]
fn objects_cannot_be_exchanged() {
    let world = World::new(&rcgen::PKCS_ED25519);
    let bytes = world.query();
    let offsets = object_offsets(&bytes);
    for three in offsets.windows(3) {
        let exchanged = [&bytes[..three[0]], &bytes[three[1]..three[2]], &bytes[three[0]..three[1]], &bytes[three[2]..]].concat();
        world.verify(&exchanged.into(), SESSION, NSLP).expect_err("exchanged");
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    Decode,
    Signature,
}

/// A sender, a receiver, and a verifier that already knows both keys.
struct World {
    sender: X509Signer,
    receiver: X509Signer,
    authority: X509Authority,
    keys: [VerifiedKey; 2],
}

impl World {
    fn new(algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let ca = Ca::new("ca");
        let authority = ca.authority();
        let sender = ca.host_with("192.0.2.1", algorithm);
        let receiver = ca.host_with("198.51.100.2", algorithm);
        let key = |signer: &X509Signer, address: &str| authority.verify_certificate(signer.certificate(), &[], ip(address), now()).unwrap();
        let keys = [key(&sender, "192.0.2.1"), key(&receiver, "198.51.100.2")];
        Self { sender, receiver, authority, keys }
    }

    fn query(&self) -> Bytes {
        let query = Query {
            flow: flow(),
            number: 0x6a5e_1234,
            requested: Some(Volume(1 << 40)),
            sent: Some(Volume(5)),
            credential: credential_of(&self.sender),
            context: Some(VolumeContext { spi: 256, highest: 3, permission: 4 }),
            algorithms: Some(vec![2]),
            puzzle: None,
        };
        build_query(&query, SESSION, NSLP, &self.sender).unwrap()
    }

    fn permission(&self) -> Bytes {
        let permission = Permission {
            flow: flow(),
            number: 0x6a5e_1234,
            allowed: Volume(1 << 20),
            ttl: Duration::from_secs(600),
            refresh: Duration::from_secs(5),
            credential: credential_of(&self.receiver),
            defense: Some(Defense::SymmetricKey {
                algorithm: SymmetricAlgorithm::HmacSha256,
                key: SharedKey::new(SymmetricAlgorithm::HmacSha256, vec![7; 32]).unwrap(),
            }),
            sa: Some(SaParameters { spi: 256, drain: Duration::from_secs(2), new_epoch: true }),
            echo: Some(1),
        };
        build_permission(&permission, SESSION, NSLP, &self.receiver).unwrap()
    }

    fn verify(&self, bytes: &Bytes, session: SessionId, nslp_id: NslpId) -> Result<(), Refusal> {
        let (key, signed_bytes, signature) = match decode(bytes.clone(), session, nslp_id) {
            Ok(Message::Query(signed)) => (&self.keys[0], signed.signed_bytes, signed.signature),
            Ok(Message::Permission(signed)) => (&self.keys[1], signed.signed_bytes, signed.signature),
            Ok(Message::Notify(_)) | Err(_) => return Err(Refusal::Decode),
        };
        self.authority.verify_signature(key, &signed_bytes, &signature).map_err(|BadSignature| Refusal::Signature)
    }
}

fn credential_of(signer: &X509Signer) -> Credential {
    Credential::Certificate { certificate: signer.certificate().clone(), chain: signer.chain().to_vec() }
}

/// Where objects begin, and where the last one ends.
fn object_offsets(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = vec![4];
    let mut offset = 4;
    while offset < bytes.len() {
        offset += 4 + usize::from(u16::from_be_bytes([bytes[offset + 2], bytes[offset + 3]])).next_multiple_of(4);
        offsets.push(offset);
    }
    offsets
}

fn inserted(bytes: &[u8], offset: usize, object: &[u8]) -> Bytes {
    [&bytes[..offset], object, &bytes[offset..]].concat().into()
}
