//! Message-Routing-Information as JSON.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::wire;
use crate::wire::{LooseEnd, Mri, PathCoupled};

/// A flow and a direction along it, by a message routing method (RFC 5971 §5.8, A.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Method {
    /// Along the path of a flow. What is left out does not restrict the flow.
    PathCoupled {
        /// With or against the flow.
        direction: Direction,
        /// The flow's source.
        source: IpAddr,
        /// The flow's destination.
        destination: IpAddr,
        /// Significant bits of the source; one host if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source_prefix: Option<u8>,
        /// Significant bits of the destination; one host if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destination_prefix: Option<u8>,
        /// IP protocol.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        protocol: Option<u8>,
        /// Diffserv field, 0 to 63.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ds_field: Option<u8>,
        /// IPv6 flow label.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        flow_label: Option<u32>,
        /// IPsec security parameter index.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        spi: Option<u32>,
        /// Source port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source_port: Option<u16>,
        /// Destination port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        destination_port: Option<u16>,
    },
    /// Towards the edge of the network.
    LooseEnd {
        /// Towards the edge, or from it.
        direction: Direction,
        /// The source.
        source: IpAddr,
        /// The destination.
        destination: IpAddr,
    },
}

/// Along which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// With the flow.
    Downstream,
    /// Against the flow.
    Upstream,
}

impl From<Direction> for wire::Direction {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Downstream => Self::Downstream,
            Direction::Upstream => Self::Upstream,
        }
    }
}

impl From<wire::Direction> for Direction {
    fn from(direction: wire::Direction) -> Self {
        match direction {
            wire::Direction::Downstream => Self::Downstream,
            wire::Direction::Upstream => Self::Upstream,
        }
    }
}

impl From<Method> for Mri {
    fn from(method: Method) -> Self {
        match method {
            Method::PathCoupled {
                direction,
                source,
                destination,
                source_prefix,
                destination_prefix,
                protocol,
                ds_field,
                flow_label,
                spi,
                source_port,
                destination_port,
            } => Self::PathCoupled(PathCoupled {
                direction: direction.into(),
                source,
                destination,
                source_prefix: source_prefix.unwrap_or(one_host(source)),
                destination_prefix: destination_prefix.unwrap_or(one_host(destination)),
                protocol,
                ds_field,
                flow_label,
                spi,
                source_port,
                destination_port,
            }),
            Method::LooseEnd { direction, source, destination } => {
                Self::LooseEnd(LooseEnd { direction: direction.into(), source, destination })
            }
        }
    }
}

impl From<&Mri> for Method {
    fn from(mri: &Mri) -> Self {
        match mri {
            Mri::PathCoupled(flow) => Self::PathCoupled {
                direction: flow.direction.into(),
                source: flow.source,
                destination: flow.destination,
                source_prefix: Some(flow.source_prefix).filter(|prefix| *prefix != one_host(flow.source)),
                destination_prefix: Some(flow.destination_prefix).filter(|prefix| *prefix != one_host(flow.destination)),
                protocol: flow.protocol,
                ds_field: flow.ds_field,
                flow_label: flow.flow_label,
                spi: flow.spi,
                source_port: flow.source_port,
                destination_port: flow.destination_port,
            },
            Mri::LooseEnd(ends) => Self::LooseEnd { direction: ends.direction.into(), source: ends.source, destination: ends.destination },
        }
    }
}

fn one_host(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_reads_as_it_was_written() {
        for text in [
            r#"{"method":"path-coupled","direction":"upstream","source":"10.0.0.0","destination":"10.0.9.1","source_prefix":24,"protocol":6,"source_port":1}"#,
            r#"{"method":"path-coupled","direction":"downstream","source":"fd00::1","destination":"fd00::2","ds_field":46,"flow_label":7}"#,
            r#"{"method":"loose-end","direction":"downstream","source":"10.0.0.1","destination":"192.0.2.1"}"#,
        ] {
            let method: Method = serde_json::from_str(text).unwrap();
            let again = Method::from(&Mri::from(method.clone()));
            assert_eq!(again, method);
            assert_eq!(serde_json::to_string(&again).unwrap(), text);
        }
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused_and_not_ignored() {
        let text = r#"{"method":"path-coupled","direction":"downstream","source":"10.0.0.1","destination":"10.0.9.1","dest_port":9}"#;
        assert!(serde_json::from_str::<Method>(text).is_err());
    }
}
