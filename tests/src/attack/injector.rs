//! Frames put onto a link as an attacker there would put them.

use std::io;
use std::time::Duration;

use crate::network::link;
use crate::network::namespace::Namespace;
use crate::network::sys;

/// The attacker's hardware address, by which captures tell its frames from those of the host on its link: everything else can be
/// forged. Nobody else has it: it is administered locally, and interfaces of the laboratory have random ones.
pub const HARDWARE_ADDRESS: [u8; 6] = [0x02, 0x00, 0x00, 0x00, 0x66, 0x66];

/// An attacker on the link of `host`.
#[derive(Debug)]
pub struct Injector {
    socket: socket2::Socket,
    header: [u8; 14],
}

impl Injector {
    /// Sits on `interface` of `host` and sends to the neighbour's interface.
    pub fn new(host: &Namespace, interface: &str, neighbour: &Namespace, neighbour_interface: &str) -> io::Result<Self> {
        let (index, _) = link::identify(host, interface)?;
        let (_, destination) = link::identify(neighbour, neighbour_interface)?;
        let mut header = [0; 14];
        for (place, byte) in header.iter_mut().zip(destination.into_iter().chain(HARDWARE_ADDRESS).chain([0x08, 0x00])) {
            *place = byte;
        }
        Ok(Self { socket: host.run(|| sys::packet_socket(index, false))?, header })
    }

    /// Sends each IP packet once, a little apart so that no queue is blamed for a loss. Returns how many went out.
    pub fn send(&self, packets: &[Vec<u8>]) -> io::Result<u64> {
        for packet in packets {
            self.put(packet)?;
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(packets.len() as u64)
    }

    /// The same as fast as it goes; what the link has no room for is lost.
    pub fn flood(&self, packets: &[Vec<u8>]) -> io::Result<u64> {
        let mut sent = 0;
        for packet in packets {
            match self.put(packet) {
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {}
                put => {
                    put?;
                    sent += 1;
                }
            }
        }
        Ok(sent)
    }

    fn put(&self, packet: &[u8]) -> io::Result<()> {
        let mut frame = self.header.to_vec();
        if packet.first().is_some_and(|byte| byte >> 4 == 6) {
            frame.splice(12..14, [0x86, 0xdd]);
        }
        frame.extend_from_slice(packet);
        self.socket.send(&frame).map(drop)
    }
}
