//! A router that keeps to the protocol and gives away what it learns: every router on the path is told a flow's shared key, and
//! this one writes it into a file beside its configuration, for whoever sits on the next link.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use pbs_nslp::datapath::{Command, Grant, Protection};
use pbs_nslp::output::Output;
use router_agent::Parts;
use traffic::algorithm::{IcvKey, MacAlgorithm};

use crate::rogue;

/// A key that was given away.
#[derive(Debug, Clone)]
pub(crate) struct Leaked {
    /// The epoch.
    pub spi: u32,
    /// The shared key.
    pub key: IcvKey,
}

/// A router's parts with the leak added.
pub(crate) fn parts(config: &Path) -> Parts {
    let file = file(config);
    let around = rogue::watching(move |output| {
        if let Output::Datapath(Command::Install { grant, .. }) = output {
            // If it cannot be written the scenario finds no key, and says so.
            let _ = write(&file, grant);
        }
    });
    Parts { around, ..Parts::default() }
}

/// The newest key that the router configured by `config` gave away for the flow to this port.
pub(crate) fn newest(config: &Path, destination_port: u16) -> io::Result<Leaked> {
    let text = std::fs::read_to_string(file(config)).unwrap_or_default();
    let read = |line: &str| {
        let mut words = line.split(' ');
        let (port, spi, key) = (words.next()?.parse::<u16>().ok()?, words.next()?.parse().ok()?, hex::decode(words.next()?).ok()?);
        let key = IcvKey::new(MacAlgorithm::HmacSha256_128, &key).ok()?;
        (port == destination_port).then_some(Leaked { spi, key })
    };
    let newest = text.lines().rev().find_map(read);
    newest.ok_or_else(|| io::Error::other(format!("the router gave away no shared key of the flow to port {destination_port}")))
}

fn write(file: &Path, grant: &Grant) -> io::Result<()> {
    let Protection::Shared { key, .. } = &grant.protection else { return Ok(()) };
    let mut file = File::options().create(true).append(true).mode(0o600).open(file)?;
    writeln!(file, "{} {} {}", grant.flow.destination_port, grant.spi, hex::encode(key.expose()))
}

fn file(config: &Path) -> PathBuf {
    config.with_extension("leaked")
}
