//! A relay with real daemons (X-99, P-189): sender – router – relay – somebody behind it. The sender's packets for the one behind
//! are packed by hand; everything else, the permission for them included, is as in the field.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};
use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::capture::Capture;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{Family, MTU, RECEIVER, RECEIVER_LINK, RECEIVER6, RIGHT_LINK, SENDER, SENDER6};
use serde_json::Value;
use traffic::rules::{self, Role};
use traffic::tunnel::{Ends, pack};

use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::common;
use crate::support::site::Site;

const BEHIND_LINK: &str = "b0";
/// GIST's port: what a sender's signalling goes to behind the relay.
const GIST: u16 = 270;

/// The relay's other address, and who is behind it.
fn far(family: Family) -> [IpAddr; 2] {
    match family {
        Family::Ipv4 => ["192.168.40.1".parse().unwrap(), "192.168.40.2".parse().unwrap()],
        Family::Ipv6 => ["fd40::1".parse().unwrap(), "fd40::2".parse().unwrap()],
    }
}

struct Relayed {
    site: Site,
    behind: Namespace,
    capture: Capture,
    relay: Daemon,
    router: Daemon,
    sender: Daemon,
}

impl Relayed {
    /// Three daemons, and a node behind the relay that believes no source but by the link that it would answer by.
    fn start(mtu_behind: u32, of_relay: &str) -> Self {
        let site = Site::build();
        let [far4, far6] = [Family::Ipv4, Family::Ipv6].map(far);
        let behind = Namespace::create("behind").unwrap();
        let relay = End { host: &site.chain.receiver, interface: "d1", addresses: &[(far4[0], 24), (far6[0], 64)] };
        let end = End { host: &behind, interface: BEHIND_LINK, addresses: &[(far4[1], 24), (far6[1], 64)] };
        link::join(relay, end, mtu_behind).unwrap();
        for scope in ["all", BEHIND_LINK] {
            behind.write_setting(&format!("net/ipv4/conf/{scope}/rp_filter"), "1").unwrap();
        }
        link::add_default_route(&behind, far4[0]).unwrap();
        link::add_default_route(&behind, far6[0]).unwrap();
        let capture = Capture::start(&behind, BEHIND_LINK, Instant::now()).unwrap();

        site.files.issue(&site.authority, "receiver", &[RECEIVER, RECEIVER6, far4[0], far6[0]]);
        let ask = |network: &str, protocol| format!("[[ask]]\ndestination = \"{network}\"\nprotocol = {protocol}\nvolume = 400000\n");
        site.files.write("sender.toml", common("sender") + &ask("192.168.21.0/24", 4) + &ask("fd21::/64", 41));
        let admit = |network: &str| format!("[[relay.admit]]\nsource = \"{network}\"\nvolume = 400000\nrefresh = \"5s\"\n");
        let relay =
            "[relay]\nforward_to = [\"192.168.40.0/24\", \"fd40::/64\"]\n".to_owned() + &admit("192.168.20.0/30") + &admit("fd20::1/128");
        site.files.write("receiver.toml", common("receiver") + of_relay + &relay);
        let (relay, router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
        Self { site, behind, capture, relay, router, sender }
    }

    /// Sends as the sender's host would have packed it; its own rules take it from there.
    fn send(&self, inner: &[u8]) {
        let family = if inner[0] >> 4 == 4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let ends = tunnel(inner);
        let mut outer = Vec::new();
        pack(inner, &ends, 64, &mut outer).unwrap();
        let raw: OwnedFd =
            self.site.chain.sender.run(|| Ok(socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)?)).unwrap();
        let to = SockaddrStorage::from(SocketAddr::new(ends.destination, 0));
        // Until the permission is there the host holds it, or drops it and says so.
        let _ = sendto(raw.as_raw_fd(), &outer, &to, MsgFlags::empty());
    }

    fn listen(&self, family: Family) -> UdpSocket {
        let socket = self.behind.run(|| UdpSocket::bind((far(family)[1], GIST))).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        socket
    }

    /// Sends until one comes out behind the relay; whose it is.
    fn open(&self, family: Family, listener: &UdpSocket) -> IpAddr {
        let mut from = None;
        wait_until("something comes out behind the relay", || {
            self.send(&signalling(family.sender(), far(family)[1]));
            from = listener.recv_from(&mut [0; 2000]).ok().map(|(_, from)| from.ip());
            from.is_some()
        });
        while listener.recv_from(&mut [0; 2000]).is_ok() {}
        from.unwrap()
    }

    fn shown(&self, pointer: &str) -> u64 {
        self.relay.ask("status")["relay"].pointer(pointer).and_then(Value::as_u64).unwrap()
    }

    fn forwarded(&self) -> u64 {
        self.shown("/forwarded/packets")
    }

    fn dropped(&self, reason: &str) -> u64 {
        let status = self.relay.ask("status");
        let rows = status["relay"]["dropped"].as_array().unwrap();
        rows.iter().find(|row| row["reason"] == reason).unwrap()["packets"].as_u64().unwrap()
    }

    /// What the relay's verifier has dropped.
    fn refused(&self, reason: &str) -> u64 {
        let counters = self.relay.ask("counters");
        let rows = counters["inbound"]["dropped"].as_array().unwrap();
        rows.iter().find(|row| row["reason"] == reason).unwrap()["packets"].as_u64().unwrap()
    }

    /// IP packets of the sender's network on the link behind the relay.
    fn seen_behind(&self) -> usize {
        let of_left = |ip: &[u8]| if ip[0] >> 4 == 4 { ip[12..15] == [192, 168, 20] } else { ip[8..10] == [0xfd, 0x20] };
        self.capture.look(|frames| frames.iter().filter_map(|frame| frame.ip()).filter(|ip| of_left(ip)).count())
    }

    /// An attacker on the relay's own link, in front of whom no router stands.
    fn attacker(&self) -> Injector {
        Injector::new(&self.site.chain.router, RIGHT_LINK, &self.site.chain.receiver, RECEIVER_LINK).unwrap()
    }
}

fn tunnel(inner: &[u8]) -> Ends {
    if inner[0] >> 4 == 4 { Ends { source: SENDER, destination: RECEIVER } } else { Ends { source: SENDER6, destination: RECEIVER6 } }
}

fn signalling(from: IpAddr, to: IpAddr) -> Vec<u8> {
    packet::udp((from, 4000), (to, GIST), b"as far as the relay can tell").unwrap()
}

/// The packet with other octets at some place; the IPv4 header's checksum is made right by whoever sends it.
fn changed(mut packet: Vec<u8>, at: usize, octets: &[u8]) -> Vec<u8> {
    packet[at..at + octets.len()].copy_from_slice(octets);
    packet
}

#[test]
fn what_an_admitted_sender_packs_comes_out_behind_the_relay_in_its_own_name_and_counts_on_the_way() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let relayed = Relayed::start(MTU, "");
    for (family, protocol) in [(Family::Ipv4, 4), (Family::Ipv6, 41)] {
        let listener = relayed.listen(family);
        assert_eq!(relayed.open(family, &listener), family.sender());
        for daemon in [&relayed.relay, &relayed.router, &relayed.sender] {
            let of_tunnel = |flow: &&Value| flow["flow"]["protocol"] == protocol && flow["flow"]["source_port"] == 0;
            wait_until("the bytes are counted", || {
                daemon.permissions().iter().find(of_tunnel).is_some_and(|flow| flow["counted"].as_u64() > Some(0))
            });
        }
        // Nothing of it is for a program of the relay.
        let before = relayed.forwarded();
        relayed.send(&signalling(family.sender(), far(family)[1]));
        wait_until("it is counted as sent on", || relayed.forwarded() == before + 1);
    }
    assert_eq!(relayed.seen_behind() as u64, relayed.forwarded());
}

/// Each attack of a sender that has a permission of the relay; a capture behind it shows that nothing came of any.
#[test]
fn an_admitted_sender_can_do_nothing_through_the_relay_but_what_it_is_admitted_for() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let relayed = Relayed::start(MTU, "");
    for family in [Family::Ipv4, Family::Ipv6] {
        let is_ipv4 = family == Family::Ipv4;
        let listener = relayed.listen(family);
        relayed.open(family, &listener);
        let ([own, beyond], source) = (far(family), family.sender());
        let to = |address: &str| signalling(source, address.parse().unwrap());
        let good = signalling(source, beyond);
        let (other, loopback, multicast, on_link, elsewhere) = if is_ipv4 {
            ("192.168.20.2", "127.0.0.1", "224.0.0.1", "169.254.1.1", "192.168.21.254")
        } else {
            ("fd20::2", "::1", "ff02::1", "fe80::1", "fd21::fe")
        };
        let mut nested = Vec::new();
        pack(&good, &Ends { source, destination: beyond }, 64, &mut nested).unwrap();
        let fragment = if is_ipv4 {
            changed(good.clone(), 6, &[0x20])
        } else {
            let header = [17, 0, 0, 1, 1, 2, 3, 4];
            let longer = [&good[..40], &header, &good[40..]].concat();
            let length = u16::try_from(longer.len() - 40).unwrap();
            changed(changed(longer, 6, &[44]), 4, &length.to_be_bytes())
        };
        let attacks = [
            ("spoofed_source", signalling(other.parse().unwrap(), beyond)),
            ("nested_tunnel", nested),
            ("to_relay", signalling(source, family.receiver())),
            // Another of its addresses: its own rules know which it has.
            ("filtered", signalling(source, own)),
            ("destination_not_allowed", to(loopback)),
            ("destination_not_allowed", to(multicast)),
            ("destination_not_allowed", to(on_link)),
            ("destination_not_allowed", to(elsewhere)),
            ("neither_ah_nor_signalling", packet::udp((source, 4000), (beyond, 9000), b"without permission").unwrap()),
            ("neither_ah_nor_signalling", packet::tcp_syn((source, 4000), (beyond, 22)).unwrap()),
            ("fragment_inside", fragment),
            ("hop_limit", changed(good.clone(), if is_ipv4 { 8 } else { 7 }, &[1])),
        ];
        // The address filter in front of `filtered`: its networks are those of the link behind.
        let before = relayed.seen_behind();
        for (reason, attack) in attacks {
            let dropped = relayed.dropped(reason);
            relayed.send(&attack);
            wait_until(reason, || relayed.dropped(reason) == dropped + 1);
        }
        assert_eq!(relayed.seen_behind(), before);
        relayed.send(&good);
        wait_until("it still does what it is there for", || listener.recv(&mut [0; 2000]).is_ok());
    }
}

/// Closed, whatever a router in front of it lets pass, and whatever else its configuration lets in.
#[test]
fn nothing_goes_through_a_relay_without_its_permission_not_even_by_an_exemption_and_nothing_twice() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let exempt = |protocol: u8| {
        format!("[[exempt]]\nname = \"tunnel-{protocol}\"\nprotocol = {protocol}\nat = \"self\"\nrate = 1000\nburst = 1000\n")
    };
    for exempt in [String::new(), exempt(4) + &exempt(41)] {
        let relayed = Relayed::start(MTU, &exempt);
        let attacker = relayed.attacker();
        let on_link = Capture::start(&relayed.site.chain.receiver, RECEIVER_LINK, Instant::now()).unwrap();
        for family in [Family::Ipv4, Family::Ipv6] {
            let inner = signalling(family.sender(), far(family)[1]);
            let mut bare = Vec::new();
            pack(&inner, &tunnel(&inner), 64, &mut bare).unwrap();
            let before = relayed.refused("no_permission");
            attacker.send(&vec![bare.clone(); 20]).unwrap();
            if exempt.is_empty() {
                wait_until("they are dropped", || relayed.refused("no_permission") >= before + 20);
            }
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!((relayed.forwarded(), relayed.seen_behind()), (0, 0), "{family:?}");
        }
        // With a permission, but not under it: without AH, and what has been through before.
        let listener = relayed.listen(Family::Ipv4);
        relayed.open(Family::Ipv4, &listener);
        let (forwarded, behind) = (relayed.forwarded(), relayed.seen_behind());
        let is_under_ah = |ip: &&[u8]| ip[0] >> 4 == 4 && ip[9] == 51 && ip[12..16] == [192, 168, 20, 1];
        let genuine: Vec<Vec<u8>> =
            on_link.look(|frames| frames.iter().filter_map(|frame| frame.ip()).filter(is_under_ah).map(<[u8]>::to_vec).collect());
        assert!(!genuine.is_empty());
        let before = relayed.refused("replayed");
        attacker.send(&genuine).unwrap();
        wait_until("copies are dropped", || relayed.refused("replayed") >= before + genuine.len() as u64);
        let inner = signalling(SENDER, far(Family::Ipv4)[1]);
        let mut bare = Vec::new();
        pack(&inner, &tunnel(&inner), 64, &mut bare).unwrap();
        attacker.send(&[bare]).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!((relayed.forwarded(), relayed.seen_behind()), (forwarded, behind));
    }
}

#[test]
fn who_is_not_admitted_is_declined() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let relayed = Relayed::start(MTU, "[[grant]]\nsource = \"192.168.20.0/24\"\nprotocol = \"udp\"\nvolume = 1000\n");
    let narrower = std::fs::read_to_string(relayed.site.files.path("receiver.toml")).unwrap().replace("192.168.20.0/30", "192.168.20.2/32");
    relayed.site.files.write("receiver.toml", narrower);
    let Relayed { site, behind, capture, relay, router, sender } = relayed;
    relay.terminate();
    let relay = site.start_receiver();
    let relayed = Relayed { site, behind, capture, relay, router, sender };
    wait_until("the sender is told", || {
        relayed.send(&signalling(SENDER, far(Family::Ipv4)[1]));
        let Value::Array(flows) = relayed.sender.ask("flows") else { return false };
        flows.iter().any(|flow| flow["flow"]["protocol"] == 4 && flow["why"].as_str().is_some_and(|why| why.contains("denied")))
    });
    assert_eq!((relayed.forwarded(), relayed.seen_behind()), (0, 0));
}

/// A relay needs no forwarding. Where it is on nevertheless, the kernel passes nothing on, with the daemon or without.
#[test]
fn a_relay_whose_kernel_would_forward_lets_nothing_pass_that_nobody_has_judged_alive_or_killed() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let relayed = Relayed::start(MTU, "");
    let host = &relayed.site.chain.receiver;
    host.write_setting("net/ipv4/ip_forward", "1").unwrap();
    host.write_setting("net/ipv6/conf/all/forwarding", "1").unwrap();
    let attacker = relayed.attacker();
    let dropped = || {
        let counters = host.run(|| rules::counters(Role::Host).map_err(std::io::Error::other)).unwrap();
        counters.iter().filter(|counter| counter.rule == "forwarded unjudged").map(|counter| counter.packets).sum::<u64>()
    };
    let through = || {
        for family in [Family::Ipv4, Family::Ipv6] {
            let packet = packet::udp((family.sender(), 4000), (far(family)[1], 9000), b"through").unwrap();
            attacker.send(&[packet]).unwrap();
        }
    };
    through();
    wait_until("the kernel would forward both", || dropped() == 2);
    relayed.relay.kill();
    through();
    wait_until("it would forward both without the daemon", || dropped() == 4);
    let of_left = |ip: &[u8]| if ip[0] >> 4 == 4 { ip[12..15] == [192, 168, 20] } else { ip[8..10] == [0xfd, 0x20] };
    assert_eq!(relayed.capture.look(|frames| frames.iter().filter_map(|frame| frame.ip()).filter(|ip| of_left(ip)).count()), 0);
}

/// The sender learns how much fits through the tunnel although nobody on its way to the relay knows the flow inside.
#[test]
fn what_is_too_long_for_the_link_behind_is_answered_and_the_answer_reaches_the_senders_host() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let relayed = Relayed::start(1300, "");
    for family in [Family::Ipv4, Family::Ipv6] {
        let listener = relayed.listen(family);
        relayed.open(family, &listener);
        let told = relayed.shown("/told_too_big/packets");
        let long = packet::udp((family.sender(), 4000), (far(family)[1], GIST), &[0x55; 1290]).unwrap();
        let long = if family == Family::Ipv4 { changed(long, 6, &[0x40]) } else { long };
        relayed.send(&long);
        wait_until("the relay answers", || relayed.shown("/told_too_big/packets") > told);
        assert!(relayed.dropped("too_big") > 0);
        // The router in between knows the packet around it, and lets the answer pass; so does the sender's host.
        let table = if family == Family::Ipv4 { "ip" } else { "ip6" };
        let is_about_size = |row: &&Value| {
            row["family"] == table && row["chain"] == "in-errors-about-size" && row["rule"] == "within the bucket" && row["packets"] != 0
        };
        wait_until("the sender's host hears it", || {
            relayed.sender.ask("counters")["rules"].as_array().unwrap().iter().any(|row| is_about_size(&row))
        });
        let counters = relayed.sender.ask("counters");
        for reason in ["no_permission", "malformed", "unknown_spi", "flow_mismatch", "implausible_error", "error_rate", "error_too_large"] {
            let rows = counters["outbound"]["dropped"].as_array().unwrap();
            assert_eq!(rows.iter().find(|row| row["reason"] == reason).unwrap()["packets"], 0, "{reason}");
        }
    }
}
