//! What a run kept: one capture a link, and its outcome.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use pcap_file::pcap::PcapReader;
use pcap_file::{DataLink, PcapError};

use crate::demo::line::Outcome;
use crate::network::capture::Frame;

/// The capture on the sender's link.
pub const SENDER_LINK: &str = "sender-link.pcap";
/// The capture on the receiver's link.
pub const RECEIVER_LINK: &str = "receiver-link.pcap";
/// The outcome as JSON.
pub const OUTCOME: &str = "outcome.json";

/// Frames that an audit reads of one capture; a run keeps fewer.
const FRAMES: usize = 2_000_000;

/// A directory written by `demo --keep`.
#[derive(Debug)]
pub struct Kept {
    /// Frames on the sender's link.
    pub sender: Vec<Frame>,
    /// Frames on the receiver's link.
    pub receiver: Vec<Frame>,
    /// What the run itself said.
    pub outcome: Outcome,
}

/// Why a kept file cannot be audited.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", file.display())]
pub struct KeptError {
    file: PathBuf,
    what: String,
}

impl KeptError {
    fn new(file: &Path, what: impl ToString) -> Self {
        Self { file: file.to_owned(), what: what.to_string() }
    }
}

impl Kept {
    /// Reads everything in `directory`.
    pub fn read(directory: &Path) -> Result<Self, KeptError> {
        Ok(Self {
            outcome: read_outcome(directory)?,
            sender: read_capture(&directory.join(SENDER_LINK))?,
            receiver: read_capture(&directory.join(RECEIVER_LINK))?,
        })
    }
}

/// Reads the outcome alone.
pub fn read_outcome(directory: &Path) -> Result<Outcome, KeptError> {
    let path = directory.join(OUTCOME);
    let text = std::fs::read_to_string(&path).map_err(|error| KeptError::new(&path, error))?;
    serde_json::from_str(&text).map_err(|error| KeptError::new(&path, format!("not the outcome of a demonstration: {error}")))
}

/// Reads every frame of a capture.
pub fn read_capture(path: &Path) -> Result<Vec<Frame>, KeptError> {
    let file = File::open(path).map_err(|error| KeptError::new(path, error))?;
    read_frames(BufReader::new(file)).map_err(|what| KeptError::new(path, what))
}

fn read_frames(source: impl Read) -> Result<Vec<Frame>, String> {
    let mut reader = PcapReader::new(source).map_err(|error| match error {
        PcapError::InvalidField(_) => "not a pcap file".to_owned(),
        error => format!("header: {}", say(&error)),
    })?;
    let link = reader.header().datalink;
    if link != DataLink::ETHERNET {
        return Err(format!("frames of kind {link:?}: the laboratory captures Ethernet"));
    }
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let number = frames.len() + 1;
        let packet = packet.map_err(|error| format!("frame {number}: {}", say(&error)))?;
        let (kept, whole) = (packet.data.len(), packet.orig_len);
        if u32::try_from(kept) != Ok(whole) {
            return Err(format!("frame {number}: {kept} of {whole} octets kept; figures need whole frames"));
        }
        if frames.len() == FRAMES {
            return Err(format!("more than {FRAMES} frames"));
        }
        frames.push(Frame { at: packet.timestamp, bytes: packet.data.into_owned() });
    }
    Ok(frames)
}

fn say(error: &PcapError) -> String {
    match error {
        PcapError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => "the file ends in the middle of it".to_owned(),
        PcapError::IoError(error) => error.to_string(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pcap_file::pcap::{PcapPacket, PcapWriter};
    use proptest::prelude::*;
    use std::time::Duration;

    proptest! {
        #[test]
        fn no_damage_to_a_capture_makes_its_reader_panic(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
            length in any::<prop::sample::Index>(),
        ) {
            let mut writer = PcapWriter::new(Vec::new()).unwrap();
            for at in 0..4 {
                writer.write_packet(&PcapPacket::new(Duration::from_millis(at), 60, &[7; 60])).unwrap();
            }
            let mut bytes = writer.into_writer();
            for (at, octet) in damage {
                let at = at.index(bytes.len());
                bytes[at] = octet;
            }
            bytes.truncate(length.index(bytes.len() + 1));
            let _ = read_frames(bytes.as_slice());
        }
    }
}
