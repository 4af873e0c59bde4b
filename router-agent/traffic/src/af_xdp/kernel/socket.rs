//! An AF_XDP socket with its four rings: frames to fill and received, to send and sent.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;

use super::last_error;
use super::memory::{Frame, Frames};
use super::ring::{Consumer, Producer};

/// Frames that may wait to be received: no more than the numbers that an anti-replay window spans
/// ([`DEFAULT_SIZE`](crate::replay::DEFAULT_SIZE)).
const RECEIVE_LEN: u32 = 1024;
/// Entries of the other rings.
const RING_LEN: u32 = 2048;
/// The same at a host, where a stack's bursts come and nothing is to be sent: as many as there are places for.
const HOST_RECEIVE_LEN: u32 = 2048;
const HOST_FILL_LEN: u32 = 4096;
/// Wished octets of frames on their way out.
const SEND_BUFFER: libc::c_int = 16 << 20;
/// Frames that one call takes in where the socket polls its interface itself.
const POLLED_AT_ONCE: libc::c_int = 64;
/// Microseconds that such a call may look for more; it never waits, but without a number here it does not look at all.
const POLLED_FOR: libc::c_int = 20;
/// Calls to send with nothing taken after which the rest waits for the next time.
const PATIENCE: u32 = 4;

/// What a socket is bound to.
#[derive(Debug, Clone, Copy)]
pub(in crate::af_xdp) struct Binding {
    /// The interface, by the kernel's index.
    pub(in crate::af_xdp) interface: u32,
    /// The number of its queue.
    pub(in crate::af_xdp) queue: u32,
    /// Whether frames are copied even if the interface could write into our memory.
    pub(in crate::af_xdp) copies: bool,
    /// Whether nothing is sent by it, and more may wait to be received.
    pub(in crate::af_xdp) only_receives: bool,
}

/// A received frame, from its Ethernet header on.
#[derive(Debug)]
pub(in crate::af_xdp) struct Received {
    /// Where it lies.
    pub(in crate::af_xdp) frame: Frame,
    /// At which octet of that place it begins.
    pub(in crate::af_xdp) at: u32,
    /// Its octets.
    pub(in crate::af_xdp) len: u32,
}

/// A socket, bound to one queue of one interface.
#[derive(Debug)]
pub(in crate::af_xdp) struct Socket {
    // The rings before the descriptor: they go first.
    fill: Producer<u64>,
    sent: Consumer<u64>,
    received: Consumer<libc::xdp_desc>,
    send: Producer<libc::xdp_desc>,
    descriptor: Arc<OwnedFd>,
    binding: Binding,
    /// Frames that were put among those to be sent, and have not come back.
    under_way: u32,
    /// Its interface is no more: nothing comes back of what waits here.
    is_gone: bool,
    /// Whether it takes in what comes by its interface when it is asked, instead of being told.
    polls: bool,
}

/// What the kernel has dropped at a socket, for whoever does not own it.
#[derive(Debug, Clone)]
pub(in crate::af_xdp) struct Statistics(std::sync::Weak<OwnedFd>);

impl Socket {
    /// Opens and binds a socket for frames in `frames`; those of one memory after the first are opened `beside` it.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the interface has no such queue.
    pub(in crate::af_xdp) fn open(frames: &Frames, binding: Binding, beside: Option<&Self>) -> Result<Self, Errno> {
        // SAFETY: no pointers.
        let descriptor = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if descriptor < 0 {
            return Err(last_error());
        }
        // SAFETY: the kernel has just given this descriptor to us and to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let fd = descriptor.as_raw_fd();
        // Less does as well: the rest waits in the ring.
        let _ = set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER);
        if beside.is_none() {
            let memory = libc::xdp_umem_reg {
                addr: frames.address(),
                len: frames.len() as u64,
                chunk_size: frames.stride(),
                headroom: 0,
                flags: 0,
                tx_metadata_len: 0,
            };
            set(fd, libc::SOL_XDP, libc::XDP_UMEM_REG, &memory)?;
        }
        let (fill_len, receive_len) = if binding.only_receives { (HOST_FILL_LEN, HOST_RECEIVE_LEN) } else { (RING_LEN, RECEIVE_LEN) };
        for ring in [libc::XDP_UMEM_COMPLETION_RING, libc::XDP_TX_RING] {
            set(fd, libc::SOL_XDP, ring, &RING_LEN)?;
        }
        set(fd, libc::SOL_XDP, libc::XDP_UMEM_FILL_RING, &fill_len)?;
        set(fd, libc::SOL_XDP, libc::XDP_RX_RING, &receive_len)?;
        let offsets = offsets(fd)?;
        let fill = Producer::new(fd, page(libc::XDP_UMEM_PGOFF_FILL_RING)?, &offsets.fr, fill_len)?;
        let sent = Consumer::new(fd, page(libc::XDP_UMEM_PGOFF_COMPLETION_RING)?, &offsets.cr, RING_LEN)?;
        let received = Consumer::new(fd, libc::XDP_PGOFF_RX_RING, &offsets.rx, receive_len)?;
        let send = Producer::new(fd, libc::XDP_PGOFF_TX_RING, &offsets.tx, RING_LEN)?;
        bind(fd, binding, beside)?;
        Ok(Self { fill, sent, received, send, descriptor: Arc::new(descriptor), binding, under_way: 0, is_gone: false, polls: false })
    }

    /// Has it poll its interface itself from now on (`SO_PREFER_BUSY_POLL`, Linux 5.11).
    pub(in crate::af_xdp) fn poll_itself(&mut self) -> Result<(), Errno> {
        let fd = self.descriptor();
        set(fd, libc::SOL_SOCKET, libc::SO_PREFER_BUSY_POLL, &1)?;
        set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL, &POLLED_FOR)?;
        set(fd, libc::SOL_SOCKET, libc::SO_BUSY_POLL_BUDGET, &POLLED_AT_ONCE)?;
        self.polls = true;
        Ok(())
    }

    /// Takes in what waits at its interface, if it polls that itself.
    pub(in crate::af_xdp) fn poll(&self) {
        if self.polls {
            self.wake();
        }
    }

    fn wake(&self) {
        // SAFETY: a call without a buffer, that only has the interface's driver look. It looks again by itself if this fails.
        let _ = unsafe {
            libc::recvfrom(self.descriptor(), std::ptr::null_mut(), 0, libc::MSG_DONTWAIT, std::ptr::null_mut(), std::ptr::null_mut())
        };
    }

    /// What it is bound to.
    pub(in crate::af_xdp) const fn binding(&self) -> Binding {
        self.binding
    }

    /// Its number in this process.
    pub(in crate::af_xdp) fn descriptor(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }

    /// Whether the interface reads and writes frames in our memory itself.
    pub(in crate::af_xdp) fn is_zero_copy(&self) -> bool {
        let mut options = libc::xdp_options { flags: 0 };
        get(self.descriptor(), libc::XDP_OPTIONS, &mut options).is_ok() && options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0
    }

    pub(in crate::af_xdp) fn statistics(&self) -> Statistics {
        Statistics(Arc::downgrade(&self.descriptor))
    }

    /// Gives the kernel places for frames to come, as long as it has room for them.
    pub(in crate::af_xdp) fn fill(&mut self, frames: &mut Frames, free: &mut Vec<Frame>) {
        while self.fill.has_room() {
            let Some(frame) = free.pop() else { break };
            self.fill.put(frames.lend(frame));
        }
        self.fill.show();
        // Asked each time: a driver that found nothing may say so after what was put there has been shown.
        if self.fill.needs_wake() {
            self.wake();
        }
    }

    /// The next frame that has come. `Err` is a place that the kernel had no right to name.
    pub(in crate::af_xdp) fn receive(&mut self, frames: &mut Frames) -> Option<Result<Received, Errno>> {
        let entry = self.received.take()?;
        let received = frames.take_back(entry.addr).map(|(frame, at)| Received { frame, at, len: entry.len });
        Some(received.ok_or(Errno::EFAULT))
    }

    /// Gives the kernel back the room of what was received.
    pub(in crate::af_xdp) fn end_receiving(&mut self) {
        self.received.give_back();
    }

    /// Puts a frame among those to be sent; it comes back if there is no room.
    pub(in crate::af_xdp) fn send(&mut self, frames: &mut Frames, Received { frame, at, len }: Received) -> Result<(), Frame> {
        if self.is_gone || !self.send.has_room() {
            return Err(frame);
        }
        self.under_way = self.under_way.saturating_add(1);
        let addr = frames.lend(frame).saturating_add(u64::from(at));
        self.send.put(libc::xdp_desc { addr, len, options: 0 });
        Ok(())
    }

    /// Has the kernel send what was put there, as far as it takes it now.
    pub(in crate::af_xdp) fn end_sending(&mut self) {
        self.send.show();
        let mut idle = 0;
        while !self.is_gone && idle < PATIENCE && self.send.is_pending() && self.send.needs_wake() {
            let before = self.send.room();
            // SAFETY: a call without a buffer: what is sent stands in the ring.
            let sent = unsafe { libc::sendto(self.descriptor(), std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0) };
            if sent < 0 && matches!(last_error(), Errno::ENXIO | Errno::ENODEV) {
                self.is_gone = true;
                return;
            }
            idle = if self.send.room() == before { idle + 1 } else { 0 };
        }
    }

    /// Whether frames have yet to come back that were to be sent.
    pub(in crate::af_xdp) const fn is_under_way(&self) -> bool {
        self.under_way > 0 && !self.is_gone
    }

    /// Takes back the places of frames that have been sent.
    pub(in crate::af_xdp) fn take_sent(&mut self, frames: &mut Frames, free: &mut Vec<Frame>) {
        let mut any = false;
        while let Some(address) = self.sent.take() {
            any = true;
            self.under_way = self.under_way.saturating_sub(1);
            free.extend(frames.take_back(address).map(|(frame, _)| frame));
        }
        if any {
            self.sent.give_back();
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Statistics {
    /// Frames that the kernel has dropped for want of room, since the socket was opened; `None` if it is closed.
    pub(in crate::af_xdp) fn dropped(&self) -> Option<u64> {
        let descriptor = self.0.upgrade()?;
        let mut read = libc::xdp_statistics {
            rx_dropped: 0,
            rx_invalid_descs: 0,
            tx_invalid_descs: 0,
            rx_ring_full: 0,
            rx_fill_ring_empty_descs: 0,
            tx_ring_empty_descs: 0,
        };
        get(descriptor.as_raw_fd(), libc::XDP_STATISTICS, &mut read).ok()?;
        Some(read.rx_dropped.saturating_add(read.rx_ring_full))
    }
}

/// How many queues an interface of the calling thread's network namespace takes frames in by, if its driver tells.
pub(in crate::af_xdp) fn queues(interface: &str) -> Result<u32, Errno> {
    // `ETHTOOL_GCHANNELS`, and `struct ethtool_channels`: the command, the most of four kinds, and how many there are: of those for
    // receiving, for sending, for others, and for both.
    const GET_CHANNELS: u32 = 0x3c;
    let mut channels = [GET_CHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
    // SAFETY: any octets are a request, and zeros are one about no interface.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last octet stays 0.
    let places = request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1);
    places.zip(interface.bytes()).for_each(|(place, byte)| *place = libc::c_char::from_ne_bytes([byte]));
    request.ifr_ifru.ifru_data = channels.as_mut_ptr().cast();
    // SAFETY: no pointers.
    let descriptor = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(last_error());
    }
    // SAFETY: the kernel has just given this descriptor to us and to nobody else.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: `request` is a plain structure, and the pointer in it is to as many numbers as the kernel fills for this command; both live
    // across the call.
    Errno::result(unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) })?;
    let [_, _, _, _, _, receiving, _, _, both] = channels;
    Ok(receiving.saturating_add(both))
}

fn page(offset: libc::c_ulonglong) -> Result<libc::off_t, Errno> {
    libc::off_t::try_from(offset).map_err(|_| Errno::EOVERFLOW)
}

fn set<T>(descriptor: RawFd, level: libc::c_int, option: libc::c_int, value: &T) -> Result<(), Errno> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: `value` is a plain structure of that length.
    let answer = unsafe { libc::setsockopt(descriptor, level, option, std::ptr::from_ref(value).cast(), len) };
    Errno::result(answer).map(drop)
}

fn get<T>(descriptor: RawFd, option: libc::c_int, value: &mut T) -> Result<usize, Errno> {
    let mut len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
    // SAFETY: `value` is a plain structure of that length, any bits of which are valid; the kernel writes no more than `len`.
    let answer = unsafe { libc::getsockopt(descriptor, libc::SOL_XDP, option, std::ptr::from_mut(value).cast(), &raw mut len) };
    Errno::result(answer).map(|_| len as usize)
}

/// Where the rings lie in what they are mapped from.
fn offsets(descriptor: RawFd) -> Result<libc::xdp_mmap_offsets, Errno> {
    let none = libc::xdp_ring_offset { producer: 0, consumer: 0, desc: 0, flags: 0 };
    let mut offsets = libc::xdp_mmap_offsets { rx: none, tx: none, fr: none, cr: none };
    // Linux before 5.4 has a shorter structure, in which nothing stands at the place that is read here.
    match get(descriptor, libc::XDP_MMAP_OFFSETS, &mut offsets)? == size_of_val(&offsets) {
        true => Ok(offsets),
        false => Err(Errno::EOPNOTSUPP),
    }
}

fn bind(descriptor: RawFd, binding: Binding, beside: Option<&Socket>) -> Result<(), Errno> {
    let copies = if binding.copies { libc::XDP_COPY } else { 0 };
    // A socket beside another has its ways.
    let (flags, shared) = match beside {
        Some(first) => (libc::XDP_SHARED_UMEM, first.descriptor().cast_unsigned()),
        None => (libc::XDP_USE_NEED_WAKEUP | copies, 0),
    };
    let address = libc::sockaddr_xdp {
        sxdp_family: u16::try_from(libc::AF_XDP).unwrap_or_default(),
        sxdp_flags: flags,
        sxdp_ifindex: binding.interface,
        sxdp_queue_id: binding.queue,
        sxdp_shared_umem_fd: shared,
    };
    let len = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or_default();
    // SAFETY: `address` is a plain structure of that length.
    Errno::result(unsafe { libc::bind(descriptor, std::ptr::from_ref(&address).cast(), len) }).map(drop)
}
