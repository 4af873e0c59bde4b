//! How every daemon starts: the claim to its network namespace, then the filter rules, then everything that can fail without
//! opening anything.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use gist::api::Indication;
use gist::io::{Bind, Handle, Limits, Marks, PATHS, ShellConfig};
use gist::wire::NslpId;
use pbs_nslp::node::NodeConfig;
use tokio::sync::{Notify, mpsc};
use traffic::counters::Counters;
use traffic::processor::PacketProcessor;
use traffic::queue::QueueConfig;
use traffic::rules::{ASSOCIATION_MARK, Admitted, Install, LISTENER_MARK, Role};
use traffic::spread::Spread;

use crate::claim::{self, Claim, ClaimError};
use crate::clock::Clock;
use crate::config::{Gist, Identity};
use crate::control::{self, Control};
use crate::datapath::{Datapath, DatapathError, Lead};
use crate::drive::{Core, Drive, Parts};
use crate::identity::{self, Credentials};
use crate::logging::Form;
use crate::routing::Followed;
use crate::rules::{Rules, Undo};
use crate::threads::{Ended, Threads};

/// What the configurations of both daemons hold.
pub trait Settings {
    /// Form of the log lines.
    fn log(&self) -> Form;
    /// Where the control socket lies.
    fn control_socket(&self) -> &Path;
    /// Certificate, key, trust anchors.
    fn identity(&self) -> &Identity;
    /// The signalling transport, with the peer database.
    fn gist(&self) -> &Gist;
    /// Permissions at the most.
    fn permissions(&self) -> usize;
}

/// What a daemon holds before it has queues and signalling.
pub struct Start {
    /// Who the daemon is.
    pub credentials: Credentials,
    /// The clock that core and workers share.
    pub clock: Clock,
    /// The threads without which the daemon ends.
    pub threads: Threads,
    claim: Claim,
    rules: Rules,
    ended: mpsc::Receiver<Ended>,
    control: Control,
    wake: Arc<Notify>,
}

/// GIST, and this node as its application sees it.
pub struct Signalling {
    /// To GIST.
    pub gist: Handle,
    /// From GIST.
    pub indications: mpsc::Receiver<Indication>,
    /// The addresses of this node.
    pub addresses: Vec<IpAddr>,
    /// The node's part in the NSLP.
    pub node: NodeConfig,
}

impl Start {
    /// Claims the network namespace and puts the filter rules in place; only then reads the identity and opens the control
    /// socket.
    pub async fn begin(settings: &impl Settings, role: Role, install: Install, undo: Undo) -> Result<Self, Box<dyn Error>> {
        let claim = Claim::take().inspect_err(|error| {
            // Beside another daemon the rules are its own. Nobody else has set any, if this kernel has no packet queues, or no room.
            if !matches!(error, ClaimError::Taken) {
                let _ = traffic::rules::close(role);
            }
        })?;
        let (threads, ended) = Threads::new();
        // From here on nothing passes that no queue has accepted, whatever becomes of this process: an expired certificate must
        // not leave the node open.
        let rules = Rules::start(role, install, undo, settings.permissions(), &threads)?;
        claim::gist_port_is_privileged()?;
        let credentials = Credentials::load(settings.identity(), settings.gist())?;
        let control = control::listen(settings.control_socket(), role).await?;
        let (clock, wake) = (Clock::start(), Arc::new(Notify::new()));
        Ok(Self { credentials, clock, threads, claim, rules, ended, control, wake })
    }

    /// Starts a packet worker named `name`; `processor` counts in `counters`.
    pub fn datapath(
        &self,
        name: &'static str,
        queue: QueueConfig,
        processor: Box<dyn PacketProcessor>,
        counters: Arc<Counters>,
    ) -> Result<Datapath, DatapathError> {
        self.datapaths(name, vec![Lead { queue, af_xdp: None, processor, counters }], Spread::ALONE)
    }

    /// The same with several workers.
    ///
    /// # Errors
    ///
    /// See [`DatapathError`].
    pub fn datapaths(&self, name: &'static str, leads: Vec<Lead>, spread: Spread) -> Result<Datapath, DatapathError> {
        Datapath::start(name, leads, spread, self.clock, &self.wake, self.credentials.packet_signer())
    }

    /// The permissions that the rules know: for the worker that judges what arrives.
    pub fn admitted(&self) -> Admitted {
        self.rules.admitted().clone()
    }

    /// Starts GIST; `path_marks` are those of [`Bind::path_marks`].
    pub fn signalling(&self, config: &Gist, role: gist::node::Role, path_marks: [u32; PATHS]) -> Result<Signalling, Box<dyn Error>> {
        let node = identity::node_config(config, role)?;
        let addresses = node.local_addresses.clone();
        self.credentials.warn_of_unnamed(&addresses);
        let bind = Bind { marks: Some(Marks { listener: LISTENER_MARK, association: ASSOCIATION_MARK }), path_marks, ..Bind::default() };
        let shell = ShellConfig { node, tls: Some(self.credentials.tls.clone()), bind, limits: Limits::default() };
        let (gist, indications) = gist::io::spawn(shell)?;
        let reporter = addresses.first().copied().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(Signalling { gist, indications, addresses, node: NodeConfig::new(NslpId(config.nslp_id), reporter) })
    }

    /// Runs until the daemon is asked to end, or cannot go on. `datapaths` are in the order of the core's directions.
    pub async fn run(
        self,
        core: Box<dyn Core>,
        gist: Handle,
        indications: mpsc::Receiver<Indication>,
        datapaths: Vec<Datapath>,
        routing: Followed,
    ) -> Result<(), Box<dyn Error>> {
        let Self { credentials, clock, threads, claim: _claim, rules, ended, control, wake } = self;
        let parts = Parts { core, gist, indications, datapaths, wake, control, clock, rules, routing, credentials, threads, ended };
        Ok(Drive::new(parts).run().await?)
    }
}
