//! Keys `kind` and `interfaces` of `[datapath]`: packets with AH straight from the interface (AF_XDP).

use daemon::source::{ConfigError, Source};
use serde_json::{Value, json};
use traffic::af_xdp::{self, AfXdp, AfXdpError, MOST_INTERFACES, Taking};
use traffic::rules::{Mode, Modes};

use crate::config::{Datapath, Kind};
use crate::modes::is_name;

/// Refuses what cannot be used.
pub(crate) fn check(datapath: &Datapath, config: &Source) -> Result<(), ConfigError> {
    let names = &datapath.interfaces;
    let wrong = |message: String| Err(config.wrong("datapath.interfaces", message));
    if datapath.kind == Kind::AfXdp && names.is_empty() {
        return Err(config.wrong("datapath.kind", "is \"af_xdp\", and `interfaces` names none that takes part"));
    }
    if datapath.kind == Kind::AfXdp && datapath.workers > 1 {
        return Err(config.wrong("datapath.workers", "is more than 1, and `kind = \"af_xdp\"` has one worker"));
    }
    if names.len() > MOST_INTERFACES {
        return wrong(format!("names more than {MOST_INTERFACES}"));
    }
    for (place, name) in names.iter().enumerate() {
        if !is_name(name) {
            return wrong(format!("`{name}` is no name of an interface: up to 15 characters without spaces, `/` and `:`"));
        }
        if names.iter().take(place).any(|earlier| earlier == name) {
            return wrong(format!("names `{name}` twice"));
        }
    }
    Ok(())
}

/// Opens the short way if it is wanted, and gives what `status` shows of it. If there is none, all packets go through the queues.
pub(crate) fn open(datapath: &Datapath, modes: &Modes) -> (Option<AfXdp>, Value) {
    if datapath.kind == Kind::Nfqueue {
        if !datapath.interfaces.is_empty() {
            tracing::warn!("datapath.interfaces names interfaces, and datapath.kind is \"nfqueue\": all packets go through the queues");
        }
        // What an earlier run has left would drop what nobody takes.
        if let Err(error) = af_xdp::restore() {
            tracing::warn!(%error, "an XDP program of an earlier run may be left: packets with AH may be lost");
        }
        return (None, json!({ "kind": "nfqueue" }));
    }
    let taking = datapath.interfaces.iter().map(|name| Taking { name: name.clone(), leaves: mode(modes, name) != Mode::Observe });
    match AfXdp::open(&taking.collect::<Vec<_>>()) {
        Ok(af_xdp) => {
            let shown = show(&af_xdp);
            (Some(af_xdp), shown)
        }
        Err(error) => {
            tracing::warn!(%error, "there is no AF_XDP: all packets go through the queues");
            (None, fallen_back(&error))
        }
    }
}

fn mode(modes: &Modes, name: &str) -> Mode {
    modes.interfaces.iter().find(|(listed, _)| listed == name).map_or(modes.others, |(_, mode)| *mode)
}

fn show(af_xdp: &AfXdp) -> Value {
    let row = |part: &af_xdp::Part| {
        let program = match part.mode {
            af_xdp::Mode::Native => "driver",
            af_xdp::Mode::Generic => "generic",
        };
        json!({ "interface": part.name, "program": program, "queues": part.queues, "zero_copy": part.zero_copy })
    };
    json!({ "kind": "af_xdp", "interfaces": af_xdp.parts().iter().map(row).collect::<Vec<_>>() })
}

fn fallen_back(error: &AfXdpError) -> Value {
    json!({ "kind": "nfqueue", "not_af_xdp_because": error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_observed_or_not_there_is_said() {
        let modes = Modes { others: Mode::Closed, interfaces: vec![("eth1".to_owned(), Mode::Observe)] };
        assert_eq!((mode(&modes, "eth0"), mode(&modes, "eth1")), (Mode::Closed, Mode::Observe));
        let shown = fallen_back(&AfXdpError::NoInterface("eth7".to_owned()));
        assert_eq!(shown, json!({ "kind": "nfqueue", "not_af_xdp_because": "there is no interface eth7" }));
    }
}
