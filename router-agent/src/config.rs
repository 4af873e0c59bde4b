//! The configuration file of `pbs-router`. The commented sample is `router-agent/pbs-router.toml`.

use std::path::{Path, PathBuf};

use daemon::config::{self, ConfigError, Gist, Identity};
use daemon::logging::Form;
use serde::Deserialize;

/// Everything `pbs-router` can be told.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Name of this node in logs and status.
    pub name: String,
    /// Where the control socket lies.
    #[serde(default = "default_control_socket")]
    pub control_socket: PathBuf,
    /// Form of the log lines.
    #[serde(default)]
    pub log: Form,
    /// Certificate, key, trust anchors.
    pub identity: Identity,
    /// The signalling transport.
    #[serde(default)]
    pub gist: Gist,
    /// The packet side.
    #[serde(default)]
    pub datapath: Datapath,
}

/// Section `[datapath]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Datapath {
    /// NFQUEUE number of intercepted signalling.
    pub signalling_queue: u16,
    /// NFQUEUE number of forwarded data.
    pub data_queue: u16,
    /// Permissions held at most.
    pub permissions: usize,
}

impl Default for Datapath {
    fn default() -> Self {
        Self { signalling_queue: 1, data_queue: 2, permissions: 65_536 }
    }
}

fn default_control_socket() -> PathBuf {
    PathBuf::from("/run/pbs/router.sock")
}

/// Reads and checks the file; relative paths become paths beside it.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
    let mut config: Config = config::load(path)?;
    config.gist.check(path)?;
    if config.datapath.signalling_queue == config.datapath.data_queue {
        return Err(ConfigError::Value {
            path: path.to_owned(),
            key: "datapath.data_queue",
            message: "is the signalling queue's number too".to_owned(),
        });
    }
    config.control_socket = config::beside(path, &config.control_socket);
    config.identity.resolve(path);
    Ok(config)
}
