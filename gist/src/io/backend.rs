//! What the core cannot compute by itself: HMAC, which own address a packet would leave with, and how long it may be.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Bind, path_mtu};
use crate::node::{Backend, SMALLEST_PATH_MTU};

/// The backend of a node on a real machine.
#[derive(Debug)]
pub(super) struct SystemBackend {
    bind: Bind,
    /// What the kernel has said of late.
    routes: Mutex<Routes>,
}

/// How packets to some destinations leave. All is forgotten [`ROUTES_KNOWN`] after the first was asked for.
#[derive(Debug)]
struct Routes {
    since: Instant,
    known: BTreeMap<IpAddr, Way>,
}

/// How packets to one destination leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    /// With this address.
    own: IpAddr,
    /// How long they may be on the path, as far as the kernel knows, which includes what it has been told of it by others.
    path_mtu: Option<u16>,
    /// How long they may be on the first link.
    link_mtu: Option<u16>,
}

impl Routes {
    fn new() -> Self {
        Self { since: Instant::now(), known: BTreeMap::new() }
    }
}

impl SystemBackend {
    pub(super) fn new(bind: Bind) -> Self {
        Self { bind, routes: Mutex::new(Routes::new()) }
    }

    /// Routes or addresses are others now.
    pub(super) fn forget_routes(&self) {
        *self.routes.lock().unwrap_or_else(PoisonError::into_inner) = Routes::new();
    }

    /// Connecting a datagram socket sends nothing; the kernel looks up the route and chooses the source.
    fn look_up(&self, destination: IpAddr) -> Option<Way> {
        let source = match destination {
            IpAddr::V4(_) => IpAddr::V4(self.bind.ipv4?),
            IpAddr::V6(_) => IpAddr::V6(self.bind.ipv6?),
        };
        let socket = connected(source, destination)?;
        let own = socket.local_addr().ok()?.as_socket()?.ip();
        let link_mtu = || path_mtu::of(&connected(own, ALL_NEIGHBOURS)?, destination);
        (!own.is_unspecified()).then(|| Way { own, path_mtu: path_mtu::of(&socket, destination), link_mtu: link_mtu() })
    }

    fn route(&self, destination: IpAddr) -> Option<Way> {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if routes.since.elapsed() > ROUTES_KNOWN || routes.known.len() >= MOST_ROUTES {
            *routes = Routes::new();
        }
        if let Some(known) = routes.known.get(&destination) {
            return Some(*known);
        }
        // That there is no route is asked anew each time: it may be there at any moment.
        let route = self.look_up(destination)?;
        routes.known.insert(destination, route);
        Some(route)
    }
}

impl Backend for SystemBackend {
    fn mac(&self, key: &[u8; 32], message: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message);
        let mut out = [0; 32];
        out.iter_mut().zip(tag.as_ref()).for_each(|(out, byte)| *out = *byte);
        out
    }

    fn egress_address(&self, destination: IpAddr) -> Option<IpAddr> {
        self.route(destination).map(|way| way.own)
    }

    /// Known is only what is less than every path takes: by the link, by the route, or because somebody on the path has told the kernel so
    /// and it believes that. Nobody is believed about a path that takes more (G-054, G-055).
    fn path_mtu(&self, destination: IpAddr) -> Option<u16> {
        self.route(destination)?.path_mtu.filter(|mtu| *mtu < SMALLEST_PATH_MTU)
    }

    fn link_mtu(&self, destination: IpAddr) -> Option<u16> {
        self.route(destination)?.link_mtu
    }
}

/// A datagram socket, connected to the destination.
fn connected(source: IpAddr, destination: IpAddr) -> Option<Socket> {
    let socket = Socket::new(Domain::for_address(SocketAddr::new(source, 0)), Type::DGRAM, Some(Protocol::UDP)).ok()?;
    if !source.is_unspecified() {
        socket.bind(&SocketAddr::new(source, 0).into()).ok()?;
    }
    socket.connect(&SocketAddr::new(destination, ANY_PORT).into()).ok()?;
    Some(socket)
}

/// Every host of a link. No route leads there but the interface that has the source's address, and nobody tells the kernel anything about the
/// path, so that what the kernel would send there is as long as the link takes.
const ALL_NEIGHBOURS: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1));

/// How long an answer of the kernel's counts if nobody says that routes have changed: less than a Query waits for its Response, so
/// that the next one sees what is.
const ROUTES_KNOWN: Duration = Duration::from_millis(250);

/// Destinations whose answers are known at a time.
const MOST_ROUTES: usize = 1024;

/// The look-up needs some port; GIST's own makes the route of a rule by port the right one.
const ANY_PORT: u16 = crate::wire::datagram::GIST_PORT;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rtnetlink::RouteMessageBuilder;
    use rtnetlink::packet_route::route::{RouteAttribute, RouteMetric};

    use super::*;

    fn backend() -> SystemBackend {
        SystemBackend::new(Bind::default())
    }

    /// RFC 4231 §4.3 has a shorter key; padded with zeros to a block it is the same key.
    #[test]
    fn the_mac_is_hmac_sha_256() {
        let mut key = [0; 32];
        key[..4].copy_from_slice(b"Jefe");
        let mac = backend().mac(&key, b"what do ya want for nothing?");
        assert_eq!(hex::encode(mac), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    /// Where a route says that less goes through than the link takes, as an error of ICMP would.
    const TOLD: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

    /// G-054, G-055: what the kernel knows of a narrow way counts, and of a wide one nothing is known.
    #[test]
    fn a_narrow_way_is_known_and_a_wide_one_is_not() {
        let own: IpAddr = "127.0.0.1".parse().unwrap();
        assert_eq!((backend().link_mtu(own), backend().path_mtu(own)), (Some(u16::MAX), None), "of 65,536 octets, as much as can be said");
        let narrow = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).ok()?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (connection, netlink, _) = rtnetlink::new_connection().unwrap();
                tokio::spawn(connection);
                netlink.link().set(rtnetlink::LinkUnspec::new_with_name("lo").mtu(400).up().build()).execute().await.unwrap();
                let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                    .destination_prefix(TOLD, 32)
                    .output_interface(1)
                    .pref_source(Ipv4Addr::LOCALHOST)
                    .build();
                route.attributes.push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(300)]));
                netlink.route().add(route).execute().await.unwrap();
            });
            let told = IpAddr::V4(TOLD);
            Some([own, told].map(|to| (backend().link_mtu(to), backend().path_mtu(to))))
        });
        if let Some([narrow, told]) = narrow.join().unwrap() {
            assert_eq!(narrow, (Some(400), Some(400)));
            assert_eq!(told, (Some(400), Some(300)), "what is said of a path is nothing that a link is asked about");
        } else {
            assert!(!in_ci(), "network tests must not be skipped in CI: a network namespace needs root");
            let _ = writeln!(std::io::stderr(), "skipped: a network namespace needs root");
        }
    }

    #[test]
    fn a_packet_to_the_own_host_leaves_with_the_loopback_address() {
        assert_eq!(backend().egress_address("127.0.0.1".parse().unwrap()), Some("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_bound_address_is_the_one_a_packet_leaves_with() {
        let bound = SystemBackend::new(Bind { ipv4: Some(Ipv4Addr::new(127, 0, 0, 2)), ipv6: None, ..Bind::default() });
        assert_eq!(bound.egress_address("127.0.0.3".parse().unwrap()), Some("127.0.0.2".parse().unwrap()));
    }

    /// Whether nothing may be skipped: `CI` is set, and to something else than nothing or `false`.
    fn in_ci() -> bool {
        std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
    }
}
