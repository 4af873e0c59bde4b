//! Unpredictable values from a seed.

use ring::hmac;
use zeroize::Zeroizing;

use crate::entropy::Generator;

/// HMAC-SHA-256 of the number under the seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct HmacGenerator;

impl Generator for HmacGenerator {
    fn block(&self, seed: &[u8; 32], number: u64) -> Zeroizing<[u8; 32]> {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, seed), &number.to_be_bytes());
        let mut block = Zeroizing::new([0; 32]);
        block.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        block
    }
}
