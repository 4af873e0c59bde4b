//! Sender, router and receiver, and the traffic between them.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};
use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::Options;
use crate::attack::injector::Injector;
use crate::attack::packet;
use crate::ground::Ground;
use crate::network::capture::{Capture, Frame};
use crate::network::frame;
use crate::network::topology::{LEFT_LINK, RECEIVER, RIGHT_LINK, SENDER, SENDER_LINK};
use crate::process::{Daemon, Program};
use crate::query_flood::memory;

/// Where all flows go.
const PORT: u16 = 9000;
/// Flows at a time, and how long each lasts: ten new ones a second.
const FLOWS: usize = 40;
const LASTS: Duration = Duration::from_secs(4);
/// Between two datagrams of a flow, and the octets of each.
const PACE: Duration = Duration::from_millis(20);
const LEN: usize = 400;
/// Packets without permission sent at once, and the time between.
const AT_ONCE: u32 = 64;
const PAUSE: Duration = Duration::from_millis(20);
/// A port from which nobody asks for anything.
const UNASKED: u16 = 4000;
/// SPIs that nobody has.
const MADE_UP: u32 = 0x7000_0000;
/// Octets of an IPv4 header.
const HEADER: usize = 20;
const UDP: u8 = 17;
const GIST_PORT: u16 = 270;
/// Permissions that the router holds at the most: so few that what it remembers of those that ended fills up soon.
const PERMISSIONS: usize = 1200;

/// Packets that were to be forwarded.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Crossed {
    /// They came to the router.
    pub(super) came: u64,
    /// They left it.
    pub(super) went: u64,
}

impl Crossed {
    pub(super) fn and(self, other: Self) -> Self {
        Self { came: self.came + other.came, went: self.went + other.went }
    }
}

pub(super) struct Site {
    router: Daemon,
    /// Kept running.
    _hosts: [Daemon; 2],
    /// On the sender's link and the receiver's.
    captures: [Capture; 2],
    ground: Ground,
}

impl Site {
    pub(super) fn start(options: Options) -> io::Result<Self> {
        let ground = Ground::lay()?;
        let file = ground.directory.join("router.toml");
        let Options { workers, shield, .. } = options;
        let datapath = format!("[datapath]\nworkers = {workers}\nshield = {shield}\npermissions = {PERMISSIONS}\n");
        std::fs::write(&file, std::fs::read_to_string(&file)? + &datapath)?;
        let file = ground.directory.join("receiver.toml");
        // What a flow is granted ends soon behind it.
        std::fs::write(&file, std::fs::read_to_string(&file)?.replace("ttl = \"600s\"", "ttl = \"10s\""))?;
        let start = |host, program, name| Daemon::start(host, program, &ground.directory, name);
        let (chain, began) = (&ground.chain, Instant::now());
        let captures = [LEFT_LINK, RIGHT_LINK].map(|link| Capture::start(&chain.router, link, began));
        let [left, right] = captures;
        let captures = [left?, right?];
        let hosts = [start(&chain.receiver, Program::Host, "receiver")?, start(&chain.sender, Program::Host, "sender")?];
        let router = start(&chain.router, Program::Router, "router")?;
        Ok(Self { router, _hosts: hosts, captures, ground })
    }

    pub(super) fn ask(&self, command: &str) -> io::Result<Value> {
        self.router.ask(&json!({ "command": command }))
    }

    pub(super) fn memory(&self) -> io::Result<u64> {
        memory(self.router.id()?)
    }

    /// Permissions that the router has.
    pub(super) fn permissions(&self) -> io::Result<usize> {
        let flows = self.ask("flows")?;
        Ok(flows.as_array().into_iter().flatten().filter(|flow| flow.get("spi").is_some_and(|spi| !spi.is_null())).count())
    }

    /// What has crossed the router since this was asked last.
    pub(super) fn crossed(&self) -> io::Result<Crossed> {
        let [left, right] = &self.captures;
        if left.lost() + right.lost() > 0 {
            return Err(io::Error::other("a capture has lost frames: its figures say nothing"));
        }
        let (left, right) = (left.take(), right.take());
        let count = |frames: &[Frame], from, to| frames.iter().filter(|frame| is_data(frame, from, to)).count() as u64;
        Ok(Crossed {
            came: count(&left, SENDER, RECEIVER) + count(&right, RECEIVER, SENDER),
            went: count(&right, SENDER, RECEIVER) + count(&left, RECEIVER, SENDER),
        })
    }

    /// Begins to send what is permitted and what is not.
    pub(super) fn traffic(&self) -> io::Result<Traffic> {
        let chain = &self.ground.chain;
        let injector = Injector::new(&chain.sender, SENDER_LINK, &chain.router, LEFT_LINK)?;
        let receiver = chain.receiver.run(|| UdpSocket::bind((RECEIVER, PORT)))?;
        setsockopt(&receiver, sockopt::RcvBufForce, &(4 << 20))?;
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (taken, flooded, sent) = (Arc::clone(&stop), Arc::clone(&stop), Arc::clone(&stop));
        let taking = chain.receiver.spawn(move || {
            while !taken.load(Ordering::Relaxed) {
                let _ = receiver.recv(&mut [0; LEN]);
            }
            Ok(0)
        })?;
        let flooding = chain.sender.spawn(move || {
            let packets = unpermitted()?;
            while !flooded.load(Ordering::Relaxed) {
                injector.flood(&packets)?;
                std::thread::sleep(PAUSE);
            }
            Ok(0)
        })?;
        let sending = chain.sender.spawn(move || send(&sent))?;
        Ok(Traffic { stop, threads: [taking, flooding, sending] })
    }
}

type Work = JoinHandle<io::Result<io::Result<u64>>>;

/// Traffic that goes on.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    threads: [Work; 3],
}

impl Traffic {
    /// Ends it; how many flows have begun.
    pub(super) fn end(self) -> io::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let end = |thread: Work| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread of the laboratory panicked")))?;
        self.threads.into_iter().map(end).sum()
    }
}

/// Sends what is permitted, from a new port every tenth of a second; how many flows that were.
fn send(stop: &AtomicBool) -> io::Result<u64> {
    let (began, mut flows, mut turns) = (Instant::now(), 0, 0);
    let mut sockets: VecDeque<UdpSocket> = VecDeque::new();
    let between = LASTS / FLOWS as u32;
    while !stop.load(Ordering::Relaxed) {
        if began.elapsed() >= between * flows {
            let socket = UdpSocket::bind((SENDER, 0))?;
            socket.connect((RECEIVER, PORT))?;
            sockets.push_back(socket);
            flows += 1;
            if sockets.len() > FLOWS {
                sockets.pop_front();
            }
        }
        for socket in &sockets {
            // What is refused on the way out has not come to the router.
            let _ = socket.send(&[1; LEN]);
        }
        turns += 1;
        std::thread::sleep((PACE * turns).saturating_sub(began.elapsed()));
    }
    Ok(flows.into())
}

/// Packets in the sender's name without AH, and under SPIs that nobody has.
fn unpermitted() -> io::Result<Vec<Vec<u8>>> {
    let bare = |_| packet::udp((SENDER, UNASKED), (RECEIVER, PORT), &[2; LEN]);
    let made_up = |number: u32| {
        let mut packet = packet::udp((SENDER, UNASKED), (RECEIVER, PORT), &[3; LEN])?;
        let authentication = [&[17, 5, 0, 0], &(MADE_UP + number).to_be_bytes()[..], &1_u32.to_be_bytes(), &[4; 16]].concat();
        packet.splice(HEADER..HEADER, authentication);
        let length = u16::try_from(packet.len()).map_err(io::Error::other)?;
        let mut header = Ipv4Packet::new_unchecked(&mut packet);
        header.set_total_len(length);
        header.set_next_header(IpProtocol::IpSecAh);
        header.fill_checksum();
        Ok(packet)
    };
    (0..AT_ONCE / 2).map(bare).chain((0..AT_ONCE / 2).map(made_up)).collect()
}

/// Whether it goes from one host to the other, and is no signalling, which the router takes for itself.
fn is_data(frame: &Frame, from: IpAddr, to: IpAddr) -> bool {
    let Some(seen) = frame.ip().and_then(frame::read) else { return false };
    seen.source == from && seen.destination == to && (seen.protocol, seen.ports.1) != (UDP, GIST_PORT)
}
