//! Garbage on the ports of running daemons: they live on, their tables stay as they are, and they count it.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::topology::{LEFT_LINK, RECEIVER, ROUTER_LEFT, ROUTER_RIGHT, SENDER, SENDER_LINK};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

use crate::support::daemon::{Daemon, wait_until};
use crate::support::site::{ASSOCIATION_PORT, Application, Site};

/// GIST's magic number.
const MAGIC: [u8; 4] = [0x4e, 0x04, 0xbd, 0xa5];
/// Between two datagrams: well below the 500 a second that a host's rules let in.
const PAUSE: Duration = Duration::from_micros(2500);

/// A site with a living permission, and the Query by which the sender's daemon began it.
pub(crate) struct Living {
    pub(crate) site: Site,
    pub(crate) application: Application,
    pub(crate) sender: Daemon,
    pub(crate) router: Daemon,
    pub(crate) receiver: Daemon,
    pub(crate) query: Vec<u8>,
}

impl Living {
    pub(crate) fn build() -> Self {
        Self::on(Site::build())
    }

    /// The same where somebody has put something to the site.
    pub(crate) fn on(site: Site) -> Self {
        let capture = Capture::start(&site.chain.router, LEFT_LINK, Instant::now()).unwrap();
        let application = site.application(RECEIVER);
        let (receiver, router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
        wait_until("the permission comes", || {
            application.send();
            application.arrives(Duration::from_millis(50))
        });
        let query = capture.look(|frames| {
            let gist = |frame: &&pbs_lab::network::capture::Frame| {
                frame.ip().and_then(frame::read).is_some_and(|seen| seen.source == SENDER && seen.ports.1 == 270)
            };
            frames.iter().find(gist).and_then(|frame| frame.ip().and_then(frame::read).map(|seen| seen.payload.to_vec()))
        });
        Self { site, application, sender, router, receiver, query: query.unwrap() }
    }

    fn nodes(&self) -> [&Daemon; 3] {
        [&self.sender, &self.router, &self.receiver]
    }

    /// Whoever is in every table: sessions with their permissions, routing states, associations.
    pub(crate) fn tables(&self) -> Vec<BTreeSet<String>> {
        self.nodes().map(tables).to_vec()
    }

    /// Datagrams that wait for the receiving program.
    pub(crate) fn arrived(&self) -> usize {
        std::iter::from_fn(|| self.application.arrives(Duration::from_millis(20)).then_some(())).count()
    }

    /// All daemons answer, their tables are as they were, and packets pass.
    #[track_caller]
    pub(crate) fn must_be_as_before(&self, before: &[BTreeSet<String>]) {
        assert_eq!(self.tables(), before);
        while self.application.arrives(Duration::from_millis(20)) {}
        self.application.send();
        assert!(self.application.arrives(Duration::from_secs(2)), "the permission still is good");
    }
}

fn tables(daemon: &Daemon) -> BTreeSet<String> {
    let gist = daemon.ask("gist");
    let flows = daemon.ask("flows");
    let list = |value: &Value, fields: &[&str]| -> Vec<String> {
        let entry = |entry: &Value| fields.iter().map(|field| format!("{field} {} ", entry[*field])).collect();
        value.as_array().unwrap().iter().map(entry).collect()
    };
    let mut all = list(&flows, &["flow", "session", "spi", "allowed"]);
    all.extend(list(&gist["routing"], &["side", "session", "peer_address", "association"]));
    all.extend(list(&gist["associations"], &["association", "remote", "subject", "opened_here"]));
    all.into_iter().collect()
}

/// Random bytes, the same behind the magic number, behind a header of our own application, and every prefix of real Queries.
fn garbage(query: &[u8]) -> Vec<Vec<u8>> {
    let mut garbage = Vec::new();
    let header = [&MAGIC[..], &[1, 16, 0, 12, 0x7f, 0xc0, 0x80, 0x40]].concat();
    for length in [0, 1, 3, 4, 11, 12, 13, 64, 511, 1400] {
        for front in [&[][..], &MAGIC, &header] {
            let mut random = vec![0; length];
            SystemRandom::new().fill(&mut random).unwrap();
            garbage.push([front, &random].concat());
        }
    }
    let recorded = recorded_query();
    for whole in [query, &recorded] {
        garbage.extend((0..whole.len()).map(|length| whole[..length].to_vec()));
    }
    // Whole, but for an application that nobody here serves; or from a host that is not where it says.
    let mut foreign = query.to_vec();
    foreign[8..10].copy_from_slice(&[0x7f, 0xf0]);
    garbage.extend([foreign, recorded]);
    garbage
}

/// The first Query of another implementation's capture.
fn recorded_query() -> Vec<u8> {
    let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors/gist/cmode-tls-ab.pcap")).unwrap();
    let mut reader = pcap_file::pcap::PcapReader::new(&file[..]).unwrap();
    let packet = reader.next_packet().unwrap().unwrap().data.into_owned();
    let start = packet.windows(4).position(|window| window == MAGIC).unwrap();
    packet[start..].to_vec()
}

#[test]
fn garbage_on_port_270_leaves_host_and_router_as_they_were() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let living = Living::build();
    let before = living.tables();
    let garbage = garbage(&living.query);
    // Why a whole Query is refused depends on where it came to: at its flow's destination, or elsewhere.
    let whole = ["wrong_encapsulation", "unknown_nslp_id", "address_mismatch"];
    let refused = |daemon: &Daemon| whole.iter().map(|counter| daemon.gist(counter)).sum::<u64>();
    let counted = |daemon: &Daemon| (daemon.gist("datagrams_received"), daemon.gist("no_magic"), daemon.gist("malformed"), refused(daemon));
    let (router, receiver) = (counted(&living.router), counted(&living.receiver));

    let chain = &living.site.chain;
    let attacker = Injector::new(&chain.sender, SENDER_LINK, &chain.router, LEFT_LINK).unwrap();
    // A neighbour of the receiver that no rule holds back is the router itself.
    let neighbour = chain.router.run(|| UdpSocket::bind((ROUTER_RIGHT, 0))).unwrap();
    for payload in &garbage {
        attacker.send(&[packet::udp((SENDER, 4000), (ROUTER_LEFT, 270), payload).unwrap()]).unwrap();
        neighbour.send_to(payload, (RECEIVER, 270)).unwrap();
        std::thread::sleep(PAUSE);
    }

    let sent = u64::try_from(garbage.len()).unwrap();
    for (daemon, before) in [(&living.router, router), (&living.receiver, receiver)] {
        wait_until("every datagram is counted", || daemon.gist("datagrams_received") >= before.0 + sent);
        let after = counted(daemon);
        assert!(after.1 > before.1 && after.2 > before.2 && after.3 >= before.3 + 2, "{before:?} to {after:?}");
    }
    living.must_be_as_before(&before);
}

/// A Query alone makes no state anywhere, whoever sends it again: only a Confirm does (RFC 5971 §4.4.1).
#[test]
fn garbage_on_its_way_through_the_router_is_data_or_dropped() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let living = Living::build();
    let before = living.tables();
    let chain = &living.site.chain;
    let attacker = Injector::new(&chain.sender, SENDER_LINK, &chain.router, LEFT_LINK).unwrap();
    let (taken, malformed) = (living.router.gist("intercepted"), living.router.gist("malformed"));
    let arrived = living.receiver.gist("datagrams_received");
    let dropped = no_permission(&living.router);
    let mut garbage = garbage(&living.query);
    // The session is another one: a Query for a new flow, again and again.
    let session = living.query.windows(16).position(|window| hex::encode(window) == session_of(&living.sender)).unwrap();
    let mut another = living.query.clone();
    another[session] ^= 0xff;
    garbage.extend(vec![another; 20]);
    for payload in &garbage {
        attacker.send(&[packet::udp((SENDER, 4000), (RECEIVER, 270), payload).unwrap()]).unwrap();
        std::thread::sleep(PAUSE);
    }
    let sent = u64::try_from(garbage.len()).unwrap();
    wait_until("every datagram is counted", || living.router.gist("intercepted") - taken + no_permission(&living.router) - dropped >= sent);
    assert!(living.router.gist("malformed") > malformed, "what says that it is ours, and is not");
    assert_eq!(living.receiver.gist("datagrams_received"), arrived, "none got past the router");
    living.must_be_as_before(&before);
}

fn session_of(sender: &Daemon) -> String {
    sender.permissions()[0]["session"].as_str().unwrap().to_owned()
}

fn no_permission(router: &Daemon) -> u64 {
    let counters = router.ask("counters");
    let reasons = counters["data"]["dropped"].as_array().unwrap();
    reasons.iter().find(|entry| entry["reason"] == "no_permission").unwrap()["packets"].as_u64().unwrap()
}

/// Connects as only a privileged program can: the rules of the node it runs on let no other use the port of associations.
pub(crate) fn connect_privileged(remote: SocketAddr) -> io::Result<TcpStream> {
    let family = if remote.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::Mark, &traffic::rules::ASSOCIATION_MARK)?;
    // The limit for sending is that for connecting too.
    let limit = TimeVal::seconds(2);
    setsockopt(&socket, sockopt::SendTimeout, &limit)?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(remote))?;
    Ok(TcpStream::from(socket))
}

#[test]
fn garbage_on_the_association_port_leaves_host_and_router_as_they_were() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let living = Living::build();
    let before = living.tables();
    let chain = &living.site.chain;
    let cases: [(&Daemon, &_, IpAddr); 2] = [(&living.router, &chain.sender, ROUTER_LEFT), (&living.receiver, &chain.router, RECEIVER)];
    for (daemon, from, address) in cases {
        let failed = daemon.gist("handshakes_failed");
        let remote = SocketAddr::new(address, ASSOCIATION_PORT);
        let connect = || from.run(|| connect_privileged(remote)).unwrap();
        let mut random = vec![0; 4096];
        SystemRandom::new().fill(&mut random).unwrap();
        // A TLS record that promises more than comes, one of a kind that does not exist, and a GIST message in the clear.
        let client_hello = [&[0x16, 3, 1, 0x02, 0, 1, 0, 1, 0xfc, 3, 3][..], &random[..32]].concat();
        let inputs: [&[u8]; 6] = [b"", b"GET / HTTP/1.0\r\n\r\n", &random, &client_hello, &[0x99; 100], &living.query[4..]];
        for input in inputs {
            let mut stream = connect();
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            // The daemon may have closed it before everything is written.
            let _ = stream.write_all(input);
            let _ = stream.shutdown(Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.len() < 64, "a TLS alert at most: {answer:x?}");
        }
        wait_until("every handshake has failed", || daemon.gist("handshakes_failed") >= failed + 6);
    }
    living.must_be_as_before(&before);
}

/// Nobody may hold a daemon's places for long by saying nothing.
#[test]
fn connections_that_say_nothing_do_not_keep_a_neighbour_out() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let (receiver, router) = (site.start_receiver(), site.start_router());
    let remote = SocketAddr::new(RECEIVER, ASSOCIATION_PORT);
    let connect = || site.chain.router.run(|| connect_privileged(remote)).unwrap();
    let silent: Vec<TcpStream> = (0..20).map(|_| connect()).collect();
    wait_until("more than a source may have are refused", || receiver.gist("handshakes_refused") > 0);
    let sender = site.start_sender();
    let application = site.application(RECEIVER);
    wait_until("the silent ones are let go, and the permission comes", || {
        application.send();
        application.arrives(Duration::from_millis(200))
    });
    drop((silent, sender, router));
}
