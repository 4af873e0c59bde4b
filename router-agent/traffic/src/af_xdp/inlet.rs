//! The device by which judged packets come to this host's own stack, past the queue.
//!
//! Nothing is routed to it, and it is there as long as this process: without it what the XDP programs hand over goes nowhere. What comes by it
//! needs no further judgment, and the host's rules let it pass ([`HostRules::inlet`](crate::rules::HostRules::inlet)).
//!
//! The reverse path filter is to ask here only whether there is a route to the source at all (`rp_filter` 2, which counts for more than 1 of all
//! interfaces): which link a packet has come by AH does not say, and whose it is it does. Without an address of the interface's own the filter
//! would take nothing at all, so that it has one of this host with itself. A system that sets 1 for each new interface takes that back.

use std::fs::{self, File};
use std::io::{self, IoSlice, Write};

use super::error::refused;
use super::{AfXdpError, kernel};
use crate::joining::Joined;
use crate::netlink::{self, Batch, CREATE};

/// Its name.
pub const INLET: &str = "pbs-in0";
/// One of this host with itself (RFC 1122 §3.2.1.3), which nothing else has: the octets of "PBS".
const OWN_ADDRESS: [u8; 4] = [127, 80, 66, 83];

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
/// Flags of a link: administratively up; and takes part in groups.
const UP: u32 = 1;
const MULTICAST: u32 = 0x1000;
// Attributes of a link (`linux/if_link.h`).
const BY_FAMILY: u16 = 26;
const IPV4: u16 = 2;
const SETTINGS: u16 = 1;
const REVERSE_PATH: u16 = 8;
const STRICT: u32 = 1;
const LOOSE: u32 = 2;
const IPV6: u16 = 10;
const ADDRESS_GENERATION: u16 = 8;
const NO_ADDRESS: u8 = 1;
// Of an address: family, whole prefix, and that it is none to send from (`RT_SCOPE_HOST`); its attribute (`linux/if_addr.h`).
const ADDRESS: [u8; 4] = [2, 32, 0, 254];
const ADDRESS_LOCAL: u16 = 2;

/// The device.
#[derive(Debug)]
pub struct Inlet {
    device: File,
    index: u32,
}

impl Inlet {
    /// Makes it in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// It takes `CAP_NET_ADMIN` and `/dev/net/tun`, and no device of its name may be there.
    pub fn open() -> Result<Self, AfXdpError> {
        let device = File::from(kernel::make_device(INLET).map_err(refused("make the device pbs-in0 (it takes /dev/net/tun)"))?);
        let index = nix::net::if_::if_nametoindex(INLET).map_err(refused("find the device pbs-in0"))?;
        netlink::Socket::open(netlink::Protocol::Route)?.transact(set_up(index, setting(6, "all", "disable_ipv6").is_some()))?;
        // New interfaces may have no IPv6 where others have. If it cannot be said that this one has, that is found below.
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{INLET}/disable_ipv6"), "0");
        let inlet = Self { device, index };
        inlet.check().map(|()| inlet)
    }

    /// Whether packets may come by it, as the system's settings are now.
    ///
    /// # Errors
    ///
    /// Which setting keeps them out.
    pub fn check(&self) -> Result<(), AfXdpError> {
        let [all, own] = ["all", INLET].map(|of| setting(4, of, "rp_filter"));
        if all.max(own) == Some(STRICT) {
            return Err(AfXdpError::Setting("net.ipv4.conf.pbs-in0.rp_filter is 1, by which nothing may come by the device"));
        }
        let [all, own] = ["all", INLET].map(|of| setting(6, of, "disable_ipv6"));
        if own == Some(1) && all != Some(1) {
            return Err(AfXdpError::Setting("net.ipv6.conf.pbs-in0.disable_ipv6 is 1, by which no IPv6 may come by the device"));
        }
        Ok(())
    }

    /// The kernel's number of it.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Has a packet arrive by it.
    pub(crate) fn write(&mut self, joined: &Joined<'_>) -> io::Result<()> {
        self.device.write_vectored(&[IoSlice::new(&joined.prefix), IoSlice::new(joined.packet)]).map(drop)
    }
}

/// `None` if the kernel has no such IP version, or does not tell.
fn setting(version: u8, of: &str, name: &str) -> Option<u32> {
    fs::read_to_string(format!("/proc/sys/net/ipv{version}/conf/{of}/{name}")).ok()?.trim().parse().ok()
}

fn set_up(link: u32, has_ipv6: bool) -> Batch {
    let mut batch = Batch::new("set up the device pbs-in0");
    let [i0, i1, i2, i3] = link.to_ne_bytes();
    let fixed = |flags: u32, change: u32| {
        let ([f0, f1, f2, f3], [c0, c1, c2, c3]) = (flags.to_ne_bytes(), change.to_ne_bytes());
        [0, 0, 0, 0, i0, i1, i2, i3, f0, f1, f2, f3, c0, c1, c2, c3]
    };
    batch.request("give pbs-in0 no address of IPv6, and any way back", NEW_LINK, 0, &fixed(0, MULTICAST), |writer| {
        writer.nest(BY_FAMILY, |families| {
            families.nest(IPV4, |ipv4| ipv4.nest(SETTINGS, |settings| settings.put_u32(REVERSE_PATH, LOOSE)));
            if has_ipv6 {
                families.nest(IPV6, |ipv6| ipv6.put_u8(ADDRESS_GENERATION, NO_ADDRESS));
            }
        });
    });
    let [family, prefix, flags, scope] = ADDRESS;
    batch.request("give pbs-in0 an address", NEW_ADDRESS, CREATE, &[family, prefix, flags, scope, i0, i1, i2, i3], |writer| {
        writer.put(ADDRESS_LOCAL, &OWN_ADDRESS);
    });
    batch.request("set pbs-in0 up", NEW_LINK, 0, &fixed(UP, UP), |_| {});
    batch
}
