//! The flow identifier (FID) of draft-04 §9.4.1 and its agreement with the message routing information that GIST routes by.

use core::fmt;
use std::net::{IpAddr, Ipv6Addr};

use gist::wire::{Direction, Mri, PathCoupled};
use thiserror::Error;

/// One unicast flow: the five values that a permission is given for (draft-04 §9.4.1, X-11 to X-14).
///
/// The protocol is the upper-layer one, inside the Authentication Header. A value of this type has passed the checks of
/// [`FlowId::new`]; outside this crate there is no other way to make one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct FlowId {
    /// Address of the sender of the data.
    pub source: IpAddr,
    /// Address of the receiver of the data, of the same IP version.
    pub destination: IpAddr,
    /// Upper-layer protocol number.
    pub protocol: u8,
    /// Port of the sender; 0 exactly for protocols without ports.
    pub source_port: u16,
    /// Port of the receiver; 0 exactly for protocols without ports.
    pub destination_port: u16,
}

impl FlowId {
    /// Makes a flow identifier.
    ///
    /// # Errors
    /// [`FlowError`] if the addresses are of two IP versions, the same, or not both unicast and routable, the protocol
    /// is not an upper-layer one (P-041), or ports and protocol do not fit.
    pub fn new(source: IpAddr, destination: IpAddr, protocol: u8, source_port: u16, destination_port: u16) -> Result<Self, FlowError> {
        if source.is_ipv4() != destination.is_ipv4() {
            return Err(FlowError::MixedVersions);
        }
        // One key would sign for both ends, and the consent of two parties would be that of one.
        if source == destination {
            return Err(FlowError::OneHost(source));
        }
        for address in [source, destination] {
            if let Some(kind) = refused_kind(address) {
                return Err(FlowError::Address { address, kind });
            }
        }
        if !is_upper_layer(protocol) {
            return Err(FlowError::NotUpperLayer(protocol));
        }
        let ports_fit =
            if has_ports(protocol) { source_port != 0 && destination_port != 0 } else { source_port == 0 && destination_port == 0 };
        if !ports_fit {
            return Err(FlowError::Ports { protocol });
        }
        Ok(Self { source, destination, protocol, source_port, destination_port })
    }

    /// Reads the flow that a message routing information names.
    ///
    /// # Errors
    /// [`FlowMismatch`] if it is not path-coupled, wider than one flow, or names no acceptable flow.
    pub fn from_mri(mri: &Mri) -> Result<Self, FlowMismatch> {
        let mri = single_flow(mri)?;
        let (Some(protocol), Some(source_port), Some(destination_port)) = (mri.protocol, mri.source_port, mri.destination_port) else {
            return Err(FlowMismatch::Wildcard);
        };
        Ok(Self::new(mri.source, mri.destination, protocol, source_port, destination_port)?)
    }

    /// Checks that a message routing information names exactly this flow: addresses with full prefixes, protocol
    /// and both ports present and equal, no SPI. Direction, DS field and flow label do not matter.
    ///
    /// # Errors
    /// [`FlowMismatch`] names the first difference; it is answered by Notify 8.
    pub fn check_mri(&self, mri: &Mri) -> Result<(), FlowMismatch> {
        let mri = single_flow(mri)?;
        if mri.source != self.source || mri.destination != self.destination {
            return Err(FlowMismatch::Addresses);
        }
        if mri.protocol != Some(self.protocol) {
            return Err(FlowMismatch::Protocol);
        }
        if mri.source_port != Some(self.source_port) || mri.destination_port != Some(self.destination_port) {
            return Err(FlowMismatch::Ports);
        }
        Ok(())
    }

    /// The message routing information of this flow.
    pub fn to_mri(&self, direction: Direction) -> Mri {
        Mri::PathCoupled(PathCoupled {
            direction,
            source: self.source,
            destination: self.destination,
            source_prefix: full_prefix(self.source),
            destination_prefix: full_prefix(self.destination),
            protocol: Some(self.protocol),
            ds_field: None,
            flow_label: None,
            spi: None,
            source_port: Some(self.source_port),
            destination_port: Some(self.destination_port),
        })
    }

    /// Whether the flow's protocol has ports.
    pub fn has_ports(&self) -> bool {
        has_ports(self.protocol)
    }

    /// Whether the flow is one direction of a connection, so that nothing works without the other: TCP, DCCP, SCTP.
    pub fn is_connection(&self) -> bool {
        matches!(self.protocol, 6 | 33 | 132)
    }

    /// The flow in the other direction, which needs a permission of its own.
    pub fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            protocol: self.protocol,
            source_port: self.destination_port,
            destination_port: self.source_port,
        }
    }
}

impl fmt::Display for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, protocol, source_port, destination_port } = self;
        if !self.has_ports() {
            write!(f, "{source} > {destination} protocol {protocol}")
        } else if source.is_ipv4() {
            write!(f, "{source}:{source_port} > {destination}:{destination_port} protocol {protocol}")
        } else {
            write!(f, "[{source}]:{source_port} > [{destination}]:{destination_port} protocol {protocol}")
        }
    }
}

/// Why five values are no flow that a permission can be given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FlowError {
    /// One address is IPv4, the other IPv6.
    #[error("source and destination are of different IP versions")]
    MixedVersions,
    /// The flow would begin and end at the same address.
    #[error("source and destination are both {0}")]
    OneHost(IpAddr),
    /// The address is not that of one reachable host.
    #[error("{address} is {kind}")]
    Address {
        /// The refused address.
        address: IpAddr,
        /// What it is.
        kind: &'static str,
    },
    /// The protocol number is that of a header before the upper layer (P-041).
    #[error("protocol {0} is not an upper-layer protocol")]
    NotUpperLayer(u8),
    /// A port is zero where the protocol has ports, or set where it has none.
    #[error("ports do not fit protocol {protocol}")]
    Ports {
        /// The protocol.
        protocol: u8,
    },
}

/// How a message routing information differs from a flow identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FlowMismatch {
    /// Another routing method than path-coupled.
    #[error("the MRI is not path-coupled")]
    NotPathCoupled,
    /// A prefix shorter than the address.
    #[error("the MRI covers more than one address pair")]
    Prefix,
    /// The protocol or a port is not given.
    #[error("the MRI leaves the protocol or a port open")]
    Wildcard,
    /// An SPI is given, which would change with each new key.
    #[error("the MRI names an SPI")]
    Spi,
    /// Source or destination differs.
    #[error("addresses of MRI and FID differ")]
    Addresses,
    /// The protocol differs or is not given.
    #[error("protocols of MRI and FID differ")]
    Protocol,
    /// A port differs or is not given.
    #[error("ports of MRI and FID differ")]
    Ports,
    /// The values of the MRI are no acceptable flow.
    #[error(transparent)]
    Flow(#[from] FlowError),
}

fn single_flow(mri: &Mri) -> Result<&PathCoupled, FlowMismatch> {
    let Mri::PathCoupled(mri) = mri else {
        return Err(FlowMismatch::NotPathCoupled);
    };
    if mri.source_prefix != full_prefix(mri.source) || mri.destination_prefix != full_prefix(mri.destination) {
        return Err(FlowMismatch::Prefix);
    }
    if mri.spi.is_some() {
        return Err(FlowMismatch::Spi);
    }
    Ok(mri)
}

fn full_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether a protocol has ports: TCP, UDP, DCCP, SCTP and UDP-Lite (P-042).
pub fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}

/// IPv6 extension headers and AH itself stand before the upper layer.
fn is_upper_layer(protocol: u8) -> bool {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION_HEADER: u8 = 51;
    const DESTINATION_OPTIONS: u8 = 60;
    !matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION_HEADER | DESTINATION_OPTIONS)
}

fn refused_kind(address: IpAddr) -> Option<&'static str> {
    if address.is_unspecified() {
        return Some("unspecified");
    }
    if address.is_loopback() {
        return Some("loopback");
    }
    if address.is_multicast() {
        return Some("multicast");
    }
    match address {
        IpAddr::V4(v4) if v4.is_broadcast() => Some("broadcast"),
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Some("link-local"),
        IpAddr::V6(v6) if Ipv6Addr::to_ipv4_mapped(&v6).is_some() => Some("an IPv4-mapped address"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}
