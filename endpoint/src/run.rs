//! Starting the host: rules first, then queues, then routes, then signalling.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use daemon::claim::Claim;
use daemon::clock::{self, Clock};
use daemon::control;
use daemon::datapath::Datapath;
use daemon::drive::{self, Drive};
use daemon::identity::{self, Credentials};
use gist::io::{Bind, Limits, ShellConfig};
use gist::node::Role;
use gist::wire::NslpId;
use pbs_nslp::host::Host;
use pbs_nslp::node::NodeConfig;
use pbs_nslp::receiver::{Receiver, ReceiverConfig};
use pbs_nslp::sender::{Sender, SenderConfig};
use tokio::sync::Notify;
use traffic::counters::Counters;
use traffic::inserter::{Inserter, InserterConfig};
use traffic::routes::MtuPlan;
use traffic::rules::{Exemptions, HostRules};
use traffic::verifier::{self, Verifier, VerifierConfig};

use crate::Parts;
use crate::config::{Config, LargestProtection};
use crate::core::HostCore;
use crate::policy;

/// How the routes make room for AH.
pub(crate) fn mtu_plan(config: &Config) -> MtuPlan {
    match config.datapath.largest_protection {
        LargestProtection::Symmetric => MtuPlan::new(28, 32),
        LargestProtection::PublicKey => MtuPlan::new(76, 80),
    }
}

/// Runs the host until it is asked to end.
pub(crate) async fn run(config: Config, parts: &Parts) -> Result<(), Box<dyn Error>> {
    let _claim = Claim::take()?;
    // From here on nothing leaves or arrives that no queue has accepted, whatever becomes of this process: an expired
    // certificate must not leave the host open.
    HostRules {
        outbound_queue: config.datapath.outbound_queue,
        inbound_queue: config.datapath.inbound_queue,
        association_port: config.gist.association_port,
        exemptions: Exemptions::default(),
    }
    .install()?;
    let credentials = Credentials::load(&config.identity)?;
    let control = control::listen(&config.control_socket).await?;

    let clock = Clock::start();
    let wake = Arc::new(Notify::new());
    let datapaths = start_workers(&config, parts, clock, &wake)?;
    let routes = mtu_plan(&config).apply()?;
    for left in &routes.left {
        tracing::warn!(route = left.route, why = %left.why, "route keeps its MTU: packets that fill it will be fragmented or refused");
    }

    let node = identity::node_config(&config.gist, Role::Host)?;
    credentials.warn_of_unnamed(&node.local_addresses);
    let addresses = node.local_addresses.clone();
    let shell = ShellConfig { node, tls: credentials.tls, bind: Bind::default(), limits: Limits::default() };
    let (gist, indications) = gist::io::spawn(shell)?;

    let reporter = addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let node = NodeConfig::new(NslpId(config.gist.nslp_id), reporter);
    let (unix, now) = (clock::unix_seconds(), clock.now());
    let sessions = config.datapath.permissions;
    let sender = SenderConfig { sessions, ..SenderConfig::new(node.clone(), addresses.clone(), policy::asks(&config.ask)) };
    let sender = Sender::new(sender, credentials.signer.clone(), credentials.authority.clone(), identity::seed()?, unix, now);
    let receiver = ReceiverConfig { sessions, ..ReceiverConfig::new(node, addresses.clone(), policy::grant_policy(&config.grant)) };
    let receiver = Receiver::new(receiver, credentials.signer, credentials.authority, identity::seed()?, unix, now);
    tracing::info!(name = config.name, ?addresses, "host runs; what has no permission is dropped");
    let core = (parts.around)(Box::new(HostCore { name: config.name, host: Host::new(sender, receiver) }));
    Ok(Drive::new(drive::Parts { core, gist, indications, datapaths, wake, control, clock }).run().await?)
}

/// One worker for what leaves, one for what arrives, in the order of the directions in `core`.
fn start_workers(config: &Config, parts: &Parts, clock: Clock, wake: &Arc<Notify>) -> Result<Vec<Datapath>, Box<dyn Error>> {
    let capacity = config.datapath.permissions;
    let counters = Arc::new(Counters::default());
    let outbound =
        InserterConfig { ask: policy::ask_rules(&config.ask), mark: Some(traffic::routes::MARK), capacity, ..InserterConfig::default() };
    let inserter = Box::new(Inserter::new(outbound, parts.outbound_checks.clone(), counters.clone()));
    let outbound = Datapath::start("outbound", config.datapath.outbound_queue, inserter, counters, clock, wake.clone())?;

    let counters = Arc::new(Counters::default());
    let inbound = VerifierConfig { capacity, ..VerifierConfig::new(verifier::Role::Receiver) };
    let verifier = Box::new(Verifier::new(inbound, parts.inbound_checks.clone(), counters.clone())?);
    let inbound = Datapath::start("inbound", config.datapath.inbound_queue, verifier, counters, clock, wake.clone())?;
    Ok(vec![outbound, inbound])
}
