//! What the demonstration and a standing network have in common: three hosts in a row with firewalls of their own, certificates,
//! and a configuration for each daemon.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::network::firewall;
use crate::network::topology::{self, Chain};
use crate::pki::{Authority, KeyKind};
use crate::remains::Remainder;

/// TCP port of messaging associations.
pub const ASSOCIATION_PORT: u16 = 30270;
/// An NSLP that the router passes on without hosting it.
pub const LISTED_NSLP: u16 = 0x7ff1;
/// Refresh period T.
pub const REFRESH: Duration = Duration::from_secs(5);
/// Allowed volume of a flow with a small budget, in bytes.
pub const SMALL_BUDGET: u64 = 40_000;
/// Allowed volume of every other flow, in bytes.
pub const BUDGET: u64 = 32 << 20;

/// A network on which no daemon runs yet.
#[derive(Debug)]
pub struct Ground {
    /// Where configurations, keys and logs lie.
    pub directory: PathBuf,
    /// The hosts.
    pub chain: Chain,
    /// Removes the directory when it is dropped.
    pub remainder: Remainder,
}

impl Ground {
    /// Builds network, keys and configurations, with a directory among temporary files that nobody else can look into or guess.
    pub fn lay() -> io::Result<Self> {
        let (remainder, directory) = Remainder::temporary("pbs-lab")?;
        Self::in_directory(directory, remainder)
    }

    /// The same with files in `directory`, which is not there yet, or is the caller's own, empty and no link.
    pub fn lay_in(directory: &Path) -> io::Result<Self> {
        let directory = std::path::absolute(directory)?;
        if let Some(above) = directory.parent() {
            std::fs::create_dir_all(above)?;
        }
        let remainder = match Remainder::directory(&directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Remainder::adopted_directory(&directory)?,
            made => made?,
        };
        Self::in_directory(directory, remainder)
    }

    fn in_directory(directory: PathBuf, remainder: Remainder) -> io::Result<Self> {
        let chain = Chain::build()?;
        firewall::set(&chain.sender, &[(270, 270), (ASSOCIATION_PORT, ASSOCIATION_PORT)])?;
        firewall::set(&chain.receiver, &[(270, 270), (ASSOCIATION_PORT, ASSOCIATION_PORT), (7000, 7000), (9000, 9999)])?;
        issue_certificates(&directory)?;
        write_configurations(&directory)?;
        Ok(Self { directory, chain, remainder })
    }
}

fn issue_certificates(directory: &Path) -> io::Result<()> {
    let authority = Authority::create("pbs-lab authority")?;
    std::fs::write(directory.join("ca.crt"), authority.certificate())?;
    let nodes: [(&str, &[IpAddr]); 3] = [
        ("sender", &[topology::SENDER, topology::SENDER6]),
        ("router", &[topology::ROUTER_LEFT, topology::ROUTER_RIGHT, topology::ROUTER_LEFT6, topology::ROUTER_RIGHT6]),
        ("receiver", &[topology::RECEIVER, topology::RECEIVER6]),
    ];
    for (node, addresses) in nodes {
        // Both kinds of signatures cross the network.
        let kind = if node == "receiver" { KeyKind::P256 } else { KeyKind::Ed25519 };
        authority.issue(directory, node, addresses, kind)?;
    }
    Ok(())
}

fn write_configurations(directory: &Path) -> io::Result<()> {
    let common = |name: &str| {
        let gist = if name == "router" { format!("foreign_nslp_ids = [{LISTED_NSLP}]\n") } else { String::new() };
        let role = if name == "router" { "router" } else { "host" };
        format!(
            "role = \"{role}\"\nname = \"{name}\"\ncontrol_socket = \"{name}.sock\"\n\n\
             [identity]\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n\n\
             [gist]\nassociation_port = {ASSOCIATION_PORT}\n{gist}\n[[gist.peer]]\ndns_name = \"router.pbs.test\"\nrole = \"router\"\nallow = true\n\n\
             [[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n\n"
        )
    };
    let refresh = REFRESH.as_secs();
    let ask = |destination: &str, protocol: &str, ports: &str| {
        format!(
            "[[ask]]\ndestination = \"{destination}\"\nprotocol = \"{protocol}\"\ndestination_ports = \"{ports}\"\nvolume = {BUDGET}\n\n"
        )
    };
    let grant = |source: &str, protocol: &str, ports: &str, volume: u64| {
        format!(
            "[[grant]]\nsource = \"{source}\"\nprotocol = \"{protocol}\"\ndestination_ports = \"{ports}\"\n\
             volume = {volume}\nttl = \"600s\"\nrefresh = \"{refresh}s\"\n\n"
        )
    };
    let (mut asks, mut grants) = (String::new(), String::new());
    for (sender, receiver) in [("192.168.20.0/24", "192.168.21.0/24"), ("fd20::/64", "fd21::/64")] {
        asks += &(ask(receiver, "udp", "9000-9999") + &ask(receiver, "tcp", "9100-9199"));
        grants += &grant(sender, "udp", "9010-9019", SMALL_BUDGET);
        grants += &(grant(sender, "udp", "9000-9799", BUDGET) + &grant(sender, "tcp", "9100-9199", BUDGET));
    }
    let write = |name: &str, rest: &str| std::fs::write(directory.join(format!("{name}.toml")), common(name) + rest);
    write("router", "")?;
    write("sender", &asks)?;
    write("receiver", &grants)
}
