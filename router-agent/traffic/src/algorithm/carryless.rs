//! What GMAC is made of, with the processor's own instructions: one block of AES, and GHASH of eight blocks at a time.
//!
//! Beside the lanes ([`super::lanes`]) and AF_XDP the only module of the packet side with `unsafe`: each such block reads a vector through a
//! reference to as many octets, writes one into an array of its size, or calls a function for whose instructions the processor was asked
//! when the [`Level`] was made. What it computes is compared with the libraries' functions in the tests of [`super::gmac`].
//!
//! GHASH is computed as POLYVAL of turned blocks (RFC 8452 appendix A), where a product of M = \[M1 M0\] and H = \[H1 H0\] is, with
//! D = \[H0 H1\] + H0 × P and P = x^63 + x^62 + x^57: R = M0 D1 + M1 H1 and F = M0 D0 + M1 H0, and in the end R + \[F0 F1\] + F0 × P.
#![allow(unsafe_code)]

/// Octets of a block of AES and of GHASH.
pub(super) const BLOCK: usize = 16;
/// A block.
pub(super) type Block = [u8; BLOCK];

/// The instructions that are needed. Made by [`Level::detect`] alone, so that whoever has one may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level(());

/// The first eight powers of a hash key, the highest first. Secret; whoever has one wipes it.
#[derive(Clone, Copy)]
pub(super) struct Powers {
    high: Four,
    low: Four,
}

/// Four powers, and of each what a product with it needs besides.
#[derive(Clone, Copy)]
struct Four {
    of: [u64; 8],
    folded: [u64; 8],
}

impl Powers {
    /// None.
    pub(super) const ZERO: Self = Self { high: Four::ZERO, low: Four::ZERO };
}

impl Four {
    const ZERO: Self = Self { of: [0; 8], folded: [0; 8] };
}

/// A hash key from what AES makes of a block of zeros: turned, and times x.
pub(super) fn hash_key(block: Block) -> u128 {
    let turned = u128::from_be_bytes(block);
    let carry = turned >> 127;
    turned << 1 ^ carry ^ carry << 127 ^ carry << 126 ^ carry << 121
}

#[cfg(not(target_arch = "x86_64"))]
impl Level {
    pub(super) const fn detect() -> Option<Self> {
        None
    }

    pub(super) fn round_keys(self, _key: &[u8]) -> Option<Box<[Block]>> {
        None
    }

    pub(super) fn encrypt(self, _rounds: &[Block], block: Block) -> Block {
        block
    }

    pub(super) fn powers(self, _key: u128) -> Powers {
        Powers::ZERO
    }

    pub(super) fn absorb(self, _powers: &Powers, _value: &mut Block, _first: &[Block], _more: &[[Block; 4]], _last: &[[Block; 4]]) {}
}

#[cfg(target_arch = "x86_64")]
impl Level {
    /// Whether this processor has the instructions.
    pub(super) fn detect() -> Option<Self> {
        let has_all = is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("pclmulqdq")
            && is_x86_feature_detected!("vpclmulqdq")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        has_all.then_some(Self(()))
    }

    /// The round keys of a key of 16 or 32 octets (FIPS 197 §5.2); `None` for any other length.
    pub(super) fn round_keys(self, key: &[u8]) -> Option<Box<[Block]>> {
        // SAFETY: a level exists only if the processor has its instructions.
        let word = |word: [u8; 4]| unsafe { x86_64::substitute(word) };
        let words = key.len() / 4;
        let rounds = match words {
            4 => 11,
            8 => 15,
            _ => return None,
        };
        let mut keys = vec![[0; BLOCK]; rounds].into_boxed_slice();
        let schedule = keys.as_flattened_mut().as_chunks_mut::<4>().0;
        schedule.as_flattened_mut().iter_mut().zip(key).for_each(|(place, octet)| *place = *octet);
        let mut constant = 1_u8;
        for at in words..schedule.len() {
            let mut last = *schedule.get(at - 1)?;
            if at % words == 0 {
                last = word(last);
                last.rotate_left(1);
                last[0] ^= constant;
                constant = constant << 1 ^ if constant >> 7 == 1 { 0x1b } else { 0 };
            } else if words == 8 && at % words == 4 {
                last = word(last);
            }
            let before = *schedule.get(at - words)?;
            let place = schedule.get_mut(at)?;
            place.iter_mut().zip(last).zip(before).for_each(|((place, last), before)| *place = last ^ before);
        }
        Some(keys)
    }

    /// AES of one block (FIPS 197 §5.1).
    pub(super) fn encrypt(self, rounds: &[Block], block: Block) -> Block {
        // SAFETY: as above.
        unsafe { x86_64::encrypt(rounds, block) }
    }

    /// The powers of a hash key.
    pub(super) fn powers(self, key: u128) -> Powers {
        // SAFETY: as above.
        unsafe { x86_64::powers(key) }
    }

    /// Goes on with GHASH from `value` over more blocks (SP 800-38D §6.4): of three pieces, the first not empty.
    pub(super) fn absorb(self, powers: &Powers, value: &mut Block, first: &[Block], more: &[[Block; 4]], last: &[[Block; 4]]) {
        if !first.is_empty() {
            // SAFETY: as above.
            unsafe { x86_64::absorb(powers, value, first, [more, last]) }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Block, Four, Powers};

    /// P, as above.
    const P: i64 = (0xc2_u64 << 56).cast_signed();

    /// The substitution of AES, of each octet of a word.
    #[target_feature(enable = "aes,sse2")]
    pub(super) fn substitute(word: [u8; 4]) -> [u8; 4] {
        // The first word of the result is the substituted second word.
        let vector = _mm_set_epi32(0, 0, i32::from_le_bytes(word), 0);
        _mm_cvtsi128_si32(_mm_aeskeygenassist_si128::<0>(vector)).to_le_bytes()
    }

    #[target_feature(enable = "aes,sse2")]
    pub(super) fn encrypt(rounds: &[Block], block: Block) -> Block {
        let mut state = load(&block);
        if let [first, middle @ .., last] = rounds {
            state = _mm_xor_si128(state, load(first));
            for round in middle {
                state = _mm_aesenc_si128(state, load(round));
            }
            state = _mm_aesenclast_si128(state, load(last));
        }
        store(state)
    }

    #[target_feature(enable = "avx512f,avx512dq,pclmulqdq,vpclmulqdq")]
    pub(super) fn powers(key: u128) -> Powers {
        let h1 = load(&key.to_le_bytes());
        let d1 = fold(h1);
        // Zero beside it, so that there is one product and no other.
        let h2 = reduce(products(_mm512_zextsi128_si512(h1), _mm512_zextsi128_si512(h1), _mm512_zextsi128_si512(d1)));
        let both = _mm512_inserti64x2::<1>(_mm512_zextsi128_si512(h2), h1);
        let (h2s, d2s) = (_mm512_broadcast_i64x2(h2), _mm512_broadcast_i64x2(fold(h2)));
        // The fourth power, and the third.
        let (r, f) = products(both, h2s, d2s);
        let high = reduce_each(r, f);
        let of = _mm512_inserti64x2::<3>(_mm512_inserti64x2::<2>(high, h2), h1);
        let low = folded(of);
        let fourth = _mm512_shuffle_i64x2::<0>(of, of);
        let (r, f) = products(fourth, of, load_wide(&low.folded));
        Powers { high: folded(reduce_each(r, f)), low }
    }

    /// Four powers, and D of each.
    #[target_feature(enable = "avx512f,avx512dq,vpclmulqdq")]
    #[inline]
    fn folded(of: __m512i) -> Four {
        let p = _mm512_broadcast_i64x2(_mm_set_epi64x(P, 0));
        let folded = _mm512_xor_si512(_mm512_shuffle_epi32::<0x4e>(of), _mm512_clmulepi64_epi128::<0x10>(of, p));
        Four { of: store_wide(of), folded: store_wide(folded) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,pclmulqdq,vpclmulqdq")]
    pub(super) fn absorb(powers: &Powers, value: &mut Block, first: &[Block], fours: [&[[Block; 4]]; 2]) {
        let turn = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let turns = _mm512_broadcast_i32x4(turn);
        let (high, high_folded) = (load_wide(&powers.high.of), load_wide(&powers.high.folded));
        // The eighth power for each of four blocks side by side.
        let (h, d) = (_mm512_shuffle_i64x2::<0>(high, high), _mm512_shuffle_i64x2::<0>(high_folded, high_folded));
        // As many blocks first as leave whole fours, behind zeros, which count for nothing.
        let (few, rest) = first.split_at((first.len() + 3) % 4 + 1);
        let zeros = 4 - few.len();
        let before = _mm512_maskz_broadcast_i64x2(3 << (2 * zeros), load(value));
        // Every second four goes to one sum, so that one product need not wait for the other.
        let (mut older, mut newer) = (_mm512_setzero_si512(), _mm512_shuffle_epi8(_mm512_xor_si512(before, load_last(few)), turns));
        for part in [rest.as_chunks::<4>().0, fours[0], fours[1]] {
            for four in part {
                let (r, f) = products(older, h, d);
                (older, newer) = (newer, _mm512_xor_si512(reduce_each(r, f), _mm512_shuffle_epi8(load_four(four), turns)));
            }
        }
        let (low, low_folded) = (load_wide(&powers.low.of), load_wide(&powers.low.folded));
        let ((r1, f1), (r2, f2)) = (products(older, high, high_folded), products(newer, low, low_folded));
        let sum = reduce((_mm512_xor_si512(r1, r2), _mm512_xor_si512(f1, f2)));
        *value = store(_mm_shuffle_epi8(sum, turn));
    }

    /// D of a power.
    #[target_feature(enable = "sse2,pclmulqdq")]
    #[inline]
    fn fold(h: __m128i) -> __m128i {
        _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(h), _mm_clmulepi64_si128::<0x10>(h, _mm_set_epi64x(P, 0)))
    }

    /// R and F of four products.
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    fn products(m: __m512i, h: __m512i, d: __m512i) -> (__m512i, __m512i) {
        let r = _mm512_xor_si512(_mm512_clmulepi64_epi128::<0x10>(m, d), _mm512_clmulepi64_epi128::<0x11>(m, h));
        let f = _mm512_xor_si512(_mm512_clmulepi64_epi128::<0x00>(m, d), _mm512_clmulepi64_epi128::<0x01>(m, h));
        (r, f)
    }

    /// What four products come to.
    #[target_feature(enable = "avx512f,avx512dq,vpclmulqdq")]
    #[inline]
    fn reduce_each(r: __m512i, f: __m512i) -> __m512i {
        let p = _mm512_broadcast_i64x2(_mm_set_epi64x(0, P));
        _mm512_ternarylogic_epi64::<0x96>(r, _mm512_shuffle_epi32::<0x4e>(f), _mm512_clmulepi64_epi128::<0x00>(f, p))
    }

    /// What four products come to together.
    #[target_feature(enable = "avx512f,avx512dq,pclmulqdq,vpclmulqdq")]
    #[inline]
    fn reduce((r, f): (__m512i, __m512i)) -> __m128i {
        let (r, f) = (together(r), together(f));
        let folded = _mm_clmulepi64_si128::<0x00>(f, _mm_set_epi64x(0, P));
        _mm_xor_si128(_mm_xor_si128(r, _mm_shuffle_epi32::<0x4e>(f)), folded)
    }

    #[target_feature(enable = "avx512f,avx512dq")]
    #[inline]
    fn together(four: __m512i) -> __m128i {
        let two = _mm256_xor_si256(_mm512_castsi512_si256(four), _mm512_extracti64x4_epi64::<1>(four));
        _mm_xor_si128(_mm256_castsi256_si128(two), _mm256_extracti128_si256::<1>(two))
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn load(block: &Block) -> __m128i {
        // SAFETY: reads the 16 octets of the block, however they are aligned.
        unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
    }

    #[target_feature(enable = "sse2")]
    #[inline]
    fn store(vector: __m128i) -> Block {
        let mut block = [0; BLOCK];
        // SAFETY: writes the 16 octets of the array, however they are aligned.
        unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), vector) };
        block
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load_wide(words: &[u64; 8]) -> __m512i {
        // SAFETY: reads the 64 octets of the array, however they are aligned.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store_wide(vector: __m512i) -> [u64; 8] {
        let mut words = [0; 8];
        // SAFETY: writes the 64 octets of the array, however they are aligned.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
        words
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load_four(blocks: &[Block; 4]) -> __m512i {
        // SAFETY: reads the 64 octets of the blocks, however they are aligned.
        unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) }
    }

    /// At most four blocks, behind zeros.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load_last(blocks: &[Block]) -> __m512i {
        let mask = match blocks.len() {
            0 => 0,
            1 => 0xc0,
            2 => 0xf0,
            3 => 0xfc,
            _ => 0xff,
        };
        // SAFETY: reads two words of 8 octets for each block, as many as the mask has bits, and four blocks at the most.
        unsafe { _mm512_maskz_expandloadu_epi64(mask, blocks.as_ptr().cast()) }
    }
}
