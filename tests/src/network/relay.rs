//! Somebody in the middle of a link: every frame passes through the laboratory's hands, which may keep it, hold it back, put
//! others in its place, or add their own.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use socket2::Socket;

use super::link;
use super::namespace::Namespace;
use super::sys;

/// How long a relay sleeps at most when it has nothing to do.
const NAP: Duration = Duration::from_millis(20);
/// The same while it holds frames back.
const SHORT_NAP: Duration = Duration::from_millis(1);
/// Frames held back at most, in each direction; more are dropped.
const HELD: usize = 4096;
/// Octets of an Ethernet header.
const HEADER: usize = 14;

/// Which way a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the sender's side to the receiver's.
    There,
    /// Back.
    Back,
}

/// What becomes of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It goes on as it is.
    Pass,
    /// It goes no further.
    Drop,
    /// It goes on later. Frames that are held back as long keep their order.
    Delay(Duration),
    /// These frames go on instead, in this order: none, another one, it twice.
    Instead(Vec<Vec<u8>>),
}

/// Decides about each frame, from its Ethernet header on.
pub type Rule = dyn FnMut(Way, &[u8]) -> Fate + Send;

/// A relay between two interfaces of one host. Dropping it cuts the link.
pub struct Relay {
    sides: [Arc<Socket>; 2],
    rule: Arc<Mutex<Box<Rule>>>,
    failed: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relay").field("failed", &self.failed()).finish_non_exhaustive()
    }
}

impl Relay {
    /// Carries every frame over between the interfaces `left` and `right` of `host`.
    pub fn start(host: &Namespace, left: &str, right: &str) -> io::Result<Self> {
        let open = |interface| {
            let (index, _) = link::identify(host, interface)?;
            let socket = host.run(|| sys::packet_socket(index, true))?;
            setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20))?;
            io::Result::Ok(Arc::new(socket))
        };
        let sides = [open(left)?, open(right)?];
        let rule: Arc<Mutex<Box<Rule>>> = Arc::new(Mutex::new(Box::new(|_, _| Fate::Pass)));
        let (failed, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let [left, right] = &sides;
        let threads = [(Way::There, left, right), (Way::Back, right, left)].map(|(way, from, to)| {
            let mut carrier = Carrier { way, from: from.clone(), to: to.clone(), held: VecDeque::new(), failed: failed.clone() };
            let (rule, stop) = (rule.clone(), stop.clone());
            std::thread::spawn(move || carrier.carry(&rule, &stop))
        });
        Ok(Self { threads: threads.into(), sides, rule, failed, stop })
    }

    /// From now on `rule` decides.
    pub fn set(&self, rule: impl FnMut(Way, &[u8]) -> Fate + Send + 'static) {
        *self.rule.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(rule);
    }

    /// From now on every frame passes.
    pub fn pass_all(&self) {
        self.set(|_, _| Fate::Pass);
    }

    /// Adds a frame of its own.
    pub fn inject(&self, way: Way, frame: &[u8]) -> io::Result<()> {
        let [left, right] = &self.sides;
        let to = if way == Way::There { right } else { left };
        to.send(frame).map(drop)
    }

    /// Frames that could not be received or sent. A figure taken from a run that lost frames here is not to be believed.
    pub fn failed(&self) -> u64 {
        let lost: u32 = self.sides.iter().map(|side| sys::lost_frames(side).unwrap_or(1)).sum();
        self.failed.fetch_add(lost.into(), Ordering::Relaxed) + u64::from(lost)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// The IP packet in a frame, if it holds one.
pub fn packet(frame: &[u8]) -> Option<&[u8]> {
    let kind = frame.get(12..HEADER)?;
    (kind == [0x08, 0x00] || kind == [0x86, 0xdd]).then(|| frame.get(HEADER..)).flatten()
}

/// The frame with another packet of its IP version in it.
pub fn with_packet(frame: &[u8], packet: &[u8]) -> Vec<u8> {
    let mut changed = frame.get(..HEADER).unwrap_or_default().to_vec();
    changed.extend_from_slice(packet);
    changed
}

/// One direction.
struct Carrier {
    way: Way,
    from: Arc<Socket>,
    to: Arc<Socket>,
    held: VecDeque<(Instant, Vec<u8>)>,
    failed: Arc<AtomicU64>,
}

impl Carrier {
    fn carry(&mut self, rule: &Mutex<Box<Rule>>, stop: &AtomicBool) {
        let mut buffer = vec![MaybeUninit::new(0_u8); 66_000];
        while !stop.load(Ordering::Relaxed) {
            let nap = if self.held.is_empty() { NAP } else { SHORT_NAP };
            let _ = self.from.set_read_timeout(Some(nap));
            if let Ok(length) = self.from.recv(&mut buffer) {
                let frame: Vec<u8> = buffer.iter().take(length).map(sys::initialised).collect();
                let fate = rule.lock().unwrap_or_else(PoisonError::into_inner)(self.way, &frame);
                self.dispose(frame, fate);
            }
            let now = Instant::now();
            while self.held.front().is_some_and(|(due, _)| *due <= now)
                && let Some((_, frame)) = self.held.pop_front()
            {
                self.send(&frame);
            }
        }
    }

    fn dispose(&mut self, frame: Vec<u8>, fate: Fate) {
        match fate {
            Fate::Pass => self.send(&frame),
            Fate::Drop => {}
            Fate::Delay(time) if self.held.len() < HELD => {
                let due = Instant::now() + time;
                let place = self.held.iter().rposition(|(other, _)| *other <= due).map_or(0, |before| before + 1);
                self.held.insert(place, (due, frame));
            }
            Fate::Delay(_) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
            Fate::Instead(frames) => frames.iter().for_each(|frame| self.send(frame)),
        }
    }

    fn send(&self, frame: &[u8]) {
        if self.to.send(frame).is_err() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::frame;
    use crate::network::graph::{MIDDLE_LEFT, MIDDLE_RIGHT, Place, TwoRouters};
    use crate::network::topology::{Family, RECEIVER, SENDER};
    use std::net::UdpSocket;

    #[test]
    fn frames_pass_and_are_kept_doubled_held_back_and_replaced_as_the_rule_says() {
        if !crate::may_make_networks() {
            return;
        }
        let network = TwoRouters::build(Place::BetweenRouters, Family::Ipv4).unwrap();
        let relay = Relay::start(&network.middle, MIDDLE_LEFT, MIDDLE_RIGHT).unwrap();
        let receiver = network.receiver.run(|| UdpSocket::bind((RECEIVER, 9000))).unwrap();
        receiver.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let sender = network.sender.run(|| UdpSocket::bind((SENDER, 0))).unwrap();
        let send = |text: &[u8]| sender.send_to(text, (RECEIVER, 9000)).unwrap();
        let receive = || {
            let mut buffer = [0; 16];
            receiver.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())
        };
        let is_data = |frame: &[u8]| packet(frame).and_then(frame::read).is_some_and(|seen| seen.ports.1 == 9000);

        send(b"as it is");
        assert_eq!(receive().unwrap(), b"as it is");
        relay.set(move |way, frame| match is_data(frame) && way == Way::There {
            true if frame.ends_with(b"kept") => Fate::Drop,
            true if frame.ends_with(b"doubled") => Fate::Instead(vec![frame.to_vec(), frame.to_vec()]),
            true if frame.ends_with(b"later") => Fate::Delay(Duration::from_millis(200)),
            _ => Fate::Pass,
        });
        let begun = Instant::now();
        for text in [&b"later"[..], b"kept", b"doubled"] {
            send(text);
        }
        assert_eq!([receive().unwrap(), receive().unwrap(), receive().unwrap()], [&b"doubled"[..], b"doubled", b"later"]);
        assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
        assert_eq!(receive(), None);
        relay.pass_all();
        send(b"kept");
        assert_eq!(receive().unwrap(), b"kept");
        assert_eq!(relay.failed(), 0);
    }
}
