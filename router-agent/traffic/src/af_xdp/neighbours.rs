//! Keeps the kernel asking whether a neighbour is there, to which it sends nothing itself.
//!
//! Once a second the kernel is told of each neighbour that a judged frame has gone to since that it is in use, as if it had sent that frame:
//! it asks the neighbour when it has not heard of it for a while (RFC 4861 §7.3.3), and so finds out that it is gone or has another
//! address. Frames that were dropped, of whatever flood, ask about nobody.
//!
//! A thread of its own tells it, since that may last: the kernel answers when nobody else changes links, addresses or routes. The worker
//! waits for nobody. What finds no room is let go: the neighbour is noted anew in the next second if frames still go there, and until then
//! they go where they went before.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::netlink::{Batch, Errno, NetlinkError, Protocol, Socket};

use super::AfXdpError;
use super::error::refused;
use super::forward::Way;

/// How often each is asked about.
const EVERY: Duration = Duration::from_secs(1);
/// Neighbours that are noted in one such time, and that wait for the thread, at the most; of further ones the kernel is not told.
const MOST: usize = 4096;

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

/// The neighbours that frames go to, in the network namespace in which it was opened. The thread ends with it.
#[derive(Debug)]
pub(super) struct Neighbours {
    waiting: SyncSender<Neighbour>,
    /// As long as this is there, what waits is told of.
    _alive: Arc<()>,
    ends: Instant,
    /// Of this second.
    met: BTreeSet<Neighbour>,
    last: Option<Neighbour>,
}

impl Neighbours {
    pub(super) fn open() -> Result<Self, AfXdpError> {
        let socket = Socket::open(Protocol::Route)?;
        let told = Self::telling(move |neighbour| {
            if let Err(error) = tell(&socket, neighbour) {
                tracing::debug!(address = %neighbour.1, %error, "the kernel was not told that a neighbour is in use");
            }
        });
        told.map_err(|error| refused("start a thread for neighbours")(Errno::from_raw(error.raw_os_error().unwrap_or_default())))
    }

    fn telling(tell: impl FnMut(Neighbour) + Send + 'static) -> io::Result<Self> {
        let (waiting, received) = sync_channel(MOST);
        let alive = Arc::new(());
        let is_alive = {
            let alive = Arc::downgrade(&alive);
            move |_: &Neighbour| alive.strong_count() > 0
        };
        thread::Builder::new().name("neighbours".to_owned()).spawn(move || received.into_iter().take_while(is_alive).for_each(tell))?;
        Ok(Self { waiting, _alive: alive, ends: Instant::now(), met: BTreeSet::new(), last: None })
    }

    /// A frame that may pass goes this way.
    pub(super) fn note(&mut self, way: &Way) {
        let neighbour = (way.interface, way.neighbour);
        if self.last == Some(neighbour) {
            return;
        }
        self.last = Some(neighbour);
        if self.met.len() < MOST && self.met.insert(neighbour) {
            let _ = self.waiting.try_send(neighbour);
        }
    }

    /// Notes them anew in each new second.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if now >= self.ends {
            self.ends = now + EVERY;
            self.met.clear();
            self.last = None;
        }
    }
}

/// One that somebody has written down for good would lose that: only of such as the kernel has found itself.
fn tell(socket: &Socket, (interface, address): Neighbour) -> Result<(), NetlinkError> {
    let (family, octets) = match address {
        IpAddr::V4(address) => (AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    let [a, b, c, d] = interface.to_ne_bytes();
    let fixed = |flags| [family, 0, 0, 0, a, b, c, d, 0, 0, flags, 0];
    let state = socket.ask(
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
            socket.transact(batch)
        }
        Ok(_) => Ok(()),
        // It has gone meanwhile.
        Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::program::WAY_LEN;
    use super::*;

    fn way(number: u32) -> Way {
        let mut before = [0; WAY_LEN];
        before[16..20].copy_from_slice(&number.to_be_bytes());
        Way::read(&before)
    }

    /// What is told to a kernel that answers each when it may, and where it waits to.
    fn told_to_slow_kernel() -> (Neighbours, std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<Neighbour>) {
        let ((go_on, may_go_on), (hears, heard)) = (channel(), channel());
        let neighbours = Neighbours::telling(move |neighbour| {
            let _ = may_go_on.recv();
            let _ = hears.send(neighbour);
        });
        (neighbours.unwrap(), go_on, heard)
    }

    #[test]
    fn a_kernel_that_does_not_answer_holds_nobody_up_and_is_told_later_once_of_each() {
        let (mut neighbours, go_on, heard) = told_to_slow_kernel();
        let mut now = Instant::now();
        for _ in 0..3 {
            for number in 1..=3000 {
                (0..2).for_each(|_| neighbours.note(&way(number)));
                neighbours.note(&way(1));
            }
            now += EVERY;
            neighbours.handle_timeout(now);
        }
        drop(go_on);
        let first = heard.recv().unwrap();
        assert_eq!(first.1, IpAddr::from([0, 0, 0, 1]));
        let second: Vec<Neighbour> = heard.iter().take(MOST - 1).collect();
        assert!(second.iter().zip(2..=3000_u32).all(|((_, told), number)| *told == IpAddr::from(number.to_be_bytes())));
    }

    #[test]
    fn the_thread_ends_with_whom_it_serves_whatever_waits() {
        let (mut neighbours, go_on, heard) = told_to_slow_kernel();
        (1..=100).for_each(|number| neighbours.note(&way(number)));
        go_on.send(()).unwrap();
        heard.recv().unwrap();
        drop(neighbours);
        drop(go_on);
        assert!(heard.iter().count() <= 1, "one may have been under way");
    }
}
