//! Genuine packets that never came further than the sender's link: somebody there has them, and no router has seen them.

use std::io;
use std::time::Duration;

use super::SETTLE;
use super::site::Site;
use super::trial::Trial;
use crate::network::frame;
use crate::network::topology::{Family, LEFT_LINK};

/// Sends the first packet of a flow and waits until it has arrived; whether it has.
pub(super) fn grant(site: &Site, family: Family, port: u16) -> io::Result<bool> {
    let trial = Trial::start(site, "", "", family, port)?;
    let (socket, _receiver) = trial.sockets()?;
    socket.send_to(b"may I?", trial.destination())?;
    Ok(trial.await_arrival(Duration::from_secs(10)).is_some())
}

/// Has a flow with a permission send while the router forwards nothing.
pub(super) fn hold_back(site: &Site, family: Family, port: u16, count: u64, payload: &[u8]) -> io::Result<Vec<Vec<u8>>> {
    let forwarding = match family {
        Family::Ipv4 => format!("net/ipv4/conf/{LEFT_LINK}/forwarding"),
        // Of an interface alone it only says whether that one is a router's.
        Family::Ipv6 => "net/ipv6/conf/all/forwarding".to_owned(),
    };
    let trial = Trial::start(site, "", "", family, port)?;
    let (socket, _receiver) = trial.sockets()?;
    let from = site.left.look(<[_]>::len);
    site.chain.router.write_setting(&forwarding, "0")?;
    for _ in 0..count {
        socket.send_to(payload, trial.destination())?;
    }
    std::thread::sleep(SETTLE);
    site.chain.router.write_setting(&forwarding, "1")?;
    let of_flow = |ip: &&[u8]| frame::read(ip).is_some_and(|seen| seen.ports.1 == port && seen.authentication.is_some());
    Ok(site.left.look(|frames| frames.iter().skip(from).filter_map(|frame| frame.ip()).filter(of_flow).map(<[u8]>::to_vec).collect()))
}

/// Sends packets on that were held back; gives how many of them passed.
pub(super) fn send_on(site: &Site, family: Family, port: u16, packets: &[Vec<u8>]) -> io::Result<u64> {
    let trial = Trial::start(site, "", "", family, port)?;
    let (_socket, _receiver) = trial.sockets()?;
    site.attacker.send(packets)?;
    std::thread::sleep(SETTLE);
    Ok(trial.on_receiver_link().packets)
}
