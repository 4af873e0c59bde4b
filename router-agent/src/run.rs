//! Starting the router: rules first, then queues, then signalling.

use std::error::Error;
use std::sync::Arc;

use daemon::drive::WAITING_OCTETS;
use daemon::routing::Routing;
use daemon::start::{Signalling, Start};
use daemon::{clock, exempt};
use gist::node;
use gist::wire::NslpId;
use pbs_nslp::fair_queue::FairQueue;
use pbs_nslp::node::NodeConfig;
use pbs_nslp::router::{Router, RouterConfig};
use traffic::counters::Counters;
use traffic::queue::QueueConfig;
use traffic::rules::{Install, Role, RouterRules};
use traffic::verifier::{self, Verifier, VerifierConfig};

use crate::Parts;
use crate::config::Config;
use crate::core::RouterCore;
use crate::signalling::{self, Applications};
use crate::{limits, modes};

/// Runs the router until it is asked to end.
pub(crate) async fn run(config: Config, parts: &Parts) -> Result<(), Box<dyn Error>> {
    let start = Start::begin(&config, Role::Router, rules(&config, parts), Box::new(|| Ok(()))).await?;
    let routing = Routing::new(None).follow(&start.threads)?;

    let capacity = config.datapath.permissions;
    let counters = Arc::new(Counters::default());
    let signatures = config.datapath.signatures;
    let verifier = VerifierConfig {
        capacity,
        signatures: signatures.flow(),
        node_signatures: signatures.node(),
        ..VerifierConfig::new(verifier::Role::Router)
    };
    let verifier = Box::new(Verifier::new(verifier, parts.checks.clone(), counters.clone())?);
    let modes = modes::rules(config.mode, config.egress_rate, &config.interface);
    let observed = modes.observe().then_some(config.datapath.observed_queue);
    let queue = QueueConfig { modes: !modes.are_closed(), observed, ..QueueConfig::new(config.datapath.data_queue) };
    let data = start.datapath("data", queue, verifier, counters)?.admitting(start.admitted(), config.datapath.shield);

    let Signalling { gist, indications, addresses, node } = start.signalling(&config.gist, node::Role::Router, [0; gist::io::PATHS])?;
    let node = NodeConfig { hmac_sha1: config.datapath.hmac_sha1, ..node };
    let foreign = config.gist.foreign_nslp_ids.iter().copied().map(NslpId).collect();
    let applications = Applications { own: NslpId(config.gist.nslp_id), foreign };
    let signalling = signalling::start(config.datapath.signalling_queue, applications, gist.clone(), &start.threads)?;

    let router =
        RouterConfig { policy: limits::policy(&config.limit), open: modes.are_open(), ..RouterConfig::with_sessions(node, capacity) };
    let authority = start.credentials.revocation.authority();
    let router = Router::with_table(router, authority, parts.table, clock::unix_seconds(), start.clock.now());
    match modes.are_closed() {
        true => tracing::info!(name = config.name, ?addresses, "router runs; what has no permission is dropped"),
        false => tracing::warn!(name = config.name, ?addresses, ?modes, "router runs; not every interface is closed"),
    }
    let waiting = FairQueue::new(WAITING_OCTETS);
    let core = (parts.around)(Box::new(RouterCore { name: config.name, router, waiting, signalling, modes }));
    start.run(core, gist, indications, vec![data], routing).await
}

fn rules(config: &Config, parts: &Parts) -> Install {
    let rules = RouterRules::new(config.datapath.signalling_queue, config.datapath.data_queue, config.gist.association_port);
    let modes = modes::rules(config.mode, config.egress_rate, &config.interface);
    let fragments = config.datapath.fragments;
    let observed_queue = config.datapath.observed_queue;
    let exempt = exempt::rules(&config.exempt);
    let (permissions, shield) = (config.datapath.permissions, config.datapath.shield);
    let rules = RouterRules { exempt, modes, fragments, observed_queue, permissions, shield, ..rules };
    let install = parts.install_rules;
    let install = move |reassembly, socket: &_| install(&RouterRules { reassembly, ..rules.clone() }, socket);
    config.datapath.reassembly.installing(fragments, install)
}
