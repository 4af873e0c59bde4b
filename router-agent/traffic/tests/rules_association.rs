//! Associations pass a host's rules by their sockets: whoever lacks the mark has no use for their port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use namespace::{A4, A6, B4, B6, Namespace, QUIET, SOON, address, eventually, pair, privileged};
use nix::libc::linger;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, listen, setsockopt, socket, sockopt,
};
use traffic::rules::{self, ASSOCIATION_MARK, HostRules, LISTENER_MARK, Role, RouterRules, SIGNALLING_PASSED};

const PORT: u16 = 30_270;

/// What a program sets on its sockets.
#[derive(Debug, Clone, Copy)]
struct Marks {
    mark: Option<u32>,
    transparent: bool,
}

const ASSOCIATION: Marks = Marks { mark: Some(ASSOCIATION_MARK), transparent: true };
const LISTENER: Marks = Marks { mark: Some(LISTENER_MARK), transparent: true };
const OTHER: Marks = Marks { mark: None, transparent: false };

#[test]
fn the_marks_of_associations_have_no_other_meaning() {
    let marks = [ASSOCIATION_MARK, LISTENER_MARK, SIGNALLING_PASSED];
    assert!((1..marks.len()).all(|place| !marks[place..].contains(&marks[place - 1])));
    assert!(marks.iter().all(|mark| mark & traffic::routes::MARK == 0), "packets of that mark are routed by another table");
}

/// From SYN to the last ACK: whatever the kernel sends or receives for an association is exempt.
#[test]
fn no_segment_of_an_association_needs_a_permission() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    for host in [&a, &b] {
        host.run(|| HostRules::new(3, 4, PORT).install().unwrap());
    }
    for (from, to) in [(A4, B4), (A6, B6)] {
        exchange(&a, &b, address(to, PORT));
        exchange(&b, &a, address(from, PORT));
    }
    for host in [&a, &b] {
        // The ends that closed first are in TIME-WAIT; all others are gone.
        eventually("all is acknowledged", || host.run(states).iter().all(|state| *state == TIME_WAIT));
        assert_eq!((packets(host, "outbound"), packets(host, "inbound")), (0, 0));
        let exempt = |chain: &str| host.run(|| counter(chain, "within the bucket"));
        assert!(exempt("in-association") > 10 && exempt("out-association") > 10);
        // Two connections were opened to each, and each of those was acknowledged: by a stranger the first time, then by a peer.
        let openings = |way| ["opening", "opening-peer"].map(|chain| exempt(&format!("{way}-{chain}"))).iter().sum::<u64>();
        assert!(openings("in") == 2 && exempt("in-handshake") >= 2 && openings("out") == 2);
    }
}

/// Why the mark alone does not do: the kernel shows none of a connection that is only being opened.
#[test]
fn a_connection_to_a_listener_with_only_the_mark_does_not_come_about() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| HostRules::new(3, 4, PORT).install().unwrap());
    for to in [B4, B6] {
        let listener = listener(&b, address(to, PORT), Marks { transparent: false, ..LISTENER }).unwrap();
        let _client = a.run(|| stream(None, address(to, PORT), OTHER).unwrap());
        std::thread::sleep(QUIET);
        listener.set_nonblocking(true).unwrap();
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}

/// A FIN whose acknowledgement was lost comes again when the other side is in TIME-WAIT, where a socket shows no mark.
#[test]
fn time_wait_answers_as_long_as_the_peer_needs_it() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    for (to, a_opens) in [(B4, true), (B6, true), (A4, false), (A6, false)] {
        let (client, server) = if a_opens { (&a, &b) } else { (&b, &a) };
        a.run(|| HostRules::new(3, 4, PORT).install().unwrap());
        let listener = listener(server, address(to, PORT), LISTENER).unwrap();
        let client = client.run(|| stream(None, address(to, PORT), ASSOCIATION).unwrap());
        let accepted = authenticated(listener.accept().unwrap().0);
        let (first, last) = if a_opens { (client, accepted) } else { (accepted, client) };
        drop(listener);
        // The end in `a` closes first, and the last acknowledgement that it sends is lost.
        first.shutdown(std::net::Shutdown::Write).unwrap();
        eventually("the FIN arrives", || (&last).read(&mut [0]).is_ok_and(|len| len == 0));
        drop(first);
        eventually("half closed", || a.run(states).iter().any(|state| state == FIN_WAIT_2));
        b.run(|| drop_what_comes_in().install().unwrap());
        drop(last);
        eventually("TIME-WAIT", || a.run(states).iter().any(|state| state == TIME_WAIT));
        b.run(|| rules::remove(Role::Router).unwrap());
        // The peer's kernel sends its FIN again, and only an answer ends that.
        eventually("the peer hears that all is done", || b.run(states).is_empty());
        assert_eq!((packets(&a, "outbound"), packets(&a, "inbound")), (0, 0), "{to}");
        // Leave nothing for the next round.
        a.run(|| rules::remove(Role::Host).unwrap());
    }
}

#[test]
fn resets_pass_both_ways() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    a.run(|| HostRules::new(3, 4, PORT).install().unwrap());
    for to in [B4, B6] {
        let refused = a.run(|| stream(None, address(to, PORT), ASSOCIATION)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
        let listener = listener(&b, address(to, PORT), OTHER).unwrap();
        let client = a.run(|| stream(None, address(to, PORT), ASSOCIATION).unwrap());
        let (mut accepted, _) = listener.accept().unwrap();
        setsockopt(&client, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 }).unwrap();
        drop(client);
        accepted.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(accepted.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset, "{to}");
    }
    assert_eq!((packets(&a, "outbound"), packets(&a, "inbound")), (0, 0));
}

/// The port alone lets nobody out: neither to a neighbour's port nor from the own one.
#[test]
fn another_program_cannot_use_the_port_of_associations_to_send() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    a.run(|| HostRules::new(3, 4, PORT).install().unwrap());
    for (from, to) in [(A4, B4), (A6, B6)] {
        let service = listener(&b, address(to, PORT), OTHER).unwrap();
        let (refused, source) = a.run(|| {
            let refused = stream(None, address(to, PORT), OTHER).unwrap_err();
            (refused, stream(Some(address(from, PORT)), address(to, PORT), OTHER).unwrap_err())
        });
        assert_eq!((refused.kind(), source.kind()), (ErrorKind::TimedOut, ErrorKind::TimedOut), "{to}");
        service.set_nonblocking(true).unwrap();
        assert_eq!(service.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    }
    assert!(packets(&a, "outbound") >= 4);
    assert_eq!(a.run(|| counter("out-association", "within the bucket")), 0);
}

/// Nor in: a listener or a connection without the mark is reached under a permission only, and so is one that is merely
/// transparent, as those of proxies are.
#[test]
fn another_program_cannot_use_the_port_of_associations_to_receive() {
    if !privileged() {
        return;
    }
    let transparent = Marks { mark: None, transparent: true };
    for marks in [OTHER, transparent, Marks { mark: Some(ASSOCIATION_MARK + 1), transparent: true }] {
        let (a, b) = pair(1500);
        // A connection from before, at whose other end is the port of associations.
        let server = listener(&a, address(A4, PORT), OTHER).unwrap();
        let mut old = b.run(|| stream(None, address(A4, PORT), marks).unwrap());
        let (mut attacker, _) = server.accept().unwrap();
        b.run(|| HostRules::new(3, 4, PORT).install().unwrap());
        attacker.write_all(b"unasked").unwrap();
        old.set_read_timeout(Some(QUIET)).unwrap();
        assert_eq!(old.read(&mut [0; 7]).unwrap_err().kind(), ErrorKind::WouldBlock, "{marks:?}");
        for to in [B4, B6] {
            let listener = listener(&b, address(to, PORT), marks).unwrap();
            let refused = a.run(|| stream(None, address(to, PORT), OTHER)).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::TimedOut, "{marks:?}");
            listener.set_nonblocking(true).unwrap();
            assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        }
        assert_eq!(b.run(|| counter("in-association", "within the bucket")), 0);
        assert!(b.run(|| counter("in-association-socket", "of another program")) >= 3);
    }
}

/// Connection states as `/proc/net/tcp` has them.
const FIN_WAIT_2: &str = "05";
const TIME_WAIT: &str = "06";
const LISTEN: &str = "0A";

/// The states of all TCP connections of this namespace.
fn states() -> Vec<String> {
    let of = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap();
    let text = of("tcp") + &of("tcp6");
    let states = text.lines().filter_map(|line| line.split_ascii_whitespace().nth(3)).filter(|state| state.len() == 2);
    states.filter(|state| *state != LISTEN && *state != "st").map(str::to_owned).collect()
}

/// A router's rules let out what the node sends of itself; here they do not know the port that the test uses.
fn drop_what_comes_in() -> RouterRules {
    RouterRules::new(1, 2, PORT + 1)
}

fn packets(host: &Namespace, chain: &str) -> u64 {
    host.run(|| counter(chain, chain))
}

/// Packets of both families that a rule of the host has counted.
fn counter(chain: &str, rule: &str) -> u64 {
    let counters = rules::counters(Role::Host).unwrap();
    let of_rule: Vec<_> = counters.iter().filter(|counter| counter.chain == chain && counter.rule == rule).collect();
    assert_eq!(of_rule.len(), 2, "{chain} {rule}: {counters:?}");
    of_rule.iter().map(|counter| counter.packets).sum()
}

fn marked_socket(to: SocketAddr, marks: Marks) -> OwnedFd {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&socket, sockopt::ReuseAddr, &true).unwrap();
    if let Some(mark) = marks.mark {
        setsockopt(&socket, sockopt::Mark, &mark).unwrap();
    }
    if marks.transparent {
        setsockopt(&socket, sockopt::IpTransparent, &true).unwrap();
        assert!(getsockopt(&socket, sockopt::IpTransparent).unwrap());
    }
    socket
}

fn listener(host: &Namespace, at: SocketAddr, marks: Marks) -> nix::Result<TcpListener> {
    host.run(|| {
        let socket = marked_socket(at, marks);
        bind(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
        listen(&socket, Backlog::new(16)?)?;
        Ok(TcpListener::from(socket))
    })
}

/// Connects within a second.
fn stream(from: Option<SocketAddr>, to: SocketAddr, marks: Marks) -> std::io::Result<TcpStream> {
    const LIMIT: Duration = Duration::from_millis(600);
    let socket = marked_socket(to, marks);
    if let Some(from) = from {
        bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    }
    let stream = TcpStream::from(socket);
    // The kernel's own limit for connecting is that for sending.
    stream.set_write_timeout(Some(LIMIT))?;
    match connect(stream.as_raw_fd(), &SockaddrStorage::from(to)) {
        Err(nix::Error::EINPROGRESS) => Err(ErrorKind::TimedOut.into()),
        other => Ok(other.map(|()| stream)?),
    }
}

/// What a daemon does when the peer has shown its certificate.
fn authenticated(accepted: TcpStream) -> TcpStream {
    assert_eq!(getsockopt(&accepted, sockopt::Mark), Ok(LISTENER_MARK), "it has the listener's until then");
    setsockopt(&accepted, sockopt::Mark, &ASSOCIATION_MARK).unwrap();
    accepted
}

/// Opens an association, sends both ways, and closes it from the client's side.
fn exchange(client: &Namespace, server: &Namespace, to: SocketAddr) {
    let listener = listener(server, to, LISTENER).unwrap();
    let mut client = client.run(|| stream(None, to, ASSOCIATION).unwrap());
    let mut accepted = authenticated(listener.accept().unwrap().0);
    let (mut from, mut to) = (&mut client, &mut accepted);
    for _ in 0..2 {
        from.write_all(b"Confirm").unwrap();
        let mut buffer = [0; 7];
        to.set_read_timeout(Some(SOON)).unwrap();
        to.read_exact(&mut buffer).unwrap();
        assert_eq!(&buffer, b"Confirm");
        std::mem::swap(&mut from, &mut to);
    }
}
