//! The same with certificates and signatures that are real.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pbs_nslp::credentials::{Signer, X509Authority, X509Signer};
use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::{MessageKind, NotifyCode};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SignatureAlgorithm};

use crate::credentials::ToyAuthority;
use crate::world::{SENDER, T, Transit, World, flow, receiver_address, seconds, sender_address};

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    anchor: Bytes,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let anchor = params.self_signed(&key).unwrap();
        Self { anchor: Bytes::copy_from_slice(anchor.der()), issuer: Issuer::new(params, key) }
    }

    fn signer(&self, address: IpAddr, algorithm: &'static SignatureAlgorithm) -> Arc<dyn Signer> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::IpAddress(address)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let certificate = Bytes::copy_from_slice(certificate.der());
        Arc::new(X509Signer::from_der(vec![certificate], &key.serialize_der()).unwrap())
    }

    fn authority(&self) -> Arc<X509Authority> {
        Arc::new(X509Authority::new(std::slice::from_ref(&self.anchor)).unwrap())
    }
}

#[test]
fn ed25519_and_p256_keys_sign_and_every_node_verifies() {
    for algorithm in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P256_SHA256] {
        let ca = Ca::new();
        let signers = [ca.signer(sender_address(), algorithm), ca.signer(receiver_address(), algorithm)];
        let mut world = World::with_credentials(2, 1, signers, ca.authority(), Arc::new(ToyAuthority::default()));
        world.want();
        world.run(seconds(12));
        assert_eq!(world.states(), ["Permitted"; 4], "{}", world.trace.join("\n"));
        assert_eq!(world.packet(100), Some(3));
    }
}

/// P-200, P-201, X-110: 600 exchanges a second on one processor are to be beaten by a router. Here two routers and both hosts take turns on
/// one, unoptimised, in its own time and not that of the clock on the wall; each verifies what it has to with real keys.
#[test]
fn a_processor_does_more_than_600_exchanges_a_second_for_each_node() {
    const NODES: u64 = 4;
    const PERIODS: u64 = 60;
    let ca = Ca::new();
    let signers = [sender_address(), receiver_address()].map(|address| ca.signer(address, &rcgen::PKCS_ED25519));
    let mut world = World::with_credentials(2, 1, signers, ca.authority(), Arc::new(ToyAuthority::default()));
    world.want();
    world.run(seconds(1));
    let came = |transit: &&Transit| transit.to == SENDER && transit.kind() == MessageKind::Permission;
    let exchanges = |world: &World| world.delivered.iter().filter(came).count() as u64;
    let (before, begun) = (exchanges(&world), processor_time());
    world.run(T * u32::try_from(PERIODS).unwrap());
    let (done, taken) = (exchanges(&world) - before, processor_time() - begun);
    assert!(done >= PERIODS, "{done} exchanges in {PERIODS} periods");
    let of_a_node = taken.as_secs_f64() / (done * NODES) as f64;
    eprintln!("{done} exchanges: {:.0} µs a node and exchange", of_a_node * 1e6);
    assert!(of_a_node < 1.0 / 600.0, "{of_a_node} s");
}

/// What the calling thread has had of processors.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_ascii_whitespace().next().unwrap().parse().unwrap())
}

#[test]
fn a_certificate_for_another_address_or_of_another_ca_stops_at_the_first_router() {
    // P-069, P-071.
    let (ca, other) = (Ca::new(), Ca::new());
    let ed25519 = &rcgen::PKCS_ED25519;
    for (signer, detail) in [(ca.signer([192, 0, 2, 99].into(), ed25519), 4), (other.signer(sender_address(), ed25519), 2)] {
        let signers = [signer, ca.signer(receiver_address(), ed25519)];
        let mut world = World::with_credentials(2, 1, signers, ca.authority(), Arc::new(ToyAuthority::default()));
        world.want();
        world.run(seconds(1));
        assert!(world.recorded.iter().all(|transit| transit.to < 2), "nothing goes on");
        let told = |event: &ReportEvent| matches!(event, ReportEvent::Notified { code: NotifyCode::Certificate, detail: told, .. } if *told == detail);
        assert!(world.saw(SENDER, told), "{}", world.trace.join("\n"));
        assert_eq!(world.router_state(1), "Idle");
        let _ = flow();
    }
}
