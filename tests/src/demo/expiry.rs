//! Ends that vanish: nobody refreshes their permissions, and every node forgets them by itself.

use std::io;
use std::time::{Duration, Instant};

use super::line::Line;
use super::site::{REFRESH, Site};
use super::trial::Trial;
use crate::network::frame;
use crate::network::topology::{Family::Ipv4, LEFT_LINK};
use crate::process::Program;

/// The flow both of whose ends vanish: nobody can tell the router that it is over.
const BOTH_GONE: u16 = 9030;
/// The flow whose sender vanishes: the receiver has to notice.
const SENDER_GONE: u16 = 9031;
/// Genuine packets that never came further than the sender's link: half of them are sent on while the permission lives.
const HELD_BACK: u64 = 40;
/// How long after the end of its lifetime a permission is looked for.
const MARGIN: Duration = Duration::from_millis(500);

/// What is left of two flows when their daemons have died.
#[derive(Debug)]
pub struct Abandoned {
    /// When the last of the daemons died.
    at: Instant,
    /// Packets under a real key that no router has seen.
    packets: Vec<Vec<u8>>,
    /// How many of such packets passed while the permission lived.
    passed_before: u64,
    /// Why the later look would show nothing.
    missing: Vec<&'static str>,
}

/// Grants two flows, keeps packets of one off the router, and kills the daemons of the ends. New ones take their place, which know
/// nothing of these flows.
pub(super) fn abandon(site: &mut Site) -> io::Result<Vec<Line>> {
    grant(site, BOTH_GONE)?;
    let mut packets = hold_back(site)?;
    let late = packets.split_off(packets.len() / 2);
    let passed_before = send_on(site, &packets)?;
    site.start_sender(Program::Host)?;
    site.start_receiver(Program::Host)?;
    grant(site, SENDER_GONE)?;
    site.start_sender(Program::Host)?;
    let at = Instant::now();
    let holders = [
        ("the router does not hold the permission of dead ends", &site.router, BOTH_GONE),
        ("the router does not hold the permission of a dead sender", &site.router, SENDER_GONE),
        ("the receiver does not hold the permission of a dead sender", &site.receiver, SENDER_GONE),
    ];
    let mut missing = Vec::new();
    for (otherwise, node, port) in holders {
        if site.flow(node, port)?.is_none() {
            missing.push(otherwise);
        }
    }
    site.abandoned = Some(Abandoned { at, packets: late, passed_before, missing });
    Ok(Vec::new())
}

/// After L = 3.5 T nobody holds the permissions, and genuine packets that come then are stopped.
pub(super) fn expired(site: &mut Site) -> io::Result<Vec<Line>> {
    let abandoned = site.abandoned.take().ok_or_else(|| io::Error::other("no flow was abandoned"))?;
    let lifetime = REFRESH * 7 / 2;
    std::thread::sleep((lifetime + MARGIN).saturating_sub(abandoned.at.elapsed()));
    let mut trial = Trial::start(site, "expiry", "ends dead for 3.5 T (SIGKILL): packets that come late", Ipv4, BOTH_GONE)?;
    trial.line.measure(format!("{:.1} s later, L is {:.1} s", abandoned.at.elapsed().as_secs_f64(), lifetime.as_secs_f64()));
    for otherwise in &abandoned.missing {
        trial.line.must(false, format!("{otherwise}: that it is gone later shows nothing"));
    }
    for (name, node, port) in
        [("router", &site.router, BOTH_GONE), ("router", &site.router, SENDER_GONE), ("receiver", &site.receiver, SENDER_GONE)]
    {
        trial.line.must(site.flow(node, port)?.is_none(), format!("{name} still holds the permission for port {port}"));
    }
    trial.line.sent = site.attacker.send(&abandoned.packets)?;
    let mut line = trial.finish()?;
    let (before, half) = (abandoned.passed_before, HELD_BACK / 2);
    line.measure(format!("{before} of {half} such packets passed before"));
    line.must(before == half, "late packets of a living permission did not pass: that none passes now shows nothing");
    line.must(line.sent == half, format!("{} packets were kept instead of {half}", line.sent));
    line.must(line.arrived == 0, "packets passed the router after the end of their permission");
    let dropped = line.dropped_at("router", "expired") + line.dropped_at("router", "unknown_spi");
    line.must(dropped == line.sent, format!("the router dropped {dropped} of {} as expired or unknown", line.sent));
    Ok(vec![line])
}

/// Sends the first packet of a flow and waits until it has arrived.
fn grant(site: &Site, port: u16) -> io::Result<()> {
    let trial = Trial::start(site, "", "", Ipv4, port)?;
    let (socket, _receiver) = trial.sockets()?;
    socket.send_to(b"may I?", trial.destination())?;
    trial.await_arrival(Duration::from_secs(10));
    Ok(())
}

/// Has the flow send while the router forwards nothing: an attacker on the sender's link gets these packets, and nobody else.
fn hold_back(site: &Site) -> io::Result<Vec<Vec<u8>>> {
    let forwarding = format!("net/ipv4/conf/{LEFT_LINK}/forwarding");
    let trial = Trial::start(site, "", "", Ipv4, BOTH_GONE)?;
    let (socket, _receiver) = trial.sockets()?;
    let from = site.left.look(<[_]>::len);
    site.chain.router.write_setting(&forwarding, "0")?;
    for _ in 0..HELD_BACK {
        socket.send_to(b"held back", trial.destination())?;
    }
    std::thread::sleep(super::SETTLE);
    site.chain.router.write_setting(&forwarding, "1")?;
    let of_flow = |ip: &&[u8]| frame::read(ip).is_some_and(|seen| seen.ports.1 == BOTH_GONE && seen.authentication.is_some());
    Ok(site.left.look(|frames| frames.iter().skip(from).filter_map(|frame| frame.ip()).filter(of_flow).map(<[u8]>::to_vec).collect()))
}

/// Sends on what was held back; gives how much of it passed.
fn send_on(site: &Site, packets: &[Vec<u8>]) -> io::Result<u64> {
    let trial = Trial::start(site, "", "", Ipv4, BOTH_GONE)?;
    site.attacker.send(packets)?;
    std::thread::sleep(super::SETTLE);
    Ok(trial.on_receiver_link().packets)
}
