//! A netlink socket: one-way sending and receiving, answered batches, and dumps.

use std::io::IoSliceMut;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvmsg, sendto, setsockopt, socket};

use super::writer::{Batch, Header, TooLong, Writer};
use super::{ACK_ATTRIBUTES, CAPPED, DONE, DUMP, ERROR, HEADER_LEN, Malformed, Message, REQUEST, align, attributes, messages};

/// Text of an error, among the attributes that explain it (`NLMSGERR_ATTR_MSG`).
const ERROR_TEXT: u16 = 1;
/// How long the kernel may take for an answer. It answers within the send call; this only guards against a lost one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Room for one received buffer of a batch's answers or a dump.
const RECEIVE_LEN: usize = 64 * 1024;
/// How often a dump is started anew when entries change meanwhile.
const DUMP_ATTEMPTS: usize = 8;

/// Which part of the kernel the socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Packet filter rules and packet queues (`NETLINK_NETFILTER`).
    Netfilter,
    /// Links, addresses, routes and routing rules (`NETLINK_ROUTE`).
    Route,
}

/// What went wrong between us and the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetlinkError {
    /// No socket, or a socket option was refused.
    #[error("cannot open a netlink socket: {0}")]
    Open(Errno),
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
            Self::NoAnswer(_) | Self::Interrupted(_) | Self::Malformed(_) | Self::TooLong(_) => None,
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
        let protocol = match protocol {
            Protocol::Netfilter => SockProtocol::NetlinkNetFilter,
            Protocol::Route => SockProtocol::NetlinkRoute,
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let descriptor = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).map_err(NetlinkError::Open)?;
        bind(descriptor.as_raw_fd(), &NetlinkAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        setsockopt(&descriptor, option::ShortErrors, &true).map_err(NetlinkError::Open)?;
        setsockopt(&descriptor, option::ExplainedErrors, &true).map_err(NetlinkError::Open)?;
        Ok(Self { descriptor })
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

    /// Sends a batch of requests and waits until the kernel has confirmed each of them.
    ///
    /// The error names the first request that was refused. Only requests that the kernel itself treats as one (those of the
    /// packet filter between its begin and end) are then undone as a whole.
    pub fn transact(&self, batch: Batch) -> Result<(), NetlinkError> {
        let (octets, batch_name, names) = batch.finish()?;
        if names.is_empty() {
            return Ok(());
        }
        self.send(&octets).map_err(NetlinkError::Send)?;
        let mut open = names.len();
        let mut refused: Option<(usize, NetlinkError)> = None;
        let mut buffer = vec![0; RECEIVE_LEN];
        while open > 0 {
            let received = match self.wait_and_receive(&mut buffer) {
                Ok(received) => received,
                // After a refusal it does not matter whether the kernel confirms the rest.
                Err(_) if refused.is_some() => break,
                Err(Errno::ETIMEDOUT) => return Err(NetlinkError::NoAnswer(batch_name)),
                Err(errno) => return Err(NetlinkError::Receive(errno)),
            };
            for message in messages(received) {
                let message = message?;
                let index = usize::try_from(message.sequence.wrapping_sub(Batch::FIRST)).unwrap_or(usize::MAX);
                match (names.get(index), Answer::read(&message)?) {
                    (Some(_), Answer::Done) => open = open.saturating_sub(1),
                    (name, Answer::Refused(errno, detail)) => {
                        open = open.saturating_sub(1);
                        // A number that is none of ours belongs to the batch as a whole.
                        let (order, what) = name.map_or_else(|| (0, batch_name.clone()), |name| (index, name.clone()));
                        if refused.as_ref().is_none_or(|(earlier, _)| order < *earlier) {
                            refused = Some((order, NetlinkError::Refused { what, errno, detail }));
                        }
                        if name.is_none() {
                            open = 0;
                        }
                    }
                    _ => {}
                }
            }
        }
        refused.map_or(Ok(()), |(_, error)| Err(error))
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
            let received = self.wait_and_receive(&mut buffer).map_err(|errno| match errno {
                Errno::ETIMEDOUT => NetlinkError::NoAnswer(name.to_owned()),
                errno => NetlinkError::Receive(errno),
            })?;
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

    fn wait_and_receive<'b>(&self, buffer: &'b mut [u8]) -> Result<&'b [u8], Errno> {
        let timeout = PollTimeout::try_from(ANSWER_TIMEOUT).unwrap_or(PollTimeout::MAX);
        loop {
            match poll(&mut [PollFd::new(self.as_fd(), PollFlags::POLLIN)], timeout) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno),
                Ok(0) => return Err(Errno::ETIMEDOUT),
                Ok(_) => return self.receive(buffer),
            }
        }
    }
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
