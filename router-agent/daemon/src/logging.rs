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
    let wish = std::env::var_os(EnvFilter::DEFAULT_ENV);
    let filter = EnvFilter::try_from_default_env();
    let not_understood = wish.filter(|_| filter.is_err());
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    // Errors of writing are not told: the only place to tell them is the one that does not work, and trying it would panic.
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    // A second start in the same process (tests) keeps the first one.
    let _ = match form {
        Form::Text => lines.with_ansi(false).try_init(),
        Form::Json => lines.json().flatten_event(true).try_init(),
    };
    if let Some(wish) = not_understood {
        tracing::warn!(?wish, "RUST_LOG is not understood; level info holds");
    }
}
