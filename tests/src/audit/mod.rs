//! The audit of a kept run: every figure of the table that a capture can show is counted again from the captures alone.

pub mod check;
pub mod kept;
pub mod laws;
pub mod links;
mod report;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::demo::evidence::{Evidence, Spi};
use crate::demo::whole;
use check::Row;
use kept::{Kept, KeptError};
use laws::Law;
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
    let links = Links::gather(&kept.sender, &kept.receiver);
    let mut rows = Vec::new();
    let mut without_packets = Vec::new();
    let mut before_rules = 0;
    for line in &kept.outcome.lines {
        if line.name == whole::NAME {
            rows.push(check::row_of_whole(line, &links));
            continue;
        }
        let Some(watch) = &line.watch else {
            without_packets.push(line.name.clone());
            continue;
        };
        let (sender_link, receiver_link) = (Evidence::gather(watch, &kept.sender), Evidence::gather(watch, &kept.receiver));
        if line.before_rules {
            before_rules += sender_link.there.clear;
        }
        rows.extend(check::rows_of_line(line, &sender_link, &receiver_link));
    }
    rows.extend(check::rows_of_links(&kept.outcome.links, &links));
    let laws = laws::of_captures(&links, before_rules, kept.outcome.lost_frames);
    let agrees = rows.iter().flat_map(|row| &row.figures).all(|figure| figure.agrees) && laws.iter().all(Law::holds);
    Ok(Report { rows, laws, without_packets, beyond: report::beyond(&kept.outcome), agrees })
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
