//! More permitted traffic than a router can verify: what arrives of twice as much as it loses nothing of.
//!
//! On two cores the worker has one, and what the kernel of the router does when a packet comes is on the other, which is the sender's as well
//! ([`Arrangement::Apart`]): a sender that is to offer twice what the worker verifies must find one that has much to do. On one core
//! everything of the router's is on the worker's processor, and the sender's has but to send ([`Arrangement::HandedOver`]).

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ring::signature::{Ed25519KeyPair, KeyPair};
use traffic::algorithm::{IcvKey, MacAlgorithm, PacketSigner, SignatureAlgorithm, VerifyingKey};

use super::arrangement::Arrangement;
use super::consumer;
use super::generator::{self, Pace};
use super::way::Way;
use crate::bench::pairs::{Goal, Measure, Sample, Trial};

/// Octets of each packet before AH.
const LEN: usize = 472;
/// How long one try lasts.
const LASTS: f64 = 0.25;
/// How much more each next rate is.
const MORE: f64 = 1.15;
/// Of so many packets one may be lost where none is said to be: processors are shared with what else runs.
const ONE_OF: f64 = 1000.0;
/// What counts as twice.
const TWICE: f64 = 1.9;
/// Tries at a rate before packets count as lost by it.
const TRIES: usize = 3;

/// What the verifier has to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Icv {
    /// HMAC-SHA-256-128.
    Mac,
    /// An Ed25519 signature.
    Signature,
}

/// A router and what has been found out about it.
struct Scene {
    way: Way,
    icv: Icv,
    packets: OnceLock<Vec<Vec<u8>>>,
    /// Packets a second of which none is lost.
    loss_free: Mutex<Option<f64>>,
}

/// The rows.
pub(super) fn trials() -> Vec<Trial> {
    let trial = |name: &str, icv, arrangement, goal| {
        let scene = Arc::new(Scene { way: Way::arranged(arrangement), icv, packets: OnceLock::new(), loss_free: Mutex::new(None) });
        let (ours, bound) = (Arc::clone(&scene), scene);
        Trial {
            name: format!("overload: twice what is lost nothing of, {name}"),
            unit: "packets a second that arrive behind the verifier",
            goal,
            bound_is: "the most that arrives at any rate up to that",
            ours: Box::new(move || ours.at_twice()) as Measure,
            bound: Box::new(move || bound.peak()) as Measure,
        }
    };
    vec![
        trial("signed (Ed25519), on two cores", Icv::Signature, Arrangement::Apart, Goal::RatioAtLeast(0.9)),
        // The sender's processor takes packets in for the router besides, and comes to its end before the worker's does.
        trial("or as much as the sender can, on two cores", Icv::Mac, Arrangement::Apart, Goal::Told),
        trial("on one core", Icv::Mac, Arrangement::HandedOver, Goal::RatioAtLeast(0.6)),
    ]
}

/// What one try gave, in packets a second.
struct Try {
    offered: f64,
    arrived: f64,
    lost: bool,
}

impl Scene {
    fn at_twice(&self) -> io::Result<Sample> {
        let known = *self.loss_free.lock().unwrap_or_else(PoisonError::into_inner);
        let loss_free = known.ok_or_else(|| io::Error::other("the peak is measured first"))?;
        let Try { offered, arrived, .. } = self.offer(2.0 * loss_free)?;
        let times = offered / loss_free;
        let wanting = (times < TWICE).then_some("the sender cannot offer twice what is lost nothing of");
        let sample = Sample::of(arrived).with("offered", offered).with("offered, times what is lost nothing of", times);
        Ok(Sample { wanting, ..sample })
    }

    /// Rises until packets are lost, and on to twice that.
    fn peak(&self) -> io::Result<Sample> {
        let (mut peak, mut loss_free, mut rate, mut rises) = (0.0_f64, 0.0, self.icv.first(), true);
        while rises || rate < 2.0 * loss_free {
            let mut tried = self.offer(rate)?;
            for _ in 1..TRIES {
                peak = peak.max(tried.arrived);
                if rises && tried.lost {
                    tried = self.offer(rate)?;
                }
            }
            peak = peak.max(tried.arrived);
            rises &= !tried.lost;
            if rises {
                loss_free = tried.offered;
            } else if loss_free == 0.0 {
                return Err(io::Error::other(format!("of {rate} packets a second some are lost")));
            }
            // The generator sends no more.
            if tried.offered < rate / MORE {
                break;
            }
            rate *= MORE;
        }
        *self.loss_free.lock().unwrap_or_else(PoisonError::into_inner) = Some(loss_free);
        Ok(Sample::of(peak).with("lost nothing of", loss_free))
    }

    fn packets(&self) -> io::Result<&[Vec<u8>]> {
        if let Some(packets) = self.packets.get() {
            return Ok(packets);
        }
        let packets = generator::seal(self.icv.count(), LEN, &self.icv.sealing()?)?;
        Ok(self.packets.get_or_init(|| packets))
    }

    fn offer(&self, rate: f64) -> io::Result<Try> {
        let made = self.way.get()?;
        let packets = self.packets()?;
        let packets = packets.get(..(rate * LASTS) as usize).unwrap_or(packets);
        let before = made.arrived()?;
        let offered = Mutex::new(Duration::ZERO);
        let flood = || {
            let began = Instant::now();
            let took = made.send(packets, Pace::PerSecond(rate as u32))?;
            consumer::drained(&made.router)?;
            *offered.lock().unwrap_or_else(PoisonError::into_inner) = took;
            Ok(began.elapsed())
        };
        let took = consumer::judged(made, self.icv.key()?, flood)?;
        let arrived = (made.arrived()? - before) as f64;
        let offered = *offered.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = packets.len() as f64;
        let lost = arrived < sent - sent / ONE_OF;
        Ok(Try { offered: sent / offered.as_secs_f64(), arrived: arrived / took.as_secs_f64(), lost })
    }
}

impl Icv {
    /// Packets at most that one try takes.
    const fn count(self) -> usize {
        if matches!(self, Self::Mac) { 120_000 } else { 30_000 }
    }

    /// The first rate.
    const fn first(self) -> f64 {
        if matches!(self, Self::Mac) { 40_000.0 } else { 4000.0 }
    }

    /// The sender's key.
    fn sealing(self) -> io::Result<IcvKey> {
        match self {
            Self::Mac => generator::key(MacAlgorithm::HmacSha256_128),
            Self::Signature => Ok(IcvKey::Signing(Arc::new(Signer::new()?))),
        }
    }

    /// The router's.
    fn key(self) -> io::Result<IcvKey> {
        match self {
            Self::Mac => self.sealing(),
            Self::Signature => Ok(IcvKey::Verifying(VerifyingKey::new(SignatureAlgorithm::Ed25519, Signer::new()?.public_key()))),
        }
    }
}

/// A sender that signs, always with the same key.
#[derive(Debug)]
struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> io::Result<Self> {
        Ed25519KeyPair::from_seed_unchecked(&[7; 32]).map(Self).map_err(|rejected| io::Error::other(rejected.to_string()))
    }
}

impl PacketSigner for Signer {
    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::Ed25519
    }

    fn public_key(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        Some(self.0.sign(input).as_ref().to_vec())
    }
}
