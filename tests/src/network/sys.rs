//! The laboratory's only unsafe code: packet sockets bound to one interface.
#![allow(unsafe_code)]

use std::io;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

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
pub(crate) fn run_inside(command: &mut std::process::Command, namespace: std::os::fd::OwnedFd) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure runs between fork and exec; it only makes the system calls setns and prctl, which are safe there. The
    // second one ends the child when the laboratory dies, however it dies.
    unsafe {
        command.pre_exec(move || {
            nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET)?;
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            Ok(())
        });
    }
}

/// A byte of a buffer that was filled with zeros before it was lent to the kernel.
pub(crate) fn initialised(byte: &std::mem::MaybeUninit<u8>) -> u8 {
    // SAFETY: the only caller makes its buffer of initialised bytes, and receiving never makes a byte uninitialised.
    unsafe { byte.assume_init() }
}

/// Makes every datagram of an IPv4 socket carry "do not fragment"; what does not fit the path is then refused (ip(7)).
pub(crate) fn forbid_fragments(socket: &std::net::UdpSocket) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let value = libc::IP_PMTUDISC_DO;
    // SAFETY: pointer and length describe `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
