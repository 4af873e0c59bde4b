//! Reports of the NSLP as log events.

use pbs_nslp::report::Report;
use tracing::Level;

/// Writes a report at its own level; flow, session and rule are fields.
pub(crate) fn log(report: &Report) {
    let flow = report.flow.map(|flow| flow.to_string()).unwrap_or_default();
    let session = report.session;
    let rule = report.rule;
    let event = &report.event;
    match report.level() {
        Level::ERROR => tracing::error!(%flow, %session, rule, "{event}"),
        Level::WARN => tracing::warn!(%flow, %session, rule, "{event}"),
        Level::INFO => tracing::info!(%flow, %session, rule, "{event}"),
        Level::DEBUG => tracing::debug!(%flow, %session, rule, "{event}"),
        Level::TRACE => tracing::trace!(%flow, %session, rule, "{event}"),
    }
}
