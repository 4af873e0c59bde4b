//! The audit of a kept run: it agrees with a faithful one, names line and figure of a doctored one, and says clearly what it cannot
//! read.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pbs_lab::attack::{injector, packet};
use pbs_lab::audit::links::Links;
use pbs_lab::demo::evidence::{Evidence, Watch};
use pbs_lab::demo::line::{Line, Outcome};
use pbs_lab::network::capture::Frame;
use pbs_lab::network::topology::Family::Ipv4;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

const SPI: u32 = 0x1234_5678;
/// The flow under AH, and the one that is not let through.
const GRANTED: u16 = 9001;
const FORGED: u16 = 9002;

#[test]
fn a_faithful_run_agrees_in_every_figure() {
    let run = Run::faithful();
    let output = run.audit(&[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("SPI 0x12345678 5 (1 to 5, growing) = 5 (1 to 5, growing)"), "{text}");
    assert!(text.contains("captures cannot show:") && text.contains("dropped where and why"), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&run.audit(&["--json"]).stdout).unwrap();
    assert_eq!(report["agrees"], true);
    assert_eq!(report["without_packets"][0], "no-packets");
}

#[test]
fn the_table_of_spis_is_the_recorded_one() {
    let output = Run::faithful().audit(&["--spi-table"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "receiver 0x12345678 5 1 5 growing\nsender 0x12345678 5 1 5 growing\n");
}

#[test]
fn a_removed_packet_is_noticed() {
    let mut run = Run::faithful();
    run.receiver.remove(2);
    run.is_refused_for(&[
        "granted, receiver's link, there, packets: recorded 5, counted 4",
        "granted, across the router, arrived: recorded 5, counted 4",
        "granted, across the router, gap there: recorded 0, counted 1",
        "whole captures, receiver's link, frames: recorded 5, counted 4",
    ]);
}

#[test]
fn a_changed_spi_is_noticed() {
    let mut run = Run::faithful();
    run.receiver[2].bytes[14 + 20 + 4] = 0xff;
    run.is_refused_for(&[
        "granted, receiver's link, there, SPI: recorded 0x12345678 5 (1 to 5, growing), counted 0x12345678 4 (1 to 5, growing)",
        "granted, receiver's link, there, SPI: recorded 0xff345678 –, counted 0xff345678 1 (3 to 3, growing)",
        "not true: every packet under AH that left the router had entered it",
    ]);
}

#[test]
fn an_added_packet_in_the_clear_is_noticed_in_its_line() {
    let mut run = Run::faithful();
    run.receiver.push(frame(700, clear(FORGED)));
    run.is_refused_for(&[
        "no-ah, across the router, arrived: recorded 0, counted 1",
        "no-ah, receiver's link, there, in the clear: recorded 0, counted 1",
    ]);
}

#[test]
fn an_added_packet_in_the_clear_is_noticed_where_no_line_looks() {
    let mut run = Run::faithful();
    run.receiver.push(frame(5000, clear(7777)));
    run.is_refused_for(&[
        "whole captures, receiver's link, left in the clear, other: recorded 0, counted 1",
        "not true: no packet without AH left the router towards the receiver",
    ]);
}

#[test]
fn what_must_be_true_of_captures_is_checked_even_if_the_run_wrote_it_down() {
    let mut run = Run::faithful();
    let replayed = run.receiver[4].clone();
    run.receiver.push(replayed);
    run.receiver.push(frame(5000, clear(7777)));
    run.sender.push(frame(5000, clear(7777)));
    run.record();
    let refused = run.is_refused_for(&[
        "not true: no packet under AH left the router twice that nobody had sent twice (1)",
        "not true: no packet without AH left the router towards the receiver, except GIST Queries and the listed NSLP (1)",
        "not true: no packet without AH came from the sender's host for the receiver, except GIST Queries, once its rules stood (1)",
    ]);
    assert!(!refused.contains("recorded"), "every figure agrees: {refused}");
}

#[test]
fn a_packet_in_the_clear_of_a_genuine_host_is_noticed_unless_the_host_had_no_rules_yet() {
    let mut run = Run::faithful();
    run.sender.push(frame(800, clear(FORGED)));
    run.record();
    run.is_refused_for(&["not true: no packet without AH came from the sender's host for the receiver"]);
    // The line that is excused sees exactly this one.
    run.sender.retain(|frame| frame.source() != Some(injector::HARDWARE_ADDRESS));
    run.before_rules = true;
    run.record();
    let output = run.audit(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    run.sender.push(frame(5000, clear(FORGED)));
    run.record();
    run.is_refused_for(&["once its rules stood (1)"]);
}

#[test]
fn a_capture_that_an_attacker_replays_must_not_pass_again() {
    let mut run = Run::faithful();
    run.sender.push(by_attacker(run.sender[4].clone()));
    run.record();
    assert_eq!(run.audit(&[]).status.code(), Some(0), "it was sent again, and did not pass");
    run.receiver.push(run.receiver[4].clone());
    run.record();
    run.is_refused_for(&["not true: no packet under AH left the router twice, though an attacker sent it again (1)"]);
}

#[test]
fn a_number_that_does_not_grow_is_noticed() {
    let mut run = Run::faithful();
    run.receiver.swap(1, 2);
    run.is_refused_for(&[
        "granted, receiver's link, there, SPI: recorded 0x12345678 5 (1 to 5, growing), counted 0x12345678 5 (1 to 5, not growing)",
    ]);
}

#[test]
fn frames_that_a_run_lost_are_not_passed_over() {
    let mut run = Run::faithful();
    run.outcome.lost_frames = 3;
    run.is_refused_for(&["not true: no capture lost a frame"]);
}

#[test]
fn a_capture_cut_short_is_an_error() {
    let run = Run::faithful();
    run.write();
    let path = run.directory.join("receiver-link.pcap");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 10, 24 + 7, 24 + 16 + 30, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).unwrap();
        run.is_unreadable(&["receiver-link.pcap: ", "ends in the middle"]);
    }
}

#[test]
fn something_else_than_a_capture_is_an_error() {
    let run = Run::faithful();
    let path = run.directory.join("sender-link.pcap");
    let pcapng = [&[0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0][..], &[0xff; 8], &[28, 0, 0, 0]].concat();
    for foreign in [&b"this is a text and not a capture at all"[..], &pcapng] {
        run.write();
        std::fs::write(&path, foreign).unwrap();
        run.is_unreadable(&["sender-link.pcap: not a pcap file"]);
    }
    run.write();
    write_capture(&path, &run.sender, DataLink::RAW, 0);
    run.is_unreadable(&["sender-link.pcap: frames of kind RAW"]);
    write_capture(&path, &run.sender, DataLink::ETHERNET, 10);
    run.is_unreadable(&["sender-link.pcap: frame 1: ", "octets kept; figures need whole frames"]);
}

#[test]
fn a_missing_file_is_an_error() {
    for missing in ["sender-link.pcap", "receiver-link.pcap", "outcome.json"] {
        let run = Run::faithful();
        run.write();
        std::fs::remove_file(run.directory.join(missing)).unwrap();
        run.is_unreadable(&[missing, "No such file"]);
    }
}

#[test]
fn something_else_than_an_outcome_is_an_error() {
    let run = Run::faithful();
    for foreign in ["", "{", "[]", "{\"lines\": []}", "{\"lines\": [{\"name\": 1}], \"holds\": true}"] {
        run.write();
        std::fs::write(run.directory.join("outcome.json"), foreign).unwrap();
        run.is_unreadable(&["outcome.json: not the outcome of a demonstration"]);
        assert_eq!(run.output(&["--spi-table"]).status.code(), Some(2));
    }
}

/// A run as `demo --keep` would leave it.
struct Run {
    directory: PathBuf,
    sender: Vec<Frame>,
    receiver: Vec<Frame>,
    outcome: Outcome,
    /// Whether the line without AH was tried before the sender's host had rules.
    before_rules: bool,
}

impl Run {
    /// Five packets under AH that pass, and three without that do not.
    fn faithful() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("pbs-lab-audit-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let protected = |after: u64| (1..=5).map(move |sequence| frame(u64::from(sequence) * 10 + after, under_ah(sequence))).collect();
        let mut sender: Vec<Frame> = protected(0);
        sender.extend((0..3).map(|number| by_attacker(frame(600 + number, clear(FORGED)))));
        let outcome = Outcome::new(Vec::new(), Links::default(), 0, 1.0);
        let mut run = Self { directory, sender, receiver: protected(1), outcome, before_rules: false };
        run.record();
        run
    }

    /// Writes down what the captures show, as the run itself does.
    fn record(&mut self) {
        let line = |name, port, from_us, to_us| {
            let watch = Watch { family: Ipv4, source: None, port, payload: None, from_us, to_us };
            let mut line = Line::new(name, name);
            (line.sender_link, line.receiver_link) = (Evidence::gather(&watch, &self.sender), Evidence::gather(&watch, &self.receiver));
            line.sent = line.sender_link.there.packets;
            line.arrived = line.receiver_link.there.packets;
            line.watch = Some(watch);
            line
        };
        let mut lines = vec![line("granted", GRANTED, 0, 500_000), line("no-ah", FORGED, 500_000, 1_000_000), Line::new("no-packets", "")];
        self.outcome.links = Links::gather(&self.sender, &self.receiver);
        lines[1].before_rules = self.before_rules;
        self.outcome.lines = lines;
    }

    fn write(&self) {
        write_capture(&self.directory.join("sender-link.pcap"), &self.sender, DataLink::ETHERNET, 0);
        write_capture(&self.directory.join("receiver-link.pcap"), &self.receiver, DataLink::ETHERNET, 0);
        std::fs::write(self.directory.join("outcome.json"), serde_json::to_string(&self.outcome).unwrap()).unwrap();
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_pbs-lab")).arg("audit").arg(&self.directory).args(arguments).output().unwrap()
    }

    fn audit(&self, arguments: &[&str]) -> Output {
        self.write();
        self.output(arguments)
    }

    /// The audit says no, and its last lines say each of these things; gives those lines.
    fn is_refused_for(&self, reasons: &[&str]) -> String {
        let output = self.audit(&[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let refused: Vec<&str> = text.lines().filter(|line| line.starts_with("  !! ")).collect();
        for reason in reasons {
            assert!(refused.iter().any(|line| line.contains(reason)), "no line says \"{reason}\":\n{text}");
        }
        refused.join("\n")
    }

    /// The audit cannot be done, and the error says each of these things.
    fn is_unreadable(&self, reasons: &[&str]) {
        let output = self.output(&[]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(reasons.iter().all(|reason| error.contains(reason)), "{reasons:?} are not all in: {error}");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn write_capture(path: &Path, frames: &[Frame], datalink: DataLink, cut: usize) {
    let header = PcapHeader { datalink, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(std::fs::File::create(path).unwrap(), header).unwrap();
    for Frame { at, bytes } in frames {
        writer.write_packet(&PcapPacket::new(*at, bytes.len() as u32, &bytes[..bytes.len() - cut])).unwrap();
    }
}

/// An Ethernet frame `at` milliseconds after the start.
fn frame(at: u64, packet: Vec<u8>) -> Frame {
    Frame { at: Duration::from_millis(at), bytes: [&[2; 12][..], &[0x08, 0x00], &packet].concat() }
}

/// The frame as the attacker on the sender's link sends it.
fn by_attacker(mut frame: Frame) -> Frame {
    frame.bytes[6..12].copy_from_slice(&injector::HARDWARE_ADDRESS);
    frame
}

fn clear(port: u16) -> Vec<u8> {
    packet::udp((Ipv4.sender(), 29_000), (Ipv4.receiver(), port), b"payload").unwrap()
}

/// A packet of the granted flow under an Authentication Header of 28 octets. Checksum and integrity check value are nobody's business.
fn under_ah(sequence: u32) -> Vec<u8> {
    let mut packet = clear(GRANTED);
    let header = [&[17, 5, 0, 0][..], &SPI.to_be_bytes(), &sequence.to_be_bytes(), &[0xab; 16]].concat();
    packet.splice(20..20, header);
    let length = packet.len() as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet[9] = 51;
    packet
}
