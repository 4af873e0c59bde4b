//! The router dies: nothing passes. It comes back: traffic resumes by itself.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::SETTLE;
use super::grant::{sockets, to_port, wait_for_arrival};
use super::line::Line;
use super::site::{REFRESH, Site};
use crate::network::topology::RECEIVER;

/// The flow that keeps sending all the time.
const PORT: u16 = 9020;

/// Kills the router under a running flow and starts it again.
pub(super) fn router_killed(site: &mut Site) -> io::Result<Vec<Line>> {
    let (socket, _receiver) = sockets(site, PORT)?;
    let flow = Flow::start(socket);
    let mark = site.right.mark();
    let running = wait_for_arrival(&site.right, mark, PORT, Duration::from_secs(10)).is_some();
    Ok(vec![killed(site, &flow, running)?, restarted(site, &flow)?])
}

fn killed(site: &mut Site, flow: &Flow, running: bool) -> io::Result<Line> {
    let mut line = Line::new("router-killed", "router killed under a running flow (SIGKILL)");
    line.must(running, "the flow did not run before the router was killed");
    if let Some(mut router) = site.router.take() {
        router.kill()?;
    }
    std::thread::sleep(SETTLE);
    let (mark, before) = (site.right.mark(), flow.sent());
    std::thread::sleep(Duration::from_secs(2));
    line.sent = flow.sent() - before;
    line.arrived = site.right.count(mark, |frame| to_port(frame, PORT).is_some());
    line.must(line.arrived == 0, "packets passed a router that is not there");
    line.must(line.sent > 0, "nothing was sent");
    Ok(line)
}

fn restarted(site: &mut Site, flow: &Flow) -> io::Result<Line> {
    let mut line = Line::new("router-restarted", "router started again, nobody touches anything");
    let (mark, before) = (site.right.mark(), flow.sent());
    site.start_router()?;
    let started = Instant::now();
    let resumed = wait_for_arrival(&site.right, mark, PORT, REFRESH * 3);
    line.sent = flow.sent() - before;
    line.arrived = site.right.count(mark, |frame| to_port(frame, PORT).is_some());
    match resumed {
        Some(_) => {
            let after = started.elapsed();
            line.measure(format!("resumed after {:.2} s, T is {} s", after.as_secs_f64(), REFRESH.as_secs()));
            line.must(after <= REFRESH, format!("resumed only after {:.2} s", after.as_secs_f64()));
        }
        None => line.must(false, format!("nothing passed within {} s", (REFRESH * 3).as_secs())),
    }
    Ok(line)
}

/// A program that sends a datagram every 20 ms until it is dropped.
struct Flow {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Flow {
    fn start(socket: UdpSocket) -> Self {
        let flow = Self { sent: Arc::default(), stop: Arc::default() };
        let (sent, stop) = (flow.sent.clone(), flow.stop.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if socket.send_to(&[0; 200], SocketAddr::new(RECEIVER, PORT)).is_ok() {
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        flow
    }

    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
