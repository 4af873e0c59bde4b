//! One flow among several of a scenario, told apart by the sender's port, and what must be true of it at all nodes.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::flow::Programs;
use super::outcome::Outcome;
use super::site::{NODES, PORT, Site};
use crate::network::frame;

/// What a busy machine may need on top of what is stated.
pub(super) const SLACK: Duration = Duration::from_secs(2);

/// A flow.
#[derive(Clone, Copy)]
pub(super) struct Session<'a> {
    pub(super) site: &'a Site,
    /// The sender's port.
    pub(super) source: u16,
    /// When it began, as captures tell it.
    pub(super) begun: Duration,
}

impl<'a> Session<'a> {
    /// Begins the flow from this port of the sender's.
    pub(super) fn begin(site: &'a Site, source: u16) -> io::Result<(Self, Programs)> {
        Ok((Self { site, source, begun: site.now() }, Programs::start_from(site, source)?))
    }

    /// Has a node do something about it.
    pub(super) fn order(&self, node: &str, request: Value) -> io::Result<()> {
        self.site.about_flow_from(self.source, node, request)
    }

    /// The SPI under which a node permits it.
    pub(super) fn spi(&self, node: &str) -> io::Result<Option<u32>> {
        let flow = self.site.flow_from(self.source, node)?;
        Ok(flow.and_then(|flow| read_spi(flow.get("spi")?.as_str()?)))
    }

    /// All nodes come to have one permission.
    pub(super) fn must_agree(&self, outcome: &mut Outcome, after: &str) -> io::Result<()> {
        let deadline = Instant::now() + self.site.refresh + SLACK;
        let spis = loop {
            let spis = NODES.into_iter().map(|node| self.spi(node)).collect::<io::Result<Vec<_>>>()?;
            let agree = spis.first().is_some_and(|first| first.is_some() && spis.iter().all(|spi| spi == first));
            if agree || Instant::now() > deadline {
                break (agree, spis);
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        outcome.check(format!("after {} all nodes have one permission", after), spis.0, format!("{:x?}", spis.1));
        Ok(())
    }

    /// What was behind router2 was under AH, each packet under an SPI that the receiver had granted.
    pub(super) fn must_be_permitted(&self, outcome: &mut Outcome, with: &str) -> io::Result<()> {
        let Self { site, source, begun, .. } = *self;
        // The log, not the story: a grant that waited for the end of another session's is the consequence of no rule of its own.
        let log = site.log("receiver")?;
        let granted: BTreeSet<u32> = log.lines().filter_map(|line| read_spi(line.split_once("SPI ")?.1)).collect();
        let (packets, strange) = site.last.look(|frames| {
            let of_flow = frames.iter().filter(|frame| frame.at >= begun).filter_map(|frame| frame::read(frame.ip()?));
            let of_flow = of_flow.filter(|seen| seen.ports == (source, PORT));
            of_flow.fold((0, 0), |(all, strange), seen| {
                let known = seen.authentication.is_some_and(|ah| granted.contains(&ah.spi));
                (all + 1, strange + u64::from(!known))
            })
        });
        outcome.check(
            format!("with {} every packet behind router2 is under an SPI that the receiver has granted", with),
            strange == 0 && packets > 0,
            format!("{strange} of {packets} are not, {} SPIs granted", granted.len()),
        );
        Ok(())
    }

    /// No node keeps a permission that was given back.
    pub(super) fn must_be_over(&self, outcome: &mut Outcome, after: &str) -> io::Result<()> {
        let begun = Instant::now();
        let limit = self.site.refresh.mul_f64(3.5) + SLACK;
        let left = self.await_end(limit)?;
        let found = format!("{left:?} after {:.1} s", begun.elapsed().as_secs_f64());
        outcome.check(format!("after {} no node keeps the permission for more than 3.5 T", after), left.is_empty(), found);
        Ok(())
    }

    /// Waits until no node has the flow. Gives those that still have it.
    pub(super) fn await_end(&self, limit: Duration) -> io::Result<Vec<&'static str>> {
        let deadline = Instant::now() + limit;
        loop {
            let mut left = Vec::new();
            for node in NODES {
                if self.spi(node)?.is_some() {
                    left.push(node);
                }
            }
            if left.is_empty() || Instant::now() > deadline {
                return Ok(left);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the flow, so that its messages are not taken for those of the next one.
    pub(super) fn release(&self) -> io::Result<()> {
        self.site.about_flow_from(self.source, "sender", json!({ "command": "release" }))?;
        self.await_end(self.site.refresh * 4).map(drop)
    }
}

/// An SPI as nodes write it: `0x` and hexadecimal digits.
fn read_spi(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x")?;
    let end = digits.find(|character: char| !character.is_ascii_hexdigit()).unwrap_or(digits.len());
    u32::from_str_radix(digits.get(..end)?, 16).ok()
}

/// Every daemon runs that was started last, and none has ever panicked.
pub(super) fn nobody_crashed(site: &Site, outcome: &mut Outcome) -> io::Result<()> {
    let panics = site.panics()?;
    outcome.check("no daemon has panicked", panics.is_empty(), format!("{panics:?}"));
    let answers = NODES.into_iter().filter(|node| site.daemon(node, |daemon| daemon.ask(&json!({ "command": "status" }))).is_ok());
    outcome.check("every daemon answers at the end", answers.count() == NODES.len(), "asked on their control sockets");
    Ok(())
}
