//! A Permission that nobody asked for: the router installs nothing without the consent of the flow's source.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;
use traffic::algorithm::{IcvKey, MacAlgorithm};

use super::line::Line;
use super::site::Site;
use super::trial::{Trial, source_port};
use crate::attack::packet;
use crate::network::topology::Family::Ipv4;
use crate::process::{Daemon, Program};
use crate::unasked::{KEY, PORT, SPI};

/// Packets of the receiver's accomplice on the sender's link.
const PACKETS: u32 = 50;
/// The router's row for a Permission without a Query.
const ROW: &str = "FN-03";
/// How long the Permission may take to the router.
const LIMIT: Duration = Duration::from_secs(5);

/// The receiver declines, then sends a good Permission all the same; an accomplice uses it.
pub(super) fn unasked(site: &mut Site) -> io::Result<Vec<Line>> {
    site.start_receiver(Program::UnaskedHost)?;
    let line = try_it(site)?;
    site.start_receiver(Program::Host)?;
    Ok(vec![line])
}

fn try_it(site: &Site) -> io::Result<Line> {
    let tried = "Permission that nobody asked for, rightly signed; an accomplice has the key";
    let mut trial = Trial::start(site, "consent", tried, Ipv4, PORT)?;
    let before = rows(&site.router)?;
    let (socket, _receiver) = trial.sockets()?;
    // The sender asks and is declined: its question is answered, and with that the matter is over.
    socket.send_to(b"may I?", trial.destination())?;
    let deadline = Instant::now() + LIMIT;
    while rows(&site.router)? == before && site.flow(&site.router, PORT)?.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    let rows = rows(&site.router)?;
    trial.line.must(rows >= before, format!("the router took row {ROW} {rows} times, {before} times before: it was started anew"));
    let unasked = rows.saturating_sub(before);
    trial.line.measure(format!("{unasked} such Permission refused by row {ROW}"));
    let held = site.flow(&site.router, PORT)?.is_some();
    trial.line.must(!held, "the router holds a permission that the flow's source did not ask for");
    trial.line.must(held || unasked > 0, "the Permission did not come to the router");
    trial.line.must(site.flow(&site.sender, PORT)?.is_none(), "the sender holds a permission that it did not ask for");
    trial.line.sent = site.attacker.send(&accomplice(site)?)?;
    let mut line = trial.finish()?;
    line.must(line.arrived == 0, "packets passed under a permission that nobody asked for");
    let dropped = line.dropped_at("router", "unknown_spi");
    line.must(dropped == line.sent, format!("the router dropped {dropped} of {} for unknown_spi", line.sent));
    Ok(line)
}

/// Packets under the key of the unasked permission.
fn accomplice(site: &Site) -> io::Result<Vec<Vec<u8>>> {
    let key = IcvKey::new(MacAlgorithm::HmacSha256_128, &KEY).map_err(io::Error::other)?;
    let clear = packet::udp((Ipv4.sender(), source_port(PORT)), (Ipv4.receiver(), PORT), b"from an accomplice")?;
    (1..=PACKETS).map(|number| site.seal(&clear, SPI, number, &key)).collect()
}

/// How often the router has taken the row for a Permission without a Query.
fn rows(router: &Option<Daemon>) -> io::Result<u64> {
    let Some(router) = router else { return Ok(0) };
    let status = router.ask(&serde_json::json!({ "command": "status" }))?;
    Ok(status.pointer(&format!("/nslp/rules/{ROW}")).and_then(Value::as_u64).unwrap_or(0))
}
