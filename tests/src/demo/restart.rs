//! The router dies: nothing passes. It comes back: traffic resumes by itself, and nothing from before passes again.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::SETTLE;
use super::line::Line;
use super::site::{REFRESH, Site};
use super::trial::{Trial, of_family};
use crate::network::frame;
use crate::network::topology::Family::{self, Ipv4, Ipv6};
use crate::process::Program;

/// How long it is captured.
const CAPTURED: Duration = Duration::from_millis(500);
/// How long the router stays dead.
const DEAD: Duration = Duration::from_secs(1);

/// A flow that keeps sending all the time.
#[derive(Clone, Copy)]
struct Running {
    family: Family,
    port: u16,
}

/// Kills the router under a running flow and starts it again, with each IP version.
pub(super) fn router_killed(site: &mut Site) -> io::Result<Vec<Line>> {
    let mut lines = under(site, Running { family: Ipv4, port: 9020 })?;
    lines.extend(under(site, Running { family: Ipv6, port: 9024 })?);
    Ok(lines)
}

fn under(site: &mut Site, running: Running) -> io::Result<Vec<Line>> {
    let warm_up = Trial::start(site, "", "", running.family, running.port)?;
    let (socket, _receiver) = warm_up.sockets()?;
    let flow = Flow::start(socket, warm_up.destination());
    let runs = warm_up.await_arrival(Duration::from_secs(10)).is_some();
    std::thread::sleep(CAPTURED);
    let capture = capture(site, running);
    let killed = killed(site, running, &flow, runs)?;
    let restarted = restarted(site, running, flow)?;
    let replayed = replayed(site, running, &capture)?;
    Ok(vec![killed, restarted, replayed])
}

/// Every packet of the flow that was on the sender's link so far.
fn capture(site: &Site, Running { family, port }: Running) -> Vec<Vec<u8>> {
    let of_flow = |ip: &&[u8]| {
        frame::read(ip).is_some_and(|seen| seen.ports.1 == port && seen.destination == family.receiver() && seen.authentication.is_some())
    };
    site.left.look(|frames| frames.iter().filter_map(|frame| frame.ip()).filter(of_flow).map(<[u8]>::to_vec).collect())
}

fn killed(site: &mut Site, Running { family, port }: Running, flow: &Flow, runs: bool) -> io::Result<Line> {
    if let Some(mut router) = site.router.take() {
        router.kill()?;
    }
    std::thread::sleep(SETTLE);
    let (name, tried) = of_family(family, "router-killed", "router killed under a running flow (SIGKILL)");
    let mut trial = Trial::start(site, name, tried, family, port)?;
    trial.line.must(runs, "the flow did not run before the router was killed");
    let before = flow.sent();
    std::thread::sleep(DEAD);
    let mut line = trial.finish()?;
    // The program went on while the captures settled.
    line.sent = flow.sent() - before;
    line.must(line.arrived == 0, "packets passed a router that is not there");
    line.must(line.sent > 0 && line.sender_link.there.packets > 0, "nothing was sent");
    Ok(line)
}

fn restarted(site: &mut Site, Running { family, port }: Running, flow: Flow) -> io::Result<Line> {
    let (before, started) = (flow.sent(), Instant::now());
    site.start_router(Program::Router)?;
    let (name, tried) = of_family(family, "router-restarted", "router started again, nobody touches anything");
    // None of its packets may be counted before the trial and seen in it, or the other way round.
    let held = flow.hold();
    std::thread::sleep(SETTLE);
    let mut trial = Trial::start(site, name, tried, family, port)?;
    drop(held);
    let resumed = trial.await_arrival(REFRESH * 3).map(|_| started.elapsed());
    match resumed {
        Some(after) => {
            trial.line.measure(format!("resumed after {:.2} s, T is {} s", after.as_secs_f64(), REFRESH.as_secs()));
            trial.line.must(after <= REFRESH, format!("resumed only after {:.2} s", after.as_secs_f64()));
        }
        None => trial.line.must(false, format!("nothing passed within {} s", (REFRESH * 3).as_secs())),
    }
    std::thread::sleep(Duration::from_secs(1));
    // All that left it must be counted when the trial ends.
    let sent = flow.stop();
    let mut line = trial.finish()?;
    line.sent = sent - before;
    line.must_be_under_ah();
    Ok(line)
}

/// The restarted router has seen none of these packets, and SPI and key are those from before. What keeps them out is the number
/// that the sender's Query named.
fn replayed(site: &Site, Running { family, port }: Running, capture: &[Vec<u8>]) -> io::Result<Line> {
    let (name, tried) = of_family(family, "replayed-after-restart", "replayed to it: a capture from before");
    let mut trial = Trial::start(site, name, tried, family, port)?;
    trial.line.sent = site.attacker.send(capture)?;
    let mut line = trial.finish()?;
    let on_link = line.sender_link.there.packets;
    line.must(
        line.sent >= 10 && on_link == line.sent,
        format!("{on_link} of {} captured packets were on the sender's link", capture.len()),
    );
    line.must(line.arrived == 0, "packets passed that were used before");
    let dropped = line.dropped_at("router", "replayed");
    line.must(dropped == line.sent, format!("the router dropped {dropped} of {} as replayed", line.sent));
    Ok(line)
}

/// A program that sends a datagram every 20 ms until it is dropped.
pub(super) struct Flow {
    /// Whoever has it keeps the program from sending.
    turn: Arc<Mutex<()>>,
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flow {
    pub(super) fn start(socket: UdpSocket, to: SocketAddr) -> Self {
        let (turn, sent, stop) = (Arc::new(Mutex::new(())), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (turn, sent, stop) = (turn.clone(), sent.clone(), stop.clone());
            move || {
                while !stop.load(Ordering::Relaxed) {
                    let sending = turn.lock().unwrap_or_else(PoisonError::into_inner);
                    if socket.send_to(&[0; 200], to).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                    drop(sending);
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        });
        Self { turn, sent, stop, thread: Some(thread) }
    }

    /// Ends the program and gives how many datagrams it sent.
    pub(super) fn stop(self) -> u64 {
        let sent = self.sent.clone();
        drop(self);
        sent.load(Ordering::Relaxed)
    }

    /// The program sends nothing as long as this is held.
    fn hold(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
