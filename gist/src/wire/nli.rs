//! Network-Layer-Information (RFC 5971 A.3.3).

use core::net::IpAddr;
use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::decode_error::ValueError;
use super::encode_error::EncodeError;
use super::error_cause::ObjectValueFault;
use super::identifiers::PeerIdentity;
use super::object::{ObjectType, padding, put_padding};
use super::reader::Reader;

/// What a node says of itself: who it is, where it is, and how long its routing state is good.
///
/// ```text
/// |   PI-Length   |    IP-TTL     |IP-Ver |        Reserved       |
/// |                  Routing State Validity Time                  |
/// //                       Peer Identity                         //
/// //                     Interface Address                       //
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NetworkLayerInformation {
    /// Downstream: the TTL put into the IP header, 0 if unknown. Upstream: the hop distance known (RFC 5971 §5.2.2).
    pub ip_ttl: u8,
    /// How long routing state stays right without refresh: whole milliseconds, 1 to `u32::MAX`.
    pub validity: Duration,
    /// The node's stable name.
    pub peer: PeerIdentity,
    /// Where the node can be reached.
    pub address: IpAddr,
}

impl NetworkLayerInformation {
    /// Reads an object's value.
    ///
    /// # Errors
    ///
    /// [`ObjectValueFault::ValueNotSupported`] for an empty peer identity, an unknown IP version or a zero validity
    /// time, [`ObjectValueFault::IncorrectLength`] if the value is not exactly as long as its fields make it.
    pub fn decode(value: Bytes) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        let [identity_length, ip_ttl, version, _reserved] = reader.array()?;
        let validity_offset = reader.position();
        let validity = reader.u32()?;
        let identity_length = usize::from(identity_length);
        let unsupported = |offset| ValueError { fault: ObjectValueFault::ValueNotSupported, offset };
        let identity = reader.padded_bytes(identity_length, padding(identity_length))?;
        let peer = PeerIdentity::new(identity).ok_or(unsupported(0))?;
        let address = reader.address(version >> 4, 2)?;
        reader.finish()?;
        if validity == 0 {
            return Err(unsupported(validity_offset));
        }
        Ok(Self { ip_ttl, validity: Duration::from_millis(validity.into()), peer, address })
    }

    /// Writes an object's value; a validity time is cut to whole milliseconds.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Field`] if the validity time is less than a millisecond or more than `u32::MAX` of them.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let validity = milliseconds(self.validity)
            .ok_or(EncodeError::Field { object: ObjectType::NetworkLayerInformation, field: "Routing State Validity Time" })?;
        let identity = self.peer.as_bytes();
        out.put_u8(self.peer.length());
        out.put_u8(self.ip_ttl);
        out.put_u8(if self.address.is_ipv4() { 4 << 4 } else { 6 << 4 });
        out.put_u8(0);
        out.put_u32(validity);
        out.put_slice(identity);
        put_padding(out, identity.len());
        match self.address {
            IpAddr::V4(address) => out.put_slice(&address.octets()),
            IpAddr::V6(address) => out.put_slice(&address.octets()),
        }
        Ok(())
    }
}

/// A span as a non-zero 32-bit count of milliseconds: zero is reserved in every field of GIST that holds one.
pub(super) fn milliseconds(span: Duration) -> Option<u32> {
    u32::try_from(span.as_millis()).ok().filter(|millis| *millis != 0)
}
