//! Datagrams of awkward sizes under a permission: larger than the link, and "do not fragment".

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::grant::{sockets, to_port, wait_for_arrival};
use super::line::Line;
use super::site::Site;
use crate::network::topology::{MTU, RECEIVER};
use crate::transfer;

/// The flow that sends them.
const PORT: u16 = 9003;
/// Octets of the large datagram: fourteen fragments.
const LARGE: usize = 20_000;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;
/// The largest Authentication Header on IPv4 that a flow may escalate to.
const LARGEST_AH: usize = 76;

/// A large datagram arrives whole; one that may not be fragmented and does not fit is refused at once.
pub(super) fn large_and_unfragmentable(site: &mut Site) -> io::Result<Vec<Line>> {
    let (sender, receiver) = sockets(site, PORT)?;
    receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
    let to = SocketAddr::new(RECEIVER, PORT);
    let mark = site.right.mark();
    sender.send_to(b"first", to)?;
    let granted = wait_for_arrival(&site.right, mark, PORT, Duration::from_secs(10)).is_some();
    let mut buffer = vec![0; 65536];
    receiver.recv(&mut buffer)?;
    Ok(vec![large(site, granted, &sender, &receiver)?, unfragmentable(site, &sender, &receiver)?])
}

fn large(site: &Site, granted: bool, sender: &UdpSocket, receiver: &UdpSocket) -> io::Result<Line> {
    let mut line = Line::new("large-datagram", format!("UDP datagram of {LARGE} octets, AH over the whole, then fragments"));
    let before = site.drops()?;
    let mark = site.right.mark();
    line.must(granted, "no permission came");
    let datagram = transfer::make_file(LARGE)?;
    sender.send_to(&datagram, (RECEIVER, PORT))?;
    line.sent = 1;
    let mut buffer = vec![0; 65536];
    let length = receiver.recv(&mut buffer).unwrap_or(0);
    line.arrived = u64::from(buffer.get(..length) == Some(&datagram[..]));
    line.dropped = site.drops()?.since(&before);
    std::thread::sleep(super::SETTLE);
    let fragments = site.right.count(mark, |frame| frame.outgoing && is_to_receiver(frame));
    let under = site.right.count(mark, |frame| to_port(frame, PORT).is_some_and(|seen| seen.authentication.is_some()));
    line.measure(format!("{fragments} fragments, {under} with AH"));
    line.must(line.arrived == 1, format!("{length} octets arrived"));
    line.must(fragments > 1 && under == 1, "AH must stand in the first fragment, and only there");
    Ok(line)
}

fn unfragmentable(site: &Site, sender: &UdpSocket, receiver: &UdpSocket) -> io::Result<Line> {
    let mut line = Line::new("do-not-fragment", "\"do not fragment\": largest that fits, and one octet more");
    let fits = MTU as usize - HEADERS - LARGEST_AH;
    let before = site.drops()?;
    crate::network::sys::forbid_fragments(sender)?;
    sender.send_to(&vec![1; fits], (RECEIVER, PORT))?;
    line.sent = 1;
    let mut buffer = vec![0; 65536];
    line.arrived = u64::from(receiver.recv(&mut buffer).is_ok_and(|length| length == fits));
    line.must(line.arrived == 1, format!("{fits} octets did not arrive"));
    let refused = sender.send_to(&vec![1; fits + 1], (RECEIVER, PORT)).err().and_then(|error| error.raw_os_error());
    line.must(refused == Some(libc::EMSGSIZE), format!("{} octets gave {refused:?} instead of EMSGSIZE", fits + 1));
    line.measure(format!("{fits} octets arrive, {} give EMSGSIZE", fits + 1));
    line.dropped = site.drops()?.since(&before);
    Ok(line)
}

fn is_to_receiver(frame: &crate::network::capture::Frame) -> bool {
    crate::network::frame::read(frame).is_some_and(|seen| seen.destination == RECEIVER)
}
