//! Captures: what was really on a link, seen by a packet socket beside the kernel's own processing.

use std::io;
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

use super::link;
use super::namespace::Namespace;
use super::sys;

/// Frames that one capture keeps; more are counted as lost.
const FRAMES: usize = 400_000;

/// How long frames are still taken in when a capture ends, on a link that is never idle.
const LAST_FRAMES: Duration = Duration::from_millis(200);

/// One frame on a link.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Since the start of all captures.
    pub at: Duration,
    /// The frame from its Ethernet header on.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The IP packet in the frame, if it holds one.
    pub fn ip(&self) -> Option<&[u8]> {
        let kind = self.bytes.get(12..14)?;
        (kind == [0x08, 0x00] || kind == [0x86, 0xdd]).then(|| self.bytes.get(14..)).flatten()
    }

    /// The hardware address that sent the frame.
    pub fn source(&self) -> Option<[u8; 6]> {
        self.bytes.get(6..)?.first_chunk().copied()
    }
}

/// A running capture on one interface.
#[derive(Debug)]
pub struct Capture {
    started: Instant,
    frames: Arc<Mutex<Vec<Frame>>>,
    lost: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Listens on `interface` of `host`. Times count from `started`, the same moment for every capture of a run.
    pub fn start(host: &Namespace, interface: &str, started: Instant) -> io::Result<Self> {
        let (index, _) = link::identify(host, interface)?;
        let socket = host.run(|| sys::packet_socket(index, true))?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::RcvBufForce, &(64 << 20))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let frames = Arc::new(Mutex::new(Vec::new()));
        let lost = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (frames, lost, stop) = (frames.clone(), lost.clone(), stop.clone());
            move || listen(&socket, started, &frames, &lost, &stop)
        });
        Ok(Self { started, frames, lost, stop, thread: Some(thread) })
    }

    /// A moment of this capture, to look only at what comes later.
    pub fn mark(&self) -> Duration {
        self.started.elapsed()
    }

    /// Looks at every frame captured so far, in order.
    pub fn look<T>(&self, at: impl FnOnce(&[Frame]) -> T) -> T {
        at(&self.frames.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Frames that the capture could not keep. A figure taken from a capture that lost frames is not to be believed.
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes everything captured so far.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
        let file = io::BufWriter::new(std::fs::File::create(path)?);
        let mut writer = PcapWriter::with_header(file, header).map_err(io::Error::other)?;
        self.look(|frames| {
            frames.iter().try_for_each(|frame| {
                let length = u32::try_from(frame.bytes.len()).map_err(io::Error::other)?;
                writer.write_packet(&PcapPacket::new(frame.at, length, &frame.bytes)).map(drop).map_err(io::Error::other)
            })
        })?;
        io::Write::flush(&mut writer.into_writer())
    }

    /// Ends the capture: no frame comes any more.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

fn listen(socket: &socket2::Socket, started: Instant, frames: &Mutex<Vec<Frame>>, lost: &AtomicU32, stop: &AtomicBool) {
    // The kernel forgets this figure when it gives it.
    let count_lost = || lost.fetch_add(sys::lost_frames(socket).unwrap_or(1), Ordering::Relaxed);
    let mut buffer = vec![MaybeUninit::new(0_u8); 66_000];
    let mut until = None;
    while until.is_none_or(|until| Instant::now() < until) {
        // What waits in the socket when the end comes was on the link before it.
        if until.is_none() && stop.load(Ordering::Relaxed) {
            until = Some(Instant::now() + LAST_FRAMES);
        }
        let Ok(length) = socket.recv(&mut buffer) else {
            count_lost();
            if until.is_some() {
                return;
            }
            continue;
        };
        let bytes = buffer.iter().take(length).map(sys::initialised).collect();
        let frame = Frame { at: started.elapsed(), bytes };
        let mut frames = frames.lock().unwrap_or_else(PoisonError::into_inner);
        if frames.len() < FRAMES {
            frames.push(frame);
        } else {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    }
    // A link that is never idle: what came since the last time it was.
    count_lost();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::link::End;
    use std::net::UdpSocket;

    const ENDS: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

    #[test]
    fn frames_that_are_lost_while_the_link_is_never_idle_are_counted_at_the_end() {
        if !crate::may_make_networks() {
            return;
        }
        let hosts = [Namespace::create("a").unwrap(), Namespace::create("b").unwrap()];
        let [one, other] = ENDS.map(|address| address.parse::<std::net::IpAddr>().unwrap());
        let end = |host, interface, addresses| End { host, interface, addresses };
        link::join(end(&hosts[0], "a0", &[(one, 24)]), end(&hosts[1], "b0", &[(other, 24)]), 1500).unwrap();
        let (index, _) = link::identify(&hosts[1], "b0").unwrap();
        let socket = hosts[1].run(|| sys::packet_socket(index, true)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let sender = hosts[0].run(|| UdpSocket::bind((one, 0))).unwrap();
        let send = || assert_eq!(sender.send_to(&[0; 1000], (other, 9)).unwrap(), 1000);
        (0..100).for_each(|_| send());
        std::thread::sleep(Duration::from_millis(50));
        let (frames, lost, stop) = (Mutex::new(Vec::new()), AtomicU32::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let end = scope.spawn(|| {
                let ended = Instant::now() + LAST_FRAMES / 2;
                while Instant::now() < ended {
                    send();
                }
                stop.store(true, Ordering::Relaxed);
                let ended = Instant::now() + LAST_FRAMES * 2;
                while Instant::now() < ended {
                    send();
                }
            });
            listen(&socket, Instant::now(), &frames, &lost, &stop);
            assert!(!end.is_finished(), "there was no idle moment to count in");
        });
        let kept = frames.into_inner().unwrap().len();
        assert!(kept > 0 && lost.into_inner() > 0, "{kept} frames were kept, and none counted as lost");
    }
}
