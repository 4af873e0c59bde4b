//! The way of super-packets past their queue: how long their segments may be, and where these leave.

use nix::errno::Errno;
use smoltcp::time::{Duration, Instant};

use super::frames::FrameOutlet;
use super::hop::{Hops, Towards};
use super::{Outlet, Room, Sizes};
use crate::ah::Sealing;
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
    /// None if frames cannot be sent here.
    frames: Option<(Hops, FrameOutlet)>,
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
        let outlet = Outlet::open().map_err(NetlinkError::Open)?;
        let frames = Hops::open().and_then(|hops| Ok((hops, FrameOutlet::open().map_err(NetlinkError::Open)?)));
        let frames = frames.inspect_err(|error| tracing::warn!(%error, "segments leave by a raw socket alone")).ok();
        Ok(Self { sizes: Sizes::open()?, outlet, frames, not_before: Instant::ZERO })
    }

    /// Octets of data that the segments of a super-packet may carry; `None` if it is to be left to the kernel.
    pub(crate) fn largest(&mut self, packet: &[u8], now: Instant) -> Option<usize> {
        let flow = IpPacket::parse(packet).ok().filter(|_| self.not_before <= now)?.flow()?;
        self.sizes.of(&flow, now)
    }

    /// Sends segments in their order. Tells of each that does not leave how long it is.
    pub(crate) fn send(&mut self, segments: &Segments<'_>, mark: u32, room: &mut Room, now: Instant, lost: &mut dyn FnMut(usize)) {
        let Self { outlet, frames, not_before, .. } = self;
        let packets = segments.packets;
        let mut failed = |len, errno| {
            // What the filter does not let pass, or is too long for the link of this way, the kernel cuts better: it tells the socket.
            if matches!(errno, Errno::EPERM | Errno::EMSGSIZE) && *not_before <= now {
                tracing::warn!(%errno, "the kernel lets no segment with AH leave by itself: super-packets are left to it for a while");
                *not_before = now + REST;
            }
            if matches!(errno, Errno::EAGAIN | Errno::ENOBUFS) {
                *not_before = (*not_before).max(now + SHORT_REST);
            }
            tracing::debug!(len, %errno, "a segment did not leave");
            lost(len);
        };
        let towards = Towards { source: segments.source, destination: segments.destination, mark, class: class(packets) };
        let mut first = 0;
        if let Some((hops, outlet)) = frames
            && let Some(hop) = hops.of(&towards, now).filter(|hop| packets.get(0).is_some_and(|longest| longest.len() <= hop.mtu))
        {
            first = outlet.send(&hop, mark, packets, &mut room.frames, &mut failed);
            if first < packets.len() {
                hops.refuse(towards, now);
            }
        }
        if first < packets.len() {
            outlet.send((segments.source, segments.destination), mark, (packets, first), room, &mut failed);
        }
    }
}

/// What routing looks at besides addresses and mark: the DSCP of the first, which is that of all (RFC 2474 §3).
fn class(packets: &Sealing) -> u8 {
    let octet = match packets.get(0) {
        Some([first, second, ..]) if *first >> 4 == 6 => *first << 4 | *second >> 4,
        Some([_, second, ..]) => *second,
        _ => 0,
    };
    octet & 0xfc
}
