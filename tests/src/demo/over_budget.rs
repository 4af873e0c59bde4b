//! More than was granted: an honest sender holds it back, a lying one is stopped at the router.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use super::SETTLE;
use super::grant::{sockets, to_port, wait_for_arrival};
use super::line::Line;
use super::site::{SMALL_BUDGET, Site};
use crate::network::topology::RECEIVER;
use crate::process::{Daemon, Program};

/// Datagrams offered: about two and a half times the small budget.
const OFFERED: u64 = 80;
/// Payload octets of each.
const PAYLOAD: usize = 1200;

/// Both senders in turn.
pub(super) fn both_senders(site: &mut Site) -> io::Result<Vec<Line>> {
    let mut honest = overrun(site, "over-budget", "honest sender, more than allowed", 9010)?;
    let dropped = honest.dropped_at("router", "over_budget");
    honest.must(dropped == 0, format!("{dropped} packets over budget reached the router: the sender let them out"));
    site.start_sender(Program::LyingHost)?;
    let mut liar = overrun(site, "lying-sender", "lying sender (right key), more than allowed", 9011)?;
    let dropped = liar.dropped_at("router", "over_budget");
    liar.must(dropped > 0, "the router dropped nothing over budget");
    site.start_sender(Program::Host)?;
    Ok(vec![honest, liar])
}

fn overrun(site: &Site, name: &'static str, tried: &str, port: u16) -> io::Result<Line> {
    let mut line = Line::new(name, tried);
    let (before, mark) = (site.drops()?, site.right.mark());
    let (socket, _receiver) = sockets(site, port)?;
    let to = SocketAddr::new(RECEIVER, port);
    socket.send_to(&[0; PAYLOAD], to)?;
    line.sent = 1;
    let granted = wait_for_arrival(&site.right, mark, port, Duration::from_secs(10));
    line.must(granted.is_some(), "no permission came");
    for _ in 1..OFFERED {
        if socket.send_to(&[0; PAYLOAD], to).is_ok() {
            line.sent += 1;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(SETTLE + Duration::from_secs(1));
    let passed = site.right.since(mark, |frame| frame.outgoing && to_port(frame, port).is_some());
    line.arrived = passed.len() as u64;
    let octets: u64 = passed.iter().filter_map(|frame| to_port(frame, port)).map(|seen| seen.length as u64).sum();
    line.dropped = site.drops()?.since(&before);
    line.measure(format!("{octets} of {SMALL_BUDGET} octets on the receiver's link"));
    line.must(octets <= SMALL_BUDGET, format!("{octets} octets passed, {SMALL_BUDGET} were allowed"));
    line.must(octets + PAYLOAD as u64 > SMALL_BUDGET - PAYLOAD as u64, format!("only {octets} octets passed"));
    for (node, daemon) in [("router", &site.router), ("receiver", &site.receiver)] {
        let counted = figure(site, daemon, port, "counted")?;
        let allowed = figure(site, daemon, port, "allowed")?;
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
