//! The short way through a router (AF_XDP): packets with AH come from the interface straight to the worker, and go from there straight to
//! the next interface, past the kernel's own path with its queue.
//!
//! ```text
//!              ┌─ XDP program ── whole AH to be forwarded ──▶ AF_XDP socket ─▶ worker ─▶ AF_XDP socket ─▶ interface
//! interface ──▶┤                                                                 ▲ │
//!              └─ everything else ──▶ kernel: rules, routing ──▶ NFQUEUE ────────┘ └──▶ kernel ─▶ interface
//! ```
//!
//! A host takes off its interfaces what comes to itself under a live permission ([`AfXdp::receive_at_host`]), and its stack gets what is judged
//! right by a device ([`Inlet`]). There the program drops nothing for want of a permission: that goes the kernel's way as well.
//!
//! At a router, what has no live permission the program drops where there is a shield ([`Shield`]): it knows what the set of the filter rules knows, and
//! stays a step ahead of it. It may stand without the short way, before rules and queues ([`stand`]).
//!
//! The same worker judges both with the same table, so that a flow whose packets come by both (some in fragments) has one window and one
//! volume. The kernel alone decides where a packet goes, at the moment it comes, and answers for what cannot go on (`program`).
//!
//! It fails closed. The program stays on the interface when the process dies; then there is no socket, and it drops what was for one, while
//! the rest meets the filter rules as always. An interface that is not named, that comes later or comes back, or whose hardware address
//! changes, and a queue that an interface is given later, go the kernel's way: slower, and judged all the same.
//!
//! What passes by here meets no other program's filter rules, no connection tracking, no reverse path filter, and no queueing discipline. A
//! frame with a VLAN tag goes the kernel's way, unless the interface takes the tag off before (`rx-vlan-offload`): then it looks like one without.

mod error;
mod forward;
pub mod ingress;
mod inlet;
mod instruction;
mod kernel;
mod link;
mod neighbours;
mod program;
mod set_up;
mod shield;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::epoll::Epoll;

use crate::joining::Joiner;
use crate::queue::MANY;
use crate::reason::DropReason;

use error::refused;
use forward::Way;
use kernel::{Frame, Frames, Map, Received, Socket};
pub(crate) use kernel::{bind_to_link, link_socket};
use neighbours::Neighbours;
use program::{ETHERNET_LEN, WAY_LEN};

pub use error::AfXdpError;
pub use inlet::{INLET, Inlet};
pub use link::Mode;
pub use set_up::{Standing, restore, stand};
pub use shield::Shield;

/// Interfaces that may take part at the most.
pub const MOST_INTERFACES: usize = 16;
/// Queues of all interfaces together, at the most: each has a socket and 8 MiB of memory, or 16.
const MOST_SOCKETS: usize = 64;
/// Places for frames, for each socket: as many as wait to be filled, and as many under way.
const FRAMES_EACH: u32 = 4096;
/// Octets that drivers keep free before a frame (`XDP_PACKET_HEADROOM`); the way is written there.
const HEADROOM: u32 = 256;
/// Octets of a place for a frame: for Ethernet's usual length, and for longer ones.
const STRIDES: [u32; 2] = [2048, 4096];
/// How often to look for frames that have been sent, while there are any and none come: nobody wakes the worker for them.
const SETTLE_EVERY: Duration = Duration::from_millis(10);
/// How often that is doubled where nothing comes back: what waits for an interface that is down, or gone, is no reason to wake up for.
const MOST_DOUBLED: u32 = 7;

/// An interface that is to take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taking {
    /// Its name.
    pub name: String,
    /// Whether packets leave by it too; not by one that is observed, whose packets the kernel's path marks.
    pub leaves: bool,
}

/// How an interface takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Where its program runs.
    pub mode: Mode,
    /// Its queues, each with a socket.
    pub queues: usize,
    /// Whether it reads and writes frames in the worker's memory itself, or the kernel copies them.
    pub zero_copy: bool,
    /// The kernel's number of it.
    index: u32,
    /// Its hardware address when its program was made.
    address: [u8; 6],
}

/// The worker's end of the short way.
#[derive(Debug)]
pub struct AfXdp {
    sockets: Vec<Socket>,
    frames: Frames,
    /// Places in which nothing lies.
    free: Vec<Frame>,
    /// How often none has come back of those that are under way.
    in_vain: u32,
    neighbours: Neighbours,
    ready: Epoll,
    /// At a host.
    inward: Option<Box<Inward>>,
    /// They go when the programs go that use them; until then they are full of our sockets.
    _maps: Vec<Map>,
}

/// Where judged packets go at a host.
#[derive(Debug)]
pub(crate) struct Inward {
    pub(crate) inlet: Inlet,
    pub(crate) joiner: Joiner,
}

impl Inward {
    fn new(inlet: Inlet) -> Self {
        Self { inlet, joiner: Joiner::default() }
    }
}

/// A frame that has come.
#[derive(Debug)]
pub struct Arrived(Received);

/// What the kernel has dropped before the worker, for whoever does not own it.
#[derive(Debug, Clone, Default)]
pub struct Statistics(Vec<kernel::Statistics>);

impl Statistics {
    /// Frames for which there was no room, since the beginning; `None` once the sockets are closed.
    pub fn dropped(&self) -> Option<u64> {
        self.0.iter().map(kernel::Statistics::dropped).try_fold(0_u64, |sum, dropped| Some(sum.saturating_add(dropped?)))
    }
}

impl AfXdp {
    /// What the kernel drops before the worker.
    pub fn statistics(&self) -> Statistics {
        Statistics(self.sockets.iter().map(Socket::statistics).collect())
    }

    /// Has the worker take in itself, when it looks for frames, what waits at the interfaces. That is of use where they are told to wait for
    /// that (`napi_defer_hard_irqs`, `gro_flush_timeout`): then nobody else takes the processor for it, as long as the worker looks.
    ///
    /// # Errors
    ///
    /// The kernel is older than 5.11, or does not allow it.
    pub fn poll_interfaces(&mut self) -> Result<(), AfXdpError> {
        self.sockets.iter_mut().try_for_each(Socket::poll_itself).map_err(refused("poll interfaces"))
    }

    /// How many sockets there are, for [`receive`](Self::receive).
    pub(crate) fn len(&self) -> usize {
        self.sockets.len()
    }

    /// Has a socket's interface looked at, if the worker polls it.
    pub(crate) fn poll(&self, socket: usize) {
        self.sockets.get(socket).into_iter().for_each(Socket::poll);
    }

    /// Where judged packets go at a host, to be given back; nothing at a router.
    pub(crate) fn inward(&mut self) -> &mut Option<Box<Inward>> {
        &mut self.inward
    }

    /// Takes frames that have come to a socket: at most `most`, and [`MANY`]. Gives also how many there were that the kernel named wrongly.
    pub(crate) fn receive(&mut self, socket: usize, most: usize, into: &mut heapless::Vec<Arrived, MANY>) -> u64 {
        let Some(socket) = self.sockets.get_mut(socket) else { return 0 };
        let mut strange = 0;
        while into.len() < most.min(MANY) {
            match socket.receive(&mut self.frames) {
                None => break,
                Some(Err(_)) => strange += 1,
                // There is room: it was just looked at.
                Some(Ok(received)) => drop(into.push(Arrived(received))),
            }
        }
        socket.end_receiving();
        strange
    }

    /// The IP packet in a frame.
    pub(crate) fn packet(&self, arrived: &Arrived) -> Result<&[u8], DropReason> {
        forward::packet(self.octets(arrived))
    }

    /// Octets behind the Ethernet header of a frame in which there is no packet that says how long it is: with what may pad it.
    pub(crate) fn len_of_unknown(&self, arrived: &Arrived) -> usize {
        self.octets(arrived).len().saturating_sub(ETHERNET_LEN)
    }

    fn octets(&self, Arrived(Received { frame, at, len }): &Arrived) -> &[u8] {
        let end = at.saturating_add(*len) as usize;
        self.frames.octets(frame).get(*at as usize..end).unwrap_or_default()
    }

    /// Sends a frame on, if given with another packet in it, no longer than the one that came; `false` if it is dropped: its interface takes
    /// no more now.
    pub(crate) fn send_on(&mut self, arrived: Arrived, instead: Option<&[u8]>) -> bool {
        let sent = self.make_ready(arrived, instead).map(|(socket, received)| match self.sockets.get_mut(socket) {
            Some(socket) => socket.send(&mut self.frames, received),
            None => Err(received.frame),
        });
        match sent {
            Ok(Ok(())) => {
                self.in_vain = 0;
                true
            }
            Ok(Err(frame)) | Err(frame) => {
                self.free.push(frame);
                false
            }
        }
    }

    /// The frame as it goes on, and the socket to send it by.
    fn make_ready(&mut self, arrived: Arrived, instead: Option<&[u8]>) -> Result<(usize, Received), Frame> {
        let Arrived(Received { mut frame, at, len }) = arrived;
        let ready = |octets: &mut [u8]| {
            let (before, rest) = octets.split_at_mut_checked(at as usize)?;
            let way = Way::read(before.last_chunk::<WAY_LEN>()?);
            let octets = rest.get_mut(..len as usize)?;
            if let Some(packet) = instead {
                octets.get_mut(ETHERNET_LEN..)?.get_mut(..packet.len())?.copy_from_slice(packet);
            }
            let len = forward::send_on(octets, &way)?;
            Some((way, len))
        };
        let Some((way, len)) = ready(self.frames.octets_mut(&mut frame)) else { return Err(frame) };
        let socket = self.sockets.iter().position(|socket| socket.binding().interface == way.interface);
        match (socket, u32::try_from(len)) {
            (Some(socket), Ok(len)) => {
                self.neighbours.note(&way);
                Ok((socket, Received { frame, at, len }))
            }
            _ => Err(frame),
        }
    }

    /// Drops a frame.
    pub(crate) fn drop_frame(&mut self, Arrived(Received { frame, .. }): Arrived) {
        self.free.push(frame);
    }

    /// How long to wait before [`settle`](Self::settle) is called although nothing comes; `None` if there is no reason to. Nobody tells of
    /// places that come back.
    pub(crate) fn patience(&self) -> Option<Duration> {
        let is_under_way = self.sockets.iter().any(Socket::is_under_way);
        is_under_way.then(|| SETTLE_EVERY.saturating_mul(1 << self.in_vain.min(MOST_DOUBLED)))
    }

    /// Has the kernel send what was sent on, takes back what it is done with, and gives it places for more.
    pub(crate) fn settle(&mut self) {
        let before = self.free.len();
        for socket in &mut self.sockets {
            socket.end_sending();
            socket.take_sent(&mut self.frames, &mut self.free);
        }
        self.in_vain = if self.free.len() > before { 0 } else { self.in_vain.saturating_add(1) };
        for socket in &mut self.sockets {
            socket.fill(&mut self.frames, &mut self.free);
        }
        self.neighbours.handle_timeout(Instant::now());
    }
}

impl AsFd for AfXdp {
    /// Readable when a frame has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.0.as_fd()
    }
}
