//! Starting the router: rules first, then queues, then signalling.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use daemon::datapath::Lead;
use daemon::drive::WAITING_OCTETS;
use daemon::routing::Routing;
use daemon::start::{Signalling, Start};
use daemon::{clock, exempt};
use gist::node;
use gist::wire::NslpId;
use pbs_nslp::fair_queue::FairQueue;
use pbs_nslp::node::NodeConfig;
use pbs_nslp::router::{Router, RouterConfig};
use traffic::common::Common;
use traffic::counters::Counters;
use traffic::queue::QueueConfig;
use traffic::replay::SizeError;
use traffic::rules::{Install, Role, RouterRules};
use traffic::spread::Spread;
use traffic::verifier::{self, Verifier, VerifierConfig};

use crate::Parts;
use crate::config::{Config, Datapath};
use crate::core::RouterCore;
use crate::signalling::{self, Applications};
use crate::{ingress, limits, modes, short_way};

/// Runs the router until it is asked to end.
pub(crate) async fn run(mut config: Config, parts: &Parts) -> Result<(), Box<dyn Error>> {
    config.datapath.ingress_shield &= parts.ingress_shield;
    let spread = config.datapath.spread()?;
    let start = Start::begin(&config, Role::Router, rules(&config, parts, spread), Box::new(traffic::af_xdp::restore)).await?;
    let routing = Routing::new(None).follow(&start.threads)?;

    let capacity = config.datapath.permissions;
    let signatures = config.datapath.signatures;
    let verifier = VerifierConfig {
        capacity,
        signatures: signatures.flow(),
        node_signatures: signatures.node(),
        ..VerifierConfig::new(verifier::Role::Router)
    };
    let modes = modes::rules(config.mode, config.egress_rate, &config.interface);
    let mut leads = leads(&config, parts, verifier, spread)?;
    let (af_xdp, datapath) = short_way::open(&config.datapath, &modes, &start.admitted());
    let at_ingress = ingress::open(&config.datapath, &modes, &start.admitted());
    // Where there is a short way there is one worker.
    if let Some(lead) = leads.first_mut() {
        lead.af_xdp = af_xdp;
    }
    let data = start.datapaths("data", leads, spread)?.admitting(start.admitted(), config.datapath.shield);

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
    let core =
        (parts.around)(Box::new(RouterCore { name: config.name, router, waiting, signalling, modes, datapath, ingress: at_ingress }));
    start.run(core, gist, indications, vec![data], routing).await
}

/// A verifier for each worker, with the queues that the rules lead its packets to.
fn leads(config: &Config, parts: &Parts, verifier: VerifierConfig, spread: Spread) -> Result<Vec<Lead>, SizeError> {
    let rules = router_rules(config, spread);
    let common = Common::new(verifier.node_signatures);
    let Datapath { queue_length, copy_range, gather_microseconds, .. } = config.datapath;
    let rest = Duration::from_micros(gather_microseconds.into());
    let lead = |worker| {
        let counters = Arc::new(Counters::default());
        let processor = Verifier::new(verifier, parts.checks.clone(), counters.clone())?;
        let processor = Box::new(if spread.workers() == 1 { processor } else { processor.sharing(&common) });
        let (modes, observed) = (!rules.modes.are_closed(), rules.modes.observe().then(|| rules.observed_queue_of(worker)));
        let queue = QueueConfig::router(rules.data_queue_of(worker)).holding(queue_length);
        let queue = QueueConfig { modes, observed, copy_range, rest, ..queue };
        Ok(Lead { queue, af_xdp: None, processor, counters })
    };
    (0..spread.workers()).map(lead).collect()
}

fn rules(config: &Config, parts: &Parts, spread: Spread) -> Install {
    let (rules, install) = (router_rules(config, spread), parts.install_rules);
    let install = move |reassembly, socket: &_| install(&RouterRules { reassembly, ..rules.clone() }, socket);
    config.datapath.reassembly.installing(config.datapath.fragments, install)
}

/// All but how much of the kernel's memory each may take up, which depends on what the kernel has.
fn router_rules(config: &Config, spread: Spread) -> RouterRules {
    let rules = RouterRules::new(config.datapath.signalling_queue, config.datapath.data_queue, config.gist.association_port);
    let modes = modes::rules(config.mode, config.egress_rate, &config.interface);
    let Datapath { fragments, observed_queue, further_queues, permissions, shield, .. } = config.datapath;
    let exempt = exempt::rules(&config.exempt);
    let ingress = ingress::is_wanted(&config.datapath, &modes);
    RouterRules { exempt, modes, fragments, observed_queue, spread, further_queues, permissions, shield, ingress, ..rules }
}
