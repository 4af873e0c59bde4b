//! Many messages with one call.

use std::array::from_fn;
use std::fmt;
use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, NetlinkAddr, recvmmsg};

use super::{Malformed, Socket};

/// Messages received with one call at the most.
pub const MANY: usize = 64;

/// Memory for [`MANY`] messages, allocated once.
pub struct ManyBuffer {
    octets: Vec<u8>,
    /// Octets from the beginning of one message's place to that of the next.
    stride: usize,
    headers: MultiHeaders<NetlinkAddr>,
    received: [Received; MANY],
    is_full: bool,
}

/// Whether few messages came last from a socket, so that the next call is given few places: each costs something, whether a message comes
/// to lie in it or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Few(bool);

impl Default for Few {
    fn default() -> Self {
        Self(true)
    }
}

/// Places given where few messages came last.
const FEW: usize = 16;

/// What lies in a place.
#[derive(Debug, Clone, Copy)]
enum Received {
    /// So many octets.
    Whole(usize),
    /// The beginning of something longer.
    Cut,
    /// What another process sent.
    Strange,
}

impl ManyBuffer {
    /// Room for messages of `longest` octets.
    pub fn new(longest: usize) -> Self {
        // A step beside the powers of two: else the beginnings of all messages would share a few places in the processor's cache.
        let stride = longest.next_multiple_of(4096) + 1600;
        let received = [Received::Whole(0); MANY];
        Self { octets: vec![0; stride * MANY], stride, headers: MultiHeaders::preallocate(MANY, None), received, is_full: false }
    }

    /// Whether the last call brought as many messages as it had places for, so that more may be there.
    pub const fn is_full(&self) -> bool {
        self.is_full
    }

    /// The first `count` messages of those received last.
    pub fn received(&self, count: usize) -> Many<'_> {
        let received = self.received.get(..count).unwrap_or_default().iter();
        Many { places: self.octets.chunks_exact(self.stride), received }
    }
}

impl fmt::Debug for ManyBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManyBuffer").field("stride", &self.stride).finish_non_exhaustive()
    }
}

/// Messages that came with one call.
#[derive(Debug, Clone)]
pub struct Many<'b> {
    places: std::slice::ChunksExact<'b, u8>,
    received: std::slice::Iter<'b, Received>,
}

impl Many<'_> {
    /// How many places are left to look at.
    pub fn len(&self) -> usize {
        self.received.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'b> Iterator for Many<'b> {
    type Item = Result<&'b [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (received, place) = (self.received.next()?, self.places.next()?);
            match received {
                Received::Whole(len) => return Some(place.get(..*len).ok_or(Malformed("message: longer than its place"))),
                Received::Cut => return Some(Err(Malformed("message: longer than its place"))),
                Received::Strange => {}
            }
        }
    }
}

impl Socket {
    /// Receives what the kernel has sent, at most [`MANY`] messages, without waiting, and gives how many; errors as those of
    /// [`receive`](Self::receive). If few came from this socket last, only a few places are given.
    pub fn receive_many(&self, buffer: &mut ManyBuffer, few: &mut Few) -> Result<usize, Errno> {
        let (received, places) = if few.0 { (self.receive_up_to::<FEW>(buffer), FEW) } else { (self.receive_up_to::<MANY>(buffer), MANY) };
        let count = received.unwrap_or(0);
        (*few, buffer.is_full) = (Few(count < FEW), count == places);
        received
    }

    fn receive_up_to<const N: usize>(&self, buffer: &mut ManyBuffer) -> Result<usize, Errno> {
        let mut places = buffer.octets.chunks_exact_mut(buffer.stride);
        let mut parts: [[IoSliceMut<'_>; 1]; N] = from_fn(|_| [IoSliceMut::new(places.next().unwrap_or_default())]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages = recvmmsg(self.as_fd().as_raw_fd(), &mut buffer.headers, parts.iter_mut(), flags, None)?;
        let mut count = 0;
        for (message, received) in messages.zip(&mut buffer.received) {
            count += 1;
            *received = if message.address.is_none_or(|sender| sender.pid() != 0) {
                Received::Strange
            } else if message.flags.contains(MsgFlags::MSG_TRUNC) {
                Received::Cut
            } else {
                Received::Whole(message.bytes)
            };
        }
        Ok(count)
    }
}
