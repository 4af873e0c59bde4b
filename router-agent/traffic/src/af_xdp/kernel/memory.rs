//! The memory that frames lie in (UMEM), one place of equal length after the other.

use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;

use super::last_error;

/// Memory that is mapped into this process, and no longer when it is dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    address: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is memory like any other; nothing about it belongs to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps what a descriptor offers at `offset`, or fresh memory without one.
    pub(super) fn new(len: usize, of: Option<(libc::c_int, libc::off_t)>) -> Result<Self, Errno> {
        let (descriptor, offset) = of.unwrap_or((-1, 0));
        let flags = if of.is_some() { libc::MAP_SHARED } else { libc::MAP_PRIVATE | libc::MAP_ANONYMOUS } | libc::MAP_POPULATE;
        // SAFETY: no address is asked for, so that nothing that is mapped already is touched.
        let address = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, descriptor, offset) };
        if address == libc::MAP_FAILED {
            return Err(last_error());
        }
        Ok(Self { address: NonNull::new(address.cast()).ok_or(Errno::EFAULT)?, len })
    }

    pub(super) fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// A place in it for a `T`, if it lies inside and is aligned.
    pub(super) fn place<T>(&self, offset: usize) -> Result<NonNull<T>, Errno> {
        let fits = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len);
        if !fits || !offset.is_multiple_of(align_of::<T>()) {
            return Err(Errno::EFAULT);
        }
        // SAFETY: `offset` lies inside, as was just looked at; mappings begin at a page, so that alignment within is alignment.
        Ok(unsafe { self.address.add(offset) }.cast())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: so it was mapped, and whoever holds pointers into it holds the mapping too.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

/// All places for frames.
#[derive(Debug)]
pub(in crate::af_xdp) struct Frames {
    mapping: Mapping,
    /// Octets of a place, a power of two.
    stride: u32,
    /// Of each, whether there is a [`Frame`] of it.
    held: Vec<bool>,
}

/// A place that is this process's to read and write until it is given to the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::af_xdp) struct Frame(u32);

impl Frames {
    /// So many places of `stride` octets, all of them held.
    pub(in crate::af_xdp) fn new(count: u32, stride: u32) -> Result<(Self, Vec<Frame>), Errno> {
        let len = (count as usize).checked_mul(stride as usize).ok_or(Errno::ENOMEM)?;
        let mapping = Mapping::new(len, None)?;
        Ok((Self { mapping, stride, held: vec![true; count as usize] }, (0..count).map(Frame).collect()))
    }

    /// Octets of a place.
    pub(in crate::af_xdp) const fn stride(&self) -> u32 {
        self.stride
    }

    pub(super) fn address(&self) -> u64 {
        self.mapping.address().as_ptr() as u64
    }

    pub(super) const fn len(&self) -> usize {
        self.mapping.len
    }

    /// What lies in a place.
    pub(in crate::af_xdp) fn octets(&self, frame: &Frame) -> &[u8] {
        // SAFETY: a frame's place lies in the mapping, since frames of it are made for such alone, and one process has one memory of frames
        // for each group of sockets, whose frames never meet (`AfXdp` owns both). Nobody writes there while the frame is held, but through
        // `octets_mut`, which borrows `self` alone.
        unsafe { std::slice::from_raw_parts(self.at(frame).as_ptr(), self.stride as usize) }
    }

    /// The same, to be changed.
    pub(in crate::af_xdp) fn octets_mut(&mut self, frame: &mut Frame) -> &mut [u8] {
        // SAFETY: as for `octets`; `self` is borrowed alone, so that no other slice of it lives.
        unsafe { std::slice::from_raw_parts_mut(self.at(frame).as_ptr(), self.stride as usize) }
    }

    fn at(&self, frame: &Frame) -> NonNull<u8> {
        // SAFETY: see `octets`.
        unsafe { self.mapping.address().add(frame.0 as usize * self.stride as usize) }
    }

    /// The kernel gets a place: its address among all.
    pub(super) fn lend(&mut self, frame: Frame) -> u64 {
        if let Some(held) = self.held.get_mut(frame.0 as usize) {
            *held = false;
        }
        u64::from(frame.0) * u64::from(self.stride)
    }

    /// The kernel gives back the place in which an address lies, with the distance from its beginning. `None` if there is none, or it was not
    /// the kernel's to give.
    pub(super) fn take_back(&mut self, address: u64) -> Option<(Frame, u32)> {
        let index = u32::try_from(address / u64::from(self.stride)).ok()?;
        let held = self.held.get_mut(index as usize)?;
        if std::mem::replace(held, true) {
            return None;
        }
        Some((Frame(index), u32::try_from(address % u64::from(self.stride)).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_held_once_whatever_the_kernel_says() {
        let (mut frames, mut free) = Frames::new(4, 2048).unwrap();
        let mut last = free.pop().unwrap();
        frames.octets_mut(&mut last)[2047] = 7;
        assert_eq!(frames.octets(&last)[2047], 7);
        assert_eq!(frames.take_back(3 * 2048), None, "it is held");
        assert_eq!(frames.lend(last), 3 * 2048);
        assert_eq!(frames.take_back(3 * 2048 + 256), Some((Frame(3), 256)));
        assert_eq!(frames.take_back(3 * 2048), None, "it was given back before");
        assert_eq!(frames.take_back(4 * 2048), None);
        assert_eq!(frames.take_back(u64::MAX), None);
    }
}
