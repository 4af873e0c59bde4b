//! Keys `kind` and `interfaces` of `[datapath]`: what XDP does with packets with AH, before the kernel's own path.

use std::sync::Arc;

use daemon::interfaces;
use daemon::source::{ConfigError, Source};
use serde_json::{Value, json};
use traffic::af_xdp::{self, AfXdp, AfXdpError, Shield, Standing, Taking};
use traffic::rules::{Admitted, Mode, Modes};

use crate::config::{Datapath, Kind};

/// Refuses what cannot be used.
pub(crate) fn check(datapath: &Datapath, modes: &Modes, config: &Source) -> Result<(), ConfigError> {
    let names = &datapath.interfaces;
    let wrong_kind = |message: &str| Err(config.wrong("datapath.kind", message));
    match datapath.kind {
        Kind::Nfqueue => {}
        Kind::AfXdp if names.is_empty() => return wrong_kind("is \"af_xdp\", and `interfaces` names none that takes part"),
        Kind::AfXdp if datapath.workers > 1 => {
            return Err(config.wrong("datapath.workers", "is more than 1, and `kind = \"af_xdp\"` has one worker"));
        }
        Kind::AfXdp => {}
        Kind::XdpShield if names.is_empty() => return wrong_kind("is \"xdp_shield\", and `interfaces` names none that it stands on"),
        Kind::XdpShield if !datapath.shield => return wrong_kind("is \"xdp_shield\", and `shield` is false"),
        Kind::XdpShield if !modes.are_closed() => return wrong_kind("is \"xdp_shield\", and not every interface is closed"),
        Kind::XdpShield => {}
    }
    if datapath.busy_poll && datapath.kind != Kind::AfXdp {
        return Err(config.wrong("datapath.busy_poll", "is true, and `kind` is not \"af_xdp\": no worker looks at interfaces"));
    }
    interfaces::check(names, config)
}

/// What XDP does, as `status` shows it.
#[derive(Debug)]
pub(crate) enum Shown {
    /// Nothing.
    Nothing,
    /// Nothing, though it was wanted.
    Refused(Kind, AfXdpError),
    /// It gives packets to the worker.
    ShortWay { standing: Standing, is_shielded: bool },
    /// It drops what has no permission.
    Shield(Standing),
}

/// Has XDP do what is wanted. If it cannot, all packets go through the queues. `admitted` must know of no permission yet.
pub(crate) fn open(datapath: &Datapath, modes: &Modes, admitted: &Admitted) -> (Option<AfXdp>, Shown) {
    let opened = match datapath.kind {
        Kind::Nfqueue => {
            if !datapath.interfaces.is_empty() {
                tracing::warn!("datapath.interfaces names interfaces, and datapath.kind is \"nfqueue\": all packets go through the queues");
            }
            Ok((None, Shown::Nothing))
        }
        Kind::AfXdp => short_way(datapath, modes, admitted),
        Kind::XdpShield => shield(datapath, modes, admitted),
    };
    let opened = opened.unwrap_or_else(|error| {
        tracing::warn!(%error, "XDP does not what is wanted of it: all packets go through the queues");
        (None, Shown::Refused(datapath.kind, error))
    });
    // What an earlier run has left, or what went wrong half-way, would drop what nobody takes.
    if let Shown::Nothing | Shown::Refused(..) = opened.1
        && let Err(error) = af_xdp::restore()
    {
        tracing::warn!(%error, "an XDP program of an earlier run may be left: packets with AH may be lost");
    }
    opened
}

fn short_way(datapath: &Datapath, modes: &Modes, admitted: &Admitted) -> Result<(Option<AfXdp>, Shown), AfXdpError> {
    let taking = datapath.interfaces.iter().map(|name| Taking { name: name.clone(), leaves: mode(modes, name) != Mode::Observe });
    let shield = datapath.shield.then(|| Shield::new(datapath.permissions, modes.are_closed())).transpose()?;
    let (mut af_xdp, standing) = AfXdp::open(&taking.collect::<Vec<_>>(), shield.as_ref())?;
    if datapath.busy_poll
        && let Err(error) = af_xdp.poll_interfaces()
    {
        tracing::warn!(%error, "datapath.busy_poll is without effect");
    }
    let is_shielded = shield.is_some();
    if let Some(shield) = shield {
        admitted.stand_behind(Arc::new(shield));
    }
    Ok((Some(af_xdp), Shown::ShortWay { standing, is_shielded }))
}

fn shield(datapath: &Datapath, modes: &Modes, admitted: &Admitted) -> Result<(Option<AfXdp>, Shown), AfXdpError> {
    let shield = Shield::new(datapath.permissions, modes.are_closed())?;
    let standing = af_xdp::stand(&datapath.interfaces, &shield)?;
    admitted.stand_behind(Arc::new(shield));
    Ok((None, Shown::Shield(standing)))
}

fn mode(modes: &Modes, name: &str) -> Mode {
    modes.interfaces.iter().find(|(listed, _)| listed == name).map_or(modes.others, |(_, mode)| *mode)
}

impl Shown {
    /// As it is now.
    pub(crate) fn show(&self) -> Value {
        match self {
            Self::Nothing => json!({ "kind": "nfqueue" }),
            Self::Refused(kind, error) => {
                let word = if *kind == Kind::XdpShield { "not_xdp_shield_because" } else { "not_af_xdp_because" };
                json!({ "kind": "nfqueue", word: error.to_string() })
            }
            Self::ShortWay { standing, is_shielded } => {
                json!({ "kind": "af_xdp", "shield": is_shielded, "interfaces": interfaces::receiving(standing) })
            }
            Self::Shield(standing) => json!({ "kind": "xdp_shield", "interfaces": interfaces::shielding(standing) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use nix::sched::{CloneFlags, unshare};
    use traffic::netlink::{Batch, CREATE, EXCLUSIVE, Protocol, Socket};
    use traffic::rules::Role;

    use super::*;

    #[test]
    fn an_interface_that_is_observed_or_not_there_is_said() {
        let modes = Modes { others: Mode::Closed, interfaces: vec![("eth1".to_owned(), Mode::Observe)] };
        assert_eq!((mode(&modes, "eth0"), mode(&modes, "eth1")), (Mode::Closed, Mode::Observe));
        let none = || AfXdpError::NoInterface("eth7".to_owned());
        for (kind, word) in [(Kind::AfXdp, "not_af_xdp_because"), (Kind::XdpShield, "not_xdp_shield_because")] {
            let shown = Shown::Refused(kind, none()).show();
            assert_eq!(shown, json!({ "kind": "nfqueue", word: "there is no interface eth7" }));
        }
    }

    /// INV-12: a program without sockets drops all that it is to hand over.
    #[test]
    fn the_program_of_a_run_that_is_over_is_taken_off_whatever_it_is_that_cannot_be_had() {
        in_a_namespace(|| {
            add_link("near");
            let modes = Modes { others: Mode::Closed, interfaces: Vec::new() };
            let no_map = |kind| Datapath { kind, interfaces: vec!["near".to_owned()], permissions: usize::MAX, ..Datapath::default() };
            let no_link = |kind| Datapath { kind, interfaces: vec!["far".to_owned()], ..Datapath::default() };
            let nothing = |kind| Datapath { kind, ..Datapath::default() };
            let kinds =
                [no_map(Kind::AfXdp), no_map(Kind::XdpShield), no_link(Kind::AfXdp), no_link(Kind::XdpShield), nothing(Kind::Nfqueue)];
            for wanted in kinds {
                // As when a process is killed: its sockets go, its program stays.
                let near = Taking { name: "near".to_owned(), leaves: true };
                let (sockets, standing) = AfXdp::open(&[near], None).unwrap();
                drop(sockets);
                let stands = || standing.show().map(|(_, stands)| stands).collect::<Vec<_>>();
                assert_eq!(stands(), [Some(true)]);
                let (af_xdp, shown) = open(&wanted, &modes, &Admitted::open(Role::Router).unwrap());
                assert!(af_xdp.is_none());
                assert_eq!(shown.show()["kind"], "nfqueue", "{wanted:?}");
                assert_eq!(stands(), [Some(false)], "{wanted:?}: {shown:?}");
            }
        });
    }

    /// Half a veth pair in the network namespace of the calling thread.
    fn add_link(name: &str) {
        const NEW_LINK: u16 = 16;
        let mut batch = Batch::new("add a link");
        batch.request("add a link", NEW_LINK, CREATE | EXCLUSIVE, &[0; 16], |writer| {
            writer.put_text(3, name);
            writer.nest(18, |kind| kind.put_text(1, "veth"));
        });
        Socket::open(Protocol::Route).unwrap().transact(batch).unwrap();
    }

    /// Does something in a network namespace of its own, if there may be one.
    fn in_a_namespace(work: impl FnOnce() + Send + 'static) {
        let inside = || match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => work(),
            Err(error) => {
                assert!(!in_ci(), "network tests must not be skipped in CI, and network namespaces need root ({error})");
                let _ = writeln!(std::io::stderr(), "skipped: network namespaces need root ({error})");
            }
        };
        std::thread::spawn(inside).join().unwrap();
    }

    /// Whether nothing may be skipped: `CI` is set, and to something else than nothing or `false`.
    fn in_ci() -> bool {
        std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
    }
}
