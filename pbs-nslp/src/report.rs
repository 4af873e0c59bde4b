//! What happened, for logs, events and the people who read them.

use core::fmt;
use core::time::Duration;
use std::net::IpAddr;

use gist::api::{PathId, SendError};
use gist::wire::SessionId;

use crate::admission::Refusal;
use crate::credentials::CertificateError;
use crate::detection::{Finding, Test};
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
        /// Last sequence number that the sender counted; `None` if it does not say.
        sent_highest: Option<u32>,
        /// Highest sequence number that the receiver counted.
        counted_highest: u32,
        /// What that means.
        finding: Finding,
    },
    /// The flow takes another way from now on (FS-09, FS-25).
    PathChanged {
        /// Which.
        path: PathId,
    },
    /// The receiver asked for another path, and there is none (FS-26).
    NoOtherPath,
    /// There is evidence of an attack.
    Evidence(Attack),
    /// What was done about an attack.
    Attacked {
        /// What.
        reaction: Reaction,
    },
    /// The Query was refused by the receiver.
    Denied {
        /// How long the flow will not ask again; 0 at other nodes than the sender.
        hold: Duration,
        /// Why; only the receiver knows more than that it was so.
        why: Denial,
    },
    /// A denial that answers nothing asked on the present way: what was granted on the one left ends (FS-18).
    LeftBehind,
    /// The receiver took the permission back.
    Revoked,
    /// The sender gave the permission back.
    Released,
    /// A permission, or the wait for one, ended by itself.
    Expired {
        /// Which clock ended it.
        clock: &'static str,
    },
    /// What an end of the flow has signed ended with the belief in its certificate.
    Distrusted {
        /// Which end.
        signer: IpAddr,
        /// Why it is believed no more.
        error: CertificateError,
    },
    /// A newer session of the same flow took over.
    Superseded,
    /// The flow was denied shortly before and may not ask yet (FS-02).
    HeldDown {
        /// For how long.
        remaining: Duration,
    },
    /// Nobody answered; the flow is given up.
    Unreachable {
        /// What was heard last about the Query, if anything.
        cause: Option<Setback>,
    },
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
    /// A Permission names another epoch and does not say that its counters begin anew (FS-24).
    NotANewEpoch {
        /// The epoch.
        spi: u32,
    },
    /// A new epoch has taken the place of the one before, which drains (FR-18).
    Rekeyed {
        /// The new epoch.
        spi: u32,
        /// How its packets are authenticated.
        algorithm: &'static str,
        /// AV of the new epoch.
        allowed: Volume,
        /// Why.
        why: Rekey,
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

/// Why a receiver begins another epoch in the middle of a permission (FR-18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rekey {
    /// Its operator wants it.
    Ordered,
    /// The key has been in use for long.
    KeyAge,
    /// Half of the AH numbers are used up.
    Numbers,
    /// The sender counts in 32 bits, and they are nearly full.
    Width,
}

/// Evidence of an attack, with its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Attack {
    /// Packets arrived that the sender did not send.
    Injection {
        /// Which test says so.
        test: Test,
        /// How much is too much; see [`Finding::Injection`].
        excess: u64,
        /// What is tolerated.
        tolerated: u64,
    },
    /// Packets do not arrive, for the second period in a row.
    Drop {
        /// How many bytes in this period.
        deficit: u64,
        /// What is tolerated.
        tolerated: u64,
    },
    /// Nothing arrives, for two periods (T4).
    Silence {
        /// How many packets were sent since.
        packets: u32,
        /// How many are tolerated.
        tolerated: u32,
    },
    /// More than the allowed volume arrived, all of it authenticated.
    Overrun,
}

/// What a receiver did about an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reaction {
    /// A new epoch has begun, in which the sender signs its packets (FR-40).
    Escalated {
        /// The new epoch.
        spi: u32,
        /// How they are signed.
        algorithm: &'static str,
    },
    /// The sender was asked to take another path (FR-42).
    OtherPathAsked {
        /// How many times by now.
        times: u8,
    },
    /// Nothing more: the limit of path changes is reached (FR-43).
    Tolerated,
    /// The permission has ended: the packets were signed, so the sender lies or has lost its key (FR-41).
    Revoked,
}

/// Why a Query may not have come to where it is answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Setback {
    /// GIST did not deliver it.
    Undelivered(SendError),
    /// A node on the path sent a notice about it.
    Notified {
        /// Its code.
        code: NotifyCode,
        /// Its detail.
        detail: u16,
        /// Who says so; not verified.
        reporter: IpAddr,
    },
}

impl fmt::Display for Setback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Undelivered(error) => error.fmt(f),
            Self::Notified { code, detail, reporter } => {
                write!(f, "{reporter} notified {code:?} ({}/{detail}): {}", code.number(), code.meaning(*detail))
            }
        }
    }
}

impl Report {
    /// How much attention it deserves: `INFO` is the normal story, `WARN` something an operator may have to look at.
    pub fn level(&self) -> tracing::Level {
        match &self.event {
            ReportEvent::Asked { .. } | ReportEvent::Installed { .. } => tracing::Level::DEBUG,
            ReportEvent::Refreshed { .. } | ReportEvent::Stray => tracing::Level::DEBUG,
            ReportEvent::DatapathFailed { .. } | ReportEvent::NotBuilt { .. } | ReportEvent::NotActedUpon => tracing::Level::ERROR,
            ReportEvent::Refused(_)
            | ReportEvent::AlgorithmRefused
            | ReportEvent::KeySwapRefused { .. }
            | ReportEvent::NotANewEpoch { .. }
            | ReportEvent::OverBudget { .. }
            | ReportEvent::BudgetSpent
            | ReportEvent::Unanswered
            | ReportEvent::Unreachable { .. }
            | ReportEvent::PathChanged { .. }
            | ReportEvent::NoOtherPath
            | ReportEvent::Evidence(_)
            | ReportEvent::Attacked { .. }
            | ReportEvent::Distrusted { .. }
            | ReportEvent::Undelivered { .. } => tracing::Level::WARN,
            ReportEvent::Granted { .. }
            | ReportEvent::Rekeyed { .. }
            | ReportEvent::Compared { .. }
            | ReportEvent::Denied { .. }
            | ReportEvent::Revoked
            | ReportEvent::LeftBehind
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

impl fmt::Display for Rekey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ordered => "ordered",
            Self::KeyAge => "the key is old",
            Self::Numbers => "half of the numbers are used up",
            Self::Width => "the sender counts in 32 bits",
        })
    }
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Injection { test, excess, tolerated } => Finding::Injection { test, excess, tolerated }.fmt(f),
            Self::Drop { deficit, tolerated } => {
                write!(f, "{deficit} bytes missing for the second period in a row, {tolerated} are tolerated")
            }
            Self::Silence { packets, tolerated } => Finding::Silence { packets, tolerated }.fmt(f),
            Self::Overrun => f.write_str("authenticated packets beyond the allowed volume"),
        }
    }
}

impl fmt::Display for Reaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Escalated { spi, algorithm } => write!(f, "from now on signed packets ({algorithm}) under SPI {spi:#x}"),
            Self::OtherPathAsked { times } => write!(f, "another path asked for (time {times})"),
            Self::Tolerated => f.write_str("missing packets tolerated: no more path changes are left"),
            Self::Revoked => f.write_str("revoked: the sender's own signed packets do not fit its own figures"),
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

/// Why a receiver grants nothing. Its Permission does not say so: only its own log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// Somebody else's decision: at a router.
    Elsewhere,
    /// No rule grants the flow.
    NoRule,
    /// The flow was revoked, and is refused for so long yet.
    Revoked {
        /// How long.
        rest: Duration,
    },
    /// Who was asked said no.
    Declined,
    /// Nobody decided in time (FR-07).
    Undecided,
    /// There is no authentication of packets that both ends agree to.
    Algorithms,
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere => f.write_str(" by the receiver"),
            Self::NoRule => f.write_str(": no rule grants it"),
            Self::Revoked { rest } => write!(f, ": it was revoked, and is refused for {} s yet", rest.as_secs()),
            Self::Declined => f.write_str(": declined by who was asked"),
            Self::Undecided => f.write_str(": nobody decided in time"),
            Self::Algorithms => f.write_str(": no authentication of its packets is wanted here that its sender accepts and can do"),
        }
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
            Self::Compared { sent, counted, sent_highest, counted_highest, finding } => {
                write!(f, "sent {sent}")?;
                sent_highest.map_or(Ok(()), |number| write!(f, " up to number {number}"))?;
                write!(f, ", counted {counted} up to number {counted_highest}: {finding}")
            }
            Self::PathChanged { path: PathId::ROUTED } => f.write_str("path changed: back to where routing leads"),
            Self::PathChanged { path } => write!(f, "path changed: way {path} from now on"),
            Self::NoOtherPath => f.write_str("the receiver asks for another path, and there is none"),
            Self::Evidence(attack) => attack.fmt(f),
            Self::Attacked { reaction } => reaction.fmt(f),
            Self::Denied { hold, why } if hold.is_zero() => write!(f, "denied{why}"),
            Self::Denied { hold, .. } => write!(f, "denied by the receiver, not asked again for {hold:?}"),
            Self::LeftBehind => {
                f.write_str("a denial on the way left: what was granted there ends, and the question on this one stays open")
            }
            Self::Revoked => f.write_str("revoked by the receiver"),
            Self::Released => f.write_str("released"),
            Self::Expired { clock } => write!(f, "expired ({clock})"),
            Self::Distrusted { signer, error } => write!(f, "ended at once: {signer} is believed no more: {error}"),
            Self::Superseded => f.write_str("superseded by a newer session"),
            Self::HeldDown { remaining } => write!(f, "not granted before, may ask again in {remaining:?}"),
            Self::Unreachable { cause: None } => f.write_str("nobody answered two tries"),
            Self::Unreachable { cause: Some(cause) } => write!(f, "nobody answered two tries; last heard: {cause}"),
            Self::Unanswered => f.write_str("refresh not answered"),
            Self::Exhausted { spi } => write!(f, "allowed volume of SPI {spi:#x} used up and no more granted"),
            Self::OverBudget { spi } => write!(f, "more than the allowed volume arrived under SPI {spi:#x}"),
            Self::BudgetSpent => f.write_str("denied: the volume for the time limit is used up, over all epochs"),
            Self::AlgorithmRefused => f.write_str("packet authentication not accepted"),
            Self::KeySwapRefused { spi } => write!(f, "another key or algorithm under the known SPI {spi:#x}"),
            Self::NotANewEpoch { spi } => write!(f, "the volume would go on under the other SPI {spi:#x}, which nobody can count"),
            Self::Rekeyed { spi, algorithm, allowed, why } => {
                write!(f, "new epoch, {allowed}, {algorithm}, SPI {spi:#x}: {why}")
            }
            Self::Stray => f.write_str("Permission for a session that does not exist"),
            Self::Refused(refusal) => write!(f, "refused: {refusal}"),
            Self::Notified { code, detail, number, reporter } => {
                write!(f, "{reporter} notifies {code:?} ({}/{detail}) about message {number}: {}", code.number(), code.meaning(*detail))
            }
            Self::Notifying { code, detail } => write!(f, "Notify {code:?} ({}/{detail})", code.number()),
            Self::Undelivered { error } => write!(f, "message not delivered: {error}"),
            Self::DatapathFailed { reason } => write!(f, "packet side: {reason}"),
            Self::NotBuilt { reason } => write!(f, "message not built: {reason}"),
            Self::NotActedUpon => f.write_str("not acted upon in this version"),
        }
    }
}
