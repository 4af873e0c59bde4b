//! Commands to a daemon that is not there, or about flows that do not exist: exit code 2 for what cannot be done, 1 for no.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::socket::{getsockopt, sockopt};
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{MTU, RECEIVER, SENDER};
use pbs_lab::process::Program::{Host, Router};

use crate::support::daemon::Daemon;
use crate::support::files::{Files, common};
use crate::support::{Ended, command, end, end_in, has_rules, with_config};

#[test]
fn a_daemon_that_is_not_there_is_an_error_that_names_the_socket() {
    for program in [Router, Host] {
        let files = Files::new();
        let nowhere = files.path("nowhere.sock");
        let stale = files.path("stale.sock");
        drop(UnixListener::bind(&stale).unwrap());
        for verb in ["status", "flows", "counters", "gist"] {
            for (socket, why) in [(&nowhere, "No such file"), (&stale, "Connection refused")] {
                let said = format!("error: no daemon answers at {} ({why}", socket.display());
                let then = if program == Router { "closed interfaces let nothing pass" } else { "nothing passes but what is exempt" };
                end(command(program, verb).arg("--control").arg(socket)).must_say(2, &[&said, "filter rules still stand", then]);
            }
        }
    }
    // Without --control it is the standard one, unless this machine runs such a daemon.
    if !Path::new("/run/pbs/router.sock").exists() {
        end(&mut command(Router, "status")).must_say(2, &["error: no daemon answers at /run/pbs/router.sock ("]);
    }
}

#[test]
fn an_answer_that_is_none_is_an_error_that_names_the_socket() {
    let files = Files::new();
    let socket = files.path("odd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    for (answer, expected) in [("", "not JSON"), ("hello\n", "not JSON"), ("{}\n", "neither `ok` nor `error`"), ("\u{1}\n", "not JSON")] {
        let ended = std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 1024]);
                stream.write_all(answer.as_bytes()).unwrap();
            });
            end(command(Host, "status").arg("--control").arg(&socket))
        });
        ended.must_say(2, &[&format!("error: control socket {}: ", socket.display()), expected]);
    }
}

#[test]
fn a_command_line_that_is_none_is_an_error() {
    for program in [Router, Host] {
        for arguments in [&["fly"][..], &["run"], &["check"], &["open", "--yes", "--config"], &["status", "--colour"], &["run", "--config"]]
        {
            end(command(program, arguments[0]).args(&arguments[1..])).must_say(2, &["error: ", "For more information"]);
        }
        assert_eq!(end(&mut command(program, "--help")).code, Some(0));
        assert_eq!(end(&mut command(program, "--version")).code, Some(0));
    }
    end(&mut command(Router, "revoke")).must_say(2, &["unrecognized subcommand 'revoke'"]);
}

#[test]
fn an_answer_that_cannot_be_written_is_no_panic() {
    let files = Files::of(Host);
    let check = || with_config(Host, "check", files.path("node.toml"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut unread = check();
    let status = unread.stdout(writer).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0), "whoever closes a pipe has read enough");
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = check().stdout(full()).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(2));
    let status = check().arg("--unknown").stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2));
    std::fs::remove_file(files.path("ca.crt")).unwrap();
    let status = check().stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(status.code(), Some(2), "the exit code says it when nothing else can");
}

/// Two hosts on one link; a daemon runs on the first.
struct Pair {
    host: Namespace,
    _neighbour: Namespace,
    files: Files,
}

impl Pair {
    fn build() -> Self {
        let (host, neighbour) = (Namespace::create("host").unwrap(), Namespace::create("neighbour").unwrap());
        let near = End { host: &host, interface: "h0", addresses: &[(SENDER, 16)] };
        link::join(near, End { host: &neighbour, interface: "n0", addresses: &[(RECEIVER, 16)] }, MTU).unwrap();
        let files = Files::new();
        files.issue(&files.authority(), "node", &[SENDER]);
        files.write("node.toml", common("node"));
        Self { host, _neighbour: neighbour, files }
    }

    /// The largest packet that an application may send to the neighbour.
    fn path_mtu(&self) -> i32 {
        let socket = self.host.run(|| UdpSocket::bind((SENDER, 0))).unwrap();
        socket.connect((RECEIVER, 9)).unwrap();
        getsockopt(&socket, sockopt::IpMtu).unwrap()
    }

    fn open(&self, more: &[&str]) -> Ended {
        end_in(&self.host, self.opening().args(more))
    }

    fn opening(&self) -> Command {
        with_config(Host, "open", self.files.path("node.toml"))
    }
}

/// Files may be checked on another machine than theirs: no error.
#[test]
fn check_warns_of_a_certificate_that_names_no_address_of_this_machine() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let pair = Pair::build();
    let check = || end_in(&pair.host, &mut with_config(Host, "check", pair.files.path("node.toml")));
    assert_eq!((check().code, check().complaint), (Some(0), String::new()));
    pair.files.issue(&pair.files.authority(), "node", &[RECEIVER]);
    let (other, own) = (format!("the certificate names {RECEIVER}, but none"), format!("addresses of this machine ({SENDER})"));
    check().must_say(0, &["warning: ", &other, &own]);
}

#[test]
fn only_open_with_yes_takes_rules_and_routes_away_and_says_so() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let pair = Pair::build();
    let whole = i32::try_from(MTU).unwrap();
    assert_eq!(pair.path_mtu(), whole);
    let daemon = Daemon::start(&pair.host, Host, &pair.files, "node");
    assert_eq!(pair.path_mtu(), whole - 76, "room for the largest AH (X-68)");
    daemon.kill();
    pair.open(&[]).must_say(2, &["--yes"]);
    assert!(has_rules(&pair.host));
    assert_eq!(pair.path_mtu(), whole - 76);
    // What is needed is the way to open, not an identity.
    std::fs::remove_file(pair.files.path("node.crt")).unwrap();
    pair.open(&["--yes"]).must_say(0, &["WARN", "the filter rules are gone: traffic passes unverified"]);
    assert!(!has_rules(&pair.host));
    assert_eq!(pair.path_mtu(), whole);
    // Again, with a wish for the log that nobody understands.
    let again = end_in(&pair.host, pair.opening().arg("--yes").env("RUST_LOG", "pbs=loud"));
    again.must_say(0, &["RUST_LOG is not understood", "the filter rules are gone"]);
}

/// A socket that somebody names is meant: if nobody answers there, another node may have been meant, and nothing is opened.
#[test]
fn open_with_a_socket_at_which_nobody_answers_touches_nothing() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let pair = Pair::build();
    Daemon::start(&pair.host, Host, &pair.files, "node").kill();
    assert!(has_rules(&pair.host));
    let (nowhere, stale) = (pair.files.path("nowhere.sock"), pair.files.path("node.sock"));
    for (socket, why) in [(&nowhere, "No such file"), (&stale, "Connection refused")] {
        let named = ["--yes", "--control", socket.to_str().unwrap()];
        let said = format!("error: control socket {}: {why}", socket.display());
        pair.open(&named).must_say(2, &[&said, "nothing was changed"]);
        end_in(&pair.host, command(Host, "open").args(named)).must_say(2, &[&said, "nothing was changed"]);
    }
    assert!(has_rules(&pair.host), "still closed");
    let socket = stale.display();
    let (gone, again) = (pair.open(&["--yes"]), pair.open(&["--yes"]));
    gone.must_say(0, &[&format!("no daemon answers at {socket}; they were removed directly"), "ip pbs-host"]);
    again.must_say(0, &[&format!("no daemon answers at {socket}; there were none")]);
    assert!(!has_rules(&pair.host));
}

/// Two daemons' sockets lie side by side: whoever takes one for the other must not open, ask or end anything there.
#[test]
fn a_daemon_does_nothing_that_is_meant_for_the_other_role() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for (program, other, name, others) in [(Router, Host, "router", "host"), (Host, Router, "host", "router")] {
        let place = Namespace::create(name).unwrap();
        let files = Files::of(program);
        let daemon = Daemon::start(&place, program, &files, "node");
        let said =
            format!("error: control socket {}: a {name} answers here, and the request is for a {others}", daemon.control().display());
        let mut commands: Vec<Command> = ["status", "flows", "counters", "gist"].into_iter().map(|verb| command(other, verb)).collect();
        let mut open = command(other, "open");
        open.arg("--yes");
        commands.push(open);
        if other == Host {
            for (verb, more) in [("request", &["--volume", "1"][..]), ("release", &[]), ("revoke", &[])] {
                let mut about = command(other, verb);
                about.args(["--source", "192.168.20.1", "--destination", "192.168.21.4", "--protocol", "icmp"]).args(more);
                commands.push(about);
            }
        }
        for command in &mut commands {
            end_in(&place, command.arg("--control").arg(daemon.control())).must_say(2, &[&said, "nothing was done"]);
        }
        assert!(has_rules(&place));
        assert_eq!(daemon.ask("status")["rules"]["opened"], serde_json::json!(false), "{}", daemon.ask("status")["rules"]);
        let own = end_in(&place, command(program, "open").args(["--yes", "--control"]).arg(daemon.control()));
        own.must_say(0, &["the daemon at ", "has removed them and watches over them no longer"]);
        assert!(!has_rules(&place));
    }
}

/// A protocol has the same names on the command line and in files.
#[test]
fn a_protocol_is_named_or_numbered_and_anything_else_is_an_error() {
    let files = Files::new();
    let request = |protocol: &str| {
        let mut command = command(Host, "request");
        command.args(["--source", "192.0.2.1", "--destination", "192.0.2.2", "--volume", "1", "--protocol", protocol]);
        end(command.arg("--control").arg(files.path("nowhere.sock")))
    };
    for protocol in ["udp", "tcp", "TCP", "icmp", "icmp6", "icmpv6", "sctp", "17", "255"] {
        request(protocol).must_say(2, &["error: no daemon answers at"]);
    }
    for protocol in ["", "upd", "256", "-1", "udp tcp"] {
        request(protocol).must_say(2, &["--protocol"]);
    }
    request("upd").must_say(2, &["`upd` is neither a known protocol (icmp, tcp, udp"]);
}

#[test]
fn flows_that_do_not_exist_are_answered_with_no_and_a_reason() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let pair = Pair::build();
    let daemon = Daemon::start(&pair.host, Host, &pair.files, "node");
    let about = |verb: &str, source: &str, destination: &str, more: &[&str]| {
        let mut command = command(Host, verb);
        command.args(["--source", source, "--destination", destination, "--protocol", "udp"]);
        command.args(["--source-port", "9", "--destination-port", "9"]).args(more);
        end(command.arg("--control").arg(daemon.control()))
    };
    let (here, there) = (SENDER.to_string(), RECEIVER.to_string());
    about("release", &here, &there, &[]).must_say(1, &["no: ", &here, "has no session here"]);
    about("revoke", &there, &here, &[])
        .must_say(1, &["no: ", &there, "has no permission of this host; refused for 600 s", "`pbs revoke --lift`"]);
    about("revoke", &there, &here, &["--lift"]).must_say(0, &[]);
    about("revoke", &there, &here, &["--lift"]).must_say(1, &["no: ", &there, "is not refused because of a revocation"]);
    about("change", &there, &here, &["--rekey"]).must_say(1, &["no: ", &there, "has no permission of this host"]);
    about("change", &there, &here, &[]).must_say(2, &["--volume", "--rekey"]);
    about("change", &there, &here, &["--volume", "0"]).must_say(2, &["0 is not in 1.."]);
    about("change", &there, &here, &["--ttl", "soon"]).must_say(2, &["`soon` is not a time such as"]);
    about("change", &there, &here, &["--refresh", "1s"]).must_say(1, &["refresh_ms must lie between 5s and 3600s"]);
    about("request", &there, &here, &["--volume", "1"]).must_say(1, &["no: ", &there, "the source address is not this host's"]);
    about("request", &here, &there, &["--volume", "0"]).must_say(1, &["no: ", "a volume of 0 bytes"]);
    for wrong in ["224.0.0.1", "0.0.0.0", "127.0.0.1", "255.255.255.255", "fd20::1"] {
        for (verb, more) in [("release", &[][..]), ("revoke", &[]), ("request", &["--volume", "1"])] {
            about(verb, &here, wrong, more).must_say(1, &["no: "]);
        }
    }
    about("release", &here, "nowhere", &[]).must_say(2, &["nowhere", "--destination"]);
    about("request", &here, &there, &["--volume", "-1"]).must_say(2, &["-1"]);
    assert_eq!(daemon.ask("flows").as_array().map(Vec::len), Some(0), "no state came of any of this");
}
