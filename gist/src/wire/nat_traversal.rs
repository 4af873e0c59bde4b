//! NAT-Traversal (RFC 5971 A.3.9): what NATs on the path have changed in a message.

use bytes::{BufMut, Bytes, BytesMut};

use super::decode_error::ValueError;
use super::encode_error::EncodeError;
use super::mri::Mri;
use super::object::{ObjectType, padding, put_padding};
use super::reader::Reader;

/// The message's original routing information, and notes of the NATs it has passed.
///
/// ```text
/// | MRI-Length    | Type-Count    |  NAT-Count    |  Reserved     |
/// //            Original Message-Routing-Information             //
/// //                 List of translated objects                  //
/// | Length of opaque information  |  Information of NAT #1 …     //
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NatTraversal {
    /// The MRI with which the message was first sent.
    pub original: Mri,
    /// The objects every NAT has translated, as the first 16 bits of their headers (A, B, two reserved bits, type).
    pub translated: Vec<u16>,
    /// What each NAT noted for itself, first NAT first, at most 65535 bytes each.
    pub opaque: Vec<Bytes>,
}

impl NatTraversal {
    /// Whether every NAT has translated objects of this type.
    #[must_use]
    pub fn translates(&self, kind: ObjectType) -> bool {
        self.translated.iter().any(|header| ObjectType::from_number(*header) == kind)
    }

    /// The first object with addresses that is in the message and not translated. Stack-Configuration-Data of a Query
    /// holds none.
    pub(super) fn untranslated(&self, is_present: impl Fn(ObjectType) -> bool) -> Option<ObjectType> {
        [ObjectType::MessageRoutingInformation, ObjectType::NetworkLayerInformation]
            .into_iter()
            .find(|kind| is_present(*kind) && !self.translates(*kind))
    }

    /// The same in memory of its own: what came in a message is a part of that, and keeps it as long as it is kept.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { opaque: self.opaque.iter().map(|note| Bytes::copy_from_slice(note)).collect(), ..self.clone() }
    }

    /// Reads an object's value.
    ///
    /// # Errors
    ///
    /// `IncorrectLength` if the value is not exactly as long as its fields make it, and what [`Mri::decode`] refuses.
    pub fn decode(value: Bytes) -> Result<Self, ValueError> {
        let mut reader = Reader::new(value);
        let [mri_words, type_count, nat_count, _reserved] = reader.array()?;
        let mri_offset = reader.position();
        let mri = reader.bytes(usize::from(mri_words) * 4)?;
        let original = Mri::decode(mri).map_err(|error| ValueError { offset: mri_offset + error.offset, ..error })?;
        let translated = (0..type_count).map(|_| reader.u16()).collect::<Result<_, _>>()?;
        reader.bytes(padding(usize::from(type_count) * 2))?;
        let opaque = (0..nat_count)
            .map(|_| {
                let length = usize::from(reader.u16()?);
                reader.padded_bytes(length, padding(2 + length))
            })
            .collect::<Result<_, _>>()?;
        reader.finish()?;
        Ok(Self { original, translated, opaque })
    }

    /// Writes an object's value.
    ///
    /// # Errors
    ///
    /// [`EncodeError::Field`] if a list or a note is too long, or the original MRI cannot be written.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        let refused = |field| EncodeError::Field { object: ObjectType::NatTraversal, field };
        let count = |length: usize, field| u8::try_from(length).map_err(|_| refused(field));
        let mut original = BytesMut::new();
        self.original.encode(&mut original)?;
        out.put_u8(count(original.len() / 4, "MRI-Length")?);
        out.put_u8(count(self.translated.len(), "Type-Count")?);
        out.put_u8(count(self.opaque.len(), "NAT-Count")?);
        out.put_u8(0);
        out.put(original);
        self.translated.iter().for_each(|header| out.put_u16(*header));
        put_padding(out, self.translated.len() * 2);
        for note in &self.opaque {
            out.put_u16(u16::try_from(note.len()).map_err(|_| refused("Length of opaque information"))?);
            out.put_slice(note);
            put_padding(out, 2 + note.len());
        }
        Ok(())
    }
}
