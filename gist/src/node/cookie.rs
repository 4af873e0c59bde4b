//! Responder-Cookies: proof, without stored state, that a Confirm answers a Response of ours (RFC 5971 §8.5).
//!
//! ```text
//! | generation, 8 bytes | interface, 4 | distance known, distance, 0, 0 | MAC, 16 |
//! | address as IPv6, 16 | MRI |                       only of a flow that a NAT has translated
//! ```
//!
//! The generation is the liveness: it names the secret that made the MAC, looks random, and is compared first. Secrets
//! follow from the seed and the time, so nothing is stored for them and a node that forgets its tables still knows its cookies.

use core::net::IpAddr;
use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use subtle::ConstantTimeEq;

use super::Backend;
use super::random::Secret;
use super::translation::Translation;
use crate::time::Instant;
use crate::wire::{Cookie, Mri, NslpId, PeerIdentity, SessionId, StackProposal};

const GENERATION_LENGTH: usize = 8;
const ARRIVAL_LENGTH: usize = 8;
const MAC_LENGTH: usize = 16;

/// What a cookie is good for and nothing else (G-332).
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'a> {
    pub(super) nslp_id: NslpId,
    pub(super) session: SessionId,
    /// In the direction of the Query.
    pub(super) mri: &'a Mri,
    /// The querying node by its NLI.
    pub(super) peer: &'a PeerIdentity,
    pub(super) address: IpAddr,
    /// The proposal in the same Response.
    pub(super) proposal: Option<&'a StackProposal>,
}

/// What the Query showed and the Confirm cannot show again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Arrival {
    pub(super) interface: u32,
    pub(super) ip_distance: Option<u8>,
}

/// Why a cookie is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum BadCookie {
    /// Not of a living generation; no MAC was computed.
    Stale,
    /// Of a living generation, and not made for this.
    Forged,
}

/// Makes and judges Responder-Cookies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct ResponderCookies {
    seed: Secret,
    lifetime: Duration,
    current: Generation,
    previous: Option<Generation>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Generation {
    number: u64,
    name: [u8; GENERATION_LENGTH],
    secret: Secret,
}

impl Generation {
    fn new(seed: &Secret, backend: &dyn Backend, number: u64) -> Self {
        let mut name = [0; GENERATION_LENGTH];
        name.iter_mut().zip(seed.output(backend, b"generation", number)).for_each(|(to, from)| *to = from);
        Self { number, name, secret: seed.derive(backend, b"secret", number) }
    }
}

impl ResponderCookies {
    /// A secret lives `lifetime` and is accepted for as long again.
    pub(super) fn new(seed: &Secret, backend: &dyn Backend, lifetime: Duration) -> Self {
        let seed = seed.derive(backend, b"GIST Responder-Cookie", 0);
        let current = Generation::new(&seed, backend, 0);
        Self { seed, lifetime: lifetime.max(Duration::from_millis(1)), current, previous: None }
    }

    pub(super) fn make(
        &mut self,
        backend: &dyn Backend,
        bound: &Bound<'_>,
        arrival: Arrival,
        translation: Option<&Translation>,
        now: Instant,
    ) -> Option<Cookie> {
        self.roll(backend, now);
        let arrival = encode_arrival(arrival);
        let translation = translation.map_or_else(|| Some(BytesMut::new()), encode_translation)?;
        let mac = mac(&self.current, backend, bound, arrival, &translation)?;
        Cookie::new([self.current.name.as_slice(), &arrival, &mac, &translation].concat())
    }

    /// The translation that a cookie says it carries; what of it is true [`Self::check`] says.
    pub(super) fn translation_in(cookie: &Cookie) -> Option<Translation> {
        let carried = cookie.as_bytes().get(GENERATION_LENGTH + ARRIVAL_LENGTH + MAC_LENGTH..)?;
        let (address, mri) = carried.split_first_chunk::<16>()?;
        let local = Mri::decode(Bytes::copy_from_slice(mri)).ok()?;
        Some(Translation { local, address: IpAddr::from(*address).to_canonical() })
    }

    /// Judges a cookie that came back; `macs` counts the MACs computed for it.
    ///
    /// # Errors
    ///
    /// [`BadCookie`]. The generation is looked at first (G-334), the MAC in constant time.
    pub(super) fn check(
        &mut self,
        backend: &dyn Backend,
        cookie: &Cookie,
        bound: &Bound<'_>,
        now: Instant,
        macs: &mut u64,
    ) -> Result<Arrival, BadCookie> {
        self.roll(backend, now);
        let (name, rest) = cookie.as_bytes().split_first_chunk::<GENERATION_LENGTH>().ok_or(BadCookie::Stale)?;
        let alive = [Some(&self.current), self.previous.as_ref()];
        let generation = alive.into_iter().flatten().find(|generation| generation.name == *name).ok_or(BadCookie::Stale)?;
        let (arrival, rest) = rest.split_first_chunk::<ARRIVAL_LENGTH>().ok_or(BadCookie::Forged)?;
        let (shown, translation) = rest.split_first_chunk::<MAC_LENGTH>().ok_or(BadCookie::Forged)?;
        *macs += 1;
        let expected = mac(generation, backend, bound, *arrival, translation).ok_or(BadCookie::Forged)?;
        if bool::from(expected.as_slice().ct_eq(shown.as_slice())) { Ok(decode_arrival(*arrival)) } else { Err(BadCookie::Forged) }
    }

    /// Secrets follow the time; a clock that stands still or runs back keeps the current one.
    fn roll(&mut self, backend: &dyn Backend, now: Instant) {
        let lifetime = u64::try_from(self.lifetime.as_micros()).unwrap_or(u64::MAX);
        let number = now.micros() / lifetime;
        if number <= self.current.number {
            return;
        }
        self.previous = Some(Generation::new(&self.seed, backend, number - 1));
        self.current = Generation::new(&self.seed, backend, number);
    }
}

fn encode_arrival(arrival: Arrival) -> [u8; ARRIVAL_LENGTH] {
    let [a, b, c, d] = arrival.interface.to_be_bytes();
    [a, b, c, d, u8::from(arrival.ip_distance.is_some()), arrival.ip_distance.unwrap_or(0), 0, 0]
}

fn decode_arrival(bytes: [u8; ARRIVAL_LENGTH]) -> Arrival {
    let [a, b, c, d, known, distance, _, _] = bytes;
    Arrival { interface: u32::from_be_bytes([a, b, c, d]), ip_distance: (known != 0).then_some(distance) }
}

fn encode_translation(translation: &Translation) -> Option<BytesMut> {
    let mut out = BytesMut::new();
    out.put_slice(&octets(translation.address));
    translation.local.encode(&mut out).ok()?;
    Some(out)
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// `None` if the bound values cannot be written, so that no such message can have been received or sent.
fn mac(
    generation: &Generation,
    backend: &dyn Backend,
    bound: &Bound<'_>,
    arrival: [u8; ARRIVAL_LENGTH],
    translation: &[u8],
) -> Option<[u8; MAC_LENGTH]> {
    let mut text = BytesMut::new();
    text.put_slice(&generation.name);
    text.put_slice(&arrival);
    text.put_u16(bound.nslp_id.0);
    text.put_slice(&bound.session.0);
    put_sized(&mut text, |value| bound.mri.encode(value).ok())?;
    let identity = bound.peer.as_bytes();
    text.put_u32(u32::try_from(identity.len()).ok()?);
    text.put_slice(identity);
    text.put_slice(&octets(bound.address));
    if let Some(proposal) = bound.proposal {
        put_sized(&mut text, |value| proposal.encode(value).ok())?;
    }
    if !translation.is_empty() {
        // No proposal begins like this: its length would be 0.
        text.put_u32(0);
        text.put_slice(translation);
    }
    let full = generation.secret.mac(backend, &text);
    full.first_chunk().copied()
}

/// Each part of variable length is preceded by its length, so that no two different bindings read the same.
fn put_sized(text: &mut BytesMut, write: impl FnOnce(&mut BytesMut) -> Option<()>) -> Option<()> {
    let mut value = BytesMut::new();
    write(&mut value)?;
    text.put_u32(u32::try_from(value.len()).ok()?);
    text.put(value);
    Some(())
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::Ordering;

    use super::super::test_backend::TestBackend;
    use super::*;
    use crate::wire::{Direction, LooseEnd, Profile};

    const ARRIVAL: Arrival = Arrival { interface: 3, ip_distance: Some(2) };

    struct Setting {
        backend: TestBackend,
        cookies: ResponderCookies,
        mri: Mri,
        peer: PeerIdentity,
        proposal: StackProposal,
        macs: u64,
    }

    impl Setting {
        fn new() -> Self {
            let backend = TestBackend::default();
            let cookies = ResponderCookies::new(&Secret::new([1; 32]), &backend, Duration::from_secs(30));
            let [source, destination] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().unwrap());
            Self {
                backend,
                cookies,
                mri: Mri::LooseEnd(LooseEnd { direction: Direction::Downstream, source, destination }),
                peer: PeerIdentity::new(vec![9; 16]).unwrap(),
                proposal: StackProposal { profiles: vec![Profile::tls_over_tcp()] },
                macs: 0,
            }
        }

        fn bound(&self) -> Bound<'_> {
            Bound {
                nslp_id: NslpId(32704),
                session: SessionId([4; 16]),
                mri: &self.mri,
                peer: &self.peer,
                address: self.mri.source(),
                proposal: Some(&self.proposal),
            }
        }

        fn make(&mut self, seconds: u64) -> Cookie {
            let mut cookies = self.cookies.clone();
            let cookie = cookies.make(&self.backend, &self.bound(), ARRIVAL, None, at(seconds)).unwrap();
            self.cookies = cookies;
            cookie
        }

        fn check(&mut self, cookie: &Cookie, seconds: u64) -> Result<Arrival, BadCookie> {
            let mut cookies = self.cookies.clone();
            let (mut macs, bound) = (self.macs, self.bound());
            let verdict = cookies.check(&self.backend, cookie, &bound, at(seconds), &mut macs);
            (self.cookies, self.macs) = (cookies, macs);
            verdict
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    /// G-332, G-091: what the Query showed comes back.
    #[test]
    fn a_cookie_brings_back_what_the_query_showed() {
        let mut setting = Setting::new();
        let cookie = setting.make(0);
        assert_eq!(setting.check(&cookie, 1), Ok(ARRIVAL));
    }

    /// G-332: each bound field counts.
    #[test]
    fn a_cookie_serves_nothing_else() {
        let mut setting = Setting::new();
        let cookie = setting.make(0);
        let (backend, mut cookies, mut macs) = (TestBackend::default(), setting.cookies.clone(), 0);
        let inverted = setting.mri.inverted();
        let other_peer = PeerIdentity::new(vec![9; 17]).unwrap();
        let other_proposal = StackProposal { profiles: vec![Profile::tcp()] };
        let bound = setting.bound();
        for wrong in [
            Bound { nslp_id: NslpId(32705), ..bound },
            Bound { session: SessionId([5; 16]), ..bound },
            Bound { mri: &inverted, ..bound },
            Bound { peer: &other_peer, ..bound },
            Bound { address: bound.mri.destination(), ..bound },
            Bound { proposal: Some(&other_proposal), ..bound },
            Bound { proposal: None, ..bound },
        ] {
            assert_eq!(cookies.check(&backend, &cookie, &wrong, at(1), &mut macs), Err(BadCookie::Forged));
        }
        for position in 0..cookie.as_bytes().len() {
            let mut bytes = cookie.as_bytes().to_vec();
            bytes[position] ^= 1;
            assert!(setting.check(&Cookie::new(bytes).unwrap(), 1).is_err(), "byte {position}");
        }
    }

    /// G-333: the previous secret is still good, the one before is not.
    #[test]
    fn a_cookie_outlives_one_change_of_secrets_but_not_two() {
        let mut setting = Setting::new();
        let cookie = setting.make(29);
        assert_eq!(setting.check(&cookie, 59), Ok(ARRIVAL));
        assert_eq!(setting.check(&cookie, 60), Err(BadCookie::Stale));
        let late = setting.make(1000);
        assert_eq!(setting.check(&late, 1001), Ok(ARRIVAL));
    }

    /// G-334: a blind flood costs no MAC.
    #[test]
    fn a_cookie_of_no_generation_costs_no_mac() {
        let mut setting = Setting::new();
        let before = setting.backend.macs.load(Ordering::Relaxed);
        for guess in 0..=255_u8 {
            assert_eq!(setting.check(&Cookie::new(vec![guess; 32]).unwrap(), 5), Err(BadCookie::Stale));
        }
        assert_eq!(setting.check(&Cookie::new(Vec::new()).unwrap(), 5), Err(BadCookie::Stale));
        assert_eq!(setting.backend.macs.load(Ordering::Relaxed), before);
        assert_eq!(setting.macs, 0);
    }

    /// G-335: generations do not count up.
    #[test]
    fn generations_look_random() {
        let mut setting = Setting::new();
        let first = setting.make(0).as_bytes().first_chunk::<8>().copied().map(u64::from_be_bytes).unwrap();
        let second = setting.make(30).as_bytes().first_chunk::<8>().copied().map(u64::from_be_bytes).unwrap();
        assert!(first.abs_diff(second) > 1 << 20);
    }

    /// G-091: another node with the same seed and no memory accepts the cookie.
    #[test]
    fn a_node_without_memory_knows_its_cookies() {
        let mut setting = Setting::new();
        let cookie = setting.make(100);
        setting.cookies = ResponderCookies::new(&Secret::new([1; 32]), &setting.backend, Duration::from_secs(30));
        assert_eq!(setting.check(&cookie, 110), Ok(ARRIVAL));
    }
}
