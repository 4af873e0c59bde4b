//! The short way through a router (AF_XDP): packets with AH come from the interface straight to the worker, and go from there straight to
//! the next interface, past the kernel's own path with its queue.
//!
//! ```text
//!              ┌─ XDP program ── whole AH to be forwarded ──▶ AF_XDP socket ─▶ worker ─▶ AF_XDP socket ─▶ interface
//! interface ──▶┤                                                                 ▲ │
//!              └─ everything else ──▶ kernel: rules, routing ──▶ NFQUEUE ────────┘ └──▶ kernel ─▶ interface
//! ```
//!
//! The same worker judges both with the same table, so that a flow whose packets come by both (some in fragments) has one window and one
//! volume. The kernel alone decides where a packet goes, at the moment it comes, and answers for what cannot go on (`program`).
//!
//! It fails closed. The program stays on the interface when the process dies; then there is no socket, and it drops what was for one, while
//! the rest meets the filter rules as always. An interface that is not named, that comes later or comes back, or whose hardware address
//! changes, goes the kernel's way: slower, and judged all the same.
//!
//! What passes by here meets no other program's filter rules, no connection tracking, no reverse path filter, and no queueing discipline. A
//! frame with a VLAN tag goes the kernel's way, unless the interface takes the tag off before (`rx-vlan-offload`): then it looks like one without.

mod forward;
mod instruction;
mod kernel;
mod link;
mod program;

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use crate::netlink::NetlinkError;
use crate::queue::MANY;
use crate::reason::DropReason;

use forward::Way;
use kernel::{Binding, Frame, Frames, Map, MapKind, Program, Received, Socket};
use link::{Link, Links};
use program::{ETHERNET_LEN, NEIGHBOUR_LEN, WAY_LEN};

pub use link::Mode;

/// Interfaces that may take part at the most.
pub const MOST_INTERFACES: usize = 16;
/// Queues of all interfaces together, at the most: each has a socket and 8 MiB of memory, or 16.
const MOST_SOCKETS: usize = 64;
/// Queues of one interface that are looked for.
const MOST_QUEUES: u32 = 64;
/// Places for frames, for each socket: as many as wait to be filled, and as many under way.
const FRAMES_EACH: u32 = 4096;
/// Octets that drivers keep free before a frame (`XDP_PACKET_HEADROOM`); the way is written there.
const HEADROOM: u32 = 256;
/// Octets of a place for a frame: for Ethernet's usual length, and for longer ones.
const STRIDES: [u32; 2] = [2048, 4096];
/// Neighbours whose last packet by the kernel's way is remembered.
const NEIGHBOURS: u32 = 4096;

/// An interface that is to take part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taking {
    /// Its name.
    pub name: String,
    /// Whether packets leave by it too; not by one that is observed, whose packets the kernel's path marks.
    pub leaves: bool,
}

/// An interface that takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interface {
    index: u32,
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
}

/// Why there is no short way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AfXdpError {
    /// Links cannot be listed or changed.
    #[error(transparent)]
    Link(#[from] NetlinkError),
    /// No interface has that name.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// Frames of another kind.
    #[error("interface {0} is no Ethernet link")]
    NotEthernet(String),
    /// Another program was there first.
    #[error("another XDP program runs on interface {0}, or one that this process may not ask about")]
    Taken(String),
    /// More interfaces or queues than there is room for.
    #[error("more than {MOST_INTERFACES} interfaces, or more than {MOST_SOCKETS} queues")]
    TooMany,
    /// The kernel refuses something else.
    #[error("cannot {what}: {errno}{}", privileges(*.errno))]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The kernel does not take the program.
    #[error("the kernel refuses the XDP program: {errno}: {said}{}", privileges(*.errno))]
    Program {
        /// Its error.
        errno: Errno,
        /// The last of what it says about it.
        said: String,
    },
}

const fn privileges(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => " (CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN are needed)",
        Errno::ENOBUFS | Errno::ENOMEM => " (is the limit of locked memory too low?)",
        _ => "",
    }
}

fn refused(what: &'static str) -> impl Fn(Errno) -> AfXdpError {
    move |errno| AfXdpError::Refused { what, errno }
}

/// The worker's end of the short way.
#[derive(Debug)]
pub struct AfXdp {
    sockets: Vec<Socket>,
    frames: Frames,
    /// Places in which nothing lies.
    free: Vec<Frame>,
    /// Frames that were sent on, and whose places have not come back.
    under_way: usize,
    ready: Epoll,
    parts: Vec<Part>,
    /// They go when the programs go that use them; until then they are full of our sockets.
    _maps: Vec<Map>,
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
    /// Opens sockets on every queue of these interfaces, and then sets a program on each, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// See [`AfXdpError`]. Then no program of ours is left on any of them, and all packets go the kernel's way.
    pub fn open(taking: &[Taking]) -> Result<Self, AfXdpError> {
        let links = Links::open()?;
        Self::set_up(&links, taking).inspect_err(|_| {
            // What went wrong first says more.
            if let Err(error) = take_off(&links) {
                tracing::warn!(%error, "an XDP program of an earlier run may be left: packets with AH may be lost");
            }
        })
    }

    fn set_up(links: &Links, taking: &[Taking]) -> Result<Self, AfXdpError> {
        if taking.len() > MOST_INTERFACES {
            return Err(AfXdpError::TooMany);
        }
        // Without CAP_SYS_ADMIN nobody is told whose a program is: one of ours that a run has left could never be taken off again, and would
        // drop what nobody takes. There is no program with this number.
        if let Err(errno @ (Errno::EPERM | Errno::EACCES)) = kernel::program_name(u32::MAX) {
            return Err(AfXdpError::Refused { what: "know its own XDP program again (CAP_SYS_ADMIN)", errno });
        }
        let listed = links.list()?;
        let found: Vec<(&Link, [u8; 6])> = taking.iter().map(|taking| find(&listed, &taking.name)).collect::<Result<_, _>>()?;
        let longest = found.iter().map(|(link, _)| link.mtu.saturating_add(ETHERNET_LEN as u32)).max().unwrap_or_default();
        let stride = STRIDES.into_iter().find(|stride| stride - HEADROOM >= longest).unwrap_or(STRIDES[1]);
        // Without copies if every interface can.
        let (sockets, frames, mut free) = match Self::sockets(&found, stride, false) {
            Err(AfXdpError::Refused { .. }) => Self::sockets(&found, stride, true)?,
            other => other?,
        };
        let mut this = Self { sockets, frames, free: Vec::new(), under_way: 0, ready: ready()?, parts: Vec::new(), _maps: Vec::new() };
        this.free.append(&mut free);
        for (number, socket) in (0..).zip(&mut this.sockets) {
            socket.fill(&mut this.frames, &mut this.free);
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
            this.ready.add(&*socket, event).map_err(refused("watch an AF_XDP socket"))?;
        }
        let leaving: Vec<Interface> =
            taking.iter().zip(&found).filter(|(taking, _)| taking.leaves).map(|(_, (link, _))| Interface { index: link.index }).collect();
        let shown = Map::new(MapKind::Recent, NEIGHBOUR_LEN, NEIGHBOURS).map_err(refused("make a map of neighbours"))?;
        for (link, address) in &found {
            this.attach(links, link, *address, &leaving, stride, &shown)?;
        }
        this._maps.push(shown);
        // What an earlier run has left on others would drop what nobody takes there.
        for link in listed.iter().filter(|link| found.iter().all(|(own, _)| own.index != link.index)) {
            if let Err(error) = links.detach(link) {
                tracing::warn!(interface = link.name, %error, "an XDP program of an earlier run may be left: packets with AH may be lost there");
            }
        }
        Ok(this)
    }

    /// A socket for each queue of each interface, with one memory.
    fn sockets(found: &[(&Link, [u8; 6])], stride: u32, copies: bool) -> Result<(Vec<Socket>, Frames, Vec<Frame>), AfXdpError> {
        // How many sockets there will be is known once they are bound, and the memory must be there before: the first try tells.
        let mut wanted = found.len();
        loop {
            let count = FRAMES_EACH.saturating_mul(u32::try_from(wanted).unwrap_or(u32::MAX));
            let (frames, free) = Frames::new(count, stride).map_err(refused("map memory for frames"))?;
            let mut sockets: Vec<Socket> = Vec::new();
            for (link, _) in found {
                for queue in 0..MOST_QUEUES {
                    let binding = Binding { interface: link.index, queue, copies };
                    match Socket::open(&frames, binding, sockets.first()) {
                        Ok(socket) => sockets.push(socket),
                        Err(Errno::EINVAL) if queue > 0 => break,
                        Err(errno) => return Err(AfXdpError::Refused { what: "open an AF_XDP socket", errno }),
                    }
                    if sockets.len() > MOST_SOCKETS {
                        return Err(AfXdpError::TooMany);
                    }
                }
            }
            if sockets.len() <= wanted {
                return Ok((sockets, frames, free));
            }
            wanted = sockets.len();
        }
    }

    /// Sets the program on a link whose sockets are open.
    fn attach(
        &mut self,
        links: &Links,
        link: &Link,
        address: [u8; 6],
        leaving: &[Interface],
        stride: u32,
        shown: &Map,
    ) -> Result<(), AfXdpError> {
        let own = || self.sockets.iter().filter(|socket| socket.binding().interface == link.index);
        let sockets = Map::new(MapKind::Sockets, (4, 4), MOST_QUEUES).map_err(refused("make a map of AF_XDP sockets"))?;
        for socket in own() {
            sockets.set(socket.binding().queue, socket.descriptor().cast_unsigned()).map_err(refused("list an AF_XDP socket"))?;
        }
        let longest = u16::try_from(stride - HEADROOM).unwrap_or(u16::MAX);
        let parts = program::Parts { address, leaving, longest, sockets: sockets.descriptor(), shown: shown.descriptor() };
        let program = load(&parts)?;
        let mode = links.attach(link, program.descriptor())?;
        let (queues, zero_copy) = (own().count(), own().all(Socket::is_zero_copy));
        self.parts.push(Part { name: link.name.clone(), mode, queues, zero_copy });
        self._maps.push(sockets);
        Ok(())
    }

    /// How each interface takes part.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What the kernel drops before the worker.
    pub fn statistics(&self) -> Statistics {
        Statistics(self.sockets.iter().map(Socket::statistics).collect())
    }

    /// How many sockets there are, for [`receive`](Self::receive).
    pub(crate) fn len(&self) -> usize {
        self.sockets.len()
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
                self.under_way += 1;
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
            Some((way.interface, forward::send_on(octets, &way)?))
        };
        let Some((interface, len)) = ready(self.frames.octets_mut(&mut frame)) else { return Err(frame) };
        let socket = self.sockets.iter().position(|socket| socket.binding().interface == interface);
        match (socket, u32::try_from(len)) {
            (Some(socket), Ok(len)) => Ok((socket, Received { frame, at, len })),
            _ => Err(frame),
        }
    }

    /// Drops a frame.
    pub(crate) fn drop_frame(&mut self, Arrived(Received { frame, .. }): Arrived) {
        self.free.push(frame);
    }

    /// Whether places are to come back, of which nobody is told: [`settle`](Self::settle) finds them.
    pub(crate) fn is_under_way(&self) -> bool {
        self.under_way > 0
    }

    /// Has the kernel send what was sent on, takes back what it is done with, and gives it places for more.
    pub(crate) fn settle(&mut self) {
        for socket in &mut self.sockets {
            socket.end_sending();
            let before = self.free.len();
            socket.take_sent(&mut self.frames, &mut self.free);
            self.under_way = self.under_way.saturating_sub(self.free.len().saturating_sub(before));
        }
        for socket in &mut self.sockets {
            socket.fill(&mut self.frames, &mut self.free);
        }
    }
}

impl AsFd for AfXdp {
    /// Readable when a frame has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.0.as_fd()
    }
}

/// Takes this project's programs off every link of the network namespace: packets go the kernel's way again.
///
/// # Errors
///
/// The first refusal of the kernel; everything else is done.
pub fn restore() -> Result<(), NetlinkError> {
    take_off(&Links::open()?)
}

fn take_off(links: &Links) -> Result<(), NetlinkError> {
    links.list()?.iter().map(|link| links.detach(link)).fold(Ok(()), Result::and)
}

fn ready() -> Result<Epoll, AfXdpError> {
    Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(refused("watch sockets"))
}

fn find<'l>(listed: &'l [Link], name: &str) -> Result<(&'l Link, [u8; 6]), AfXdpError> {
    let link = listed.iter().find(|link| link.name == name).ok_or_else(|| AfXdpError::NoInterface(name.to_owned()))?;
    let address = link.address.ok_or_else(|| AfXdpError::NotEthernet(name.to_owned()))?;
    if link.is_taken() {
        return Err(AfXdpError::Taken(name.to_owned()));
    }
    Ok((link, address))
}

fn load(parts: &program::Parts<'_>) -> Result<Program, AfXdpError> {
    let astray = |_| AfXdpError::Program { errno: Errno::EINVAL, said: "a jump leads nowhere".to_owned() };
    let code = program::assemble(parts).map_err(astray)?;
    Program::load(&code, link::PROGRAM_NAME).map_err(|(errno, said)| AfXdpError::Program { errno, said })
}
