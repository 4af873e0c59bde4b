//! One of a hundred sources floods a router with Queries, on real sockets: what becomes of the others' grants. Each of them is a host
//! with an address, a certificate and a daemon of its own; the ninety-nine share one link, through a switch, and the hundredth has
//! another to itself.
//!
//! Everything runs on one machine: the flooding host takes a processor away as well, which no schedule of the router's can give back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use serde_json::{Value, json};

use crate::ground::ASSOCIATION_PORT;
use crate::network::link::{self, End};
use crate::network::namespace::Namespace;
use crate::network::topology::{self, RECEIVER};
use crate::pki::{Authority, KeyKind};
use crate::process::{Daemon, Program};
use crate::remains::Remainder;

/// How many keep to the rules.
const HONEST: u8 = 99;
/// How many of them are built at once: an interface takes up to a second until it carries packets.
const BUILDERS: usize = 12;
/// The switch that they share a link through, and its interface towards the router.
const SWITCH: &str = "sw0";
const UPLINK: &str = "up0";
const FLOODER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 23, 1));
const ROUTER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 23, 254));
const PORT: u16 = 9001;
/// Between two new flows of any of the ninety-nine.
const PAUSE: Duration = Duration::from_millis(30);
/// How long after its first packet a flow counts as not granted.
const LIMIT: Duration = Duration::from_secs(3);
/// How long the flood may take until it flows.
const SWELL: Duration = Duration::from_secs(3);

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How many flows each source asks for, without and with the flood.
    pub rounds: u32,
}

/// What became of the ninety-nine.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Without a flood.
    pub unloaded: Grants,
    /// With it.
    pub flooded: Grants,
    /// Queries that the flooder handed to its association while it was measured.
    pub flood_sent: u64,
    /// Of those, how many came to the router and were refused, in all.
    pub refused: u64,
    /// Queries a second that the router refused.
    pub refused_per_second: f64,
    /// What the router said of the messages that wait: the most seen.
    pub most_waiting: u64,
    /// Octets that they count for at most.
    pub most_octets: u64,
    /// Memory of the router's process in octets, before the flood and at most while it lasted.
    pub memory: [u64; 2],
    /// What must be, and whether it is.
    pub checks: Vec<(String, bool)>,
    /// Whether all of it is.
    pub holds: bool,
}

/// Grants of new flows.
#[derive(Debug, Default, Serialize)]
pub struct Grants {
    /// Flows asked for.
    pub asked: usize,
    /// Those whose first packet arrived.
    pub granted: usize,
    /// Milliseconds from the first packet's sending to its arrival, half of them less.
    pub median: f64,
    /// One in a hundred more.
    pub p99: f64,
}

/// Plays it. `progress` hears what is being done.
pub fn run(options: Options, progress: impl Fn(&str)) -> io::Result<Outcome> {
    progress("building a hundred sources, router, receiver and certificates; starting their daemons (30 s)");
    let site = Site::build()?;
    let receiver = Receiver::start(&site)?;
    progress("one flow each, so that associations and certificates are known");
    site.ask(&receiver, 1)?;
    progress("new flows without a flood");
    let unloaded = site.ask(&receiver, options.rounds)?;
    let before = site.memory()?;
    progress("the flood begins");
    let flooder = Daemon::start(&site.flooder, Program::FloodingHost, &site.directory, "flooder")?;
    let socket = site.flooder.run(|| UdpSocket::bind((FLOODER, 0)))?;
    socket.send_to(b"may I?", (RECEIVER, PORT))?;
    std::thread::sleep(SWELL);
    progress("new flows under it");
    let (refused_before, sent_before, begun) = (site.refused()?, sent(&flooder)?, Instant::now());
    let watch = Watch::start(&site)?;
    let flooded = site.ask(&receiver, options.rounds)?;
    let seconds = begun.elapsed().as_secs_f64();
    let (most_waiting, most_octets, most_memory) = watch.end();
    let (refused, flood_sent) = (site.refused()? - refused_before, sent(&flooder)? - sent_before);
    let share = flooded.granted as f64 * 100.0 / unloaded.granted.max(1) as f64;
    let checks = vec![
        (
            format!("every flow is granted without a flood: {} of {}", unloaded.granted, unloaded.asked),
            unloaded.granted == unloaded.asked && unloaded.asked > 0,
        ),
        (format!("under the flood 95 % of them: {share:.1} %"), share >= 95.0),
        (
            format!("p99 under the flood {:.1} ms, at most three times that without, {:.1} ms", flooded.p99, unloaded.p99),
            flooded.p99 <= 3.0 * unloaded.p99,
        ),
        (format!("the flood was one: {refused} Queries refused"), refused > 1000),
        (format!("what waits stays within its bound: {most_octets} octets"), most_octets <= daemon::drive::WAITING_OCTETS as u64),
    ];
    let holds = checks.iter().all(|(_, holds)| *holds);
    let refused_per_second = refused as f64 / seconds;
    let memory = [before, most_memory];
    Ok(Outcome { unloaded, flooded, flood_sent, refused, refused_per_second, most_waiting, most_octets, memory, checks, holds })
}

impl Outcome {
    /// What a person reads.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (name, Grants { asked, granted, median, p99 }) in [("without a flood", &self.unloaded), ("under the flood", &self.flooded)] {
            let _ = writeln!(text, "{name}: {granted} of {asked} granted, median {median:.2} ms, p99 {p99:.2} ms");
        }
        let Self { flood_sent, refused, refused_per_second, most_waiting, most_octets, memory, .. } = self;
        let _ = writeln!(
            text,
            "the flood: {flood_sent} Queries handed down, {refused} refused by the router, {refused_per_second:.0} a second"
        );
        let _ = writeln!(
            text,
            "at the router: at most {most_waiting} messages waited, {most_octets} octets; memory of its process {} to {} octets",
            memory[0], memory[1]
        );
        for (check, holds) in &self.checks {
            let _ = writeln!(text, "{} {check}", if *holds { "holds " } else { "BROKEN" });
        }
        text
    }
}

struct Site {
    router: Daemon,
    /// Those that keep to the rules.
    sources: Vec<Source>,
    /// Kept running.
    _receiver: Daemon,
    receiver: Namespace,
    flooder: Namespace,
    /// Kept standing.
    _network: [Namespace; 2],
    directory: std::path::PathBuf,
    /// Removes the directory, last of all.
    _remainder: Remainder,
}

/// One source.
struct Source {
    /// Kept running.
    _daemon: Daemon,
    host: Namespace,
    address: IpAddr,
}

impl Site {
    fn build() -> io::Result<Self> {
        let (remainder, directory) = Remainder::temporary("pbs-lab-flood")?;
        prepare(&directory)?;
        let [router, switch, receiver, flooder] =
            ["router", "switch", "receiver", "flooder"].map(Namespace::create).map(|host| host.map_err(io::Error::other));
        let (router, switch, receiver, flooder) = (router?, switch?, receiver?, flooder?);
        router.write_setting("net/ipv4/ip_forward", "1")?;
        link::add_switch(&switch, SWITCH)?;
        let end = |host, interface, address| End { host, interface, addresses: address };
        link::join(end(&switch, UPLINK, &[]), end(&router, "r0", &[(topology::ROUTER_LEFT, 24)]), topology::MTU)?;
        link::plug_in(&switch, UPLINK, SWITCH)?;
        link::join(end(&receiver, "d0", &[(RECEIVER, 24)]), end(&router, "r1", &[(topology::ROUTER_RIGHT, 24)]), topology::MTU)?;
        link::join(end(&flooder, "f0", &[(FLOODER, 24)]), end(&router, "r2", &[(ROUTER, 24)]), topology::MTU)?;
        link::add_default_route(&receiver, topology::ROUTER_RIGHT)?;
        link::add_default_route(&flooder, ROUTER)?;
        let start = |host, program, name| Daemon::start(host, program, &directory, name);
        let daemons = (start(&router, Program::Router, "router")?, start(&receiver, Program::Host, "receiver")?);
        let sources = Source::all(&switch, &directory)?;
        let (_receiver, _network) = (daemons.1, [router, switch]);
        Ok(Self { router: daemons.0, sources, _receiver, receiver, flooder, _network, directory, _remainder: remainder })
    }

    /// Every honest source sends the first packet of a new flow, in turn, so many times.
    fn ask(&self, receiver: &Receiver, rounds: u32) -> io::Result<Grants> {
        let (begun, mut sent) = (Instant::now(), BTreeMap::new());
        for _ in 0..rounds {
            for Source { host, address, .. } in &self.sources {
                let socket = host.run(|| UdpSocket::bind((*address, 0)))?;
                sent.insert(socket.local_addr()?, Instant::now());
                socket.send_to(b"may I?", (RECEIVER, PORT))?;
                let due = begun + PAUSE * sent.len() as u32;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        }
        std::thread::sleep(LIMIT);
        let arrived = receiver.take();
        let times = sent.iter().filter_map(|(address, sent)| Some(arrived.get(address)?.saturating_duration_since(*sent)));
        let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3).collect();
        times.sort_by(f64::total_cmp);
        let at = |share: usize| times.get((times.len() * share / 100).min(times.len().saturating_sub(1))).copied().unwrap_or(f64::INFINITY);
        Ok(Grants { asked: sent.len(), granted: times.len(), median: at(50), p99: at(99) })
    }

    fn refused(&self) -> io::Result<u64> {
        let status = self.router.ask(&json!({ "command": "status" }))?;
        let refused = status.pointer("/nslp/refused").and_then(Value::as_object).into_iter().flatten();
        Ok(refused.filter_map(|(_, count)| count.as_u64()).sum())
    }

    fn memory(&self) -> io::Result<u64> {
        memory(self.router.id()?)
    }
}

impl Source {
    /// Builds those that keep to the rules, their hosts several at once; a daemon lives no longer than the thread that starts it.
    fn all(switch: &Namespace, directory: &Path) -> io::Result<Vec<Self>> {
        let numbers: Vec<u8> = (1..=HONEST).collect();
        let built = std::thread::scope(|scope| {
            let build = |part: &[u8]| part.iter().map(|n| Ok((*n, build_host(*n, switch)?))).collect::<io::Result<Vec<_>>>();
            let parts = numbers.chunks(numbers.len().div_ceil(BUILDERS)).map(|part| scope.spawn(move || build(part)));
            let parts: Vec<_> = parts.collect();
            let join = |part: std::thread::ScopedJoinHandle<'_, io::Result<Vec<(u8, Namespace)>>>| {
                part.join().unwrap_or_else(|_| Err(io::Error::other("a thread that builds hosts panicked")))
            };
            parts.into_iter().map(join).collect::<io::Result<Vec<_>>>()
        })?;
        let start = |(n, host): (u8, Namespace)| {
            let daemon = Daemon::start(&host, Program::Host, directory, &source_name(n))?;
            Ok(Self { _daemon: daemon, host, address: source(n) })
        };
        built.into_iter().flatten().map(start).collect()
    }
}

fn build_host(n: u8, switch: &Namespace) -> io::Result<Namespace> {
    let (host, plug) = (Namespace::create(&source_name(n))?, format!("e{n}"));
    link::join(
        End { host: &host, interface: topology::SENDER_LINK, addresses: &[(source(n), 24)] },
        End { host: switch, interface: &plug, addresses: &[] },
        topology::MTU,
    )?;
    link::plug_in(switch, &plug, SWITCH)?;
    link::add_default_route(&host, topology::ROUTER_LEFT)?;
    Ok(host)
}

fn source(n: u8) -> IpAddr {
    [192, 168, 20, 100 + n].into()
}

fn source_name(n: u8) -> String {
    format!("source-{n}")
}

fn sent(flooder: &Daemon) -> io::Result<u64> {
    let counters = flooder.ask(&json!({ "command": "counters" }))?;
    let number = |name: &str| counters.pointer(&format!("/flood/{name}")).and_then(Value::as_u64).unwrap_or(0);
    Ok(number("sent").saturating_sub(number("turned_back")))
}

/// Memory in use by a process, in octets.
pub(crate) fn memory(process: u32) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| io::Error::other("the kernel does not say how much memory is in use"))
}

fn prepare(directory: &Path) -> io::Result<()> {
    let authority = Authority::create("pbs-lab authority")?;
    std::fs::write(directory.join("ca.crt"), authority.certificate())?;
    let mut nodes: Vec<(String, &str, Vec<IpAddr>)> = (1..=HONEST).map(|n| (source_name(n), "host", vec![source(n)])).collect();
    nodes.extend([
        ("router".to_owned(), "router", vec![topology::ROUTER_LEFT, topology::ROUTER_RIGHT, ROUTER]),
        ("receiver".to_owned(), "host", vec![RECEIVER]),
        ("flooder".to_owned(), "host", vec![FLOODER]),
    ]);
    for (name, role, addresses) in nodes {
        authority.issue(directory, &name, &addresses, KeyKind::Ed25519)?;
        let common = format!(
            "role = \"{role}\"\nname = \"{name}\"\ncontrol_socket = \"{name}.sock\"\nlog = \"json\"\n\n\
             [identity]\ncertificate = \"{name}.crt\"\nkey = \"{name}.key\"\ntrust_anchors = \"ca.crt\"\n\n\
             [gist]\nassociation_port = {ASSOCIATION_PORT}\n\n\
             [[gist.peer]]\ndns_name = \"router.pbs.test\"\nrole = \"router\"\nallow = true\n\n\
             [[gist.peer]]\ndns_name = \"*.pbs.test\"\nallow = true\n\n"
        );
        let own = match name.as_str() {
            "router" => "",
            "receiver" => {
                "[[grant]]\nsource = \"192.168.0.0/16\"\nprotocol = \"udp\"\ndestination_ports = \"9000-9999\"\n\
                 volume = 1000000\nttl = \"600s\"\nrefresh = \"60s\"\n"
            }
            _ => "[[ask]]\ndestination = \"192.168.21.0/24\"\nprotocol = \"udp\"\ndestination_ports = \"9000-9999\"\nvolume = 1000000\n",
        };
        std::fs::write(directory.join(format!("{name}.toml")), common + own)?;
    }
    Ok(())
}

/// Who receives, and when what arrived.
struct Receiver {
    arrived: Arc<Mutex<BTreeMap<SocketAddr, Instant>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    fn start(site: &Site) -> io::Result<Self> {
        let socket = site.receiver.run(|| UdpSocket::bind((RECEIVER, PORT)))?;
        setsockopt(&socket, sockopt::RcvBufForce, &(4 << 20))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let (arrived, stop) = (Arc::new(Mutex::new(BTreeMap::new())), Arc::new(AtomicBool::new(false)));
        let (taken, ended) = (arrived.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                if let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                    taken.lock().unwrap_or_else(PoisonError::into_inner).entry(from).or_insert_with(Instant::now);
                }
            }
        });
        Ok(Self { arrived, stop, thread: Some(thread) })
    }

    fn take(&self) -> BTreeMap<SocketAddr, Instant> {
        std::mem::take(&mut *self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Looks at the router's process from outside, ten times a second.
struct Watch {
    most: Arc<Mutex<(u64, u64, u64)>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start(site: &Site) -> io::Result<Self> {
        let (process, control) = (site.router.id()?, site.directory.join("router.sock"));
        let (most, stop) = (Arc::new(Mutex::new((0, 0, 0))), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (most.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let status = crate::process::ask(&control, traffic::rules::Role::Router, &json!({ "command": "status" }));
                let number = |name: &str| {
                    let status = status.as_ref().ok()?;
                    status.pointer(&format!("/waiting/{name}"))?.as_u64()
                };
                let now = (number("messages").unwrap_or(0), number("octets").unwrap_or(0), memory(process).unwrap_or(0));
                let mut most = seen.lock().unwrap_or_else(PoisonError::into_inner);
                *most = (most.0.max(now.0), most.1.max(now.1), most.2.max(now.2));
                drop(most);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        Ok(Self { most, stop, thread })
    }

    fn end(self) -> (u64, u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        *self.most.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
