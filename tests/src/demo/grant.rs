//! Before permission, denied, granted.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::SETTLE;
use super::line::Line;
use super::site::Site;
use crate::network::capture::{Capture, Frame};
use crate::network::frame::{self, Seen};
use crate::network::topology::{RECEIVER, SENDER};
use crate::process::Program;
use crate::transfer;

/// Datagrams that ask for nothing: a few are enough to see whether one gets through.
const FEW: u64 = 20;
/// Octets of the file.
const FILE: usize = 1 << 20;

/// Nothing arrives before there is a permission, however it is missing.
pub(super) fn before_permission(site: &mut Site) -> io::Result<Vec<Line>> {
    site.start_router()?;
    site.start_receiver()?;
    let no_host = try_few(site, "before-permission", "UDP from a host that does not ask", 9000, "router", "no_permission")?;
    site.start_sender(Program::Host)?;
    let not_asked = try_few(site, "not-asked", "UDP that the sender's policy does not ask for", 7000, "sender", "not_asked")?;
    let mut declined = try_few(site, "declined", "UDP that the receiver declines", 9900, "sender", "no_permission")?;
    let on_wire = declined.dropped.iter().filter(|dropped| dropped.at == "router").count();
    declined.must(on_wire == 0, "packets left the sender although permission was declined");
    Ok(vec![no_host, not_asked, declined])
}

fn try_few(site: &Site, name: &'static str, tried: &str, port: u16, at: &str, reason: &str) -> io::Result<Line> {
    let mut line = Line::new(name, tried);
    let before = site.drops()?;
    let mark = site.right.mark();
    let (socket, receiver) = sockets(site, port)?;
    for _ in 0..FEW {
        // A full local queue may refuse: that is not an arrival either.
        if socket.send_to(b"may I?", (RECEIVER, port)).is_ok() {
            line.sent += 1;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let delivered = transfer::count_datagrams(&receiver, SETTLE + Duration::from_secs(1))?;
    line.arrived = site.right.count(mark, |frame| to_port(frame, port).is_some());
    line.dropped = site.drops()?.since(&before);
    line.must(line.arrived == 0 && delivered == 0, format!("{} on the receiver's link, {delivered} delivered", line.arrived));
    let dropped = line.dropped_at(at, reason);
    line.must(dropped == FEW, format!("{at} dropped {dropped} of {FEW} for {reason}"));
    Ok(line)
}

/// A file arrives intact, every packet under AH on both links; the second flow finds its associations alive.
pub(super) fn granted(site: &mut Site) -> io::Result<Vec<Line>> {
    let cold = transfer_file(site, "granted", "1 MiB file over UDP, nothing set up", 9001)?;
    let warm = transfer_file(site, "granted-again", "1 MiB file over UDP, associations alive", 9002)?;
    Ok(vec![cold, warm])
}

fn transfer_file(site: &Site, name: &'static str, tried: &str, port: u16) -> io::Result<Line> {
    let mut line = Line::new(name, tried);
    let file = transfer::make_file(FILE)?;
    let (before, left, right) = (site.drops()?, site.left.mark(), site.right.mark());
    let (socket, receiver) = sockets(site, port)?;
    let to = SocketAddr::new(RECEIVER, port);
    let receiving = std::thread::spawn(move || transfer::receive_file(&receiver, FILE, Duration::from_secs(5)));
    let started = Instant::now();
    // The first datagram asks; the others follow when it has arrived, as a program with an answer to wait for would do.
    socket.send_to(&first_chunk(&file), to)?;
    wait_for_arrival(&site.right, right, port, Duration::from_secs(10));
    line.sent = 1 + transfer::send_file(&socket, to, &file, Duration::from_micros(150))?;
    let received = receiving.join().map_err(|_| io::Error::other("the receiving thread panicked"))??;
    line.arrived = received.datagrams;
    line.dropped = site.drops()?.since(&before);
    if let Some(first) = received.first {
        line.measure(format!("first packet to arrival {:.1} ms", first.duration_since(started).as_secs_f64() * 1e3));
    }
    line.must(received.file == file, "the file did not arrive intact");
    line.must(line.arrived == line.sent, format!("{} datagrams of {} arrived", line.arrived, line.sent));
    line.must(line.dropped.is_empty(), "packets of a permitted flow were dropped");
    for (link, capture, mark) in [("sender's", &site.left, left), ("receiver's", &site.right, right)] {
        let (under, clear) = under_ah(capture, mark, port);
        line.must(clear == 0 && under >= line.sent, format!("{link} link: {under} under AH, {clear} in the clear"));
        if link == "receiver's" {
            line.measure(format!("{under} under AH, {clear} in the clear"));
        }
    }
    Ok(line)
}

/// The datagram that `transfer::send_file` sends first.
pub(super) fn first_chunk(file: &[u8]) -> Vec<u8> {
    let mut datagram = 0_u64.to_be_bytes().to_vec();
    datagram.extend(file.iter().take(transfer::CHUNK));
    datagram
}

/// A socket of the sender and one of the receiver on `port`.
pub(super) fn sockets(site: &Site, port: u16) -> io::Result<(UdpSocket, UdpSocket)> {
    let receiver = site.chain.receiver.run(|| UdpSocket::bind((RECEIVER, port)))?;
    let sender = site.chain.sender.run(|| UdpSocket::bind((SENDER, 20_000 + port)))?;
    Ok((sender, receiver))
}

/// The packet in `frame`, if it is of the flow to `port` of the receiver.
pub(super) fn to_port(frame: &Frame, port: u16) -> Option<Seen> {
    frame::read(frame).filter(|seen| seen.destination == RECEIVER && seen.ports.1 == port)
}

/// Waits until a packet of the flow was on the link.
pub(super) fn wait_for_arrival(capture: &Capture, mark: Duration, port: u16, patience: Duration) -> Option<Duration> {
    let started = Instant::now();
    while started.elapsed() < patience {
        if capture.count(mark, |frame| to_port(frame, port).is_some()) > 0 {
            return Some(started.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

fn under_ah(capture: &Capture, mark: Duration, port: u16) -> (u64, u64) {
    let under = capture.count(mark, |frame| to_port(frame, port).is_some_and(|seen| seen.authentication.is_some()));
    let clear = capture.count(mark, |frame| to_port(frame, port).is_some_and(|seen| seen.authentication.is_none()));
    (under, clear)
}
