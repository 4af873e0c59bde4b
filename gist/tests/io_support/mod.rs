//! A certificate authority and a network of its own for the tests of the shell.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part")]

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Once;
use std::time::{Duration, Instant};

use gist::api::{Carriage, Indication, MessageHandle, PathId, ReceivedMessage, Request, Routing, SendMessage, TransferAttributes};
use gist::io::tls::{Tls, configs};
use gist::io::{Bind, Handle, Limits, ShellConfig, ShellError, spawn};
use gist::node::{ApdEntry, IdentityPattern, NodeConfig, PeerRole, Registration, Role};
use gist::wire::{Direction, Mri, NslpId, PathCoupled, PeerIdentity, SessionId};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, SignatureAlgorithm};
use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;

pub const NSLP: NslpId = NslpId(32704);
pub const ROUTER_ALERT: u16 = 65503;
pub const PORT: u16 = 30270;
pub const ASKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
pub const ANSWERER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
pub const ASKER_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 2));
pub const ANSWERER_6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd21, 0, 0, 0, 0, 0, 0, 3));

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn certificate(&self) -> CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A good certificate with the names of the second parameter, each a DNS name or an address.
    pub fn issue(&self, algorithm: &'static SignatureAlgorithm, names: &[&str]) -> Identity {
        self.issue_with(algorithm, names, |_| {})
    }

    pub fn issue_with(
        &self,
        algorithm: &'static SignatureAlgorithm,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names.first().copied().unwrap_or("nobody"));
        params.subject_alt_names = names
            .iter()
            .map(|name| match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            })
            .collect();
        change(&mut params);
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity { certificate: certificate.der().clone(), key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())) }
    }
}

/// A certificate and its key.
pub struct Identity {
    pub certificate: CertificateDer<'static>,
    pub key: PrivateKeyDer<'static>,
}

impl Identity {
    pub fn tls(&self, authority: &Authority) -> Tls {
        configs(vec![self.certificate.clone()], self.key.clone_key(), vec![authority.certificate()]).unwrap()
    }
}

pub fn expired(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2001, 1, 1);
    params.not_after = rcgen::date_time_ymd(2002, 1, 1);
}

/// Runs a test in a network namespace of its own that has nothing but a loopback interface.
///
/// Without the right to make one, the test says so in one line and passes, but fails in CI.
pub fn in_own_network<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let outcome = std::thread::spawn(|| {
        static SAID: Once = Once::new();
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            assert!(!in_ci(), "network tests must not be skipped in CI, and network namespaces need root ({error})");
            SAID.call_once(|| {
                let _ = writeln!(std::io::stderr(), "skipped: network namespaces need root ({error})");
            });
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(set_up_loopback()).expect("no loopback interface");
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test()).await.expect("the test hangs") });
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Whether nothing may be skipped: `CI` is set, and to something else than nothing or `false`.
pub fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Brings the loopback interface of the calling thread's namespace up, with the addresses of the tests. No duplicate is looked
/// for (RFC 4862 §5.4), so that they work at once.
async fn set_up_loopback() -> Result<(), rtnetlink::Error> {
    let (connection, netlink, _) = rtnetlink::new_connection().expect("no netlink socket");
    let connection = tokio::spawn(connection);
    netlink.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await?;
    let index = if_nametoindex("lo").expect("no loopback interface");
    for address in [ASKER_6, ANSWERER_6] {
        let mut request = netlink.address().add(index, address, 128);
        request.message_mut().header.flags = AddressHeaderFlags::Nodad;
        request.execute().await?;
    }
    connection.abort();
    Ok(())
}

/// A node at a loopback address.
pub struct Node {
    pub address: IpAddr,
    pub handle: Handle,
    pub indications: mpsc::Receiver<Indication>,
}

impl Node {
    pub fn start(address: IpAddr, tls: Tls, allowed: &str) -> Self {
        Self::start_with(address, tls, allowed, |_| {})
    }

    pub fn start_with(address: IpAddr, tls: Tls, allowed: &str, change: impl FnOnce(&mut ShellConfig)) -> Self {
        let mut config = config(address, tls, allowed);
        change(&mut config);
        Self::start_from(address, &config)
    }

    /// Another test's child process holds copies of our sockets until it executes its program, so that a port
    /// which has just been closed can be in use for a moment more.
    pub fn start_from(address: IpAddr, config: &ShellConfig) -> Self {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            match spawn(config.clone()) {
                Err(ShellError::Bind { source, .. }) if source.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                started => {
                    let (handle, indications) = started.unwrap();
                    return Self { address, handle, indications };
                }
            }
        }
    }

    pub async fn send(&self, request: SendMessage) {
        self.handle.request(Request::Send(request)).await.unwrap();
    }

    pub async fn indication(&mut self) -> Indication {
        let waited = tokio::time::timeout(Duration::from_secs(10), self.indications.recv()).await;
        waited.expect("no indication came").expect("the shell has ended")
    }

    pub async fn received(&mut self) -> ReceivedMessage {
        match self.indication().await {
            Indication::Received(message) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }
}

pub fn config(address: IpAddr, tls: Tls, allowed: &str) -> ShellConfig {
    let mut node = NodeConfig::new(identity_of(address), Role::Host);
    node.registrations = vec![Registration::secure(NSLP, Some(ROUTER_ALERT))];
    node.association_port = PORT;
    node.local_addresses = vec![address];
    node.authorised_peers = vec![ApdEntry { pattern: IdentityPattern::DnsName(allowed.to_owned()), role: PeerRole::Host, allow: true }];
    let bind = match address {
        IpAddr::V4(address) => Bind { ipv4: Some(address), ipv6: None, ..Bind::default() },
        IpAddr::V6(address) => Bind { ipv4: None, ipv6: Some(address), ..Bind::default() },
    };
    ShellConfig { node, tls: Some(tls), bind, limits: Limits::default() }
}

pub fn identity_of(address: IpAddr) -> PeerIdentity {
    PeerIdentity::new(address.to_string().into_bytes()).unwrap()
}

/// A message of the flow from the asker to the answerer.
pub fn message(direction: Direction, payload: &[u8], handle: u64) -> SendMessage {
    message_of((ASKER, ANSWERER), direction, payload, handle)
}

pub fn message_of((source, destination): (IpAddr, IpAddr), direction: Direction, payload: &[u8], handle: u64) -> SendMessage {
    let prefix = if source.is_ipv4() { 32 } else { 128 };
    let flow = PathCoupled {
        direction,
        source,
        destination,
        source_prefix: prefix,
        destination_prefix: prefix,
        protocol: Some(17),
        ds_field: None,
        flow_label: None,
        spi: None,
        source_port: Some(4000),
        destination_port: Some(9000),
    };
    SendMessage {
        nslp_id: NSLP,
        session: SessionId([7; 16]),
        mri: Mri::PathCoupled(flow),
        payload: payload.to_vec().into(),
        attributes: TransferAttributes::RELIABLE_AND_SECURE,
        handle: MessageHandle(handle),
        timeout: None,
        hop_count: None,
        on_behalf_of: None,
        path: PathId::ROUTED,
        routing: Routing::State,
        carriage: Carriage::Any,
    }
}
