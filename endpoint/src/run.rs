//! Starting the host: rules first, then queues, then routes, then signalling.

use std::error::Error;
use std::sync::Arc;

use daemon::datapath::{Datapath, Lead};
use daemon::drive::WAITING_OCTETS;
use daemon::identity::IdentityError;
use daemon::routing::Routing;
use daemon::start::{Signalling, Start};
use daemon::{clock, exempt, identity};
use gist::node;
use pbs_nslp::credentials::HmacGenerator;
use pbs_nslp::credentials::Signer;
use pbs_nslp::entropy::Entropy;
use pbs_nslp::fair_queue::FairQueue;
use pbs_nslp::host::Host;
use pbs_nslp::node::NodeConfig;
use pbs_nslp::receiver::{Receiver, ReceiverConfig};
use pbs_nslp::sender::{Sender, SenderConfig};
use traffic::af_xdp::AfXdp;
use traffic::counters::Counters;
use traffic::icmp::Room;
use traffic::inserter::{IdentificationKey, Inserter, InserterConfig};
use traffic::netlink::NetlinkError;
use traffic::queue::QueueConfig;
use traffic::routes::MtuPlan;
use traffic::rules::{HostRules, Install, Role, Whole};
use traffic::spread::Spread;
use traffic::verifier::{self, Verifier, VerifierConfig};

use crate::Parts;
use crate::config::{Ask, Config, LargestProtection};
use crate::core::HostCore;
use crate::paths::{self, Paths};
use crate::policy;
use crate::{relay, short_way};

/// How the routes make room for AH.
const fn mtu_plan(largest: LargestProtection) -> MtuPlan {
    match largest {
        LargestProtection::Symmetric => MtuPlan::new(28, 32),
        LargestProtection::PublicKey => MtuPlan::new(76, 80),
        LargestProtection::Rsa2048 => MtuPlan::new(268, 272),
        LargestProtection::Rsa4096 => MtuPlan::new(524, 528),
    }
}

/// What AH may come to take.
const fn room(config: &Config) -> Room {
    let MtuPlan { ipv4_overhead, ipv6_overhead, .. } = mtu_plan(config.datapath.largest_protection);
    Room { ipv4: ipv4_overhead, ipv6: ipv6_overhead }
}

/// Once packets must be signed, those whose signatures the routes leave no room for do not fit through the links.
fn warn_of_narrow_routes(config: &Config, signature: usize) {
    let room = match config.datapath.largest_protection {
        // Nobody expects signatures.
        LargestProtection::Symmetric => return,
        LargestProtection::PublicKey => 64,
        LargestProtection::Rsa2048 => 256,
        LargestProtection::Rsa4096 => 512,
    };
    if signature > room {
        tracing::warn!(signature, room, "datapath.largest_protection leaves no room for signatures of this host's key");
    }
}

/// Gives the routes their MTUs back, however much room they were made to leave.
pub(crate) fn restore_routes() -> Result<(), NetlinkError> {
    let others = traffic::paths::restore().and(traffic::af_xdp::restore());
    mtu_plan(LargestProtection::PublicKey).restore().and(others)
}

/// Runs the host until it is asked to end.
pub(crate) async fn run(config: Config, parts: &Parts) -> Result<(), Box<dyn Error>> {
    let plan = MtuPlan { mark: config.datapath.mark, ..mtu_plan(config.datapath.largest_protection) };
    let routing = Routing::new(Some(plan));
    let undo = routing.undo();
    let undo = Box::new(move || undo().and(traffic::paths::restore()).and(traffic::af_xdp::restore()));
    let prepared = short_way::prepare(&config.datapath);
    let start = Start::begin(&config, Role::Host, rules(&config, parts, prepared.index()), undo).await?;
    warn_of_narrow_routes(&config, start.credentials.signer.signature_length());
    let (af_xdp, datapath) = short_way::open(&config.datapath, prepared, &start.admitted());
    let (datapaths, relay) = start_workers(&config, parts, &start, af_xdp)?;
    let routing = routing.follow(&start.threads)?;
    let (mask, marks) = (config.datapath.path_mark, Paths::marks(&config.path, config.datapath.path_mark));
    let paths = Paths::open(&config.path, mask, room(&config), &start.threads)?;

    let Signalling { gist, indications, addresses, node } = start.signalling(&config.gist, node::Role::Host, marks)?;
    let node = NodeConfig { hmac_sha1: config.datapath.hmac_sha1, ..node };
    let (signer, authority) = (start.credentials.signer.clone(), start.credentials.revocation.authority());
    // GIST listens meanwhile: what it hears waits.
    clock::next_second().await;
    let (unix, now) = (clock::unix_seconds(), start.clock.now());
    let sessions = config.datapath.permissions;
    let macs = policy::macs(config.datapath.largest_protection);
    let sender = SenderConfig { sessions, macs, ..SenderConfig::new(node.clone(), addresses.clone(), policy::asks(&asks(&config))) };
    let sender = Sender::new(sender, signer.clone(), authority.clone(), entropy()?, unix, now);
    let receiver = ReceiverConfig {
        sessions,
        key_age: config.key_age.0,
        refuse: config.refuse.0,
        reactions: config.reactions.reactions(),
        ..ReceiverConfig::new(node, addresses.clone(), policy::grant_policy(&config.grant, config.relay.as_ref()))
    };
    let receiver = Receiver::new(receiver, signer, authority, entropy()?, unix, now);
    tracing::info!(name = config.name, ?addresses, "host runs; what has no permission is dropped");
    let core = (parts.around)(Box::new(HostCore {
        name: config.name,
        host: Host::new(sender, receiver),
        waiting: FairQueue::new(WAITING_OCTETS),
        paths,
        relay,
        datapath,
    }));
    start.run(core, gist, indications, datapaths, routing).await
}

/// What asks for permissions: the flows to relays, and what the configuration says.
fn asks(config: &Config) -> Vec<Ask> {
    paths::asks(&config.path).into_iter().chain(config.ask.iter().cloned()).collect()
}

/// What a core draws from; never the same twice.
fn entropy() -> Result<Entropy, IdentityError> {
    Ok(Entropy::new(Arc::new(HmacGenerator), identity::seed()?))
}

fn rules(config: &Config, parts: &Parts, inlet: Option<u32>) -> Install {
    let rules = HostRules::new(config.datapath.outbound_queue, config.datapath.inbound_queue, config.gist.association_port);
    let (fragments, path_mark) = (config.datapath.fragments, config.datapath.path_mark);
    let (exempt, ways) = (exempt::rules(&config.exempt), Paths::links(&config.path, path_mark));
    let whole = config.datapath.super_packets.then_some(Whole { queue: config.datapath.tcp_queue, mark: config.datapath.mark });
    let rules = HostRules { exempt, fragments, path_mark, ways, relayed: relay::mark(config), whole, inlet, ..rules };
    let install = parts.install_rules;
    let install = move |reassembly, socket: &_| install(&HostRules { reassembly, ..rules.clone() }, socket);
    config.datapath.reassembly.installing(fragments, install)
}

/// One worker for what leaves, one for what arrives, in the order of the directions in `core`; and what a relay does in the latter.
fn start_workers(
    config: &Config,
    parts: &Parts,
    start: &Start,
    af_xdp: Option<AfXdp>,
) -> Result<(Vec<Datapath>, Option<relay::Shown>), Box<dyn Error>> {
    let capacity = config.datapath.permissions;
    let counters = Arc::new(Counters::default());
    let room = room(config);
    let outbound = InserterConfig {
        ask: policy::ask_rules(&asks(config)),
        mark: Some(config.datapath.mark),
        path_marks: Paths::marks(&config.path, config.datapath.path_mark),
        capacity,
        room,
        identifications: Some(IdentificationKey::new(&identity::seed()?)?),
        ..InserterConfig::default()
    };
    let inserter = Box::new(Inserter::new(outbound, parts.outbound_checks.clone(), counters.clone()));
    let whole = config.datapath.super_packets.then_some(config.datapath.tcp_queue);
    let queue = QueueConfig { whole, ..QueueConfig::outbound(config.datapath.outbound_queue) };
    let outbound = start.datapath("outbound", queue, inserter, counters)?;

    let counters = Arc::new(Counters::default());
    // Which numbers are sampled is nobody's business.
    let sampling_phase = u32::from(identity::seed()?[0]);
    let signatures = config.datapath.signatures;
    let inbound = VerifierConfig {
        capacity,
        signatures: signatures.flow(),
        node_signatures: signatures.node(),
        sampling_phase,
        ..VerifierConfig::new(verifier::Role::Receiver)
    };
    let verifier = Box::new(Verifier::new(inbound, parts.inbound_checks.clone(), counters.clone())?);
    let (verifier, relay) = relay::around(verifier, config)?;
    let inbound = Lead { queue: QueueConfig::new(config.datapath.inbound_queue), af_xdp, processor: verifier, counters };
    // Nothing waits until the rules know of a permission: what comes meanwhile, or passes no queue by, comes to the queue.
    let inbound = start.datapaths("inbound", vec![inbound], Spread::ALONE)?.admitting(start.admitted(), false);
    Ok((vec![outbound, inbound], relay))
}
