//! Time on the processor.

use std::io;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// A thread of this process, by which its time is read from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thread(Pid);

impl Thread {
    /// The calling one.
    pub(crate) fn current() -> Self {
        Self(gettid())
    }

    /// Those that are called `name`, of which the kernel knows the first 15 octets.
    ///
    /// # Errors
    ///
    /// The kernel does not say.
    pub(crate) fn named(name: &str) -> io::Result<Vec<Self>> {
        let known = name.get(..15).unwrap_or(name);
        let mut threads = Vec::new();
        for task in std::fs::read_dir("/proc/self/task")? {
            let task = task?;
            // One that has ended meanwhile is none of them.
            let is_it = std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == known);
            let number = task.file_name().to_str().and_then(|number| number.parse().ok());
            threads.extend(number.filter(|_| is_it).map(|number| Self(Pid::from_raw(number))));
        }
        Ok(threads)
    }

    /// How long it has been on a processor, in user and kernel together. The first figure of its `schedstat`, in nanoseconds.
    ///
    /// # Errors
    ///
    /// It has ended, or the kernel does not count.
    pub(crate) fn time(self) -> io::Result<Duration> {
        let path = format!("/proc/self/task/{}/schedstat", self.0);
        let text = std::fs::read_to_string(&path)?;
        let nanoseconds = text.split(' ').next().and_then(|first| first.parse().ok());
        nanoseconds.map(Duration::from_nanos).ok_or_else(|| io::Error::other(format!("{path}: {text:?} does not begin with a number")))
    }
}

/// Time on the wall and of one thread since it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch {
    thread: Thread,
    began: Instant,
    had: Duration,
}

impl Watch {
    pub(crate) fn start(thread: Thread) -> io::Result<Self> {
        Ok(Self { thread, began: Instant::now(), had: thread.time()? })
    }

    /// Seconds of the thread on the processor.
    pub(crate) fn busy(&self) -> io::Result<f64> {
        Ok(self.thread.time()?.saturating_sub(self.had).as_secs_f64())
    }

    /// Seconds on the wall.
    pub(crate) fn passed(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

/// Keeps the calling thread on one processor of those it may use: the `place`th, or the last.
///
/// # Errors
///
/// The kernel refuses.
pub(crate) fn pin(place: usize) -> io::Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let usable: Vec<usize> = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false)).collect();
    let Some(chosen) = usable.get(place).or(usable.last()) else { return Ok(()) };
    let mut one = CpuSet::new();
    one.set(*chosen)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &one)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_computes_gets_older_and_one_that_sleeps_does_not() {
        let watch = Watch::start(Thread::current()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let asleep = watch.busy().unwrap();
        let mut number = 1_u64;
        let until = Thread::current().time().unwrap() + Duration::from_millis(20);
        while Thread::current().time().unwrap() < until {
            number = std::hint::black_box(number.wrapping_mul(3));
        }
        assert!(watch.busy().unwrap() >= asleep + 0.015 && asleep < 0.04, "{asleep} {number}");
        assert!(watch.passed() >= 0.05);
    }
}
