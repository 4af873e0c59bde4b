//! Between the words of the NSLP and those of the packet side. The two crates do not know each other.

use gist::time::Instant;
use pbs_nslp::datapath::{Command, Event, Grant, Protection, Token};
use pbs_nslp::flow::FlowId;
use traffic::algorithm::{IcvAlgorithm, IcvKey, KeyLengthError};
use traffic::flow::Flow;
use traffic::update::{self, Update};
use traffic::worker::Up;

/// A command of the NSLP as an update of a packet table.
///
/// Fails if the key does not fit its algorithm; the NSLP's decoder lets no such key through.
pub(crate) fn update(command: Command) -> Result<Update, KeyLengthError> {
    let token = command.token().0;
    Ok(match command {
        Command::Install { grant, .. } => Update::Install { token, grant: self::grant(&grant)? },
        Command::Update { flow, spi, allowed, expires_at, .. } => {
            Update::Update { token, flow: self::flow(flow), spi, allowed, expires_at: instant(expires_at) }
        }
        Command::Remove { flow, spi, .. } => Update::Remove { token, flow: self::flow(flow), spi },
        Command::Drain { flow, spi, until, .. } => Update::Drain { token, flow: self::flow(flow), spi, until: instant(until) },
        Command::Snapshot { flow, spi, .. } => Update::Snapshot { token, flow: self::flow(flow), spi },
        Command::Expect { flow, until, .. } => Update::Expect { token, flow: self::flow(flow), until: instant(until) },
        Command::ReleaseHeld { flow, .. } => Update::ReleaseHeld { token, flow: self::flow(flow) },
        Command::DropHeld { flow, .. } => Update::DropHeld { token, flow: self::flow(flow) },
    })
}

/// What a worker says, as an event for the NSLP; `None` for what concerns the daemon alone.
pub(crate) fn event(up: Up) -> Option<Event> {
    match up {
        Up::Applied(applied) => Some(Event::Applied { token: Token(applied.token), counted: applied.counted, highest: applied.highest }),
        Up::Refused(refused) => Some(Event::Failed { token: Token(refused.token), reason: refused.why.to_string() }),
        // A flow that signalling cannot name (multicast, port 0) gets no permission; its packets time out in the worker.
        Up::Event(traffic::event::Event::FirstPacket(flow)) => Some(Event::FirstPacket { flow: flow_id(flow)? }),
        Up::Event(traffic::event::Event::NearlyUsedUp { flow, spi }) => Some(Event::NearlyUsedUp { flow: flow_id(flow)?, spi }),
        Up::Event(traffic::event::Event::OverBudget { flow, spi }) => Some(Event::OverBudget { flow: flow_id(flow)?, spi }),
        Up::Stopped(_) => None,
    }
}

fn grant(grant: &Grant) -> Result<update::Grant, KeyLengthError> {
    let key = match &grant.protection {
        Protection::HmacSha256(key) => IcvKey::new(IcvAlgorithm::HmacSha256_128, key.expose())?,
    };
    Ok(update::Grant {
        flow: flow(grant.flow),
        spi: grant.spi,
        key,
        allowed: grant.allowed,
        counted: grant.counted,
        expires_at: instant(grant.expires_at),
    })
}

fn flow(flow: FlowId) -> Flow {
    Flow {
        source: flow.source,
        destination: flow.destination,
        protocol: flow.protocol,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
    }
}

fn flow_id(flow: Flow) -> Option<FlowId> {
    FlowId::new(flow.source, flow.destination, flow.protocol, flow.source_port, flow.destination_port).ok()
}

fn instant(instant: Instant) -> smoltcp::time::Instant {
    let micros = instant.saturating_duration_since(Instant::ZERO).as_micros();
    smoltcp::time::Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}
