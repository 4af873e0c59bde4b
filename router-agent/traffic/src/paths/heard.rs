//! See [`crate::heard`].

use std::net::{IpAddr, Ipv4Addr};

use crate::heard::Heard;
use crate::netlink::{Malformed, Message};

use super::{neighbours, next_hop};

pub(crate) fn link(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&neighbours::read_link(message, "eth1")?))
}

pub(crate) fn neighbour(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&neighbours::read_neighbour(message, 2, IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1)))?))
}

pub(crate) fn rule(message: &Message<'_>) -> Result<Heard, Malformed> {
    Ok(Heard::of(&next_hop::read_own_rule(message, 2)?))
}
