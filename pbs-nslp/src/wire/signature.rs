//! Which bytes a signature covers.

use gist::wire::{NslpId, SessionId};
use zeroize::Zeroizing;

use super::object::HEADER_LENGTH;
use super::scan::Scan;
use super::{ObjectType, Treatment};

/// Keeps these signatures apart from those of any other protocol.
const LABEL: &[u8] = b"PBS-NSLP-SIG-1\0";

/// Label, session and NSLP identifiers, 16 and 2 bytes.
const PREFIX_LENGTH: usize = LABEL.len() + 16 + 2;

/// Label and pseudo-header, with room for the message after them so that no reallocation leaves a copy of its key behind.
pub(super) fn prefix(session: SessionId, nslp_id: NslpId, message_length: usize) -> Zeroizing<Vec<u8>> {
    let mut signed = Zeroizing::new(Vec::with_capacity(PREFIX_LENGTH.saturating_add(message_length)));
    signed.extend_from_slice(LABEL);
    signed.extend_from_slice(&session.0);
    signed.extend_from_slice(&nslp_id.0.to_be_bytes());
    signed
}

/// The signed bytes of a received message: prefix, common header, every object before Auth-data but those marked AB=01,
/// all as transmitted, and the header of Auth-data.
pub(super) fn signed_bytes(raw: &[u8], scan: &Scan, session: SessionId, nslp_id: NslpId) -> Zeroizing<Vec<u8>> {
    let mut signed = prefix(session, nslp_id, raw.len());
    signed.extend_from_slice(raw.get(..HEADER_LENGTH).unwrap_or_default());
    for object in &scan.objects {
        if object.object == ObjectType::AUTH_DATA {
            let header = object.whole.start..object.value.start;
            signed.extend_from_slice(raw.get(header).unwrap_or_default());
            break;
        }
        if object.treatment != Treatment::Ignore {
            signed.extend_from_slice(raw.get(object.whole.clone()).unwrap_or_default());
        }
    }
    signed
}
