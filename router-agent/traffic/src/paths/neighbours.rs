//! Whether a link is up and a neighbour on it answers, as the kernel's own neighbour discovery finds out.

use std::net::IpAddr;

use crate::netlink::{Batch, CREATE, Malformed, Message, NetlinkError, Protocol, Socket, attributes};

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const LINK_LEN: usize = 16;
const INTERFACE_NAME: u16 = 3;
/// Flags of a link: administratively up, and with a carrier.
const UP_AND_RUNNING: u32 = 0x1 | 0x40;

const NEW_NEIGHBOUR: u16 = 28;
const GET_NEIGHBOUR: u16 = 30;
const NEIGHBOUR_LEN: usize = 12;
const DESTINATION: u16 = 1;
/// The kernel is to find it out as if a packet were sent (`NTF_USE`).
const USE: u8 = 1;

// States of a neighbour (`linux/neighbour.h`).
const INCOMPLETE: u16 = 0x01;
const REACHABLE: u16 = 0x02;
const STALE: u16 = 0x04;
const DELAY: u16 = 0x08;
const PROBE: u16 = 0x10;
const NO_DISCOVERY: u16 = 0x40;
const PERMANENT: u16 = 0x80;

/// What the kernel knows of a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// Its link is down, or it did not answer.
    Gone,
    /// It answered once, and has not been asked since, or not for long.
    Doubtful,
    /// It has answered a short while ago, or nobody needs to ask.
    Answers,
}

/// A view of the neighbours in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Neighbours(Socket);

impl Neighbours {
    /// Looks at nothing yet.
    ///
    /// # Errors
    ///
    /// There is no socket to be had.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self(Socket::open(Protocol::Route)?))
    }

    /// Index of a link that is up; `None` if it is down or not there.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn link(&self, interface: &str) -> Result<Option<u32>, NetlinkError> {
        let links = self.0.dump("list the links", GET_LINK, &[0; LINK_LEN], |_| {}, |message| read_link(message, interface))?;
        Ok(links.first().copied())
    }

    /// What is known of a neighbour on a link.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub fn find(&self, link: u32, address: IpAddr) -> Result<Finding, NetlinkError> {
        let state = self.state(link, address)?.unwrap_or(INCOMPLETE);
        Ok(if state & (REACHABLE | NO_DISCOVERY | PERMANENT) != 0 {
            Finding::Answers
        } else if state & (STALE | DELAY | PROBE) != 0 {
            Finding::Doubtful
        } else {
            Finding::Gone
        })
    }

    fn state(&self, link: u32, address: IpAddr) -> Result<Option<u16>, NetlinkError> {
        let fixed = fixed(address, 0, 0, 0);
        let states = self.0.dump("list the neighbours", GET_NEIGHBOUR, &fixed, |_| {}, |message| read_neighbour(message, link, address))?;
        Ok(states.first().copied())
    }

    /// Has the kernel ask a neighbour whether it is there. What comes of it is found later.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub fn ask(&self, link: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let known = self.state(link, address)?.unwrap_or(INCOMPLETE);
        if known & (NO_DISCOVERY | PERMANENT) != 0 {
            return Ok(());
        }
        // One whose hardware address is known is asked at once; for another the kernel begins as for a packet.
        let (state, flags) = if known & (REACHABLE | STALE | DELAY | PROBE) != 0 { (PROBE, 0) } else { (0, USE) };
        let mut batch = Batch::new("ask a neighbour");
        batch.request(format!("ask {address}"), NEW_NEIGHBOUR, CREATE, &fixed(address, link, state, flags), |writer| {
            writer.put(DESTINATION, &octets(address));
        });
        self.0.transact(batch)
    }
}

/// The index of a link, if the message is about the one of this name, and that is up.
pub(super) fn read_link(message: &Message<'_>, interface: &str) -> Result<Option<u32>, Malformed> {
    if message.kind != NEW_LINK {
        return Ok(None);
    }
    let [_, _, _, _, i0, i1, i2, i3, f0, f1, f2, f3, ..] = *message.fixed::<LINK_LEN>()?;
    let name = attributes(message.after(LINK_LEN)?).find(INTERFACE_NAME)?.map(|name| name.text()).transpose()?;
    let is_up = u32::from_ne_bytes([f0, f1, f2, f3]) & UP_AND_RUNNING == UP_AND_RUNNING;
    Ok((name == Some(interface) && is_up).then(|| u32::from_ne_bytes([i0, i1, i2, i3])))
}

/// The state of a neighbour, if the message is about this one.
pub(super) fn read_neighbour(message: &Message<'_>, link: u32, address: IpAddr) -> Result<Option<u16>, Malformed> {
    if message.kind != NEW_NEIGHBOUR {
        return Ok(None);
    }
    let [_, _, _, _, i0, i1, i2, i3, s0, s1, ..] = *message.fixed::<NEIGHBOUR_LEN>()?;
    let destination = attributes(message.after(NEIGHBOUR_LEN)?).find(DESTINATION)?;
    let is_it = u32::from_ne_bytes([i0, i1, i2, i3]) == link && destination.is_some_and(|destination| destination.value == octets(address));
    Ok(is_it.then(|| u16::from_ne_bytes([s0, s1])))
}

fn fixed(address: IpAddr, link: u32, state: u16, flags: u8) -> [u8; NEIGHBOUR_LEN] {
    let family = if address.is_ipv4() { 2 } else { 10 };
    let [i0, i1, i2, i3] = link.to_ne_bytes();
    let [s0, s1] = state.to_ne_bytes();
    [family, 0, 0, 0, i0, i1, i2, i3, s0, s1, flags, 0]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
