//! GIST messages (RFC 5971 Appendix A).

use bytes::{Bytes, BytesMut};
use gist::wire::{Body, ErrorBody, Message, Mri, NslpId};

use crate::fuzz::mark;

/// An Error about anything that cannot be read is no longer.
const LONGEST_REPORT: usize = 1200;

/// What is read is written in its canonical form: reserved bits and padding 0, and no NSLPID where none is meant. That is no longer than
/// what came, and is read the same. What is refused can be reported, unless it is an Error itself.
pub(super) fn take(input: &[u8]) -> u64 {
    let bytes = Bytes::copy_from_slice(input);
    match Message::decode(bytes) {
        Ok(message) => {
            let Ok(written) = message.to_bytes() else { panic!("what has been read cannot be written: {message:?}") };
            assert!(written.len() <= input.len(), "written longer than read: {message:?}");
            let without = matches!(message.body, Body::Error(_) | Body::Hello(_));
            let nslp_id = if without { NslpId::NONE } else { message.nslp_id };
            let canonical = Message { nslp_id, ..message };
            assert_eq!(Message::decode(written.clone()).as_ref(), Ok(&canonical), "not the same again");
            assert_eq!(canonical.to_bytes().as_ref(), Ok(&written), "no canonical form");
            mark(&(true, std::mem::discriminant(&canonical.body), canonical.unknown.len().min(3), written.len() / 32))
        }
        Err(error) => {
            let report = error.to_gist_error();
            assert_eq!(report.is_none(), input.len() < 8 || error.is_about_error_message(), "{error}");
            if let Some(error) = report {
                let body = Body::Error(ErrorBody { nat: None, nli: None, error });
                let message = Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() };
                let Ok(written) = message.to_bytes() else { panic!("the report cannot be written: {message:?}") };
                assert!(written.len() <= LONGEST_REPORT, "{} octets to say what is wrong", written.len());
                assert_eq!(Message::decode(written), Ok(message), "the report is not read the same");
            }
            mark(&(false, std::mem::discriminant(&error.fault), error.to_string().split(|letter: char| letter.is_ascii_digit()).next()))
        }
    }
}

/// The same of the object that says where messages go.
pub(super) fn take_routing(input: &[u8]) -> u64 {
    match Mri::decode(Bytes::copy_from_slice(input)) {
        Ok(mri) => {
            let mut written = BytesMut::new();
            assert_eq!(mri.encode(&mut written), Ok(()), "what has been read cannot be written: {mri:?}");
            assert!(written.len() <= input.len(), "written longer than read: {mri:?}");
            assert_eq!(Mri::decode(written.freeze()).as_ref(), Ok(&mri), "not the same again");
            assert_eq!(mri.inverted().inverted(), mri);
            mark(&(true, std::mem::discriminant(&mri), input.len()))
        }
        Err(error) => mark(&(false, error.to_string())),
    }
}
