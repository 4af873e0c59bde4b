//! A backend for unit tests: not a MAC, only a function that mixes well.

use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::hash_map::DefaultHasher;

use super::Backend;

/// Counts its calls.
#[derive(Debug, Default)]
pub(super) struct TestBackend {
    pub(super) macs: AtomicU64,
}

impl Backend for TestBackend {
    fn mac(&self, key: &[u8; 32], message: &[u8]) -> [u8; 32] {
        self.macs.fetch_add(1, Ordering::Relaxed);
        let mut output = [0; 32];
        for (number, chunk) in output.chunks_mut(8).enumerate() {
            let mut hasher = DefaultHasher::new();
            (number, key, message).hash(&mut hasher);
            chunk.copy_from_slice(&hasher.finish().to_be_bytes());
        }
        output
    }

    fn egress_address(&self, _: IpAddr) -> Option<IpAddr> {
        None
    }
}
