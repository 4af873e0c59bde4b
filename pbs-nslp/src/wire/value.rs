//! Object values read from bytes (draft-04 §9.4, appendix B).

use core::time::Duration;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::Bytes;

use super::notify::Info;
use super::{
    CHAIN_LIMIT, CgaParameters, Defense, Malformation, NotifyCode, PublicKeyAlgorithm, PuzzleChallenge, PuzzleSolution, SaParameters,
    SharedKey, SymmetricAlgorithm, VolumeContext,
};
use crate::flow::FlowId;

/// Reads one object's value from front to back. Every shortage is reported with the length of the whole value.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self { rest: value, length: value.len() }
    }

    /// Succeeds if nothing is left.
    pub(super) fn finish(&self) -> Result<(), Malformation> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformation::Length(self.length)) }
    }

    pub(super) fn word(&mut self) -> Result<u32, Malformation> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn long(&mut self) -> Result<u64, Malformation> {
        self.array().map(u64::from_be_bytes)
    }

    /// A time span.
    pub(super) fn milliseconds(&mut self) -> Result<Duration, Malformation> {
        self.word().map(|milliseconds| Duration::from_millis(u64::from(milliseconds)))
    }

    /// Version 4 bits, protocol 8, reserved 20: the text's split, not the figure's.
    pub(super) fn flow(&mut self) -> Result<FlowId, Malformation> {
        let [first, second, _, _] = self.array()?;
        let protocol = first << 4 | second >> 4;
        let source_port = self.half()?;
        let destination_port = self.half()?;
        let source = self.address(first >> 4)?;
        let destination = self.address(first >> 4)?;
        FlowId::new(source, destination, protocol, source_port, destination_port).map_err(Malformation::Flow)
    }

    pub(super) fn certificate(&mut self) -> Result<Bytes, Malformation> {
        self.nonempty_rest()
    }

    pub(super) fn signature(&mut self) -> Result<Bytes, Malformation> {
        self.nonempty_rest()
    }

    pub(super) fn algorithms(&mut self) -> Result<Vec<u8>, Malformation> {
        self.nonempty_rest().map(Vec::from)
    }

    /// One or more certificates, each after its 16-bit length.
    pub(super) fn chain(&mut self) -> Result<Vec<Bytes>, Malformation> {
        let mut chain = Vec::new();
        while chain.is_empty() || !self.rest.is_empty() {
            if chain.len() == CHAIN_LIMIT {
                return Err(Malformation::Value("too many certificates"));
            }
            let length = usize::from(self.half()?);
            if length == 0 {
                return Err(Malformation::Value("empty certificate"));
            }
            chain.push(Bytes::copy_from_slice(self.take(length)?));
        }
        Ok(chain)
    }

    /// Solution, algorithm, 16 reserved bits, key (draft-04 §9.4.9, X-16, X-17).
    pub(super) fn defense(&mut self) -> Result<Defense, Malformation> {
        let [solution, algorithm, _, _] = self.array()?;
        let key = self.take(self.rest.len())?;
        let refused = Malformation::Value("solution and algorithm do not fit");
        let defense = match solution {
            1 if algorithm == 0 => Defense::NoAction,
            2 => {
                let algorithm = SymmetricAlgorithm::from_number(algorithm).ok_or(refused)?;
                let key =
                    SharedKey::new(algorithm, key.to_vec()).map_err(|_| Malformation::Value("key length does not fit the algorithm"))?;
                return Ok(Defense::SymmetricKey { algorithm, key });
            }
            3 => Defense::PublicKey { algorithm: PublicKeyAlgorithm::from_number(algorithm).ok_or(refused)? },
            4 if algorithm == 0 => Defense::ChangePath,
            _ => return Err(refused),
        };
        if key.is_empty() { Ok(defense) } else { Err(Malformation::Value("a key where none belongs")) }
    }

    /// SPI, drain time, flags, reserved.
    pub(super) fn sa_parameters(&mut self) -> Result<SaParameters, Malformation> {
        let spi = self.word()?;
        let drain = Duration::from_millis(u64::from(self.half()?));
        let [flags, _] = self.array()?;
        Ok(SaParameters { spi, drain, new_epoch: flags & SaParameters::NEW != 0 })
    }

    pub(super) fn volume_context(&mut self) -> Result<VolumeContext, Malformation> {
        Ok(VolumeContext { spi: self.word()?, highest: self.word()?, permission: self.word()? })
    }

    pub(super) fn puzzle_solution(&mut self) -> Result<PuzzleSolution, Malformation> {
        Ok(PuzzleSolution { issuer: self.word()?, nonce: self.long()?, solution: self.long()? })
    }

    pub(super) fn puzzle_challenge(&mut self) -> Result<PuzzleChallenge, Malformation> {
        let [algorithm, difficulty] = self.array()?;
        Ok(PuzzleChallenge { algorithm, difficulty, lifetime: self.half()?, issuer: self.word()?, nonce: self.long()? })
    }

    /// The structure of RFC 3972 §3, whose public key and extensions fill the rest.
    pub(super) fn cga(&mut self) -> Result<CgaParameters, Malformation> {
        let modifier = self.array()?;
        let subnet_prefix = self.array()?;
        let [collision_count] = self.array()?;
        Ok(CgaParameters { modifier, subnet_prefix, collision_count, public_key: self.nonempty_rest()? })
    }

    pub(super) fn info(&mut self) -> Result<Info, Malformation> {
        let [class, code] = self.array()?;
        let detail = self.half()?;
        let number = self.word()?;
        let [version, _, _, _] = self.array()?;
        let reporter = self.address(version)?;
        Ok(Info { class, code: NotifyCode::from_number(code), detail, number, reporter })
    }

    /// An address of the given IP version.
    fn address(&mut self, version: u8) -> Result<IpAddr, Malformation> {
        match version {
            4 => Ok(IpAddr::V4(Ipv4Addr::from(self.array::<4>()?))),
            6 => Ok(IpAddr::V6(Ipv6Addr::from(self.array::<16>()?))),
            _ => Err(Malformation::Value("unknown IP version")),
        }
    }

    fn half(&mut self) -> Result<u16, Malformation> {
        self.array().map(u16::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformation> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(Malformation::Length(self.length))?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformation> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformation::Length(self.length))?;
        self.rest = rest;
        Ok(taken)
    }

    /// Copies, so that what is kept of a message does not keep the message, and a key with it, in memory.
    fn nonempty_rest(&mut self) -> Result<Bytes, Malformation> {
        if self.rest.is_empty() {
            return Err(Malformation::Length(0));
        }
        let length = self.rest.len();
        self.take(length).map(Bytes::copy_from_slice)
    }
}
