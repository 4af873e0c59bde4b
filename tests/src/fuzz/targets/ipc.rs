//! Lines of programs on the socket of applications.

use gist::io::ipc::Request;
use gist::wire::NslpId;

use super::nodes;
use crate::fuzz::mark;

/// What is read is written so that it is read the same, and a node takes what it asks for.
pub(super) fn take(input: &[u8]) -> u64 {
    match Request::read(input) {
        Ok(request) => {
            let Ok(written) = serde_json::to_vec(&request) else { panic!("what has been read cannot be written: {request:?}") };
            let again = Request::read(&written);
            assert_eq!(again.ok().as_ref(), Some(&request), "not the same again");
            let kind = std::mem::discriminant(&request);
            let asked = request.of_application(NslpId(nodes::APPLICATION)).map(|request| nodes::ask(request, input.len()));
            mark(&(kind, asked))
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() <= input.len() + 400, "{} octets to say what is wrong", text.len());
            mark(&text.split(|letter: char| letter.is_ascii_digit() || letter == '`' || letter == '"').next())
        }
    }
}
