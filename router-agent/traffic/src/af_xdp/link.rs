//! Interfaces as the kernel shows them, and the program that each runs (`rtnetlink`).
//!
//! A program is set on its interface itself and not held by this process: it stays when the process dies, and then drops what nobody takes.

use std::os::fd::RawFd;

use crate::netlink::{Attribute, Batch, Errno, Malformed, NetlinkError, Protocol, Socket, attributes};

use super::kernel::program_name;

const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const SET_LINK: u16 = 19;
/// Octets of the fixed part of a message about a link (`struct ifinfomsg`).
const FIXED_LEN: usize = 16;
/// `ARPHRD_ETHER`.
const ETHERNET: u16 = 1;

// Attributes of a link, and of the program on it (`linux/if_link.h`).
const ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const RECEIVING_QUEUES: u16 = 32;
const XDP: u16 = 43;
const XDP_DESCRIPTOR: u16 = 1;
const XDP_ATTACHED: u16 = 2;
const XDP_FLAGS: u16 = 3;
const XDP_PROGRAM: u16 = 4;
// Flags of a request: nothing may stand there yet; before the kernel has made a packet of the frame, or in the driver.
const IF_NONE: u32 = 1;
const GENERIC: u32 = 2;
const NATIVE: u32 = 4;

/// The name under which the kernel lists this project's programs.
pub(super) const PROGRAM_NAME: &str = "pbs_router_ah";

/// Where an interface runs its program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In its driver.
    Native,
    /// In the kernel's path, for drivers that can run none: slower.
    Generic,
}

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) name: String,
    pub(super) index: u32,
    /// Its hardware address, if it is an Ethernet link.
    pub(super) address: Option<[u8; 6]>,
    pub(super) mtu: u32,
    /// Queues that it may receive by, at the most.
    pub(super) queues: u32,
    /// Where a program runs already, and its number; `None` in place of the mode if there are several.
    pub(super) program: Option<(Option<Mode>, u32)>,
}

/// Sets programs on links in the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Links(Socket);

impl Links {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Ok(Self(Socket::open(Protocol::Route)?))
    }

    pub(super) fn list(&self) -> Result<Vec<Link>, NetlinkError> {
        self.0.dump(
            "list the links",
            GET_LINK,
            &[0; FIXED_LEN],
            |_| {},
            |message| {
                if message.kind != NEW_LINK {
                    return Ok(None);
                }
                let [_, _, k0, k1, i0, i1, i2, i3, ..] = *message.fixed::<FIXED_LEN>()?;
                let find = |kind| attributes(message.after(FIXED_LEN)?).find(kind);
                let is_ethernet = u16::from_ne_bytes([k0, k1]) == ETHERNET;
                let address = find(ADDRESS)?.and_then(|address| <[u8; 6]>::try_from(address.value).ok());
                Ok(Some(Link {
                    name: find(NAME)?.map(|name| name.text()).transpose()?.unwrap_or_default().to_owned(),
                    index: u32::from_ne_bytes([i0, i1, i2, i3]),
                    address: address.filter(|_| is_ethernet),
                    mtu: find(MTU)?.map(|mtu| mtu.u32()).transpose()?.unwrap_or_default(),
                    queues: find(RECEIVING_QUEUES)?.map(|queues| queues.u32()).transpose()?.unwrap_or(1),
                    program: find(XDP)?.map(program).transpose()?.flatten(),
                }))
            },
        )
    }

    /// Sets a program on a link in place of one of ours, if there is one, and says where it runs now: else in the driver if that can and
    /// `mode` says so.
    pub(super) fn attach(&self, link: &Link, program: RawFd, mode: Mode) -> Result<Mode, NetlinkError> {
        match link.program {
            // The same place: so there is no moment without a program.
            Some((Some(mode), _)) => self.set(link, program, flags(mode)).map(|()| mode),
            _ if mode == Mode::Generic => self.set(link, program, GENERIC | IF_NONE).map(|()| mode),
            _ => match self.set(link, program, NATIVE | IF_NONE) {
                // The driver has no place for it, or not at this MTU, or not with these offloads.
                Err(error) if !matches!(error.errno(), Some(Errno::EBUSY | Errno::EEXIST | Errno::EPERM | Errno::ENODEV)) => {
                    self.set(link, program, GENERIC | IF_NONE).map(|()| Mode::Generic)
                }
                other => other.map(|()| Mode::Native),
            },
        }
    }

    /// Takes this project's program off a link, if there is one.
    ///
    /// # Errors
    ///
    /// The kernel refuses, or does not tell whose a program is.
    pub(super) fn detach(&self, link: &Link) -> Result<(), NetlinkError> {
        let Some((Some(mode), id)) = link.program else { return Ok(()) };
        match program_name(id) {
            Ok(name) if name == PROGRAM_NAME => self.set(link, -1, flags(mode)),
            Err(errno @ (Errno::EPERM | Errno::EACCES)) => {
                let what = format!("tell whose the XDP program on {} is", link.name);
                Err(NetlinkError::Refused { what, errno, detail: Some("CAP_SYS_ADMIN is needed".to_owned()) })
            }
            // It is another's, or has gone meanwhile.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn set(&self, link: &Link, program: RawFd, flags: u32) -> Result<(), NetlinkError> {
        let [i0, i1, i2, i3] = link.index.to_ne_bytes();
        let fixed = [0, 0, 0, 0, i0, i1, i2, i3, 0, 0, 0, 0, 0, 0, 0, 0];
        let what = if program < 0 { "take the XDP program off" } else { "set the XDP program on" };
        let mut batch = Batch::new("set an XDP program");
        batch.request(format!("{what} {}", link.name), SET_LINK, 0, &fixed, |writer| {
            writer.nest(XDP, |xdp| {
                xdp.put_u32(XDP_DESCRIPTOR, program.cast_unsigned());
                xdp.put_u32(XDP_FLAGS, flags);
            });
        });
        self.0.transact(batch)
    }
}

impl Link {
    /// Whether a program of this project's runs there.
    pub(super) fn is_ours(&self) -> bool {
        self.program.is_some_and(|(_, id)| is_own(id))
    }

    /// Whether somebody else's program runs there.
    pub(super) fn is_taken(&self) -> bool {
        self.program.is_some_and(|(mode, id)| mode.is_none() || !is_own(id))
    }
}

const fn flags(mode: Mode) -> u32 {
    match mode {
        Mode::Native => NATIVE,
        Mode::Generic => GENERIC,
    }
}

/// Whether a program is one that this daemon has left, or another run of it. If the kernel does not tell it is not.
fn is_own(id: u32) -> bool {
    program_name(id).is_ok_and(|name| name == PROGRAM_NAME)
}

fn program(xdp: Attribute<'_>) -> Result<Option<(Option<Mode>, u32)>, Malformed> {
    let attached = xdp.nested().find(XDP_ATTACHED)?.map(|mode| mode.u8()).transpose()?;
    let mode = match attached {
        None | Some(0) => return Ok(None),
        Some(1) => Some(Mode::Native),
        Some(2) => Some(Mode::Generic),
        Some(_) => None,
    };
    let id = xdp.nested().find(XDP_PROGRAM)?.map(|id| id.u32()).transpose()?.unwrap_or_default();
    Ok(Some((mode, id)))
}
