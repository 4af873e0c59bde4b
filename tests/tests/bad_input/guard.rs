//! Hands that others lay on a running daemon's filter rules, and parts of a daemon that die: a node never stays open unless
//! somebody has asked for it.

use std::ffi::OsString;
use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::link;
use pbs_lab::network::namespace::{Lifetime, Namespace};
use pbs_lab::network::topology::{LEFT_LINK, RECEIVER, SENDER, SENDER_LINK};
use pbs_lab::process::Program::{self, Host, Router};
use router_agent::Parts;
use serde_json::Value;
use traffic::algorithm::IcvKey;
use traffic::checks::Checks;
use traffic::netlink::{Batch, NetlinkError, Protocol, Socket};
use traffic::packet::IpPacket;
use traffic::rules::{Role, RouterRules, counters};

use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::Files;
use crate::support::site::Site;
use crate::support::{command, end_in, has_rules, with_config};
use crate::unheld::install_unowned;

/// What `nft flush ruleset` does: every table of every program is gone.
pub(crate) fn flush(host: &Namespace) {
    host.run(|| {
        let mut batch = Batch::new("flush the rule set");
        batch.unanswered(0x10, &[0, 0, 0, 10]);
        batch.request("delete every table", 0x0a02, 0, &[0; 4], |_| {});
        batch.unanswered(0x11, &[0, 0, 0, 10]);
        Socket::open(Protocol::Netfilter).and_then(|socket| socket.transact(batch)).map_err(io::Error::other)
    })
    .unwrap();
}

fn role(program: Program) -> Role {
    if program == Router { Role::Router } else { Role::Host }
}

/// Chain and name of each counted rule.
pub(crate) fn names(host: &Namespace, program: Program) -> Vec<String> {
    let counters = host.run(|| counters(role(program)).map_err(io::Error::other)).unwrap();
    counters.iter().map(|counter| format!("{} {} {}", counter.family, counter.chain, counter.rule)).collect()
}

#[test]
fn a_flush_of_everything_passes_by_what_a_running_daemon_holds() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for program in [Router, Host] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        let daemon = Daemon::start(&host, program, &files, "node");
        let before = names(&host, program);
        (0..3).for_each(|_| flush(&host));
        let rules = daemon.ask("status")["rules"].clone();
        let [stand, held, opened, restored] = ["stand", "held", "opened", "restored"].map(|field| &rules[field]);
        assert_eq!((stand, held, opened, restored), (&true.into(), &true.into(), &false.into(), &0.into()), "{rules}");
        assert_eq!(names(&host, program), before);
        daemon.kill();
        assert_eq!(names(&host, program), before, "they outlive the daemon as ever");
        let daemon = Daemon::start(&host, program, &files, "node");
        assert_eq!((names(&host, program), &daemon.ask("status")["rules"]["held"]), (before, &true.into()), "once, and held again");
        drop(daemon);
        // Nobody holds them now.
        flush(&host);
        assert!(!has_rules(&host));
    }
}

#[test]
fn a_site_goes_on_after_every_node_was_flushed() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let application = site.application(RECEIVER);
    let (receiver, router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    let pass = || {
        wait_until("a datagram arrives", || {
            application.send();
            application.arrives(Duration::from_millis(50))
        });
    };
    pass();
    for (host, daemon) in [(&site.chain.sender, &sender), (&site.chain.router, &router), (&site.chain.receiver, &receiver)] {
        flush(host);
        application.send();
        assert!(application.arrives(Duration::from_secs(2)), "the permission stands, and nothing had to be put back");
        assert_eq!(daemon.ask("status")["rules"]["restored"], 0);
    }
}

#[test]
fn opening_goes_through_the_daemon_that_lives_and_stays_until_it_starts_again() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for program in [Router, Host] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        let daemon = Daemon::start(&host, program, &files, "node");
        // Whoever goes past the daemon is told that it lives.
        let elsewhere = files.read("node.toml").replace("node.sock", "nowhere.sock");
        let past = end_in(&host, with_config(program, "open", files.write("elsewhere.toml", elsewhere)).arg("--yes"));
        past.must_say(2, &["a running daemon holds its filter rules", "--control"]);
        assert!(has_rules(&host));

        end_in(&host, with_config(program, "open", files.path("node.toml")).arg("--yes"))
            .must_say(0, &["WARN", "the filter rules are gone"]);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!has_rules(&host), "nobody puts them back");
        let status = daemon.ask("status");
        assert_eq!((&status["rules"]["stand"], &status["rules"]["opened"]), (&false.into(), &true.into()));
        daemon.wait_for_log(&["WARN", "opened by request"]);
        assert_eq!(daemon.terminate().code(), Some(0));
        assert!(!has_rules(&host));
        let daemon = Daemon::start(&host, program, &files, "node");
        assert!(has_rules(&host), "closed again");
        assert_eq!(daemon.ask("status")["rules"]["opened"], false);
    }
}

#[test]
fn a_configuration_that_cannot_be_used_closes_a_node_that_nobody_has_closed_before() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for program in [Router, Host] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        let broken = files.write("broken.toml", "name = \n");
        for verb in ["check", "status", "flows"] {
            let mut other = command(program, verb);
            let (option, file) = if verb == "check" { ("--config", broken.clone()) } else { ("--control", files.path("none.sock")) };
            assert_eq!(end_in(&host, other.arg(option).arg(file)).code, Some(2));
        }
        end_in(&host, command(program, "run").arg("--colour")).must_say(2, &["unexpected argument"]);
        assert!(!has_rules(&host), "only `run` with a configuration closes");

        let opens = format!("`{} open --yes` opens", program.name());
        let run = || end_in(&host, &mut with_config(program, "run", &broken));
        run().must_say(2, &["broken.toml:1: ", "the filter rules now drop everything", &opens]);
        assert!(has_rules(&host));
        let itself = host.run(|| UdpSocket::bind("127.0.0.1:0")).unwrap();
        itself.send_to(b"loopback", itself.local_addr().unwrap()).unwrap();
        assert_eq!(itself.recv(&mut [0; 16]).unwrap(), 8, "what reaches no link is nobody's business");
        run().must_say(2, &["the filter rules that stood stay", &opens]);
        // Neither is a configuration needed to open, nor one that can be used.
        if standard_socket_is_free(program) {
            let open = |more: &[&str]| end_in(&host, command(program, "open").arg("--yes").args(more));
            let said = ["the configuration cannot be used", "the filter rules are gone", "no daemon answers at /run/pbs/"];
            open(&["--config", broken.to_str().unwrap()]).must_say(0, &said);
            assert!(!has_rules(&host));
            run().must_say(2, &["the filter rules now drop everything"]);
            open(&[]).must_say(0, &["the filter rules are gone"]);
            assert!(!has_rules(&host));
            run().must_say(2, &["the filter rules now drop everything"]);
        }
        end_in(&host, with_config(program, "open", files.path("node.toml")).arg("--yes")).must_say(0, &["the filter rules are gone"]);
        assert!(!has_rules(&host));

        // A good configuration takes the place of the closed rules, and a broken one beside a daemon that runs changes nothing.
        run().must_say(2, &["the filter rules now drop everything"]);
        let daemon = Daemon::start(&host, program, &files, "node");
        let before = names(&host, program);
        assert!(before.iter().all(|rule| !rule.ends_with(" closed")));
        run().must_say(2, &["broken.toml:1: ", "its filter rules are left alone"]);
        end_in(&host, &mut with_config(if program == Router { Host } else { Router }, "run", &broken)).must_say(2, &["left alone"]);
        assert_eq!((names(&host, program), &daemon.ask("status")["rules"]["restored"]), (before, &Value::from(0)));
    }
}

/// Whether no daemon of this machine would be opened instead.
fn standard_socket_is_free(program: Program) -> bool {
    !std::path::Path::new(if program == Router { "/run/pbs/router.sock" } else { "/run/pbs/host.sock" }).exists()
}

/// At first boot: forwarding is on, and the daemon's file has a typing error.
#[test]
fn a_closed_node_lets_nothing_pass_or_leave() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let application = site.application(RECEIVER);
    application.send();
    assert!(application.arrives(Duration::from_secs(2)), "open as long as nobody does anything");
    let broken = site.files.write("broken.toml", "name = \n");
    for (host, program) in [(&site.chain.router, Router), (&site.chain.sender, Host), (&site.chain.receiver, Host)] {
        end_in(host, &mut with_config(program, "run", &broken)).must_say(2, &["the filter rules now drop everything"]);
        application.send();
        assert!(!application.arrives(Duration::from_millis(300)));
        let good = site.files.path(if program == Router { "router.toml" } else { "sender.toml" });
        end_in(host, with_config(program, "open", good).arg("--yes")).must_say(0, &["the filter rules are gone"]);
        application.send();
        assert!(application.arrives(Duration::from_secs(2)), "open again");
    }
}

/// Whoever takes a link down takes the packets along that wait for a verdict, and the kernel refuses the verdicts.
#[test]
fn a_flood_of_signalling_and_a_link_that_comes_and_goes_leave_the_interception_alive() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let router = site.start_router();
    let chain = &site.chain;
    let attacker = Injector::new(&chain.sender, SENDER_LINK, &chain.router, LEFT_LINK).unwrap();
    let query = [&[0x4e, 0x04, 0xbd, 0xa5, 1, 16, 0, 0, 0x7f, 0xc0, 0x80, 0x40][..]].concat();
    let flood = vec![packet::udp((SENDER, 4000), (RECEIVER, 270), &query).unwrap(); 400];
    let signalling = |field: &str| router.ask("status")["signalling"][field].as_u64().unwrap();
    for _ in 0..5 {
        // While the daemon stands still the packets wait in the kernel.
        kill(router.pid(), Signal::SIGSTOP).unwrap();
        let _ = attacker.send(&flood);
        std::thread::sleep(Duration::from_millis(100));
        link::take_down(&chain.router, LEFT_LINK).unwrap();
        link::bring_up(&chain.router, LEFT_LINK).unwrap();
        kill(router.pid(), Signal::SIGCONT).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(signalling("refused") > 0, "the kernel refused verdicts: {}", router.ask("status"));
    // And without standing still: the flood goes on while the link comes and goes.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let _ = attacker.send(&flood);
            }
        });
        for _ in 0..40 {
            link::take_down(&chain.router, LEFT_LINK).unwrap();
            link::bring_up(&chain.router, LEFT_LINK).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(router.ask("status")["threads_running"]["signalling"], true);
    let taken = || signalling("taken") + signalling("taken_and_lost");
    let before = taken();
    wait_until("a Query still is intercepted", || {
        let _ = attacker.send(&flood[..1]);
        taken() > before
    });
    assert_eq!(router.ask("status")["rules"]["restored"], 0);
}

/// Where a process of this test program finds its configuration.
const CONFIG: &str = "PBS_TEST_CONFIG";

/// Runs one of the ignored tests below as a daemon.
fn start_as(test: &str, host: &Namespace, config: &Path) -> Child {
    let mut command = as_test(test, config);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    host.contain(&mut command, Lifetime::Laboratory).unwrap();
    command.spawn().unwrap()
}

pub(crate) fn as_test(test: &str, config: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", test]).env(CONFIG, config).env_remove("RUST_LOG");
    command
}

/// It has ended by itself, with exit code 2; what it said.
fn must_end(mut child: Child) -> String {
    let mut code = None;
    wait_until("it ends", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    let said = io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert_eq!(code.unwrap().code(), Some(2), "{said}");
    said
}

pub(crate) fn run_with(parts: Parts) -> ! {
    exit(router_agent::main_with(arguments("pbs-router"), parts));
}

pub(crate) fn run_host_with(parts: endpoint::Parts) -> ! {
    exit(endpoint::main_with(arguments("pbs"), parts));
}

fn arguments(program: &str) -> impl Iterator<Item = OsString> {
    [program.into(), "run".into(), "--config".into(), std::env::var_os(CONFIG).unwrap()].into_iter()
}

fn exit(code: ExitCode) -> ! {
    std::process::exit(if code == ExitCode::from(2) { 2 } else { 99 });
}

#[test]
fn a_daemon_whose_packet_worker_panics_ends_with_an_error_and_nothing_passes() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let application = site.application(RECEIVER);
    let mut child = start_as("guard::router_whose_packet_worker_panics", &site.chain.router, &site.files.path("router.toml"));
    let (_receiver, _sender) = (site.start_receiver(), site.start_sender());
    wait_until("the router has judged a packet", || {
        application.send();
        assert!(!application.arrives(Duration::from_millis(20)));
        child.try_wait().unwrap().is_some()
    });
    let said = must_end(child);
    assert!(said.contains("error: packet worker `data` ended: panicked: a defect in a check"), "{said}");
    assert!(has_rules(&site.chain.router));
    application.send();
    assert!(!application.arrives(Duration::from_millis(300)));
}

#[test]
#[ignore = "run as a process of its own by another test"]
fn router_whose_packet_worker_panics() {
    #[derive(Debug)]
    struct Defect;
    impl Checks for Defect {
        fn icv_matches(&self, _: &IpPacket<'_>, _: &IcvKey, _: Option<u32>) -> bool {
            panic!("a defect in a check");
        }
    }
    run_with(Parts { checks: Arc::new(Defect), ..Parts::default() });
}

#[test]
fn a_daemon_that_loses_one_of_its_other_threads_ends_with_an_error() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let host = Namespace::create("node").unwrap();
    let files = Files::of(Router);
    let child = start_as("guard::router_whose_watch_panics", &host, &files.path("node.toml"));
    wait_until("the router runs", || files.path("node.sock").exists());
    flush(&host);
    let said = must_end(child);
    assert!(said.contains("error: thread `rules` ended: panicked: a defect in the watch"), "{said}");
    // Whoever supervises it starts it again.
    let _daemon = Daemon::start(&host, Router, &files, "node");
    assert!(has_rules(&host));
}

#[test]
#[ignore = "run as a process of its own by another test"]
fn router_whose_watch_panics() {
    static STANDS: AtomicBool = AtomicBool::new(false);
    fn install_once(rules: &RouterRules, socket: &Socket) -> Result<(), NetlinkError> {
        assert!(!STANDS.swap(true, Ordering::Relaxed), "a defect in the watch");
        install_unowned(rules, socket)
    }
    run_with(Parts { install_rules: install_once, ..Parts::default() });
}
