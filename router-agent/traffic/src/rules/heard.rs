//! See [`crate::heard`].

use crate::heard::Heard;
use crate::netlink::{Malformed, Message};

use super::watch::{Entry, News, Places};
use super::{Family, Role, dump, kept};

/// Port of the socket that asks.
const OWN: u32 = 77;
const NEW_RULE: u16 = super::batch::SUBSYSTEM << 8 | 6;

pub(crate) fn table(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&dump::flags_of_table(message, Role::Router)?))
}

pub(crate) fn counter(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&dump::counter(message, Role::Router, Family::Ipv4)?))
}

pub(crate) fn entry(message: &Message<'_>) -> Result<Heard, Malformed> {
    let places = Places { of_chain: Some(2), handle: 3, state: Some(5) };
    Ok(Heard::of(&Entry::read(message, Role::Router, (Family::Ipv4, NEW_RULE), places)?))
}

pub(crate) fn peers(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&kept::peers(message)?.first()))
}

pub(crate) fn change(message: &Message<'_>) -> Result<Heard, Malformed> {
    let news = News::read(message, Role::Router, OWN)?;
    Ok(if news == News::Irrelevant { Heard::Nothing } else { Heard::Kept })
}
