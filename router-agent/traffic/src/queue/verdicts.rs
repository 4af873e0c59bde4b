//! Verdicts of one queue that are to be sent together.

use nix::errno::Errno;

use crate::netlink::Writer;
use crate::processor::PacketId;

use super::Decision;
use super::delivery::Seen;
use super::message::{self, Written};
use super::runs::{Part, Runs};

/// Messages for one socket, written and not sent.
#[derive(Debug)]
pub(super) struct Verdicts {
    number: u16,
    octets: Vec<u8>,
    /// One message, sent by itself.
    alone: Vec<u8>,
    /// If several packets may have one message.
    runs: Option<Runs>,
}

impl Verdicts {
    /// Of the queue with this number, newly opened.
    pub(super) const fn new(number: u16, in_turn: bool) -> Self {
        let runs = if in_turn { Some(Runs::new(Runs::FIRST)) } else { None };
        Self { number, octets: Vec::new(), alone: Vec::new(), runs }
    }

    /// The same, with what is known of it.
    #[cfg(test)]
    pub(super) const fn with(number: u16, runs: Runs) -> Self {
        Self { number, octets: Vec::new(), alone: Vec::new(), runs: Some(runs) }
    }

    /// A call brings something new.
    pub(super) fn begin(&mut self) {
        let Self { number, octets, runs: Some(runs), .. } = self else { return };
        runs.begin(|part| message::part(octets, *number, part));
    }

    /// What it has brought, each before it is judged; what cannot be read is left out.
    pub(super) fn see(&mut self, seen: Seen) {
        let Some(runs) = &mut self.runs else { return };
        match seen {
            Seen::Packet(number, way) => runs.note(number, way),
            Seen::Refused => runs.give_up(),
        }
    }

    /// Takes the verdict on a packet.
    pub(super) fn add(&mut self, id: PacketId, decision: Decision<'_>) -> Result<(), Errno> {
        if self.judges(id, decision == Decision::Accept) {
            return Ok(());
        }
        let mut writer = Writer::appending(std::mem::take(&mut self.octets));
        message::verdict(&mut writer, self.number, id, decision);
        let written = writer.finish();
        if written.is_err() {
            // With it goes what was written before.
            self.fails();
        }
        self.octets = written.map_err(|_| Errno::EMSGSIZE)?;
        Ok(())
    }

    /// Has the verdict on a packet sent by itself, before those that are to be sent together.
    pub(super) fn give_alone(
        &mut self,
        id: PacketId,
        decision: Decision<'_>,
        send: impl FnOnce(&[u8]) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut writer = Writer::reusing(std::mem::take(&mut self.alone));
        message::verdict(&mut writer, self.number, id, decision);
        self.alone = writer.finish().map_err(|_| Errno::EMSGSIZE)?;
        send(&self.alone)?;
        // Only what was sent: a packet that waits on is left out, and passes with no run.
        self.judges(id, false);
        Ok(())
    }

    fn judges(&mut self, id: PacketId, goes_on: bool) -> bool {
        let Self { number, octets, runs: Some(runs), .. } = self else { return false };
        runs.judge(message::number_of(id), goes_on, |part| message::part(octets, *number, part))
    }

    /// Verdicts could not be sent.
    fn fails(&mut self) {
        if let Some(runs) = &mut self.runs {
            runs.fail();
        }
    }

    /// What is written so far; verdicts that could be put together with later ones are not.
    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// All that is to be sent.
    pub(super) fn close(&mut self) -> &[u8] {
        if let Self { number, octets, runs: Some(runs), .. } = self {
            runs.close(|part| message::part(octets, *number, part));
        }
        &self.octets
    }

    /// What could not be sent together: a message for each packet. Of what was to be dropped below a run nothing is said, since none is
    /// sent.
    pub(super) fn one_by_one(&mut self, mut send: impl FnMut(u32, &[u8])) {
        self.fails();
        let Self { octets, alone: one, .. } = self;
        for written in message::written(octets) {
            match written {
                Written::Verdict(number, octets) => send(number, octets),
                Written::UpTo { last, packets } => {
                    for number in Written::run(last, packets) {
                        one.clear();
                        message::part(one, self.number, Part::One(number));
                        send(number, one);
                    }
                }
            }
        }
    }

    /// Everything has been sent.
    pub(super) fn clear(&mut self) {
        self.octets.clear();
    }
}
