//! The laboratory's only unsafe code: packet sockets bound to one interface, interfaces that finish packets, children inside a
//! namespace, handles on processes, what the allocator says of itself.
#![allow(unsafe_code)]

pub(crate) mod many;

use std::io;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::namespace::Lifetime;

/// Every EtherType, in network order, as a packet socket wants it.
fn every_protocol() -> u16 {
    (libc::ETH_P_ALL as u16).to_be()
}

/// A packet socket on interface `index`. It sees whole Ethernet frames; with `receive` false it only sends.
pub(crate) fn packet_socket(index: u32, receive: bool) -> io::Result<Socket> {
    let protocol = if receive { every_protocol() } else { 0 };
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
    // SAFETY: the closure writes a complete sockaddr_ll into storage that is zeroed and large enough (SockAddr uses
    // sockaddr_storage), and sets the length to what it wrote.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_protocol = protocol;
            (*link).sll_ifindex = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })?
    };
    socket.bind(&address)?;
    Ok(socket)
}

/// Lets an interface of the calling thread's namespace send every packet finished: with its checksum, and no longer than its MTU
/// (`ethtool -K … tx off tso off gso off`).
pub(crate) fn finish_packets(interface: &str) -> io::Result<()> {
    const SET_SEGMENTATION: u32 = 0x1f;
    const SET_CHECKSUMS: u32 = 0x17;
    const SET_LATE_SEGMENTATION: u32 = 0x24;
    [SET_SEGMENTATION, SET_CHECKSUMS, SET_LATE_SEGMENTATION].into_iter().try_for_each(|command| set_offload(interface, command, 0))
}

/// Has an interface of the calling thread's namespace put packets together that arrive, as far as they are alike. A virtual link takes its
/// packets in by a poll of their own then, as hardware does.
pub(crate) fn gather_packets(interface: &str) -> io::Result<()> {
    const SET_GATHERING: u32 = 0x2c;
    set_offload(interface, SET_GATHERING, 1)
}

fn set_offload(interface: &str, command: u32, value: u32) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    /// Of linux/ethtool.h: a command that takes one value.
    #[repr(C)]
    struct Setting {
        command: u32,
        value: u32,
    }
    let socket = std::net::UdpSocket::bind((std::net::Ipv4Addr::UNSPECIFIED, 0))?;
    let mut setting = Setting { command, value };
    // SAFETY: all zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One place stays zero: the name must end in it.
    let places = request.ifr_name.len().saturating_sub(1);
    for (place, byte) in request.ifr_name.iter_mut().take(places).zip(interface.bytes()) {
        *place = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut setting).cast();
    // SAFETY: the request is complete, and the kernel reads and writes only `setting` through it, which outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Frames that the kernel could not hand to a packet socket since the last call.
pub(crate) fn lost_frames(socket: &Socket) -> io::Result<u32> {
    use std::os::fd::AsRawFd;
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
    // SAFETY: the pointer and the length describe `statistics`, which outlives the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_STATISTICS, (&raw mut statistics).cast(), &raw mut length)
    };
    if result == 0 { Ok(statistics.tp_drops) } else { Err(io::Error::last_os_error()) }
}

/// Lets `command` run inside the network namespace behind `namespace`.
pub(crate) fn run_inside(command: &mut std::process::Command, namespace: std::os::fd::OwnedFd, lifetime: Lifetime) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure runs between fork and exec; it only makes the system calls setns and prctl or setsid, which are safe
    // there. prctl ends the child when the laboratory dies, however it dies; setsid takes it off the terminal.
    unsafe {
        command.pre_exec(move || {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            match lifetime {
                Lifetime::Laboratory => nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?,
                Lifetime::Own => nix::unistd::setsid().map(drop)?,
            }
            Ok(())
        });
    }
}

/// A byte of a buffer that was filled with zeros before it was lent to the kernel.
pub(crate) fn initialised(byte: &std::mem::MaybeUninit<u8>) -> u8 {
    // SAFETY: the only caller makes its buffer of initialised bytes, and receiving never makes a byte uninitialised.
    unsafe { byte.assume_init() }
}

/// Keeps every datagram of a socket from being fragmented, on IPv4 by "do not fragment"; what does not fit the path is then refused
/// (ip(7), ipv6(7)).
pub(crate) fn forbid_fragments(socket: &std::net::UdpSocket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let (level, option, value) = match socket.local_addr()? {
        std::net::SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        std::net::SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO),
    };
    // SAFETY: pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), size_of::<libc::c_int>() as libc::socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A handle on process `id`, which stays with this process even if its number passes to another one; `None` if there is none.
pub(crate) fn process_handle(id: u32) -> io::Result<Option<std::os::fd::OwnedFd>> {
    use std::os::fd::{FromRawFd, OwnedFd, RawFd};
    // SAFETY: the call takes two numbers and touches no memory of this process.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    match RawFd::try_from(result) {
        // SAFETY: the kernel just made this descriptor for this caller, and nobody else knows it.
        Ok(descriptor) if descriptor >= 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) })),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESRCH) => Ok(None),
            error => Err(error),
        },
    }
}

/// Bytes that the allocator has handed out and not got back, in all its arenas and by mapping, with what it needs for itself.
pub(crate) fn allocated_bytes() -> usize {
    // SAFETY: the call takes nothing and gives a struct of numbers.
    let figures = unsafe { libc::mallinfo2() };
    figures.uordblks + figures.hblkhd
}

/// Gives back to the kernel what the allocator holds and nobody uses.
pub(crate) fn release_free_memory() {
    // SAFETY: the call takes a number and touches only what the allocator holds itself.
    unsafe { libc::malloc_trim(0) };
}

/// Sends `signal` to the process behind `handle`.
pub(crate) fn signal_process(handle: &std::os::fd::OwnedFd, signal: nix::sys::signal::Signal) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let no_information = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the handle is an open descriptor, and the kernel takes a null pointer for "no information beyond the signal".
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, handle.as_raw_fd(), signal as libc::c_int, no_information, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
