//! Shared services inside a core: the same for the whole life of a node, so no part of its state.

use core::fmt;
use core::hash::{Hash, Hasher};
use core::ops::Deref;
use std::sync::Arc;

/// An `Arc` that comparison and hashing pass over.
pub(crate) struct Opaque<T: ?Sized>(Arc<T>);

impl<T: ?Sized> Opaque<T> {
    pub(crate) fn new(shared: Arc<T>) -> Self {
        Self(shared)
    }

    pub(crate) fn shared(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T: ?Sized> Deref for Opaque<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> Clone for Opaque<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: ?Sized> PartialEq for Opaque<T> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<T: ?Sized> Eq for Opaque<T> {}

impl<T: ?Sized> Hash for Opaque<T> {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Opaque<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
