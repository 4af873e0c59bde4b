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
    unreadable: AtomicU64,
    unfinished: AtomicU64,
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

    /// An association fails because what comes cannot be taken apart into messages.
    pub(super) fn note_unreadable(&self) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
    }

    /// An association ends within a message of its peer's.
    pub(super) fn note_unfinished(&self) {
        self.unfinished.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have failed because no message could be found in them any more.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// How many have ended within a message.
    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished.load(Ordering::Relaxed)
    }

    /// How many have failed because nothing was taken.
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
