//! The ICVs of many packets at once. The verdicts are those of [`icv_matches`], only sooner.

use heapless::Vec;

use super::icv::{self, Sink, icv_matches};
use crate::algorithm::{IcvKey, Input, Standard};
use crate::packet::IpPacket;

/// Packets looked at together at the most.
pub const BATCH: usize = 64;

/// A packet whose ICV is to be judged; see [`icv_matches`].
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The packet.
    pub packet: &'a IpPacket<'a>,
    /// The key of its association.
    pub key: &'a IcvKey,
    /// The high-order bits of an extended sequence number, if there are any.
    pub high: Option<u32>,
}

impl Question<'_> {
    /// The answer, by itself.
    pub fn answer(&self) -> bool {
        icv_matches(self.packet, self.key, self.high)
    }
}

/// Puts to each question its answer; a question that is none has none. What has no place in `answers` is not answered.
///
/// MACs are computed side by side. A signature, an extended number, and a packet with more options than any honest one are judged one
/// by one.
pub fn icvs_match(questions: &[Option<Question<'_>>], answers: &mut [Option<bool>]) {
    for (questions, answers) in questions.chunks(BATCH).zip(answers.chunks_mut(BATCH)) {
        answer(questions, answers);
    }
}

fn answer(questions: &[Option<Question<'_>>], answers: &mut [Option<bool>]) {
    let mut heads = Heads::default();
    for (question, answer) in questions.iter().zip(&mut *answers) {
        let is_written = heads.add(question.as_ref());
        *answer = question.as_ref().and_then(|question| if is_written { None } else { Some(question.answer()) });
    }
    let inputs = questions.iter().enumerate().filter_map(|(at, question)| {
        let (question, head) = (question.as_ref()?, heads.get(at)?);
        let (IcvKey::Mac(key), Some(ah)) = (question.key, question.packet.ah()) else { return None };
        Some((at, Input { key, iv: icv::iv(ah, question.key), head, body: question.packet.after() }))
    });
    Standard::compute_many(inputs, &mut |at, value| {
        let Some((Some(question), answer)) = questions.get(at).zip(answers.get_mut(at)) else { return };
        let received = question.packet.ah().and_then(|ah| ah.icv_field().get(question.key.algorithm().iv_len()..));
        *answer = Some(value.matches(received.unwrap_or_default()));
    });
}

/// What ICV inputs begin with, one behind the other.
#[derive(Default)]
struct Heads {
    octets: Vec<u8, { BATCH * ROOM }>,
    /// Where each ends; one that is not there, where it begins.
    ends: Vec<usize, BATCH>,
    /// Whether the one being written has found room.
    has_room: bool,
}

/// Octets of a head for which there is room in any case, if all are as long: those of IPv6 with AH and few options.
const ROOM: usize = 128;

impl Heads {
    /// Writes the head of the next question; `false` if there is none, or the question must be answered by itself.
    fn add(&mut self, question: Option<&Question<'_>>) -> bool {
        let begin = self.octets.len();
        self.has_room = true;
        let written = question.and_then(|question| {
            let Question { packet, key: key @ IcvKey::Mac(_), high: None } = question else { return None };
            packet.ah().and_then(|ah| icv::head(self, packet, ah, key))
        });
        let is_written = written.is_some() && self.has_room && self.octets.len() - begin <= Standard::LONGEST_HEAD;
        if !is_written {
            self.octets.truncate(begin);
        }
        // There are as many places as questions at the most.
        let _ = self.ends.push(self.octets.len());
        is_written
    }

    /// The head of a question, if it was written.
    fn get(&self, at: usize) -> Option<&[u8]> {
        let begin = at.checked_sub(1).map_or(Some(0), |before| self.ends.get(before).copied())?;
        self.octets.get(begin..*self.ends.get(at)?).filter(|head| !head.is_empty())
    }
}

impl Sink for Heads {
    fn update(&mut self, piece: &[u8]) {
        self.has_room &= self.octets.extend_from_slice(piece).is_ok();
    }
}
