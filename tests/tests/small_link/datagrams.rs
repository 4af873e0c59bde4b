//! UDP through the narrow link, for programs that measure the path themselves and for those that leave it to the kernel.

use std::io;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{GetSockOpt, setsockopt};
use pbs_lab::network::topology::Family;

use crate::site::{NARROW, PATIENCE, Site};

const PORT: u16 = 9000;
/// How long a datagram may take.
const SOON: Duration = Duration::from_secs(1);

#[test]
fn do_not_fragment_gets_emsgsize_and_the_paths_mtu_over_ipv4() {
    measured(Family::Ipv4, 28, 76);
}

#[test]
fn do_not_fragment_gets_emsgsize_and_the_paths_mtu_over_ipv6() {
    measured(Family::Ipv6, 48, 80);
}

#[test]
fn datagrams_of_any_size_arrive_over_ipv4() {
    of_any_size(Family::Ipv4);
}

#[test]
fn datagrams_of_any_size_arrive_over_ipv6() {
    of_any_size(Family::Ipv6);
}

/// As QUIC does it; `headers` are those of IP and UDP, `ah` is the largest that there may be.
fn measured(family: Family, headers: usize, ah: usize) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start();
    let (sender, receiver) = site.sockets(family, PORT);
    forbid_fragments(&sender);
    let fits = NARROW - ah - headers;
    // It fits the first link, and not the narrow one.
    let lost = vec![1; 1500 - ah - headers];
    sender.send(&lost).unwrap();
    let started = Instant::now();
    while mtu(&sender) != NARROW - ah {
        assert!(started.elapsed() < PATIENCE, "the path's MTU is {} to the program", mtu(&sender));
        std::thread::sleep(Duration::from_millis(5));
        // A pending error is told once.
        let _ = sender.send(&vec![2; fits]);
    }
    println!("  {family:?}: known after {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    // What is told of the error itself comes first, on IPv4.
    let _ = sender.take_error();
    let refused = sender.send(&vec![1; fits + 1]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EMSGSIZE));
    sender.send(&vec![3; fits]).unwrap();
    let mut buffer = vec![0; 2000];
    loop {
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(length, fits, "nothing larger arrives");
        if buffer[0] == 3 {
            break;
        }
    }
    assert!(site.errors(family) > 0);
}

fn of_any_size(family: Family) {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::start();
    let (connected, receiver) = site.sockets(family, PORT);
    // Only connected sockets are told of errors that they have not asked for.
    let from = connected.local_addr().unwrap();
    drop(connected);
    let sender = site.sender.run(|| UdpSocket::bind(from)).unwrap();
    receiver.set_read_timeout(Some(SOON)).unwrap();
    let mut tries = Vec::new();
    for size in [1_000, 1_250, 1_300, 1_324, 1_372, 1_400, 1_424, 1_500, 3_000, 8_000, 20_000, 60_000] {
        let datagram: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let arrived = (1..=4).find(|_| {
            sender.send_to(&datagram, (family.receiver(), PORT)).unwrap();
            let mut buffer = vec![0; 65_536];
            receiver.recv(&mut buffer).is_ok_and(|length| buffer[..length] == datagram)
        });
        tries.push((size, arrived));
    }
    println!("  {family:?}: tries {tries:?}");
    // The first that is too big for the path is lost, and tells.
    assert!(tries.iter().all(|(_, tries)| tries.is_some_and(|tries| tries <= 2)), "{tries:?}");
    assert!(tries.iter().filter(|(_, tries)| *tries > Some(1)).count() <= 1, "{tries:?}");
}

fn forbid_fragments(socket: &UdpSocket) {
    if socket.local_addr().unwrap().is_ipv4() {
        setsockopt(socket, option::Ipv4PathMtuDiscovery, &libc::IP_PMTUDISC_DO).unwrap();
    } else {
        setsockopt(socket, option::Ipv6PathMtuDiscovery, &libc::IPV6_PMTUDISC_DO).unwrap();
    }
}

/// The MTU of a connected socket's path.
fn mtu(socket: &UdpSocket) -> usize {
    let mtu: io::Result<libc::c_int> = if socket.local_addr().unwrap().is_ipv4() {
        option::Ipv4Mtu.get(socket).map_err(io::Error::from)
    } else {
        option::Ipv6Mtu.get(socket).map_err(io::Error::from)
    };
    usize::try_from(mtu.unwrap()).unwrap()
}

/// Socket options that the library does not name.
mod option {
    use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(Ipv4PathMtuDiscovery, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int);
    sockopt_impl!(Ipv6PathMtuDiscovery, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int);
    sockopt_impl!(Ipv4Mtu, GetOnly, libc::IPPROTO_IP, libc::IP_MTU, libc::c_int);
    sockopt_impl!(Ipv6Mtu, GetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU, libc::c_int);
}
