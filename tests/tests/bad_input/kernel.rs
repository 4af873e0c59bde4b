//! Sockets and kernel: whatever a daemon does not get is named, and the filter rules are as they were before, or stand.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use pbs_lab::network::namespace::{Lifetime, Namespace};
use pbs_lab::process::Program::{self, Host, Router};
use traffic::queue::{Queue, QueueConfig};
use traffic::rules::Role;

use crate::support::capability::{self, Capability};
use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::{Files, good};
use crate::support::{Ended, end, end_in, has_rules, named, with_config};

/// Runs the daemon of `files` in a namespace; it must end.
#[track_caller]
fn run(host: &Namespace, program: Program, files: &Files) -> Ended {
    end_in(host, &mut with_config(program, "run", files.path("node.toml")))
}

#[test]
fn a_control_socket_at_which_a_daemon_answers_is_left_to_it() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for program in [Router, Host] {
        let (host, other) = (Namespace::create("first").unwrap(), Namespace::create("second").unwrap());
        let files = Files::of(program);
        let daemon = Daemon::start(&host, program, &files, "node");
        let said = format!("error: control socket {}: another daemon already answers there", files.path("node.sock").display());
        run(&host, program, &files).must_say(2, &["error: packet queue 65535 is held"]);
        run(&other, program, &files).must_say(2, &[&said]);
        assert!(has_rules(&host), "those of the daemon that runs");
        assert!(has_rules(&other), "fail closed");
        assert_eq!(daemon.ask("status")["name"], "node");
    }
}

/// where programs without privilege may bind the port of GIST, one of them can neither keep a node open by holding a port nor
/// send what only signalling may.
#[test]
fn a_user_who_may_bind_any_port_keeps_no_node_open_and_gets_no_exemption() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    const SETTING: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    for program in [Router, Host] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        host.run(|| std::fs::write(SETTING, "0")).unwrap();
        // As a program without privilege may.
        let squatter = host.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 270))).unwrap();
        let said = ["error: any program here may bind UDP port 270", "ip_unprivileged_port_start is 0", "set it to 1024"];
        run(&host, program, &files).must_say(2, &said);
        assert!(has_rules(&host), "fail closed");
        host.run(|| std::fs::write(SETTING, "1024")).unwrap();
        let daemon = Daemon::start(&host, program, &files, "node");
        assert_eq!(daemon.ask("status")["name"], "node", "whoever holds TCP port 270");
        drop(squatter);
        // Lowered while the daemon runs: it holds the port, says so, and does not end.
        host.run(|| std::fs::write(SETTING, "0")).unwrap();
        daemon.wait_for_log(&["ERROR", "any program here may bind UDP port 270", "do not stop it before"]);
        for address in [Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST] {
            assert!(host.run(|| std::net::UdpSocket::bind((address, 270))).is_err(), "{address}");
        }
        assert!(daemon.ask("status")["gist_port_open_to_anybody"].as_str().unwrap().contains("is 0"));
    }
}

/// The right to a namespace is as short as the process, however that ends.
#[test]
fn a_daemon_starts_at_once_after_one_that_was_killed() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let host = Namespace::create("node").unwrap();
    let (router, node) = (Files::of(Router), Files::of(Host));
    for _ in 0..3 {
        Daemon::start(&host, Router, &router, "node").kill();
        Daemon::start(&host, Host, &node, "node").kill();
    }
}

/// Of two that start at the same time one runs, and the other has changed nothing.
#[test]
fn of_daemons_that_start_together_one_runs() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for _ in 0..5 {
        let host = Namespace::create("node").unwrap();
        let files: Vec<Files> = (0..4).map(|_| Files::of(Router)).collect();
        let mut daemons: Vec<Child> = files
            .iter()
            .map(|files| {
                let mut command = with_config(Router, "run", files.path("node.toml"));
                host.contain(command.stdin(Stdio::null()).stderr(Stdio::null()), Lifetime::Laboratory).unwrap();
                command.spawn().unwrap()
            })
            .collect();
        let running = |daemons: &mut Vec<Child>| daemons.iter_mut().filter_map(|daemon| daemon.try_wait().unwrap()).count();
        wait_until("three have ended", || running(&mut daemons) >= 3);
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(running(&mut daemons), 3);
        for mut daemon in daemons {
            if let Some(status) = daemon.try_wait().unwrap() {
                assert_eq!(status.code(), Some(2));
            }
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

#[test]
fn a_second_daemon_in_a_namespace_leaves_the_first_ones_rules_alone() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for (first, second) in [(Router, Host), (Host, Router), (Router, Router)] {
        let host = Namespace::create("node").unwrap();
        let (files, others) = (Files::of(first), Files::of(second));
        let daemon = Daemon::start(&host, first, &files, "node");
        let before = rule_names(&host);
        run(&host, second, &others).must_say(2, &["error: packet queue 65535 is held: another pbs or pbs-router runs"]);
        assert_eq!(before, rule_names(&host));
        assert_eq!(daemon.ask("status")["name"], "node");
    }
}

#[test]
fn a_host_beside_a_dead_router_leaves_the_routers_rules_standing_and_opens_only_its_own() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for (dead, second) in [(Router, Host), (Host, Router)] {
        let node = Namespace::create("node").unwrap();
        let (files, others) = (Files::of(dead), Files::of(second));
        drop(Daemon::start(&node, dead, &files, "node"));
        let closed = rule_names(&node);
        assert!(!closed.is_empty());
        drop(Daemon::start(&node, second, &others, "node"));
        let both = rule_names(&node);
        assert!(closed.iter().all(|rule| both.contains(rule)), "{closed:?} {both:?}");
        assert!(both.len() > closed.len());
        end_in(&node, with_config(second, "open", others.path("node.toml")).arg("--yes")).must_say(0, &[]);
        assert_eq!(rule_names(&node), closed);
        end_in(&node, with_config(dead, "open", files.path("node.toml")).arg("--yes")).must_say(0, &[]);
        assert_eq!(rule_names(&node), [""; 0]);
    }
}

/// what the configuration exempts stands in the rules of both daemons.
#[test]
fn exemptions_of_the_configuration_stand_in_the_rules() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let ssh = "\n[[exempt]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 22\nat = \"self\"\nrate = 100\nburst = 100\n";
    for (program, role) in [(Router, Role::Router), (Host, Role::Host)] {
        let node = Namespace::create("node").unwrap();
        let files = Files::of(program);
        files.write("node.toml", good(program) + ssh);
        let _daemon = Daemon::start(&node, program, &files, "node");
        for family in ["ip", "ip6"] {
            let rule = format!("{family} {} in-exempt-ssh within the bucket", role.table());
            assert!(rule_names(&node).contains(&rule), "{rule}");
        }
    }
}

/// Table, chain and name of every counted rule of either role.
fn rule_names(host: &Namespace) -> Vec<String> {
    let names = |role: Role| -> io::Result<Vec<String>> {
        let counters = traffic::rules::counters(role).map_err(io::Error::other)?;
        Ok(counters.iter().map(|counter| format!("{} {} {} {}", counter.family, role.table(), counter.chain, counter.rule)).collect())
    };
    let (router, host) = host.run(|| Ok((names(Role::Router)?, names(Role::Host)?))).unwrap();
    [router, host].concat()
}

#[test]
fn a_control_socket_that_cannot_be_made_is_named_and_the_rules_stand() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let long = format!("{}/x.sock", "long".repeat(40));
    let cases = [
        ("node.crt/node.sock", "cannot make the directory "),
        ("node.crt/deeper/node.sock", "cannot make the directory "),
        ("node.crt", "something that is not a socket lies there"),
        ("..", "something that is not a socket lies there"),
        (&*long, "must be shorter"),
    ];
    for program in [Router, Host] {
        for (path, expected) in cases {
            let host = Namespace::create("node").unwrap();
            let files = Files::of(program);
            let certificate = files.read("node.crt");
            files.write("node.toml", good(program).replacen("node.sock", path, 1));
            let said = format!("error: control socket {}: ", files.path(path).display());
            run(&host, program, &files).must_say(2, &[&said, expected]);
            assert!(has_rules(&host), "fail closed");
            assert_eq!(files.read("node.crt"), certificate, "a file is no stale socket");
        }
    }
}

#[test]
fn a_queue_number_that_is_taken_is_named_and_the_rules_stand() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for (program, number) in [(Router, 1), (Router, 2), (Host, 3), (Host, 4)] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        let taken = host.run(|| Queue::open(QueueConfig::new(number)).map_err(io::Error::other)).unwrap();
        run(&host, program, &files).must_say(2, &[&format!("queue {number}"), "taken by another program"]);
        assert!(has_rules(&host), "fail closed");
        drop(taken);
        assert_eq!(Daemon::start(&host, program, &files, "node").ask("status")["name"], "node", "the number is free again");
    }
}

#[test]
fn a_port_that_is_taken_is_named_and_the_rules_stand() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let (ipv4, ipv6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::LOCALHOST));
    for program in [Router, Host] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        let gist = host.run(|| UdpSocket::bind((ipv4, 270))).unwrap();
        run(&host, program, &files).must_say(2, &["error: cannot bind UDP 0.0.0.0:270: ", "(another program uses it)"]);
        assert!(has_rules(&host), "fail closed");
        drop(gist);
        let gist = host.run(|| UdpSocket::bind((ipv6, 270))).unwrap();
        run(&host, program, &files).must_say(2, &["error: cannot bind UDP [::]:270: ", "(another program uses it)"]);
        drop(gist);
        let associations = host.run(|| TcpListener::bind(SocketAddr::new(ipv4, 30270))).unwrap();
        run(&host, program, &files).must_say(2, &["error: cannot bind TCP 0.0.0.0:30270: ", "(another program uses it)"]);
        assert!(has_rules(&host), "fail closed");
        drop(associations);
        assert_eq!(Daemon::start(&host, program, &files, "node").ask("status")["name"], "node");
    }
}

/// Files that another user may use, and a copy of the program that this user may start.
fn for_everybody(program: Program) -> (Files, PathBuf) {
    let files = Files::of(program);
    std::fs::set_permissions(files.path(""), std::fs::Permissions::from_mode(0o777)).unwrap();
    let copy = files.path("program");
    std::fs::copy(env!("CARGO_BIN_EXE_pbs-lab"), &copy).unwrap();
    std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o755)).unwrap();
    (files, copy)
}

#[test]
fn a_user_without_privileges_is_told_which_one_is_missing() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for program in [Router, Host] {
        let host = Namespace::create("node").unwrap();
        let (files, copy) = for_everybody(program);
        let as_nobody = |verb: &str, more: &[&str]| {
            let mut command = named(&copy, program, verb);
            command.uid(65534).gid(65534).arg("--config").arg(files.path("node.toml")).args(more);
            end_in(&host, &mut command)
        };
        assert_eq!(as_nobody("check", &[]).code, Some(0), "checking needs no privilege");
        as_nobody("run", &[]).must_say(2, &["error: cannot hold packet queue 65535: ", "CAP_NET_ADMIN"]);
        assert!(!has_rules(&host), "nothing was changed");

        let daemon = Daemon::start(&host, program, &files, "node");
        as_nobody("open", &["--yes"]).must_say(2, &["error: control socket ", "Permission denied"]);
        let elsewhere = files.write("elsewhere.toml", files.read("node.toml").replace("node.sock", "nowhere.sock"));
        let mut open = named(&copy, program, "open");
        open.uid(65534).gid(65534).arg("--yes").arg("--config").arg(elsewhere);
        end_in(&host, &mut open).must_say(2, &["error: ", "CAP_NET_ADMIN"]);
        assert!(has_rules(&host), "nobody opens without the privilege");
        let mut status = named(&copy, program, "status");
        status.uid(65534).gid(65534).arg("--control").arg(daemon.control());
        let said = format!("error: control socket {}: Permission denied", daemon.control().display());
        end(&mut status).must_say(2, &[&said]);
    }
}

#[test]
fn root_without_one_privilege_is_told_which() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let cases = [
        (Capability::Administration, "error: cannot hold packet queue 65535: ", false),
        (Capability::BindService, "error: cannot bind UDP 0.0.0.0:270: ", true),
        (Capability::RawSockets, "error: cannot open a raw IPv4 socket for Query packets: Operation not permitted", true),
    ];
    for program in [Router, Host] {
        for (capability, expected, rules) in cases {
            let host = Namespace::create("node").unwrap();
            let files = Files::of(program);
            let ended = host.run(|| {
                // The thread ends with this closure, and the loss with it.
                capability::withhold(capability)?;
                Ok(end(&mut with_config(program, "run", files.path("node.toml"))))
            });
            ended.unwrap().must_say(2, &[expected, "CAP_NET_"]);
            assert_eq!(has_rules(&host), rules, "{capability:?}: before the rules nothing is changed; from then on they stand");
        }
    }
}

/// What a unit has to leave a daemon (README, *At boot*), as a relay and over one too.
#[test]
fn a_daemon_needs_three_privileges_and_no_others_as_a_relay_and_over_one_too() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let relay = "\n[relay]\nforward_to = [\"192.0.2.0/24\"]\n\n[[relay.admit]]\nsource = \"198.51.100.0/24\"\nvolume = 1000\n";
    let over_one = "\n[[path]]\nname = \"town\"\nrelay = \"198.51.100.9\"\nvolume = 1000\n";
    for (program, more) in [(Router, ""), (Host, relay), (Host, over_one)] {
        let host = Namespace::create("node").unwrap();
        let files = Files::of(program);
        files.write("node.toml", good(program) + more);
        std::thread::scope(|scope| {
            // The thread ends with this closure, and the loss and the daemon with it.
            let run = scope.spawn(|| {
                capability::keep_only(&[Capability::BindService, Capability::Administration, Capability::RawSockets]).unwrap();
                let status = Daemon::start(&host, program, &files, "node").ask("status");
                assert_eq!(status["relay"]["forwarded"]["packets"] == 0, more == relay, "{status:#}");
                assert_eq!(status["paths"][0]["relay"]["device"] == "pbs-relay1", more == over_one, "{status:#}");
                assert_eq!(status["rules"]["failed"], 0, "{status:#}");
            });
            run.join().unwrap();
        });
        assert!(has_rules(&host));
    }
}
