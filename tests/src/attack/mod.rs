//! Attackers: they put frames on a link past every rule of the host they sit on.

pub mod injector;
pub mod packet;
