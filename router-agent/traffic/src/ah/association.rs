//! A security association at whoever checks packets: router or receiver.

use super::overhead;
use super::view::AhView;
use crate::algorithm::IcvKey;
use crate::checks::Checks;
use crate::packet::{IpPacket, Malformed};
use crate::reason::DropReason;
use crate::replay::{Numbering, Replay, Window};

/// Why a packet fails under an association (RFC 4302 §3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejection {
    /// A fragment, which AH must never see (§3.4.1).
    Fragment,
    /// No AH.
    NoAh,
    /// The SPI is not this association's (§3.4.2).
    OtherSpi,
    /// The AH is not as long as the algorithm's ICV makes it (§2.6).
    Length,
    /// The sequence number is not acceptable (§3.4.3).
    Replayed(Replay),
    /// The ICV is wrong (§3.4.4).
    Icv,
}

impl From<Rejection> for DropReason {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Fragment => DropReason::FragmentNotReassembled,
            Rejection::NoAh => DropReason::MissingAh,
            Rejection::OtherSpi => DropReason::UnknownSpi,
            Rejection::Length => DropReason::Malformed,
            Rejection::Replayed(_) => DropReason::Replayed,
            Rejection::Icv => DropReason::BadIcv,
        }
    }
}

impl From<Malformed> for DropReason {
    fn from(_: Malformed) -> Self {
        DropReason::Malformed
    }
}

/// A packet that passed; to be handed to [`InboundAssociation::commit`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Verified {
    /// Its whole sequence number.
    pub number: u64,
    /// The first octets of its ICV.
    pub tag: [u8; 4],
}

/// SPI, key and window.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct InboundAssociation {
    spi: u32,
    window: Window,
    key: IcvKey,
}

impl InboundAssociation {
    /// An association that checks packets under `spi`.
    pub const fn new(spi: u32, key: IcvKey, window: Window) -> Self {
        Self { spi, key, window }
    }

    /// Its SPI.
    pub const fn spi(&self) -> u32 {
        self.spi
    }

    /// Its key.
    pub const fn key(&self) -> &IcvKey {
        &self.key
    }

    /// Its window.
    pub const fn window(&self) -> &Window {
        &self.window
    }

    /// Something of each of its parts: who looks at it has them in the processor's cache.
    pub(crate) fn touch(&self) -> u64 {
        self.window.touch() ^ u64::from(self.spi) ^ self.key.touch()
    }

    /// Judges a packet in the order of RFC 4302 §3.4: reassembled, known SPI, length, number, ICV. Changes nothing.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub fn verify(&self, packet: &IpPacket<'_>, checks: &dyn Checks) -> Result<Verified, Rejection> {
        let number = self.precheck(packet, checks)?;
        self.verify_numbered(packet, number, None, checks)
    }

    /// What is left of [`verify`](Self::verify) after [`precheck`](Self::precheck), which gave `number`: the ICV. `answer` says whether it
    /// is right under a short number, if [`Checks::icvs_match`] has told that ahead.
    ///
    /// # Errors
    ///
    /// A wrong ICV.
    pub(crate) fn verify_numbered(
        &self,
        packet: &IpPacket<'_>,
        number: u64,
        answer: Option<bool>,
        checks: &dyn Checks,
    ) -> Result<Verified, Rejection> {
        let high = self.high(number);
        if !answer.filter(|_| high.is_none()).unwrap_or_else(|| checks.icv_matches(packet, &self.key, high)) {
            return Err(Rejection::Icv);
        }
        packet.ah().map(|ah| Verified { number, tag: self.tag(ah) }).ok_or(Rejection::NoAh)
    }

    /// The checks of [`verify`](Self::verify) that need no key. Gives the packet's whole number.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub fn precheck(&self, packet: &IpPacket<'_>, checks: &dyn Checks) -> Result<u64, Rejection> {
        let ah = self.admit(packet)?;
        // A number before the first one is older than any window.
        let number = self.window.number(ah.sequence()).ok_or(Rejection::Replayed(Replay::TooOld))?;
        checks.window_allows(&self.window, number).map_err(Rejection::Replayed)?;
        Ok(number)
    }

    /// Judges the ICV alone, for known answers: the window plays no part and `high` is given.
    ///
    /// # Errors
    ///
    /// The first check that fails.
    pub fn verify_icv(&self, packet: &IpPacket<'_>, high: Option<u32>, checks: &dyn Checks) -> Result<(), Rejection> {
        self.admit(packet)?;
        if checks.icv_matches(packet, &self.key, high) { Ok(()) } else { Err(Rejection::Icv) }
    }

    /// Moves the window over a packet that [`verify`](Self::verify) has let pass.
    pub fn commit(&mut self, verified: Verified) {
        self.window.commit(verified.number, verified.tag);
    }

    /// Whether this packet and an earlier one share a number under two different ICVs that are both right: somebody
    /// else holds the key (E4, X-42). `false` if the window keeps no ICV tags.
    pub fn shows_second_holder(&self, packet: &IpPacket<'_>, checks: &dyn Checks) -> bool {
        self.resembles_seen(packet).is_some_and(|number| checks.icv_matches(packet, &self.key, self.high(number)))
    }

    /// The number of a packet that came under another ICV before, right or wrong as this one may be; `None` for a copy and for any
    /// other packet.
    pub fn resembles_seen(&self, packet: &IpPacket<'_>) -> Option<u64> {
        let ah = self.admit(packet).ok()?;
        let number = self.window.number(ah.sequence())?;
        self.window.tag(number).is_some_and(|earlier| earlier != self.tag(ah)).then_some(number)
    }

    /// Length of the shortest packet that there can be under this association: headers and nothing else.
    pub fn shortest(&self, is_ipv6: bool) -> usize {
        let header = if is_ipv6 { 40 } else { 20 };
        header + overhead(self.key.algorithm(), is_ipv6)
    }

    /// Number and first octets of the ICV of a packet that comes too late for the window; `None` for any other.
    pub fn too_late(&self, packet: &IpPacket<'_>) -> Option<(u64, [u8; 4])> {
        let ah = self.admit(packet).ok()?;
        let number = self.window.number(ah.sequence())?;
        (self.window.check(number) == Err(Replay::TooOld)).then(|| (number, self.tag(ah)))
    }

    /// What needs no secret: reassembled, an AH, its SPI, its length.
    fn admit<'a>(&self, packet: &'a IpPacket<'_>) -> Result<&'a AhView<'a>, Rejection> {
        if packet.fragment().is_some() {
            return Err(Rejection::Fragment);
        }
        let ah = packet.ah().ok_or(Rejection::NoAh)?;
        if ah.spi() != self.spi {
            return Err(Rejection::OtherSpi);
        }
        let algorithm = self.key.algorithm();
        // The least padding is the rule (§3.3.3.2.1). Linux pads to 8 octets on IPv4 as well unless told otherwise; the
        // padding is under the ICV, so that taking both lengths there gives nothing away.
        let longer = overhead(algorithm, true);
        let expected = overhead(algorithm, packet.source().is_ipv6());
        if ah.header_len() != expected && ah.header_len() != longer {
            return Err(Rejection::Length);
        }
        Ok(ah)
    }

    fn high(&self, number: u64) -> Option<u32> {
        match self.window.numbering() {
            Numbering::Short => None,
            Numbering::Extended => u32::try_from(number >> 32).ok(),
        }
    }

    /// What tells the ICVs under one number apart (E4, T3): the first octets of the ICV, whatever the algorithm, behind the
    /// initialization vector, which is the same for all of them.
    ///
    /// Two right ICVs of one packet must have one tag, or whoever can turn a signature into another right one, without any key, makes
    /// evidence against the sender. That can be done on P-256: of (r, s) anybody makes (r, n - s). The tag is of r alone, which stands
    /// first, and a different r needs the key. Ed25519 has one right S for each R, which stands first too (RFC 8032 §5.1.7: S
    /// below L is checked); RSA has one right value below the modulus for each padded hash. Were a signature ever encoded otherwise, the
    /// tag would have to be taken from elsewhere. GMAC has one right value for each initialization vector, and to make the value for
    /// another one needs the key.
    fn tag(&self, ah: &AhView<'_>) -> [u8; 4] {
        let value = ah.icv_field().get(self.key.algorithm().iv_len()..).unwrap_or_default();
        value.first_chunk().copied().unwrap_or_default()
    }
}
