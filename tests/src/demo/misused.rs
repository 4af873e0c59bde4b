//! A living permission used for something else: whoever learns a flow's key, as every router on the path does, seals packets that
//! are not of that flow under its SPI. Number and ICV are right: only that a permission is for one flow keeps them out (P-038).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::forged;
use super::held_back;
use super::line::Line;
use super::site::Site;
use super::trial::{Trial, of_family, source_port};
use crate::attack::packet::{self, Endpoint};
use crate::leaking::{self, Leaked};
use crate::network::topology::Family::{self, Ipv4, Ipv6};
use crate::process::Program;

/// Packets of each attack.
const PACKETS: u32 = 50;
/// Packets of the flow itself, sealed in the same way: these must pass.
const OWN: u32 = 10;
/// The first number that the key holder uses; the flow itself has used few.
const FIRST_NUMBER: u32 = 1000;
/// Between the ports of the flow and others that have no permission.
const OTHER: u16 = 20;
/// An address on the sender's link that is nobody's.
const OTHER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 20, 77));
/// The same for IPv6.
const OTHER_ADDRESS6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x77));

/// Every value of a flow in turn, but for the destination address: SPIs are the destination's own. The router gives its keys away.
pub(super) fn by_key_holder(site: &mut Site) -> io::Result<Vec<Line>> {
    site.start_router(Program::LeakingRouter)?;
    let mut lines = misuse(site, Ipv4, 9050, OTHER_ADDRESS)?;
    lines.extend(misuse(site, Ipv6, 9051, OTHER_ADDRESS6)?);
    Ok(lines)
}

fn misuse(site: &Site, family: Family, port: u16, other_address: IpAddr) -> io::Result<Vec<Line>> {
    let granted = held_back::grant(site, family, port)?;
    let leaked = match leaking::newest(&site.directory.join("router.toml"), port) {
        Ok(leaked) => leaked,
        Err(error) => {
            let (name, tried) = of_family(family, "other-port", "key holder: live SPI and key");
            let mut line = Line::new(name, tried);
            line.must(false, format!("there is nothing to misuse: {error}"));
            return Ok(vec![line]);
        }
    };
    let mut holder = KeyHolder { site, leaked, number: FIRST_NUMBER };
    let (from, to) = ((family.sender(), source_port(port)), (family.receiver(), port));
    let udp = |from: Endpoint, to: Endpoint| packet::udp(from, to, b"by a key holder");
    let (other_source_port, other_port) = (from.1 + OTHER, to.1 + OTHER);
    let attacks = [
        ("other-port", "to another port", udp(from, (to.0, other_port))?, None, other_port, "flow_mismatch"),
        ("other-source-port", "from another port", udp((from.0, other_source_port), to)?, None, port, "flow_mismatch"),
        // The shield knows an SPI by both addresses.
        ("other-address", "from another address", udp((other_address, from.1), to)?, Some(other_address), port, "unknown_spi"),
        ("other-protocol", "with another protocol", packet::tcp_syn(from, to)?, None, port, "flow_mismatch"),
    ];
    let mut lines = Vec::new();
    for (name, what, clear, source, watched, reason) in attacks {
        let (name, tried) = of_family(family, name, &format!("key holder: live SPI and key, {what}"));
        let mut trial = Trial::start(site, name, tried, family, watched)?;
        if let Some(source) = source {
            trial = trial.only_source(source);
        }
        lines.push(forged::run(site, trial, &holder.seal(&clear, PACKETS)?, reason)?);
    }
    // Last of all, for the two ends may notice that more arrives than was sent.
    let own = held_back::send_on(site, family, port, &holder.seal(&udp(from, to)?, OWN)?)?;
    for line in &mut lines {
        line.measure(format!("{own} of {OWN} of the flow itself passed afterwards"));
        line.must(granted, "there was no permission");
        line.must(own == u64::from(OWN), format!("only {own} of {OWN} of the flow itself passed: that others do not shows nothing"));
    }
    Ok(lines)
}

struct KeyHolder<'a> {
    site: &'a Site,
    leaked: Leaked,
    /// The next number.
    number: u32,
}

impl KeyHolder<'_> {
    /// The packet so many times, under numbers that nobody has used.
    fn seal(&mut self, clear: &[u8], count: u32) -> io::Result<Vec<Vec<u8>>> {
        let first = self.number;
        self.number += count;
        (first..self.number).map(|number| self.site.seal(clear, self.leaked.spi, number, &self.leaked.key)).collect()
    }
}
