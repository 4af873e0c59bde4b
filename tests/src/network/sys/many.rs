//! Many datagrams with one system call, each from an address of its own: the bound of the benchmarks, and their load.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;

/// Datagrams of one call.
pub(crate) const MANY: usize = 64;

/// Octets of the longest datagram that is received whole.
const LONGEST: usize = 1024;

/// Octets of a control message with an address to send from.
const CONTROL: usize = 64;

/// A datagram to send.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// Where it says it comes from: any address of this host.
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: SocketAddrV4,
    pub(crate) payload: bytes::Bytes,
}

/// Room for datagrams received.
pub(crate) struct Incoming {
    payloads: Vec<[u8; LONGEST]>,
    lengths: Vec<usize>,
    sources: Vec<SocketAddrV4>,
}

impl Incoming {
    pub(crate) fn new() -> Self {
        Self { payloads: vec![[0; LONGEST]; MANY], lengths: Vec::new(), sources: Vec::new() }
    }

    /// What the last call has received.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (SocketAddrV4, &[u8])> {
        let payloads = self.payloads.iter().zip(&self.lengths).map(|(payload, length)| payload.get(..*length).unwrap_or_default());
        self.sources.iter().copied().zip(payloads)
    }

    /// Receives what there is, [`MANY`] at most; waits for the first if there is none and the socket may wait.
    pub(crate) fn receive(&mut self, socket: &std::net::UdpSocket) -> io::Result<usize> {
        self.lengths.clear();
        self.sources.clear();
        // SAFETY: all zero is a valid sockaddr_in and a valid mmsghdr.
        let (mut names, mut headers) =
            unsafe { ([std::mem::zeroed::<libc::sockaddr_in>(); MANY], [std::mem::zeroed::<libc::mmsghdr>(); MANY]) };
        let mut slices: Vec<libc::iovec> =
            self.payloads.iter_mut().map(|payload| libc::iovec { iov_base: payload.as_mut_ptr().cast(), iov_len: LONGEST }).collect();
        for ((header, slice), name) in headers.iter_mut().zip(&mut slices).zip(&mut names) {
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = slice;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every header points to one name and one slice of a payload, all of which outlive the call and are of the lengths told.
        let count =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), MANY as u32, libc::MSG_WAITFORONE, std::ptr::null_mut()) };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (header, name) in headers.iter().zip(&names).take(count) {
            self.lengths.push(header.msg_len as usize);
            self.sources.push(SocketAddrV4::new(u32::from_be(name.sin_addr.s_addr).into(), u16::from_be(name.sin_port)));
        }
        Ok(count)
    }
}

/// Sends all of them, waiting where the socket is full.
pub(crate) fn send(socket: &std::net::UdpSocket, mut datagrams: &[Outgoing]) -> io::Result<()> {
    while !datagrams.is_empty() {
        let (now, _) = datagrams.split_at(datagrams.len().min(MANY));
        let sent = send_many(socket, now)?;
        datagrams = datagrams.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// [`MANY`] at most; how many the kernel took.
fn send_many(socket: &std::net::UdpSocket, datagrams: &[Outgoing]) -> io::Result<usize> {
    #[repr(align(8))]
    #[derive(Clone, Copy)]
    struct Control([u8; CONTROL]);
    // SAFETY: all zero is a valid sockaddr_in, iovec and mmsghdr.
    let (mut names, mut slices, mut headers) = unsafe {
        (
            [std::mem::zeroed::<libc::sockaddr_in>(); MANY],
            [std::mem::zeroed::<libc::iovec>(); MANY],
            [std::mem::zeroed::<libc::mmsghdr>(); MANY],
        )
    };
    let mut controls = [Control([0; CONTROL]); MANY];
    let places = names.iter_mut().zip(&mut slices).zip(&mut headers).zip(&mut controls);
    for (datagram, (((name, slice), header), control)) in datagrams.iter().zip(places) {
        name.sin_family = libc::AF_INET as libc::sa_family_t;
        name.sin_port = datagram.destination.port().to_be();
        name.sin_addr.s_addr = u32::from(*datagram.destination.ip()).to_be();
        // The kernel only reads it.
        slice.iov_base = datagram.payload.as_ptr().cast_mut().cast();
        slice.iov_len = datagram.payload.len();
        let message = &mut header.msg_hdr;
        message.msg_name = (&raw mut *name).cast();
        message.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        message.msg_iov = slice;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        let length = size_of::<libc::in_pktinfo>() as libc::c_uint;
        // SAFETY: the two calls only compute; the control buffer is aligned, zeroed, and longer than one in_pktinfo with its header
        // needs, so that the first header and its data lie within it.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(length) as _;
            let first = libc::CMSG_FIRSTHDR(message);
            (*first).cmsg_level = libc::IPPROTO_IP;
            (*first).cmsg_type = libc::IP_PKTINFO;
            (*first).cmsg_len = libc::CMSG_LEN(length) as _;
            let mut chosen: libc::in_pktinfo = std::mem::zeroed();
            chosen.ipi_spec_dst.s_addr = u32::from(datagram.source).to_be();
            libc::CMSG_DATA(first).cast::<libc::in_pktinfo>().write_unaligned(chosen);
        }
    }
    let count = datagrams.len().min(MANY) as u32;
    // SAFETY: the first `count` headers are complete, and what they point to outlives the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
