//! More than was granted: an honest sender holds it back, a lying one is stopped at the router.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::line::Line;
use super::site::{SMALL_BUDGET, Site};
use super::trial::{Trial, of_family};
use crate::network::topology::Family::{self, Ipv4, Ipv6};
use crate::process::{Daemon, Program};

/// Datagrams offered: about two and a half times the small budget.
const OFFERED: u64 = 80;
/// Payload octets of each.
const PAYLOAD: usize = 1200;
/// How long a datagram that is to arrive may take on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);

/// An honest sender, with each IP version.
pub(super) fn honest_sender(site: &mut Site) -> io::Result<Vec<Line>> {
    Ok(vec![honest(site, Ipv4, 9010)?, honest(site, Ipv6, 9012)?])
}

/// A lying sender, with each IP version.
pub(super) fn lying_sender(site: &mut Site) -> io::Result<Vec<Line>> {
    site.start_sender(Program::LyingHost)?;
    let lines = vec![lying(site, Ipv4, 9011)?, lying(site, Ipv6, 9013)?];
    site.start_sender(Program::Host)?;
    Ok(lines)
}

fn honest(site: &Site, family: Family, port: u16) -> io::Result<Line> {
    let (name, tried) = of_family(family, "over-budget", "honest sender, more than allowed");
    let trial = Trial::start(site, name, tried, family, port)?;
    let mut highest = None;
    let mut line = overrun(site, trial, family, || {
        // It gives up a permission that is used up, so it is watched while it sends.
        if let Some(flow) = site.flow(&site.sender, port)? {
            let figures = (figure(&flow, "counted"), figure(&flow, "allowed"));
            highest = highest.max(Some(figures));
        }
        Ok(())
    })?;
    let (counted, allowed) = highest.unwrap_or_default();
    line.measure(format!("sender counted {} of {}", counted.unwrap_or_default(), allowed.unwrap_or_default()));
    let within = counted.is_some_and(|counted| counted > SMALL_BUDGET / 2 && counted <= SMALL_BUDGET) && allowed == Some(SMALL_BUDGET);
    line.must(within, format!("the sender counted up to {counted:?} of {allowed:?}"));
    let octets = line.sender_link.there.octets;
    line.must(octets <= SMALL_BUDGET, format!("{octets} octets left the sender, {SMALL_BUDGET} were allowed"));
    let left = line.sender_link.there.packets;
    line.must(left == line.arrived, format!("{left} packets left the sender, {} arrived", line.arrived));
    Ok(line)
}

fn lying(site: &Site, family: Family, port: u16) -> io::Result<Line> {
    let (name, tried) = of_family(family, "lying-sender", "lying sender (right key), more than allowed");
    let trial = Trial::start(site, name, tried, family, port)?;
    let mut line = overrun(site, trial.of_liar(), family, || Ok(()))?;
    let dropped = line.dropped_at("router", "over_budget");
    let (sent, arrived) = (line.sent, line.arrived);
    let beyond = sent.checked_sub(arrived);
    line.must(
        dropped > 0 && beyond == Some(dropped),
        format!("the router dropped {dropped} beyond the budget, {arrived} of {sent} arrived"),
    );
    Ok(line)
}

/// Sends more than the small budget, and looks each time.
fn overrun(site: &Site, trial: Trial<'_>, family: Family, mut look: impl FnMut() -> io::Result<()>) -> io::Result<Line> {
    let mut trial = trial.of_limit(SMALL_BUDGET);
    let (socket, receiver) = trial.sockets()?;
    receiver.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&[0; PAYLOAD], trial.destination())?;
    trial.line.sent = 1;
    trial.await_grant();
    let port = trial.destination().port();
    let (mut at_router, mut at_receiver) = (None, None);
    // The first packet, which has asked for the permission.
    let mut received = receiver.recv(&mut [0; PAYLOAD]).map_or(0, |_| packet_on_link(family));
    for _ in 1..OFFERED {
        if socket.send_to(&[0; PAYLOAD], trial.destination()).is_ok() {
            trial.line.sent += 1;
        }
        // What fits has been counted everywhere once it is received: with the next one, if that does not fit, all may begin anew.
        if received + packet_on_link(family) <= SMALL_BUDGET && receiver.recv(&mut [0; PAYLOAD]).is_ok() {
            received += packet_on_link(family);
        }
        look()?;
        // An honest sender that has used up everything may ask again and get the few octets that are left: a count that starts anew.
        at_router = at_router.max(counted_of_budget(site, &site.router, port)?);
        at_receiver = at_receiver.max(counted_of_budget(site, &site.receiver, port)?);
        std::thread::sleep(Duration::from_millis(2));
    }
    // Held packets are given up after a second.
    std::thread::sleep(Duration::from_millis(1100));
    at_router = at_router.max(counted_of_budget(site, &site.router, port)?);
    at_receiver = at_receiver.max(counted_of_budget(site, &site.receiver, port)?);
    let mut line = trial.finish()?;
    let octets = line.receiver_link.there.octets;
    line.measure(format!("{octets} of {SMALL_BUDGET} octets passed"));
    line.must(octets <= SMALL_BUDGET, format!("{octets} octets passed, {SMALL_BUDGET} were allowed"));
    line.must(octets + packet_on_link(family) > SMALL_BUDGET, format!("only {octets} octets passed: one more packet would have fitted"));
    line.must_be_under_ah();
    for (node, counted) in [("router", at_router), ("receiver", at_receiver)] {
        line.must(counted == Some(octets), format!("{node} counted {counted:?} of {SMALL_BUDGET}, the capture shows {octets}"));
    }
    Ok(line)
}

/// Octets of one packet on a link: IP, AH, UDP, payload.
fn packet_on_link(family: Family) -> u64 {
    let headers = match family {
        Ipv4 => 20 + 28,
        Ipv6 => 40 + 32,
    };
    headers + 8 + PAYLOAD as u64
}

/// What a node has counted for the flow, if it allows the small budget.
fn counted_of_budget(site: &Site, daemon: &Option<Daemon>, port: u16) -> io::Result<Option<u64>> {
    let flow = site.flow(daemon, port)?.filter(|flow| figure(flow, "allowed") == Some(SMALL_BUDGET));
    Ok(flow.and_then(|flow| figure(&flow, "counted")))
}

fn figure(flow: &Value, name: &str) -> Option<u64> {
    flow.get(name).and_then(Value::as_u64)
}
