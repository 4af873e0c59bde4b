//! How long the segments of a connection may be: asked of its socket (`sock_diag`, `linux/inet_diag.h`).
//!
//! What the socket counts with (`tcpi_snd_mss`) is the least of what the other end takes, what the path carries and what the stack has
//! found out, so that no segment cut by it is longer than one of the stack's own at that moment. It is asked anew for as good as every
//! round trip: when it falls in between, the kernel or a router refuses what is too long, as it does with what was on its way then.

use std::net::IpAddr;

use hashbrown::HashMap;
use smoltcp::time::{Duration, Instant};

use crate::flow::Flow;
use crate::heard::Heard;
use crate::netlink::{Malformed, Message, NetlinkError, Protocol, Socket, attributes};

/// Asks for a socket, and names one (`SOCK_DIAG_BY_FAMILY`).
const BY_FAMILY: u16 = 20;
/// Octets of what every answer begins with (`inet_diag_msg`).
const FIXED_LEN: usize = 72;
/// What TCP says about a connection (`INET_DIAG_INFO`).
const INFO: u16 = 2;
/// Where the largest segment to be sent stands in that (`tcpi_snd_mss`).
const LARGEST_SENT: usize = 16;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
/// How long an answer holds.
const HOLDS: Duration = Duration::from_millis(10);
/// Connections known at a time.
const MOST: usize = 1024;

/// What sockets have said lately.
#[derive(Debug)]
pub(crate) struct Sizes {
    socket: Socket,
    known: HashMap<Flow, (Option<usize>, Instant)>,
}

impl Sizes {
    /// Opens a socket to the kernel, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Protocol::Sockets)?, known: HashMap::new() })
    }

    /// Octets of data that a segment of the connection may carry; `None` if nobody knows: no such socket, one that is bound to an
    /// interface, or a kernel that does not tell.
    pub(crate) fn of(&mut self, flow: &Flow, now: Instant) -> Option<usize> {
        if let Some((size, until)) = self.known.get(flow)
            && now < *until
        {
            return *size;
        }
        if self.known.len() >= MOST {
            self.known.clear();
        }
        let size = self.ask(flow).unwrap_or_else(|error| {
            tracing::debug!(%flow, %error, "how long the segments of a connection may be is not known");
            None
        });
        self.known.insert(*flow, (size, now + HOLDS));
        size
    }

    fn ask(&self, flow: &Flow) -> Result<Option<usize>, NetlinkError> {
        let asked = self.socket.ask("look up a connection", BY_FAMILY, &request(flow), |_| {}, read)?;
        Ok(asked.flatten())
    }
}

/// `inet_diag_req_v2`: one connection of this protocol, with what TCP says.
fn request(flow: &Flow) -> [u8; 56] {
    const ALL_STATES: [u8; 4] = [0xff; 4];
    let mut octets = [0; 56];
    let family = if flow.source.is_ipv4() { IPV4 } else { IPV6 };
    let fields: [(usize, &[u8]); 7] = [
        (0, &[family, TCP, 1 << (INFO - 1), 0]),
        (4, &ALL_STATES),
        (8, &flow.source_port.to_be_bytes()),
        (10, &flow.destination_port.to_be_bytes()),
        (12, &octets_of(flow.source)),
        (28, &octets_of(flow.destination)),
        // Whichever socket has these addresses and ports (`INET_DIAG_NOCOOKIE`).
        (48, &[0xff; 8]),
    ];
    for (at, field) in fields {
        octets.iter_mut().skip(at).zip(field).for_each(|(place, octet)| *place = *octet);
    }
    octets
}

fn octets_of(address: IpAddr) -> [u8; 16] {
    let mut octets = [0; 16];
    let write = |from: &[u8], octets: &mut [u8; 16]| octets.iter_mut().zip(from).for_each(|(place, octet)| *place = *octet);
    match address {
        IpAddr::V4(address) => write(&address.octets(), &mut octets),
        IpAddr::V6(address) => write(&address.octets(), &mut octets),
    }
    octets
}

/// See [`crate::heard`].
pub fn hear(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&read(message)?))
}

fn read(message: &Message<'_>) -> Result<Option<usize>, Malformed> {
    if message.kind != BY_FAMILY {
        return Ok(None);
    }
    let info = attributes(message.after(FIXED_LEN)?).find(INFO)?;
    let largest = info.and_then(|info| info.value.get(LARGEST_SENT..)?.first_chunk().copied()).map(u32::from_ne_bytes);
    Ok(largest.and_then(|largest| usize::try_from(largest).ok()).filter(|largest| *largest > 0))
}
