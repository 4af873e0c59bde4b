//! A host without address, clock and certificate comes up through a closed router on its exemptions alone.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use pbs_lab::network::link;
use pbs_lab::network::namespace::Namespace;
use pbs_lab::pki::KeyKind;

use crate::site::{LEFT, LEFT_LEGACY, LEGACY_LINK, PATIENCE, RIGHT, Site, received, socket};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const NTP: u16 = 123;
/// Where certificates are had.
const ENROLMENT: u16 = 8443;
const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const RATE: u64 = 20;
const BURST: u64 = 20;

/// The router hands out addresses itself; time and certificates come from the host on the right.
fn exemptions() -> String {
    let entry = |name: &str, protocol: &str, port: u16, rest: &str| {
        format!("[[exempt]]\nname = \"{name}\"\nprotocol = \"{protocol}\"\nport = {port}\nrate = {RATE}\nburst = {BURST}\n{rest}")
    };
    let beyond = format!("at = \"beyond\"\npeer = \"{}/32\"\ninterface = \"{LEFT_LEGACY}\"\n", RIGHT[0].0);
    let own = format!("at = \"self\"\ninterface = \"{LEFT_LEGACY}\"\n");
    [entry("address", "udp", DHCP_SERVER, &own), entry("time", "udp", NTP, &beyond), entry("enrolment", "tcp", ENROLMENT, &beyond)].concat()
}

#[test]
fn a_host_without_address_clock_and_certificate_comes_up_through_a_closed_router() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let mut site = Site::build("", &exemptions(), false);
    let server = RIGHT[0].0;
    let address = lease(&site);
    assert_eq!(address, LEFT[0].0);
    link::add_address(&site.left, LEGACY_LINK, address, 24).unwrap();
    link::add_default_route(&site.left, LEFT[0].1).unwrap();
    let (clock, time_server) = (socket(&site.left, address, 0), socket(&site.right, server, NTP));
    for socket in [&clock, &time_server] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let now = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (_, asker) = time_server.recv_from(&mut [0; 48]).unwrap();
            let seconds = daemon::clock::unix_seconds();
            time_server.send_to(&seconds.to_be_bytes(), asker).unwrap();
        });
        clock.send_to(b"time?", (server, NTP)).unwrap();
        let mut answer = [0; 8];
        clock.recv_exact(&mut answer);
        u64::from_be_bytes(answer)
    });
    assert!(now > 1_500_000_000, "a clock by which certificates can be judged");
    enrol(&site, address);
    // From here on it has what it needs to ask for a permission like everybody else.
    let (sender, receiver) = site.permitted_from("left", address);
    receiver.set_read_timeout(Some(PATIENCE)).unwrap();
    sender.send(b"permitted").unwrap();
    let mut buffer = [0; 64];
    let length = receiver.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"permitted");
}

#[test]
fn whoever_abuses_an_exemption_has_its_bucket_and_nothing_else() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build("", &exemptions(), true);
    let (client, server) = (LEFT[0].0, RIGHT[0].0);
    let (flooding, time_server) = (socket(&site.left, client, 0), socket(&site.right, server, NTP));
    let start = Instant::now();
    for _ in 0..2000 {
        flooding.send_to(b"time?", (server, NTP)).unwrap();
    }
    let (arrived, _) = received(&time_server);
    let most = BURST + RATE * u64::try_from(start.elapsed().as_millis()).unwrap() / 1000 + 1;
    assert!((BURST..=most).contains(&arrived), "{arrived}, at most {most}");
    assert_eq!(site.rule("ask-exempt-time", "within the bucket"), arrived);
    assert_eq!(site.rule("ask-exempt-time", "above the bucket"), 2000 - arrived);
    // Another exemption has its own bucket, and the answers theirs.
    assert_eq!(lease(&site), client);
    let start = Instant::now();
    for _ in 0..2000 {
        time_server.send_to(b"unasked answer", flooding.local_addr().unwrap()).unwrap();
    }
    let (arrived, _) = received(&flooding);
    let most = BURST + RATE * (u64::try_from(start.elapsed().as_millis()).unwrap() / 1000 + 1) + 1;
    assert!((BURST..=most).contains(&arrived), "{arrived} answers, at most {most}");
    // Neither another port, nor another server, nor another interface, nor a connection that the server's port opens.
    let dropped = site.counted("dropped", "no_permission");
    let other = socket(&site.right, server, NTP + 1);
    flooding.send_to(b"another port", (server, NTP + 1)).unwrap();
    assert_eq!(received(&other).0, 0);
    other.send_to(b"from another port", flooding.local_addr().unwrap()).unwrap();
    assert_eq!(received(&flooding).0, 0);
    let elsewhere = socket(&site.chain.sender, pbs_lab::network::topology::SENDER, 0);
    elsewhere.send_to(b"by another interface", (server, NTP)).unwrap();
    assert_eq!(received(&time_server).0, 0);
    let service = site.left.run(|| TcpListener::bind((client, 22))).unwrap();
    service.set_nonblocking(true).unwrap();
    let opened = site.right.run(|| {
        let socket = socket2(server, ENROLMENT);
        socket.connect_timeout(&std::net::SocketAddr::new(client, 22).into(), Duration::from_millis(500))
    });
    assert!(opened.is_err() && service.accept().is_err());
    assert!(site.counted("dropped", "no_permission") >= dropped + 4);
}

/// What DHCP does: a host without an address asks everybody on its link, and is told one.
fn lease(site: &Site) -> IpAddr {
    let server = broadcasting(&site.chain.router, LEFT_LEGACY, DHCP_SERVER);
    let client = broadcasting(&site.left, LEGACY_LINK, DHCP_CLIENT);
    client.send_to(b"discover", (Ipv4Addr::BROADCAST, DHCP_SERVER)).unwrap();
    let mut buffer = [0; 64];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.port()), (&b"discover"[..], DHCP_CLIENT));
    let IpAddr::V4(offered) = LEFT[0].0 else { unreachable!() };
    server.send_to(&offered.octets(), (Ipv4Addr::BROADCAST, DHCP_CLIENT)).unwrap();
    let mut offer = [0; 4];
    client.recv_exact(&mut offer);
    offer.into()
}

fn broadcasting(host: &Namespace, interface: &str, port: u16) -> UdpSocket {
    let socket = socket(host, ANY.into(), port);
    socket.set_broadcast(true).unwrap();
    setsockopt(&socket, sockopt::BindToDevice, &interface.into()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Fetches certificate and key over TCP, and puts them where the daemon's configuration names them.
fn enrol(site: &Site, address: IpAddr) {
    let server = RIGHT[0].0;
    let listener = site.right.run(|| TcpListener::bind((server, ENROLMENT))).unwrap();
    let issued = site.directory.join("authority");
    std::fs::create_dir_all(&issued).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            site.authority.issue(&issued, "left", &[address], KeyKind::Ed25519).unwrap();
            for file in ["left.crt", "left.key"] {
                let content = std::fs::read(issued.join(file)).unwrap();
                stream.write_all(&u32::try_from(content.len()).unwrap().to_be_bytes()).unwrap();
                stream.write_all(&content).unwrap();
            }
        });
        let mut stream = site.left.run(|| TcpStream::connect_timeout(&(server, ENROLMENT).into(), PATIENCE)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        for file in ["left.crt", "left.key"] {
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut content = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut content).unwrap();
            std::fs::write(site.directory.join(file), content).unwrap();
        }
    });
}

/// A TCP socket that opens from this port.
fn socket2(address: IpAddr, port: u16) -> socket2::Socket {
    let socket = socket2::Socket::new(socket2::Domain::for_address((address, port).into()), socket2::Type::STREAM, None).unwrap();
    socket.bind(&std::net::SocketAddr::new(address, port).into()).unwrap();
    socket
}

trait RecvExact {
    fn recv_exact(&self, buffer: &mut [u8]);
}

impl RecvExact for UdpSocket {
    /// One datagram of exactly this length.
    fn recv_exact(&self, buffer: &mut [u8]) {
        assert_eq!(self.recv(buffer).unwrap(), buffer.len());
    }
}
