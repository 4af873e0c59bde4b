//! Compression functions of SHA-256 and SHA-1 over sixteen independent messages at once.
//!
//! Beside GMAC's instructions and AF_XDP the only module of the packet side with `unsafe`: each such block reads a vector through a reference
//! to as many octets, writes one into an array of its size, or calls a function for whose instructions the processor was asked when the
//! [`Level`] was made.
//! What it computes is compared with the scalar functions, lane by lane, in the tests of the module above.
#![allow(unsafe_code)]
#![allow(
    clippy::indexing_slicing,
    reason = "indices are literals or loop bounds within fixed arrays, and `count` is at most the shortest lane"
)]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64 as arch;

/// Messages side by side.
pub(super) const LANES: usize = 16;
/// Octets of a block of both hash functions.
pub(super) type Block = [u8; 64];
/// The next blocks of every lane.
pub(super) type Blocks<'a> = [&'a [Block]; LANES];

/// Vector instructions that this processor has. Made by [`Level::detect`] alone, so that whoever has one may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::algorithm) struct Level(Width);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "no lanes on this architecture"))]
enum Width {
    /// Sixteen words at once.
    Avx512,
    /// Eight words at once, twice.
    Avx2,
}

impl Level {
    /// All that this processor can do, the best first.
    pub(super) fn detect() -> impl Iterator<Item = Self> {
        #[cfg(target_arch = "x86_64")]
        let found = [
            (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")).then_some(Self(Width::Avx512)),
            is_x86_feature_detected!("avx2").then_some(Self(Width::Avx2)),
        ];
        #[cfg(not(target_arch = "x86_64"))]
        let found = [None; 2];
        found.into_iter().flatten()
    }

    /// Whether eight words at once, twice, are all there is: that is slower than the instructions for SHA-256 that a processor may have.
    pub(super) fn is_narrow(self) -> bool {
        self.0 == Width::Avx2
    }

    /// SHA-256 of the first `count` blocks of each lane; fewer if a lane has fewer. Word `w` of lane `l` is `state[w][l]`.
    pub(super) fn sha256(self, state: &mut [[u32; LANES]; 8], blocks: &Blocks<'_>, count: usize) {
        let count = shortest(blocks, count);
        #[cfg(target_arch = "x86_64")]
        match self.0 {
            // SAFETY: a level exists only if the processor has its instructions.
            Width::Avx512 => unsafe { avx512::sha256(state, blocks, count, 0) },
            Width::Avx2 => {
                for first in [0, 8] {
                    // SAFETY: as above.
                    unsafe { avx2::sha256(state, blocks, count, first) }
                }
            }
        }
    }

    /// SHA-1, the same way.
    pub(super) fn sha1(self, state: &mut [[u32; LANES]; 5], blocks: &Blocks<'_>, count: usize) {
        let count = shortest(blocks, count);
        #[cfg(target_arch = "x86_64")]
        match self.0 {
            // SAFETY: a level exists only if the processor has its instructions.
            Width::Avx512 => unsafe { avx512::sha1(state, blocks, count, 0) },
            Width::Avx2 => {
                for first in [0, 8] {
                    // SAFETY: as above.
                    unsafe { avx2::sha1(state, blocks, count, first) }
                }
            }
        }
    }
}

fn shortest(blocks: &Blocks<'_>, count: usize) -> usize {
    blocks.iter().map(|lane| lane.len()).fold(count, usize::min)
}

/// FIPS 180-4 §4.2.2, for sixteen rounds each.
#[rustfmt::skip]
const K256: [[u32; 16]; 4] = [
    [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    ],
    [
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    ],
    [
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    ],
    [
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    ],
];
/// FIPS 180-4 §4.2.1: for twenty rounds each.
const K1: [u32; 4] = [0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6];

/// Both compression functions, for one width of vectors. Around it stand that width's `Vector`, `WIDTH` and operations.
macro_rules! compression_functions {
    ($features:literal) => {
        macro_rules! rotate {
            ($vector:expr, $right:literal) => {
                rotate::<$right, { 32 - $right }>($vector)
            };
        }

        /// FIPS 180-4 §6.2.2 for the lanes from `first` on.
        #[target_feature(enable = $features)]
        pub(super) fn sha256(state: &mut [[u32; LANES]; 8], blocks: &Blocks<'_>, count: usize, first: usize) {
            let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = load_state(state, first);
            for block in 0..count {
                let mut w = words(blocks, block, first);
                let before = [a, b, c, d, e, f, g, h];
                // The constant goes to the word first, and what comes of `e` last: only that is waited for.
                macro_rules! round {
                    ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:ident, $g:ident, $h:ident, $k:ident, $t:literal) => {
                        let sum1 = xor3(rotate!($e, 6), rotate!($e, 11), rotate!($e, 25));
                        let t1 = add(add(add($h, add(w[$t], splat($k[$t]))), choose($e, $f, $g)), sum1);
                        let sum0 = xor3(rotate!($a, 2), rotate!($a, 13), rotate!($a, 22));
                        $d = add($d, t1);
                        $h = add(t1, add(sum0, majority($a, $b, $c)));
                    };
                }
                // The same, and the word of the schedule sixteen further on in the place of the one that is needed no more.
                macro_rules! round_and_word {
                    ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $f:ident, $g:ident, $h:ident, $k:ident, $t:literal) => {
                        round!($a, $b, $c, $d, $e, $f, $g, $h, $k, $t);
                        let (early, late) = (w[($t + 1) % 16], w[($t + 14) % 16]);
                        let s0 = xor3(rotate!(early, 7), rotate!(early, 18), shift_right::<3>(early));
                        let s1 = xor3(rotate!(late, 17), rotate!(late, 19), shift_right::<10>(late));
                        w[$t] = add(add(w[$t], s0), add(w[($t + 9) % 16], s1));
                    };
                }
                // Indices are literals, so that the words stay in registers.
                macro_rules! sixteen {
                    ($round:ident, $k:ident) => {
                        $round!(a, b, c, d, e, f, g, h, $k, 0);
                        $round!(h, a, b, c, d, e, f, g, $k, 1);
                        $round!(g, h, a, b, c, d, e, f, $k, 2);
                        $round!(f, g, h, a, b, c, d, e, $k, 3);
                        $round!(e, f, g, h, a, b, c, d, $k, 4);
                        $round!(d, e, f, g, h, a, b, c, $k, 5);
                        $round!(c, d, e, f, g, h, a, b, $k, 6);
                        $round!(b, c, d, e, f, g, h, a, $k, 7);
                        $round!(a, b, c, d, e, f, g, h, $k, 8);
                        $round!(h, a, b, c, d, e, f, g, $k, 9);
                        $round!(g, h, a, b, c, d, e, f, $k, 10);
                        $round!(f, g, h, a, b, c, d, e, $k, 11);
                        $round!(e, f, g, h, a, b, c, d, $k, 12);
                        $round!(d, e, f, g, h, a, b, c, $k, 13);
                        $round!(c, d, e, f, g, h, a, b, $k, 14);
                        $round!(b, c, d, e, f, g, h, a, $k, 15);
                    };
                }
                let [first, second, third, last] = &K256;
                for k in [first, second, third] {
                    sixteen!(round_and_word, k);
                }
                sixteen!(round, last);
                let [a0, b0, c0, d0, e0, f0, g0, h0] = before;
                (a, b, c, d) = (add(a, a0), add(b, b0), add(c, c0), add(d, d0));
                (e, f, g, h) = (add(e, e0), add(f, f0), add(g, g0), add(h, h0));
            }
            store_state(state, first, [a, b, c, d, e, f, g, h]);
        }

        /// FIPS 180-4 §6.1.2 for the lanes from `first` on.
        #[target_feature(enable = $features)]
        pub(super) fn sha1(state: &mut [[u32; LANES]; 5], blocks: &Blocks<'_>, count: usize, first: usize) {
            let [mut a, mut b, mut c, mut d, mut e] = load_state(state, first);
            for block in 0..count {
                let mut w = words(blocks, block, first);
                let before = [a, b, c, d, e];
                macro_rules! round {
                    ($a:ident, $b:ident, $c:ident, $d:ident, $e:ident, $function:ident, $k:expr, $t:expr) => {
                        if $t >= 16 {
                            let mixed = xor(xor3(w[($t + 13) % 16], w[($t + 8) % 16], w[($t + 2) % 16]), w[$t % 16]);
                            w[$t % 16] = rotate!(mixed, 31);
                        }
                        $e = add(add(add($e, w[$t % 16]), $k), add(rotate!($a, 27), $function($b, $c, $d)));
                        $b = rotate!($b, 2);
                    };
                }
                macro_rules! twenty {
                    ($function:ident, $part:literal) => {
                        let k = splat(K1[$part]);
                        for five in 0..4 {
                            let t = 20 * $part + 5 * five;
                            round!(a, b, c, d, e, $function, k, t);
                            round!(e, a, b, c, d, $function, k, t + 1);
                            round!(d, e, a, b, c, $function, k, t + 2);
                            round!(c, d, e, a, b, $function, k, t + 3);
                            round!(b, c, d, e, a, $function, k, t + 4);
                        }
                    };
                }
                twenty!(choose, 0);
                twenty!(xor3, 1);
                twenty!(majority, 2);
                twenty!(xor3, 3);
                let [a0, b0, c0, d0, e0] = before;
                (a, b, c, d, e) = (add(a, a0), add(b, b0), add(c, c0), add(d, d0), add(e, e0));
            }
            store_state(state, first, [a, b, c, d, e]);
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn load_state<const WORDS: usize>(state: &[[u32; LANES]; WORDS], first: usize) -> [Vector; WORDS] {
            let mut vectors = [splat(0); WORDS];
            for (vector, word) in vectors.iter_mut().zip(state) {
                let mut part = [0; WIDTH];
                part.copy_from_slice(&word[first..first + WIDTH]);
                *vector = load(&part);
            }
            vectors
        }

        #[target_feature(enable = $features)]
        #[inline]
        fn store_state<const WORDS: usize>(state: &mut [[u32; LANES]; WORDS], first: usize, vectors: [Vector; WORDS]) {
            for (vector, word) in vectors.into_iter().zip(state) {
                word[first..first + WIDTH].copy_from_slice(&store(vector));
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::arch::*;
    use super::{Block, Blocks, K1, K256, LANES};

    type Vector = __m512i;
    const WIDTH: usize = 16;

    compression_functions!("avx512f,avx512bw");

    /// Word `w` of all lanes' block number `block`, for each `w`.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn words(blocks: &Blocks<'_>, block: usize, _first: usize) -> [Vector; 16] {
        let swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
        let mut words = [splat(0); 16];
        for (part, words) in words.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // Four words of each lane. Lanes that are four apart share a vector, so that they come out in their order.
            macro_rules! row {
                ($lane:literal) => {{
                    let quarter = |lane: usize| part_of(&blocks[lane][block], part);
                    let low = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(quarter($lane)), quarter($lane + 4));
                    let three = _mm512_inserti32x4::<2>(low, quarter($lane + 8));
                    _mm512_shuffle_epi8(_mm512_inserti32x4::<3>(three, quarter($lane + 12)), swap)
                }};
            }
            let rows = [row!(0), row!(1), row!(2), row!(3)];
            let (low, high) = (_mm512_unpacklo_epi32(rows[0], rows[1]), _mm512_unpackhi_epi32(rows[0], rows[1]));
            let (low2, high2) = (_mm512_unpacklo_epi32(rows[2], rows[3]), _mm512_unpackhi_epi32(rows[2], rows[3]));
            words[0] = _mm512_unpacklo_epi64(low, low2);
            words[1] = _mm512_unpackhi_epi64(low, low2);
            words[2] = _mm512_unpacklo_epi64(high, high2);
            words[3] = _mm512_unpackhi_epi64(high, high2);
        }
        words
    }

    /// Sixteen octets of a block, of four.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn part_of(block: &Block, part: usize) -> __m128i {
        let octets: &[u8; 16] = &block.as_chunks().0[part];
        // SAFETY: reads the 16 octets of the array, however they are aligned.
        unsafe { _mm_loadu_si128(octets.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn load(words: &[u32; WIDTH]) -> Vector {
        // SAFETY: reads the 64 octets of the array, however they are aligned.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn store(vector: Vector) -> [u32; WIDTH] {
        let mut words = [0; WIDTH];
        // SAFETY: writes the 64 octets of the array, however they are aligned.
        unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), vector) };
        words
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn splat(word: u32) -> Vector {
        _mm512_set1_epi32(word.cast_signed())
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn add(a: Vector, b: Vector) -> Vector {
        _mm512_add_epi32(a, b)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn xor(a: Vector, b: Vector) -> Vector {
        _mm512_xor_si512(a, b)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32::<0x96>(a, b, c)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32::<0xca>(a, b, c)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm512_ternarylogic_epi32::<0xe8>(a, b, c)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn rotate<const RIGHT: i32, const LEFT: i32>(a: Vector) -> Vector {
        _mm512_ror_epi32::<RIGHT>(a)
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn shift_right<const BITS: u32>(a: Vector) -> Vector {
        _mm512_srli_epi32::<BITS>(a)
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::arch::*;
    use super::{Blocks, K1, K256, LANES};

    type Vector = __m256i;
    const WIDTH: usize = 8;

    compression_functions!("avx2");

    /// Word `w` of eight lanes' block number `block`, for each `w`.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn words(blocks: &Blocks<'_>, block: usize, first: usize) -> [Vector; 16] {
        let swap = _mm256_broadcastsi128_si256(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
        let mut words = [splat(0); 16];
        for half in [0, 1] {
            let mut rows = [splat(0); WIDTH];
            for (row, lane) in rows.iter_mut().zip(&blocks[first..first + WIDTH]) {
                let [low, high] = lane[block].as_chunks::<32>().0 else { continue };
                *row = _mm256_shuffle_epi8(load_octets(if half == 0 { low } else { high }), swap);
            }
            let mut twos = rows;
            for at in 0..4 {
                twos[2 * at] = _mm256_unpacklo_epi32(rows[2 * at], rows[2 * at + 1]);
                twos[2 * at + 1] = _mm256_unpackhi_epi32(rows[2 * at], rows[2 * at + 1]);
            }
            let mut fours = twos;
            for at in 0..2 {
                let [low, high, low2, high2] = [twos[4 * at], twos[4 * at + 1], twos[4 * at + 2], twos[4 * at + 3]];
                fours[4 * at] = _mm256_unpacklo_epi64(low, low2);
                fours[4 * at + 1] = _mm256_unpackhi_epi64(low, low2);
                fours[4 * at + 2] = _mm256_unpacklo_epi64(high, high2);
                fours[4 * at + 3] = _mm256_unpackhi_epi64(high, high2);
            }
            for at in 0..4 {
                words[8 * half + at] = _mm256_permute2x128_si256::<0x20>(fours[at], fours[at + 4]);
                words[8 * half + at + 4] = _mm256_permute2x128_si256::<0x31>(fours[at], fours[at + 4]);
            }
        }
        words
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load_octets(octets: &[u8; 32]) -> Vector {
        // SAFETY: reads the 32 octets of the array, however they are aligned.
        unsafe { _mm256_loadu_si256(octets.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn load(words: &[u32; WIDTH]) -> Vector {
        // SAFETY: reads the 32 octets of the array, however they are aligned.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn store(vector: Vector) -> [u32; WIDTH] {
        let mut words = [0; WIDTH];
        // SAFETY: writes the 32 octets of the array, however they are aligned.
        unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), vector) };
        words
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn splat(word: u32) -> Vector {
        _mm256_set1_epi32(word.cast_signed())
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn add(a: Vector, b: Vector) -> Vector {
        _mm256_add_epi32(a, b)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn xor(a: Vector, b: Vector) -> Vector {
        _mm256_xor_si256(a, b)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn xor3(a: Vector, b: Vector, c: Vector) -> Vector {
        xor(xor(a, b), c)
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn choose(a: Vector, b: Vector, c: Vector) -> Vector {
        xor(c, _mm256_and_si256(a, xor(b, c)))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn majority(a: Vector, b: Vector, c: Vector) -> Vector {
        _mm256_or_si256(_mm256_and_si256(a, b), _mm256_and_si256(c, _mm256_or_si256(a, b)))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn rotate<const RIGHT: i32, const LEFT: i32>(a: Vector) -> Vector {
        _mm256_or_si256(_mm256_srli_epi32::<RIGHT>(a), _mm256_slli_epi32::<LEFT>(a))
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn shift_right<const BITS: i32>(a: Vector) -> Vector {
        _mm256_srli_epi32::<BITS>(a)
    }
}
