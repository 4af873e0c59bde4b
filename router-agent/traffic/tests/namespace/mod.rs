//! Network namespaces, links and addresses for tests, made with the crate's own netlink.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Once;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::eventfd::EventFd;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
use traffic::flow::Flow;
use traffic::netlink::{Batch, CREATE, EXCLUSIVE, Protocol, REPLACE, Socket, Writer};
use traffic::processor::PacketId;
use traffic::queue::{Delivery, Queue, ReceiveBuffer};
use traffic::rules::Admitted;

/// How long a test waits for something that is to come, however busy the machine is.
pub const SOON: Duration = Duration::from_secs(20);
/// How long a test waits for something that must not come.
pub const QUIET: Duration = Duration::from_millis(200);

/// An IPv4 address of the left end of [`pair`].
pub const A4: &str = "192.168.20.1";
/// An IPv4 address of its right end.
pub const B4: &str = "192.168.20.2";
/// An IPv6 address of its left end.
pub const A6: &str = "fd20::1";
/// An IPv6 address of its right end.
pub const B6: &str = "fd20::2";

/// Whether network namespaces can be made. If not, says so in one line; in CI that is a failure.
pub fn privileged() -> bool {
    static SAID: Once = Once::new();
    let outcome = std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET)).join().unwrap();
    if let Err(error) = outcome {
        assert!(!in_ci(), "network tests must not be skipped in CI, and network namespaces need root ({error})");
        SAID.call_once(|| {
            let _ = writeln!(std::io::stderr(), "skipped: network namespaces need root ({error})");
        });
    }
    outcome.is_ok()
}

/// Whether nothing may be skipped: `CI` is set, and to something else than nothing or `false`.
fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// A network namespace; it is gone when nobody holds it any more.
pub struct Namespace(File);

impl Namespace {
    /// A fresh namespace with its loopback interface up.
    pub fn new() -> Self {
        let file = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        });
        let namespace = Self(file.join().unwrap());
        // Addresses are usable at once, and nothing is sent that no test asked for.
        for (name, value) in [("accept_dad", "0"), ("dad_transmits", "0"), ("router_solicitations", "0")] {
            namespace.sysctl(&format!("net/ipv6/conf/default/{name}"), value);
        }
        namespace.run(|| set_up("lo"));
        namespace
    }

    /// Runs `work` in a thread inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A UDP socket in the namespace that waits at most [`SOON`].
    pub fn udp(&self, address: impl Into<SocketAddr>) -> UdpSocket {
        let address = address.into();
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket
    }

    /// Sets a file under `/proc/sys`.
    pub fn sysctl(&self, path: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/{path}"), value).unwrap());
    }
}

/// One end of a link: namespace, interface name, addresses with prefix lengths.
pub type End<'a> = (&'a Namespace, &'a str, &'a [(&'a str, u8)]);

/// Connects two namespaces by a link.
pub fn link(mtu: u32, left: End<'_>, right: End<'_>) {
    link_with_queues(1, mtu, left, right);
}

/// Connects two namespaces by a link each of whose ends has so many queues either way.
pub fn link_with_queues(queues: u32, mtu: u32, left: End<'_>, right: End<'_>) {
    const SENDING: u16 = 31;
    const RECEIVING: u16 = 32;
    let peer = right.0.0.as_raw_fd().cast_unsigned();
    left.0.run(|| {
        route_request("create a veth pair", 16, CREATE | EXCLUSIVE, &[0; 16], |writer| {
            writer.put_text(3, left.1);
            writer.put_u32(4, mtu);
            writer.put_u32(SENDING, queues);
            writer.put_u32(RECEIVING, queues);
            writer.nest(18, |info| {
                info.put_text(1, "veth");
                info.nest(2, |data| {
                    data.nest(1, |other| {
                        other.put_fixed(&[0; 16]);
                        other.put_text(3, right.1);
                        other.put_u32(4, mtu);
                        other.put_u32(28, peer);
                        other.put_u32(SENDING, queues);
                        other.put_u32(RECEIVING, queues);
                    });
                });
            });
        });
    });
    for (namespace, name, addresses) in [left, right] {
        namespace.run(|| {
            for (address, prefix) in addresses {
                add_address(name, address.parse().unwrap(), *prefix);
            }
            set_up(name);
        });
    }
    // The kernel adds the last of a link's own routes, that for IPv6 groups, some time after it has gone up.
    for (namespace, name, _) in [left, right] {
        let routes = || std::fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
        let for_groups = |line: &str| line.starts_with("ff00") && line.trim_end().ends_with(name);
        namespace.run(|| eventually("the link is ready", || routes().lines().any(for_groups)));
    }
}

/// Sender, router and receiver, which is at 192.168.21.4: IPv4 alone.
pub fn behind_a_router() -> [Namespace; 3] {
    let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
    link(1500, (&sender, "up", &[("192.168.20.1", 24)]), (&router, "down", &[("192.168.20.254", 24)]));
    link(1500, (&router, "up", &[("192.168.21.254", 24)]), (&receiver, "down", &[("192.168.21.4", 24)]));
    add_route(&sender, "0.0.0.0", 0, "192.168.20.254");
    router.sysctl("net/ipv4/ip_forward", "1");
    [sender, router, receiver]
}

/// Two namespaces on one link, with an address of either family each.
pub fn pair(mtu: u32) -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new(), Namespace::new());
    link(mtu, (&a, "left", &[(A4, 24), (A6, 64)]), (&b, "right", &[(B4, 24), (B6, 64)]));
    (a, b)
}

/// An address with a port.
pub fn address(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// Adds a route through a gateway, to `destination/prefix`.
pub fn add_route(namespace: &Namespace, destination: &str, prefix: u8, gateway: &str) {
    const MAIN: u8 = 254;
    const STATIC: u8 = 4;
    const UNICAST: u8 = 1;
    let (destination, gateway): (IpAddr, IpAddr) = (destination.parse().unwrap(), gateway.parse().unwrap());
    let fixed = [family(destination), prefix, 0, 0, MAIN, STATIC, 0, UNICAST, 0, 0, 0, 0];
    namespace.run(|| {
        route_request("add a route", 24, CREATE | REPLACE, &fixed, |writer| {
            if prefix > 0 {
                writer.put(1, &octets(destination));
            }
            writer.put(5, &octets(gateway));
        });
    });
}

/// Receives one datagram; `None` if none comes within `timeout`.
pub fn receive(socket: &UdpSocket, timeout: Duration) -> Option<Vec<u8>> {
    socket.set_read_timeout(Some(timeout)).unwrap();
    let mut buffer = vec![0; 70_000];
    match socket.recv(&mut buffer) {
        Ok(len) => Some(buffer[..len].to_vec()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Starts to connect from one address to another without waiting for the end of it.
pub fn connect(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from)).unwrap();
    // "In progress" is what it says if all is well.
    let _ = nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(to));
    TcpStream::from(socket)
}

/// Sets "do not fragment", as QUIC does.
pub fn forbid_fragments(socket: &UdpSocket) {
    if socket.local_addr().unwrap().is_ipv4() {
        setsockopt(socket, option::Ipv4PathMtuDiscovery, &nix::libc::IP_PMTUDISC_DO).unwrap();
    } else {
        setsockopt(socket, option::Ipv6PathMtuDiscovery, &nix::libc::IPV6_PMTUDISC_DO).unwrap();
    }
}

/// Socket options that the library does not name.
mod option {
    use nix::{libc, setsockopt_impl, sockopt_impl};

    sockopt_impl!(Ipv4PathMtuDiscovery, SetOnly, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::c_int);
    sockopt_impl!(Ipv6PathMtuDiscovery, SetOnly, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::c_int);
}

/// Has the rules know an SPI between two addresses, that of some flow.
pub fn admit(admitted: &Admitted, source: IpAddr, destination: IpAddr, spi: u32, lasts: Duration) {
    admitted.admit(flow_of(source, destination, spi), spi, lasts);
    admitted.settled();
}

/// The flow that an SPI belongs to in these tests.
pub fn flow_of(source: IpAddr, destination: IpAddr, spi: u32) -> Flow {
    let [.., high, low] = spi.to_be_bytes();
    Flow { source, destination, protocol: 17, source_port: u16::from_be_bytes([high, low]), destination_port: 9000 }
}

/// A packet with its own copy of the payload.
#[derive(Debug)]
pub struct Queued {
    pub id: PacketId,
    pub hook: u8,
    pub payload: Vec<u8>,
    pub len: usize,
}

/// The next packet of the queue.
pub fn next(queue: &Queue) -> Queued {
    let never = EventFd::new().unwrap();
    let mut buffer = ReceiveBuffer::default();
    let mut found = None;
    eventually("a packet is queued", || {
        queue.wait(never.as_fd(), Some(QUIET)).unwrap();
        let Ok(mut deliveries) = queue.receive(&mut buffer) else { return false };
        if let Some(Delivery::Packet(packet)) = deliveries.next() {
            found = Some(Queued { id: packet.id, hook: packet.hook, payload: packet.payload.to_vec(), len: packet.len });
        }
        found.is_some()
    });
    found.unwrap()
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "did not happen: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Seconds that have begun since then, and one more: for what a bucket lets pass at most meanwhile.
pub fn seconds_since(start: Instant) -> u32 {
    u32::try_from(start.elapsed().as_secs()).unwrap() + 2
}

/// Sets a link of the calling thread's namespace up.
pub fn set_up(name: &str) {
    set_link(name, true);
}

/// Sets a link of the calling thread's namespace up or down.
pub fn set_link(name: &str, up: bool) {
    const UP: u32 = 1;
    let mut fixed = [0; 16];
    fixed[4..8].copy_from_slice(&index(name).to_ne_bytes());
    fixed[8..12].copy_from_slice(&(if up { UP } else { 0 }).to_ne_bytes());
    fixed[12..16].copy_from_slice(&UP.to_ne_bytes());
    route_request("set a link up or down", 16, 0, &fixed, |_| {});
}

/// Adds an address in the calling thread's namespace; IPv6 ones without waiting for duplicate detection.
pub fn add_address(name: &str, address: IpAddr, prefix: u8) {
    const NO_DUPLICATE_DETECTION: u8 = 2;
    let mut fixed = [family(address), prefix, NO_DUPLICATE_DETECTION, 0, 0, 0, 0, 0];
    fixed[4..8].copy_from_slice(&index(name).to_ne_bytes());
    route_request("add an address", 20, CREATE | REPLACE, &fixed, |writer| {
        writer.put(1, &octets(address));
        writer.put(2, &octets(address));
    });
}

/// One request about links, addresses, routes or rules in the calling thread's namespace.
pub fn route_request(name: &str, kind: u16, flags: u16, fixed: &[u8], fill: impl FnOnce(&mut Writer)) {
    let mut batch = Batch::new(name);
    batch.request(name, kind, flags, fixed, fill);
    Socket::open(Protocol::Route).unwrap().transact(batch).unwrap();
}

/// Index of a link of the calling thread's namespace.
pub fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 2 } else { 10 }
}

/// The address as it stands in a packet.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
