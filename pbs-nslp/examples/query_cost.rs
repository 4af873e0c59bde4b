//! What a Query costs a router on this machine: to take it in where it waits, and to check and handle it with real certificates
//! and signatures. The figures are those of the cost model in `tests/machines/query_flood.rs` and of
//! `pbs_nslp::fair_queue::SIGNATURE_COST`. To be run with `--release`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::indexing_slicing)]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use bytes::Bytes;
use gist::api::{PeerHandle, Principal, ReceivedMessage};
use gist::time::Instant;
use gist::wire::{Direction, NslpId, PeerIdentity, SessionId};
use pbs_nslp::admission::Rate;
use pbs_nslp::credentials::{Signer, X509Authority, X509Signer};
use pbs_nslp::fair_queue::FairQueue;
use pbs_nslp::flow::FlowId;
use pbs_nslp::node::NodeConfig;
use pbs_nslp::router::{Router, RouterConfig};
use pbs_nslp::wire::{self, Credential, Query, Volume};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};

const NSLP: NslpId = NslpId(32704);
const UNIX: u32 = 1_800_000_000;
const COUNT: u16 = 2000;

fn main() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let anchor = Bytes::copy_from_slice(params.self_signed(&key).unwrap().der());
    let issuer = Issuer::new(params, key);
    for (name, algorithm) in [("Ed25519", &rcgen::PKCS_ED25519), ("P-256", &rcgen::PKCS_ECDSA_P256_SHA256)] {
        let signer = |address: IpAddr| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![SanType::IpAddress(address)];
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            let certificate = params.signed_by(&key, &issuer).unwrap();
            X509Signer::from_der(vec![Bytes::copy_from_slice(certificate.der())], &key.serialize_der()).unwrap()
        };
        let authority = Arc::new(X509Authority::new(std::slice::from_ref(&anchor)).unwrap());
        let one = signer([10, 0, 0, 1].into());
        let known: Vec<_> = (0..COUNT).map(|n| query([10, 0, 0, 1].into(), n, &one)).collect();
        let newcomers: Vec<_> = (0..COUNT).map(|n| address(n + 2)).map(|from| query(from, 1, &signer(from))).collect();
        let in_and_out = median(&known, |message| {
            let mut queue = FairQueue::new(1 << 30);
            let begun = Clock::now();
            queue.push(message);
            let taken = begun.elapsed();
            let turn = queue.pop().unwrap();
            queue.charge(&turn.account, 9);
            taken
        });
        let mut full = FairQueue::new(8 << 20);
        let into_full = median(&known, |message| {
            (0..3).for_each(|_| drop(full.push(message.clone())));
            timed(|| drop(full.push(message)))
        });
        let cost = |messages: &[ReceivedMessage], spoil: bool| {
            let mut router = router(authority.clone());
            let now = Instant::from_micros(2_000_000_000);
            median(messages, |mut message| {
                if spoil {
                    let mut payload = message.payload.to_vec();
                    *payload.last_mut().unwrap() ^= 1;
                    message.payload = payload.into();
                }
                let taken = timed(|| router.handle_message(message, now));
                while router.poll_output().is_some() {}
                taken
            })
        };
        println!(
            "{name}: Query of {} octets; taken into the queue {in_and_out:?}, into a full one {into_full:?}; handled: signer known {:?}, \
             bad signature {:?}, signer new {:?}",
            known[0].payload.len(),
            cost(&known, false),
            cost(&known, true),
            cost(&newcomers, false)
        );
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Clock::now();
    work();
    begun.elapsed()
}

fn median(messages: &[ReceivedMessage], mut work: impl FnMut(ReceivedMessage) -> Duration) -> Duration {
    let mut times: Vec<_> = messages.iter().cloned().map(&mut work).collect();
    times.sort();
    times[times.len() / 2]
}

fn router(authority: Arc<X509Authority>) -> Router {
    let mut node = NodeConfig::new(NSLP, [10, 255, 0, 1].into());
    // No bucket is to save the router from the work.
    let plenty = Rate { per_second: 1_000_000, burst: 1_000_000 };
    (node.admission.peer_rate, node.admission.signer_rate, node.admission.newcomer_rate) = (plenty, plenty, plenty);
    Router::new(RouterConfig::new(node), authority, u64::from(UNIX) - 1000, Instant::from_micros(1_000_000_000))
}

fn address(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    [10, 1, high, low].into()
}

fn query(from: IpAddr, n: u16, signer: &X509Signer) -> ReceivedMessage {
    let flow = FlowId::new(from, [172, 16, 0, 1].into(), 17, n + 1, 9000).unwrap();
    let mut session = [9; 16];
    session[..2].copy_from_slice(&n.to_be_bytes());
    let session = SessionId(session);
    let query = Query {
        flow,
        number: UNIX,
        requested: Some(Volume(1_000_000)),
        sent: None,
        credential: Credential::Certificate { certificate: signer.certificate().clone(), chain: Vec::new() },
        context: None,
        algorithms: None,
        puzzle: None,
    };
    ReceivedMessage {
        nslp_id: NSLP,
        session,
        mri: flow.to_mri(Direction::Downstream),
        payload: wire::build_query(&query, session, NSLP, signer).unwrap(),
        association: None,
        peer: PeerIdentity::new(vec![1; 4]).unwrap(),
        peer_handle: PeerHandle([0; 16]),
        principal: Principal([1; 32]),
        tentative: false,
        authenticated: true,
        hop_count: 60,
        ip_distance: None,
        reception: Default::default(),
    }
}
