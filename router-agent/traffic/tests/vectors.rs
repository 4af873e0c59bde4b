//! The known answers and anti-replay sequences of `tests/vectors/ah`, through the code that judges packets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use proptest::prelude::*;
use serde_json::Value;
use traffic::ah::{self, Number};
use traffic::algorithm::{IcvKey, MacAlgorithm};
use traffic::packet::IpPacket;
use traffic::reason::DropReason;
use traffic::vectors::{self, Outcome, Report, Skip};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/ah").join(name)
}

fn report(name: &str) -> Report {
    vectors::run(&[file(name)]).unwrap()
}

fn report_on(line: &str) -> Report {
    let mut report = Report::default();
    vectors::run_content("f", line.as_bytes(), &mut report).unwrap();
    report
}

#[test]
fn every_known_answer_of_an_implemented_algorithm_is_judged_right() {
    // P-149, P-155.
    let report = report("vectors-shared.jsonl");
    assert_eq!(report.failed(), 0, "{report}");
    let judged = report.results.iter().filter(|result| result.is_passed()).map(|result| result.algorithm.as_str());
    assert_eq!(judged.collect::<BTreeSet<_>>(), BTreeSet::from(["aes-128-gmac", "aes-256-gmac", "hmac-sha1-96", "hmac-sha256-128"]));
    assert_eq!((report.passed(), report.skipped()), (1337, 1031));
    let skipped: Vec<_> = report.skips().into_keys().map(Skip::to_string).collect();
    assert_eq!(skipped.len(), 6, "{skipped:?}");
    assert!(skipped.contains(&"aes-192-gmac is not implemented".to_owned()));
}

#[test]
fn every_anti_replay_sequence_is_judged_right_at_every_step() {
    // P-157.
    let report = report("replay-shared.jsonl");
    assert_eq!((report.passed(), report.failed(), report.skipped()), (10, 0, 0), "{report}");
}

#[test]
fn answers_of_the_gmac_primitive_are_ours_and_those_of_another_key_length_are_skipped_and_named() {
    let report = report("gmac-primitive-kat.jsonl");
    assert_eq!((report.passed(), report.failed(), report.skipped()), (40, 0, 20), "{report}");
    assert!(report.to_string().contains("skipped: 20 (aes-192-gmac is not implemented)"));
    let mut wrong = lines("gmac-primitive-kat.jsonl").remove(0);
    wrong["tag_hex"] = Value::from("00".repeat(16));
    assert_eq!(report_on(&wrong.to_string()).failed(), 1);
}

#[test]
fn what_pbs_refuses_of_what_the_rfc_takes_is_told_apart() {
    let (taken, refused) = report("vectors-shared.jsonl").policy();
    assert_eq!(refused.keys().copied().collect::<Vec<_>>(), [DropReason::SourceRoute, DropReason::ExtendedSequence]);
    assert_eq!(taken + refused.values().sum::<usize>(), 588, "every valid vector of these algorithms");
}

#[test]
fn vectors_fail_for_the_reason_that_they_were_made_for() {
    // Not a matter of the verdict, but a vector about the ICV must not be refused for being unreadable.
    let mut reasons: BTreeMap<String, BTreeSet<DropReason>> = BTreeMap::new();
    let report = report("vectors-shared.jsonl");
    for (line, result) in lines("vectors-shared.jsonl").iter().zip(&report.results) {
        let Outcome::Judged(judgements) = &result.outcome else { continue };
        if let Err(reason) = judgements[0].rfc {
            reasons.entry(line["cat"].as_str().unwrap().to_owned()).or_default().insert(reason);
        }
    }
    for (category, found) in reasons {
        let expected = match category.as_str() {
            "neg-frag-mf" | "neg-frag-offset" | "neg-single-fragment" => &[DropReason::FragmentNotReassembled][..],
            "neg-spi-nosa" => &[DropReason::UnknownSpi],
            "neg-ah-len" => &[DropReason::Malformed, DropReason::BadIcv],
            _ => &[DropReason::BadIcv],
        };
        assert!(found.iter().all(|reason| expected.contains(reason)), "{category}: {found:?}");
    }
}

#[test]
fn a_line_that_is_no_vector_fails_and_names_its_place() {
    for (line, expected) in [
        ("{\"id\":\"x\"}", "neither `packet_hex` nor `steps`"),
        ("{\"id\":\"x\",\"packet_hex\":\"00\"}", "missing field"),
        ("{\"id\":\"x\",\"alg\":\"hmac-sha1-96\",\"key_hex\":\"0g\",\"spi\":1,\"packet_hex\":\"00\",\"valid\":false}", "key_hex: "),
        (
            "{\"id\":\"x\",\"alg\":\"hmac-sha1-96\",\"key_hex\":\"00\",\"spi\":1,\"packet_hex\":\"00\",\"valid\":false}",
            "takes a key of 20 octets",
        ),
    ] {
        let report = report_on(&format!("\n{line}\n"));
        assert_eq!((report.passed(), report.failed(), report.skipped()), (0, 1, 0), "{line}");
        let text = report.to_string();
        assert!(text.contains("f:2") && text.contains(expected), "{text}");
    }
    for (line, expected) in
        [("{", "EOF while parsing an object at column 1"), ("[]", "invalid type"), ("hello", "expected value at column 1")]
    {
        let error = vectors::run_content("f", format!("\n{line}\n{line}\n").as_bytes(), &mut Report::default()).unwrap_err().to_string();
        assert!(error.starts_with("f:2: not a file of vectors") && error.contains(expected), "{error}");
    }
    assert!(vectors::run(&["/no/such/file"]).unwrap_err().to_string().starts_with("/no/such/file: "));
}

#[test]
fn a_wrong_expectation_is_a_failure() {
    for result in lines("vectors-shared.jsonl").iter_mut().filter(|line| line["alg"] == "hmac-sha256-128").take(20) {
        result["valid"] = Value::Bool(!result["valid"].as_bool().unwrap());
        assert_eq!(report_on(&result.to_string()).failed(), 1);
    }
    let mut sequence = lines("replay-shared.jsonl").remove(0);
    let accept = sequence["steps"][3]["accept"].as_bool().unwrap();
    sequence["steps"][3]["accept"] = Value::Bool(!accept);
    assert_eq!(report_on(&sequence.to_string()).failed(), 1);
}

#[test]
fn an_icv_length_that_is_not_the_algorithms_is_skipped() {
    let mut line = lines("vectors-shared.jsonl").into_iter().find(|line| line["alg"] == "hmac-sha256-128").unwrap();
    line["icv_bits"] = Value::from(96);
    let report = report_on(&line.to_string());
    assert_eq!(report.skipped(), 1);
    assert!(report.to_string().contains("hmac-sha256-128 with an ICV of 96 bits is not implemented"));
}

proptest! {
    #[test]
    fn no_content_makes_the_reader_panic(content in proptest::collection::vec(any::<u8>(), 0..300), at in any::<prop::sample::Index>(), octet: u8, sequence: bool) {
        let mut report = Report::default();
        let _ = vectors::run_content("f", &content, &mut report);
        let name = if sequence { "replay-shared.jsonl" } else { "vectors-shared.jsonl" };
        let mut line = FIRST_LINES.with(|lines| lines[usize::from(sequence)].clone());
        let at = at.index(line.len());
        line[at] = octet;
        let _ = vectors::run_content(name, &line, &mut report);
    }
}

thread_local! {
    static FIRST_LINES: [Vec<u8>; 2] = ["vectors-shared.jsonl", "replay-shared.jsonl"].map(|name| {
        let wanted = |line: &&Value| line["alg"].as_str().is_some_and(|name| name.starts_with("hmac-sha"));
        lines(name).iter().find(wanted).unwrap().to_string().into_bytes()
    });
}

fn lines(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(file(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The valid vectors of our algorithms, with key.
fn valid() -> impl Iterator<Item = (Value, IcvKey)> {
    lines("vectors-shared.jsonl").into_iter().filter(|line| line["valid"] == true).filter_map(|line| {
        let algorithm = *MacAlgorithm::ALL.iter().find(|algorithm| algorithm.name() == line["alg"])?;
        let key = IcvKey::new(algorithm, &octets(&line["key_hex"])).unwrap();
        Some((line, key))
    })
}

fn octets(field: &Value) -> Vec<u8> {
    hex::decode(field.as_str().unwrap()).unwrap()
}

fn high(line: &Value) -> Option<u32> {
    line.get("esn_hi").map(|high| u32::try_from(high.as_u64().unwrap()).unwrap())
}

#[test]
fn a_packet_verifies_on_its_way_as_at_its_destination() {
    let mut count = 0;
    for (line, key) in valid().filter(|(line, _)| line.get("packet_sent_hex").is_some()) {
        let sent = octets(&line["packet_sent_hex"]);
        assert!(ah::icv_matches(&IpPacket::parse(&sent).unwrap(), &key, high(&line)), "{}", line["id"]);
        count += 1;
    }
    assert!(count > 5, "{count}");
}

#[test]
fn no_fragment_of_a_right_packet_verifies() {
    let mut count = 0;
    for (line, key) in valid().filter(|(line, _)| line.get("fragments_hex").is_some()) {
        for fragment in line["fragments_hex"].as_array().unwrap() {
            let fragment = octets(fragment);
            let packet = IpPacket::parse(&fragment).unwrap();
            assert!(packet.fragment().is_some() && !ah::icv_matches(&packet, &key, high(&line)), "{}", line["id"]);
            count += 1;
        }
    }
    assert!(count > 5, "{count}");
}

#[test]
fn removing_ah_gives_the_original_and_inserting_it_again_the_packet() {
    let (mut removed, mut inserted) = (0, 0);
    let mut others: BTreeMap<Freedom, u32> = BTreeMap::new();
    let mut out = Vec::new();
    for (line, key) in valid().filter(|(line, _)| line.get("original_hex").is_some()) {
        let bytes = octets(line.get("packet_sent_hex").unwrap_or(&line["packet_hex"]));
        let original = octets(&line["original_hex"]);
        let packet = IpPacket::parse(&bytes).unwrap();
        ah::remove(&packet, &mut out).unwrap();
        assert_eq!(hex::encode(&out), hex::encode(&original), "{} {}", line["id"], line["cat"]);
        removed += 1;
        let view = packet.ah().unwrap();
        let number = Number { low: view.sequence(), high: high(&line) };
        ah::insert(&IpPacket::parse(&original).unwrap(), view.spi(), number, &key, &mut out).unwrap();
        assert!(ah::icv_matches(&IpPacket::parse(&out).unwrap(), &key, number.high), "{}", line["id"]);
        match freedom(&line, &packet, &key) {
            Some(freedom) => {
                assert_ne!(out, bytes, "{} {}: not another choice", line["id"], line["cat"]);
                *others.entry(freedom).or_default() += 1;
            }
            None => {
                assert_eq!(hex::encode(&out), hex::encode(&bytes), "{} {}", line["id"], line["cat"]);
                inserted += 1;
            }
        }
    }
    assert_eq!((removed, inserted, others), (REMOVED, INSERTED, BTreeMap::from(OTHERS)));
}

/// What RFC 4302 leaves to whoever inserts AH, and the maker of a vector chose otherwise than we do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Freedom {
    /// Padding that is not zero (§3.3.3.2.1).
    PaddingNotZero,
    /// Reserved octets that are not zero: a receiver ignores them (§2.3), whoever sends must not use them.
    Reserved,
    /// AH behind destination options for the destination alone (§3.1.1): ours stands before them.
    BehindDestinationOptions,
    /// An initialization vector that is not the number (RFC 4543 §3.1).
    OtherVector,
}

/// The choice in the packet that is not ours; told from its octets alone.
fn freedom(line: &Value, packet: &IpPacket<'_>, key: &IcvKey) -> Option<Freedom> {
    let view = packet.ah().unwrap();
    let padding = &view.icv_field()[key.algorithm().icv_len()..];
    if is_behind_destination_options(packet.bytes()) {
        Some(Freedom::BehindDestinationOptions)
    } else if view.reserved() != 0 {
        Some(Freedom::Reserved)
    } else if view.icv_field()[..key.algorithm().iv_len()].iter().zip(number(line).to_be_bytes()).any(|(theirs, ours)| *theirs != ours) {
        Some(Freedom::OtherVector)
    } else if padding.iter().any(|octet| *octet != 0) {
        Some(Freedom::PaddingNotZero)
    } else {
        None
    }
}

/// The whole number of a vector's packet.
fn number(line: &Value) -> u64 {
    u64::from(high(line).unwrap_or(0)) << 32 | line["seq"].as_u64().unwrap()
}

/// Whether destination options stand before AH in an IPv6 packet, and no routing header between them.
fn is_behind_destination_options(bytes: &[u8]) -> bool {
    let (mut next, mut at, mut behind) = (bytes[6], 40, false);
    while bytes[0] >> 4 == 6 && [HOP_BY_HOP, ROUTING, DESTINATION].contains(&next) {
        behind = (behind || next == DESTINATION) && next != ROUTING;
        (next, at) = (bytes[at], at + (usize::from(bytes[at + 1]) + 1) * 8);
    }
    behind
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// Valid vectors that say what the packet was before AH.
const REMOVED: u32 = 247;
/// Of these, those that leave us no choice: ours must be the same, octet for octet.
const INSERTED: u32 = 179;
/// The others.
const OTHERS: [(Freedom, u32); 4] =
    [(Freedom::PaddingNotZero, 30), (Freedom::Reserved, 1), (Freedom::BehindDestinationOptions, 12), (Freedom::OtherVector, 25)];
