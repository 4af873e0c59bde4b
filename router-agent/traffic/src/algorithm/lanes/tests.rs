//! All lanes against the scalar functions, and those against the library's HMAC.

use hmac::{Hmac, KeyInit, Mac};
use proptest::prelude::*;
use sha1::Sha1;
use sha2::Sha256;

use super::*;

/// Both widths where the processor has them, and none.
fn levels() -> Vec<Option<Level>> {
    Level::detect().map(Some).chain([None]).collect()
}

/// As `Level` would have it be, but with lanes used whenever there is one: also where the scalar function would be quicker.
fn eager<const WORDS: usize>(function: &HashFunction<WORDS>) -> HashFunction<WORDS> {
    HashFunction { worthwhile: |_| 1, ..*function }
}

fn octets<const WORDS: usize>(state: [u32; WORDS]) -> Vec<u8> {
    state.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// HMACs of all messages by lanes; each with a key of its own.
fn by_lanes<const WORDS: usize>(function: &HashFunction<WORDS>, level: Option<Level>, messages: &[(Vec<u8>, usize)]) -> Vec<Vec<u8>> {
    let keys: Vec<_> = (0..messages.len()).map(|at| HmacKey::new(function, &key(at))).collect();
    let mut values = vec![Vec::new(); messages.len()];
    let parts = messages.iter().zip(&keys).enumerate().map(|(at, ((message, cut), key))| {
        let (head, body) = message.split_at((*cut).min(message.len()).min(LONGEST_HEAD));
        (at, Message { key, head, body })
    });
    hmac(function, level, parts, |at, state| {
        assert!(values[at].is_empty(), "told once");
        values[at] = octets(state);
    });
    values
}

fn key(at: usize) -> [u8; 20] {
    from_fn(|octet| (at * 31 + octet) as u8)
}

fn by_library<M: Mac + KeyInit>(messages: &[(Vec<u8>, usize)]) -> Vec<Vec<u8>> {
    let one = |(at, (message, _)): (usize, &(Vec<u8>, usize))| {
        M::new_from_slice(&key(at)).unwrap().chain_update(message).finalize().into_bytes().to_vec()
    };
    messages.iter().enumerate().map(one).collect()
}

fn agree(messages: &[(Vec<u8>, usize)]) {
    let (sha256, sha1) = (by_library::<Hmac<Sha256>>(messages), by_library::<Hmac<Sha1>>(messages));
    for level in levels() {
        for (function256, function1) in [(&SHA256, &SHA1), (&eager(&SHA256), &eager(&SHA1))] {
            assert_eq!(by_lanes(function256, level, messages), sha256, "{level:?}");
            assert_eq!(by_lanes(function1, level, messages), sha1, "{level:?}");
        }
    }
}

#[test]
fn every_length_gives_what_the_library_gives_in_every_lane() {
    // Sixteen neighbours at a time, so that each length stands in each lane in some round.
    let messages: Vec<_> = (0..=2048_usize).map(|len| ((0..len).map(|at| (at * 7 + len) as u8).collect(), len % 257)).collect();
    agree(&messages);
    let turned: Vec<_> = messages.into_iter().rev().step_by(5).collect();
    agree(&turned);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn ragged_lanes_give_what_the_library_gives(
        messages in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..700), 0usize..300), 0..40),
    ) {
        agree(&messages);
    }
}

fn in_pieces<const WORDS: usize>(function: &'static HashFunction<WORDS>, at: usize, message: &[u8], size: usize) -> Vec<u8> {
    let mut stream = Stream::new(function, &HmacKey::new(function, &key(at)));
    message.chunks(size).for_each(|piece| stream.update(piece));
    octets(stream.finish())
}

#[test]
fn a_message_in_pieces_gives_what_the_library_gives_whatever_its_length() {
    let messages: Vec<_> = (0..=300_usize).map(|len| ((0..len).map(|at| (at * 7 + len) as u8).collect::<Vec<u8>>(), 0)).collect();
    let (sha256, sha1) = (by_library::<Hmac<Sha256>>(&messages), by_library::<Hmac<Sha1>>(&messages));
    for (at, (message, _)) in messages.iter().enumerate() {
        for size in [1, 7, 64, 65, 1000] {
            assert_eq!(in_pieces(&SHA256, at, message, size), sha256[at], "{at} {size}");
            assert_eq!(in_pieces(&SHA1, at, message, size), sha1[at], "{at} {size}");
        }
    }
}

#[test]
fn a_message_by_itself_gives_what_the_library_gives_whatever_its_length_and_wherever_it_is_cut() {
    let messages: Vec<_> = (0..=600_usize).map(|len| ((0..len).map(|at| (at * 5 + len) as u8).collect::<Vec<u8>>(), 0)).collect();
    let (sha256, sha1) = (by_library::<Hmac<Sha256>>(&messages), by_library::<Hmac<Sha1>>(&messages));
    for (at, (message, _)) in messages.iter().enumerate() {
        let (key256, key1) = (HmacKey::new(&SHA256, &key(at)), HmacKey::new(&SHA1, &key(at)));
        for cut in [0, 1, 48, 64, 100, LONGEST_HEAD] {
            let (head, body) = message.split_at(cut.min(message.len()));
            assert_eq!(octets(hmac_one(&SHA256, &Message { key: &key256, head, body })), sha256[at], "{at} {cut}");
            assert_eq!(octets(hmac_one(&SHA1, &Message { key: &key1, head, body })), sha1[at], "{at} {cut}");
        }
    }
}

#[test]
fn a_packet_of_the_greatest_length_among_short_ones_is_hashed_whole() {
    let mut messages = vec![(vec![7; 3], 1); 20];
    messages.insert(9, (vec![9; 65_531], 48));
    agree(&messages);
}

/// who has the states behind the padded keys can make every ICV, so that there is no copy of them in a lane.
#[test]
fn a_lane_holds_no_copy_of_its_key_and_is_wiped_when_it_is_done() {
    assert_eq!(size_of::<Lane<'_, 8>>(), size_of::<Lane<'_, 5>>(), "no words of either state");
    assert!(std::mem::needs_drop::<Lane<'_, 8>>());
    let key = HmacKey::new(&SHA256, &key(1));
    let mut lane = Lane::IDLE;
    lane.begin(&Message { key: &key, head: &[1; 48], body: &[2; 100] });
    let mut state = key.inner;
    one_by_one(&SHA256, &mut lane, &mut state);
    assert_eq!(lane.stage, Stage::Outer);
    assert_ne!(lane.staged[0][..32], [0; 32], "the inner hash");
    lane.wipe();
    assert_eq!(lane.staged[0], [0; BLOCK]);
}
