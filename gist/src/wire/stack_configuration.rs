//! Stack-Configuration-Data (RFC 5971 A.3.5): addresses and options of the protocols in a Stack-Proposal.

use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::decode_error::ValueError;
use super::encode_error::EncodeError;
use super::error_cause::ObjectValueFault;
use super::nli::milliseconds;
use super::object::{ObjectType, padding, put_padding};
use super::reader::Reader;
use super::stack_proposal::MaProtocol;

const FORBIDDEN: u8 = 0x80;

/// How long an association is kept, and what its protocols need to know.
///
/// ```text
/// |   MPO-Count   |     Reserved                                  |
/// |                           MA-Hold-Time                        |
/// //                     MA-protocol-options 1                   //
/// //                     MA-protocol-options N                   //
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StackConfiguration {
    /// How long an association stays open without traffic: whole milliseconds, 1 to `u32::MAX`.
    pub hold_time: Duration,
    /// Options by protocol, at most 255; none in a Confirm.
    pub options: Vec<MaOptions>,
}

/// What a protocol needs to know: MA-protocol-options.
///
/// ```text
/// |MA-Protocol-ID |     Profile   |    Length     |D|  Reserved   |
/// //                         Options Data                        //
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MaOptions {
    /// The protocol the options are for.
    pub protocol: MaProtocol,
    /// The one profile of the proposal the options are for, counted from 1; 0 for all of them.
    pub profile: u8,
    /// D: the protocol must not be used, a NAT on the path cannot carry it.
    pub forbidden: bool,
    /// At most 255 bytes, without padding.
    pub data: Bytes,
}

impl MaOptions {
    /// Forwards-TCP in a Query: nothing to say, but it has to be said (RFC 5971 §5.7.2).
    #[must_use]
    pub fn tcp_query(profile: u8) -> Self {
        Self { protocol: MaProtocol::ForwardsTcp, profile, forbidden: false, data: Bytes::new() }
    }

    /// Forwards-TCP in a Response: the port at which the connection will be accepted (RFC 5971 §5.7.2).
    #[must_use]
    pub fn tcp_response(profile: u8, port: u16) -> Self {
        let data = Bytes::copy_from_slice(&port.to_be_bytes());
        Self { protocol: MaProtocol::ForwardsTcp, profile, forbidden: false, data }
    }

    /// The port in a Response's Forwards-TCP options, never 0; `None` for another protocol or without a port.
    ///
    /// A length that counts the two bytes of padding is read as well.
    #[must_use]
    pub fn tcp_port(&self) -> Option<u16> {
        match (self.protocol, &*self.data) {
            (MaProtocol::ForwardsTcp, [high, low] | [high, low, _, _]) => Some(u16::from_be_bytes([*high, *low])).filter(|port| *port != 0),
            _ => None,
        }
    }
}

impl StackConfiguration {
    /// Reads an object's value.
    ///
    /// # Errors
    ///
    /// [`ObjectValueFault::ValueNotSupported`] for a zero hold time, [`ObjectValueFault::IncorrectLength`] if the
    /// value is not exactly as long as its options make it.
    pub fn decode(value: Bytes) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        let [count, _, _, _] = reader.array()?;
        let hold_time_offset = reader.position();
        let hold_time = reader.u32()?;
        let mut options = Vec::new();
        for _ in 0..count {
            let [protocol, profile, length, flags] = reader.array()?;
            let length = usize::from(length);
            options.push(MaOptions {
                protocol: protocol.into(),
                profile,
                forbidden: flags & FORBIDDEN != 0,
                data: reader.padded_bytes(length, padding(length))?,
            });
        }
        reader.finish()?;
        if hold_time == 0 {
            return Err(ValueError { fault: ObjectValueFault::ValueNotSupported, offset: hold_time_offset });
        }
        Ok(Self { hold_time: Duration::from_millis(hold_time.into()), options })
    }

    /// The first usable Forwards-TCP option that says no port, which in a Response it must (RFC 5971 §5.7.2).
    pub(super) fn port_fault(&self) -> Option<ValueError> {
        let mut offset = 8;
        for options in &self.options {
            let is_usable_tcp = options.protocol == MaProtocol::ForwardsTcp && !options.forbidden;
            if is_usable_tcp && options.tcp_port().is_none() {
                return Some(if matches!(options.data.len(), 2 | 4) {
                    ValueError { fault: ObjectValueFault::ValueNotSupported, offset: offset + 4 }
                } else {
                    ValueError { fault: ObjectValueFault::IncorrectLength, offset: offset + 2 }
                });
            }
            offset += 4 + options.data.len() + padding(options.data.len());
        }
        None
    }

    /// Writes an object's value; a hold time is cut to whole milliseconds.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Field`] if the hold time is less than a millisecond or more than `u32::MAX` of them, or if there
    /// are more than 255 options, or options of more than 255 bytes.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let refused = |field| EncodeError::Field { object: ObjectType::StackConfigurationData, field };
        out.put_u8(u8::try_from(self.options.len()).map_err(|_| refused("MPO-Count"))?);
        out.put_bytes(0, 3);
        out.put_u32(milliseconds(self.hold_time).ok_or(refused("MA-Hold-Time"))?);
        for options in &self.options {
            out.put_u8(options.protocol.into());
            out.put_u8(options.profile);
            out.put_u8(u8::try_from(options.data.len()).map_err(|_| refused("Length"))?);
            out.put_u8(if options.forbidden { FORBIDDEN } else { 0 });
            out.put_slice(&options.data);
            put_padding(out, options.data.len());
        }
        Ok(())
    }
}
