//! The figures of a run, one by one: as the run wrote them down, and as its captures show them.

use serde::Serialize;

use super::links::{Clear, Link, Links, Passage};
use crate::demo::evidence::{Evidence, Figures, Spi};
use crate::demo::line::Line;

/// A figure from two sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Figure {
    /// What is counted.
    pub name: &'static str,
    /// What the run wrote down.
    pub recorded: String,
    /// What the captures show.
    pub captured: String,
    /// Whether both are the same.
    pub agrees: bool,
}

/// Figures about the same packets in the same place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The line of the table, or "whole captures".
    pub line: String,
    /// Which link and way.
    pub place: &'static str,
    /// The figures.
    pub figures: Vec<Figure>,
}

/// Name of the rows about whole captures.
pub const WHOLE: &str = "whole captures";

impl Row {
    fn new(line: &str, place: &'static str) -> Self {
        Self { line: line.to_owned(), place, figures: Vec::new() }
    }

    fn add(mut self, name: &'static str, recorded: impl ToString, captured: impl ToString) -> Self {
        let (recorded, captured) = (recorded.to_string(), captured.to_string());
        let agrees = recorded == captured;
        self.figures.push(Figure { name, recorded, captured, agrees });
        self
    }

    /// The figures of each SPI that either source knows, an absent one as a dash.
    fn add_spis(mut self, recorded: &super::Spis, captured: &super::Spis) -> Self {
        let mut names: Vec<&String> = recorded.keys().chain(captured.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let show = |spis: &super::Spis| spis.get(name).map_or_else(|| format!("{name} –"), |spi| format!("{name} {}", show_spi(spi)));
            self = self.add("SPI", show(recorded), show(captured));
        }
        self
    }
}

fn show_spi(spi: &Spi) -> String {
    let Spi { packets, first, last, growing } = spi;
    format!("{packets} ({first} to {last}, {})", if *growing { "growing" } else { "not growing" })
}

/// The rows of one line of the table.
pub fn rows_of_line(line: &Line, sender_link: &Evidence, receiver_link: &Evidence) -> Vec<Row> {
    let places = [
        ("sender's link, there", &line.sender_link.there, &sender_link.there),
        ("receiver's link, there", &line.receiver_link.there, &receiver_link.there),
        ("receiver's link, back", &line.receiver_link.back, &receiver_link.back),
        ("sender's link, back", &line.sender_link.back, &sender_link.back),
    ];
    let mut rows: Vec<Row> = places
        .into_iter()
        .filter(|(_, recorded, captured)| recorded.packets + captured.packets > 0)
        .map(|(place, recorded, captured)| row_of_figures(&line.name, place, recorded, captured))
        .collect();
    let gap = |entered: &Figures, left: &Figures| i128::from(entered.packets) - i128::from(left.packets);
    let row = Row::new(&line.name, "across the router")
        .add("arrived", line.arrived, receiver_link.there.packets)
        .add("gap there", gap(&line.sender_link.there, &line.receiver_link.there), gap(&sender_link.there, &receiver_link.there))
        .add("gap back", gap(&line.receiver_link.back, &line.sender_link.back), gap(&receiver_link.back, &sender_link.back));
    rows.push(row);
    rows
}

fn row_of_figures(line: &str, place: &'static str, recorded: &Figures, captured: &Figures) -> Row {
    Row::new(line, place)
        .add("packets", recorded.packets, captured.packets)
        .add("octets", recorded.octets, captured.octets)
        .add("under AH", recorded.under_ah(), captured.under_ah())
        .add("in the clear", recorded.clear, captured.clear)
        .add("longest", recorded.longest, captured.longest)
        .add("as long", recorded.full_size, captured.full_size)
        .add_spis(&recorded.spis, &captured.spis)
}

/// The row of the line about whole captures.
pub fn row_of_whole(line: &Line, captured: &Links) -> Row {
    Row::new(&line.name, "across the router").add("entered under AH", line.sent, captured.there.entered + captured.back.entered).add(
        "left under AH",
        line.arrived,
        captured.there.left + captured.back.left,
    )
}

/// The rows of both captures as a whole.
pub fn rows_of_links(recorded: &Links, captured: &Links) -> Vec<Row> {
    vec![
        row_of_link("sender's link", &recorded.sender, &captured.sender),
        row_of_link("receiver's link", &recorded.receiver, &captured.receiver),
        row_of_passage("router, there", &recorded.there, &captured.there),
        row_of_passage("router, back", &recorded.back, &captured.back),
    ]
}

fn row_of_link(place: &'static str, recorded: &Link, captured: &Link) -> Row {
    let other = |clear: &Clear| clear.other;
    let explained = |clear: &Clear| clear.gist_queries + clear.listed_nslp;
    Row::new(WHOLE, place)
        .add("frames", recorded.frames, captured.frames)
        .add("unreadable", recorded.unreadable, captured.unreadable)
        .add("later fragments under AH", recorded.later_fragments, captured.later_fragments)
        .add("entered in the clear, signalling", explained(&recorded.clear_entered), explained(&captured.clear_entered))
        .add("entered in the clear, other", other(&recorded.clear_entered), other(&captured.clear_entered))
        .add("entered in the clear, of an attacker", recorded.clear_attacks, captured.clear_attacks)
        .add("left in the clear, GIST Queries", recorded.clear_left.gist_queries, captured.clear_left.gist_queries)
        .add("left in the clear, listed NSLP", recorded.clear_left.listed_nslp, captured.clear_left.listed_nslp)
        .add("left in the clear, other", other(&recorded.clear_left), other(&captured.clear_left))
        .add("between neighbours, unexplained", recorded.unexplained_neighbours, captured.unexplained_neighbours)
        .add_spis(&recorded.spis, &captured.spis)
}

fn row_of_passage(place: &'static str, recorded: &Passage, captured: &Passage) -> Row {
    Row::new(WHOLE, place)
        .add("entered under AH", recorded.entered, captured.entered)
        .add("left under AH", recorded.left, captured.left)
        .add("left again", recorded.left_again, captured.left_again)
        .add("left again, replayed", recorded.replayed, captured.replayed)
        .add("left without entering", recorded.never_entered, captured.never_entered)
}
