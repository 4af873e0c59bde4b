//! What the message tests share: bytes written from the draft's pictures, and a signer without cryptography.
#![allow(dead_code, unreachable_pub, reason = "each test program uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use gist::wire::{NslpId, SessionId};
use pbs_nslp::credentials::{SignError, Signer};
use pbs_nslp::flow::FlowId;
use pbs_nslp::wire::{Credential, DecodeError, Message, NotifyCode, decode};

pub const SESSION: SessionId = SessionId([0x5e; 16]);
pub const NSLP: NslpId = NslpId(32704);

pub const QUERY: u8 = 1;
pub const PERMISSION: u8 = 2;
pub const NOTIFY: u8 = 0xF0;

/// Objects as the draft and appendix B draw them, with values that are used all over the tests.
pub mod bytes_of {
    pub const FID: &str = "0010 0010  4110 0000 1388 2328 c000 0201 c633 6402";
    pub const MESSAGE_SEQ: &str = "0020 0004  6a5e 1234";
    pub const REQ_VOL: &str = "0030 0004  0010 0000";
    pub const SEND_VOL: &str = "0040 0004  0000 4000";
    pub const ALLOW_VOL: &str = "0050 0004  0010 0000";
    pub const TTL: &str = "0060 0004  0009 27c0";
    pub const REFRESH: &str = "0070 0004  0000 1388";
    /// Not a certificate, which the codec does not look at: five bytes and three of padding.
    pub const PK_CERT: &str = "0080 0005  3003 0201 2a00 0000";
    pub const DEFENSE: &str = "0090 0024  0202 0000
        0001 0203 0405 0607 0809 0a0b 0c0d 0e0f 1011 1213 1415 1617 1819 1a1b 1c1d 1e1f";
    pub const AUTH_DATA: &str = "00a0 0006  a1a2 a3a4 a5a6 0000";
    pub const SA_PARAMS: &str = "0e00 0008  0000 1001 07d0 8000";
    pub const VOL_CONTEXT: &str = "8e10 000c  0000 1001 0000 0abc 6a5e 1111";
    pub const ECHO: &str = "8e20 0004  6a5e 1234";
    pub const CERT_CHAIN: &str = "8e60 000b  0004 3002 0500 0003 3001 0100";
    pub const CGA_PARAMS: &str = "0e70 001c  0102 0304 0506 0708 090a 0b0c 0d0e 0f10 2001 0db8 0000 0001 01 3081aa";
    pub const ALGS: &str = "8e80 0002  0201 0000";
    pub const PUZZLE_SOLUTION: &str = "8e90 0014  0000 0007 1111 1111 2222 2222 3333 3333 4444 4444";
    pub const INFO: &str = "4ea0 0010  0308 0002 6a5e 1234 0400 0000 c000 02fe";
    pub const PUZZLE_CHALLENGE: &str = "4eb0 0010  010c 001e 0000 0007 1111 1111 2222 2222";
}

/// The flow of [`bytes_of::FID`]: 192.0.2.1 port 5000 to 198.51.100.2 port 9000, UDP.
pub fn flow() -> FlowId {
    FlowId::new("192.0.2.1".parse().unwrap(), "198.51.100.2".parse().unwrap(), 17, 5000, 9000).unwrap()
}

pub fn hex(text: &str) -> Vec<u8> {
    hex::decode(text.split_whitespace().collect::<String>()).unwrap()
}

/// A message from its type and its objects in hexadecimal.
pub fn message(kind: u8, objects: &[&str]) -> Vec<u8> {
    let mut bytes = vec![kind, 0, 0, 0];
    bytes.extend(objects.iter().flat_map(|object| hex(object)));
    bytes
}

/// The objects that a Query cannot do without.
pub fn least_query() -> Vec<&'static str> {
    use bytes_of::*;
    vec![FID, MESSAGE_SEQ, REQ_VOL, PK_CERT, AUTH_DATA]
}

/// The objects that a Permission with a volume cannot do without.
pub fn least_permission() -> Vec<&'static str> {
    use bytes_of::*;
    vec![FID, MESSAGE_SEQ, ALLOW_VOL, TTL, REFRESH, PK_CERT, DEFENSE, SA_PARAMS, AUTH_DATA]
}

pub fn decode_bytes(bytes: &[u8]) -> Result<Message, DecodeError> {
    decode(Bytes::copy_from_slice(bytes), SESSION, NSLP)
}

/// Decodes what must be refused, and gives code and detail of the answer.
pub fn refusal(bytes: &[u8]) -> (NotifyCode, u16) {
    decode_bytes(bytes).expect_err("refused").notify()
}

/// The credential of [`bytes_of::PK_CERT`].
pub fn credential() -> Credential {
    Credential::Certificate { certificate: Bytes::from_static(&[0x30, 3, 2, 1, 0x2a]), chain: Vec::new() }
}

/// "Signs" with the fixed bytes of [`bytes_of::AUTH_DATA`].
#[derive(Debug)]
pub struct FixedSigner {
    certificate: Bytes,
}

impl FixedSigner {
    pub fn new() -> Self {
        Self { certificate: Bytes::from_static(&[0x30, 3, 2, 1, 0x2a]) }
    }

    /// With another certificate.
    pub fn with_certificate(certificate: Bytes) -> Self {
        Self { certificate }
    }
}

impl Signer for FixedSigner {
    fn certificate(&self) -> &Bytes {
        &self.certificate
    }

    fn chain(&self) -> &[Bytes] {
        &[]
    }

    fn signature_length(&self) -> usize {
        6
    }

    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(vec![0xa1, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6])
    }
}
