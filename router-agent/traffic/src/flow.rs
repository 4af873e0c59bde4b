//! The five values that name a flow on the packet side (the FID of the draft; P-038, P-041, P-042).

use std::fmt;
use std::net::IpAddr;

/// One direction of traffic between two hosts: addresses, protocol behind AH, and ports.
///
/// Ports are 0 for protocols that have none. Both addresses are of one family wherever a flow comes from a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Address of the sender.
    pub source: IpAddr,
    /// Address of the receiver, who grants.
    pub destination: IpAddr,
    /// IP protocol number of what AH protects.
    pub protocol: u8,
    /// Source port, 0 if the protocol has no ports.
    pub source_port: u16,
    /// Destination port, 0 if the protocol has no ports.
    pub destination_port: u16,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} > {}.{} protocol {}", self.source, self.source_port, self.destination, self.destination_port, self.protocol)
    }
}
