//! Datagrams of awkward sizes under a permission: larger than the link, and "do not fragment".

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use super::line::Line;
use super::site::Site;
use super::trial::Trial;
use crate::network::frame;
use crate::network::sys;
use crate::network::topology::Family::{self, Ipv4, Ipv6};
use crate::network::topology::MTU;
use crate::transfer;

/// Octets of the large datagram: fifteen fragments.
const LARGE: usize = 20_000;

/// A flow that sends such datagrams.
#[derive(Clone, Copy)]
struct Flow {
    family: Family,
    port: u16,
    /// Octets of IP and UDP headers.
    headers: usize,
    /// Octets of the largest Authentication Header that the flow may escalate to.
    largest_ah: usize,
}

const FLOW: Flow = Flow { family: Ipv4, port: 9003, headers: 28, largest_ah: 76 };
const FLOW6: Flow = Flow { family: Ipv6, port: 9005, headers: 48, largest_ah: 80 };

/// A large datagram arrives whole; one that may not be fragmented and does not fit is refused at once.
pub(super) fn large_and_unfragmentable(site: &mut Site) -> io::Result<Vec<Line>> {
    let mut lines = of_flow(site, FLOW, ["large-datagram", "do-not-fragment"], "")?;
    lines.extend(of_flow(site, FLOW6, ["large-datagram-ipv6", "do-not-fragment-ipv6"], ", IPv6")?);
    Ok(lines)
}

fn of_flow(site: &Site, flow: Flow, [large, unfragmentable]: [&'static str; 2], suffix: &str) -> io::Result<Vec<Line>> {
    let Flow { family, port, .. } = flow;
    let tried = format!("UDP datagram of {LARGE} octets, AH over the whole, then fragments{suffix}");
    let mut trial = Trial::start(site, large, tried, family, port)?;
    let (sender, receiver) = trial.sockets()?;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    sender.send_to(b"first", trial.destination())?;
    trial.await_grant();
    receiver.recv(&mut [0; 16])?;
    let large = send_large(trial, site, family, &sender, &receiver)?;

    let tried = format!("\"do not fragment\": the largest that fits, and one octet more{suffix}");
    let trial = Trial::start(site, unfragmentable, tried, family, port)?;
    Ok(vec![large, send_unfragmentable(trial, flow, &sender, &receiver)?])
}

fn send_large(mut trial: Trial<'_>, site: &Site, family: Family, sender: &UdpSocket, receiver: &UdpSocket) -> io::Result<Line> {
    let datagram = transfer::make_file(LARGE)?;
    let from = site.right.look(<[_]>::len);
    sender.send_to(&datagram, trial.destination())?;
    trial.line.sent = 2;
    let mut buffer = vec![0; 65536];
    let length = receiver.recv(&mut buffer).unwrap_or(0);
    std::thread::sleep(super::SETTLE);
    let fragments = site.right.look(|frames| {
        let to_receiver = |ip| frame::read(ip).is_some_and(|seen| (seen.source, seen.destination) == (family.sender(), family.receiver()));
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

fn send_unfragmentable(mut trial: Trial<'_>, flow: Flow, sender: &UdpSocket, receiver: &UdpSocket) -> io::Result<Line> {
    let fits = MTU as usize - flow.headers - flow.largest_ah;
    sys::forbid_fragments(sender)?;
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
