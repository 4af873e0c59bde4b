//! The way of super-packets past their queue: how long their segments may be, and where these leave.

use nix::errno::Errno;
use smoltcp::time::{Duration, Instant};

use super::{Outlet, Room, Sizes};
use crate::netlink::NetlinkError;
use crate::packet::IpPacket;
use crate::processor::Segments;

/// How long super-packets are left to the kernel once it has refused a segment for what it is.
const REST: Duration = Duration::from_secs(10);

/// The same once the socket takes no more: the sending program's own socket waits then.
const SHORT_REST: Duration = Duration::from_millis(10);

/// What the thread of a queue of super-packets needs for them.
#[derive(Debug)]
pub(crate) struct Way {
    sizes: Sizes,
    outlet: Outlet,
    /// Before that super-packets are left to the kernel.
    not_before: Instant,
}

impl Way {
    /// Opens the sockets in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self { sizes: Sizes::open()?, outlet: Outlet::open().map_err(NetlinkError::Open)?, not_before: Instant::ZERO })
    }

    /// Octets of data that the segments of a super-packet may carry; `None` if it is to be left to the kernel.
    pub(crate) fn largest(&mut self, packet: &[u8], now: Instant) -> Option<usize> {
        let flow = IpPacket::parse(packet).ok().filter(|_| self.not_before <= now)?.flow()?;
        self.sizes.of(&flow, now)
    }

    /// Sends segments in their order. Tells of each that does not leave how long it is.
    pub(crate) fn send(&mut self, segments: &Segments<'_>, mark: u32, room: &mut Room, now: Instant, failed: &mut dyn FnMut(usize)) {
        let not_before = &mut self.not_before;
        let between = (segments.source, segments.destination);
        self.outlet.send(between, mark, segments.packets, room, &mut |len, errno| {
            // What the filter does not let pass, or is too long for the link of this way, the kernel cuts better: it tells the socket.
            if matches!(errno, Errno::EPERM | Errno::EMSGSIZE) && *not_before <= now {
                tracing::warn!(%errno, "the kernel lets no segment with AH leave by itself: super-packets are left to it for a while");
                *not_before = now + REST;
            }
            if matches!(errno, Errno::EAGAIN | Errno::ENOBUFS) {
                *not_before = (*not_before).max(now + SHORT_REST);
            }
            tracing::debug!(len, %errno, "a segment did not leave");
            failed(len);
        });
    }
}
