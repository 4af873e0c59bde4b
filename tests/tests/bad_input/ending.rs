//! Daemons that are asked to end: exit code 0, the rules stay, nothing passes; and a second start finds everything in order.

use std::net::UdpSocket;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::RECEIVER;
use pbs_lab::process::Program::{Host, Router};

use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::Files;
use crate::support::has_rules;
use crate::support::site::{Application, Site};

#[test]
fn whichever_daemon_is_asked_to_end_nothing_passes_until_it_runs_again() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let application = site.application(RECEIVER);
    let (receiver, router) = (site.start_receiver(), site.start_router());
    let mut sender = site.start_sender();
    must_pass(&application);

    must_end(router, &site.chain.router, &application);
    let router = site.start_router();
    must_pass(&application);

    must_end(sender, &site.chain.sender, &application);
    sender = site.start_sender();
    must_pass(&application);

    must_end(receiver, &site.chain.receiver, &application);
    let receiver = site.start_receiver();
    must_pass(&application);
    drop((sender, router, receiver));
}

#[track_caller]
fn must_pass(application: &Application) {
    wait_until("a datagram arrives", || {
        application.send();
        application.arrives(Duration::from_millis(50))
    });
}

#[track_caller]
fn must_end(daemon: Daemon, host: &Namespace, application: &Application) {
    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(has_rules(host), "they stay");
    // What was on its way before may still arrive.
    while application.arrives(Duration::from_millis(100)) {}
    for _ in 0..20 {
        application.send();
    }
    assert!(!application.arrives(Duration::from_millis(500)), "fail closed");
}

#[test]
fn a_daemon_whose_log_nobody_reads_goes_on() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for program in [Router, Host] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        for errors in [unread(), std::fs::File::options().write(true).open("/dev/full").unwrap().into()] {
            let daemon = Daemon::start_with(&host, program, &files, "node", errors);
            assert_eq!(daemon.ask("status")["name"], "node");
            assert_eq!(daemon.terminate().code(), Some(0));
        }
    }
}

/// Whoever asks twice does not want to wait for neighbours that do not answer; the socket's file goes in any case.
#[test]
fn a_daemon_ends_as_soon_as_it_has_said_farewell_and_at_once_when_asked_again() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for program in [Router, Host] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        let daemon = Daemon::start(&host, program, &files, "node");
        assert!(files.path("node.sock").exists());
        let started = Instant::now();
        assert_eq!(daemon.terminate().code(), Some(0));
        assert!(started.elapsed() < Duration::from_millis(400), "nobody is to be told: {:?}", started.elapsed());
        assert!(!files.path("node.sock").exists(), "the file goes with the daemon");
    }
    let site = Site::build();
    let application = site.application(RECEIVER);
    let (receiver, router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    must_pass(&application);
    // It stands still and closes no association.
    kill(router.pid(), Signal::SIGSTOP).unwrap();
    let started = Instant::now();
    kill(sender.pid(), Signal::SIGTERM).unwrap();
    sender.wait_for_log(&["asked to end"]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(sender.terminate().code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let log = site.files.read("sender.log");
    assert!(log.contains("asked again: ending at once"), "{log}");
    kill(router.pid(), Signal::SIGCONT).unwrap();
    drop((receiver, router));
}

/// FS-60: what the farewell says has been written before the process ends.
#[test]
fn neighbours_hear_of_the_end() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let application = site.application(RECEIVER);
    let (receiver, router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    must_pass(&application);
    assert_eq!((router.permissions().len(), receiver.permissions().len()), (1, 1));
    assert_eq!(sender.terminate().code(), Some(0));
    wait_until("router and receiver have no permission any more", || router.permissions().is_empty() && receiver.permissions().is_empty());
}

/// A pipe whose other end is closed.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn rules_that_stay_keep_a_host_silent_without_its_daemon() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let sender = site.start_sender();
    assert_eq!(sender.terminate().code(), Some(0));
    let listener = site.chain.router.run(|| UdpSocket::bind("192.168.20.254:53")).unwrap();
    listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let socket = site.chain.sender.run(|| UdpSocket::bind("192.168.20.1:0")).unwrap();
    let _ = socket.send_to(b"anything", "192.168.20.254:53");
    assert!(listener.recv(&mut [0; 16]).is_err());
}
