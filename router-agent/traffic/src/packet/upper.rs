//! What stands behind the network layer: protocol and ports.

use std::net::IpAddr;

use crate::flow::Flow;

/// Ports of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The protocol has ports, and these are they.
    Known {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// The protocol has no ports.
    None,
    /// The packet is a fragment, or its transport header is cut short.
    Unreadable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Upper {
    pub(crate) protocol: u8,
    pub(crate) ports: Ports,
}

impl Upper {
    /// Something that cannot be looked into.
    pub(crate) const fn unreadable(protocol: u8) -> Self {
        Self { protocol, ports: Ports::Unreadable }
    }

    /// The flow between two addresses.
    pub(super) const fn flow(self, source: IpAddr, destination: IpAddr) -> Flow {
        let (source_port, destination_port) = match self.ports {
            Ports::Known { source, destination } => (source, destination),
            Ports::None | Ports::Unreadable => (0, 0),
        };
        Flow { source, destination, protocol: self.protocol, source_port, destination_port }
    }

    /// Reads the ports of `protocol`, whose header begins `payload`.
    pub(crate) fn read(protocol: u8, payload: &[u8]) -> Self {
        if !has_ports(protocol) {
            return Self { protocol, ports: Ports::None };
        }
        let ports = match payload.first_chunk::<4>() {
            Some([a, b, c, d]) => Ports::Known { source: u16::from_be_bytes([*a, *b]), destination: u16::from_be_bytes([*c, *d]) },
            None => Ports::Unreadable,
        };
        Self { protocol, ports }
    }
}

/// TCP, UDP, DCCP, SCTP, UDP-Lite: each begins with source and destination port.
const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}
