//! Log lines on standard error: text for people, JSON for machines.

use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// Form of the log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// Starts logging. The environment variable `RUST_LOG` chooses levels; without it, `info`.
pub fn start(form: Form) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second start in the same process (tests) keeps the first one.
    let _ = match form {
        Form::Text => lines.with_ansi(false).try_init(),
        Form::Json => lines.json().flatten_event(true).try_init(),
    };
}
