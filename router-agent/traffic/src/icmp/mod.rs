//! ICMP errors about packets with AH: which flow they are about, whether they can be true, and the same error about the
//! packet as its sender's programs know it.
//!
//! A router on the path quotes what it saw: a packet with AH. On IPv4 the sender's kernel knows no such protocol and ignores the
//! error; on IPv6 it skips AH and believes an MTU that leaves no room for it. So the sender's packet side takes AH out of the
//! quote and its length out of the MTU. Nothing in an error is authenticated: it counts only if it quotes a live association's
//! SPI, the flow's own addresses and ports, and a number that the flow has used lately; how far it may lower an MTU has a floor.
//!
//! Nor has anybody permitted an error: whoever makes one about a true packet could write to its sender what he likes. So it may be
//! no longer than errors have to be, routers cut it to what its reader needs, and there are few of each kind a second.

mod path;
mod quote;
mod rate;
mod translate;

pub use path::{Room, path_mtu};
pub(crate) use path::{admit, believe, is_recent};
pub use quote::{Kind, Quote, QuotingError, Unusable};
pub(crate) use rate::{Rate, Rates};
pub use translate::{TooShort, translate};
