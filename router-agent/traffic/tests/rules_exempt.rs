//! Exemptions: a bucket for each interface, and those that the configuration names (X-58, P-193).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;

use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Instant;

use namespace::{A4, A6, B4, B6, Namespace, QUIET, SOON, address, connect, eventually, link, pair, privileged, receive, seconds_since};
use raw::Raw;
use traffic::rules::{self, At, Bucket, Exempt, Exemptions, HostRules, Role, RouterRules};

const PORT: u16 = 30_270;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A flood on one link leaves the bucket of another as it is, in and out, on a host and on a router.
#[test]
fn what_floods_one_interface_takes_nothing_from_another() {
    if !privileged() {
        return;
    }
    const C4: &str = "192.168.30.1";
    const D4: &str = "192.168.30.2";
    const C6: &str = "fd30::1";
    const D6: &str = "fd30::2";
    let bucket = Bucket::new(1, 3);
    let exemptions = Exemptions { signalling: bucket, ..Exemptions::default() };
    let host = HostRules { exemptions, ..HostRules::new(3, 4, PORT) };
    let router = RouterRules { exemptions, ..RouterRules::new(1, 2, PORT) };
    let install: [&(dyn Fn() + Sync); 2] = [&|| host.install().unwrap(), &|| router.install().unwrap()];
    for install in install {
        let (flooder, node) = pair(1500);
        let other = Namespace::new();
        link(1500, (&other, "left", &[(C4, 24), (C6, 64)]), (&node, "second", &[(D4, 24), (D6, 64)]));
        node.run(install);
        for (flooder_at, at_flooder, other_at, at_other) in [(A4, B4, C4, D4), (A6, B6, C6, D6)] {
            let own = |namespace: &Namespace, ip: &str| namespace.udp(address(ip, 270));
            let (flood, here, there, honest) =
                (own(&flooder, flooder_at), own(&node, at_flooder), own(&node, at_other), own(&other, other_at));
            let burst = |from: &UdpSocket, to: &UdpSocket, what: &str| {
                let start = Instant::now();
                for _ in 0..50 {
                    let _ = from.send_to(b"flood", to.local_addr().unwrap());
                }
                let most = bucket.at_most(seconds_since(start));
                let mut arrived = 0;
                while receive(to, QUIET).is_some() {
                    arrived += 1;
                }
                assert!((3..=most).contains(&arrived), "{what}: {arrived}, {most} at most");
            };
            burst(&flood, &here, "the bucket of the flooded interface");
            honest.send_to(b"Query", address(at_other, 270)).unwrap();
            assert_eq!(receive(&there, SOON).as_deref(), Some(&b"Query"[..]), "the other one's");
            // On a router, what it sends itself is open.
            if node.run(|| rules::installed(Role::Host).unwrap().ipv4) {
                burst(&here, &flood, "outwards");
                there.send_to(b"Response", address(other_at, 270)).unwrap();
                assert_eq!(receive(&honest, SOON).as_deref(), Some(&b"Response"[..]));
            }
        }
    }
}

#[test]
fn a_service_of_the_host_is_reached_and_opens_nothing_else() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| host_with(vec![exempt("ssh", TCP, 22, At::Node)]).install().unwrap());
    for (from, to) in [(A4, B4), (A6, B6)] {
        assert!(connects(&a, &b, address(to, 22)), "{to}");
        assert!(!connects(&a, &b, address(to, 23)), "another service");
        assert!(!connects(&b, &a, address(from, 22)), "the same service elsewhere");
        // From the service's port nobody connects to anything.
        let listener = a.run(|| TcpListener::bind(address(from, 5000)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let _stream = b.run(|| connect(address(to, 22), address(from, 5000)));
        std::thread::sleep(QUIET);
        assert!(listener.accept().is_err());
        assert!(!datagram_passes(&a, address(from, 5001), &b, address(to, 22)), "another protocol");
    }
    assert!(packets(&b, "in-exempt-ssh") > 0 && packets(&b, "out-exempt-ssh") > 0);
}

#[test]
fn a_server_at_a_peer_is_asked_and_answers_and_no_other_is() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    for (server, host) in [(A4, B4), (A6, B6)] {
        let at_server = |name, protocol| Exempt {
            peer: Some(server.parse::<std::net::IpAddr>().unwrap().into()),
            ..exempt(name, protocol, 53, At::Peer)
        };
        b.run(|| host_with(vec![at_server("dns", UDP), at_server("dns-tcp", TCP)]).install().unwrap());
        let (dns, asker) = (a.udp(address(server, 53)), b.udp(address(host, 4000)));
        asker.send_to(b"name?", address(server, 53)).unwrap();
        assert_eq!(receive(&dns, SOON).unwrap(), b"name?");
        dns.send_to(b"address", address(host, 4000)).unwrap();
        assert_eq!(receive(&asker, SOON).unwrap(), b"address");
        drop(dns);
        assert!(connects(&b, &a, address(server, 53)));
        assert!(!connects(&a, &b, address(host, 53)), "no service of this host");
        assert!(!datagram_passes(&a, address(server, 54), &b, address(host, 4001)), "another port of the server");
        assert!(!datagram_passes(&b, address(host, 4001), &a, address(server, 54)));
        // The server's port as a source opens no connection here.
        let listener = b.run(|| TcpListener::bind(address(host, 22)).unwrap());
        listener.set_nonblocking(true).unwrap();
        let _stream = a.run(|| connect(address(server, 53), address(host, 22)));
        std::thread::sleep(QUIET);
        assert!(listener.accept().is_err());
        // Another peer: only its address differs.
        let elsewhere = |name| Exempt { peer: Some("203.0.113.0/24".parse().unwrap()), ..exempt(name, UDP, 53, At::Peer) };
        b.run(|| host_with(vec![elsewhere("dns")]).install().unwrap());
        assert!(!datagram_passes(&b, address(host, 4002), &a, address(server, 53)));
        assert!(!datagram_passes(&a, address(server, 53), &b, address(host, 4002)));
    }
}

#[test]
fn an_exemption_holds_on_its_interface_and_within_its_bucket_only() {
    // P-193.
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    let on = |name: &str| Exempt { interface: Some(name.to_owned()), ..exempt("ntp", UDP, 123, At::Node) };
    for (from, to) in [(A4, B4), (A6, B6)] {
        b.run(|| host_with(vec![on("rights")]).install().unwrap());
        assert!(!datagram_passes(&a, address(from, 4000), &b, address(to, 123)), "a longer name that begins alike");
        b.run(|| host_with(vec![on("right")]).install().unwrap());
        assert!(datagram_passes(&a, address(from, 4000), &b, address(to, 123)));
        b.run(|| host_with(vec![Exempt { bucket: Bucket::new(1, 2), ..on("right") }]).install().unwrap());
        let (sender, receiver) = (a.udp(address(from, 4000)), b.udp(address(to, 123)));
        for _ in 0..20 {
            sender.send_to(b"time?", address(to, 123)).unwrap();
        }
        let mut arrived = 0;
        while receive(&receiver, QUIET).is_some() {
            arrived += 1;
        }
        assert!((2..=3).contains(&arrived), "{arrived}");
    }
}

/// Echo to this host and back, but no other kind of ICMP: a redirect would change the host's routes.
#[test]
fn exempt_icmp_is_echo() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    let ping = |name, protocol| Exempt { port: None, ..exempt(name, protocol, 0, At::Node) };
    b.run(|| host_with(vec![ping("ping", 1), ping("ping6", 58)]).install().unwrap());
    for (from, to) in [(A4, B4), (A6, B6)] {
        let (raw, back) = (a.run(|| Raw::open(to)), b.run(|| Raw::open(from)));
        let (inbound, outbound, queued) = (packets(&b, "in-exempt-ping"), packets(&b, "out-exempt-ping"), queued(&b));
        raw.send(&raw::echo((from, to), 10));
        eventually("the answer", || packets(&b, "out-exempt-ping") == outbound + 1);
        assert_eq!(packets(&b, "in-exempt-ping"), inbound + 1);
        // Neither asks this host in its turn, nor takes an answer that nobody waits for.
        back.send(&raw::echo((to, from), 10));
        let mut redirect = raw::echo((from, to), 10);
        let at = if from == A4 { 20 } else { 40 };
        redirect[at] = if from == A4 { 5 } else { 137 };
        raw.send(&redirect);
        eventually("both are queued", || self::queued(&b) == queued + 2);
        assert_eq!(packets(&b, "in-exempt-ping"), inbound + 1);
    }
}

fn host_with(exempt: Vec<Exempt>) -> HostRules {
    HostRules { exempt, ..HostRules::new(3, 4, PORT) }
}

fn exempt(name: &str, protocol: u8, port: u16, at: At) -> Exempt {
    Exempt { name: name.to_owned(), protocol, port: Some(port), at, peer: None, interface: None, bucket: Bucket::new(100, 100) }
}

/// What has passed by the chains whose names begin so.
fn packets(host: &Namespace, chain: &str) -> u64 {
    let counters = host.run(|| rules::counters(Role::Host).unwrap());
    let passed = counters.iter().filter(|counter| counter.chain.starts_with(chain) && counter.rule == "within the bucket");
    passed.map(|counter| counter.packets).sum()
}

/// What was not exempt in either direction.
fn queued(host: &Namespace) -> u64 {
    let counters = host.run(|| rules::counters(Role::Host).unwrap());
    counters.iter().filter(|counter| ["inbound", "outbound"].contains(&&*counter.rule)).map(|counter| counter.packets).sum()
}

fn connects(client: &Namespace, server: &Namespace, to: SocketAddr) -> bool {
    let _listener = server.run(|| TcpListener::bind(to).unwrap());
    client.run(|| TcpStream::connect_timeout(&to, QUIET * 2)).is_ok()
}

fn datagram_passes(from: &Namespace, source: SocketAddr, to: &Namespace, destination: SocketAddr) -> bool {
    let receiver = to.udp(destination);
    let _ = from.udp(source).send_to(b"datagram", destination);
    receive(&receiver, QUIET).is_some()
}
