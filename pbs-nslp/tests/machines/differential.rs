//! What the next hop reads is what was signed, whatever a node on the path puts in between (P-033, P-034, INV-15).

use core::fmt;

use gist::wire::SessionId;
use pbs_nslp::credentials::{Authority, CertificatePath, SignatureScheme, VerifiedKey};
use pbs_nslp::wire::{self, Message, Signed};

use crate::credentials::ToyAuthority;
use crate::forge::{permission, permission_from, query, query_from, receiver, sender};
use crate::world::NSLP_ID;

const SESSION: SessionId = SessionId([5; 16]);
/// Messages tried of each kind.
const ROUNDS: u32 = 20_000;

/// Xorshift: the same dice each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len())]
    }

    /// An object that may be known or not, of any treatment, length and content.
    fn object(&mut self) -> Vec<u8> {
        let known = self.pick(&[0x5e, 0x5e, 0x2e, 0x6e, 0x0e]);
        let kind = match self.roll(4) {
            0 => known,
            1 => 0xea,
            _ => 0xf0 + u8::try_from(self.roll(8)).unwrap(),
        };
        let treatment: u8 = self.pick(&[0x40, 0x40, 0x80, 0x00, 0xc0]);
        let length: usize = self.pick(&[4, 8, 0, 3]);
        let reserved = u8::try_from(self.roll(4)).unwrap() << 4;
        let mut object = vec![treatment | reserved | kind >> 4, kind << 4 | u8::try_from(self.roll(16)).unwrap()];
        object.extend(u16::try_from(length).unwrap().to_be_bytes());
        object.resize(4 + length, 1);
        object.resize(4 + length.next_multiple_of(4), 0);
        object
    }
}

/// Where an object may be put in.
fn boundaries(message: &[u8]) -> Vec<usize> {
    let mut boundaries = vec![4];
    let mut offset = 4;
    while offset + 4 <= message.len() {
        let length = usize::from(u16::from_be_bytes([message[offset + 2], message[offset + 3]]));
        offset += 4 + length.next_multiple_of(4);
        if offset > message.len() {
            break;
        }
        boundaries.push(offset);
    }
    boundaries
}

fn disturb(message: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for _ in 0..dice.roll(3) {
        let at = dice.pick(&boundaries(&bytes));
        let tail = bytes.split_off(at);
        bytes.extend(dice.object());
        bytes.extend(tail);
    }
    if dice.roll(3) == 0 {
        let at = dice.roll(bytes.len());
        bytes[at] ^= 1 << dice.roll(8);
    }
    bytes
}

/// Checks that the next hop sees the same, and says whether the signature holds.
fn compare<M: PartialEq + fmt::Debug>(here: &Signed<M>, next: &Signed<M>, key: u8) -> bool {
    assert_eq!(here.message, next.message);
    assert_eq!(here.signed_bytes, next.signed_bytes);
    assert_eq!(here.signature, next.signature);
    assert_eq!(next.forwarded, next.raw, "nothing is left to delete");
    let key = VerifiedKey {
        key_hash: [key; 32],
        scheme: SignatureScheme::Ed25519,
        public_key: vec![key].into(),
        not_after_unix: u64::MAX,
        path: CertificatePath::default(),
    };
    ToyAuthority::default().verify_signature(&key, &here.signed_bytes, &here.signature).is_ok()
}

#[test]
fn the_next_hop_reads_the_same_and_a_signature_that_holds_means_the_same_content() {
    let originals =
        [permission_from(2, SESSION, &permission(77), &receiver()).payload, query_from(0, SESSION, &query(78), &sender()).payload];
    let mut dice = Dice(0x1234_5678_90ab_cdef);
    let (mut held, mut broken) = (0_u32, 0_u32);
    for original in originals.iter().cycle().take(2 * usize::try_from(ROUNDS).unwrap()) {
        let Ok(here) = wire::decode(disturb(original, &mut dice).into(), SESSION, NSLP_ID) else { continue };
        let unchanged = wire::decode(original.clone(), SESSION, NSLP_ID).unwrap();
        let holds = match (&here, &unchanged) {
            (Message::Permission(here), Message::Permission(unchanged)) => {
                let Ok(Message::Permission(next)) = wire::decode(here.forwarded.clone(), SESSION, NSLP_ID) else { panic!() };
                let holds = compare(here, &next, 2);
                assert!(!holds || here.message == unchanged.message);
                holds
            }
            (Message::Query(here), Message::Query(unchanged)) => {
                let Ok(Message::Query(next)) = wire::decode(here.forwarded.clone(), SESSION, NSLP_ID) else { panic!() };
                let holds = compare(here, &next, 1);
                assert!(!holds || here.message == unchanged.message);
                holds
            }
            _ => false,
        };
        if holds { held += 1 } else { broken += 1 }
    }
    assert!(held > 100 && broken > 100, "{held} held, {broken} broken");
}
