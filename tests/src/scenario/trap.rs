//! A message that is lost the moment it is seen on a link, alone or with the connection that bears it.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::messages::{self, Message, Watcher};
use crate::attack::packet as made;
use crate::network::frame;
use crate::network::relay::{Fate, Relay, Way, packet, with_packet};

/// How long a message may take to come.
pub(super) const LIMIT: Duration = Duration::from_secs(12);

/// How it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The frame.
    Frame,
    /// The frame, and its association.
    Association,
    /// The frame, and the end of its association that opened it.
    Opener,
    /// The frame, and the other end.
    Opened,
}

/// A segment's place in its connection.
#[derive(Debug, Clone, Copy)]
struct Course {
    ports: (u16, u16),
    /// The number of its first octet, and of what comes next.
    first: u32,
    next: u32,
}

impl Course {
    fn of(frame: &[u8]) -> Option<Self> {
        const SYN_OR_FIN: u8 = 3;
        let seen = packet(frame).and_then(frame::read).filter(|seen| seen.protocol == 6 && seen.authentication.is_none())?;
        let (first, _) = messages::numbers(&seen)?;
        let octets = u32::try_from(messages::data(&seen).len()).ok()?;
        let flags = seen.payload.get(9)? & SYN_OR_FIN;
        Some(Self { ports: seen.ports, first, next: first.wrapping_add(octets + u32::from(flags != 0)) })
    }
}

/// What each end of each connection has been carried so far: the number that it expects next.
#[derive(Debug, Default)]
struct Courses(BTreeMap<(u16, u16), u32>);

impl Courses {
    fn follow(&mut self, course: Course) {
        let next = self.0.entry(course.ports).or_insert(course.next);
        // What is sent again is not ahead of what was carried already.
        if course.next.wrapping_sub(*next) < u32::MAX / 2 {
            *next = course.next;
        }
    }

    /// What the end that the segment goes to expects, and what its sender does.
    fn numbers(&self, course: Course) -> (u32, Option<u32>) {
        let (from, to) = course.ports;
        (self.0.get(&course.ports).copied().unwrap_or(course.first), self.0.get(&(to, from)).copied())
    }
}

/// The frame that was lost.
#[derive(Debug, Clone)]
struct Lost {
    at: Duration,
    way: Way,
    frame: Vec<u8>,
    /// Its place in a connection, and what both ends expect next.
    course: Option<(Course, (u32, Option<u32>))>,
    /// Whether the ends have been told.
    told: bool,
}

/// What loses a message.
#[derive(Debug, Clone)]
pub(super) struct Trap {
    lost: Arc<Mutex<Option<Lost>>>,
    started: Instant,
    /// What the captures' clock showed when this one started.
    offset: Duration,
    how: How,
}

impl Trap {
    /// One that is not set on any link yet; `now` is what the captures' clock shows.
    pub(super) fn new(now: Duration, how: How) -> Self {
        Self { lost: Arc::default(), started: Instant::now(), offset: now, how }
    }

    /// From now on the first such message is lost on the link.
    pub(super) fn set(&self, relay: &Relay, wanted: Message) {
        let (how, sprung) = (self.how, self.clone());
        let (mut watcher, mut courses) = (Watcher::default(), Courses::default());
        relay.set(move |way, frame| {
            let course = Course::of(frame);
            // Neither end may hear more than the resets speak of.
            if how != How::Frame && course.is_some_and(|course| sprung.is_breaking(course)) {
                return Fate::Drop;
            }
            let is_it = watcher.hear(way, frame).contains(&wanted) && sprung.is_set();
            // Where an association is to be lost, the message has to be in one.
            if !is_it || (how != How::Frame && course.is_none()) {
                course.into_iter().for_each(|course| courses.follow(course));
                return Fate::Pass;
            }
            let numbers = course.map(|course| courses.numbers(course));
            sprung.spring(Lost { at: Duration::ZERO, way, frame: frame.to_vec(), course: course.zip(numbers), told: false });
            Fate::Drop
        });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Lost>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_set(&self) -> bool {
        self.lock().is_none()
    }

    /// Whether a segment is of the connection that is being lost.
    fn is_breaking(&self, course: Course) -> bool {
        let (one, other) = course.ports;
        let lost = self.lock();
        let breaking = lost.as_ref().filter(|lost| !lost.told).and_then(|lost| lost.course);
        breaking.is_some_and(|(course, _)| [(one, other), (other, one)].contains(&course.ports))
    }

    fn spring(&self, lost: Lost) {
        let at = self.offset + self.started.elapsed();
        *self.lock() = Some(Lost { at, ..lost });
    }

    /// Waits until the message is lost, and resets its association if that is to be lost too. Gives when it was.
    pub(super) fn sprung(&self, relay: &Relay) -> io::Result<Option<Duration>> {
        let deadline = Instant::now() + LIMIT;
        while self.is_set() {
            if Instant::now() > deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let Some(lost) = self.lock().clone() else { return Ok(None) };
        if self.how != How::Frame {
            for (way, frame) in lost.resets()? {
                // Who opens an association sits before who is asked.
                let is_told = match self.how {
                    How::Frame | How::Association => true,
                    How::Opener => way == Way::Back,
                    How::Opened => way == Way::There,
                };
                if is_told {
                    relay.inject(way, &frame)?;
                }
            }
            self.lock().iter_mut().for_each(|lost| lost.told = true);
        }
        Ok(Some(lost.at))
    }
}

impl Lost {
    /// What tells both ends of the frame's connection that it is gone. Only a reset with the very number that an end expects is
    /// believed (RFC 5961 §3.2).
    fn resets(&self) -> io::Result<[(Way, Vec<u8>); 2]> {
        let back = if self.way == Way::There { Way::Back } else { Way::There };
        let seen = packet(&self.frame).and_then(frame::read);
        let seen = seen.zip(self.course).and_then(|(seen, (_, numbers))| Some((messages::numbers(&seen)?, numbers, seen)));
        let ((_, acknowledged), (expected, answer), seen) = seen.ok_or_else(|| io::Error::other("this is no segment"))?;
        let (from, to) = ((seen.source, seen.ports.0), (seen.destination, seen.ports.1));
        let mut turned = self.frame.clone();
        if let Some((one, rest)) = turned.split_first_chunk_mut::<6>()
            && let Some(other) = rest.first_chunk_mut::<6>()
        {
            std::mem::swap(one, other);
        }
        Ok([
            (self.way, with_packet(&self.frame, &made::tcp_reset(from, to, expected)?)),
            (back, with_packet(&turned, &made::tcp_reset(to, from, answer.unwrap_or(acknowledged))?)),
        ])
    }
}
