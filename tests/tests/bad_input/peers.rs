//! Neighbours and ends that must not be believed: nothing is granted, nothing flows, and the nodes say why.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{RECEIVER, RECEIVER_LINK, SENDER, SENDER_LINK};
use pbs_lab::pki::Authority;
use pbs_lab::process::Program;

use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::common;
use crate::support::site::Site;
use crate::support::{command, end, end_within};

/// An address that no certificate of the site names.
const UNNAMED: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 21, 5));

/// The same on the sender's link.
const UNNAMED_SENDER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 20, 5));

/// The three daemons of a site, and an application whose first packet asks.
struct Asked {
    sender: Daemon,
    router: Daemon,
    receiver: Daemon,
}

impl Asked {
    /// Starts everything and sends one packet to `receiver`'s port 9000.
    #[track_caller]
    fn at(site: &Site, receiver: IpAddr) -> Self {
        let asked = Self { receiver: site.start_receiver(), router: site.start_router(), sender: site.start_sender() };
        let application = site.application(receiver);
        application.send();
        assert!(!application.arrives(Duration::from_secs(1)));
        asked
    }

    /// Neither sender nor router holds a permission.
    #[track_caller]
    fn must_have_nothing(&self) {
        assert_eq!(self.sender.permissions(), [] as [serde_json::Value; 0]);
        assert_eq!(self.router.permissions(), [] as [serde_json::Value; 0]);
    }
}

/// P-071: the router must not believe a Permission for an address that its signer's certificate does not name.
#[test]
fn a_permission_for_an_address_that_the_receivers_certificate_does_not_name_is_refused() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    hosts_count_as_routers(&site);
    add_address(&site.chain.receiver, RECEIVER_LINK, UNNAMED);
    let asked = Asked::at(&site, UNNAMED);
    asked.receiver.wait_for_log(&["WARN", "the certificate does not name", "192.168.21.5"]);
    asked.router.wait_for_log(&["WARN", "refused", "certificate does not name the address 192.168.21.5"]);
    assert_ne!(asked.router.ask("status")["nslp"]["refused"], serde_json::json!({}));
    asked.must_have_nothing();
}

/// P-071, for the other end: whoever asks for an address that its certificate does not name gets no association for it, though the
/// router takes it for a router. (A certificate that names no address at all does not start; what a Query signed with it would meet is
/// in `pbs-nslp/tests/machines/consent.rs`.)
#[test]
fn a_query_for_an_address_that_the_senders_certificate_does_not_name_is_refused() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    hosts_count_as_routers(&site);
    add_address(&site.chain.sender, SENDER_LINK, UNNAMED_SENDER);
    let (receiver, router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    let mut request = command(Program::Host, "request");
    request.args(["--source", &UNNAMED_SENDER.to_string(), "--destination", &RECEIVER.to_string(), "--protocol", "udp"]);
    request.args(["--source-port", "9001", "--destination-port", "9000", "--volume", "50000", "--control"]).arg(sender.control());
    let ended = end_within(Duration::from_secs(40), &mut request);
    ended.must_say(1, &["no: unreachable: ", "192.168.20.5:9001", "messaging association failed: closed by the peer"]);
    assert!(
        router.gist("takeovers_refused") + router.gist("flows_refused") + router.gist("wrong_association") > 0,
        "{}",
        router.ask("gist")
    );
    assert_eq!((sender.permissions(), router.permissions()), (vec![], vec![]));
    assert_eq!([&router, &receiver].map(|node| node.ask("flows").as_array().map(Vec::len)), [Some(0); 2], "the Query came no further");
}

/// G-092: as hosts they do not get so far, because neither may be the neighbour of a flow of addresses that are not its own.
#[test]
fn a_host_is_no_neighbour_of_a_flow_whose_end_its_certificate_does_not_name() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    site.files.issue(&site.authority, "sender", &[IpAddr::V4(Ipv4Addr::new(192, 168, 20, 2))]);
    let asked = Asked::at(&site, RECEIVER);
    wait_until("the router refuses", || asked.router.gist("flows_refused") > 0);
    asked.must_have_nothing();
    assert_eq!(asked.router.ask("flows").as_array().map(Vec::len), Some(0), "the Query did not come up");
}

/// The router takes every peer for a router, so that what the certificates do not name is left to the application.
fn hosts_count_as_routers(site: &Site) {
    let anybody = "dns_name = \"*.pbs.test\"\nrole = \"router\"";
    site.files.write("router.toml", common("router").replace("dns_name = \"*.pbs.test\"", anybody));
}

/// RFC 5971 §5.7.3.1: a neighbour whose certificate names another address gets no association.
#[test]
fn a_receiver_whose_certificate_names_another_address_gets_no_association() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    site.files.issue(&site.authority, "receiver", &[UNNAMED]);
    let asked = Asked::at(&site, RECEIVER);
    asked.router.wait_for_log(&["INFO", "association ended", "TLS with 192.168.21.4:30270", "invalid peer certificate"]);
    must_be_told_of_no_channel(&asked);
}

#[test]
fn a_receiver_of_an_untrusted_authority_gets_no_association() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let stranger = Authority::create("somebody else's authority").unwrap();
    site.files.issue(&stranger, "receiver", &[RECEIVER]);
    let asked = Asked::at(&site, RECEIVER);
    asked.router.wait_for_log(&["INFO", "association ended", "TLS with 192.168.21.4:30270", "UnknownIssuer"]);
    assert!(asked.receiver.gist("handshakes_failed") > 0);
    must_be_told_of_no_channel(&asked);
}

/// the router says that it cannot reach the receiver in a secure way.
#[track_caller]
fn must_be_told_of_no_channel(asked: &Asked) {
    asked.router.wait_for_log(&["WARN", "message not delivered"]);
    asked.sender.wait_for_log(&["INFO", "notifies", "NoSecureChannel"]);
    asked.must_have_nothing();
    let gist = asked.receiver.ask("gist");
    assert_eq!((&gist["associations"], &gist["routing"]), (&serde_json::json!([]), &serde_json::json!([])));
}

/// G-093 to G-095, at the host: its own list decides to whom it talks.
#[test]
fn a_router_that_the_senders_list_does_not_allow_is_not_talked_to() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let ask = site.files.read("sender.toml").split_once("[[ask]]").unwrap().1.to_owned();
    let head = common("sender").replace("router.pbs.test", "gateway.pbs.test").replace("*.pbs.test", "gateway.pbs.test");
    site.files.write("sender.toml", format!("{head}[[ask]]{ask}"));
    let asked = Asked::at(&site, RECEIVER);
    asked.sender.wait_for_log(&["WARN", "message not delivered", "not authorised"]);
    assert!(asked.sender.gist("not_authorised") > 0);
    asked.must_have_nothing();
    assert_eq!(asked.router.ask("flows").as_array().map(Vec::len), Some(0), "the Query did not leave");
    assert_eq!(asked.sender.ask("gist")["associations"], serde_json::json!([]), "torn down");
}

/// G-093 to G-095, at the router: an entry that forbids comes before one that allows.
#[test]
fn a_sender_that_the_routers_list_forbids_is_not_listened_to() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let forbid = format!("[[gist.peer]]\naddress = \"{SENDER}/32\"\nallow = false\n\n[[gist.peer]]");
    site.files.write("router.toml", common("router").replacen("[[gist.peer]]", &forbid, 1));
    let asked = Asked::at(&site, RECEIVER);
    wait_until("the router refuses", || asked.router.gist("not_authorised") > 0);
    asked.must_have_nothing();
    assert_eq!(asked.router.ask("flows").as_array().map(Vec::len), Some(0));
    assert_eq!(asked.router.ask("gist")["associations"], serde_json::json!([]), "torn down");
}

/// `pbs request` says what comes of it: 0 granted, 1 not and why, 2 cannot be asked.
#[test]
fn a_request_waits_for_its_outcome_and_says_which_and_why() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let (_receiver, _router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    let nobody = IpAddr::V4(Ipv4Addr::new(192, 168, 21, 77));
    let request = |destination: IpAddr, port: u16, protocol: &str, more: &[&str]| {
        let mut command = command(Program::Host, "request");
        command.args(["--source", &SENDER.to_string(), "--destination", &destination.to_string(), "--protocol", protocol]);
        command.args(["--source-port", "9001", "--destination-port", &port.to_string(), "--volume", "50000"]).args(more);
        end_within(Duration::from_secs(40), command.arg("--control").arg(sender.control()))
    };
    std::thread::scope(|scope| {
        // Where nobody is, the router finds out, and the sender has tried twice.
        let unreachable = scope.spawn(|| request(nobody, 9000, "17", &[]));
        let as_data = scope.spawn(|| request(nobody, 9002, "17", &["--json"]));
        let granted = request(RECEIVER, 9000, "17", &[]);
        granted.must_say(0, &[]);
        assert!(granted.output.contains("outcome: granted") && granted.output.contains("granted 50000 bytes"), "{}", granted.output);
        let denied = request(RECEIVER, 9000, "6", &[]);
        denied.must_say(1, &["no: denied: ", "192.168.21.4:9000", "denied by the receiver, not asked again for "]);
        let held_down = request(RECEIVER, 9000, "6", &[]);
        held_down.must_say(1, &["no: denied: ", "not granted before, may ask again in "]);
        let asked = request(nobody, 9003, "17", &["--no-wait"]);
        asked.must_say(0, &[]);
        assert!(asked.output.contains("asked: "), "{}", asked.output);

        unreachable
            .join()
            .unwrap()
            .must_say(1, &["no: unreachable: ", "192.168.21.77:9000", "nobody answered two tries", "NoState (14/2): no receiver"]);
        let as_data = as_data.join().unwrap();
        as_data.must_say(1, &["no: unreachable: "]);
        let answer: serde_json::Value = serde_json::from_str(&as_data.output).unwrap();
        assert_eq!((&answer["outcome"], &answer["allowed"]), (&"unreachable".into(), &serde_json::Value::Null));
        assert!(answer["why"].as_str().unwrap().contains("192.168.20.254 notified NoState (14/2)"), "{answer}");
    });
    drop(sender);
    let mut nowhere = command(Program::Host, "request");
    nowhere.args(["--source", "192.168.20.1", "--destination", "192.168.21.4", "--protocol", "17", "--volume", "1", "--control"]);
    end(nowhere.arg(site.files.path("nowhere.sock"))).must_say(2, &["error: no daemon answers at"]);
}

/// Who is refused is told where it asked: by whom and why, in the answer, in `flows` and in the log, and not once a packet.
#[test]
fn a_refusal_is_explained_where_it_was_asked_for() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    site.files.write("receiver.toml", common("receiver"));
    let forbidden = "[[limit]]\ndestination_ports = \"9100\"\npermit = false\n";
    site.files.write("router.toml", common("router") + forbidden);
    let (_receiver, _router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    let flows = || end(command(Program::Host, "flows").arg("--control").arg(sender.control())).output;
    let row = |port: &str| flows().lines().find(|line| line.contains(port)).map(str::to_owned).unwrap_or_default();
    let ended = std::thread::scope(|scope| {
        let by_router = scope.spawn(|| {
            let mut request = command(Program::Host, "request");
            request.args(["--source", &SENDER.to_string(), "--destination", &RECEIVER.to_string(), "--protocol", "udp"]);
            request.args(["--source-port", "9001", "--destination-port", "9100", "--volume", "50000", "--control"]);
            end_within(Duration::from_secs(40), request.arg(sender.control()))
        });
        let application = site.application(RECEIVER);
        for _ in 0..300 {
            application.send();
            std::thread::sleep(Duration::from_millis(20));
        }
        let denied = row(":9000 udp");
        for words in ["out  ", "not granted", "denied by the receiver", "may ask again in "] {
            assert!(denied.contains(words), "{words}: {denied}");
        }
        by_router.join().unwrap()
    });
    ended.must_say(
        1,
        &["no: refused: ", "192.168.20.254 notified LocalPolicy (18/0): local policy forbids it", "nobody answered two tries"],
    );
    sender.wait_for_log(&["nobody answered two tries", "192.168.20.254 notified LocalPolicy (18/0): local policy forbids it"]);
    let log = sender.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("not granted before, may ask again in ")).collect();
    assert!((1..=6).contains(&told.len()), "of 300 packets: {told:#?}");
    assert!(told.iter().any(|line| line.contains("lines like this left out before")), "{told:#?}");
}

/// A host without a daemon is no receiver, and neither is one that nobody can be connected to.
#[test]
fn a_request_to_a_host_without_pbs_is_unreachable() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let (_router, sender) = (site.start_router(), site.start_sender());
    let mut request = command(Program::Host, "request");
    request.args(["--source", "192.168.20.1", "--destination", "192.168.21.4", "--protocol", "17", "--volume", "1", "--control"]);
    let ended =
        end_within(Duration::from_secs(40), request.args([sender.control()]).args(["--source-port", "5", "--destination-port", "6"]));
    ended.must_say(1, &["no: unreachable: ", "nobody answered", "no receiver"]);
}

/// Router admission: what an operator lets two hosts permit each other, with real daemons (FN-72, Notify 18). What is within the
/// limits passes; one byte more does not, by one flow or by two together; and the refusal names who and why.
#[test]
fn a_router_refuses_what_two_hosts_grant_each_other_beyond_its_limits() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let grants = "[[grant]]\nsource = \"192.168.20.0/24\"\nprotocol = \"udp\"\nvolume = 1000000\nrefresh = \"5s\"\nttl = \"60s\"\n";
    let signed = grants.replace("protocol", "destination_ports = \"9300\"\nsigned = true\nprotocol");
    site.files.write("receiver.toml", common("receiver") + &signed + grants);
    let limits = "[[limit]]\ndestination_ports = \"9200-9299\"\nvolume = 50000\nttl = \"60s\"\n[[limit]]\npair_volume = 90000\n";
    site.files.write("router.toml", common("router") + limits);
    let (receiver, router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    let ask = |port: &str, volume: &str| {
        let mut request = command(Program::Host, "request");
        request.args(["--source", &SENDER.to_string(), "--destination", &RECEIVER.to_string(), "--protocol", "udp"]);
        request.args(["--source-port", "9001", "--destination-port", port, "--volume", volume, "--control"]);
        end_within(Duration::from_secs(40), request.arg(sender.control()))
    };
    ask("9200", "50000").must_say(0, &[]);
    ask("9300", "40000").must_say(0, &[]);
    std::thread::scope(|scope| {
        let alone = scope.spawn(|| ask("9201", "50001"));
        let together = scope.spawn(|| ask("9400", "50000"));
        for refused in [alone, together] {
            let refused = refused.join().unwrap();
            refused.must_say(1, &["no: refused: ", "192.168.20.254 notified LocalPolicy (18/0): local policy forbids it"]);
        }
    });
    let flows = |daemon: &Daemon, program| end(command(program, "flows").arg("--control").arg(daemon.control())).output;
    let of_router = flows(&router, Program::Router);
    let passes = |port: &str| of_router.lines().any(|line| line.contains(port) && line.contains("hmac-sha-256-128"));
    assert!(passes(":9200 "), "{of_router}");
    assert!(!passes(":9201 ") && !passes(":9400 "), "{of_router}");
    // P-134: and what a rule of the receiver wants signed is signed from the first packet on, on each node.
    for (daemon, program) in [(&sender, Program::Host), (&router, Program::Router), (&receiver, Program::Host)] {
        let shown = flows(daemon, program);
        let row = shown.lines().find(|line| line.contains(":9300 ")).unwrap_or_default().to_owned();
        assert!(row.contains("ed25519") || row.contains("public key"), "{shown}");
    }
}

fn add_address(host: &Namespace, interface: &str, address: IpAddr) {
    let added = host.run_async(|| async move {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let (connection, netlink, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        netlink.address().add(index, address, 24).execute().await.map_err(std::io::Error::other)
    });
    added.unwrap();
}
