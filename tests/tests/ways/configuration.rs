//! What the daemons of these tests are told.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;

use pbs_lab::network::topology::Family;
use pbs_lab::pki::{Authority, KeyKind};

pub(crate) const ASSOCIATION_PORT: u16 = 30270;

/// Networks of the flows' ends.
pub(crate) fn networks(family: Family) -> [&'static str; 2] {
    match family {
        Family::Ipv4 => ["192.168.20.0/24", "192.168.21.0/24"],
        Family::Ipv6 => ["fd20::/64", "fd21::/64"],
    }
}

/// An address in one of a test's networks: 192.168.20.1 or fd20::1.
pub(crate) fn address(family: Family, network: u8, host: u8) -> IpAddr {
    match family {
        Family::Ipv4 => [192, 168, network, host].into(),
        Family::Ipv6 => format!("fd{network}::{host:x}").parse().unwrap(),
    }
}

pub(crate) fn prefix(family: Family) -> u8 {
    if family == Family::Ipv4 { 24 } else { 64 }
}

/// Writes keys, certificates and configurations; each node has a name, addresses, and a text of its own.
pub(crate) fn write(directory: &Path, nodes: &[(&str, Vec<IpAddr>, String)]) {
    let authority = Authority::create("authority").unwrap();
    std::fs::write(directory.join("ca.crt"), authority.certificate()).unwrap();
    for (name, addresses, own) in nodes {
        authority.issue(directory, name, addresses, KeyKind::Ed25519).unwrap();
        let role = if name.starts_with("router") { "router" } else { "host" };
        let mut text = format!(
            "role = \"{role}\"\nname = \"{name}\"\ncontrol_socket = \"{name}.sock\"\n\n\
             [identity]\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n\n\
             [gist]\nassociation_port = {ASSOCIATION_PORT}\n\n"
        );
        for (router, ..) in nodes.iter().filter(|(name, ..)| name.starts_with("router")) {
            write!(text, "[[gist.peer]]\ndns_name = \"{router}.pbs.test\"\nrole = \"router\"\nallow = true\n\n").unwrap();
        }
        text += "[[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n\n";
        text += own;
        std::fs::write(directory.join(format!("{name}.toml")), text).unwrap();
    }
}

/// What the sender asks for, and the receiver grants, between the ends of the flows.
pub(crate) fn flows(family: Family, protocol: &str) -> [String; 2] {
    let [from, to] = networks(family);
    let flow = format!("protocol = \"{protocol}\"\ndestination_ports = \"9000-9999\"\nvolume = 33554432\n");
    [format!("[[ask]]\ndestination = \"{to}\"\n{flow}\n"), format!("[[grant]]\nsource = \"{from}\"\n{flow}refresh = \"5s\"\n\n")]
}
