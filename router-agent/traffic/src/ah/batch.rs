//! The ICVs of many packets at once. The verdicts are those of [`icv_matches`], only sooner.

use super::icv::{self, Sink, icv_matches};
use crate::algorithm::{IcvKey, Input, MacValue, Standard};
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
    for (at, (question, answer)) in questions.iter().zip(&mut *answers).enumerate() {
        let is_written = heads.add(at, question.as_ref());
        *answer = question.as_ref().and_then(|question| if is_written { None } else { Some(question.answer()) });
    }
    let inputs = questions.iter().enumerate().filter_map(|(at, question)| {
        let (question, head) = (question.as_ref()?, heads.get(at)?);
        let (IcvKey::Mac(key), Some(ah)) = (question.key, question.packet.ah()) else { return None };
        Some((at, Input { key, iv: icv::iv(ah, question.key), head, body: question.packet.after() }))
    });
    Standard::compute_many(inputs, &mut |at, value| {
        let Some((Some(question), answer)) = questions.get(at).zip(answers.get_mut(at)) else { return };
        *answer = Some(is_right(question, &value));
    });
}

/// The answer of a MAC whose input has a head that is not too long; `None` for any other question. In one piece it is quicker than piece by
/// piece.
pub(super) fn matches_whole(question: &Question<'_>) -> Option<bool> {
    let (IcvKey::Mac(key), ah) = (question.key, question.packet.ah()?) else { return None };
    let mut octets = [0; ROOM];
    let len = write(&mut octets, question)?;
    let input = Input { key, iv: icv::iv(ah, question.key), head: octets.get(..len)?, body: question.packet.after() };
    Some(is_right(question, &Standard::compute(&input)))
}

/// Whether this is the value that the packet carries.
fn is_right(Question { packet, key, .. }: &Question<'_>, value: &MacValue) -> bool {
    let received = packet.ah().and_then(|ah| ah.icv_field().get(key.algorithm().iv_len()..));
    value.matches(received.unwrap_or_default())
}

/// Writes the head of a question over zeros, and gives its length; `None` if the question must be answered in pieces.
fn write(octets: &mut [u8; ROOM], question: &Question<'_>) -> Option<usize> {
    let Question { packet, key: key @ IcvKey::Mac(_), high: None } = question else { return None };
    let mut head = Head { octets, len: 0, has_room: true };
    icv::head(&mut head, packet, packet.ah()?, key)?;
    head.has_room.then_some(head.len)
}

/// What ICV inputs begin with.
struct Heads {
    /// Each has room of its own, with zeros behind it.
    octets: [[u8; ROOM]; BATCH],
    /// How long each is, 0 for one that is not there.
    lens: [usize; BATCH],
}

/// Octets of a head for which there is room: those of IPv6 with AH and few options.
const ROOM: usize = 128;
const _: () = assert!(ROOM <= Standard::LONGEST_HEAD);

impl Default for Heads {
    fn default() -> Self {
        Self { octets: [[0; ROOM]; BATCH], lens: [0; BATCH] }
    }
}

impl Heads {
    /// Writes the head of a question; `false` if there is none, or the question must be answered by itself.
    fn add(&mut self, at: usize, question: Option<&Question<'_>>) -> bool {
        let places = self.octets.get_mut(at).zip(self.lens.get_mut(at)).zip(question);
        let written = places.and_then(|((octets, place), question)| Some((place, write(octets, question)?)));
        let is_written = written.is_some();
        written.into_iter().for_each(|(place, len)| *place = len);
        is_written
    }

    /// The head of a question, if it was written.
    fn get(&self, at: usize) -> Option<&[u8]> {
        self.octets.get(at)?.get(..*self.lens.get(at)?).filter(|head| !head.is_empty())
    }
}

/// A head that is being written, over zeros.
struct Head<'h> {
    octets: &'h mut [u8; ROOM],
    len: usize,
    has_room: bool,
}

impl Head<'_> {
    /// The place of what comes next.
    #[inline]
    fn place(&mut self, len: usize) -> Option<&mut [u8]> {
        let begin = self.len;
        self.len = begin.saturating_add(len);
        let place = self.octets.get_mut(begin..self.len);
        self.has_room &= place.is_some();
        place
    }
}

impl Sink for Head<'_> {
    #[inline]
    fn update(&mut self, piece: &[u8]) {
        if let Some(place) = self.place(piece.len()) {
            place.copy_from_slice(piece);
        }
    }

    #[inline]
    fn zeros(&mut self, len: usize) {
        let _ = self.place(len);
    }
}
