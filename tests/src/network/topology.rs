//! The network of the demonstration: sender – router – receiver.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::link::{self, End};
use super::namespace::Namespace;

/// Sender's address.
pub const SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 20, 1));
/// Router's address on the sender's link.
pub const ROUTER_LEFT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 20, 254));
/// Router's address on the receiver's link.
pub const ROUTER_RIGHT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 21, 254));
/// Receiver's address.
pub const RECEIVER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 21, 4));
/// Sender's IPv6 address.
pub const SENDER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 1));
/// Router's IPv6 address on the sender's link.
pub const ROUTER_LEFT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0xfe));
/// Router's IPv6 address on the receiver's link.
pub const ROUTER_RIGHT6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd21, 0, 0, 0, 0, 0, 0, 0xfe));
/// Receiver's IPv6 address.
pub const RECEIVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd21, 0, 0, 0, 0, 0, 0, 4));

/// An IP version, and with it the addresses of the two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The sender's address.
    pub fn sender(self) -> IpAddr {
        match self {
            Self::Ipv4 => SENDER,
            Self::Ipv6 => SENDER6,
        }
    }

    /// The receiver's address.
    pub fn receiver(self) -> IpAddr {
        match self {
            Self::Ipv4 => RECEIVER,
            Self::Ipv6 => RECEIVER6,
        }
    }
}

/// Interface of the sender.
pub const SENDER_LINK: &str = "s0";
/// Interface of the router towards the sender.
pub const LEFT_LINK: &str = "r0";
/// Interface of the router towards the receiver.
pub const RIGHT_LINK: &str = "r1";
/// Interface of the receiver.
pub const RECEIVER_LINK: &str = "d0";

/// MTU of both links, in bytes.
pub const MTU: u32 = 1500;

/// Three hosts in a row.
#[derive(Debug)]
pub struct Chain {
    /// Where packets come from.
    pub sender: Namespace,
    /// The router on the path.
    pub router: Namespace,
    /// Where packets go to.
    pub receiver: Namespace,
}

impl Chain {
    /// Builds the hosts, links, addresses and routes.
    pub fn build() -> io::Result<Self> {
        let chain =
            Self { sender: Namespace::create("sender")?, router: Namespace::create("router")?, receiver: Namespace::create("receiver")? };
        chain.router.write_setting("net/ipv4/ip_forward", "1")?;
        chain.router.write_setting("net/ipv6/conf/all/forwarding", "1")?;
        link::join(
            End { host: &chain.sender, interface: SENDER_LINK, addresses: &[(SENDER, 24), (SENDER6, 64)] },
            End { host: &chain.router, interface: LEFT_LINK, addresses: &[(ROUTER_LEFT, 24), (ROUTER_LEFT6, 64)] },
            MTU,
        )?;
        link::join(
            End { host: &chain.router, interface: RIGHT_LINK, addresses: &[(ROUTER_RIGHT, 24), (ROUTER_RIGHT6, 64)] },
            End { host: &chain.receiver, interface: RECEIVER_LINK, addresses: &[(RECEIVER, 24), (RECEIVER6, 64)] },
            MTU,
        )?;
        link::add_default_route(&chain.sender, ROUTER_LEFT)?;
        link::add_default_route(&chain.sender, ROUTER_LEFT6)?;
        link::add_default_route(&chain.receiver, ROUTER_RIGHT)?;
        link::add_default_route(&chain.receiver, ROUTER_RIGHT6)?;
        Ok(chain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::capture::Capture;
    use std::net::UdpSocket;
    use std::time::Duration;

    #[test]
    fn a_datagram_crosses_the_router_and_the_capture_sees_it() {
        if !crate::may_make_networks() {
            return;
        }
        let chain = Chain::build().unwrap();
        let capture = Capture::start(&chain.router, RIGHT_LINK, std::time::Instant::now()).unwrap();
        let receiver = chain.receiver.run(|| UdpSocket::bind((RECEIVER, 9000))).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let sender = chain.sender.run(|| UdpSocket::bind((SENDER, 0))).unwrap();
        sender.send_to(b"hello", (RECEIVER, 9000)).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);
        std::thread::sleep(Duration::from_millis(50));
        let seen = capture.look(|frames| frames.iter().filter(|frame| frame.ip().is_some_and(|ip| ip.ends_with(b"hello"))).count());
        assert_eq!(seen, 1);
        assert_eq!(capture.lost(), 0);
    }
}
