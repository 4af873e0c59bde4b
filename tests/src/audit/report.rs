//! What a person reads of an audit.

use std::fmt::{self, Display, Formatter};

use super::{Beyond, Report};
use crate::demo::line::Outcome;

/// How many figures stand on one line.
const FIGURES: usize = 6;

/// The figures of the table that captures cannot show.
pub(super) fn beyond(outcome: &Outcome) -> Vec<Beyond> {
    let beyond = |figure, why: String| Beyond { figure, why };
    let watched: Vec<_> = outcome.lines.iter().filter(|line| line.watch.is_some()).collect();
    let other = watched.iter().filter(|line| line.sent != line.sender_link.there.packets);
    let other: Vec<String> = other.map(|line| format!("{} {}/{}", line.name, line.sent, line.sender_link.there.packets)).collect();
    vec![
        beyond(
            "sent",
            format!(
                "what programs handed to their sockets. A packet that the sender's host holds back or drops was never on a link, and \
                 some programs went on sending while the captures settled. Captures show what left the sender: the same number in \
                 all lines but {} of {} (sent/seen: {})",
                other.len(),
                watched.len(),
                other.join(", ")
            ),
        ),
        beyond(
            "dropped where and why",
            "the nodes' own counters. Captures show the gap between what entered the router and what left it, not the reason, and \
             nothing of what a host drops before or behind the links"
                .to_owned(),
        ),
        beyond(
            "measured times and rates",
            "from a program's first packet to its grant, to an order, to the end of a file: they begin inside a host".to_owned(),
        ),
        beyond(
            "volumes counted and allowed by nodes",
            "inside the nodes. Captures show the octets that passed, which are checked".to_owned(),
        ),
        beyond(
            "files intact, datagrams delivered, errors that programs got",
            "behind the last link: the receiver's host takes AH off after the capture".to_owned(),
        ),
        beyond(
            "validity of integrity check values, signatures and messages",
            "keys never leave the nodes, and signalling is encrypted between them".to_owned(),
        ),
    ]
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "each figure: recorded by the run = counted in the captures, or recorded ≠ counted\n")?;
        let mut line = "";
        for row in &self.rows {
            if line != row.line {
                line = &row.line;
                writeln!(f, "{line}")?;
            }
            let (spis, plain): (Vec<_>, Vec<_>) = row.figures.iter().partition(|figure| figure.name == "SPI");
            let sign = |agrees| if agrees { '=' } else { '≠' };
            let plain: Vec<String> = plain
                .iter()
                .map(|figure| format!("{} {} {} {}", figure.name, figure.recorded, sign(figure.agrees), figure.captured))
                .collect();
            for (number, figures) in plain.chunks(FIGURES).enumerate() {
                writeln!(f, "  {:22}  {}", if number == 0 { row.place } else { "" }, figures.join(", "))?;
            }
            for spi in spis {
                let captured = spi.captured.split_once(' ').map_or("", |(_, figures)| figures);
                writeln!(f, "  {:22}  SPI {} {} {captured}", "", spi.recorded, sign(spi.agrees))?;
            }
        }
        for name in &self.without_packets {
            writeln!(f, "{name}\n  about no packets: nothing to count")?;
        }
        writeln!(f, "\nwhatever the lines look at:")?;
        for law in &self.laws {
            match law.against {
                0 => writeln!(f, "  holds   {}", law.law)?,
                against => writeln!(f, "  BROKEN  {}: {against} against it", law.law)?,
            }
        }
        writeln!(f, "\ncaptures cannot show:")?;
        for Beyond { figure, why } in &self.beyond {
            writeln!(f, "  {figure}: {why}")?;
        }
        self.verdict(f)
    }
}

impl Report {
    fn verdict(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let figures = || self.rows.iter().flat_map(|row| row.figures.iter().map(move |figure| (row, figure)));
        let (all, agreeing) = (figures().count(), figures().filter(|(_, figure)| figure.agrees).count());
        writeln!(f, "\n{agreeing} of {all} figures agree")?;
        for (row, figure) in figures().filter(|(_, figure)| !figure.agrees) {
            let (recorded, captured) = (&figure.recorded, &figure.captured);
            writeln!(f, "  !! {}, {}, {}: recorded {recorded}, counted {captured}", row.line, row.place, figure.name)?;
        }
        for law in self.laws.iter().filter(|law| law.against > 0) {
            writeln!(f, "  !! not true: {} ({})", law.law, law.against)?;
        }
        Ok(())
    }
}
