//! Why a message is refused, and the Notify that says so.

use core::fmt;

use crate::credentials::{BadSignature, CertificateError};
use crate::flow::FlowMismatch;
use crate::wire::{DecodeError, MessageKind, NotifyCode, Permission};

/// A message that may change nothing, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Code of the Notify that answers (appendix C).
    pub code: NotifyCode,
    /// Its detail.
    pub detail: u16,
    /// Number of the message, 0 if it could not be read.
    pub number: u32,
    /// The reason, for people.
    pub reason: String,
}

impl Refusal {
    pub(crate) fn new(code: NotifyCode, detail: u16, number: u32, reason: impl fmt::Display) -> Self {
        Self { code, detail, number, reason: reason.to_string() }
    }

    pub(crate) fn insecure() -> Self {
        Self::new(NotifyCode::NoSecureChannel, 0, 0, "not over a mutually authenticated association")
    }

    pub(crate) fn foreign_application() -> Self {
        Self::new(NotifyCode::UnknownMessageType, 0, 0, "for another signalling application")
    }

    pub(crate) fn undecodable(error: &DecodeError) -> Self {
        let (code, detail) = error.notify();
        Self::new(code, detail, error.number.unwrap_or(0), error)
    }

    pub(crate) fn mismatch(mismatch: FlowMismatch, number: u32) -> Self {
        Self::new(NotifyCode::FlowMismatch, 0, number, mismatch)
    }

    pub(crate) fn misdirected(kind: MessageKind, number: u32) -> Self {
        Self::new(NotifyCode::FlowMismatch, 0, number, format_args!("a {kind:?} does not travel in this direction"))
    }

    pub(crate) fn stale(number: u32, reason: impl fmt::Display) -> Self {
        Self::new(NotifyCode::Stale, 0, number, reason)
    }

    pub(crate) fn overload(number: u32, reason: impl fmt::Display) -> Self {
        Self::new(NotifyCode::Overload, 0, number, reason)
    }

    pub(crate) fn certificate(error: &CertificateError, number: u32) -> Self {
        Self::new(NotifyCode::Certificate, error.detail(), number, error)
    }

    pub(crate) fn no_certificate(number: u32) -> Self {
        const UNTRUSTED: u16 = 2;
        Self::new(NotifyCode::Certificate, UNTRUSTED, number, "cryptographically generated addresses are not accepted")
    }

    pub(crate) fn signature(error: BadSignature, number: u32) -> Self {
        Self::new(NotifyCode::Signature, 0, number, error)
    }

    pub(crate) fn other_key(number: u32) -> Self {
        Self::new(NotifyCode::LocalPolicy, 0, number, "another key holds this flow")
    }

    pub(crate) fn bad_refresh(permission: &Permission) -> Self {
        let period = permission.refresh.as_millis();
        Self::new(NotifyCode::BadValue, 0, permission.number, format_args!("a soft-state period of {period} ms is out of bounds"))
    }

    pub(crate) fn algorithm(number: u32) -> Self {
        Self::new(NotifyCode::AlgorithmRefused, 0, number, "packet authentication not accepted here")
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (Notify {}", self.reason, self.code.number())?;
        if self.detail != 0 {
            write!(f, "/{}", self.detail)?;
        }
        match self.number {
            0 => f.write_str(")"),
            number => write!(f, ", message {number})"),
        }
    }
}
