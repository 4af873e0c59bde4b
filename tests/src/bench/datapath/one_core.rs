//! How many packets a second a router with one processor takes without losing any: by AF_XDP, and behind the queue.
//!
//! The generator has the first processor, and the sink takes in there what arrives. The second is the router's: its worker is kept there, and
//! so is a thread of the kernel's by which its interface's packets are taken in (threaded NAPI, which virtual links have where packets are
//! gathered or an XDP program stands). In the second row the worker takes them in itself (`busy_poll`), and the interface waits for that: it
//! has no such thread, and the clock by which it looks after the worker runs on the worker's processor. Sender, links and packets are the same.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::unistd::Pid;
use traffic::algorithm::MacAlgorithm;
use traffic::worker::processors;

use super::consumer::{self, Checked, Consumer};
use super::generator::{Pace, Stock};
use super::way::{Made, Way};
use crate::bench::pairs::{Goal, Measure, Sample, Trial};
use crate::network::namespace::Namespace;
use crate::network::sys;

/// Packets of one try.
const PACKETS: usize = 60_000;
/// Octets of each before AH.
const LEN: usize = 1372;
/// Between which rates the highest is looked for, in packets a second, and how near it is found.
const RATES: [f64; 2] = [40_000.0, 1_200_000.0];
const NEAR: f64 = 1.03;
/// A rate is free of loss if one of so many tries is: whatever else runs on the machine takes processors away at times.
const TRIES: usize = 3;
/// A try counts if the generator has kept the pace so far.
const KEPT: f64 = 0.97;

/// A way with its processors given out, once it is needed.
#[derive(Default)]
struct OneCore {
    way: Way,
    arranged: OnceLock<()>,
}

/// The rows.
pub(super) fn trials() -> Vec<Trial> {
    let stock = Arc::new(Stock::new(PACKETS, LEN));
    let measure = |consumer: Consumer| -> Measure {
        let (side, stock) = (OneCore::default(), Arc::clone(&stock));
        Box::new(move || side.highest(&stock, consumer))
    };
    let algorithm = MacAlgorithm::HmacSha256_128;
    let trial = |name: &str, goal, ours| Trial {
        name: format!("one core: the verifier past the queue (AF_XDP){name}"),
        unit: "packets per second without loss, everything of the router's on one processor",
        goal,
        bound_is: "the same verifier behind the queue, on the same processor",
        ours: measure(ours),
        bound: measure(Consumer::Verify(algorithm, Checked::Together)),
    };
    vec![
        trial("", Goal::Told, Consumer::PastTheQueue(algorithm)),
        trial(", which polls the interface itself", Goal::RatioAtLeast(2.5), Consumer::Polling(algorithm)),
    ]
}

impl OneCore {
    /// The highest rate at which nothing is lost.
    fn highest(&self, stock: &Stock, consumer: Consumer) -> io::Result<Sample> {
        let made = self.way.get()?;
        if self.arranged.get().is_none() {
            arrange(made, matches!(consumer, Consumer::Polling(_)))?;
            let _ = self.arranged.set(());
        }
        let [mut good, mut bad] = RATES;
        let (mut tries, mut kept, mut worker) = (0.0, 0.0, 0.0);
        while bad / good > NEAR {
            let rate = (good * bad).sqrt();
            let mut free = false;
            for _ in 0..TRIES {
                tries += 1.0;
                let (lost, sample) = consumer::lost(&self.way, stock, consumer, Pace::PerSecond(rate as u32))?;
                let offered = sample.besides.get("offered a second").copied().unwrap_or_default();
                free = lost == 0 && offered > KEPT * rate;
                if free {
                    (kept, worker) = (offered, 1e9 / sample.value);
                    break;
                }
            }
            if free { good = rate } else { bad = rate }
        }
        Ok(Sample::of(good).with("tries", tries).with("offered a second", kept).with("ns of the worker's thread per packet", worker))
    }
}

/// Gives out the processors.
fn arrange(made: &Made, polls: bool) -> io::Result<()> {
    let [first, second, ..] = *processors() else { return Err(io::Error::other("this row needs two processors")) };
    write(&made.sink, "far1/queues/rx-0/rps_cpus", &format!("{:x}", 1_u64 << first))?;
    if polls {
        write(&made.router, "near1/napi_defer_hard_irqs", "2")?;
        return write(&made.router, "near1/gro_flush_timeout", "200000");
    }
    made.router.run(|| sys::gather_packets("near1"))?;
    write(&made.router, "near1/threaded", "1")?;
    let mut one = CpuSet::new();
    one.set(second)?;
    let mut found = false;
    for process in std::fs::read_dir("/proc")?.flatten() {
        let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        let Some(number) = process.file_name().to_str().and_then(|number| number.parse().ok()) else { continue };
        if name.starts_with("napi/near1") {
            sched_setaffinity(Pid::from_raw(number), &one)?;
            found = true;
        }
    }
    if found { Ok(()) } else { Err(io::Error::other("the kernel has no thread that takes in what the router's interface brings")) }
}

/// Writes a setting of an interface.
fn write(namespace: &Namespace, path: &str, value: &str) -> io::Result<()> {
    let path = Path::new("/sys/class/net").join(path);
    namespace.run(|| {
        // The file system shows the namespace of whoever mounts it.
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
        std::fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    })
}
