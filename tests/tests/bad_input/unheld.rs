//! Filter rules that the kernel lets anybody change while the daemon runs, as before Linux 6.9: they are put back, and with them what they
//! knew of permissions.

use std::io::ErrorKind::WouldBlock;
use std::net::UdpSocket;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::capture::{Capture, Frame};
use pbs_lab::network::frame;
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{LEFT_LINK, RECEIVER, RECEIVER_LINK, RIGHT_LINK, SENDER};
use pbs_lab::process::Program::{self, Host, Router};
use traffic::netlink::{NetlinkError, Socket};
use traffic::rules::{HostRules, RouterRules};

use crate::guard::{as_test, flush, names, run_host_with, run_with};
use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::Files;
use crate::support::site::Site;
use crate::under_load::{LATE, Scene};

#[test]
fn where_the_kernel_holds_nothing_a_flushed_rule_set_is_put_back_counted_and_told() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let host = Namespace::create("node").unwrap();
    let files = Files::of(Router);
    let daemon = start(&host, Router, &files, "node");
    daemon.wait_for_log(&["WARN", "this kernel (before Linux 6.9) lets other programs change the filter rules"]);
    let before = names(&host, Router);
    let rules = || daemon.ask("status")["rules"].clone();
    assert_eq!((&rules()["stand"], &rules()["held"], &rules()["restored"]), (&true.into(), &false.into(), &0.into()));
    for times in 1..=3 {
        flush(&host);
        wait_until("the rules are back", || rules()["restored"] == times && rules()["stand"] == true);
        assert_eq!(names(&host, Router), before);
    }
    assert!(rules()["last_changed_by"].as_str().unwrap().contains("(process "), "{}", rules());
    daemon.wait_for_log(&["ERROR", "somebody else changed or removed the filter rules; they have been put back", "by=", "times=1"]);
    // A line a second at most, however often it happens.
    assert!(daemon.log().lines().filter(|line| line.contains("somebody else changed")).count() <= 3);
}

/// What passes while they are gone nobody can help; the shield is put back with the permissions that it knew.
#[test]
fn a_flow_goes_on_behind_a_shield_that_was_flushed_and_put_back_and_nothing_forged_passes_from_then_on() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let scene = Scene::build_with("shield = true\nworkers = 1\n", |site| start(&site.chain.router, Router, &site.files, "router"));
    for times in 1..=3 {
        scene.must_go_on();
        flush(&scene.site.chain.router);
        must_be_put_back(scene.router(), times);
        let mark = scene.behind.mark() + LATE;
        scene.must_go_on();
        scene.must_drop(500);
        assert_eq!((scene.forged(mark), scene.behind.lost()), (0, 0));
    }
}

#[test]
fn a_flow_goes_on_when_the_rules_of_its_hosts_were_flushed_and_put_back_and_nothing_forged_passes_from_then_on() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let chain = &site.chain;
    let [sender, receiver] =
        [(&chain.sender, "sender"), (&chain.receiver, "receiver")].map(|(host, name)| start(host, Host, &site.files, name));
    let _router = site.start_router();
    let application = site.application(RECEIVER);
    let running = application.run();
    let go_on = || {
        let before = running.arrived();
        wait_until("the flow goes on", || running.arrived() >= before + 5);
    };
    go_on();

    let left = Capture::start(&chain.router, LEFT_LINK, Instant::now()).unwrap();
    flush(&chain.sender);
    must_be_put_back(&sender, 1);
    let mark = left.mark() + LATE;
    go_on();
    wait_until("the sender has sent under AH", || left.look(|frames| of_the_flow(frames, mark).any(|sealed| sealed)));
    assert!(left.look(|frames| of_the_flow(frames, mark).all(|sealed| sealed)));
    assert_eq!(left.lost(), 0);

    let other = chain.receiver.run(|| UdpSocket::bind((RECEIVER, 9001))).unwrap();
    other.set_nonblocking(true).unwrap();
    let injector = Injector::new(&chain.router, RIGHT_LINK, &chain.receiver, RECEIVER_LINK).unwrap();
    let forged = vec![packet::udp((SENDER, 4000), (RECEIVER, 9001), b"forged").unwrap(); 100];
    flush(&chain.receiver);
    must_be_put_back(&receiver, 1);
    std::thread::sleep(LATE);
    while other.recv(&mut [0; 16]).is_ok() {}
    assert_eq!(injector.send(&forged).unwrap(), 100);
    go_on();
    std::thread::sleep(LATE);
    assert_eq!(other.recv(&mut [0; 16]).unwrap_err().kind(), WouldBlock);
}

/// Whether each packet of the application is under AH, of those later than `mark`.
fn of_the_flow(frames: &[Frame], mark: Duration) -> impl Iterator<Item = bool> {
    let later = frames.iter().filter(move |frame| frame.at > mark).filter_map(Frame::ip).filter_map(frame::read);
    later.filter(|seen| seen.destination == RECEIVER && seen.ports.1 == 9000).map(|seen| seen.authentication.is_some())
}

#[track_caller]
fn must_be_put_back(daemon: &Daemon, times: u64) {
    wait_until("the rules are back", || {
        let rules = daemon.ask("status")["rules"].clone();
        rules["restored"] == times && rules["stand"] == true
    });
}

/// Starts `<name>.toml` with rules that anybody can change.
#[track_caller]
fn start(host: &Namespace, program: Program, files: &Files, name: &str) -> Daemon {
    let test = if program == Router { "unheld::router" } else { "unheld::host" };
    let log = std::fs::File::options().create(true).append(true).open(files.path(format!("{name}.log"))).unwrap();
    Daemon::start_as(host, program, files, name, as_test(test, &files.path(format!("{name}.toml"))), Stdio::from(log))
}

#[test]
#[ignore = "run as a process of its own by another test"]
fn router() {
    run_with(router_agent::Parts { install_rules: install_unowned, ..router_agent::Parts::default() });
}

#[test]
#[ignore = "run as a process of its own by another test"]
fn host() {
    fn install(rules: &HostRules, socket: &Socket) -> Result<(), NetlinkError> {
        HostRules { owned: false, ..rules.clone() }.install_through(socket)
    }
    run_host_with(endpoint::Parts { install_rules: install, ..endpoint::Parts::default() });
}

pub(crate) fn install_unowned(rules: &RouterRules, socket: &Socket) -> Result<(), NetlinkError> {
    RouterRules { owned: false, ..rules.clone() }.install_through(socket)
}
