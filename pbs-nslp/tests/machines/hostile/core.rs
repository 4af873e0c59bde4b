//! One node that is given one message, and what has become of it.

use std::collections::BTreeMap;

use gist::api::{ReceivedMessage, SendMessage};
use gist::time::Instant;
use gist::wire::Direction;
use pbs_nslp::node::Counters;
use pbs_nslp::output::Output;
use pbs_nslp::receiver::Receiver;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::router::Router;
use pbs_nslp::sender::Sender;
use pbs_nslp::status::SessionStatus;
use pbs_nslp::wire::{MessageKind, NotifyCode};

use super::settings::ROUTER;
use crate::world::{Place, SENDER, World};

/// Rules that only say that a message is refused.
const REFUSALS: [&str; 4] = ["FS-00", "FR-00", "FN-00", "FN-30"];

/// Longest answer to a bad message, in octets of payload.
const LONGEST_NOTICE: usize = 96;

/// A node of any part. A value: attacks on a clone leave it as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Core {
    Sender(Box<Sender>),
    Router(Box<Router>),
    Receiver(Box<Receiver>),
}

/// What a message led to.
pub(super) struct Outcome {
    pub(super) after: Core,
    pub(super) outputs: Vec<Output>,
    /// Rules taken that say more than that the message is refused.
    pub(super) rules: BTreeMap<&'static str, u64>,
    pub(super) refused: BTreeMap<NotifyCode, u64>,
    pub(super) ignored: u64,
}

impl Core {
    pub(super) fn of(world: &World, place: Place) -> Self {
        match place {
            SENDER => Self::Sender(Box::new(world.sender.clone())),
            ROUTER => Self::Router(Box::new(world.routers[0].clone())),
            _ => Self::Receiver(Box::new(world.receiver.clone())),
        }
    }

    /// Gives a clone the message.
    pub(super) fn given(&self, received: ReceivedMessage, now: Instant) -> Outcome {
        let mut after = self.clone();
        let outputs = match &mut after {
            Self::Sender(core) => {
                core.handle_message(received, now);
                std::iter::from_fn(|| core.poll_output()).collect()
            }
            Self::Router(core) => {
                core.handle_message(received, now);
                std::iter::from_fn(|| core.poll_output()).collect()
            }
            Self::Receiver(core) => {
                core.handle_message(received, now);
                std::iter::from_fn(|| core.poll_output()).collect()
            }
        };
        let (before, counted) = (self.counters(), after.counters());
        let mut rules = grown(&before.rules, &counted.rules);
        rules.retain(|rule, _| !REFUSALS.contains(rule));
        let refused = grown(&before.refused, &counted.refused);
        let ignored = counted.ignored - before.ignored;
        Outcome { after, outputs, rules, refused, ignored }
    }

    /// Everything that decides about what comes.
    pub(super) fn uncounted(&self) -> Self {
        match self {
            Self::Sender(core) => Self::Sender(Box::new(core.uncounted())),
            Self::Router(core) => Self::Router(Box::new(core.uncounted())),
            Self::Receiver(core) => Self::Receiver(Box::new(core.uncounted())),
        }
    }

    pub(super) fn sessions(&self) -> Vec<SessionStatus> {
        match self {
            Self::Sender(core) => core.sessions(),
            Self::Router(core) => core.sessions(),
            Self::Receiver(core) => core.sessions(),
        }
    }

    fn counters(&self) -> &Counters {
        match self {
            Self::Sender(core) => core.counters(),
            Self::Router(core) => core.counters(),
            Self::Receiver(core) => core.counters(),
        }
    }
}

impl Outcome {
    /// Messages that left.
    pub(super) fn sent(&self) -> impl Iterator<Item = &SendMessage> {
        self.outputs.iter().filter_map(|output| if let Output::Send(message) = output { Some(message) } else { None })
    }

    /// How often the message was counted, by whatever reason.
    fn counted(&self) -> u64 {
        self.refused.values().sum::<u64>() + self.rules.values().sum::<u64>() + self.ignored
    }

    /// The one code of its refusal; `None` if it is not refused, but counted otherwise.
    pub(super) fn code(&self) -> Option<NotifyCode> {
        self.refused.keys().next().copied()
    }

    /// Whether the node is as it was but for one count, and has said no more about it than it should.
    pub(super) fn check_nothing_changed(&self, unchanged: &Core, cause: &ReceivedMessage) -> Result<(), String> {
        if self.after.uncounted() != *unchanged {
            return Err(format!("the node has changed: {:?}", self.outputs));
        }
        if self.counted() != 1 {
            return Err(format!("counted {} times: {:?} {:?} {}", self.counted(), self.refused, self.rules, self.ignored));
        }
        let is_notice = cause.payload.first() == Some(&MessageKind::Notify.number());
        let (mut notices, mut refusals) = (0, 0);
        for output in &self.outputs {
            match output {
                Output::Send(message) => {
                    let is_bounded = message.payload.len() <= LONGEST_NOTICE && message.mri.direction() == Direction::Upstream;
                    if is_notice || message.payload.first() != Some(&MessageKind::Notify.number()) || !is_bounded {
                        return Err(format!("answered by {message:?}"));
                    }
                    notices += 1;
                }
                Output::Report(report) => refusals += u64::from(matches!(report.event, ReportEvent::Refused(_))),
                other => return Err(format!("led to {other:?}")),
            }
        }
        let is_told = refusals == self.refused.values().sum::<u64>();
        if notices <= 1 && is_told { Ok(()) } else { Err(format!("{notices} notices, {refusals} refusals told")) }
    }
}

fn grown<K: Ord + Copy>(before: &BTreeMap<K, u64>, after: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let grown = |(name, count): (&K, &u64)| (*name, count - before.get(name).unwrap_or(&0));
    after.iter().map(grown).filter(|(_, count)| *count > 0).collect()
}
