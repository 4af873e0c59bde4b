//! The ICVs of many packets at once. The verdicts are those of [`icv_matches`], only sooner.

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
    let mut heads = [const { Head::new() }; BATCH];
    for ((question, head), answer) in questions.iter().zip(&mut heads).zip(&mut *answers) {
        *answer = question.as_ref().and_then(|question| if head.fill(question) { None } else { Some(question.answer()) });
    }
    let inputs = questions.iter().zip(&heads).enumerate().filter_map(|(at, (question, head))| {
        let question = question.as_ref().filter(|_| head.is_filled)?;
        let (IcvKey::Mac(key), Some(ah)) = (question.key, question.packet.ah()) else { return None };
        Some((at, Input { key, iv: icv::iv(ah, question.key), head: head.octets(), body: question.packet.after() }))
    });
    Standard::compute_many(inputs, &mut |at, value| {
        let Some((Some(question), answer)) = questions.get(at).zip(answers.get_mut(at)) else { return };
        let received = question.packet.ah().and_then(|ah| ah.icv_field().get(question.key.algorithm().iv_len()..));
        *answer = Some(value.matches(received.unwrap_or_default()));
    });
}

/// What an ICV input begins with.
struct Head {
    octets: [u8; Standard::LONGEST_HEAD],
    len: usize,
    is_filled: bool,
}

impl Head {
    const fn new() -> Self {
        Self { octets: [0; Standard::LONGEST_HEAD], len: 0, is_filled: false }
    }

    /// Writes the head of a question; `false` if it must be answered by itself.
    fn fill(&mut self, question: &Question<'_>) -> bool {
        let Question { packet, key: key @ IcvKey::Mac(_), high: None } = question else { return false };
        self.is_filled = true;
        let written = packet.ah().and_then(|ah| icv::head(self, packet, ah, key));
        self.is_filled &= written.is_some();
        self.is_filled
    }

    fn octets(&self) -> &[u8] {
        self.octets.get(..self.len).unwrap_or_default()
    }
}

impl Sink for Head {
    fn update(&mut self, piece: &[u8]) {
        match self.octets.get_mut(self.len..).and_then(|free| free.get_mut(..piece.len())) {
            Some(place) => {
                place.copy_from_slice(piece);
                self.len += piece.len();
            }
            None => self.is_filled = false,
        }
    }
}
