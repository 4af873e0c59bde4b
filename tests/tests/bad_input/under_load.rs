//! What happens to a router while much traffic comes that nobody has permitted: it is killed, somebody flushes its rules, its links go and
//! change. What is permitted goes on afterwards, and nothing else ever passes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::capture::{Capture, Frame};
use pbs_lab::network::topology::{LEFT_LINK, MTU, RECEIVER, RECEIVER_LINK, RIGHT_LINK, SENDER, SENDER_LINK};
use pbs_lab::network::{frame, link};
use smoltcp::wire::Ipv4Packet;

use crate::guard::flush;
use crate::support::daemon::{Daemon, wait_until};
use crate::support::site::{Application, Running, Site};

/// What every packet says that nobody has permitted.
const FORGED: &[u8] = b"nobody has permitted this";
/// Octets of IPv4 header and AH of HMAC-SHA-256-128.
const HEADS: usize = 20 + 28;
/// What was under way behind the router has arrived by then.
pub(crate) const LATE: Duration = Duration::from_millis(200);
/// A UDP header.
const UDP: usize = 8;

/// Every datapath: one queue or several, with the shield and without.
#[test]
fn a_router_killed_in_a_flood_lets_nothing_unverified_pass_and_goes_on_when_it_runs_again() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for datapath in ["shield = false\nworkers = 3\n", "shield = true\nworkers = 1\n"] {
        let mut scene = Scene::build(datapath);
        for _ in 0..2 {
            scene.must_drop(500);
            scene.router.take().unwrap().kill();
            let mark = scene.behind.mark() + LATE;
            let sent = scene.flood.sent.load(Ordering::Relaxed);
            wait_until("the flood goes on", || scene.flood.sent.load(Ordering::Relaxed) > sent + 5000);
            assert_eq!(scene.behind.look(|frames| passed(frames, mark).count()), 0, "{datapath}");
            scene.router = Some(scene.site.start_router());
            scene.must_go_on();
        }
        scene.must_drop(500);
        scene.nothing_forged_has_passed();
        let status = scene.router().ask("status");
        assert_eq!(status["rules"]["stand"], true);
        let threads = status["threads_running"].as_object().unwrap();
        assert!(threads.values().all(|runs| runs == true), "{threads:?}");
        assert_eq!(threads.contains_key("data-2"), datapath.contains('3'), "{threads:?}");
    }
}

/// Packets that wait for their verdict go with the link, and the kernel refuses what is said of them; and what a link carries changes.
#[test]
fn links_that_go_down_and_carry_less_under_a_flood_cost_packets_that_are_counted_and_the_flow_goes_on() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let scene = Scene::build("workers = 2\n");
    let router = &scene.site.chain.router;
    for _ in 0..3 {
        scene.must_go_on();
        // While the daemon stands still the packets wait in the kernel.
        kill(scene.router().pid(), Signal::SIGSTOP).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        link::take_down(router, RIGHT_LINK).unwrap();
        link::bring_up(router, RIGHT_LINK).unwrap();
        kill(scene.router().pid(), Signal::SIGCONT).unwrap();
    }
    scene.must_go_on();
    wait_until("verdicts that the kernel refused are counted", || scene.dropped("verdict_failed") > 0);
    let queues = scene.router().ask("counters")["data"]["queues"].clone();
    let refused: u64 = queues.as_array().unwrap().iter().map(|row| row["faults"]["verdicts"].as_u64().unwrap()).sum();
    assert!(refused >= scene.dropped("verdict_failed"), "{queues}");

    let long = [7; 1400];
    for mtu in [1300, MTU] {
        link::set_mtu(router, RIGHT_LINK, mtu).unwrap();
        scene.must_go_on();
        let mark = scene.behind.mark();
        wait_until("long datagrams arrive again", || {
            scene.application.send_octets(&long);
            std::thread::sleep(Duration::from_millis(20));
            scene.behind.look(|frames| passed(frames, mark).any(|ip| ip.windows(500).any(|octets| long.starts_with(octets))))
        });
    }
    scene.must_drop(100);
    scene.nothing_forged_has_passed();
    let status = scene.router().ask("status");
    assert_eq!((&status["rules"]["restored"], &status["rules"]["stand"]), (&0.into(), &true.into()));
}

/// Nobody else can take away what a running router holds.
#[test]
fn no_forged_packet_of_a_flood_passes_while_somebody_flushes_the_filter_rules() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for datapath in ["shield = false\nworkers = 2\n", "shield = true\nworkers = 2\n"] {
        let scene = Scene::build(datapath);
        for _ in 0..10 {
            flush(&scene.site.chain.router);
            scene.must_go_on();
            scene.must_drop(500);
        }
        scene.nothing_forged_has_passed();
        let rules = scene.router().ask("status")["rules"].clone();
        assert_eq!((&rules["stand"], &rules["held"], &rules["restored"]), (&true.into(), &true.into(), &0.into()), "{datapath}");
    }
}

/// A soak that is too short to say anything of memory: `pbs-lab soak` makes longer ones.
#[test]
fn of_what_comes_while_permissions_come_and_go_every_packet_goes_on_or_is_counted() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    pbs_lab::process::laboratory_is(env!("CARGO_BIN_EXE_pbs-lab"));
    for (workers, shield) in [(2, false), (1, true)] {
        let lasts = Duration::from_secs(4);
        let outcome = pbs_lab::soak::run(pbs_lab::soak::Options { lasts, workers, shield }, |_| {}).unwrap();
        assert!(outcome.holds, "{}", outcome.text());
    }
}

/// A permitted flow that runs, and a flood beside it.
pub(crate) struct Scene {
    flood: Flood,
    running: Running,
    application: Application,
    router: Option<Daemon>,
    _hosts: [Daemon; 2],
    pub(crate) behind: Capture,
    pub(crate) site: Site,
}

impl Scene {
    fn build(datapath: &str) -> Self {
        Self::build_with(datapath, Site::start_router)
    }

    /// With a router that is started in another way.
    pub(crate) fn build_with(datapath: &str, start_router: impl Fn(&Site) -> Daemon) -> Self {
        let site = Site::build();
        for host in ["sender.toml", "receiver.toml"] {
            site.files.write(host, site.files.read(host).replace("100000", "50000000"));
        }
        site.files.write("router.toml", site.files.read("router.toml") + "[datapath]\n" + datapath);
        let chain = &site.chain;
        let before = Capture::start(&chain.router, LEFT_LINK, Instant::now()).unwrap();
        let behind = Capture::start(&chain.receiver, RECEIVER_LINK, Instant::now()).unwrap();
        let application = site.application(RECEIVER);
        let hosts = [site.start_receiver(), site.start_sender()];
        let router = Some(start_router(&site));
        let running = application.run();
        wait_until("the flow runs", || running.arrived() > 10);
        let genuine = before.look(|frames| {
            let sealed = |ip: &&[u8]| frame::read(ip).is_some_and(|seen| seen.source == SENDER && seen.authentication.is_some());
            frames.iter().filter_map(Frame::ip).rfind(sealed).expect("a packet under AH").to_vec()
        });
        let injector = Injector::new(&chain.sender, SENDER_LINK, &chain.router, LEFT_LINK).unwrap();
        let flood = Flood::start(injector, forged(&genuine));
        Self { flood, running, application, router, _hosts: hosts, behind, site }
    }

    pub(crate) fn router(&self) -> &Daemon {
        self.router.as_ref().unwrap()
    }

    /// Packets that the router has dropped for a reason, or for any.
    fn dropped(&self, reason: &str) -> u64 {
        let counters = self.router().ask("counters");
        let rows = counters["data"]["dropped"].as_array().unwrap();
        rows.iter().filter(|row| reason.is_empty() || row["reason"] == reason).filter_map(|row| row["packets"].as_u64()).sum()
    }

    #[track_caller]
    pub(crate) fn must_drop(&self, more: u64) {
        let before = self.dropped("");
        wait_until("the flood is dropped", || self.dropped("") >= before + more);
    }

    #[track_caller]
    pub(crate) fn must_go_on(&self) {
        let before = self.running.arrived();
        wait_until("the flow goes on", || self.running.arrived() >= before + 5);
    }

    /// Packets that nobody has permitted, and that came out of the router later than `mark`.
    pub(crate) fn forged(&self, mark: Duration) -> usize {
        let forged = |ip: &[u8]| ip.windows(FORGED.len()).any(|octets| octets == FORGED);
        self.behind.look(|frames| passed(frames, mark).filter(|ip| forged(ip)).count())
    }

    #[track_caller]
    fn nothing_forged_has_passed(&self) {
        assert_eq!(self.behind.lost(), 0);
        assert!(self.behind.look(|frames| passed(frames, Duration::ZERO).count()) > 20, "what is permitted has passed");
        assert_eq!(self.forged(Duration::ZERO), 0);
        let is_bare = |ip: &[u8]| frame::read(ip).is_some_and(|seen| seen.authentication.is_none() && seen.ports.1 == 9000);
        assert_eq!(self.behind.look(|frames| passed(frames, Duration::ZERO).filter(|ip| is_bare(ip)).count()), 0);
    }
}

/// Packets of the sender that came out of the router, later than `mark`.
fn passed(frames: &[Frame], mark: Duration) -> impl Iterator<Item = &[u8]> {
    let later = frames.iter().filter(move |frame| frame.at > mark).filter_map(Frame::ip);
    later.filter(|ip| frame::read(ip).is_some_and(|seen| seen.source == SENDER && seen.destination == RECEIVER))
}

/// Packets with made-up SPIs, without AH, and under the flow's own SPI with another's words.
fn forged(genuine: &[u8]) -> Vec<Vec<u8>> {
    let spoilt = |spi: Option<u32>| {
        let mut packet = [&genuine[..HEADS + UDP], FORGED].concat();
        if let Some(spi) = spi {
            packet[24..28].copy_from_slice(&spi.to_be_bytes());
        }
        let length = u16::try_from(packet.len()).unwrap();
        let mut header = Ipv4Packet::new_unchecked(&mut packet);
        header.set_total_len(length);
        header.fill_checksum();
        packet
    };
    let bare = |port| packet::udp((SENDER, port), (RECEIVER, 9000), FORGED).unwrap();
    (0..8).flat_map(|number| [spoilt(Some(0x7000_0000 + number)), bare(4000), spoilt(None), bare(9001)]).collect()
}

/// Sends until this value goes: some thousand packets a second.
struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    fn start(injector: Injector, packets: Vec<Vec<u8>>) -> Self {
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::spawn({
            let (sent, stop) = (Arc::clone(&sent), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    sent.fetch_add(injector.flood(&packets).unwrap_or(0), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(3));
                }
            }
        });
        Self { sent, stop, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
