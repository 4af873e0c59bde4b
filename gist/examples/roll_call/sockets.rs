//! The same application over the kernel's own sockets: UDP port 270, router alert, TLS over TCP. The shell ([`gist::io`]) does everything
//! that `memory` does by hand; what is left is to hand it requests and take its indications.
//!
//! It plays on the loopback interface of a network namespace of its own, so that it disturbs nobody; that, port 270 and sending router
//! alert need root.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use gist::io::tls::{Tls, configs};
use gist::io::{Bind, Handle, Limits, ShellConfig, spawn};
use gist::node::{ApdEntry, IdentityPattern, NodeConfig, PeerRole, Registration, Role};
use gist::wire::{PeerIdentity, SessionId};
use nix::sched::{CloneFlags, unshare};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519, SanType};
use rtnetlink::LinkUnspec;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;

use gist::api::Indication;

use crate::application::{ROLL_CALL, ROUTER_ALERT, RollCall, flow};

const CALLER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const CALLED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const PORT: u16 = 30270;
const PATIENCE: Duration = Duration::from_secs(10);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Calls the roll between two nodes; the names of who has answered.
///
/// # Errors
///
/// The right to make network namespaces is missing, or somebody did not answer.
pub(crate) fn call() -> Outcome<Vec<String>> {
    let played = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("a network namespace of its own needs root ({error})"))?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(play())
    });
    played.join().unwrap_or_else(|_| Err("a thread panicked".into()))
}

async fn play() -> Outcome<Vec<String>> {
    bring_loopback_up().await?;
    let authority = authority()?;
    let (called, called_hears) = start(CALLED, identity("called", CALLED, &authority)?)?;
    let (caller, mut caller_hears) = start(CALLER, identity("caller", CALLER, &authority)?)?;
    let mut application = RollCall::new("caller", vec![CALLER.into()]);

    // Each application is a task that hears indications and answers with requests.
    let answering = tokio::spawn(serve(RollCall::new("called", vec![CALLED.into()]), called.clone(), called_hears));
    let session = SessionId([7; 16]);
    let flow = flow(CALLER.into(), CALLED.into());
    caller.request(application.call(session, &flow)).await?;
    while application.answers.is_empty() && application.news.is_empty() {
        let indication = tokio::time::timeout(PATIENCE, caller_hears.recv()).await?.ok_or("the node has ended")?;
        for request in application.hear(indication) {
            caller.request(request).await?;
        }
    }
    caller.request(RollCall::remember(session, &flow, Duration::ZERO)).await?;
    caller.stop().await;
    called.stop().await;
    answering.await?;
    application.answers.pop().ok_or_else(|| application.news.concat().into())
}

/// Runs an application until its node ends.
async fn serve(mut application: RollCall, node: Handle, mut hears: mpsc::Receiver<Indication>) {
    while let Some(indication) = hears.recv().await {
        for request in application.hear(indication) {
            if node.request(request).await.is_err() {
                return;
            }
        }
    }
}

fn start(address: Ipv4Addr, tls: Tls) -> Outcome<(Handle, mpsc::Receiver<Indication>)> {
    let identity = PeerIdentity::new(address.to_string().into_bytes()).ok_or("an address is no empty text")?;
    let mut node = NodeConfig::new(identity, Role::Host);
    node.registrations = vec![Registration::secure(ROLL_CALL, Some(ROUTER_ALERT))];
    node.association_port = PORT;
    node.local_addresses = vec![address.into()];
    // A host of the domain may be the peer of its own flows. Routers need a line of their own, with `PeerRole::Router`.
    let pattern = IdentityPattern::DnsName("*.example".to_owned());
    node.authorised_peers = vec![ApdEntry { pattern, role: PeerRole::Host, allow: true }];
    let bind = Bind { ipv4: Some(address), ipv6: None, ..Bind::default() };
    Ok(spawn(ShellConfig { node, tls: Some(tls), bind, limits: Limits::default() })?)
}

/// Whom both nodes believe. A real network makes one once and keeps its key elsewhere.
fn authority() -> Outcome<CertifiedIssuer<'static, KeyPair>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Ok(CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ED25519)?)?)
}

/// A certificate that names the node and its address: GIST looks at both.
fn identity(name: &str, address: Ipv4Addr, authority: &CertifiedIssuer<'static, KeyPair>) -> Outcome<Tls> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names = vec![SanType::DnsName(format!("{name}.example").try_into()?), SanType::IpAddress(IpAddr::V4(address))];
    let key = KeyPair::generate_for(&PKCS_ED25519)?;
    let certificate = params.signed_by(&key, authority)?.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(configs(vec![certificate], key, vec![authority.der().clone()])?)
}

async fn bring_loopback_up() -> Outcome<()> {
    let (connection, netlink, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(netlink.link().set(LinkUnspec::new_with_name("lo").up().build()).execute().await?)
}
