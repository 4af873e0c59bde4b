//! How long it takes until a first packet may pass: a benchmark over one router, on the kernel's own packets with real daemons. Of a
//! release build on an idle machine the figures are those that the goals are about; of anything else they are what they are.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, poll};
use serde::Serialize;

use crate::ground::Ground;
use crate::network::topology::{RECEIVER, SENDER};
use crate::process::{Daemon, Program};

/// Ports that the ground's policies ask for and grant.
const UDP_PORT: u16 = 9001;
const TCP_PORT: u16 = 9100;
/// Source port of the first flow; each has its own.
const FIRST_PORT: u16 = 10_000;
/// Flows before anything is measured, so that associations and caches are alive.
const WARM_UP: usize = 5;
/// Between two flows: longer than what any bucket is about.
const PAUSE: Duration = Duration::from_millis(25);
/// How long a first packet may take at all.
const LIMIT: Duration = Duration::from_secs(10);

/// Goals, in milliseconds.
const WARM_MEDIAN: f64 = 3.0;
const WARM_P99: f64 = 15.0;
const COLD_MEDIAN: f64 = 30.0;
/// What a connection may take beyond two grants.
const TCP_BEYOND: f64 = 5.0;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// New flows over live associations.
    pub flows: usize,
    /// Cold starts, each with a network and daemons of its own.
    pub cold: usize,
    /// TCP connections.
    pub connections: usize,
}

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// First datagram of a new flow over live associations, from sending until it is received.
    pub warm: Times,
    /// The same when there are no associations yet.
    pub cold: Times,
    /// From `connect` until the first octet of the server is read: both permissions lie in between.
    pub connection: Times,
    /// Processes that wanted to run, on average of the last minute, before and after.
    pub load: [f64; 2],
    /// Whether this is a release build.
    pub release: bool,
    /// Each goal in words, and whether it is met.
    pub goals: Vec<(String, bool)>,
    /// Whether all are.
    pub holds: bool,
}

/// Times in milliseconds.
#[derive(Debug, Default, Serialize)]
pub struct Times {
    /// How many.
    pub count: usize,
    /// The shortest.
    pub shortest: f64,
    /// Half of them are shorter.
    pub median: f64,
    /// So many lie between a quarter and three quarters of all.
    pub quartiles: [f64; 2],
    /// One in a hundred is longer; of fewer than a hundred, the longest.
    pub p99: f64,
    /// The longest.
    pub longest: f64,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        let at = |share: f64| {
            let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
            times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self { count: times.len(), shortest: at(0.0), median: at(0.5), quartiles: [at(0.25), at(0.75)], p99: at(0.99), longest: at(1.0) }
    }
}

/// Measures. `progress` hears what is being done.
pub fn run(options: Options, progress: impl Fn(&str)) -> io::Result<Outcome> {
    let before = load();
    progress("starting three daemons");
    let site = Site::start()?;
    progress("new flows over live associations");
    let warm = warm(&site, options.flows)?;
    progress("TCP connections");
    let connection = connections(&site, options.connections)?;
    drop(site);
    let mut cold = Vec::new();
    for number in 0..options.cold {
        progress(&format!("cold start {} of {}", number + 1, options.cold));
        cold.push(first_flow(&Site::start()?)?);
    }
    let (warm, connection, cold) = (Times::of(warm), Times::of(connection), Times::of(cold));
    let both = 2.0 * warm.median + TCP_BEYOND;
    let goals = vec![
        (format!("a new flow over live associations: median {:.1} ms ≤ {WARM_MEDIAN} ms", warm.median), warm.median <= WARM_MEDIAN),
        (format!("a new flow over live associations: p99 {:.1} ms ≤ {WARM_P99} ms", warm.p99), warm.p99 <= WARM_P99),
        (format!("cold: median {:.1} ms ≤ {COLD_MEDIAN} ms", cold.median), cold.median <= COLD_MEDIAN),
        (format!("TCP: median {:.1} ms ≤ two grants and {TCP_BEYOND} ms, {both:.1} ms", connection.median), connection.median <= both),
    ];
    let holds = goals.iter().all(|(_, holds)| *holds);
    Ok(Outcome { warm, cold, connection, load: [before, load()], release: !cfg!(debug_assertions), goals, holds })
}

impl Outcome {
    /// What a person reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let build = if self.release { "release" } else { "debug" };
        let _ = writeln!(text, "{build} build; load before {:.1}, after {:.1}; all times in milliseconds", self.load[0], self.load[1]);
        let _ = writeln!(text, "{:<44}{:>6}{:>9}{:>9}{:>18}{:>9}{:>9}", "", "count", "shortest", "median", "quartiles", "p99", "longest");
        for (name, times) in [
            ("grant of a new flow over live associations", &self.warm),
            ("the same cold, no association yet", &self.cold),
            ("TCP connect to first octet, both permissions", &self.connection),
        ] {
            let quartiles = format!("{:.2} to {:.2}", times.quartiles[0], times.quartiles[1]);
            let _ = writeln!(
                text,
                "{name:<44}{:>6}{:>9.2}{:>9.2}{quartiles:>18}{:>9.2}{:>9.2}",
                times.count, times.shortest, times.median, times.p99, times.longest
            );
        }
        for (goal, holds) in &self.goals {
            let _ = writeln!(text, "{} {goal}", if *holds { "met:    " } else { "NOT MET:" });
        }
        text
    }
}

/// The demonstration's network with its three daemons.
struct Site {
    daemons: Vec<Daemon>,
    ground: Ground,
}

impl Site {
    fn start() -> io::Result<Self> {
        let ground = Ground::lay()?;
        let mut daemons = Vec::new();
        let chain = &ground.chain;
        for (host, program, name) in [
            (&chain.router, Program::Router, "router"),
            (&chain.receiver, Program::Host, "receiver"),
            (&chain.sender, Program::Host, "sender"),
        ] {
            daemons.push(Daemon::start(host, program, &ground.directory, name)?);
        }
        Ok(Self { daemons, ground })
    }

    fn receiver(&self) -> io::Result<UdpSocket> {
        let socket = self.ground.chain.receiver.run(|| UdpSocket::bind((RECEIVER, UDP_PORT)))?;
        socket.set_read_timeout(Some(LIMIT))?;
        Ok(socket)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Before the directory that they use.
        self.daemons.clear();
    }
}

fn first_flow(site: &Site) -> io::Result<Duration> {
    new_flow(site, &site.receiver()?, 0)
}

fn warm(site: &Site, count: usize) -> io::Result<Vec<Duration>> {
    let receiver = site.receiver()?;
    let mut times = Vec::new();
    for number in 0..WARM_UP + count {
        let time = new_flow(site, &receiver, number)?;
        if number >= WARM_UP {
            times.push(time);
        }
        std::thread::sleep(PAUSE);
    }
    Ok(times)
}

/// One datagram of a flow that nobody has asked for before.
fn new_flow(site: &Site, receiver: &UdpSocket, number: usize) -> io::Result<Duration> {
    // A port that the kernel chooses could be one that has a permission already.
    let port = u16::try_from(number).ok().and_then(|number| FIRST_PORT.checked_add(number)).ok_or(io::ErrorKind::InvalidInput)?;
    let sender = site.ground.chain.sender.run(|| UdpSocket::bind((SENDER, port)))?;
    let begun = Instant::now();
    sender.send_to(&begun.elapsed().as_nanos().to_be_bytes(), (RECEIVER, UDP_PORT))?;
    loop {
        let (_, from) = receiver.recv_from(&mut [0; 64])?;
        if from == sender.local_addr()? {
            return Ok(begun.elapsed());
        }
    }
}

fn connections(site: &Site, count: usize) -> io::Result<Vec<Duration>> {
    let listener = site.ground.chain.receiver.run(|| TcpListener::bind((RECEIVER, TCP_PORT)))?;
    let server = Server::start(listener);
    let mut times = Vec::new();
    for number in 0..count + 1 {
        let begun = Instant::now();
        let mut stream = site.ground.chain.sender.run(|| TcpStream::connect_timeout(&(RECEIVER, TCP_PORT).into(), LIMIT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.read_exact(&mut [0])?;
        if number > 0 {
            times.push(begun.elapsed());
        }
        std::thread::sleep(PAUSE);
    }
    drop(server);
    Ok(times)
}

/// A program that says one octet to everybody.
struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(listener: TcpListener) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
                if poll(&mut wait, 100_u16).is_ok_and(|ready| ready > 0)
                    && let Ok((mut stream, _)) = listener.accept()
                    && stream.write_all(&[1]).is_ok()
                {
                    open.push(stream);
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The first figure of the kernel's load average.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_by_their_rank() {
        let times = Times::of((1..=100).rev().map(Duration::from_millis).collect());
        assert_eq!((times.shortest, times.median, times.p99, times.longest, times.count), (1.0, 50.0, 99.0, 100.0, 100));
        assert_eq!(times.quartiles, [25.0, 75.0]);
        assert_eq!(Times::of(Vec::new()).median, 0.0);
    }
}
