//! The kernel's packet queue (nfnetlink_queue): packets come up, verdicts go down.
//!
//! Opened with no fail-open (a full queue drops), with no GSO (the kernel hands over real packets with finished checksums), and in full
//! copy. What a host sends by TCP may have a queue of its own, from which super-packets come whole ([`QueueConfig::whole`]). What leaves a
//! router by interfaces that are observed has a queue of its own, which passes if full ([`QueueConfig::observed`]). A packet without a
//! verdict stays in the kernel and never passes; when the socket closes, the kernel drops whatever waits.
//!
//! Many packets come with one call, and their verdicts go with one call, each a message of its own. There is a message for many verdicts
//! (`NFQNL_MSG_VERDICT_BATCH`) that answers every packet with a number up to the one named, and so also those that wait on purpose, and any
//! that were passed over. Where each packet is judged in its turn ([`QueueConfig::in_turn`]) the queue itself puts those together that go
//! on one behind the other and below which nothing waits; nobody can ask for it.

mod delivery;
mod message;
#[cfg(test)]
mod model;
mod runs;
mod statistics;
mod verdicts;

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::netlink::{Few, ManyBuffer, NetlinkError, Protocol, Socket};
use crate::processor::PacketId;
use crate::segments::Way;

pub use crate::netlink::MANY;
pub use delivery::{Deliveries, Delivery, ManyDeliveries, Packet};
pub use statistics::{KernelStatistics, kernel_statistics};

use verdicts::Verdicts;

/// The longest packet that the queue delivers whole, and the longest that a verdict can carry, in octets (an attribute's limit).
pub const MAX_PACKET_LEN: usize = 65_531;
/// Room for the longest message: a packet and what the kernel says about it.
const RECEIVE_LEN: usize = 72 * 1024;

/// How a queue is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueConfig {
    /// The queue's number, the one that the filter rules name.
    pub number: u16,
    /// Packets that may wait for a verdict; one more is dropped. 512–4096 measured best. Set by [`holding`](Self::holding).
    pub capacity: u32,
    /// Longest packet that is delivered whole, in octets, at most [`MAX_PACKET_LEN`]; a longer one is known to be cut, and dropped
    /// ([`DropReason::TooLarge`](crate::reason::DropReason::TooLarge)).
    pub copy_range: usize,
    /// Wished size of the socket buffer in octets, of which the kernel gives twice as much: large, so that `capacity` is the limit and not
    /// the buffer.
    pub socket_buffer: usize,
    /// Whether the kernel is to say whose socket each packet comes from; only for packets that this host sends.
    pub users: bool,
    /// Number of a second queue, for packets to which nothing is denied anyway ([`Mode::Observe`]): those pass that find it or its socket
    /// full. Its packets are delivered when none wait in the first.
    ///
    /// [`Mode::Observe`]: crate::rules::Mode::Observe
    pub observed: Option<u16>,
    /// How long packets may gather where more than 20,000 a second come, before the thread that judges them looks for them: so much later
    /// each may go on, and what the kernel takes to wake it. No longer than it takes to fill a quarter of the queue. Updates wait no longer
    /// than that. Zero: it wakes for each.
    pub rest: Duration,
    /// Whether whoever judges gives each packet its verdict before more are received, as a router's verifier does, so that verdicts may be
    /// put together. A packet that is passed over or held all the same is **dropped** when more come, or refused.
    pub in_turn: bool,
    /// Number of a second queue, if there is none for what is observed: its packets come as this host's stack hands them down, as
    /// super-packets that are to be cut, and with open checksums. No verdict brings a super-packet back; what cannot be cut is handed
    /// to the first queue ([`Decision::Queue`]), before which the kernel does it.
    pub whole: Option<u16>,
    /// Whether the marks of its packets say how to treat what would be dropped ([`crate::mode`]): only if the filter rules write them.
    pub modes: bool,
}

/// Packets that may wait in the queue of what leaves a host. Those that wait for a permission take up half of it at most
/// ([`HeldLimits`](crate::inserter::HeldLimits)).
pub const OUTBOUND_CAPACITY: u32 = 4096;

/// What the message about a packet in a frame of 9000 octets takes of the socket buffer as it is wished for: half of the 16 KiB, and the
/// kernel's bookkeeping, that the kernel counts.
const OF_A_PACKET: usize = 8 * 1024 + 512;

/// How long packets gather on hosts, where TCP waits for the answers to what it sends.
pub const REST: Duration = Duration::from_micros(100);
/// How long they gather at a router, unless it is configured otherwise.
pub const ROUTER_REST: Duration = Duration::from_micros(400);

impl QueueConfig {
    /// A queue for 1024 packets.
    pub const fn new(number: u16) -> Self {
        let (capacity, copy_range, socket_buffer) = (1024, MAX_PACKET_LEN, 64 * 1024 * 1024);
        Self {
            number,
            capacity,
            copy_range,
            socket_buffer,
            users: false,
            observed: None,
            whole: None,
            rest: REST,
            in_turn: false,
            modes: false,
        }
    }

    /// The same for so many packets, and with a socket buffer for as many, unless they are longer than Ethernet's longest frames.
    #[must_use]
    pub fn holding(self, capacity: u32) -> Self {
        let room = usize::try_from(capacity).unwrap_or(usize::MAX).saturating_mul(OF_A_PACKET);
        Self { capacity, socket_buffer: self.socket_buffer.max(room), ..self }
    }

    /// A queue for what a router forwards: each packet is judged in its turn.
    pub const fn router(number: u16) -> Self {
        Self { rest: ROUTER_REST, in_turn: true, ..Self::new(number) }
    }

    /// A queue for what leaves a host: larger, since packets wait in it for permissions, and with the sending users.
    pub const fn outbound(number: u16) -> Self {
        Self { capacity: OUTBOUND_CAPACITY, users: true, ..Self::new(number) }
    }
}

/// Why a queue could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// Another program, or another part of this one, listens to that number.
    #[error("packet queue {0} is already taken by another program")]
    Taken(u16),
    /// The process may not use packet queues.
    #[error("no privilege to open packet queue {0}: CAP_NET_ADMIN is needed")]
    NotPrivileged(u16),
    /// Anything else.
    #[error("cannot open packet queue {number}: {error}")]
    Failed {
        /// The queue's number.
        number: u16,
        /// What went wrong.
        error: NetlinkError,
    },
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<'a> {
    /// It goes on as it is.
    Accept,
    /// It goes on with this mark.
    AcceptMarked(u32),
    /// It goes on with these octets instead; with another mark it is routed anew if this host sends it.
    Replace {
        /// The whole new IP packet, at most [`MAX_PACKET_LEN`] octets, checksums right.
        payload: &'a [u8],
        /// Packet mark.
        mark: Option<u32>,
    },
    /// It goes to another queue, before which the kernel cuts it if it is a super-packet.
    Queue(u16),
    /// It is dropped.
    Drop,
}

impl Decision<'_> {
    /// The mark that the packet goes on with, if another than its own.
    pub const fn mark(&self) -> Option<u32> {
        match self {
            Self::AcceptMarked(mark) => Some(*mark),
            Self::Replace { mark, .. } => *mark,
            Self::Accept | Self::Queue(_) | Self::Drop => None,
        }
    }
}

/// Why nothing was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiveError {
    /// Nothing is there.
    #[error("nothing to receive")]
    Empty,
    /// The socket buffer was full and the kernel dropped packets, or its answer to a message about several packets of which none waited
    /// any more. It does not say which; how many packets it has dropped it does ([`kernel_statistics`]). Receiving goes on.
    #[error("the socket buffer of the packet queue was full")]
    Overrun,
    /// The socket does not work.
    #[error("cannot receive from the packet queue: {0}")]
    Failed(Errno),
}

impl From<Errno> for ReceiveError {
    fn from(errno: Errno) -> Self {
        match errno {
            // Interrupted before anything came: whoever asks again is told.
            Errno::EAGAIN | Errno::EINTR => Self::Empty,
            Errno::ENOBUFS => Self::Overrun,
            errno => Self::Failed(errno),
        }
    }
}

/// Memory that received packets lie in.
#[derive(Debug)]
pub struct ReceiveBuffer(Vec<u8>);

impl Default for ReceiveBuffer {
    fn default() -> Self {
        Self(vec![0; RECEIVE_LEN])
    }
}

/// Memory that many received packets lie in.
#[derive(Debug)]
pub struct ManyPackets(ManyBuffer);

/// Octets of verdicts after which they should be sent: beyond that the kernel takes no more at once for less.
const ENOUGH: usize = 120 * 1024;
/// Wished size of the socket's buffer for verdicts, in octets: [`ENOUGH`], one more, and the kernel's bookkeeping.
const SEND_BUFFER: usize = 8 * 1024 * 1024;

/// A queue that this process listens to.
#[derive(Debug)]
pub struct Queue {
    socket: Socket,
    number: u16,
    second: Option<(Socket, u16)>,
    /// Whether the last call brought as many packets of the first queue as it had room for: then the second has its turn.
    second_first: Cell<bool>,
    /// Of each socket.
    few: [Few; 2],
    /// Where the segments of super-packets leave; without it all are left to the kernel.
    way: Option<Way>,
    capacity: u32,
    rest: Duration,
    copy_range: usize,
    /// Verdicts that are to be sent together, of each queue.
    together: [Verdicts; 2],
    /// Of those sent together last, the packets whose verdict could not be sent.
    unsent: Vec<(PacketId, Errno)>,
}

/// Above the kernel's numbers of packets that wait in the second queue.
pub(crate) const SECOND: u64 = 1 << 32;

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whatever is judged.
    Judged,
    /// What passes if it is full.
    Observed,
    /// What comes whole.
    Whole,
}

impl Queue {
    /// Opens the queue, or both, in the network namespace of the calling thread.
    pub fn open(config: QueueConfig) -> Result<Self, QueueError> {
        let second = config.observed.map(|number| (number, Kind::Observed)).or(config.whole.map(|number| (number, Kind::Whole)));
        let listen = |(number, kind)| Ok((Self::listen(&QueueConfig { number, ..config }, kind)?, number));
        let (socket, second) = (Self::listen(&config, Kind::Judged)?, second.map(listen).transpose()?);
        let way =
            config.whole.and_then(|_| Way::open().inspect_err(|error| tracing::warn!(%error, "super-packets are left to the kernel")).ok());
        let copy_range = config.copy_range.min(MAX_PACKET_LEN);
        let number = config.number;
        let of_second = second.as_ref().map_or(number, |(_, number)| *number);
        let together = [Verdicts::new(number, config.in_turn), Verdicts::new(of_second, false)];
        Ok(Self {
            socket,
            number,
            second,
            second_first: Cell::new(false),
            few: [Few::default(); 2],
            way,
            capacity: config.capacity,
            rest: config.rest,
            copy_range,
            together,
            unsent: Vec::new(),
        })
    }

    fn listen(config: &QueueConfig, kind: Kind) -> Result<Socket, QueueError> {
        let number = config.number;
        let failed = |error| QueueError::Failed { number, error };
        let socket = Socket::open(Protocol::Netfilter).map_err(failed)?;
        // Without privilege the larger buffer is refused and the system's maximum has to do.
        if setsockopt(&socket, sockopt::RcvBufForce, &config.socket_buffer).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &config.socket_buffer).map_err(|errno| failed(NetlinkError::Open(errno)))?;
        }
        // A smaller one does as well: what cannot be sent together is sent one by one.
        let _ = setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).or_else(|_| setsockopt(&socket, sockopt::SndBuf, &SEND_BUFFER));
        socket.transact(message::bind(number)).map_err(|error| match error.errno() {
            Some(Errno::EBUSY) => QueueError::Taken(number),
            Some(Errno::EPERM) if is_privileged() => QueueError::Taken(number),
            Some(Errno::EPERM) => QueueError::NotPrivileged(number),
            _ => failed(error),
        })?;
        socket.transact(message::configure(config, kind)).map_err(failed)?;
        Ok(socket)
    }

    /// Where the segments of super-packets leave, if they do.
    pub(crate) const fn way(&mut self) -> Option<&mut Way> {
        self.way.as_mut()
    }

    /// The queue's number.
    pub const fn number(&self) -> u16 {
        self.number
    }

    /// Packets that may wait in it, and in that of what is observed.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// How long packets may gather in it.
    pub const fn rest(&self) -> Duration {
        self.rest
    }

    /// Receives what is there, without waiting.
    pub fn receive<'b>(&self, buffer: &'b mut ReceiveBuffer) -> Result<Deliveries<'b>, ReceiveError> {
        let mut from = (&self.socket, 0);
        let mut received = from.0.receive(&mut buffer.0).map(<[u8]>::len);
        if let (Err(Errno::EAGAIN), Some((second, _))) = (received, &self.second) {
            from = (second, SECOND);
            received = from.0.receive(&mut buffer.0).map(<[u8]>::len);
        }
        Ok(Deliveries::new(buffer.0.get(..received?).unwrap_or_default(), from.1))
    }

    /// Memory for [`receive_many`](Self::receive_many).
    pub fn room_for_many(&self) -> ManyPackets {
        ManyPackets(ManyBuffer::new(self.copy_range + RECEIVE_LEN - MAX_PACKET_LEN))
    }

    /// Receives what is there with one call, at most [`MANY`] messages, without waiting; fewer where few came last.
    pub fn receive_many<'b>(&mut self, buffer: &'b mut ManyPackets) -> Result<ManyDeliveries<'b>, ReceiveError> {
        let [few, few_of_second] = &mut self.few;
        let first = (&self.socket, 0, few);
        let second = self.second.as_ref().map(|(socket, _)| (socket, SECOND, few_of_second));
        let is_turn = self.second_first.replace(false);
        // Mostly what came to the first queue came before: a flow's packets may go over from there to the other.
        let (one, other) = match second {
            Some(second) if is_turn => (second, Some(first)),
            second => (first, second),
        };
        let (mut count, mut above) = (one.0.receive_many(&mut buffer.0, one.2), one.1);
        if let (Err(Errno::EAGAIN), Some(other)) = (count, other) {
            (count, above) = (other.0.receive_many(&mut buffer.0, other.2), other.1);
        }
        let [together, _] = &mut self.together;
        if let (Ok(_), 0) = (count, above) {
            together.begin();
        }
        self.second_first.set(self.way.is_some() && above == 0 && count.is_ok() && buffer.0.is_full());
        Ok(ManyDeliveries::new(buffer.0.received(count?), above, buffer.0.is_full()))
    }

    /// Takes the next of what [`receive_many`](Self::receive_many) has brought. Verdicts are put together of packets alone that were taken
    /// before they are judged.
    pub fn take<'b>(&mut self, from: &mut ManyDeliveries<'b>) -> Option<Delivery<'b>> {
        let [first, second] = &mut self.together;
        let together = if from.is_of_second() { second } else { first };
        from.next_shown(|seen| together.see(seen))
    }

    /// Takes the verdict on a packet, to be sent with others by [`send_verdicts`](Self::send_verdicts). Until then it has none.
    ///
    /// # Errors
    ///
    /// `EMSGSIZE` for a payload that no verdict can carry.
    pub fn add_verdict(&mut self, id: PacketId, decision: Decision<'_>) -> Result<(), Errno> {
        if matches!(decision, Decision::Replace { payload, .. } if payload.len() > MAX_PACKET_LEN) {
            return Err(Errno::EMSGSIZE);
        }
        self.of(id).0.add(id, decision)
    }

    /// Whether so much waits to be sent that it should be.
    pub fn has_enough_verdicts(&self) -> bool {
        self.together.iter().any(|together| together.octets().len() >= ENOUGH)
    }

    /// Sends the verdicts that were added, with one call if the kernel takes it. Gives the packets whose verdict could not be sent: they
    /// go on waiting and do not pass. A verdict that the kernel refuses comes back as [`Delivery::Refused`].
    pub fn send_verdicts(&mut self) -> &[(PacketId, Errno)] {
        self.unsent.clear();
        let queues = [Some((&self.socket, 0)), self.second.as_ref().map(|(socket, _)| (socket, SECOND))];
        for ((socket, above), together) in queues.into_iter().flatten().zip(&mut self.together) {
            let octets = together.close();
            if !octets.is_empty() && socket.send(octets).is_err() {
                together.one_by_one(|number, verdict| {
                    if let Err(errno) = socket.send(verdict) {
                        self.unsent.push((PacketId(above | u64::from(number)), errno));
                    }
                });
            }
            together.clear();
        }
        &self.unsent
    }

    /// Gives the verdict on a packet, now or long after it came, and by itself.
    ///
    /// If it cannot be sent the packet goes on waiting and does not pass. A verdict that the kernel refuses comes back as
    /// [`Delivery::Refused`].
    pub fn verdict(&mut self, id: PacketId, decision: Decision<'_>) -> Result<(), Errno> {
        let (together, socket) = self.of(id);
        together.give_alone(id, decision, |octets| socket.send(octets))
    }

    /// The queue that a packet waits in.
    const fn of(&mut self, id: PacketId) -> (&mut Verdicts, &Socket) {
        let [first, second] = &mut self.together;
        match &self.second {
            Some((socket, _)) if id.0 & SECOND != 0 => (second, socket),
            _ => (first, &self.socket),
        }
    }

    /// Waits until there is something to receive, `wake` is readable, or `timeout` is over (`None`: however long it takes).
    pub fn wait(&self, wake: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<(), Errno> {
        self.wait_beside(wake, None, timeout)
    }

    /// The same, or until something else is readable.
    pub fn wait_beside(&self, wake: BorrowedFd<'_>, other: Option<BorrowedFd<'_>>, timeout: Option<Duration>) -> Result<(), Errno> {
        let second = self.second.as_ref().map(|(socket, _)| socket.as_fd());
        let readable = [Some(self.socket.as_fd()), Some(wake), second, other].into_iter().flatten();
        let mut descriptors: heapless::Vec<PollFd<'_>, 4> = readable.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN)).collect();
        match poll(&mut descriptors, poll_timeout(timeout)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for Queue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// In whole milliseconds, rounded up: rounded down, the last one would be spent in a busy loop.
fn poll_timeout(timeout: Option<Duration>) -> PollTimeout {
    timeout.map_or(PollTimeout::NONE, |timeout| PollTimeout::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX))
}

/// Whether the kernel takes netfilter requests from us at all: a queue that is taken gives the same error number.
fn is_privileged() -> bool {
    Socket::open(Protocol::Netfilter).and_then(|socket| socket.transact(message::harmless())).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_a_socket_buffer_for_what_may_wait_in_it() {
        for config in [QueueConfig::new(1), QueueConfig::router(1), QueueConfig::outbound(1), QueueConfig::router(1).holding(65_536)] {
            assert!(config.socket_buffer >= config.capacity as usize * OF_A_PACKET, "{config:?}");
        }
        assert_eq!(QueueConfig::router(1).holding(64), QueueConfig { capacity: 64, ..QueueConfig::router(1) });
    }

    #[test]
    fn a_wait_is_rounded_up_to_whole_milliseconds() {
        assert_eq!(poll_timeout(Some(Duration::ZERO)), PollTimeout::ZERO);
        assert_eq!(poll_timeout(Some(Duration::from_micros(1))), PollTimeout::from(1u8));
        assert_eq!(poll_timeout(Some(Duration::from_millis(2))), PollTimeout::from(2u8));
        assert_eq!(poll_timeout(Some(Duration::MAX)), PollTimeout::MAX);
        assert_eq!(poll_timeout(None), PollTimeout::NONE);
    }
}
