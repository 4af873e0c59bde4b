//! Messages of PBS (draft-hong-nsis-pbs-nslp-04 §9).

use bytes::Bytes;
use gist::wire::{NslpId, SessionId};
use pbs_nslp::credentials::{SignError, Signer};
use pbs_nslp::wire::{Message, build_notify, build_permission, build_query, decode};

use crate::fuzz::mark;

const SESSION: SessionId = SessionId([0x5e; 16]);
const NSLP: NslpId = NslpId(32704);

/// What is read stays as it came for whoever is to verify it; what is passed on is read the same and is passed on as it is. What it says,
/// written anew, is read the same. What is refused has an offset in it and a Notify for it.
pub(super) fn take(input: &[u8]) -> u64 {
    let bytes = Bytes::copy_from_slice(input);
    let read = |bytes: Bytes| decode(bytes, SESSION, NSLP);
    match read(bytes.clone()) {
        Ok(message) => {
            let (raw, forwarded) = parts(&message);
            assert_eq!(raw, &bytes, "kept as something else than what came");
            assert!(forwarded.len() <= raw.len(), "passed on longer than it came");
            let Ok(again) = read(forwarded.clone()) else { panic!("what is passed on cannot be read: {message:?}") };
            assert_eq!(parts(&again).1, forwarded, "another node passes on something else");
            assert!(says_the_same(&again, &message), "what is passed on says something else: {again:?}, {message:?}");
            if let Some(built) = build(&message) {
                let Ok(rebuilt) = read(built.clone()) else { panic!("what is built of it cannot be read: {message:?}") };
                assert!(says_the_same(&rebuilt, &message), "built, it says something else: {rebuilt:?}, {message:?}");
                assert_eq!(build(&rebuilt).as_ref(), Some(&built), "no canonical form");
            }
            mark(&(message.kind(), forwarded.len() == raw.len(), raw.len() / 24))
        }
        Err(error) => {
            assert!(error.offset <= input.len(), "{error}");
            let (code, detail) = error.notify();
            mark(&(code.number(), detail))
        }
    }
}

fn parts(message: &Message) -> (&Bytes, &Bytes) {
    match message {
        Message::Query(signed) => (&signed.raw, &signed.forwarded),
        Message::Permission(signed) => (&signed.raw, &signed.forwarded),
        Message::Notify(unsigned) => (&unsigned.raw, &unsigned.forwarded),
    }
}

fn says_the_same(one: &Message, other: &Message) -> bool {
    match (one, other) {
        (Message::Query(one), Message::Query(other)) => one.message == other.message && one.signature == other.signature,
        (Message::Permission(one), Message::Permission(other)) => one.message == other.message && one.signature == other.signature,
        (Message::Notify(one), Message::Notify(other)) => one.message == other.message,
        _ => false,
    }
}

/// `None` where no signer stands for its credential.
fn build(message: &Message) -> Option<Bytes> {
    let built = match message {
        Message::Query(signed) => {
            build_query(&signed.message, SESSION, NSLP, &Repeating::of(signed.message.credential.certificate()?, &signed.signature))
        }
        Message::Permission(signed) => {
            build_permission(&signed.message, SESSION, NSLP, &Repeating::of(signed.message.credential.certificate()?, &signed.signature))
        }
        Message::Notify(unsigned) => build_notify(&unsigned.message),
    };
    match built {
        Ok(built) => Some(built),
        Err(error) => panic!("what has been read cannot be built: {error}: {message:?}"),
    }
}

/// "Signs" with the signature that there was.
#[derive(Debug)]
struct Repeating {
    certificate: Bytes,
    chain: Vec<Bytes>,
    signature: Bytes,
}

impl Repeating {
    fn of((certificate, chain): (&Bytes, &[Bytes]), signature: &Bytes) -> Self {
        Self { certificate: certificate.clone(), chain: chain.to_vec(), signature: signature.clone() }
    }
}

impl Signer for Repeating {
    fn certificate(&self) -> &Bytes {
        &self.certificate
    }

    fn chain(&self) -> &[Bytes] {
        &self.chain
    }

    fn signature_length(&self) -> usize {
        self.signature.len()
    }

    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.signature.to_vec())
    }
}
