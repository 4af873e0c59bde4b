//! See [`crate::heard`].

use crate::heard::Heard;
use crate::netlink::{Malformed, Message};

use super::{links, policy, route};

pub(crate) fn link(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&links::read(message)?))
}

pub(crate) fn route(message: &Message<'_>) -> Result<Heard, Malformed> {
    route::Route::hear(message)
}

pub(crate) fn rule(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&policy::Rule::read(message, route::IPV4)?))
}
