//! Tells when links, addresses, routes or routing rules have changed, and when it is quiet again.
//!
//! The kernel tells of each change to whoever listens, in both families, with the netlink port of the socket that made it: by
//! that, own changes are passed over, so that there is no loop. Some things it does not tell (an IPv6 route whose end is put
//! off, routes that go with their link, an MTU that a person writes under `/proc`), and when the socket's buffer is full,
//! messages are missed. So what is heard only says *that* everything is to be looked at, never what, and it is to be looked at
//! now and then without being told.

use std::time::{Duration, Instant};

use crate::netlink::{Errno, NetlinkError, Protocol, Socket, messages};

/// Groups of `linux/rtnetlink.h`: links (also as IPv6 sees them), addresses, routes and rules of both families, next hops.
const GROUPS: [u32; 9] = [1, 5, 7, 8, 9, 11, 12, 19, 32];
/// The group of neighbours (`RTNLGRP_NEIGH`).
const NEIGHBOURS: u32 = 3;
/// Room for one received buffer.
const RECEIVE_LEN: usize = 64 * 1024;

/// A listener in the network namespace in which it was opened.
#[derive(Debug)]
pub struct RoutingEvents {
    socket: Socket,
    buffer: Vec<u8>,
}

/// Why [`RoutingEvents::settled`] or [`RoutingEvents::changed`] has returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Something has changed.
    Changed,
    /// Nothing has been heard for so long that it is time to look all the same.
    Quiet,
}

impl RoutingEvents {
    /// Listens from now on.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub fn listen() -> Result<Self, NetlinkError> {
        Ok(Self { socket: Socket::listen_to(Protocol::Route, &GROUPS)?, buffer: vec![0; RECEIVE_LEN] })
    }

    /// The same, of neighbours too.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub(crate) fn listen_with_neighbours() -> Result<Self, NetlinkError> {
        let groups: Vec<u32> = GROUPS.into_iter().chain([NEIGHBOURS]).collect();
        Ok(Self { socket: Socket::listen_to(Protocol::Route, &groups)?, buffer: vec![0; RECEIVE_LEN] })
    }

    /// Waits until something has changed that the socket with port `own` has not done, and then for `pause`, since changes come
    /// in rows; but no longer than `quiet` for the first.
    ///
    /// # Errors
    ///
    /// The socket does not work any more.
    pub fn settled(&mut self, own: Option<u32>, pause: Duration, quiet: Duration) -> Result<Settled, NetlinkError> {
        let settled = self.changed(own, quiet)?;
        if settled == Settled::Changed {
            std::thread::sleep(pause);
            self.has_changed(own)?;
        }
        Ok(settled)
    }

    /// Waits until something has changed that the socket with port `own` has not done, but no longer than `quiet`. More may
    /// follow at once.
    ///
    /// # Errors
    ///
    /// The socket does not work any more.
    pub fn changed(&mut self, own: Option<u32>, quiet: Duration) -> Result<Settled, NetlinkError> {
        let start = Instant::now();
        loop {
            let left = quiet.saturating_sub(start.elapsed());
            if !self.socket.wait(left).map_err(NetlinkError::Receive)? {
                return Ok(Settled::Quiet);
            }
            if self.has_changed(own)? {
                return Ok(Settled::Changed);
            }
            if left.is_zero() {
                return Ok(Settled::Quiet);
            }
        }
    }

    /// Reads all that has been told, without waiting; `true` if anything of it was not done by the socket with port `own`.
    ///
    /// # Errors
    ///
    /// The socket does not work any more.
    pub fn has_changed(&mut self, own: Option<u32>) -> Result<bool, NetlinkError> {
        let mut changed = false;
        loop {
            match self.socket.receive(&mut self.buffer) {
                // What cannot be read may have said anything.
                Ok(received) => changed |= messages(received).any(|message| message.map_or(true, |message| Some(message.port) != own)),
                Err(Errno::EAGAIN) => return Ok(changed),
                // Messages were missed.
                Err(Errno::ENOBUFS | Errno::EMSGSIZE) => changed = true,
                Err(errno) => return Err(NetlinkError::Receive(errno)),
            }
        }
    }
}
