//! Routing along the path of a flow (RFC 5971 A.3.1.1).

use core::net::IpAddr;

use bytes::{BufMut, BytesMut};

use super::{Direction, ip_version, put_address, refused};
use crate::wire::decode_error::ValueError;
use crate::wire::encode_error::EncodeError;
use crate::wire::error_cause::ObjectValueFault;
use crate::wire::reader::Reader;

const PROTOCOL: u8 = 0x08;
const TRAFFIC_CLASS: u8 = 0x04;
const FLOW_LABEL: u8 = 0x02;
const SPI: u8 = 0x01;
const SOURCE_PORT: u8 = 0x80;
const DESTINATION_PORT: u8 = 0x40;
const UPSTREAM: u8 = 0x20;

const MAX_FLOW_LABEL: u32 = (1 << 20) - 1;
const MAX_DS_FIELD: u8 = (1 << 6) - 1;

/// A flow, or with wildcards a bundle of flows, and a direction along it.
///
/// ```text
///                                 |IP-Ver |P|T|F|S|A|B|D|Reserved |
/// //                       Source Address                        //
/// //                      Destination Address                    //
/// | Source Prefix |  Dest Prefix  |   Protocol    | DS-field  |Rsv|
/// :       Reserved        |              Flow Label               :
/// :                              SPI                              :
/// :          Source Port          :       Destination Port        :
/// ```
///
/// A field that is `None` does not restrict the flow: its flag is clear.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathCoupled {
    /// With or against the flow.
    pub direction: Direction,
    /// The flow's source; of the same IP version as the destination.
    pub source: IpAddr,
    /// The flow's destination.
    pub destination: IpAddr,
    /// Significant bits of the source: 32 or 128 for one host, never more.
    pub source_prefix: u8,
    /// Significant bits of the destination: 32 or 128 for one host, never more.
    pub destination_prefix: u8,
    /// The IP protocol; for IPv6 the upper-layer protocol behind all extension headers.
    pub protocol: Option<u8>,
    /// The Diffserv field's six bits, 0 to 63.
    pub ds_field: Option<u8>,
    /// The IPv6 flow label, 20 bits.
    pub flow_label: Option<u32>,
    /// The IPsec security parameter index; only with a protocol.
    pub spi: Option<u32>,
    /// The source port; only with a protocol. 0 means one port that is not known yet.
    pub source_port: Option<u16>,
    /// The destination port; only with a protocol. 0 means one port that is not known yet.
    pub destination_port: Option<u16>,
}

impl PathCoupled {
    pub(super) fn decode(reader: &mut Reader) -> Result<Self, ValueError> {
        let flags_offset = reader.position();
        let [version_and_flags, more_flags] = reader.array()?;
        let has = |flag: u8| version_and_flags & flag != 0;
        let has_also = |flag: u8| more_flags & flag != 0;
        let version = version_and_flags >> 4;
        let contradiction = |offset| ValueError { fault: ObjectValueFault::InvalidFlagFieldCombination, offset };

        let source = reader.address(version, flags_offset)?;
        let destination = reader.address(version, flags_offset)?;
        // RFC 5971 A.3.1.1: F needs IPv6, S and A and B need P.
        if has(FLOW_LABEL) && version != 6 || has(SPI) && !has(PROTOCOL) {
            return Err(contradiction(flags_offset));
        }
        if has_also(SOURCE_PORT | DESTINATION_PORT) && !has(PROTOCOL) {
            return Err(contradiction(flags_offset + 1));
        }

        let prefixes_offset = reader.position();
        let [source_prefix, destination_prefix, protocol, ds_field] = reader.array()?;
        let host = host_prefix(source);
        if source_prefix > host {
            return Err(contradiction(prefixes_offset));
        }
        if destination_prefix > host {
            return Err(contradiction(prefixes_offset + 1));
        }
        let flow_label = has(FLOW_LABEL).then(|| reader.u32()).transpose()?;
        let spi = has(SPI).then(|| reader.u32()).transpose()?;
        let ports = has_also(SOURCE_PORT | DESTINATION_PORT).then(|| Ok((reader.u16()?, reader.u16()?))).transpose()?;

        Ok(Self {
            direction: if has_also(UPSTREAM) { Direction::Upstream } else { Direction::Downstream },
            source,
            destination,
            source_prefix,
            destination_prefix,
            protocol: has(PROTOCOL).then_some(protocol),
            ds_field: has(TRAFFIC_CLASS).then_some(ds_field >> 2),
            flow_label: flow_label.map(|word| word & MAX_FLOW_LABEL),
            spi,
            source_port: ports.map(|(source, _)| source).filter(|_| has_also(SOURCE_PORT)),
            destination_port: ports.map(|(_, destination)| destination).filter(|_| has_also(DESTINATION_PORT)),
        })
    }

    pub(super) fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let version = ip_version(self.source, self.destination)?;
        self.check()?;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let has_ports = self.source_port.is_some() || self.destination_port.is_some();
        out.put_u8(
            version
                | flag(self.protocol.is_some(), PROTOCOL)
                | flag(self.ds_field.is_some(), TRAFFIC_CLASS)
                | flag(self.flow_label.is_some(), FLOW_LABEL)
                | flag(self.spi.is_some(), SPI),
        );
        out.put_u8(
            flag(self.source_port.is_some(), SOURCE_PORT)
                | flag(self.destination_port.is_some(), DESTINATION_PORT)
                | flag(self.direction == Direction::Upstream, UPSTREAM),
        );
        put_address(out, self.source);
        put_address(out, self.destination);
        out.put_u8(self.source_prefix);
        out.put_u8(self.destination_prefix);
        out.put_u8(self.protocol.unwrap_or(0));
        out.put_u8(self.ds_field.unwrap_or(0) << 2);
        self.flow_label.into_iter().for_each(|label| out.put_u32(label));
        self.spi.into_iter().for_each(|spi| out.put_u32(spi));
        if has_ports {
            out.put_u16(self.source_port.unwrap_or(0));
            out.put_u16(self.destination_port.unwrap_or(0));
        }
        Ok(())
    }

    /// What the decoder would refuse must not be sent either.
    fn check(&self) -> Result<(), EncodeError> {
        let host = host_prefix(self.source);
        let needs_protocol = |present: bool| present && self.protocol.is_none();
        let rules = [
            (self.source_prefix > host, "Source Prefix"),
            (self.destination_prefix > host, "Dest Prefix"),
            (self.ds_field.is_some_and(|field| field > MAX_DS_FIELD), "DS-field"),
            (self.flow_label.is_some_and(|label| label > MAX_FLOW_LABEL), "Flow Label"),
            (self.flow_label.is_some() && self.source.is_ipv4(), "Flow Label"),
            (needs_protocol(self.spi.is_some()), "SPI"),
            (needs_protocol(self.source_port.is_some()), "Source Port"),
            (needs_protocol(self.destination_port.is_some()), "Destination Port"),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, field)) => Err(refused(field)),
            None => Ok(()),
        }
    }
}

fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
