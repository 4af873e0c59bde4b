//! The tokio shell of GIST: sockets, TLS, timers and the clock around [`Node`](crate::node::Node).
//!
//! [`spawn`] starts one task that owns the node. Its inputs are datagrams, messaging associations, requests of
//! the signalling application, intercepted Q-mode packets and time; after each it does what the node asks for.
//! Nothing is decided here about messages or state.
//!
//! ```text
//!  UDP 270 ───────────────┐                      ┌──> UDP 270, raw socket (Q-mode)
//!  queue thread ──────────┤ intercepted          │
//!  application ───────────┤ requests     ┌──────┐├──> association tasks (TLS over TCP)
//!  association tasks ─────┤ reports ───> │ Node │┤
//!  listeners ─────────────┤ accepted     └──────┘└──> indications to the application
//!  clock ─────────────────┘
//! ```
//!
//! Every channel is bounded ([`Limits`]). While the application does not take its indications, associations are
//! not read any more, so TCP slows the peers down (G-011); only what came as a datagram may be dropped. The other way round, a
//! peer that does not read makes messages wait in their routing states ([`Caps::unwritten_bytes`]), until the application is
//! told of a full queue for the session concerned; the association fails if nothing moves for [`Limits::write_timeout`].
//!
//! # Memory
//!
//! An association costs at most, in bytes, the longest message of an application and 8 KiB (24 KiB together), buffers to read
//! (16 KiB) and to write (32 KiB), TLS (about 100 KiB) and what is unwritten (256 KiB, of which an application has its part; up to
//! 1 MiB with GIST's own messages): so 4096 associations 4.7 GiB if every one of them is blocked, of which one peer can hold an
//! eighth, and 700 MiB if they are not. Messages that wait in routing states take [`Caps::queued_bytes`] in all. Whoever has less memory
//! lowers [`Caps::associations`].
//!
//! [`Caps::unwritten_bytes`]: crate::node::Caps::unwritten_bytes
//! [`Caps::queued_bytes`]: crate::node::Caps::queued_bytes
//! [`Caps::associations`]: crate::node::Caps::associations

mod association;
mod backend;
mod checksum;
mod clock;
mod error;
mod handle;
mod ip_headers;
#[cfg(feature = "ipc")]
pub mod ipc;
mod listener;
mod parse;
mod path_mtu;
mod progress;
mod query_mode;
mod raw;
mod shell;
pub mod tls;
mod udp;
mod visits;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::api::PathId;
use crate::node::{NodeConfig, Registration};
pub use error::{RequestError, ShellError, Stopped};
pub use handle::{Handle, ShellCounters, Snapshot};
pub use parse::{ForwardError, Intercepted, NotQueryMode, forwarded, intercepted};
pub use query_mode::{BuildError, QueryModePacket};
pub use shell::spawn;
pub use tls::{Peers, Tls, TlsError};

/// Everything a shell needs to know.
#[derive(Debug, Clone)]
pub struct ShellConfig {
    /// The node.
    pub node: NodeConfig,
    /// The identity of this node towards peers, and whom it believes; `None` for a node whose applications offer no TLS.
    pub tls: Option<Tls>,
    /// Where sockets are bound.
    pub bind: Bind,
    /// Bounds of queues, times and sizes.
    pub limits: Limits,
}

/// The local addresses of the sockets; `None` does without that IP version. And how packet filters know them.
///
/// With an address that is not "any", associations opened here leave from it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind {
    /// IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// Marks of the sockets of associations; `None` leaves them unmarked.
    pub marks: Option<Marks>,
    /// By which mark of the packet each way out is taken ([`PathId`], from 1 on); routing rules lead packets
    /// with it there. 0: there is no such way, and Queries for it are not sent. Queries have it, and besides their own mark the
    /// sockets of associations with peers that were found there; datagrams to a known peer are routed to that peer.
    pub path_marks: [u32; PATHS],
}

/// Ways out besides the routed one, at most.
pub const PATHS: usize = PathId::GREATEST.0 as usize;

impl Bind {
    /// The mark of packets for this way out; `None` if there is none.
    fn mark_of(&self, path: PathId) -> Option<u32> {
        match path.0.checked_sub(1) {
            None => Some(0),
            Some(place) => self.path_marks.get(usize::from(place)).copied().filter(|mark| *mark != 0),
        }
    }
}

/// By what packet filters tell the sockets of associations from those of other programs on the same port.
///
/// They then have `SO_MARK`, and `IP_TRANSPARENT`, which a filter sees even of connections that are only being opened or in
/// TIME-WAIT. Either needs `CAP_NET_ADMIN` or `CAP_NET_RAW`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Of listeners, and of what they accept until the peer has shown a certificate that is believed: so far anybody comes, and a
    /// flood of connections must cost associations nothing. Packet filters tell the listener from what it accepts by its local
    /// address, the unspecified one.
    pub listener: u32,
    /// Of associations: those opened here from the first segment on, those of peers from the end of the TLS handshake.
    pub association: u32,
}

/// Any address of both IP versions, no marks.
impl Default for Bind {
    fn default() -> Self {
        Self { ipv4: Some(Ipv4Addr::UNSPECIFIED), ipv6: Some(Ipv6Addr::UNSPECIFIED), marks: None, path_marks: [0; PATHS] }
    }
}

/// Bounds of everything that grows with what others send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Indications that the application has not taken yet. Full: associations are not read.
    pub indications: usize,
    /// Requests of the application under way. Full: [`Handle::request`] waits.
    pub requests: usize,
    /// Q-mode packets handed in and not yet handled. Full: [`Handle::intercepted`] refuses.
    pub intercepted: usize,
    /// Messages read from associations and not yet handled, all associations together. Full: they are not read.
    pub reports: usize,
    /// TLS handshakes with peers that connect, all together. Full: the oldest of the source that has most gives way.
    pub handshakes: usize,
    /// The same for one source: an IPv4 address or an IPv6 /64. Full: the connection is closed at once.
    pub handshakes_per_source: usize,
    /// How long a TCP connection may take to open.
    pub connect_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long closing an association may take, last messages included.
    pub close_timeout: Duration,
    /// How long TCP tries to get data acknowledged before the association fails.
    pub unacknowledged_timeout: Duration,
    /// How long a peer may take nothing of what is written to it before the association fails.
    pub write_timeout: Duration,
    /// Longest message accepted on an association, in bytes with its common header, 8 KiB more than the longest payload of any
    /// registered application at most. Longer: the association fails.
    pub longest_message: usize,
}

impl Limits {
    /// What the applications need, within the limit: an attacker gets no buffer that none of them would use.
    fn longest_message(&self, registrations: &[Registration]) -> usize {
        let longest = registrations.iter().map(|registration| registration.longest_payload).max().unwrap_or_default();
        self.longest_message.min(longest.saturating_add(LONGEST_REST))
    }
}

/// What a message may hold beside its payload: all other objects of RFC 5971, stack proposals of many profiles included.
const LONGEST_REST: usize = 8 << 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            indications: 256,
            requests: 256,
            intercepted: 256,
            reports: 64,
            handshakes: 64,
            handshakes_per_source: 8,
            connect_timeout: Duration::from_secs(5),
            handshake_timeout: Duration::from_secs(5),
            close_timeout: Duration::from_secs(2),
            unacknowledged_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            longest_message: 64 << 10,
        }
    }
}
