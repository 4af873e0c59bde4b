//! Where segments leave in frames: past the kernel's filter and its routing, through the link's queueing discipline.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg, setsockopt, sockopt};

use super::hop::Hop;
use super::outlet::BUFFER;
use crate::af_xdp::{bind_to_link, link_socket};
use crate::ah::{BATCH, Sealing};

/// A socket that sends to one link at a time, and receives nothing.
#[derive(Debug)]
pub(super) struct FrameOutlet {
    socket: OwnedFd,
    /// The link, if it is bound to one.
    link: Option<u32>,
    mark: u32,
}

impl FrameOutlet {
    /// Opens the socket in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// The kernel refuses: it takes `CAP_NET_RAW`.
    pub(super) fn open() -> Result<Self, Errno> {
        let socket = link_socket()?;
        // Without privilege the system's maximum has to do.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &BUFFER).or_else(|_| setsockopt(&socket, sockopt::SndBuf, &BUFFER));
        Ok(Self { socket, link: None, mark: 0 })
    }

    /// Sends packets in their order, and gives the place of the first that the link does not take as it is: another way is to be found for
    /// it and those behind it. Tells of each that has been lost here how long it is, and why.
    pub(super) fn send(
        &mut self,
        hop: &Hop,
        mark: u32,
        packets: &Sealing,
        room: &mut MultiHeaders<()>,
        failed: &mut dyn FnMut(usize, Errno),
    ) -> usize {
        if let Err(errno) = self.turn(hop.interface, mark) {
            tracing::debug!(interface = hop.interface, %errno, "no frames to a link");
            return 0;
        }
        let (mut at, to) = (0, [None::<()>; BATCH]);
        while at < packets.len() {
            // What is not sealed has no octets, and a frame of the header alone is refused.
            let frame = |at| [IoSlice::new(&hop.header), IoSlice::new(packets.get(at).unwrap_or_default())];
            let frames: heapless::Vec<[IoSlice<'_>; 2], BATCH> = (at..packets.len()).take(BATCH).map(frame).collect();
            match sendmmsg(self.socket.as_raw_fd(), room, &frames, to.as_slice(), [], MsgFlags::MSG_DONTWAIT) {
                Ok(sent) => at += sent.count().max(1),
                Err(Errno::EINTR) => {}
                // The link's queue is full, or the socket: the next may fit.
                Err(errno @ (Errno::ENOBUFS | Errno::EAGAIN | Errno::ENOMEM)) => {
                    failed(packets.get(at).unwrap_or_default().len(), errno);
                    at += 1;
                }
                Err(errno) => {
                    tracing::debug!(interface = hop.interface, %errno, "a link does not take a frame");
                    self.link = None;
                    return at;
                }
            }
        }
        at
    }

    /// Has it send to a link from now on, with a mark.
    fn turn(&mut self, link: u32, mark: u32) -> Result<(), Errno> {
        if self.link != Some(link) {
            self.link = None;
            bind_to_link(&self.socket, link)?;
            self.link = Some(link);
        }
        if self.mark != mark {
            setsockopt(&self.socket, sockopt::Mark, &mark)?;
            self.mark = mark;
        }
        Ok(())
    }
}
