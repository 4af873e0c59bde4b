//! A netlink socket: one-way sending and receiving, answered batches, and dumps.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, getsockopt, recvmsg, sendto, setsockopt,
    socket, sockopt,
};

use super::writer::{Batch, Header, TooLong, Writer};
use super::{ACK_ATTRIBUTES, CAPPED, DONE, DUMP, ERROR, HEADER_LEN, Malformed, Message, REQUEST, align, attributes, messages};

/// Text of an error, among the attributes that explain it (`NLMSGERR_ATTR_MSG`).
const ERROR_TEXT: u16 = 1;
/// How long the kernel may take for an answer. It answers within the send call; this only guards against a lost one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for one received buffer of a batch's answers or a dump.
const RECEIVE_LEN: usize = 64 * 1024;
/// A batch of so many octets fits the buffers of every socket.
const SHORT_BATCH: usize = 32 << 10;
/// Octets of a request socket's buffers at the most.
const MOST_BUFFER: usize = 64 << 20;
/// How often a dump is started anew when entries change meanwhile.
const DUMP_ATTEMPTS: usize = 8;

/// Which part of the kernel the socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Packet filter rules and packet queues (`NETLINK_NETFILTER`).
    Netfilter,
    /// Links, addresses, routes and routing rules (`NETLINK_ROUTE`).
    Route,
    /// What there is to be known about sockets (`NETLINK_SOCK_DIAG`).
    Sockets,
    /// IPsec policies (`NETLINK_XFRM`).
    Policies,
}

/// What went wrong between us and the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// No socket, or a socket option was refused.
    #[error("cannot open a netlink socket: {errno}{}", remark(*.0, None), errno = .0)]
    Open(Errno),
    /// The batch does not fit the socket's buffer, and must not be split.
    #[error("cannot {what}: {octets} octets of requests are more than the socket's buffer takes at once (net.core.wmem_max)")]
    BatchTooLong {
        /// The batch by its name.
        what: String,
        /// Its length in octets.
        octets: usize,
    },
    /// The requests could not be sent.
    #[error("cannot send to the kernel: {0}")]
    Send(Errno),
    /// The answers could not be received.
    #[error("cannot receive from the kernel: {0}")]
    Receive(Errno),
    /// The kernel refused a request.
    #[error("the kernel refused to {what}: {errno}{}", remark(*errno, detail.as_deref()))]
    Refused {
        /// The request by its name.
        what: String,
        /// The kernel's error number.
        errno: Errno,
        /// The kernel's own words, if it gave any.
        detail: Option<String>,
    },
    /// The kernel did not answer.
    #[error("the kernel did not answer whether it could {0}")]
    NoAnswer(String),
    /// The entries changed each time while they were listed.
    #[error("cannot {0}: the entries keep changing")]
    Interrupted(String),
    /// The kernel sent what we cannot read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// A request was too long.
    #[error(transparent)]
    TooLong(#[from] TooLong),
}

impl NetlinkError {
    /// The kernel's error number, if that is what went wrong.
    pub const fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open(errno) | Self::Send(errno) | Self::Receive(errno) | Self::Refused { errno, .. } => Some(*errno),
            Self::BatchTooLong { .. } | Self::NoAnswer(_) | Self::Interrupted(_) | Self::Malformed(_) | Self::TooLong(_) => None,
        }
    }
}

/// A netlink socket of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    /// Opens a socket that never blocks by itself.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        Self::bound(protocol, 0)
    }

    /// Opens a socket to which the kernel tells what happens in multicast group `group` (1 to 32). When its buffer is full,
    /// receiving fails once with `ENOBUFS` and something has been missed.
    pub fn listen(protocol: Protocol, group: u32) -> Result<Self, NetlinkError> {
        Self::listen_to(protocol, &[group])
    }

    /// The same for several groups.
    pub fn listen_to(protocol: Protocol, groups: &[u32]) -> Result<Self, NetlinkError> {
        Self::bound(protocol, groups.iter().fold(0, |mask, group| mask | 1 << group.saturating_sub(1).min(31)))
    }

    /// Makes room for so many octets of what the kernel tells. Without privilege the system's maximum has to do.
    pub fn hold(&self, octets: usize) {
        if setsockopt(self, sockopt::RcvBufForce, &octets).is_err() {
            let _ = setsockopt(self, sockopt::RcvBuf, &octets);
        }
    }

    fn bound(protocol: Protocol, groups: u32) -> Result<Self, NetlinkError> {
        let descriptor = match protocol {
            Protocol::Netfilter => open(SockProtocol::NetlinkNetFilter),
            Protocol::Route => open(SockProtocol::NetlinkRoute),
            Protocol::Sockets => open(SockProtocol::NetlinkSockDiag),
            // The library has no name for it.
            Protocol::Policies => open_by_number(libc::NETLINK_XFRM),
        };
        let descriptor = descriptor.map_err(NetlinkError::Open)?;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, groups)).map_err(NetlinkError::Open)?;
        setsockopt(&descriptor, option::ShortErrors, &true).map_err(NetlinkError::Open)?;
        setsockopt(&descriptor, option::ExplainedErrors, &true).map_err(NetlinkError::Open)?;
        Ok(Self { descriptor })
    }

    /// The socket's port, by which the kernel tells whose request a message is about.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        getsockname::<NetlinkAddr>(self.descriptor.as_raw_fd()).map(|address| address.pid()).map_err(NetlinkError::Open)
    }

    /// Sends `octets` to the kernel.
    pub fn send(&self, octets: &[u8]) -> Result<(), Errno> {
        loop {
            match sendto(self.descriptor.as_raw_fd(), octets, &NetlinkAddr::new(0, 0), MsgFlags::empty()) {
                Err(Errno::EINTR) => {}
                Ok(sent) if sent < octets.len() => return Err(Errno::EMSGSIZE),
                other => return other.map(drop),
            }
        }
    }

    /// Receives what the kernel sent next, without waiting. `EAGAIN` says that there is nothing, `ENOBUFS` that the
    /// kernel had to throw something away. What other processes send is passed over.
    pub fn receive<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let len = loop {
            let mut parts = [IoSliceMut::new(buffer)];
            match recvmsg::<NetlinkAddr>(self.descriptor.as_raw_fd(), &mut parts, None, MsgFlags::empty()) {
                Ok(received) if received.address.is_none_or(|sender| sender.pid() != 0) => {}
                Ok(received) if received.flags.contains(MsgFlags::MSG_TRUNC) => return Err(Errno::EMSGSIZE),
                Ok(received) => break received.bytes,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
            }
        };
        buffer.get(..len).ok_or(Errno::EMSGSIZE)
    }

    /// Sends a batch of requests and waits until the kernel has carried out or refused the last of them.
    ///
    /// The error names the first request that was refused. Only requests that the kernel itself treats as one (those of the
    /// packet filter between its begin and end) are then undone as a whole.
    pub fn transact(&self, batch: Batch) -> Result<(), NetlinkError> {
        let (octets, batch_name, names) = batch.finish()?;
        if names.is_empty() {
            return Ok(());
        }
        self.make_room(octets.len());
        self.forget_answers();
        self.send(&octets).map_err(|errno| match errno {
            Errno::EMSGSIZE => NetlinkError::BatchTooLong { what: batch_name.clone(), octets: octets.len() },
            errno => NetlinkError::Send(errno),
        })?;
        let mut refused = None;
        let mut buffer = vec![0; RECEIVE_LEN];
        loop {
            let received = match self.wait_for_answer(&batch_name, &mut buffer) {
                Ok(received) => received,
                // After a refusal it does not matter what the kernel says of the rest.
                Err(error) => return Err(refused.unwrap_or(error)),
            };
            for message in messages(received) {
                let message = message?;
                let index = usize::try_from(message.sequence.wrapping_sub(Batch::FIRST)).unwrap_or(usize::MAX);
                let name = names.get(index);
                match Answer::read(&message)? {
                    Answer::None => continue,
                    Answer::Done if name.is_none() => continue,
                    Answer::Done => {}
                    Answer::Refused(errno, detail) => {
                        // A number that is none of ours belongs to the batch as a whole.
                        let what = name.unwrap_or(&batch_name).clone();
                        refused.get_or_insert(NetlinkError::Refused { what, errno, detail });
                    }
                }
                if name.is_none() || index.saturating_add(1) == names.len() {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Makes the buffers large enough for a long batch, and for errors about all of it. Without privilege the system's maximum
    /// has to do.
    fn make_room(&self, octets: usize) {
        if octets <= SHORT_BATCH {
            return;
        }
        // An error takes more room than most requests: the kernel counts its own bookkeeping too.
        let size = octets.saturating_mul(16).min(MOST_BUFFER);
        if setsockopt(self, sockopt::SndBufForce, &size).is_err() {
            let _ = setsockopt(self, sockopt::SndBuf, &size);
        }
        // Never made smaller: a packet queue has set it to what it needs.
        if getsockopt(self, sockopt::RcvBuf).is_ok_and(|now| now < size) && setsockopt(self, sockopt::RcvBufForce, &size).is_err() {
            let _ = setsockopt(self, sockopt::RcvBuf, &size);
        }
    }

    /// Takes what is left of the answers to an earlier request, so that none counts for the next one.
    fn forget_answers(&self) {
        let mut buffer = vec![0; RECEIVE_LEN];
        while matches!(self.receive(&mut buffer), Ok(_) | Err(Errno::ENOBUFS | Errno::EMSGSIZE)) {}
    }

    /// Asks for every entry of a kind. `keep` gets each message of the reply and keeps what it needs of it.
    ///
    /// If entries change meanwhile, the list is asked for anew.
    pub fn dump<T>(
        &self,
        name: &str,
        kind: u16,
        fixed: &[u8],
        fill: impl Fn(&mut Writer),
        mut keep: impl FnMut(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Vec<T>, NetlinkError> {
        self.forget_answers();
        for attempt in 1..=DUMP_ATTEMPTS {
            let sequence = u32::try_from(attempt).unwrap_or_default();
            let mut writer = Writer::default();
            writer.message(Header { kind, flags: REQUEST | DUMP, sequence }, fixed, &fill);
            self.send(&writer.finish()?).map_err(NetlinkError::Send)?;
            if let Some(kept) = self.collect(name, sequence, &mut keep)? {
                return Ok(kept);
            }
        }
        Err(NetlinkError::Interrupted(name.to_owned()))
    }

    /// Asks one question that the kernel answers with one message, of which `keep` keeps what it needs; `None` if the kernel
    /// confirms and says nothing.
    pub fn ask<T>(
        &self,
        name: &str,
        kind: u16,
        fixed: &[u8],
        fill: impl FnOnce(&mut Writer),
        keep: impl FnOnce(&Message<'_>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, NetlinkError> {
        const QUESTION: u32 = 1;
        self.forget_answers();
        let mut writer = Writer::default();
        writer.message(Header { kind, flags: REQUEST, sequence: QUESTION }, fixed, fill);
        self.send(&writer.finish()?).map_err(NetlinkError::Send)?;
        let mut buffer = vec![0; RECEIVE_LEN];
        loop {
            let received = self.wait_for_answer(name, &mut buffer)?;
            for message in messages(received) {
                let message = message?;
                if message.sequence != QUESTION {
                    continue;
                }
                return match Answer::read(&message)? {
                    Answer::Refused(errno, detail) => Err(NetlinkError::Refused { what: name.to_owned(), errno, detail }),
                    Answer::Done => Ok(None),
                    Answer::None => Ok(Some(keep(&message)?)),
                };
            }
        }
    }

    /// Reads the reply to a dump; `None` if it was interrupted.
    fn collect<T>(
        &self,
        name: &str,
        sequence: u32,
        keep: &mut impl FnMut(&Message<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<Option<Vec<T>>, NetlinkError> {
        let mut kept = Vec::new();
        let mut whole = true;
        let mut buffer = vec![0; RECEIVE_LEN];
        loop {
            let received = self.wait_for_answer(name, &mut buffer)?;
            for message in messages(received) {
                let message = message?;
                if message.sequence != sequence {
                    continue;
                }
                whole &= !message.is_interrupted();
                match (message.kind, Answer::read(&message)?) {
                    (_, Answer::Refused(errno, detail)) => return Err(NetlinkError::Refused { what: name.to_owned(), errno, detail }),
                    (DONE, _) => return Ok(whole.then_some(kept)),
                    (ERROR, _) => {}
                    _ => kept.extend(keep(&message)?),
                }
            }
        }
    }

    /// What the kernel says next to the request of this name.
    fn wait_for_answer<'b>(&self, name: &str, buffer: &'b mut [u8]) -> Result<&'b [u8], NetlinkError> {
        if !self.wait(ANSWER_TIMEOUT).map_err(NetlinkError::Receive)? {
            return Err(NetlinkError::NoAnswer(name.to_owned()));
        }
        self.receive(buffer).map_err(NetlinkError::Receive)
    }

    /// Waits until there is something to receive; `false` if there is nothing after `timeout`.
    pub fn wait(&self, timeout: Duration) -> Result<bool, Errno> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
                Err(Errno::EINTR) => {}
                other => return other.map(|ready| ready > 0),
            }
        }
    }
}

fn open(protocol: SockProtocol) -> Result<OwnedFd, Errno> {
    socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)
}

fn open_by_number(protocol: i32) -> Result<OwnedFd, Errno> {
    let errno = |error: std::io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let socket = socket2::Socket::new(libc::AF_NETLINK.into(), socket2::Type::RAW, Some(protocol.into())).map_err(errno)?;
    socket.set_nonblocking(true).map_err(errno)?;
    Ok(socket.into())
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// What can be added to an error number: the kernel's own words, or what is mostly the reason.
fn remark(errno: Errno, detail: Option<&str>) -> String {
    match (detail, errno) {
        (Some(text), _) => format!(" ({text})"),
        (None, Errno::EPERM) => " (is CAP_NET_ADMIN missing?)".to_owned(),
        (None, _) => String::new(),
    }
}

/// What a message says about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Nothing: it is no answer.
    None,
    /// It was carried out.
    Done,
    /// It was refused, with the kernel's own words if there are any.
    Refused(Errno, Option<String>),
}

impl Answer {
    /// Reads the answer from a message of any kind.
    pub(crate) fn read(message: &Message<'_>) -> Result<Self, Malformed> {
        if message.kind != ERROR && message.kind != DONE {
            return Ok(Self::None);
        }
        if message.kind == DONE && message.body.len() < 4 {
            return Ok(Self::Done);
        }
        let code = i32::from_ne_bytes(*message.fixed::<4>()?);
        Ok(if code >= 0 { Self::Done } else { Self::Refused(Errno::from_raw(code.saturating_neg()), explanation(message)) })
    }
}

/// The kernel's own words about an error, if it gave any.
fn explanation(message: &Message<'_>) -> Option<String> {
    if message.kind != ERROR || message.flags & ACK_ATTRIBUTES == 0 {
        return None;
    }
    // Behind the error number the kernel quotes the request: its header alone, or all of it.
    let quoted = if message.flags & CAPPED != 0 {
        HEADER_LEN
    } else {
        usize::try_from(u32::from_ne_bytes(*message.body.get(4..)?.first_chunk::<4>()?)).ok()?
    };
    let text = attributes(message.body.get(4usize.saturating_add(align(quoted))..)?).find(ERROR_TEXT).ok()??;
    text.text().ok().map(str::to_owned)
}

/// Socket options that the library does not name.
#[allow(missing_docs, unreachable_pub)]
mod option {
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(
        /// Error messages quote only the header of the request (`NETLINK_CAP_ACK`).
        ShortErrors, SetOnly, libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, bool
    );
    sockopt_impl!(
        /// Error messages explain themselves (`NETLINK_EXT_ACK`).
        ExplainedErrors, SetOnly, libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, bool
    );
}
