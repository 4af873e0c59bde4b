//! A message in the making: its objects appended one by one, then signed.

use core::time::Duration;
use std::net::IpAddr;

use bytes::Bytes;
use gist::wire::{NslpId, SessionId};
use zeroize::Zeroizing;

use super::object::HEADER_LENGTH;
use super::secret::wiped_on_drop;
use super::signature::prefix;
use super::{
    BuildError, Credential, Defense, MESSAGE_LIMIT, Malformation, MessageKind, Notify, ObjectType, PuzzleChallenge, SaParameters, Volume,
};
use crate::credentials::{SignError, Signer};
use crate::flow::FlowId;

/// A message in the making. Its buffer never grows beyond its first allocation, so that wiping it wipes all.
pub(super) struct Writer {
    message: Zeroizing<Vec<u8>>,
}

impl Writer {
    pub(super) fn new(kind: MessageKind) -> Self {
        let mut message = Zeroizing::new(Vec::with_capacity(MESSAGE_LIMIT));
        message.extend_from_slice(&[kind.number(), 0, 0, 0]);
        Self { message }
    }

    pub(super) fn flow(&mut self, flow: FlowId) -> Result<(), BuildError> {
        let version = version(flow.source);
        let (source, destination) = (octets(flow.source), octets(flow.destination));
        self.object(
            ObjectType::FID,
            &[
                &[version << 4 | flow.protocol >> 4, flow.protocol << 4, 0, 0],
                &flow.source_port.to_be_bytes(),
                &flow.destination_port.to_be_bytes(),
                &source,
                &destination,
            ],
        )
    }

    pub(super) fn word(&mut self, object: ObjectType, value: u32) -> Result<(), BuildError> {
        self.object(object, &[&value.to_be_bytes()])
    }

    /// Fractions are cut off, which can only shorten a permission.
    pub(super) fn milliseconds(&mut self, object: ObjectType, span: Duration) -> Result<(), BuildError> {
        let reason = Malformation::Value("too long for 32 bits of milliseconds");
        let value = u32::try_from(span.as_millis()).map_err(|_| BuildError::Invalid { object, reason })?;
        self.word(object, value)
    }

    pub(super) fn twin(&mut self, object: ObjectType, volume: Option<Volume>) -> Result<(), BuildError> {
        match volume {
            Some(volume) if volume.needs_twin() => self.object(object, &[&volume.0.to_be_bytes()]),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn credential(&mut self, credential: &Credential, signer: &dyn Signer) -> Result<(), BuildError> {
        match credential {
            Credential::Certificate { certificate, .. } if certificate != signer.certificate() => Err(BuildError::ForeignCertificate),
            Credential::Certificate { certificate, .. } => self.object(ObjectType::PK_CERT, &[certificate]),
            Credential::Cga(cga) => {
                self.object(ObjectType::CGA_PARAMS, &[&cga.modifier, &cga.subnet_prefix, &[cga.collision_count], &cga.public_key])
            }
        }
    }

    pub(super) fn chain(&mut self, credential: &Credential) -> Result<(), BuildError> {
        let Credential::Certificate { chain, .. } = credential else {
            return Ok(());
        };
        if chain.is_empty() {
            return Ok(());
        }
        let mut value = Vec::new();
        for certificate in chain {
            let length = u16::try_from(certificate.len()).map_err(|_| BuildError::TooLarge)?;
            value.extend_from_slice(&length.to_be_bytes());
            value.extend_from_slice(certificate);
        }
        self.object(ObjectType::CERT_CHAIN, &[&value])
    }

    pub(super) fn defense(&mut self, defense: &Defense) -> Result<(), BuildError> {
        let key = match defense {
            Defense::SymmetricKey { key, .. } => key.expose(),
            Defense::NoAction | Defense::PublicKey { .. } | Defense::ChangePath => &[],
        };
        self.object(ObjectType::DEFENSE, &[&[defense.solution(), defense.algorithm_number(), 0, 0], key])
    }

    pub(super) fn sa_parameters(&mut self, sa: SaParameters) -> Result<(), BuildError> {
        let object = ObjectType::SA_PARAMS;
        let reason = Malformation::Value("drain time too long for 16 bits of milliseconds");
        let drain = u16::try_from(sa.drain.as_millis()).map_err(|_| BuildError::Invalid { object, reason })?;
        let flags = if sa.new_epoch { SaParameters::NEW } else { 0 };
        self.object(object, &[&sa.spi.to_be_bytes(), &drain.to_be_bytes(), &[flags, 0]])
    }

    pub(super) fn info(&mut self, notify: &Notify) -> Result<(), BuildError> {
        self.object(
            ObjectType::INFO,
            &[
                &[notify.class, notify.code.number()],
                &notify.detail.to_be_bytes(),
                &notify.number.to_be_bytes(),
                &[version(notify.reporter), 0, 0, 0],
                &octets(notify.reporter),
            ],
        )
    }

    pub(super) fn challenge(&mut self, challenge: PuzzleChallenge) -> Result<(), BuildError> {
        self.object(
            ObjectType::PUZZLE_CHALLENGE,
            &[
                &[challenge.algorithm, challenge.difficulty],
                &challenge.lifetime.to_be_bytes(),
                &challenge.issuer.to_be_bytes(),
                &challenge.nonce.to_be_bytes(),
            ],
        )
    }

    /// Appends an object: header, the parts of its value, padding.
    pub(super) fn object(&mut self, object: ObjectType, parts: &[&[u8]]) -> Result<(), BuildError> {
        let length = parts.iter().map(|part| part.len()).sum();
        self.header(object, length)?;
        for part in parts {
            self.message.extend_from_slice(part);
        }
        self.pad();
        Ok(())
    }

    /// Appends an object header if the whole object will fit.
    fn header(&mut self, object: ObjectType, length: usize) -> Result<(), BuildError> {
        let end = self.message.len() + HEADER_LENGTH + length.next_multiple_of(4);
        let length = u16::try_from(length).map_err(|_| BuildError::TooLarge)?;
        if end > MESSAGE_LIMIT {
            return Err(BuildError::TooLarge);
        }
        self.message.extend_from_slice(&header(object, length));
        Ok(())
    }

    fn pad(&mut self) {
        let padded = self.message.len().next_multiple_of(4);
        self.message.resize(padded, 0);
    }

    /// The message, in a buffer of its own size.
    pub(super) fn finish(self) -> Bytes {
        wiped_on_drop(Zeroizing::new(self.message.to_vec()))
    }

    /// Appends Auth-data over all that is there.
    pub(super) fn sign(mut self, session: SessionId, nslp_id: NslpId, signer: &dyn Signer) -> Result<Bytes, BuildError> {
        let length = signer.signature_length();
        self.header(ObjectType::AUTH_DATA, length)?;
        let mut signed = prefix(session, nslp_id, self.message.len());
        signed.extend_from_slice(&self.message);
        let signature = signer.sign(&signed)?;
        if signature.len() != length {
            return Err(BuildError::Signer(SignError));
        }
        self.message.extend_from_slice(&signature);
        self.pad();
        Ok(self.finish())
    }
}

/// Type in bits 4 to 11, length in bits 16 to 31. Every object that is sent has its fixed A and B bits.
fn header(object: ObjectType, length: u16) -> [u8; 4] {
    let treatment = object.known().map_or(0, |known| known.treatment.bits());
    let [high, low] = length.to_be_bytes();
    [treatment | object.0 >> 4, object.0 << 4, high, low]
}

fn version(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
