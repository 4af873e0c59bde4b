//! More than was granted: an honest sender holds it back, a lying one is stopped at the router.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::line::Line;
use super::site::{SMALL_BUDGET, Site};
use super::trial::Trial;
use crate::network::topology::Family::Ipv4;
use crate::process::{Daemon, Program};

/// Datagrams offered: about two and a half times the small budget.
const OFFERED: u64 = 80;
/// Payload octets of each.
const PAYLOAD: usize = 1200;
/// Octets of one packet on a link: IPv4, AH, UDP, payload.
const PACKET: u64 = 20 + 28 + 8 + PAYLOAD as u64;

/// Both senders in turn.
pub(super) fn both_senders(site: &mut Site) -> io::Result<Vec<Line>> {
    let trial = Trial::start(site, "over-budget", "honest sender, more than allowed", Ipv4, 9010)?;
    let mut highest = None;
    let mut honest = overrun(site, trial, || {
        // It gives up a permission that is used up, so it is watched while it sends.
        if let Some(flow) = site.flow(&site.sender, 9010)? {
            let figures = (figure(&flow, "counted"), figure(&flow, "allowed"));
            highest = highest.max(Some(figures));
        }
        Ok(())
    })?;
    let (counted, allowed) = highest.unwrap_or_default();
    honest.measure(format!("sender counted {} of {}", counted.unwrap_or_default(), allowed.unwrap_or_default()));
    let within = counted.is_some_and(|counted| counted > SMALL_BUDGET / 2 && counted <= SMALL_BUDGET) && allowed == Some(SMALL_BUDGET);
    honest.must(within, format!("the sender counted up to {counted:?} of {allowed:?}"));
    let octets = honest.sender_link.there.octets;
    honest.must(octets <= SMALL_BUDGET, format!("{octets} octets left the sender, {SMALL_BUDGET} were allowed"));
    let left = honest.sender_link.there.packets;
    honest.must(left == honest.arrived, format!("{left} packets left the sender, {} arrived", honest.arrived));
    site.start_sender(Program::LyingHost)?;
    let trial = Trial::start(site, "lying-sender", "lying sender (right key), more than allowed", Ipv4, 9011)?;
    let mut liar = overrun(site, trial.of_liar(), || Ok(()))?;
    let dropped = liar.dropped_at("router", "over_budget");
    let beyond = liar.sent - liar.arrived;
    liar.must(dropped == beyond && dropped > 0, format!("the router dropped {dropped} of {beyond} beyond the budget"));
    site.start_sender(Program::Host)?;
    Ok(vec![honest, liar])
}

/// Sends more than the small budget, and looks each time.
fn overrun(site: &Site, mut trial: Trial<'_>, mut look: impl FnMut() -> io::Result<()>) -> io::Result<Line> {
    let (socket, _receiver) = trial.sockets()?;
    socket.send_to(&[0; PAYLOAD], trial.destination())?;
    trial.line.sent = 1;
    trial.await_grant();
    for _ in 1..OFFERED {
        if socket.send_to(&[0; PAYLOAD], trial.destination()).is_ok() {
            trial.line.sent += 1;
        }
        look()?;
        std::thread::sleep(Duration::from_millis(2));
    }
    // Held packets are given up after a second.
    std::thread::sleep(Duration::from_millis(1100));
    let mut line = trial.finish()?;
    let octets = line.receiver_link.there.octets;
    line.measure(format!("{octets} of {SMALL_BUDGET} octets passed"));
    line.must(octets <= SMALL_BUDGET, format!("{octets} octets passed, {SMALL_BUDGET} were allowed"));
    line.must(octets + PACKET > SMALL_BUDGET, format!("only {octets} octets passed: one more packet would have fitted"));
    line.must_be_under_ah();
    must_count(site, &mut line, "router", &site.router, octets)?;
    must_count(site, &mut line, "receiver", &site.receiver, octets)?;
    Ok(line)
}

/// The node must have counted what the capture beside it shows, and allow the small budget.
fn must_count(site: &Site, line: &mut Line, node: &str, daemon: &Option<Daemon>, octets: u64) -> io::Result<()> {
    let port = line.watch.as_ref().map_or(0, |watch| watch.port);
    let flow = site.flow(daemon, port)?;
    let read = |name: &str| flow.as_ref().and_then(|flow| figure(flow, name));
    let (counted, allowed) = (read("counted"), read("allowed"));
    line.must(
        counted == Some(octets) && allowed == Some(SMALL_BUDGET),
        format!("{node} counted {counted:?} of {allowed:?}, the capture shows {octets}"),
    );
    Ok(())
}

fn figure(flow: &Value, name: &str) -> Option<u64> {
    flow.get(name).and_then(Value::as_u64)
}
