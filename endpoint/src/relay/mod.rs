//! This host as a relay for others: what it needs of the packet side, and what it shows.

mod config;

use std::sync::Arc;

use serde_json::{Map, Value, json};
use traffic::counters::Count;
use traffic::processor::PacketProcessor;
use traffic::relay::{OutletError, RawOutlet, Relay, RelayCounters, RelayDrop, RelayRules};
use traffic::rules::RELAYED_MARK;

pub(crate) use config::{Admit, Section, check};

use crate::config::Config;

/// What `status` and `counters` say of a relay.
pub(crate) struct Shown {
    section: Section,
    counters: Arc<RelayCounters>,
}

/// The whole mark of what is sent on, for rules and sockets; none if this host is no relay.
pub(crate) fn mark(config: &Config) -> Option<u32> {
    config.relay.as_ref().map(|_| RELAYED_MARK | config.datapath.mark)
}

/// Puts a relay around the verifier of what arrives, if this host is to be one.
pub(crate) fn around(
    verifier: Box<dyn PacketProcessor>,
    config: &Config,
) -> Result<(Box<dyn PacketProcessor>, Option<Shown>), OutletError> {
    let (Some(section), Some(mark)) = (&config.relay, mark(config)) else { return Ok((verifier, None)) };
    let rules = RelayRules {
        admit: section.admit.iter().map(|admit| admit.source).collect(),
        forward_to: section.forward_to.clone(),
        association_port: config.gist.association_port,
        rate: section.rate,
    };
    let counters = Arc::new(RelayCounters::default());
    let relay = Relay::new(verifier, rules, Box::new(RawOutlet::open(mark)?), counters.clone());
    Ok((Box::new(relay), Some(Shown { section: section.clone(), counters })))
}

impl Shown {
    /// For `status`.
    pub(crate) fn status(&self) -> Value {
        let admitted: Vec<String> = self.section.admit.iter().map(|admit| admit.source.to_string()).collect();
        let mut fields = self.numbers();
        fields.insert("admit".to_owned(), admitted.into());
        fields.insert("forward_to".to_owned(), json!(self.section.forward_to));
        fields.into()
    }

    /// For `counters`.
    pub(crate) fn counters(&self) -> Value {
        self.numbers().into()
    }

    fn numbers(&self) -> Map<String, Value> {
        let show = |count: Count| json!({ "packets": count.packets, "bytes": count.bytes });
        let row = |reason: &RelayDrop| {
            let Count { packets, bytes } = self.counters.dropped(*reason);
            json!({ "reason": reason.word(), "packets": packets, "bytes": bytes })
        };
        let dropped: Vec<Value> = RelayDrop::ALL.iter().map(row).collect();
        let mut fields = Map::new();
        fields.insert("forwarded".to_owned(), show(self.counters.forwarded()));
        fields.insert("told_too_big".to_owned(), show(self.counters.told_too_big()));
        fields.insert("dropped".to_owned(), dropped.into());
        fields
    }
}
