//! Before permission, denied, granted.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::SETTLE;
use super::line::Line;
use super::site::Site;
use super::trial::Trial;
use crate::network::topology::Family::{self, Ipv4, Ipv6};
use crate::process::{Daemon, Program};
use crate::transfer;

/// Datagrams that ask for nothing: a few are enough to see whether one gets through.
const FEW: u64 = 20;
/// Octets of a file over UDP.
const FILE: usize = 1 << 20;
/// The receiver's row for a Query that its policy declines.
const DECLINED: &str = "FR-06";

/// Nothing arrives before there is a permission.
pub(super) fn before_permission(site: &mut Site) -> io::Result<Vec<Line>> {
    site.start_router(Program::Router)?;
    site.start_receiver(Program::Host)?;
    let mut line = try_few(site, "before-permission", "UDP from a host that does not ask", 9000, ("router", &["no_permission"]))?;
    line.before_rules = true;
    site.start_sender(Program::Host)?;
    Ok(vec![line])
}

/// A file arrives intact, every packet under AH on both links; the second flow finds its associations alive.
pub(super) fn granted(site: &mut Site) -> io::Result<Vec<Line>> {
    let associations = site.associations(&site.router)?;
    let mut cold = transfer_file(site, "granted", "1 MiB file over UDP, no association yet", Ipv4, 9001)?;
    cold.must(associations == 0, format!("{associations} associations were there before: this was not a cold start"));
    let alive = site.associations(&site.router)?;
    let mut warm = transfer_file(site, "granted-again", "1 MiB file over UDP, associations alive", Ipv4, 9002)?;
    warm.must(alive >= 2, format!("the router had {alive} associations instead of one to each host: this was a cold start"));
    let ipv6 = transfer_file(site, "granted-ipv6", "1 MiB file over UDP and IPv6", Ipv6, 9004)?;
    Ok(vec![cold, warm, ipv6])
}

/// What nobody asks for, and what the receiver declines.
pub(super) fn denied(site: &mut Site) -> io::Result<Vec<Line>> {
    let not_asked = try_few(site, "not-asked", "UDP that the sender's policy does not ask for", 7000, ("sender", &["not_asked"]))?;
    // Whoever waits longer for the answer than a packet is held gives it up a little earlier: the receiver must have said no.
    let reasons = ["no_permission", "held_too_long"];
    let before = denials(&site.receiver)?;
    let mut declined = try_few(site, "declined", "UDP that the receiver declines", 9900, ("sender", &reasons))?;
    let denials = denials(&site.receiver)?;
    let denied = denials.checked_sub(before);
    declined.must(denied > Some(0), format!("the receiver has declined {denials} times, {before} times before"));
    declined.measure(format!("{} declined by the receiver's row {DECLINED}", denied.unwrap_or(0)));
    Ok(vec![not_asked, declined])
}

/// How often the receiver has taken the row for a Query that its policy declines.
fn denials(receiver: &Option<Daemon>) -> io::Result<u64> {
    let Some(receiver) = receiver else { return Ok(0) };
    let status = receiver.ask(&serde_json::json!({ "command": "status" }))?;
    Ok(status.pointer(&format!("/receiving/nslp/rules/{DECLINED}")).and_then(Value::as_u64).unwrap_or(0))
}

fn try_few(site: &Site, name: &'static str, tried: &str, port: u16, (at, reasons): (&str, &[&str])) -> io::Result<Line> {
    let mut trial = Trial::start(site, name, tried, Ipv4, port)?;
    let (socket, receiver) = trial.sockets()?;
    for _ in 0..FEW {
        // A full local queue may refuse: that is not an arrival either.
        if socket.send_to(b"may I?", trial.destination()).is_ok() {
            trial.line.sent += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let delivered = transfer::count_datagrams(&receiver, SETTLE + Duration::from_secs(1))?;
    let on_sender_link = trial.on_sender_link().packets;
    let mut line = trial.finish()?;
    line.must(line.arrived == 0 && delivered == 0, format!("{} on the receiver's link, {delivered} delivered", line.arrived));
    let dropped: u64 = reasons.iter().map(|reason| line.dropped_at(at, reason)).sum();
    line.must(dropped == FEW, format!("{at} dropped {dropped} of {FEW} for {}", reasons.join(" or ")));
    line.must(at == "router" || on_sender_link == 0, format!("{on_sender_link} packets left the sender"));
    Ok(line)
}

fn transfer_file(site: &Site, name: &'static str, tried: &str, family: Family, port: u16) -> io::Result<Line> {
    let mut trial = Trial::start(site, name, tried, family, port)?;
    let file = transfer::make_file(FILE)?;
    let (socket, receiver) = trial.sockets()?;
    let to = trial.destination();
    let receiving = std::thread::spawn(move || transfer::receive_file(&receiver, FILE, Duration::from_secs(5)));
    let (started, started_us) = (Instant::now(), site.now_us());
    // The first datagram asks; the others follow when it has arrived, as a program with an answer to wait for would do.
    socket.send_to(&transfer::first_datagram(&file), to)?;
    trial.await_grant();
    trial.line.sent = 1 + transfer::send_file(&socket, to, &file, Duration::from_micros(150))?;
    let received = receiving.join().map_err(|_| io::Error::other("the receiving thread panicked"))??;
    trial.measure_grant(started_us);
    if let Some(first) = received.first {
        trial.line.measure(format!("arrival after {:.1} ms", first.duration_since(started).as_secs_f64() * 1e3));
    }
    let mut line = trial.finish()?;
    line.must(received.file == file, "the file did not arrive intact");
    line.must(received.datagrams == line.sent, format!("{} datagrams of {} delivered", received.datagrams, line.sent));
    line.must(line.dropped.is_empty(), "packets of a permitted flow were dropped");
    line.must_be_under_ah();
    Ok(line)
}
