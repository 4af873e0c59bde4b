//! How a permission lives on and how it ends: refreshed, released, revoked.

use std::io;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::SETTLE;
use super::line::Line;
use super::restart::Flow;
use super::site::{REFRESH, Site};
use super::trial::{Trial, source_port};
use crate::network::topology::Family::{self, Ipv4, Ipv6};
use crate::process::Daemon;

/// A flow that was granted long before, after the last restart of the sender.
const OLD: u16 = 9003;
/// The flow that its sender gives back.
const RELEASED: u16 = 9021;
/// The flow that its receiver takes back.
const REVOKED: u16 = 9022;
/// The same over IPv6.
const REVOKED6: u16 = 9023;

/// Given back by the sender, taken back by the receiver.
pub(super) fn ended(site: &mut Site) -> io::Result<Vec<Line>> {
    let released = released(site)?;
    let revoked = [
        revoked(site, "revoked", "receiver takes a permission back under a running flow", Ipv4, REVOKED)?,
        revoked(site, "revoked-ipv6", "receiver takes a permission back under a running flow, IPv6", Ipv6, REVOKED6)?,
    ];
    Ok([released].into_iter().chain(revoked).collect())
}

/// The program stops first: one that goes on would ask anew at once, which is its right.
fn released(site: &Site) -> io::Result<Line> {
    let mut trial = Trial::start(site, "released", "sender gives its permission back", Ipv4, RELEASED)?;
    let (socket, _receiver) = trial.sockets()?;
    let flow = Flow::start(socket, trial.destination());
    trial.await_grant();
    trial.line.sent = flow.stop();
    ask(&site.sender, "release", Ipv4, RELEASED)?;
    let mut line = trial.finish()?;
    must_be_gone(site, &mut line, RELEASED)?;
    line.must_be_under_ah();
    Ok(line)
}

/// The program goes on; the hold-down keeps it from asking anew for at least a second.
fn revoked(site: &Site, name: &'static str, tried: &str, family: Family, port: u16) -> io::Result<Line> {
    let mut trial = Trial::start(site, name, tried, family, port)?;
    let (socket, _receiver) = trial.sockets()?;
    let flow = Flow::start(socket, trial.destination());
    trial.await_grant();
    std::thread::sleep(SETTLE);
    let ordered_us = site.now_us();
    ask(&site.receiver, "revoke", family, port)?;
    std::thread::sleep(Duration::from_millis(900));
    let last_us = trial.last_arrival_us().unwrap_or(ordered_us);
    trial.line.sent = flow.stop();
    let mut line = trial.finish()?;
    let still = Duration::from_micros(last_us.saturating_sub(ordered_us));
    line.measure(format!("last packet {:.0} ms after the order", still.as_secs_f64() * 1e3));
    line.must(still < Duration::from_millis(800), format!("packets still passed {still:?} after the order"));
    must_be_gone(site, &mut line, port)?;
    line.must_be_under_ah();
    Ok(line)
}

fn must_be_gone(site: &Site, line: &mut Line, port: u16) -> io::Result<()> {
    for (node, daemon) in [("sender", &site.sender), ("router", &site.router), ("receiver", &site.receiver)] {
        line.must(site.flow(daemon, port)?.is_none(), format!("{node} still holds the permission"));
    }
    Ok(())
}

/// A permission outlives its soft-state lifetime L = 3.5 T as long as it is refreshed, and no refresh gives anything away.
pub(super) fn refreshed(site: &mut Site) -> io::Result<Vec<Line>> {
    let lifetime = REFRESH * 7 / 2;
    let age = site.age(OLD).unwrap_or_default();
    let deadline = Instant::now() + lifetime.saturating_sub(age);
    while Instant::now() < deadline {
        std::thread::sleep(SETTLE);
    }
    let mut trial = Trial::start(site, "refreshed", "permission older than 3.5 T, refreshed all the time", Ipv4, OLD)?;
    let before = site.flow(&site.router, OLD)?;
    let (socket, _receiver) = trial.sockets()?;
    socket.send_to(b"still here", trial.destination())?;
    trial.line.sent = 1;
    let mut line = trial.finish()?;
    line.measure(format!("{:.0} s old, T is {} s", site.age(OLD).unwrap_or_default().as_secs_f64(), REFRESH.as_secs()));
    line.must(line.arrived == 1, "the packet did not arrive");
    line.must_be_under_ah();
    let after = site.flow(&site.router, OLD)?;
    let field = |flow: &Option<Value>, name: &str| flow.as_ref().and_then(|flow| flow.get(name).cloned());
    line.must(before.is_some() && field(&before, "spi") == field(&after, "spi"), "the permission is not the same any more");
    let octets = line.receiver_link.there.octets;
    let counted = |flow: &Option<Value>| field(flow, "counted").and_then(|volume| volume.as_u64());
    let grown = counted(&after).zip(counted(&before)).and_then(|(now, then)| now.checked_sub(then));
    line.must(grown == Some(octets), format!("counted volume grew by {grown:?}, the packet has {octets} octets"));
    Ok(vec![line])
}

fn ask(daemon: &Option<Daemon>, command: &str, family: Family, port: u16) -> io::Result<Value> {
    let daemon = daemon.as_ref().ok_or_else(|| io::Error::other("the daemon does not run"))?;
    daemon.ask(&json!({
        "command": command,
        "source": family.sender(),
        "destination": family.receiver(),
        "protocol": 17,
        "source_port": source_port(port),
        "destination_port": port,
    }))
}
