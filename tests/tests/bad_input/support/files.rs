//! The files of a node: certificates, keys, configurations.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use pbs_lab::network::topology::SENDER;
use pbs_lab::pki::{Authority, KeyKind};
use pbs_lab::process::Program;

/// A directory that goes away with this value.
pub(crate) struct Files(PathBuf);

impl Files {
    /// An empty directory.
    pub(crate) fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("pbs-bad-input-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        Self(directory)
    }

    /// A directory with everything that `node.toml` needs, and an authority for more.
    pub(crate) fn of(program: Program) -> Self {
        let files = Self::new();
        files.issue(&files.authority(), "node", &[SENDER]);
        files.write("node.toml", good(program));
        files
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// A new authority, whose certificate becomes `ca.crt`.
    pub(crate) fn authority(&self) -> Authority {
        let authority = Authority::create("pbs-lab authority").unwrap();
        self.write("ca.crt", authority.certificate());
        authority
    }

    pub(crate) fn issue(&self, authority: &Authority, node: &str, addresses: &[IpAddr]) {
        authority.issue(&self.0, node, addresses, KeyKind::Ed25519).unwrap();
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A good configuration of a node named `node`.
pub(crate) fn good(program: Program) -> String {
    let queues =
        if program == Program::Router { "signalling_queue = 1\ndata_queue = 2\n" } else { "outbound_queue = 3\ninbound_queue = 4\n" };
    named(program, "node") + "[datapath]\n" + queues
}

/// What every configuration of a node of the site has: of hosts, but for the one that is called router.
pub(crate) fn common(node: &str) -> String {
    named(if node == "router" { Program::Router } else { Program::Host }, node)
}

fn named(program: Program, node: &str) -> String {
    let role = if program == Program::Router { "router" } else { "host" };
    format!(
        "role = \"{role}\"\nname = \"{node}\"\ncontrol_socket = \"{node}.sock\"\n\n\
         [identity]\ncertificate = \"{node}.crt\"\nkey = \"{node}.key\"\ntrust_anchors = \"ca.crt\"\n\n\
         [[gist.peer]]\ndns_name = \"router.pbs.test\"\nrole = \"router\"\nallow = true\n\n\
         [[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n\n"
    )
}
