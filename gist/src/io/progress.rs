//! What association tasks have written, for the node's account of what is outstanding.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::api::AssociationId;

/// Bytes written by each association since the shell looked last: as many entries as associations, however fast they write.
#[derive(Debug, Default)]
pub(super) struct Progress {
    written: Mutex<BTreeMap<AssociationId, usize>>,
    news: Notify,
    stalled: AtomicU64,
}

impl Progress {
    /// Adds bytes of whole messages.
    pub(super) fn note(&self, association: AssociationId, bytes: usize) {
        *self.written.lock().unwrap_or_else(PoisonError::into_inner).entry(association).or_default() += bytes;
        self.news.notify_one();
    }

    /// An association fails because its peer takes nothing.
    pub(super) fn note_stall(&self) {
        self.stalled.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have failed for that reason.
    pub(super) fn stalled(&self) -> u64 {
        self.stalled.load(Ordering::Relaxed)
    }

    /// Waits for something to take; may return once too often.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    /// Takes all there is.
    pub(super) fn take(&self) -> BTreeMap<AssociationId, usize> {
        std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
