//! A sender that vanishes: nobody refreshes its permission, and every node forgets it.

use std::io;
use std::time::{Duration, Instant};

use super::line::Line;
use super::site::{REFRESH, Site};
use super::trial::Trial;
use crate::network::frame;
use crate::network::topology::{Family::Ipv4, LEFT_LINK};
use crate::process::Program;

/// The flow whose sender vanishes.
const PORT: u16 = 9030;
/// Genuine packets that never came further than the sender's link: half of them are sent while the permission lives, half later.
const HELD_BACK: usize = 40;
/// How long after the end of its lifetime a permission is looked for.
const MARGIN: Duration = Duration::from_millis(500);

/// What an attacker on the sender's link has kept of a flow that its sender has left.
#[derive(Debug)]
pub struct Abandoned {
    /// When the sender's daemon died.
    at: Instant,
    /// Packets under the flow's real key that no router has seen.
    packets: Vec<Vec<u8>>,
    /// How many of such packets passed while the permission lived.
    passed_before: u64,
    /// The nodes that held the permission.
    held_at: Vec<&'static str>,
}

/// Grants a flow, keeps some of its packets off the router, and kills the sender's daemon.
pub(super) fn abandon(site: &mut Site) -> io::Result<Vec<Line>> {
    let trial = Trial::start(site, "", "", Ipv4, PORT)?;
    let (socket, _receiver) = trial.sockets()?;
    socket.send_to(b"may I?", trial.destination())?;
    trial.await_arrival(Duration::from_secs(10));
    let from = site.left.look(<[_]>::len);
    // The attacker on the link gets these packets, and nobody else does.
    site.chain.router.write_setting(&format!("net/ipv4/conf/{LEFT_LINK}/forwarding"), "0")?;
    for _ in 0..HELD_BACK {
        socket.send_to(b"held back", trial.destination())?;
    }
    std::thread::sleep(super::SETTLE);
    site.chain.router.write_setting(&format!("net/ipv4/conf/{LEFT_LINK}/forwarding"), "1")?;
    let mut packets: Vec<Vec<u8>> = site.left.look(|frames| {
        let of_flow = |ip: &&[u8]| frame::read(ip).is_some_and(|seen| seen.ports.1 == PORT && seen.authentication.is_some());
        frames.iter().skip(from).filter_map(|frame| frame.ip()).filter(of_flow).map(<[u8]>::to_vec).collect()
    });
    let late = packets.split_off(packets.len() / 2);
    let before = trial.on_receiver_link().packets;
    site.attacker.send(&packets)?;
    std::thread::sleep(super::SETTLE);
    let passed_before = trial.on_receiver_link().packets - before;
    let mut held_at = Vec::new();
    for (node, daemon) in [("router", &site.router), ("receiver", &site.receiver)] {
        if site.flow(daemon, PORT)?.is_some() {
            held_at.push(node);
        }
    }
    site.start_sender(Program::Host)?;
    site.abandoned = Some(Abandoned { at: Instant::now(), packets: late, passed_before, held_at });
    Ok(Vec::new())
}

/// After L = 3.5 T nobody holds the permission, and genuine packets of the flow are stopped.
pub(super) fn expired(site: &mut Site) -> io::Result<Vec<Line>> {
    let abandoned = site.abandoned.take().ok_or_else(|| io::Error::other("no flow was abandoned"))?;
    let lifetime = REFRESH * 7 / 2;
    std::thread::sleep((lifetime + MARGIN).saturating_sub(abandoned.at.elapsed()));
    let mut trial = Trial::start(site, "expiry", "sender dead for 3.5 T, its last packets come late", Ipv4, PORT)?;
    let age = abandoned.at.elapsed();
    for (node, daemon) in [("router", &site.router), ("receiver", &site.receiver)] {
        trial.line.must(abandoned.held_at.contains(&node), format!("{node} did not hold the permission before"));
        trial.line.must(site.flow(daemon, PORT)?.is_none(), format!("{node} still holds the permission"));
    }
    trial.line.sent = site.attacker.send(&abandoned.packets)?;
    let mut line = trial.finish()?;
    let before = abandoned.passed_before;
    let half = HELD_BACK as u64 / 2;
    line.measure(format!("looked for after {:.1} s, L is {:.1} s", age.as_secs_f64(), lifetime.as_secs_f64()));
    line.measure(format!("{before} of {half} such packets passed before"));
    line.must(before == half, "late packets of a living permission did not pass: that none passes now shows nothing");
    line.must(line.sent == half, format!("{} packets were kept instead of {half}", line.sent));
    line.must(line.arrived == 0, "packets passed the router after the end of their permission");
    let dropped = line.dropped_at("router", "expired") + line.dropped_at("router", "unknown_spi");
    line.must(dropped == line.sent, format!("the router dropped {dropped} of {} as expired or unknown", line.sent));
    Ok(vec![line])
}
