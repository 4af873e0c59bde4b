//! Hosts that lie: a sender that goes on when its allowed volume is used up, one that says it has sent less than it has, and a
//! receiver that gives two flows one SPI. All have real keys and sign what they say.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use endpoint::Parts;
use gist::api::SendMessage;
use pbs_nslp::credentials::X509Signer;
use pbs_nslp::wire::{self, Message, SaParameters, Volume};
use traffic::checks::Checks;

use crate::rogue;

/// Every check on what leaves is the real one, but for the allowed volume.
#[derive(Debug)]
struct NoBudget;

impl Checks for NoBudget {
    fn within_budget(&self, _counted: u64, _length: u64, _allowed: u64) -> bool {
        true
    }
}

/// The parts of `pbs` with that one check taken out.
pub(crate) fn parts() -> Parts {
    Parts { outbound_checks: Arc::new(NoBudget), ..Parts::default() }
}

/// The parts of `pbs` with every Query saying that half as much was sent, under the key of the node that `config` configures.
pub(crate) fn about_volume(config: &Path) -> io::Result<Parts> {
    let signer = signer(config)?;
    let around = rogue::around(move |message| vec![halved(&message, &signer).unwrap_or(message)]);
    Ok(Parts { around, ..Parts::default() })
}

fn halved(message: &SendMessage, signer: &X509Signer) -> Option<SendMessage> {
    let Ok(Message::Query(query)) = wire::decode(message.payload.clone(), message.session, message.nslp_id) else { return None };
    let mut query = query.message;
    query.sent = Some(Volume(query.sent?.0 / 2));
    let payload = wire::build_query(&query, message.session, message.nslp_id, signer).ok()?;
    Some(SendMessage { payload, ..message.clone() })
}

/// The parts of `pbs` with every Permission naming the SPI of the first one.
pub(crate) fn with_one_spi(config: &Path) -> io::Result<Parts> {
    let signer = signer(config)?;
    let first = Mutex::new(None);
    let around = rogue::around(move |message| {
        let mut first = first.lock().unwrap_or_else(PoisonError::into_inner);
        vec![under_one_spi(&message, &mut first, &signer).unwrap_or(message)]
    });
    Ok(Parts { around, ..Parts::default() })
}

fn under_one_spi(message: &SendMessage, first: &mut Option<u32>, signer: &X509Signer) -> Option<SendMessage> {
    let Ok(Message::Permission(permission)) = wire::decode(message.payload.clone(), message.session, message.nslp_id) else {
        return None;
    };
    let mut permission = permission.message;
    let sa = permission.sa?;
    let spi = *first.get_or_insert(sa.spi);
    if spi == sa.spi {
        return None;
    }
    permission.sa = Some(SaParameters { spi, ..sa });
    let payload = wire::build_permission(&permission, message.session, message.nslp_id, signer).ok()?;
    Some(SendMessage { payload, ..message.clone() })
}

fn signer(config: &Path) -> io::Result<X509Signer> {
    let read = |extension: &str| std::fs::read(config.with_extension(extension));
    X509Signer::from_pem(&read("crt")?, &read("key")?).map_err(io::Error::other)
}
