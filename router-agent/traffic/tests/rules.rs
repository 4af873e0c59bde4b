//! The filter rules in the kernel: installed at once or not at all, closed without listeners, exemptions of X-58 only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod ruleset;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Instant;

use namespace::{A4, A6, B4, B6, Namespace, QUIET, SOON, address, connect, eventually, pair, privileged, receive, seconds_since};
use ruleset::{DELETE_TABLE, IPV4, NEW_CHAIN, NEW_RULE, NEW_TABLE, in_one_piece};
use traffic::netlink::{Batch, CREATE, Errno, NetlinkError, Protocol, Socket};
use traffic::rules::{self, At, Bucket, Exempt, Exemptions, Family, HostRules, Installed, Role, RouterRules, RuleCounter};

const ASSOCIATION_PORT: u16 = 30_270;

#[test]
fn installing_twice_gives_the_same_rules_as_installing_once() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        assert_eq!(rules::installed(Role::Host).unwrap(), Installed { ipv4: false, ipv6: false });
        host_rules().install().unwrap();
        let once = rules::counters(Role::Host).unwrap();
        host_rules().install().unwrap();
        assert_eq!(rules::counters(Role::Host).unwrap(), once);
        assert_eq!(rules::installed(Role::Host).unwrap(), Installed { ipv4: true, ipv6: true });
    });
}

#[test]
fn each_role_sets_and_removes_its_own_rules_and_leaves_the_others_standing() {
    if !privileged() {
        return;
    }
    const STAND: Installed = Installed { ipv4: true, ipv6: true };
    const GONE: Installed = Installed { ipv4: false, ipv6: false };
    Namespace::new().run(|| {
        let standing = || (rules::installed(Role::Router).unwrap(), rules::installed(Role::Host).unwrap());
        RouterRules::new(1, 2, ASSOCIATION_PORT).install().unwrap();
        assert_eq!(standing(), (STAND, GONE));
        let router = rules::counters(Role::Router).unwrap();
        assert!(router.iter().any(|counter| counter.chain == "forward" && counter.rule == "data" && counter.family == Family::Ipv6));
        host_rules().install().unwrap();
        assert_eq!(standing(), (STAND, STAND));
        assert_eq!(rules::counters(Role::Router).unwrap(), router, "a host that starts beside a dead router does not open it");
        rules::remove(Role::Host).unwrap();
        assert_eq!(standing(), (STAND, GONE));
        assert_eq!(rules::counters(Role::Router).unwrap(), router, "opening the host does not open the router");
        host_rules().install().unwrap();
        rules::remove(Role::Router).unwrap();
        assert_eq!(standing(), (GONE, STAND));
    });
}

#[test]
fn removing_the_table_opens_and_may_be_done_twice() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        rules::remove(Role::Host).unwrap();
        host_rules().install().unwrap();
        rules::remove(Role::Host).unwrap();
        assert_eq!(rules::installed(Role::Host).unwrap(), Installed { ipv4: false, ipv6: false });
        assert_eq!(rules::counters(Role::Host).unwrap(), []);
        rules::remove(Role::Host).unwrap();
    });
}

#[test]
fn a_batch_that_fails_names_its_message_and_leaves_the_old_rules() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        host_rules().install().unwrap();
        let before = rules::counters(Role::Host).unwrap();
        let error = Socket::open(Protocol::Netfilter).unwrap().transact(batch_with_an_unknown_target()).unwrap_err();
        assert!(matches!(&error, NetlinkError::Refused { what, errno: Errno::ENOENT, .. } if what == "add the fourth"), "{error:?}");
        assert_eq!(rules::counters(Role::Host).unwrap(), before);
    });
}

#[test]
fn rules_that_the_kernel_refuses_leave_the_node_closed_or_as_it_was() {
    if !privileged() {
        return;
    }
    // Stands for a kernel without something that the rules need: it has no room for such a name.
    let ssh =
        Exempt { name: "x".repeat(500), protocol: 6, port: Some(22), at: At::Node, peer: None, interface: None, bucket: Bucket::new(1, 1) };
    let refused = HostRules { exempt: vec![ssh], ..host_rules() };
    let (a, b) = pair(1500);
    let error = a.run(|| refused.install().unwrap_err());
    assert!(
        error.to_string().contains("set ip pbs-host in-exempt-x") || error.to_string().contains("set ip pbs-host out-exempt-x"),
        "{error}"
    );
    let (left, right) = (a.udp(address(A4, 5000)), b.udp(address(B4, 5001)));
    let _ = left.send_to(b"out", address(B4, 5001));
    right.send_to(b"in", address(A4, 5000)).unwrap();
    assert_eq!((receive(&left, QUIET), receive(&right, QUIET)), (None, None), "there were no rules; now nothing passes");
    a.run(|| {
        host_rules().install().unwrap();
        // Not what they count: links speak of themselves meanwhile.
        let names = || {
            rules::counters(Role::Host)
                .unwrap()
                .into_iter()
                .map(|counter| (counter.family, counter.chain, counter.rule))
                .collect::<Vec<_>>()
        };
        let before = names();
        refused.install().unwrap_err();
        assert_eq!(names(), before);
    });
}

#[test]
fn without_a_listener_nothing_leaves_and_nothing_comes_in() {
    // P-147, P-190.
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    for (from, to) in [(A4, B4), (A6, B6)] {
        let (sender, receiver) = (a.udp(address(from, 5000)), b.udp(address(to, 5001)));
        sender.send_to(b"before", address(to, 5001)).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap(), b"before");
        a.run(|| host_rules().install().unwrap());
        let _ = sender.send_to(b"out", address(to, 5001));
        assert_eq!(receive(&receiver, QUIET), None);
        receiver.send_to(b"in", address(from, 5000)).unwrap();
        assert_eq!(receive(&sender, QUIET), None);
        let family = if from == A4 { Family::Ipv4 } else { Family::Ipv6 };
        let counters = a.run(|| rules::counters(Role::Host).unwrap());
        assert_eq!(packets(&counters, family, "outbound", "outbound"), 1, "{counters:?}");
        assert_eq!(packets(&counters, family, "inbound", "inbound"), 1, "{counters:?}");
        a.run(|| rules::remove(Role::Host).unwrap());
        sender.send_to(b"after", address(to, 5001)).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap(), b"after");
    }
}

#[test]
fn rules_outlive_the_process_that_set_them_even_if_it_is_killed() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new();
    namespace.run(|| {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "process_that_installs_and_waits_to_be_killed", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the child installs the rules", || rules::installed(Role::Host).unwrap() == Installed { ipv4: true, ipv6: true });
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(rules::installed(Role::Host).unwrap(), Installed { ipv4: true, ipv6: true });
        assert!(!rules::counters(Role::Host).unwrap().is_empty());
    });
}

#[test]
#[ignore = "run as a process of its own by another test"]
fn process_that_installs_and_waits_to_be_killed() {
    host_rules().install().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
}

/// G-181: what the region's encapsulation is signalled with goes past it: no AH, with nobody there to put one in.
#[test]
fn signalling_and_loopback_pass_a_host_without_listeners() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    a.run(|| host_rules().install().unwrap());
    b.run(|| host_rules().install().unwrap());
    for (from, to) in [(A4, B4), (A6, B6)] {
        let (left, right) = (a.udp(address(from, 270)), b.udp(address(to, 270)));
        left.send_to(b"Query", address(to, 270)).unwrap();
        assert_eq!(receive(&right, SOON).unwrap(), b"Query");
        right.send_to(b"Response", address(from, 270)).unwrap();
        assert_eq!(receive(&left, SOON).unwrap(), b"Response");
        exchange_over_tcp(&a, &a, address(from, 8080));
    }
}

#[test]
fn the_ports_of_signalling_open_nothing_else() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    b.run(|| host_rules().install().unwrap());
    let victim = b.udp(address(B4, 5001));
    a.udp(address(A4, 270)).send_to(b"from port 270", address(B4, 5001)).unwrap();
    assert_eq!(receive(&victim, QUIET), None);
    // A connection from the association port to another service: its first segment is not exempt.
    let service = b.run(|| TcpListener::bind(address(B4, 22)).unwrap());
    service.set_nonblocking(true).unwrap();
    let stream = a.run(|| connect(address(A4, ASSOCIATION_PORT), address(B4, 22)));
    std::thread::sleep(QUIET);
    assert!(stream.peer_addr().is_err());
    assert!(service.accept().is_err());
}

#[test]
fn a_host_sends_no_datagrams_to_port_270_but_from_its_own_signalling_port() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    a.run(|| host_rules().install().unwrap());
    let receiver = b.udp(address(B4, 270));
    let _ = a.udp(address(A4, 5000)).send_to(b"some program", address(B4, 270));
    assert_eq!(receive(&receiver, QUIET), None);
}

#[test]
fn an_exemption_drops_what_exceeds_its_bucket_and_counts_both() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    let (bucket, start) = (Bucket::new(1, 3), Instant::now());
    let exemptions = Exemptions { signalling: bucket, ..Exemptions::default() };
    a.run(|| HostRules { exemptions, ..host_rules() }.install().unwrap());
    let (sender, receiver) = (a.udp(address(A4, 270)), b.udp(address(B4, 270)));
    for _ in 0..20 {
        let _ = sender.send_to(b"Query", address(B4, 270));
    }
    let most = bucket.at_most(seconds_since(start));
    let mut arrived = 0;
    while receive(&receiver, QUIET).is_some() {
        arrived += 1;
    }
    let counters = a.run(|| rules::counters(Role::Host).unwrap());
    assert_eq!(packets(&counters, Family::Ipv4, "out-signalling", "within the bucket"), arrived);
    assert_eq!(packets(&counters, Family::Ipv4, "out-signalling", "above the bucket"), 20 - arrived);
    assert!((3..=most).contains(&arrived), "{arrived}, {most} at most");
}

#[test]
fn broadcast_and_multicast_to_a_host_are_not_let_in() {
    if !privileged() {
        return;
    }
    let (a, b) = pair(1500);
    let receiver = b.udp(address("0.0.0.0", 5001));
    let group = "239.1.2.3".parse().unwrap();
    receiver.join_multicast_v4(&group, &B4.parse().unwrap()).unwrap();
    let sender = a.udp(address(A4, 5000));
    sender.set_broadcast(true).unwrap();
    namespace::add_route(&a, "239.0.0.0", 8, B4);
    let targets = [SocketAddr::from((group, 5001)), address("192.168.20.255", 5001), address("255.255.255.255", 5001)];
    for target in targets.iter().take(2) {
        sender.send_to(b"to many", target).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap(), b"to many", "{target}");
    }
    b.run(|| host_rules().install().unwrap());
    for target in targets {
        let _ = sender.send_to(b"to many", target);
    }
    assert_eq!(receive(&receiver, QUIET), None);
}

fn host_rules() -> HostRules {
    HostRules::new(3, 4, ASSOCIATION_PORT)
}

fn packets(counters: &[RuleCounter], family: Family, chain: &str, rule: &str) -> u64 {
    counters.iter().find(|counter| counter.family == family && counter.chain == chain && counter.rule == rule).unwrap().packets
}

fn exchange_over_tcp(client: &Namespace, server: &Namespace, to: SocketAddr) {
    let listener = server.run(|| TcpListener::bind(to).unwrap());
    let mut stream = client.run(|| TcpStream::connect_timeout(&to, SOON).unwrap());
    let (mut accepted, _) = listener.accept().unwrap();
    stream.write_all(b"Confirm").unwrap();
    let mut buffer = [0; 7];
    accepted.set_read_timeout(Some(SOON)).unwrap();
    accepted.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"Confirm");
}

/// Replaces the table by one whose rule names a target that no kernel has.
fn batch_with_an_unknown_target() -> Batch {
    let name = |writer: &mut traffic::netlink::Writer| writer.put_text(1, Role::Host.table());
    in_one_piece("replace the rules", |batch| {
        batch.request("remove the first", DELETE_TABLE, 0, &IPV4, name);
        batch.request("create the second", NEW_TABLE, CREATE, &IPV4, name);
        batch.request("create the third", NEW_CHAIN, CREATE, &IPV4, |writer| {
            name(writer);
            writer.put_text(3, "chain");
        });
        batch.request("add the fourth", NEW_RULE, CREATE, &IPV4, |writer| {
            name(writer);
            writer.put_text(2, "chain");
            writer.nest(4, |list| {
                list.nest(1, |element| {
                    element.put_text(1, "target");
                    element.nest(2, |data| {
                        data.put_text(1, "NONESUCH");
                        data.put_be32(2, 3);
                        data.put(3, &[0; 8]);
                    });
                });
            });
        });
    })
}
