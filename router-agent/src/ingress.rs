//! Key `ingress_shield` of `[datapath]`: the shield at the ingress of interfaces, before the filter rules.

use serde_json::{Value, json};
use traffic::af_xdp::ingress::{Ingress, IngressError};
use traffic::rules::{Admitted, Modes};

use crate::config::{Datapath, Kind};

/// Whether it stands, as `status` shows it.
#[derive(Debug)]
pub(crate) enum AtIngress {
    /// It does.
    Stands(Ingress),
    /// It does not: for what reason of the configuration.
    Unwanted(&'static str),
    /// It does not, though it was wanted.
    Refused(IngressError),
}

/// Why it is not to stand; `None` if it is.
fn unwanted(datapath: &Datapath, modes: &Modes) -> Option<&'static str> {
    match datapath {
        Datapath { ingress_shield: false, .. } => Some("ingress_shield is false"),
        Datapath { shield: false, .. } => Some("shield is false"),
        Datapath { kind: Kind::AfXdp | Kind::XdpShield, .. } => Some("kind is not \"nfqueue\""),
        _ if !modes.are_closed() => Some("not every interface is closed"),
        _ => None,
    }
}

/// Whether the filter rules are to believe it.
pub(crate) fn is_wanted(datapath: &Datapath, modes: &Modes) -> bool {
    unwanted(datapath, modes).is_none()
}

/// Has it stand, if it is wanted. If it cannot, the filter rules do all by themselves. `admitted` must know of no permission yet.
pub(crate) fn open(datapath: &Datapath, modes: &Modes, admitted: &Admitted) -> AtIngress {
    if let Some(why) = unwanted(datapath, modes) {
        return AtIngress::Unwanted(why);
    }
    match Ingress::open(datapath.permissions) {
        Ok(ingress) => {
            admitted.stand_behind(ingress.front());
            AtIngress::Stands(ingress)
        }
        Err(error) => {
            tracing::info!(%error, "no shield at the ingress: the filter rules look everything up");
            AtIngress::Refused(error)
        }
    }
}

impl AtIngress {
    /// As it is now.
    pub(crate) fn show(&self) -> Value {
        match self {
            Self::Stands(ingress) => {
                let row = |(name, takes_part)| json!({ "interface": name, "takes_part": takes_part });
                match ingress.show() {
                    Some(shown) => json!({ "stands": true, "interfaces": shown.into_iter().map(row).collect::<Vec<Value>>() }),
                    None => json!({ "stands": false, "because": "opened by request" }),
                }
            }
            Self::Unwanted(why) => json!({ "stands": false, "because": why }),
            Self::Refused(error) => json!({ "stands": false, "because": error.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_by_default_where_the_rules_look_first_of_all() {
        let closed = Modes::CLOSED;
        let datapath = Datapath::default();
        assert!(is_wanted(&datapath, &closed));
        let open = Modes { others: traffic::rules::Mode::Observe, ..closed.clone() };
        assert_eq!(unwanted(&datapath, &open), Some("not every interface is closed"));
        for other in [
            Datapath { ingress_shield: false, ..datapath.clone() },
            Datapath { shield: false, ..datapath.clone() },
            Datapath { kind: Kind::XdpShield, ..datapath.clone() },
        ] {
            assert!(!is_wanted(&other, &closed), "{other:?}");
        }
        assert_eq!(AtIngress::Unwanted("shield is false").show(), json!({ "stands": false, "because": "shield is false" }));
    }
}
