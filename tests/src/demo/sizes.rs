//! Datagrams of awkward sizes under a permission: larger than the link, and "do not fragment".

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use super::line::Line;
use super::site::Site;
use super::trial::Trial;
use crate::network::frame;
use crate::network::topology::Family::Ipv4;
use crate::network::topology::MTU;
use crate::transfer;

/// The flow that sends them.
const PORT: u16 = 9003;
/// Octets of the large datagram: fifteen fragments.
const LARGE: usize = 20_000;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// The largest Authentication Header on IPv4 that a flow may escalate to.
const LARGEST_AH: usize = 76;

/// A large datagram arrives whole; one that may not be fragmented and does not fit is refused at once.
pub(super) fn large_and_unfragmentable(site: &mut Site) -> io::Result<Vec<Line>> {
    let tried = format!("UDP datagram of {LARGE} octets, AH over the whole, then fragments");
    let mut trial = Trial::start(site, "large-datagram", tried, Ipv4, PORT)?;
    let (sender, receiver) = trial.sockets()?;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    sender.send_to(b"first", trial.destination())?;
    trial.await_grant();
    receiver.recv(&mut [0; 16])?;
    let large = send_large(trial, site, &sender, &receiver)?;

    let tried = "\"do not fragment\": the largest that fits, and one octet more";
    let trial = Trial::start(site, "do-not-fragment", tried, Ipv4, PORT)?;
    Ok(vec![large, send_unfragmentable(trial, &sender, &receiver)?])
}

fn send_large(mut trial: Trial<'_>, site: &Site, sender: &UdpSocket, receiver: &UdpSocket) -> io::Result<Line> {
    let datagram = transfer::make_file(LARGE)?;
    let from = site.right.look(<[_]>::len);
    sender.send_to(&datagram, trial.destination())?;
    trial.line.sent = 2;
    let mut buffer = vec![0; 65536];
    let length = receiver.recv(&mut buffer).unwrap_or(0);
    std::thread::sleep(super::SETTLE);
    let fragments = site.right.look(|frames| {
        let to_receiver = |ip| frame::read(ip).is_some_and(|seen| seen.destination == Ipv4.receiver() && seen.protocol != 6);
        frames.iter().skip(from).filter_map(|frame| frame.ip()).filter(|ip| to_receiver(ip)).count()
    });
    trial.line.measure(format!("{fragments} fragments"));
    trial.line.must(buffer.get(..length) == Some(&datagram[..]), format!("{length} octets arrived"));
    trial.line.must(fragments > 1, "the datagram did not travel in fragments");
    let mut line = trial.finish()?;
    line.must(line.arrived == line.sent, "AH must stand in the first fragment, and only there");
    line.must_be_under_ah();
    Ok(line)
}

fn send_unfragmentable(mut trial: Trial<'_>, sender: &UdpSocket, receiver: &UdpSocket) -> io::Result<Line> {
    let fits = MTU as usize - HEADERS - LARGEST_AH;
    crate::network::sys::forbid_fragments(sender)?;
    sender.send_to(&vec![1; fits], trial.destination())?;
    trial.line.sent = 1;
    let arrived = receiver.recv(&mut vec![0; 65536]).is_ok_and(|length| length == fits);
    trial.line.must(arrived, format!("{fits} octets did not arrive"));
    let refused = sender.send_to(&vec![1; fits + 1], trial.destination()).err().and_then(|error| error.raw_os_error());
    trial.line.must(refused == Some(libc::EMSGSIZE), format!("{} octets gave {refused:?} instead of EMSGSIZE", fits + 1));
    trial.line.measure(format!("{fits} octets arrive, {} give EMSGSIZE", fits + 1));
    let mut line = trial.finish()?;
    line.must_be_under_ah();
    Ok(line)
}
