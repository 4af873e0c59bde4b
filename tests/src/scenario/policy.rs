//! What the nodes of a scenario are told.

use std::time::Duration;

use crate::ground::ASSOCIATION_PORT;
use crate::network::topology::Family;

/// What the nodes of a scenario are told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// IP version of the flows.
    pub(super) family: Family,
    /// Who may be the peer of anybody's flow.
    pub(super) routers: &'static [&'static str],
    /// As in [`Terms`].
    pub(super) refresh: Duration,
    pub(super) volume: u64,
    pub(super) reactions: &'static str,
}

impl Policy {
    /// The configuration of a node.
    pub(super) fn configuration(&self, name: &str) -> String {
        let (refresh, volume, reactions) = (self.refresh.as_secs(), self.volume, self.reactions);
        let router = |name: &&str| format!("[[gist.peer]]\ndns_name = \"{name}.pbs.test\"\nrole = \"router\"\nallow = true\n\n");
        let role = if name.starts_with("router") { "router" } else { "host" };
        let routers: String = self.routers.iter().map(router).collect();
        let common = format!(
            "role = \"{role}\"\nname = \"{name}\"\ncontrol_socket = \"{name}.sock\"\nlog = \"json\"\n\n\
             [identity]\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n\n\
             [gist]\nassociation_port = {ASSOCIATION_PORT}\n\n{routers}\
             [[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n\n"
        );
        let [senders, receivers] = match self.family {
            Family::Ipv4 => ["192.168.20.0/24", "192.168.21.0/24"],
            Family::Ipv6 => ["fd20::/64", "fd21::/64"],
        };
        let ask = |protocol: &str| {
            format!(
                "[[ask]]\ndestination = \"{receivers}\"\nprotocol = \"{protocol}\"\ndestination_ports = \"9000-9999\"\n\
                 volume = {volume}\n\n"
            )
        };
        let grant = |protocol: &str| {
            format!(
                "[[grant]]\nsource = \"{senders}\"\nprotocol = \"{protocol}\"\ndestination_ports = \"9000-9999\"\n\
                 volume = {volume}\nttl = \"600s\"\nrefresh = \"{refresh}s\"\n\n"
            )
        };
        let own = match name {
            "sender" => ["udp", "tcp"].map(ask).concat(),
            "receiver" => format!("[reactions]\n{reactions}\n") + &["udp", "tcp"].map(grant).concat(),
            _ => String::new(),
        };
        common + &own
    }
}
