//! What happened, for logs, events and the people who read them.

use core::fmt;
use core::time::Duration;
use std::net::IpAddr;

use gist::api::SendError;
use gist::wire::SessionId;

use crate::admission::Refusal;
use crate::flow::FlowId;
use crate::wire::{NotifyCode, Volume};

/// One line of a node's story.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Report {
    /// The flow, if a message got far enough to name one.
    pub flow: Option<FlowId>,
    /// The session.
    pub session: SessionId,
    /// The rule of the state machine's table, empty if none was involved.
    pub rule: &'static str,
    /// What happened.
    pub event: ReportEvent,
}

/// What happened to a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReportEvent {
    /// A Query left, or came in.
    Asked {
        /// Its number.
        number: u32,
        /// RV.
        requested: Option<Volume>,
        /// SV.
        sent: Option<Volume>,
    },
    /// A permission was given.
    Granted {
        /// The epoch.
        spi: u32,
        /// AV.
        allowed: Volume,
        /// How long it lives.
        ttl: Duration,
        /// The soft-state period T.
        refresh: Duration,
    },
    /// The packet side has the permission.
    Installed {
        /// The epoch.
        spi: u32,
    },
    /// A permission was prolonged or changed.
    Refreshed {
        /// Number of the Permission.
        number: u32,
        /// AV.
        allowed: Volume,
        /// How long it still lives.
        ttl: Duration,
    },
    /// The receiver held what was sent against what came (appendix E).
    Compared {
        /// SV.
        sent: Volume,
        /// CV.
        counted: Volume,
        /// Last sequence number that the sender counted.
        sent_highest: u32,
        /// Highest sequence number that the receiver counted.
        counted_highest: u32,
    },
    /// The Query was refused by the receiver.
    Denied {
        /// How long the flow will not ask again; 0 at other nodes than the sender.
        hold: Duration,
    },
    /// The receiver took the permission back.
    Revoked,
    /// The sender gave the permission back.
    Released,
    /// A permission, or the wait for one, ended by itself.
    Expired {
        /// Which clock ended it.
        clock: &'static str,
    },
    /// A newer session of the same flow took over.
    Superseded,
    /// The flow was denied shortly before and may not ask yet (FS-02).
    HeldDown {
        /// For how long.
        remaining: Duration,
    },
    /// Nobody answered; the flow is given up.
    Unreachable,
    /// Nobody answered a refresh; the permission goes on as long as it lives (FS-32).
    Unanswered,
    /// The allowed volume is used up and more was refused (FS-42).
    Exhausted {
        /// The epoch.
        spi: u32,
    },
    /// Authenticated packets exceeded the allowed volume (FR-24).
    OverBudget {
        /// The epoch.
        spi: u32,
    },
    /// The flow has had all that its terms allow within their time limit, in this epoch and former ones.
    BudgetSpent,
    /// The Permission demands an algorithm that is not accepted here (FS-07).
    AlgorithmRefused,
    /// The Permission has another key or algorithm under a known SPI (FS-23, FN-24).
    KeySwapRefused {
        /// The epoch.
        spi: u32,
    },
    /// A Permission for a session that does not exist (FS-03).
    Stray,
    /// A message was refused and changed nothing.
    Refused(Refusal),
    /// A node on the path sent a notice.
    Notified {
        /// Its code.
        code: NotifyCode,
        /// Its detail.
        detail: u16,
        /// Number of the message concerned.
        number: u32,
        /// Who says so; not verified.
        reporter: IpAddr,
    },
    /// A notice left for the sender.
    Notifying {
        /// Its code.
        code: NotifyCode,
        /// Its detail.
        detail: u16,
    },
    /// GIST did not deliver a message.
    Undelivered {
        /// Why.
        error: SendError,
    },
    /// The packet side could not carry out a command.
    DatapathFailed {
        /// Why.
        reason: String,
    },
    /// A message could not be built.
    NotBuilt {
        /// Why.
        reason: String,
    },
    /// An event that the table has a row for, which this version does not act upon.
    NotActedUpon,
}

impl Report {
    /// How much attention it deserves: `INFO` is the normal story, `WARN` something an operator may have to look at.
    pub fn level(&self) -> tracing::Level {
        match &self.event {
            ReportEvent::Compared { .. } | ReportEvent::Asked { .. } | ReportEvent::Installed { .. } => tracing::Level::DEBUG,
            ReportEvent::Refreshed { .. } | ReportEvent::Stray => tracing::Level::DEBUG,
            ReportEvent::DatapathFailed { .. } | ReportEvent::NotBuilt { .. } | ReportEvent::NotActedUpon => tracing::Level::ERROR,
            ReportEvent::Refused(_)
            | ReportEvent::AlgorithmRefused
            | ReportEvent::KeySwapRefused { .. }
            | ReportEvent::OverBudget { .. }
            | ReportEvent::BudgetSpent
            | ReportEvent::Unanswered
            | ReportEvent::Unreachable
            | ReportEvent::Undelivered { .. } => tracing::Level::WARN,
            ReportEvent::Granted { .. }
            | ReportEvent::Denied { .. }
            | ReportEvent::Revoked
            | ReportEvent::Released
            | ReportEvent::Expired { .. }
            | ReportEvent::Superseded
            | ReportEvent::HeldDown { .. }
            | ReportEvent::Exhausted { .. }
            | ReportEvent::Notified { .. }
            | ReportEvent::Notifying { .. } => tracing::Level::INFO,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.rule.is_empty() {
            write!(f, "{}: ", self.rule)?;
        }
        if let Some(flow) = self.flow {
            write!(f, "{flow}: ")?;
        }
        self.event.fmt(f)
    }
}

impl fmt::Display for ReportEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked { number, requested, sent } => {
                write!(f, "Query {number}")?;
                requested.map_or(Ok(()), |volume| write!(f, ", asks for {volume}"))?;
                sent.map_or(Ok(()), |volume| write!(f, ", sent {volume}"))
            }
            Self::Granted { spi, allowed, ttl, refresh } => {
                write!(f, "granted {allowed} for {ttl:?}, refreshed every {refresh:?}, SPI {spi:#x}")
            }
            Self::Installed { spi } => write!(f, "SPI {spi:#x} installed"),
            Self::Refreshed { number, allowed, ttl } => write!(f, "Permission {number}: {allowed}, {ttl:?} left"),
            Self::Compared { sent, counted, sent_highest, counted_highest } => {
                write!(f, "sent {sent} up to number {sent_highest}, counted {counted} up to number {counted_highest}")
            }
            Self::Denied { hold } if hold.is_zero() => f.write_str("denied"),
            Self::Denied { hold } => write!(f, "denied, not asked again for {hold:?}"),
            Self::Revoked => f.write_str("revoked"),
            Self::Released => f.write_str("released"),
            Self::Expired { clock } => write!(f, "expired ({clock})"),
            Self::Superseded => f.write_str("superseded by a newer session"),
            Self::HeldDown { remaining } => write!(f, "denied before, may ask again in {remaining:?}"),
            Self::Unreachable => f.write_str("nobody answered"),
            Self::Unanswered => f.write_str("refresh not answered"),
            Self::Exhausted { spi } => write!(f, "allowed volume of SPI {spi:#x} used up and no more granted"),
            Self::OverBudget { spi } => write!(f, "more than the allowed volume arrived under SPI {spi:#x}"),
            Self::BudgetSpent => f.write_str("denied: the volume for the time limit is used up, over all epochs"),
            Self::AlgorithmRefused => f.write_str("packet authentication not accepted"),
            Self::KeySwapRefused { spi } => write!(f, "another key or algorithm under the known SPI {spi:#x}"),
            Self::Stray => f.write_str("Permission for a session that does not exist"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Notified { code, detail, number, reporter } => {
                write!(f, "{reporter} notifies {code:?} ({}/{detail}) about message {number}", code.number())
            }
            Self::Notifying { code, detail } => write!(f, "Notify {code:?} ({}/{detail})", code.number()),
            Self::Undelivered { error } => write!(f, "message not delivered: {error}"),
            Self::DatapathFailed { reason } => write!(f, "packet side: {reason}"),
            Self::NotBuilt { reason } => write!(f, "message not built: {reason}"),
            Self::NotActedUpon => f.write_str("not acted upon in this version"),
        }
    }
}
