//! Byte buffers that are wiped when their last holder lets go: a Permission carries the shared key (P-095).

use bytes::Bytes;
use zeroize::Zeroizing;

/// Takes over a buffer; its memory is wiped once no clone or slice is left.
pub(super) fn wiped_on_drop(buffer: Zeroizing<Vec<u8>>) -> Bytes {
    Bytes::from_owner(buffer)
}
