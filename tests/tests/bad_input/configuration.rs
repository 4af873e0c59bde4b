//! Wrong configuration files: each error names file, line and key; nothing is started, and `run` leaves the node closed.

use pbs_lab::process::Program::{self, Host, Router};

use crate::support::files::{Files, good};
use crate::support::{end, end_apart, with_config};

/// A line that goes wrong, where it is put (behind this line of the good file), and what is said about it.
type Case = (Program, &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    (Router, "name =", "colour = \"red\"", "unknown field `colour`"),
    (Host, "name =", "colour = \"red\"", "unknown field `colour`"),
    (Router, "key =", "password = \"x\"", "unknown field `password`"),
    (Router, "data_queue", "extra = 1", "unknown field `extra`"),
    (Router, "name =", "log = \"xml\"", "unknown variant `xml`, expected `text` or `json`"),
    (Host, "name =", "this is not TOML", ""),
    (Host, "name =", "name = \"again\"", "duplicate key"),
    (Host, "allow =", "[gist]\nnslp_id = \"32704\"", "invalid type: string \"32704\", expected u16"),
    (Host, "inbound_queue", "permissions = \"many\"", "invalid type: string \"many\", expected usize"),
    (Host, "inbound_queue", "permissions = 0", "datapath.permissions: 0 leaves no room"),
    (Host, "inbound_queue", "[[ask]]\ndestination = \"192.0.2.0/24\"\nvolume = 0", "ask.volume: 0 asks for nothing"),
    (Host, "inbound_queue", "[[ask]]\nvolume = 1\ndestination = \"192.0.2.0/33\"", "invalid IP address syntax"),
    (Host, "inbound_queue", "[[grant]]\nsource = \"192.0.2.0/24\"\nvolume = 0", "grant.volume: 0 grants nothing"),
    (
        Host,
        "inbound_queue",
        "[[grant]]\nsource = \"192.0.2.0/24\"\nvolume = 1\nrefresh = \"4s\"",
        "grant.refresh: must lie between 5s and 1h",
    ),
    (
        Host,
        "inbound_queue",
        "[[grant]]\nsource = \"192.0.2.0/24\"\nvolume = 1\nrefresh = \"2h\"",
        "grant.refresh: must lie between 5s and 1h",
    ),
    (Router, "data_queue", "[[gist.peer]]\nallow = true\nnslp_id = 1", "unknown field `nslp_id`"),
    (Router, "data_queue", "[[grant]]", "unknown field `grant`"),
];

/// Prefixes whose author may have meant something else, and ports where there are none.
const NETWORKS_AND_PORTS: &[Case] = &[
    (
        Host,
        "inbound_queue",
        "[[ask]]\nvolume = 1\ndestination = \"192.0.2.7/24\"",
        "ask.destination: 192.0.2.7/24 has bits set behind its prefix: write 192.0.2.0/24 for the network or 192.0.2.7/32 for the one address",
    ),
    (
        Host,
        "inbound_queue",
        "[[grant]]\nvolume = 1\nsource = \"fd00::1/64\"",
        "grant.source: fd00::1/64 has bits set behind its prefix: write fd00::/64",
    ),
    (Router, "data_queue", "[[limit]]\nvolume = 1\nsource = \"192.0.2.1/31\"", "limit.source: 192.0.2.1/31 has bits set behind its prefix"),
    (Router, "data_queue", "[[limit]]\nvolume = 1\ndestination = \"192.0.2.1/31\"", "limit.destination: 192.0.2.1/31 has bits set"),
    (Router, "data_queue", "[[gist.peer]]\nallow = true\naddress = \"192.0.2.1/31\"", "gist.peer.address: 192.0.2.1/31 has bits set"),
    (
        Router,
        "data_queue",
        "[[exempt]]\nname = \"ssh\"\nprotocol = \"tcp\"\nport = 22\nat = \"self\"\nrate = 1\nburst = 1\npeer = \"192.0.2.1/31\"",
        "exempt.peer: 192.0.2.1/31 has bits set",
    ),
    (
        Host,
        "inbound_queue",
        "[[ask]]\nvolume = 1\ndestination = \"192.0.2.0/24\"\nprotocol = \"icmp\"\ndestination_ports = \"9\"",
        "ask.destination_ports: icmp has no ports: leave this out",
    ),
    (
        Host,
        "inbound_queue",
        "[[grant]]\nvolume = 1\nsource = \"192.0.2.0/24\"\nprotocol = 58\ndestination_ports = \"9-10\"",
        "grant.destination_ports: icmpv6 has no ports",
    ),
    (
        Router,
        "data_queue",
        "[[limit]]\nvolume = 1\nprotocol = \"gre\"\ndestination_ports = \"9\"",
        "limit.destination_ports: gre has no ports",
    ),
    (Host, "inbound_queue", "[[ask]]\nvolume = 1\ndestination = \"192.0.2.0/24\"\nprotocol = \"upd\"", "`upd` is neither a known protocol"),
];

/// Values replaced in the good file: program, the line as it is, the line as it becomes, what is said about it.
const REPLACED: &[(Program, &str, &str, &str)] = &[
    (
        Router,
        "role = \"router\"",
        "role = \"host\"",
        "role: is \"host\", but this is `pbs-router`, the daemon of a router: run the file with `pbs`",
    ),
    (
        Host,
        "role = \"host\"",
        "role = \"router\"",
        "role: is \"router\", but this is `pbs`, the daemon of a host: run the file with `pbs-router`",
    ),
    (Host, "role = \"host\"", "role = \"gateway\"", "unknown variant `gateway`"),
    (Host, "role = \"host\"", "", "role: is missing: say role = \"host\""),
    (Router, "role = \"router\"", "", "role: is missing: say role = \"router\""),
    (Router, "data_queue = 2", "data_queue = 1", "datapath.data_queue: is the signalling queue's number too"),
    (Host, "inbound_queue = 4", "inbound_queue = 3", "datapath.inbound_queue: is the outbound queue's number too"),
    (Router, "data_queue = 2", "data_queue = 70000", "invalid value: integer `70000`, expected u16"),
    (Router, "[[gist.peer]]", "[gist]\nnslp_id = 7\n[[gist.peer]]", "gist.nslp_id: 7 is outside the private range 32704-32767"),
    (Router, "[[gist.peer]]", "[gist]\nnslp_id = 70000\n[[gist.peer]]", "invalid value: integer `70000`, expected u16"),
    (Router, "[[gist.peer]]", "[gist]\nassociation_port = 0\n[[gist.peer]]", "gist.association_port: must not be 0"),
    (Router, "dns_name = \"*.pbs.test\"", "dns_name = \"*\"", "gist.peer.dns_name: `*` is neither a name"),
    (Router, "allow = true", "allow = \"yes\"", "invalid type: string \"yes\", expected a boolean"),
];

#[test]
fn a_wrong_line_is_named_by_file_line_and_key() {
    for &(program, behind, wrong, expected) in CASES.iter().chain(NETWORKS_AND_PORTS) {
        let good = good(program);
        let place = good.lines().position(|line| line.starts_with(behind)).unwrap() + 1;
        let mut lines: Vec<&str> = good.lines().collect();
        lines.insert(place, wrong);
        must_refuse(program, &lines.join("\n"), place + wrong.lines().count(), expected);
    }
    for &(program, was, becomes, expected) in REPLACED {
        let text = good(program).replacen(was, becomes, 1);
        let at = becomes.lines().position(|line| !["[gist]", "[[gist.peer]]"].contains(&line)).unwrap_or(0);
        let first = good(program).lines().position(|line| line == was).unwrap();
        must_refuse(program, &text, first + at + 1, expected);
    }
}

#[track_caller]
fn must_refuse(program: Program, text: &str, line: usize, expected: &str) {
    let files = Files::of(program);
    let path = files.write("node.toml", text);
    let said = format!("error: {}:{line}: {expected}", path.display());
    end(&mut with_config(program, "check", &path)).must_say(2, &[&said]);
    // What `check` finds, `run` finds before it does anything but close.
    end_apart(&mut with_config(program, "run", &path), true).must_say(2, &[&said]);
    assert!(!files.path("node.sock").exists());
}

#[test]
fn an_entry_that_names_no_peer_or_two_is_named_by_the_line_it_begins_on() {
    for kinds in ["", "dns_name = \"*.pbs.test\"\naddress = \"192.0.2.0/24\""] {
        let text = good(Router).replacen("dns_name = \"*.pbs.test\"", kinds, 1);
        must_refuse(Router, &text, 15, "gist.peer: give either dns_name or address");
    }
}

/// Even where its other keys would not fit: the other daemon's sample is called what it is.
#[test]
fn the_other_daemons_file_is_refused_as_such() {
    for (program, sample, role, own) in [
        (Router, include_str!("../../../endpoint/pbs.toml"), "host", "pbs-router"),
        (Host, include_str!("../../../router-agent/pbs-router.toml"), "router", "pbs"),
    ] {
        let line = sample.lines().position(|line| line.starts_with("role =")).unwrap() + 1;
        must_refuse(program, sample, line, &format!("role: is \"{role}\", but this is `{own}`"));
    }
}

#[test]
fn a_file_that_is_missing_or_no_text_is_named() {
    for program in [Router, Host] {
        let files = Files::new();
        let nowhere = files.path("nowhere.toml");
        let said = format!("error: cannot read {}: No such file", nowhere.display());
        for verb in ["check", "run"] {
            end_apart(&mut with_config(program, verb, &nowhere), verb == "run").must_say(2, &[&said]);
        }
        let binary = files.write("binary.toml", [0xff, 0xfe, 0x00]);
        let said = format!("error: cannot read {}: ", binary.display());
        end(&mut with_config(program, "check", &binary)).must_say(2, &[&said, "UTF-8"]);
        let directory = files.path("");
        end(&mut with_config(program, "check", &directory)).must_say(2, &["error: cannot read ", "Is a directory"]);
        let empty = files.write("empty.toml", "");
        end(&mut with_config(program, "check", &empty)).must_say(2, &[&format!("{}:1: missing field `name`", empty.display())]);
    }
}

#[test]
fn relative_paths_are_taken_from_the_directory_of_the_file() {
    for program in [Router, Host] {
        let files = Files::of(program);
        let mut check = with_config(program, "check", files.path("node.toml"));
        let ended = end(check.current_dir("/"));
        assert_eq!((ended.code, ended.output), (Some(0), format!("{}: good\n", files.path("node.toml").display())));
        let mut check = with_config(program, "check", "node.toml");
        assert_eq!(end(check.current_dir(files.path(""))).code, Some(0), "a name without a directory");
        std::fs::remove_file(files.path("node.key")).unwrap();
        let said = format!("error: {}: cannot be read", files.path("node.key").display());
        end(&mut with_config(program, "check", files.path("node.toml"))).must_say(2, &[&said]);
    }
}
