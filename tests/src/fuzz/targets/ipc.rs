//! Lines of programs on the socket of applications.

use gist::io::ipc::Asked;
use gist::wire::NslpId;

use super::nodes;
use crate::fuzz::mark;

/// What is read is written so that it is read the same, and a node takes what it asks for.
pub(super) fn take(input: &[u8]) -> u64 {
    match Asked::read(input) {
        Ok(Asked { id, request }) => {
            let Ok(written) = serde_json::to_vec(&request) else { panic!("what has been read cannot be written: {request:?}") };
            let again = Asked::read(&written).ok();
            assert_eq!(again, Some(Asked { id: None, request: request.clone() }), "not the same again");
            let kind = std::mem::discriminant(&request);
            let asked = request.of_application(NslpId(nodes::APPLICATION)).map(|request| nodes::ask(request, input.len()));
            mark(&(kind, asked, id.is_some()))
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() <= input.len() + 400, "{} octets to say what is wrong", text.len());
            mark(&text.split(|letter: char| letter.is_ascii_digit() || letter == '`' || letter == '"').next())
        }
    }
}
