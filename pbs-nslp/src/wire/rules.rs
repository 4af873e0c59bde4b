//! Rules between the values of one message, the same for messages received and messages to build.

use super::{CHAIN_LIMIT, Credential, Malformation, ObjectType, Permission, Query, SaParameters};
use crate::flow::FlowId;

/// An object at fault and what is wrong with it.
pub(super) type Violation = (ObjectType, Malformation);

impl Query {
    /// Mandatory volumes and what goes with them (P-023).
    pub(super) fn check(&self) -> Result<(), Violation> {
        if self.requested.is_none() && self.sent.is_none() {
            return Err((ObjectType::REQ_VOL, Malformation::Missing));
        }
        if self.algorithms.as_ref().is_some_and(Vec::is_empty) {
            return Err((ObjectType::ALGS, Malformation::Length(0)));
        }
        self.credential.check(self.flow)
    }
}

impl Permission {
    /// Zero rules, Defense and SA-Params (P-024, P-066, X-25, X-53, X-74).
    pub(super) fn check(&self) -> Result<(), Violation> {
        let removal = self.allowed.is_zero();
        if !removal && self.refresh.as_millis() == 0 {
            return Err((ObjectType::REFRESH, Malformation::Value("zero although a volume is allowed")));
        }
        if !removal && self.defense.is_none() {
            return Err((ObjectType::DEFENSE, Malformation::Missing));
        }
        let needs_association = self.defense.as_ref().is_some_and(super::Defense::has_association);
        match self.sa {
            None if needs_association => return Err((ObjectType::SA_PARAMS, Malformation::Missing)),
            Some(_) if !needs_association && !removal => {
                let reason = Malformation::Combination("goes only with Solutions 2 and 3");
                return Err((ObjectType::SA_PARAMS, reason));
            }
            Some(sa) if sa.spi < SaParameters::FIRST_SPI => {
                return Err((ObjectType::SA_PARAMS, Malformation::Value("reserved SPI")));
            }
            Some(_) | None => {}
        }
        self.credential.check(self.flow)
    }
}

impl Credential {
    fn check(&self, flow: FlowId) -> Result<(), Violation> {
        match self {
            Self::Certificate { certificate, .. } if certificate.is_empty() => Err((ObjectType::PK_CERT, Malformation::Length(0))),
            Self::Certificate { chain, .. } if chain.len() > CHAIN_LIMIT => {
                Err((ObjectType::CERT_CHAIN, Malformation::Value("too many certificates")))
            }
            Self::Certificate { chain, .. } if chain.iter().any(|certificate| certificate.is_empty()) => {
                Err((ObjectType::CERT_CHAIN, Malformation::Value("empty certificate")))
            }
            Self::Cga(cga) if cga.public_key.is_empty() => Err((ObjectType::CGA_PARAMS, Malformation::Length(25))),
            Self::Cga(_) if flow.source.is_ipv4() => Err((ObjectType::CGA_PARAMS, Malformation::Value("needs an IPv6 flow"))),
            Self::Certificate { .. } | Self::Cga(_) => Ok(()),
        }
    }
}
