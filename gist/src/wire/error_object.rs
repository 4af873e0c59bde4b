//! The Error object (RFC 5971 A.4.1) and its additional information fields (A.4.2).

use bytes::{BufMut, Bytes, BytesMut};

use super::decode_error::ValueError;
use super::encode_error::EncodeError;
use super::error_cause::{ErrorCause, ErrorClass, ObjectValueFault};
use super::header::HEADER_LENGTH;
use super::identifiers::SessionId;
use super::mri::Mri;
use super::object::{OBJECT_HEADER_LENGTH, ObjectType, padding, put_padding};
use super::reader::Reader;

const SESSION: u8 = 0x80;
const MRI: u8 = 0x40;
const COMMENT: u8 = 0x20;
const DATAGRAM_MODE: u8 = 0x10;
const QUERY_MODE: u8 = 0x08;

const MESSAGE_LENGTH_INFO: u16 = 1;
const MTU_INFO: u16 = 2;
const OBJECT_TYPE_INFO: u16 = 3;
const OBJECT_VALUE_INFO: u16 = 4;

/// What a message is rejected for, and what is known about that message.
///
/// ```text
/// |  Error Class  |           Error Code          | Error Subcode |
/// |S|M|C|D|Q|       Reserved      |  MRI Length   |  Info Count   |
/// |         Common Header (of original message), two words        |
/// :                          Session ID                           :
/// :                    Message Routing Information                :
/// :                 Additional Information Fields                 :
/// :                       Debugging Comment                       :
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GistError {
    /// How serious it is.
    pub class: ErrorClass,
    /// The error code.
    pub code: u16,
    /// The subcode; 0 where the code has none.
    pub subcode: u8,
    /// D: the original message came in D-mode.
    pub datagram_mode: bool,
    /// Q: it came in Q-mode encapsulation; only with D.
    pub query_mode: bool,
    /// The original message's common header as it came.
    pub header: [u8; HEADER_LENGTH],
    /// Its session, if that could be read.
    pub session: Option<SessionId>,
    /// Its message routing information, if that could be read.
    pub mri: Option<Mri>,
    /// Additional information, at most 255 fields in any order.
    pub info: Vec<ErrorInfo>,
    /// Words for a person to read: not trustworthy, and without NUL.
    pub comment: Option<String>,
}

/// An additional information field (RFC 5971 A.4.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ErrorInfo {
    /// 1: the message's length in words, found by adding up its objects.
    MessageLength(u16),
    /// 2: the IP MTU in bytes of a link which the message did not fit.
    LinkMtu(u16),
    /// 3: the number of the object type at fault.
    ObjectType(u16),
    /// 4: the object at fault.
    ObjectValue(ObjectValueInfo),
    /// Any other field, kept as it came.
    Other {
        /// The field's type.
        kind: u16,
        /// Its value, whole words.
        value: Bytes,
    },
}

/// An object that was refused, and the place where it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectValueInfo {
    /// The byte at which the fault was found, counted from the object's header.
    pub offset: u16,
    /// The object with its header: whole words. See [`ObjectValueInfo::new`] for long ones.
    pub object: Bytes,
}

impl ObjectValueInfo {
    /// The bytes of a refused object that are sent back at most, so that an Error with two of them fits a datagram.
    pub const MAX_OBJECT_LENGTH: usize = 512;

    /// Takes an object with its header and cuts it to [`Self::MAX_OBJECT_LENGTH`]: the field says itself how much of
    /// the object it holds.
    #[must_use]
    pub fn new(object: &Bytes, offset: usize) -> Self {
        Self { offset: u16::try_from(offset).unwrap_or(u16::MAX), object: object.slice(..object.len().min(Self::MAX_OBJECT_LENGTH)) }
    }

    /// Puts the header before an object's value, whose byte `offset_in_value` is at fault: for faults which are found
    /// only after decoding, such as a cookie that is not ours. An incomplete last word of the value is cut off.
    #[must_use]
    pub fn from_value(kind: ObjectType, value: &[u8], offset_in_value: usize) -> Self {
        let words = u16::try_from(value.len() / 4).unwrap_or(0x0fff).min(0x0fff);
        let mut object = BytesMut::new();
        object.put_u16(kind.number());
        object.put_u16(words);
        object.put_slice(value.get(..usize::from(words) * 4).unwrap_or(value));
        Self::new(&object.freeze(), OBJECT_HEADER_LENGTH + offset_in_value)
    }
}

impl GistError {
    /// An error of the catalogue about the message with this common header, received in C-mode; nothing else is known.
    #[must_use]
    pub fn new(cause: ErrorCause, header: [u8; HEADER_LENGTH]) -> Self {
        Self {
            class: cause.class(),
            code: cause.code(),
            subcode: cause.subcode(),
            datagram_mode: false,
            query_mode: false,
            header,
            session: None,
            mri: None,
            info: Vec::new(),
            comment: None,
        }
    }

    /// The catalogue's entry; `None` for an error the catalogue does not have.
    #[must_use]
    pub fn cause(&self) -> Option<ErrorCause> {
        ErrorCause::from_codes(self.code, self.subcode)
    }

    /// Reads an object's value.
    ///
    /// # Errors
    ///
    /// [`ObjectValueFault::InvalidFlagFieldCombination`] for Q without D or an MRI length that contradicts M,
    /// [`ObjectValueFault::ValueNotSupported`] for a comment that is no UTF-8, what [`Mri::decode`] refuses, and
    /// [`ObjectValueFault::IncorrectLength`] if the value is not exactly as long as its fields make it.
    pub fn decode(value: Bytes) -> Result<Self, ValueError> {
        let contradiction = |offset| ValueError { fault: ObjectValueFault::InvalidFlagFieldCombination, offset };
        let mut reader = Reader::new(value);
        let class = ErrorClass::from(reader.u8()?);
        let code = reader.u16()?;
        let subcode = reader.u8()?;
        let [flags, _reserved, mri_words, info_count] = reader.array()?;
        let has = |flag: u8| flags & flag != 0;
        if has(QUERY_MODE) && !has(DATAGRAM_MODE) {
            return Err(contradiction(4));
        }
        if has(MRI) != (mri_words != 0) {
            return Err(contradiction(6));
        }
        let header = reader.array()?;
        let session = has(SESSION).then(|| reader.array().map(SessionId)).transpose()?;
        let mri_offset = reader.position();
        let mri = has(MRI)
            .then(|| {
                Mri::decode(reader.bytes(usize::from(mri_words) * 4)?)
                    .map_err(|error| ValueError { offset: mri_offset + error.offset, ..error })
            })
            .transpose()?;
        let info = (0..info_count).map(|_| ErrorInfo::decode(&mut reader)).collect::<Result<_, _>>()?;
        let comment = if has(COMMENT) {
            Some(decode_comment(reader)?)
        } else {
            reader.finish()?;
            None
        };
        Ok(Self {
            class,
            code,
            subcode,
            datagram_mode: has(DATAGRAM_MODE),
            query_mode: has(QUERY_MODE),
            header,
            session,
            mri,
            info,
            comment,
        })
    }

    /// Writes an object's value.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Field`] for Q without D, too many or too long information fields, a comment with a NUL in it, or
    /// an MRI that cannot be written.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        if self.query_mode && !self.datagram_mode {
            return Err(refused("Q-flag"));
        }
        let mut mri = BytesMut::new();
        self.mri.as_ref().map(|value| value.encode(&mut mri)).transpose()?;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.put_u8(self.class.into());
        out.put_u16(self.code);
        out.put_u8(self.subcode);
        out.put_u8(
            flag(self.session.is_some(), SESSION)
                | flag(self.mri.is_some(), MRI)
                | flag(self.comment.is_some(), COMMENT)
                | flag(self.datagram_mode, DATAGRAM_MODE)
                | flag(self.query_mode, QUERY_MODE),
        );
        out.put_u8(0);
        out.put_u8(u8::try_from(mri.len() / 4).map_err(|_| refused("MRI Length"))?);
        out.put_u8(u8::try_from(self.info.len()).map_err(|_| refused("Info Count"))?);
        out.put_slice(&self.header);
        if let Some(SessionId(session)) = &self.session {
            out.put_slice(session);
        }
        out.put(mri);
        self.info.iter().try_for_each(|info| info.encode(out))?;
        self.comment.as_ref().map_or(Ok(()), |comment| encode_comment(comment, out))
    }
}

impl ErrorInfo {
    fn decode(reader: &mut Reader) -> Result<Self, ValueError> {
        let kind = reader.u16()?;
        let length_offset = reader.position();
        let words = reader.u16()?;
        let value = reader.bytes(usize::from(words) * 4)?;
        let wrong_length = ValueError { fault: ObjectValueFault::IncorrectLength, offset: length_offset };
        // One half word of content and one reserved.
        let short = || match *value {
            [high, low, _, _] => Ok(u16::from_be_bytes([high, low])),
            _ => Err(wrong_length),
        };
        Ok(match kind {
            MESSAGE_LENGTH_INFO => Self::MessageLength(short()?),
            MTU_INFO => Self::LinkMtu(short()?),
            OBJECT_TYPE_INFO => Self::ObjectType(short()?),
            OBJECT_VALUE_INFO => {
                let mut fields = Reader::new(value.clone());
                let words = fields.u16().map_err(|_| wrong_length)? & 0x0fff;
                let offset = fields.u16().map_err(|_| wrong_length)?;
                let object = fields.rest();
                if object.len() != usize::from(words) * 4 {
                    return Err(wrong_length);
                }
                Self::ObjectValue(ObjectValueInfo { offset, object })
            }
            _ => Self::Other { kind, value },
        })
    }

    fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let mut short = |kind: u16, value: u16| {
            out.put_u16(kind);
            out.put_u16(1);
            out.put_u16(value);
            out.put_u16(0);
        };
        match self {
            Self::MessageLength(words) => short(MESSAGE_LENGTH_INFO, *words),
            Self::LinkMtu(bytes) => short(MTU_INFO, *bytes),
            Self::ObjectType(number) => short(OBJECT_TYPE_INFO, *number),
            Self::ObjectValue(info) => {
                let words = whole_words(&info.object).filter(|words| *words <= 0x0fff);
                let words = words.ok_or(refused("Real Object Length"))?;
                out.put_u16(OBJECT_VALUE_INFO);
                out.put_u16(words + 1);
                out.put_u16(words);
                out.put_u16(info.offset);
                out.put_slice(&info.object);
            }
            Self::Other { kind, value } => {
                out.put_u16(*kind);
                out.put_u16(whole_words(value).ok_or(refused("AI-Length"))?);
                out.put_slice(value);
            }
        }
        Ok(())
    }
}

/// The comment ends at its first NUL; only the padding of that word may follow.
fn decode_comment(reader: Reader) -> Result<String, ValueError> {
    let start = reader.position();
    let bytes = reader.rest();
    let wrong_length = ValueError { fault: ObjectValueFault::IncorrectLength, offset: start + bytes.len() };
    let Some((text, _)) = bytes.split(|byte| *byte == 0).next().zip(bytes.contains(&0).then_some(())) else {
        return Err(wrong_length);
    };
    if bytes.len() != text.len() + 1 + padding(text.len() + 1) {
        return Err(wrong_length);
    }
    let unsupported = |valid| ValueError { fault: ObjectValueFault::ValueNotSupported, offset: start + valid };
    core::str::from_utf8(text).map(str::to_owned).map_err(|error| unsupported(error.valid_up_to()))
}

fn encode_comment(comment: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    if comment.contains('\0') {
        return Err(refused("Debugging Comment"));
    }
    out.put_slice(comment.as_bytes());
    out.put_u8(0);
    put_padding(out, comment.len() + 1);
    Ok(())
}

fn whole_words(bytes: &Bytes) -> Option<u16> {
    u16::try_from(bytes.len() / 4).ok().filter(|_| bytes.len().is_multiple_of(4))
}

fn refused(field: &'static str) -> EncodeError {
    EncodeError::Field { object: ObjectType::Error, field }
}
