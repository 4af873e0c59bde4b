//! Where the answer to a datagram goes (RFC 5971 §4.4.1, §5.3.1, §5.6).
//!
//! The datagram says it, and anybody can write one. So an answer goes to one single other node, at the port that the datagram came
//! from there or else at GIST's own; it echoes no more than a cookie of the asker's choice; and how many go there is limited in
//! [`super::rate`].

use core::net::{IpAddr, SocketAddr};

use super::Node;
use super::rate::Asker;
use super::routing_state::{DatagramOrigin, is_unicast};
use crate::wire::datagram::GIST_PORT;

/// Bytes of the longest Query-Cookie that is echoed; 8 to 32 do for every purpose of a cookie (G-331).
pub(super) const LONGEST_QUERY_COOKIE: usize = 64;

impl Node {
    /// Whether an answer may go to this address; counts it if not.
    pub(super) fn takes_answers(&mut self, address: IpAddr) -> bool {
        // Loopback is a way to other nodes only where this node itself is known by nothing else.
        let own = &self.config.local_addresses;
        let is_elsewhere = !address.is_loopback() || !own.is_empty() && own.iter().all(IpAddr::is_loopback);
        let takes = is_elsewhere && is_unicast(address) && !self.is_local(address);
        if !takes {
            self.counters.unanswerable += 1;
            tracing::debug!(%address, "no answer may go to this address");
        }
        takes
    }
}

impl DatagramOrigin {
    /// The port to answer to. The source port is where the sender hears (G-169): the sender's, and not that of whoever else has
    /// the address named, where only GIST's port is known to take answers.
    pub(super) fn reply_to(&self, address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, if self.is_from(address) { self.source.port() } else { GIST_PORT })
    }

    /// On whose account the answer goes.
    pub(super) fn asker(&self, address: IpAddr) -> Asker {
        Asker { interface: self.interface, address, is_source: self.is_from(address) }
    }

    fn is_from(&self, address: IpAddr) -> bool {
        self.source.ip() == address
    }
}
