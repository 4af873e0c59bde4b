//! The audit of a kept run: every figure of the table that a capture can show is counted again from the captures alone.

pub mod check;
pub mod kept;
pub mod links;
mod report;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::demo::evidence::{Evidence, Spi};
use check::Row;
use kept::{Kept, KeptError};
use links::Links;

/// Packets by SPI.
type Spis = BTreeMap<String, Spi>;

/// What an audit found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Every figure from both sources.
    pub rows: Vec<Row>,
    /// What must be true of whole captures, whatever the run wrote down, and whether it is.
    pub laws: Vec<Law>,
    /// Lines that say nothing about packets.
    pub without_packets: Vec<String>,
    /// Figures of the table that captures cannot show, and why.
    pub beyond: Vec<Beyond>,
    /// Whether every figure agrees and every law holds.
    pub agrees: bool,
}

/// Something that must be true of every pair of captures.
#[derive(Debug, Serialize)]
pub struct Law {
    /// What must be true.
    pub law: &'static str,
    /// How many packets break it.
    pub against: u64,
}

/// A figure that an audit cannot check.
#[derive(Debug, Serialize)]
pub struct Beyond {
    /// The figure.
    pub figure: &'static str,
    /// Why captures do not show it, and what they show in its place.
    pub why: String,
}

/// Audits what `demo --keep` wrote into `directory`.
pub fn run(directory: &Path) -> Result<Report, KeptError> {
    let kept = Kept::read(directory)?;
    let mut rows = Vec::new();
    let mut without_packets = Vec::new();
    for line in &kept.outcome.lines {
        let Some(watch) = &line.watch else {
            without_packets.push(line.name.clone());
            continue;
        };
        rows.extend(check::rows_of_line(line, &Evidence::gather(watch, &kept.sender), &Evidence::gather(watch, &kept.receiver)));
    }
    let links = Links::gather(&kept.sender, &kept.receiver);
    rows.extend(check::rows_of_links(&kept.outcome.links, &links));
    let laws = laws(&links, kept.outcome.lost_frames);
    let agrees = rows.iter().flat_map(|row| &row.figures).all(|figure| figure.agrees) && laws.iter().all(|law| law.against == 0);
    Ok(Report { rows, laws, without_packets, beyond: report::beyond(&kept.outcome), agrees })
}

fn laws(links: &Links, lost_frames: u32) -> Vec<Law> {
    let law = |law, against| Law { law, against };
    vec![
        law(
            "no packet without AH left the router towards the receiver, except GIST Queries and the listed NSLP",
            links.receiver.clear_left.other,
        ),
        law(
            "no packet without AH left the router towards the sender, except GIST Queries and the listed NSLP",
            links.sender.clear_left.other,
        ),
        law("every packet under AH that left the router had entered it, unchanged", links.there.never_entered + links.back.never_entered),
        law("no packet under AH left the router twice", links.there.left_again + links.back.left_again),
        law("every IP packet on the receiver's link can be read", links.receiver.unreadable),
        law("no capture lost a frame, as the run itself says", lost_frames.into()),
    ]
}

/// One text line for each link and SPI of the recorded outcome: link, SPI, packets, first and last number, whether they grow.
pub fn spi_table(directory: &Path) -> Result<String, KeptError> {
    let links = kept::read_outcome(directory)?.links;
    let mut text = String::new();
    for (name, link) in [("receiver", &links.receiver), ("sender", &links.sender)] {
        for (spi, Spi { packets, first, last, growing }) in &link.spis {
            let _ = writeln!(text, "{name} {spi} {packets} {first} {last} {}", if *growing { "growing" } else { "not-growing" });
        }
    }
    Ok(text)
}
