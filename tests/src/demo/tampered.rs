//! A router that adds a volume of its own to the Permissions it passes on: they take no effect (X-10, P-021).

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::line::Line;
use super::site::Site;
use super::trial::Trial;
use crate::network::topology::Family::Ipv4;
use crate::process::{Daemon, Program};
use crate::tampering::{APPENDED_PORT, MARKED_PORT};

/// Datagrams that wait for the Permission.
const PACKETS: u64 = 20;
/// Under which code such a Permission is refused.
const CODE: &str = "Malformed";
/// How long the Permission may take to the sender.
const LIMIT: Duration = Duration::from_secs(5);

/// Both ways to add the object.
pub(super) fn permissions(site: &mut Site) -> io::Result<Vec<Line>> {
    site.start_router(Program::TamperingRouter)?;
    let marked = tampered(
        site,
        "tampered-marked",
        "Permission with an Allow-vol64 added on the way, marked AB=01",
        MARKED_PORT,
        "A and B bits are not those of the object",
    )?;
    let appended = tampered(
        site,
        "tampered-appended",
        "Permission with an Allow-vol64 added on the way, after Auth-data",
        APPENDED_PORT,
        "stands after the signature",
    )?;
    site.start_router(Program::Router)?;
    Ok(vec![marked, appended])
}

fn tampered(site: &Site, name: &'static str, tried: &str, port: u16, reason: &str) -> io::Result<Line> {
    let mut trial = Trial::start(site, name, tried, Ipv4, port)?;
    let (codes, reasons) = (refused(&site.sender)?, logged(site, reason)?);
    let (socket, _receiver) = trial.sockets()?;
    for _ in 0..PACKETS {
        if socket.send_to(b"may I?", trial.destination()).is_ok() {
            trial.line.sent += 1;
        }
    }
    let deadline = Instant::now() + LIMIT;
    while refused(&site.sender)? == codes && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    // Both only grow, unless the sender's daemon was started anew.
    let (codes, reasons) = (refused(&site.sender)?.checked_sub(codes), logged(site, reason)?.checked_sub(reasons));
    trial.line.must(codes.is_some() && reasons.is_some(), "the sender counts less than before: it was started anew");
    let (codes, reasons) = (codes.unwrap_or(0), reasons.unwrap_or(0));
    trial.line.measure(format!("{reasons} refused by the sender as {CODE}: {reason}"));
    trial.line.must(reasons > 0 && codes >= reasons, format!("{codes} refused as {CODE}, {reasons} of them: {reason}"));
    trial.line.must(site.flow(&site.router, port)?.is_some(), "the router holds no permission: none was tampered with");
    trial.line.must(site.flow(&site.sender, port)?.is_none(), "the sender took the Permission");
    // Held packets are given up after a second.
    std::thread::sleep(Duration::from_millis(1100));
    let on_sender_link = trial.on_sender_link().packets;
    let mut line = trial.finish()?;
    line.must(on_sender_link == 0 && line.arrived == 0, format!("{on_sender_link} packets left the sender, {} arrived", line.arrived));
    Ok(line)
}

/// How many messages the sender has refused as malformed.
fn refused(sender: &Option<Daemon>) -> io::Result<u64> {
    let Some(sender) = sender else { return Ok(0) };
    let status = sender.ask(&serde_json::json!({ "command": "status" }))?;
    Ok(status.pointer(&format!("/sending/nslp/refused/{CODE}")).and_then(Value::as_u64).unwrap_or(0))
}

/// In how many lines the sender's log names the reason.
fn logged(site: &Site, reason: &str) -> io::Result<u64> {
    let log = std::fs::read_to_string(site.directory.join("sender.log"))?;
    Ok(log.lines().filter(|line| line.contains(reason)).count() as u64)
}
