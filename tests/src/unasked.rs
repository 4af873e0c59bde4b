//! A receiver that grants what nobody asks for: it declines a Query, which ends the matter at the router, and sends a good
//! Permission right after, in the same session, rightly signed and with a newer number. Somebody on the sender's link knows the
//! key and waits for it: only the missing consent of the flow's source keeps the two from using the path.

use std::io;
use std::path::Path;
use std::time::Duration;

use endpoint::Parts;
use gist::api::{MessageHandle, SendMessage};
use pbs_nslp::credentials::X509Signer;
use pbs_nslp::wire::{self, Defense, Message, Permission, SaParameters, SharedKey, SymmetricAlgorithm, Volume};

use crate::rogue;

/// The flow; the receiver's policy declines it.
pub(crate) const PORT: u16 = 9901;
/// SPI of the permission that nobody asked for.
pub(crate) const SPI: u32 = 0x00ac_ce55;
/// Key of that permission, which the accomplice knows.
pub(crate) const KEY: [u8; 32] = [0x42; 32];

/// A host's parts with the receiver's second answer added; it signs with the key of the node that `config` configures.
pub(crate) fn parts(config: &Path) -> io::Result<Parts> {
    let read = |extension: &str| std::fs::read(config.with_extension(extension));
    let signer = X509Signer::from_pem(&read("crt")?, &read("key")?).map_err(io::Error::other)?;
    let around = rogue::around(move |message| {
        let second = grant_anyway(&message, &signer);
        [Some(message), second].into_iter().flatten().collect()
    });
    Ok(Parts { around, ..Parts::default() })
}

/// The Permission that follows a denial of the flow.
fn grant_anyway(message: &SendMessage, signer: &X509Signer) -> Option<SendMessage> {
    if rogue::destination_port(message) != Some(PORT) {
        return None;
    }
    let Ok(Message::Permission(denial)) = wire::decode(message.payload.clone(), message.session, message.nslp_id) else { return None };
    let denial = denial.message;
    if !denial.is_removal() {
        return None;
    }
    let permission = Permission {
        number: denial.number + 1,
        allowed: Volume(1 << 20),
        ttl: Duration::from_secs(600),
        refresh: Duration::from_secs(5),
        defense: Some(Defense::SymmetricKey {
            algorithm: SymmetricAlgorithm::HmacSha256,
            key: SharedKey::new(SymmetricAlgorithm::HmacSha256, KEY.to_vec()).ok()?,
        }),
        sa: Some(SaParameters { spi: SPI, drain: Duration::from_secs(2), new_epoch: true }),
        ..denial
    };
    let payload = wire::build_permission(&permission, message.session, message.nslp_id, signer).ok()?;
    Some(SendMessage { payload, handle: MessageHandle(u64::MAX), ..message.clone() })
}
