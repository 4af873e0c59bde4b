//! The rings through which frames change hands: entries, and a counter at either end.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;
use nix::libc;

use super::memory::Mapping;

/// `XDP_RING_NEED_WAKEUP`.
const WAKE_NEEDED: u32 = 1;

/// What both ends have in common. `T` is the kernel's plain entry: any bits are one.
#[derive(Debug)]
struct Ring<T> {
    _mapping: Mapping,
    produced: NonNull<AtomicU32>,
    consumed: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    /// A power of two.
    len: u32,
}

// SAFETY: the pointers are into the mapping, which goes where they go.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Copy> Ring<T> {
    fn new(descriptor: libc::c_int, page: libc::off_t, offsets: &libc::xdp_ring_offset, len: u32) -> Result<Self, Errno> {
        if !len.is_power_of_two() {
            return Err(Errno::EINVAL);
        }
        let offset = |value: u64| usize::try_from(value).map_err(|_| Errno::EFAULT);
        let first = offset(offsets.desc)?;
        let entries = (len as usize).checked_mul(size_of::<T>()).ok_or(Errno::EFAULT)?;
        let mapping = Mapping::new(first.checked_add(entries).ok_or(Errno::EFAULT)?, Some((descriptor, page)))?;
        let (produced, consumed) = (mapping.place(offset(offsets.producer)?)?, mapping.place(offset(offsets.consumer)?)?);
        let (flags, entries) = (mapping.place(offset(offsets.flags)?)?, mapping.place(first)?);
        Ok(Self { _mapping: mapping, produced, consumed, flags, entries, len })
    }

    fn counter(&self, of: NonNull<AtomicU32>) -> &AtomicU32 {
        // SAFETY: the counter lies in the mapping, which lives as long as `self`, and the kernel too treats it as atomic.
        unsafe { of.as_ref() }
    }

    fn entry(&self, number: u32) -> NonNull<T> {
        // SAFETY: all `len` entries lie in the mapping, and the remainder is less.
        unsafe { self.entries.add((number & (self.len - 1)) as usize) }
    }

    fn needs_wake(&self) -> bool {
        self.counter(self.flags).load(Ordering::Relaxed) & WAKE_NEEDED != 0
    }
}

/// The end that puts entries into a ring.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// Entries written so far, shown to the kernel or not yet.
    written: u32,
    /// Those that the kernel had taken when last looked at.
    taken: u32,
}

impl<T: Copy> Producer<T> {
    pub(super) fn new(descriptor: libc::c_int, page: libc::off_t, offsets: &libc::xdp_ring_offset, len: u32) -> Result<Self, Errno> {
        Ok(Self { ring: Ring::new(descriptor, page, offsets, len)?, written: 0, taken: 0 })
    }

    /// Entries that there is room for.
    pub(super) fn room(&mut self) -> u32 {
        self.taken = self.ring.counter(self.ring.consumed).load(Ordering::Acquire);
        self.ring.len.saturating_sub(self.written.wrapping_sub(self.taken))
    }

    /// Whether there is room for one, looking at what the kernel has taken only if there seems to be none.
    pub(super) fn has_room(&mut self) -> bool {
        self.written.wrapping_sub(self.taken) < self.ring.len || self.room() > 0
    }

    /// Writes an entry; `false` if there is no room. The kernel sees it from [`show`](Self::show) on.
    pub(super) fn put(&mut self, entry: T) -> bool {
        if !self.has_room() {
            return false;
        }
        // SAFETY: the entry is this end's until it is shown: the kernel has taken what stood there before.
        unsafe { self.ring.entry(self.written).write(entry) };
        self.written = self.written.wrapping_add(1);
        true
    }

    /// Shows the kernel what was written; `false` if that is nothing new.
    pub(super) fn show(&mut self) -> bool {
        let produced = self.ring.counter(self.ring.produced);
        // Only this end changes it.
        let new = produced.load(Ordering::Relaxed) != self.written;
        if new {
            produced.store(self.written, Ordering::Release);
        }
        new
    }

    /// Whether the kernel has yet to take any.
    pub(super) fn is_pending(&mut self) -> bool {
        self.room() < self.ring.len
    }

    /// Whether the kernel must be called to look at the ring.
    pub(super) fn needs_wake(&self) -> bool {
        self.ring.needs_wake()
    }
}

/// The end that takes entries out of a ring.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// Entries read so far, given back to the kernel or not yet.
    read: u32,
    /// Those that the kernel had written when last looked at.
    written: u32,
}

impl<T: Copy> Consumer<T> {
    pub(super) fn new(descriptor: libc::c_int, page: libc::off_t, offsets: &libc::xdp_ring_offset, len: u32) -> Result<Self, Errno> {
        Ok(Self { ring: Ring::new(descriptor, page, offsets, len)?, read: 0, written: 0 })
    }

    /// The next entry. The kernel may use its place again from [`give_back`](Self::give_back) on.
    pub(super) fn take(&mut self) -> Option<T> {
        if self.read == self.written {
            self.written = self.ring.counter(self.ring.produced).load(Ordering::Acquire);
        }
        // More than the ring holds would be an error of the kernel's.
        if !(1..=self.ring.len).contains(&self.written.wrapping_sub(self.read)) {
            return None;
        }
        // SAFETY: the kernel has written this entry, and does not touch it until it is given back.
        let entry = unsafe { self.ring.entry(self.read).read() };
        self.read = self.read.wrapping_add(1);
        Some(entry)
    }

    /// Gives back the places of what was taken.
    pub(super) fn give_back(&mut self) {
        self.ring.counter(self.ring.consumed).store(self.read, Ordering::Release);
    }
}
