//! Starting the router: rules first, then queues, then signalling.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use daemon::claim::Claim;
use daemon::clock::{self, Clock};
use daemon::datapath::Datapath;
use daemon::drive::{self, Drive};
use daemon::identity::{self, Credentials};
use daemon::{config, control};
use gist::io::{Bind, Limits, ShellConfig};
use gist::node::Role;
use gist::wire::NslpId;
use pbs_nslp::node::NodeConfig;
use pbs_nslp::router::{Router, RouterConfig};
use tokio::sync::Notify;
use traffic::counters::Counters;
use traffic::rules::RouterRules;
use traffic::verifier::{Verifier, VerifierConfig};

use crate::Parts;
use crate::config::Config;
use crate::core::RouterCore;
use crate::signalling::{self, Applications};

/// Runs the router until it is asked to end.
pub(crate) async fn run(config: Config, parts: &Parts) -> Result<(), Box<dyn Error>> {
    let _claim = Claim::take()?;
    // From here on nothing is forwarded that no queue has accepted, whatever becomes of this process: an expired certificate
    // must not leave the router open.
    (parts.install_rules)(&RouterRules::new(config.datapath.signalling_queue, config.datapath.data_queue))?;
    let credentials = Credentials::load(&config.identity)?;
    let control = control::listen(&config.control_socket).await?;

    let clock = Clock::start();
    let wake = Arc::new(Notify::new());
    let counters = Arc::new(Counters::default());
    let capacity = config.datapath.permissions;
    let verifier = VerifierConfig { capacity, ..VerifierConfig::new(traffic::verifier::Role::Router) };
    let verifier = Box::new(Verifier::new(verifier, parts.checks.clone(), counters.clone())?);
    let data = Datapath::start("data", config.datapath.data_queue, verifier, counters, clock, wake.clone())?;

    let node = identity::node_config(&config.gist, Role::Router)?;
    credentials.warn_of_unnamed(&node.local_addresses);
    let reporter = node.local_addresses.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    let shell = ShellConfig { node, tls: credentials.tls, bind: Bind::default(), limits: Limits::default() };
    let (gist, indications) = gist::io::spawn(shell)?;
    let applications =
        Applications { own: NslpId(config.gist.nslp_id), foreign: config.gist.foreign_nslp_ids.iter().copied().map(NslpId).collect() };
    let signalling = signalling::start(config.datapath.signalling_queue, applications, gist.clone())?;

    let node = NodeConfig::new(NslpId(config.gist.nslp_id), reporter);
    let router = RouterConfig::with_sessions(node, capacity);
    let router = Router::with_table(router, credentials.authority, parts.table, clock::unix_seconds(), clock.now());
    tracing::info!(name = config.name, addresses = ?config::local_addresses()?, "router runs; what has no permission is dropped");
    let core = (parts.around)(Box::new(RouterCore { name: config.name, router, signalling }));
    let parts = drive::Parts { core, gist, indications, datapaths: vec![data], wake, control, clock };
    Ok(Drive::new(parts).run().await?)
}
