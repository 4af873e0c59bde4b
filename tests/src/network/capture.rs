//! Captures: what was really on a link, seen by a packet socket beside the kernel's own processing.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use socket2::Socket;

use super::link;
use super::namespace::Namespace;
use super::sys;

/// Frames that one capture keeps; more are counted as lost.
const FRAMES: usize = 400_000;

/// Octets of frames, with what the kernel keeps beside them, that may wait for the laboratory: several seconds of a busy link.
const SOCKET_BUFFER: usize = 64 << 20;

/// Octets of the longest frame.
const LONGEST: usize = 66_000;

/// How often a capture looks whether it is to end, in milliseconds.
const WAIT: u16 = 20;

/// How long frames are still taken in when a capture ends, on a link that is never idle.
const LAST_FRAMES: Duration = Duration::from_millis(200);

/// One frame on a link.
#[derive(Debug, Clone)]
pub struct Frame {
    /// When it was on the link, as the kernel says, since the start of all captures.
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
    intake: Arc<Mutex<Intake>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    /// Listens on `interface` of `host`. Times count from `started`, the same moment for every capture of a run.
    pub fn start(host: &Namespace, interface: &str, started: Instant) -> io::Result<Self> {
        let (index, _) = link::identify(host, interface)?;
        let socket = host.run(|| sys::packet_socket(index, true))?;
        setsockopt(&socket, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
        Self::take_from(socket, started)
    }

    fn take_from(socket: Socket, started: Instant) -> io::Result<Self> {
        // Without it a frame would be as late as its reader.
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        let intake = Intake { socket, is_open: true, started, frames: Vec::new(), lost: 0, buffer: vec![0; LONGEST] };
        let intake = Arc::new(Mutex::new(intake));
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (intake, stop) = (intake.clone(), stop.clone());
            move || listen(&intake, &stop)
        });
        Ok(Self { started, intake, stop, thread: Some(thread) })
    }

    /// A moment of this capture, to look only at what comes later.
    pub fn mark(&self) -> Duration {
        self.started.elapsed()
    }

    /// Looks at every frame that was on the link before the call, in order, whether or not the capture's own thread has had time
    /// for it.
    pub fn look<T>(&self, at: impl FnOnce(&[Frame]) -> T) -> T {
        let mut intake = lock(&self.intake);
        intake.take_in();
        at(&intake.frames)
    }

    /// Takes every frame out that was on the link before the call: for captures that go on for long.
    pub fn take(&self) -> Vec<Frame> {
        let mut intake = lock(&self.intake);
        intake.take_in();
        std::mem::take(&mut intake.frames)
    }

    /// Frames that the capture could not keep. A figure taken from a capture that lost frames is not to be believed.
    pub fn lost(&self) -> u32 {
        let mut intake = lock(&self.intake);
        intake.count_lost();
        intake.lost
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
            lock(&self.intake).is_open = false;
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.end();
    }
}

/// What has been taken from the socket. Whoever looks takes in what waits there first: on a busy machine the capture's own thread
/// may be late by as much as a whole trial.
#[derive(Debug)]
struct Intake {
    socket: Socket,
    is_open: bool,
    started: Instant,
    frames: Vec<Frame>,
    lost: u32,
    buffer: Vec<u8>,
}

impl Intake {
    /// Takes in every frame that was on the link before the call. Answers whether the link was idle then.
    fn take_in(&mut self) -> bool {
        // Bounded for a link on which frames come faster than they are taken in.
        let is_idle = !self.is_open || (0..FRAMES).any(|_| !self.take_one());
        self.count_lost();
        is_idle
    }

    /// Takes in one frame, if one waits.
    fn take_one(&mut self) -> bool {
        let mut stamp = nix::cmsg_space!(TimeSpec);
        let mut place = [IoSliceMut::new(&mut self.buffer)];
        let descriptor = self.socket.as_raw_fd();
        let message = loop {
            match recvmsg::<()>(descriptor, &mut place, Some(&mut stamp), MsgFlags::MSG_DONTWAIT) {
                Err(Errno::EINTR) => {}
                Err(_) => return false,
                Ok(message) => break message,
            }
        };
        let stamped = message.cmsgs().ok().and_then(|mut messages| messages.find_map(time_of));
        let age = stamped.map(since).unwrap_or_default();
        let bytes = message.iovs().flatten().copied().collect();
        // Frames keep their order, whatever the wall clock does.
        let last = self.frames.last().map_or(Duration::ZERO, |frame| frame.at);
        let at = self.started.elapsed().saturating_sub(age).max(last);
        if self.frames.len() < FRAMES {
            self.frames.push(Frame { at, bytes });
        } else {
            self.lost = self.lost.saturating_add(1);
        }
        true
    }

    /// Asks the kernel what it could not hand over; it forgets the figure when it gives it.
    fn count_lost(&mut self) {
        self.lost = self.lost.saturating_add(sys::lost_frames(&self.socket).unwrap_or(1));
    }
}

fn time_of(message: ControlMessageOwned) -> Option<SystemTime> {
    let ControlMessageOwned::ScmTimestampns(time) = message else { return None };
    SystemTime::UNIX_EPOCH.checked_add(time.into())
}

/// How long ago that was by the wall clock, the kernel's for frames.
#[allow(clippy::disallowed_methods, reason = "the laboratory's one look at the clock that frames are stamped by")]
fn since(moment: SystemTime) -> Duration {
    SystemTime::now().duration_since(moment).unwrap_or_default()
}

fn lock(intake: &Mutex<Intake>) -> MutexGuard<'_, Intake> {
    intake.lock().unwrap_or_else(PoisonError::into_inner)
}

fn listen(intake: &Mutex<Intake>, stop: &AtomicBool) {
    let Ok(waiting) = lock(intake).socket.try_clone() else { return };
    let mut until = None;
    while until.is_none_or(|until| Instant::now() < until) {
        // What waits in the socket when the end comes was on the link before it.
        if until.is_none() && stop.load(Ordering::Relaxed) {
            until = Some(Instant::now() + LAST_FRAMES);
        }
        let _ = poll(&mut [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)], WAIT);
        if lock(intake).take_in() && until.is_some() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::link::End;
    use std::net::UdpSocket;

    const ENDS: [&str; 2] = ["10.9.0.1", "10.9.0.2"];

    #[test]
    fn whoever_looks_sees_every_frame_that_was_on_the_link_before_whatever_the_captures_own_thread_has_done() {
        if !crate::may_make_networks() {
            return;
        }
        let (hosts, sender) = two_hosts();
        let capture = Capture::start(&hosts[1], "b0", Instant::now()).unwrap();
        let receiver = hosts[1].run(|| UdpSocket::bind((ENDS[1], 9))).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        for number in 0_u8..200 {
            let payload = [b"frame", &[number][..]].concat();
            send(&sender, &payload);
            receiver.recv(&mut [0; 64]).unwrap();
            let seen = capture.look(|frames| frames.iter().any(|frame| frame.bytes.ends_with(&payload)));
            assert!(seen, "datagram {number} has arrived, and whoever looked did not see it");
        }
        assert_eq!(capture.lost(), 0);
    }

    #[test]
    fn a_frame_is_as_old_as_the_kernel_says_however_late_it_is_taken_in() {
        if !crate::may_make_networks() {
            return;
        }
        let (hosts, sender) = two_hosts();
        let capture = Capture::start(&hosts[1], "b0", Instant::now()).unwrap();
        // The kernel begins to note times a moment after it is asked to.
        let ages: Vec<Duration> = (0..10).map(|_| age_of_a_frame_taken_in_late(&capture, &sender)).collect();
        assert!(ages.iter().any(|age| *age < Duration::from_millis(50)), "each was taken in after 100 ms or more: {ages:?}");
    }

    fn age_of_a_frame_taken_in_late(capture: &Capture, sender: &UdpSocket) -> Duration {
        // Nobody takes in anything while somebody looks.
        let sent = capture.look(|_| {
            let sent = capture.mark();
            send(sender, b"early");
            std::thread::sleep(Duration::from_millis(100));
            sent
        });
        let of_sender = |frame: &&Frame| frame.bytes.ends_with(b"early");
        capture.look(|frames| frames.iter().rev().find(of_sender).map(|frame| frame.at)).unwrap().saturating_sub(sent)
    }

    #[test]
    fn frames_that_are_lost_while_the_link_is_never_idle_are_counted_at_the_end() {
        if !crate::may_make_networks() {
            return;
        }
        let (hosts, sender) = two_hosts();
        let (index, _) = link::identify(&hosts[1], "b0").unwrap();
        let socket = hosts[1].run(|| sys::packet_socket(index, true)).unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        (0..100).for_each(|_| send(&sender, &[0; 1000]));
        let mut capture = Capture::take_from(socket, Instant::now()).unwrap();
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                let ended = Instant::now() + LAST_FRAMES * 10;
                while Instant::now() < ended {
                    send(&sender, &[0; 1000]);
                }
            });
            std::thread::sleep(LAST_FRAMES / 2);
            capture.end();
            assert!(!flood.is_finished(), "there was no idle moment to count in");
        });
        let kept = capture.look(<[_]>::len);
        assert!(kept > 0 && capture.lost() > 0, "{kept} frames were kept, and none counted as lost");
        assert_eq!(capture.look(<[_]>::len), kept, "a capture that has ended takes in nothing");
    }

    /// Two hosts on one link, and a socket of the first connected to the second.
    fn two_hosts() -> ([Namespace; 2], UdpSocket) {
        let hosts = [Namespace::create("a").unwrap(), Namespace::create("b").unwrap()];
        let [one, other] = ENDS.map(|address| address.parse::<std::net::IpAddr>().unwrap());
        let end = |host, interface, addresses| End { host, interface, addresses };
        link::join(end(&hosts[0], "a0", &[(one, 24)]), end(&hosts[1], "b0", &[(other, 24)]), 1500).unwrap();
        let sender = hosts[0].run(|| UdpSocket::bind((one, 0))).unwrap();
        sender.connect((other, 9)).unwrap();
        (hosts, sender)
    }

    /// Nobody listens: what the receiver's kernel says of an earlier datagram is of no interest.
    fn send(sender: &UdpSocket, payload: &[u8]) {
        while sender.send(payload).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {}
    }
}
