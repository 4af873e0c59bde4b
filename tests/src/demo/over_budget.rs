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
    let mut honest = overrun(site, "over-budget", "honest sender, more than allowed", 9010)?;
    let left = honest.sender_link.there.packets;
    honest.must(left == honest.arrived, format!("{left} packets left the sender, {} arrived", honest.arrived));
    site.start_sender(Program::LyingHost)?;
    let mut liar = overrun(site, "lying-sender", "lying sender (right key), more than allowed", 9011)?;
    let dropped = liar.dropped_at("router", "over_budget");
    let beyond = liar.sent - liar.arrived;
    liar.must(dropped == beyond && dropped > 0, format!("the router dropped {dropped} of {beyond} beyond the budget"));
    site.start_sender(Program::Host)?;
    Ok(vec![honest, liar])
}

fn overrun(site: &Site, name: &'static str, tried: &str, port: u16) -> io::Result<Line> {
    let mut trial = Trial::start(site, name, tried, Ipv4, port)?;
    let (socket, _receiver) = trial.sockets()?;
    socket.send_to(&[0; PAYLOAD], trial.destination())?;
    trial.line.sent = 1;
    trial.await_grant();
    for _ in 1..OFFERED {
        if socket.send_to(&[0; PAYLOAD], trial.destination()).is_ok() {
            trial.line.sent += 1;
        }
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
    for (node, daemon) in [("router", &site.router), ("receiver", &site.receiver)] {
        let (counted, allowed) = (figure(site, daemon, port, "counted")?, figure(site, daemon, port, "allowed")?);
        line.must(
            counted == Some(octets) && allowed == Some(SMALL_BUDGET),
            format!("{node} counted {counted:?} of {allowed:?}, the capture shows {octets}"),
        );
    }
    Ok(line)
}

fn figure(site: &Site, node: &Option<Daemon>, port: u16, name: &str) -> io::Result<Option<u64>> {
    Ok(site.flow(node, port)?.and_then(|flow| flow.get(name).and_then(Value::as_u64)))
}
