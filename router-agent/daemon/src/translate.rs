//! Between the words of the NSLP and those of the packet side. The two crates do not know each other.

use std::sync::Arc;
use std::time::Duration;

use gist::time::Instant;
use pbs_nslp::credentials::SignatureScheme;
use pbs_nslp::datapath::{Command, Event, Grant, Protection, SourceKey, Token};
use pbs_nslp::detection::{Count, Covered};
use pbs_nslp::flow::FlowId;
use pbs_nslp::wire::SymmetricAlgorithm;
use traffic::algorithm::{IcvKey, KeyLengthError, MacAlgorithm, PacketSigner, SignatureAlgorithm, VerifyingKey};
use traffic::flow::Flow;
use traffic::update::{self, Applied, Tally, Update};
use traffic::worker::Up;

/// A command of the NSLP as an update of a packet table.
///
/// `own` signs the packets of this host's own flows (Solution 3).
///
/// # Errors
///
/// [`KeyError`] if the key does not fit its algorithm, which the NSLP's decoder lets through no more than the packet side, or if
/// packets cannot be signed so.
pub fn update(command: Command, own: &Arc<dyn PacketSigner>) -> Result<Update, KeyError> {
    let token = command.token().0;
    Ok(match command {
        Command::Install { grant, .. } => Update::Install { token, grant: self::grant(&grant, own)? },
        Command::Update { flow, spi, allowed, expires_at, .. } => {
            Update::Update { token, flow: self::flow(flow), spi, allowed, expires_at: instant(expires_at) }
        }
        Command::Remove { flow, spi, .. } => Update::Remove { token, flow: self::flow(flow), spi },
        Command::Drain { flow, spi, until, .. } => Update::Drain { token, flow: self::flow(flow), spi, until: instant(until) },
        Command::Compare { flow, spi, up_to, delay, .. } => {
            Update::Compare { token, flow: self::flow(flow), spi, up_to, delay: smoltcp::time::Duration::from_micros(micros(delay)) }
        }
        Command::Snapshot { flow, spi, .. } => Update::Snapshot { token, flow: self::flow(flow), spi },
        Command::Expect { flow, until, .. } => Update::Expect { token, flow: self::flow(flow), until: instant(until) },
        Command::ReleaseHeld { flow, .. } => Update::ReleaseHeld { token, flow: self::flow(flow) },
        Command::Route { flow, path, waits, .. } => Update::Route { token, flow: self::flow(flow), path: path.0, waits },
        Command::DropHeld { flow, .. } => Update::DropHeld { token, flow: self::flow(flow) },
    })
}

/// What a worker says, as an event for the NSLP; `None` for what concerns the daemon alone.
pub fn event(up: Up) -> Option<Event> {
    match up {
        Up::Applied(Applied { token, counted, highest, tally: Some(tally) }) => {
            Some(Event::Compared { token: Token(token), count: count(counted, highest, tally) })
        }
        Up::Applied(applied) => Some(Event::Applied { token: Token(applied.token), counted: applied.counted, highest: applied.highest }),
        Up::Refused(refused) => Some(Event::Failed { token: Token(refused.token), reason: refused.why.to_string() }),
        // A flow that signalling cannot name (multicast, port 0) gets no permission; its packets time out in the worker.
        Up::Event(traffic::event::Event::FirstPacket(flow)) => Some(Event::FirstPacket { flow: flow_id(flow)? }),
        Up::Event(traffic::event::Event::NearlyUsedUp { flow, spi }) => Some(Event::NearlyUsedUp { flow: flow_id(flow)?, spi }),
        Up::Event(traffic::event::Event::SecondHolder { flow, spi }) => Some(Event::SecondHolder { flow: flow_id(flow)?, spi }),
        Up::Event(traffic::event::Event::OverBudget { flow, spi }) => Some(Event::OverBudget { flow: flow_id(flow)?, spi }),
        Up::Event(traffic::event::Event::PathMtu { .. }) | Up::Stopped(_) => None,
    }
}

/// Why a key cannot be used for packets.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It does not fit its algorithm.
    #[error(transparent)]
    Length(#[from] KeyLengthError),
    /// Its signatures do not fit into an AH.
    #[error("packets cannot carry signatures of this key ({0:?})")]
    Signature(SignatureScheme),
    /// The packet side does not have the code.
    #[error("packets are not authenticated by {}", .0.name())]
    Refused(SymmetricAlgorithm),
}

/// How packets are authenticated with a shared key.
const fn mac_algorithm(algorithm: SymmetricAlgorithm) -> Option<MacAlgorithm> {
    match algorithm {
        SymmetricAlgorithm::HmacSha256 => Some(MacAlgorithm::HmacSha256_128),
        SymmetricAlgorithm::HmacSha1 => Some(MacAlgorithm::HmacSha1_96),
        SymmetricAlgorithm::Aes128Gmac => Some(MacAlgorithm::Aes128Gmac),
        SymmetricAlgorithm::Aes256Gmac => Some(MacAlgorithm::Aes256Gmac),
        SymmetricAlgorithm::HmacMd5 => None,
    }
}

/// How packets are signed with a key of a certificate.
fn signature_algorithm(key: &SourceKey) -> Option<SignatureAlgorithm> {
    match key.scheme {
        SignatureScheme::Ed25519 => Some(SignatureAlgorithm::Ed25519),
        SignatureScheme::EcdsaP256 => Some(SignatureAlgorithm::EcdsaP256),
        SignatureScheme::RsaPss => SignatureAlgorithm::rsa_pss(key.signature_length),
        SignatureScheme::EcdsaP384 => None,
    }
}

fn grant(grant: &Grant, own: &Arc<dyn PacketSigner>) -> Result<update::Grant, KeyError> {
    let key = match &grant.protection {
        Protection::Shared { algorithm, key } => {
            IcvKey::new(mac_algorithm(*algorithm).ok_or(KeyError::Refused(*algorithm))?, key.expose())?
        }
        Protection::Signing => IcvKey::Signing(own.clone()),
        Protection::SignedBy(key) => {
            let algorithm = signature_algorithm(key).ok_or(KeyError::Signature(key.scheme))?;
            IcvKey::Verifying(VerifyingKey::new(algorithm, &key.public_key))
        }
    };
    Ok(update::Grant {
        flow: flow(grant.flow),
        spi: grant.spi,
        key,
        allowed: grant.allowed,
        counted: grant.counted,
        highest: grant.highest,
        expires_at: instant(grant.expires_at),
    })
}

fn count(counted: u64, highest: u32, tally: Tally) -> Count {
    let covered = tally.covered.map(|covered| Covered { at_least: covered.at_least, at_most: covered.at_most });
    Count { counted, highest, covered, ahead: tally.ahead, second_holder: tally.second_holder, late: tally.late }
}

fn flow(flow: FlowId) -> Flow {
    Flow {
        source: flow.source,
        destination: flow.destination,
        protocol: flow.protocol,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
    }
}

fn flow_id(flow: Flow) -> Option<FlowId> {
    FlowId::new(flow.source, flow.destination, flow.protocol, flow.source_port, flow.destination_port).ok()
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// A moment as the packet side tells time.
pub fn instant(instant: Instant) -> smoltcp::time::Instant {
    let micros = instant.saturating_duration_since(Instant::ZERO).as_micros();
    smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

#[cfg(test)]
pub(crate) mod tests {
    use pbs_nslp::wire::{SharedKey, SymmetricAlgorithm};

    use super::*;

    #[derive(Debug)]
    pub(crate) struct NoSigner;

    impl PacketSigner for NoSigner {
        fn algorithm(&self) -> SignatureAlgorithm {
            SignatureAlgorithm::Ed25519
        }

        fn public_key(&self) -> &[u8] {
            &[1; 32]
        }

        fn sign(&self, _: &[u8]) -> Option<Vec<u8>> {
            None
        }
    }

    fn installed(protection: Protection) -> Result<IcvKey, KeyError> {
        let flow = FlowId::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), 17, 5000, 9000).unwrap();
        let grant = Grant { flow, spi: 300, protection, allowed: 1, counted: 2, highest: 3, expires_at: Instant::from_micros(5) };
        let own: Arc<dyn PacketSigner> = Arc::new(NoSigner);
        match update(Command::Install { token: Token(9), grant }, &own)? {
            Update::Install { grant, .. } => Ok(grant.key),
            _ => panic!("another update"),
        }
    }

    #[test]
    fn packets_are_signed_with_the_own_key_and_verified_with_the_sources() {
        let key = |scheme, signature_length| {
            Protection::SignedBy(SourceKey { scheme, public_key: bytes::Bytes::from_static(&[4; 65]), signature_length })
        };
        assert_eq!(installed(Protection::Signing).unwrap(), IcvKey::Signing(Arc::new(NoSigner)));
        let verifying = |algorithm| IcvKey::Verifying(VerifyingKey::new(algorithm, &[4; 65]));
        assert_eq!(installed(key(SignatureScheme::EcdsaP256, 64)).unwrap(), verifying(SignatureAlgorithm::EcdsaP256));
        assert_eq!(installed(key(SignatureScheme::Ed25519, 64)).unwrap(), verifying(SignatureAlgorithm::Ed25519));
        assert_eq!(installed(key(SignatureScheme::RsaPss, 256)).unwrap(), verifying(SignatureAlgorithm::RsaPss { octets: 256 }));
        let refused = installed(key(SignatureScheme::RsaPss, 1024)).unwrap_err();
        assert_eq!(refused.to_string(), "packets cannot carry signatures of this key (RsaPss)");
    }

    fn shared(algorithm: SymmetricAlgorithm) -> Protection {
        Protection::Shared { algorithm, key: SharedKey::new(algorithm, vec![7; algorithm.key_length()]).unwrap() }
    }

    #[test]
    fn packets_are_authenticated_by_the_code_that_the_permission_names() {
        // each with the length of its key and its AH.
        let cases = [
            (SymmetricAlgorithm::HmacSha256, MacAlgorithm::HmacSha256_128, 16),
            (SymmetricAlgorithm::Aes128Gmac, MacAlgorithm::Aes128Gmac, 24),
            (SymmetricAlgorithm::Aes256Gmac, MacAlgorithm::Aes256Gmac, 24),
        ];
        for (algorithm, mac, icv_len) in cases {
            let key = installed(shared(algorithm)).unwrap();
            assert_eq!(key, IcvKey::new(mac, &vec![7; mac.key_len()]).unwrap());
            assert_eq!(key.algorithm().icv_len(), icv_len, "{mac}");
        }
        let refused = installed(shared(SymmetricAlgorithm::HmacMd5)).unwrap_err();
        assert_eq!(refused.to_string(), "packets are not authenticated by hmac-md5-96");
    }

    #[test]
    fn a_grant_reaches_the_packet_side_with_every_figure() {
        let flow = FlowId::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), 17, 5000, 9000).unwrap();
        let protection = shared(SymmetricAlgorithm::HmacSha256);
        let expires_at = Instant::from_micros(5);
        let grant = Grant { flow, spi: 300, protection, allowed: 1, counted: 2, highest: 3, expires_at };
        let Ok(Update::Install { token: 9, grant }) =
            update(Command::Install { token: Token(9), grant }, &(Arc::new(NoSigner) as Arc<dyn PacketSigner>))
        else {
            panic!("another update");
        };
        assert_eq!((grant.flow.source_port, grant.flow.destination_port, grant.spi), (5000, 9000, 300));
        assert_eq!((grant.allowed, grant.counted, grant.highest), (1, 2, 3));
        assert_eq!(grant.key, IcvKey::new(MacAlgorithm::HmacSha256_128, &[7; 32]).unwrap());
        assert_eq!(grant.expires_at.total_micros(), 5);
    }
}
