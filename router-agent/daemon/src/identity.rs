//! Who a daemon is: certificate, key and trust anchors, for TLS between neighbours and for signed messages.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gist::io::{Tls, TlsError, tls};
use gist::node::{AddressPrefix, ApdEntry, DatagramRate, IdentityPattern, NodeConfig, PeerRole, Registration, Role};
use gist::wire::{NslpId, PeerIdentity};
use pbs_nslp::credentials::{AnchorError, SignatureScheme, Signer, SignerError, X509Signer};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use traffic::algorithm::{PacketSigner, SignatureAlgorithm};

use crate::config::{Gist, Identity};
use crate::expiry::Expiry;
use crate::leaf::{self, LeafError};
use crate::revocation::{Revocation, RevocationError};
use crate::{clock, memory};

/// Why an identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file is not what it should be.
    #[error(transparent)]
    File(#[from] TlsError),
    /// The key is in a form that only TLS can use.
    #[error("{}: the private key is not in PKCS#8 form (`openssl pkcs8 -topk8 -nodes` makes it so)", path.display())]
    NotPkcs8 {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key cannot sign messages.
    #[error("{} with {}: {source}", certificate.display(), key.display())]
    Signer {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// What is wrong with them.
        source: SignerError,
    },
    /// The trust anchors cannot verify messages.
    #[error("{}: {source}", path.display())]
    Anchor {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: AnchorError,
    },
    /// Nobody would believe the node's own certificate.
    #[error("{}: certificate 1 ({subject}), the node's own by identity.certificate, {source}", path.display())]
    Leaf {
        /// The file.
        path: PathBuf,
        /// The subject of the certificate.
        subject: String,
        /// What is wrong with it.
        source: LeafError,
    },
    /// The process's memory cannot be kept from core dumps.
    #[error("cannot keep keys from core dumps: {0}")]
    Exposed(nix::errno::Errno),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The addresses of this node cannot be read.
    #[error("cannot read the addresses of this node: {0}")]
    Addresses(std::io::Error),
}

/// The node's key as the packet side uses it. It signs nothing else there than packets, whose first octets no message has: those
/// begin with a label.
#[derive(Debug)]
struct OwnKey(Arc<X509Signer>);

impl PacketSigner for OwnKey {
    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.scheme() {
            SignatureScheme::EcdsaP256 => SignatureAlgorithm::EcdsaP256,
            SignatureScheme::RsaPss => {
                // The signer takes no key that is shorter than 2048 bits, or longer than 4096.
                SignatureAlgorithm::RsaPss { octets: u16::try_from(self.0.signature_length()).unwrap_or(u16::MAX) }
            }
            // The signer has no code for other keys.
            SignatureScheme::Ed25519 | SignatureScheme::EcdsaP384 => SignatureAlgorithm::Ed25519,
        }
    }

    fn public_key(&self) -> &[u8] {
        self.0.public_key()
    }

    fn sign(&self, input: &[u8]) -> Option<Vec<u8>> {
        self.0.sign(input).ok()
    }
}

/// A daemon's identity, ready for use.
#[derive(Debug)]
pub struct Credentials {
    /// For messaging associations.
    pub tls: Tls,
    /// Signs this node's messages.
    pub signer: Arc<X509Signer>,
    /// What others must not be named in, read again when it changes.
    pub revocation: Revocation,
    /// When the certificate ends.
    pub expiry: Expiry,
    /// The addresses that the certificate names.
    addresses: Vec<IpAddr>,
}

impl Credentials {
    /// Reads the files of a configuration, after the process's memory has been made private. Each error names file and cause.
    /// What the certificate must name depends on how peers are listed in `gist`.
    pub fn load(identity: &Identity, gist: &Gist) -> Result<Self, IdentityError> {
        memory::keep_private().map_err(IdentityError::Exposed)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(clock::unix_seconds()));
        let certificates = tls::read_certificates(&identity.certificate, now)?;
        let anchors = tls::read_anchors(&identity.trust_anchors, now)?;
        let key = tls::read_key(&identity.key)?;
        if !matches!(key, PrivateKeyDer::Pkcs8(_)) {
            return Err(IdentityError::NotPkcs8 { path: identity.key.clone() });
        }
        let der = |certificates: &[rustls_pki_types::CertificateDer<'_>]| -> Vec<Bytes> {
            certificates.iter().map(|certificate| Bytes::copy_from_slice(certificate)).collect()
        };
        let signer = X509Signer::from_der(der(&certificates), key.secret_der()).map_err(|source| IdentityError::Signer {
            certificate: identity.certificate.clone(),
            key: identity.key.clone(),
            source,
        })?;
        check_leaf(identity, gist, &certificates)?;
        let (mut revocation, lists) =
            Revocation::read(identity.revocation_lists.clone(), der(&anchors), now.as_secs()).map_err(|error| match error {
                RevocationError::File(error) => IdentityError::File(error),
                RevocationError::Anchor(source) => IdentityError::Anchor { path: identity.trust_anchors.clone(), source },
            })?;
        // What cannot be read here is refused by every peer; the chain has been parsed already.
        let addresses = tls::peer_credentials(Some(&certificates)).map(|names| names.addresses).unwrap_or_default();
        let expiry = Expiry::of(&identity.certificate, &certificates);
        let tls = tls::configs_with_revocation(certificates, key, anchors, lists)?;
        revocation.govern(Arc::clone(&tls.peers));
        Ok(Self { tls, signer: Arc::new(signer), revocation, expiry, addresses })
    }

    /// Signs packets, when a receiver asks for it (Solution 3).
    pub fn packet_signer(&self) -> Arc<dyn PacketSigner> {
        Arc::new(OwnKey(self.signer.clone()))
    }

    /// Says so if the certificate names none of these addresses of a node, of which there is at least one.
    pub fn names_none_of(&self, local: &[IpAddr]) -> Option<String> {
        if local.is_empty() || local.iter().any(|address| self.addresses.contains(address)) {
            return None;
        }
        let list = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
        let named = if self.addresses.is_empty() { "no address".to_owned() } else { list(&self.addresses) };
        let local = list(local);
        Some(format!("the certificate names {named}, but none of the addresses of this machine ({local}): nothing signed for them counts"))
    }

    /// Tells the operator of addresses of this node that its certificate does not name: neighbours refuse whatever is
    /// signed for them.
    pub fn warn_of_unnamed(&self, local: &[IpAddr]) {
        let unnamed: Vec<&IpAddr> = local.iter().filter(|address| !self.addresses.contains(address)).collect();
        if !unnamed.is_empty() {
            tracing::warn!(addresses = ?unnamed, "the certificate does not name these addresses of this node: nothing signed for them counts");
        }
    }
}

fn check_leaf(identity: &Identity, gist: &Gist, certificates: &[CertificateDer<'_>]) -> Result<(), IdentityError> {
    let Some(own) = certificates.first() else { return Ok(()) };
    // Without a dNSName the name that peers see is the common name.
    let seen = tls::peer_credentials(Some(certificates)).ok();
    let common_name = seen.as_ref().and_then(|seen| seen.dns_names.first()).map(String::as_str);
    let by_name = gist.peer.iter().any(|peer| peer.dns_name.is_some());
    leaf::check(own, common_name, by_name).map_err(|source| IdentityError::Leaf {
        path: identity.certificate.clone(),
        subject: seen.as_ref().map_or_else(String::new, |seen| seen.subject.clone()),
        source,
    })
}

/// 32 bytes that nobody can guess, for a core's seed.
pub fn seed() -> Result<[u8; 32], IdentityError> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| IdentityError::NoRandomness)?;
    Ok(seed)
}

/// The GIST node that a configuration describes. Its peer identity is new at each start, so that neighbours notice a restart.
pub fn node_config(gist: &Gist, role: Role) -> Result<NodeConfig, IdentityError> {
    let mut identity = [0; 16];
    SystemRandom::new().fill(&mut identity).map_err(|_| IdentityError::NoRandomness)?;
    let identity = PeerIdentity::new(Bytes::copy_from_slice(&identity)).ok_or(IdentityError::NoRandomness)?;
    let mut node = NodeConfig::new(identity, role);
    node.registrations = vec![Registration::secure(NslpId(gist.nslp_id), u16::try_from(gist.router_alert).ok())];
    node.association_port = gist.association_port;
    node.authorised_peers = gist.peer.iter().filter_map(apd_entry).collect();
    let networks = gist.without_router_alert.iter();
    node.without_router_alert = networks.filter_map(|network| AddressPrefix::new(network.addr(), network.prefix_len())).collect();
    node.caps.associations = gist.associations;
    node.caps.unconfirmed_associations = gist.associations / 4;
    node.datagram_rate = datagram_rate(gist.datagrams_per_second);
    node.local_addresses = crate::config::local_addresses().map_err(IdentityError::Addresses)?;
    Ok(node)
}

/// In the proportions of the default: a quarter of a second's saved up, and three times as many for refreshes.
fn datagram_rate(per_second: u32) -> DatagramRate {
    let DatagramRate { per_second: usual, burst, most_per_second } = DatagramRate::default();
    let scaled = |part: u32| u32::try_from(u64::from(part) * u64::from(per_second) / u64::from(usual.max(1))).unwrap_or(u32::MAX);
    DatagramRate { per_second, burst: scaled(burst).max(LEAST_BURST), most_per_second: scaled(most_per_second) }
}

/// A Query, its repetitions, and some room.
const LEAST_BURST: u32 = 32;

/// `Gist::check` has made sure that each entry names exactly one kind of identity.
fn apd_entry(peer: &crate::config::Peer) -> Option<ApdEntry> {
    let pattern = match (&peer.dns_name, &peer.address) {
        (Some(name), _) => IdentityPattern::DnsName(name.clone()),
        (None, Some(network)) => IdentityPattern::Address(AddressPrefix::new(network.addr(), network.prefix_len())?),
        (None, None) => return None,
    };
    let role = match peer.role {
        crate::config::Role::Host => PeerRole::Host,
        crate::config::Role::Router => PeerRole::Router,
    };
    Some(ApdEntry { pattern, role, allow: peer.allow })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// G-101, G-102: the identity in every NLI is of 128 random bits, another at each start, and stays the node's as long as it runs: it is made
    /// once, and nothing changes it.
    #[test]
    fn a_node_has_a_random_identity_for_each_start() {
        let identities: Vec<_> = (0..4).map(|_| node_config(&Gist::default(), Role::Router).unwrap().identity).collect();
        assert!(identities.iter().all(|identity| identity.as_bytes().len() == 16));
        for (place, identity) in identities.iter().enumerate() {
            assert!(!identities[..place].contains(identity));
        }
    }

    /// What a file says reaches the node, and a file that says nothing changes nothing: G-174, G-206.
    #[test]
    fn a_configuration_sets_the_bounds_of_its_node() {
        let usual = node_config(&Gist::default(), Role::Router).unwrap();
        let library = NodeConfig::new(usual.identity.clone(), Role::Router);
        assert_eq!((usual.caps, usual.datagram_rate, usual.without_router_alert), (library.caps, library.datagram_rate, Vec::new()));
        let networks = vec!["192.0.2.0/24".parse().unwrap()];
        let gist = Gist { without_router_alert: networks, associations: 64, datagrams_per_second: 200, ..Gist::default() };
        let node = node_config(&gist, Role::Host).unwrap();
        assert_eq!(node.without_router_alert, ["192.0.2.0/24".parse().unwrap()]);
        assert_eq!((node.caps.associations, node.caps.unconfirmed_associations), (64, 16));
        assert_eq!(node.datagram_rate, DatagramRate { per_second: 200, burst: 51, most_per_second: 600 });
    }

    /// G-020: what session identifiers are made of is the operating system's randomness, stretched by HMAC-SHA-256: no value comes twice, and
    /// no bit is more often set than not.
    #[test]
    fn session_identifiers_are_unpredictable() {
        use pbs_nslp::credentials::HmacGenerator;
        use pbs_nslp::entropy::Generator;
        const DRAWN: u64 = 4096;
        assert_ne!(seed().unwrap(), seed().unwrap());
        let seed = seed().unwrap();
        let blocks: std::collections::BTreeSet<[u8; 16]> =
            (0..DRAWN).map(|number| *HmacGenerator.block(&seed, number).first_chunk().unwrap()).collect();
        assert_eq!(blocks.len(), 4096);
        for bit in 0..128 {
            let set = blocks.iter().filter(|block| block[bit / 8] & (1 << (bit % 8)) != 0).count();
            // Eight standard deviations of 32 either way.
            assert!((1792..=2304).contains(&set), "bit {bit} is set in {set} of 4096");
        }
    }
}
