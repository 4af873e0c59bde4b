//! Keys `kind` and `interfaces` of `[datapath]`: by which way packets with AH come to the daemon, and from it to programs.

use std::sync::Arc;

use daemon::interfaces;
use daemon::source::{ConfigError, Source};
use serde::Deserialize;
use serde_json::{Value, json};
use traffic::af_xdp::{self, AfXdp, AfXdpError, Inlet, Shield, Standing};
use traffic::rules::Admitted;

use crate::config::Datapath;

/// By which way packets come to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// All of them through the packet queue.
    #[default]
    Nfqueue,
    /// Those of permitted flows, if whole, straight from the interface; all others through the packet queue.
    AfXdp,
}

/// Refuses what cannot be used.
pub(crate) fn check(datapath: &Datapath, config: &Source) -> Result<(), ConfigError> {
    if datapath.kind == Kind::AfXdp && datapath.interfaces.is_empty() {
        return Err(config.wrong("datapath.kind", "is \"af_xdp\", and `interfaces` names none that takes part"));
    }
    interfaces::check(&datapath.interfaces, config)
}

/// What there is before the rules: they name the device by which judged packets come.
pub(crate) enum Prepared {
    /// Nothing is wanted.
    Nothing,
    /// The device.
    Inlet(Inlet),
    /// It cannot be had.
    Refused(AfXdpError),
}

/// What `status` shows.
#[derive(Debug)]
pub(crate) enum Shown {
    /// Everything comes through the queue.
    Queue,
    /// The same, though it was not wanted.
    Refused(AfXdpError),
    /// Packets of permitted flows pass it by.
    Standing(Standing),
}

/// Makes the device, if it is wanted.
pub(crate) fn prepare(datapath: &Datapath) -> Prepared {
    match datapath.kind {
        Kind::Nfqueue => Prepared::Nothing,
        Kind::AfXdp => Inlet::open().map_or_else(Prepared::Refused, Prepared::Inlet),
    }
}

impl Prepared {
    /// The kernel's index of the device.
    pub(crate) fn index(&self) -> Option<u32> {
        if let Self::Inlet(inlet) = self { Some(inlet.index()) } else { None }
    }
}

/// Has packets pass the queue by, if that is wanted. If they cannot, all go through it. `admitted` must know of no permission yet.
pub(crate) fn open(datapath: &Datapath, prepared: Prepared, admitted: &Admitted) -> (Option<AfXdp>, Shown) {
    let opened = match prepared {
        Prepared::Inlet(inlet) => stand(datapath, inlet, admitted),
        Prepared::Refused(error) => Err(error),
        Prepared::Nothing => {
            if !datapath.interfaces.is_empty() {
                tracing::warn!("datapath.interfaces names interfaces, and datapath.kind is \"nfqueue\": all packets go through the queue");
            }
            take_off();
            return (None, Shown::Queue);
        }
    };
    opened.map_or_else(
        |error| {
            tracing::warn!(%error, "packets do not pass the queue by: all go through it");
            take_off();
            (None, Shown::Refused(error))
        },
        |(af_xdp, standing)| (Some(af_xdp), Shown::Standing(standing)),
    )
}

fn stand(datapath: &Datapath, inlet: Inlet, admitted: &Admitted) -> Result<(AfXdp, Standing), AfXdpError> {
    // Who sets up new interfaces may have come after the device was made.
    inlet.check()?;
    let shield = Shield::new(datapath.permissions, true)?;
    let (af_xdp, standing) = AfXdp::receive_at_host(&datapath.interfaces, &shield, inlet)?;
    admitted.stand_behind(Arc::new(shield));
    Ok((af_xdp, standing))
}

/// What an earlier run has left would drop what nobody takes.
fn take_off() {
    if let Err(error) = af_xdp::restore() {
        tracing::warn!(%error, "an XDP program of an earlier run may be left: packets with AH may be lost");
    }
}

impl Shown {
    /// As it is now.
    pub(crate) fn show(&self) -> Value {
        match self {
            Self::Queue => json!({ "kind": "nfqueue" }),
            Self::Refused(error) => json!({ "kind": "nfqueue", "not_af_xdp_because": error.to_string() }),
            Self::Standing(standing) => json!({ "kind": "af_xdp", "interfaces": interfaces::receiving(standing) }),
        }
    }
}
