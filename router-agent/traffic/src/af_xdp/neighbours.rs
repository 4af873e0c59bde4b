//! Keeps the kernel asking whether a neighbour is there, to which it sends nothing itself.
//!
//! Once a second the kernel is told of each neighbour that a judged frame has gone to since that it is in use, as if it had sent that frame:
//! it asks the neighbour when it has not heard of it for a while (RFC 4861 §7.3.3), and so finds out that it is gone or has another
//! address. Frames that were dropped, of whatever flood, ask about nobody.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::netlink::{Batch, Errno, NetlinkError, Protocol, Socket};

use super::forward::Way;

/// How often each is asked about.
const EVERY: Duration = Duration::from_secs(1);
/// Neighbours in one such time, at the most; others have their turn in the next.
const MOST: usize = 4096;
/// Neighbours that are asked about before the next frames are judged.
const AT_ONCE: usize = 16;

const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOUR: u16 = 30;
/// Octets of the fixed part of a message about a neighbour (`struct ndmsg`).
const FIXED_LEN: usize = 12;
const DESTINATION: u16 = 1;
/// Nothing has been heard of it for a while, and nothing was sent to it (`NUD_STALE`).
const STALE: u16 = 0x04;
/// Its entry is used, and not changed (`NTF_USE`).
const USE: u8 = 0x01;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// By the interface's number and its address on that link.
type Neighbour = (u32, IpAddr);

/// The neighbours that frames go to, in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Neighbours {
    socket: Socket,
    ends: Instant,
    /// Of this second.
    met: BTreeSet<Neighbour>,
    last: Option<Neighbour>,
    waiting: Vec<Neighbour>,
}

impl Neighbours {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::open(Protocol::Route)?, ends: Instant::now(), met: BTreeSet::new(), last: None, waiting: Vec::new() })
    }

    /// A frame that may pass goes this way.
    pub(super) fn note(&mut self, way: &Way) {
        let neighbour = (way.interface, way.neighbour);
        if self.last == Some(neighbour) {
            return;
        }
        self.last = Some(neighbour);
        if self.met.len() < MOST && self.met.insert(neighbour) {
            self.waiting.push(neighbour);
        }
    }

    /// Tells the kernel of some of those that have been noted.
    pub(super) fn tell(&mut self, now: Instant) {
        if now >= self.ends {
            self.ends = now + EVERY;
            // Who waits still is noted anew if frames still go there.
            self.met.clear();
            self.waiting.clear();
            self.last = None;
        }
        for _ in 0..AT_ONCE {
            let Some(neighbour) = self.waiting.pop() else { return };
            if let Err(error) = self.tell_of(neighbour) {
                tracing::debug!(address = %neighbour.1, %error, "the kernel was not told that a neighbour is in use");
            }
        }
    }

    /// One that somebody has written down for good would lose that: only of such as the kernel has found itself.
    fn tell_of(&self, (interface, address): Neighbour) -> Result<(), NetlinkError> {
        let (family, octets) = match address {
            IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
            IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
        };
        let [a, b, c, d] = interface.to_ne_bytes();
        let fixed = |flags| [family, 0, 0, 0, a, b, c, d, 0, 0, flags, 0];
        let state = self.socket.ask(
            "look at a neighbour",
            GET_NEIGHBOUR,
            &fixed(0),
            |writer| writer.put(DESTINATION, &octets),
            |message| {
                let [.., low, high, _, _] = *message.fixed::<FIXED_LEN>()?;
                Ok(u16::from_ne_bytes([low, high]))
            },
        );
        match state {
            Ok(Some(STALE)) => {
                let mut batch = Batch::new("use a neighbour");
                batch.request("use a neighbour", NEW_NEIGHBOUR, 0, &fixed(USE), |writer| writer.put(DESTINATION, &octets));
                self.socket.transact(batch)
            }
            Ok(_) => Ok(()),
            // It has gone meanwhile.
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
