//! A path whose router has a shield, and packets for it.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::eventfd::EventFd;
use traffic::af_xdp::ingress::Ingress;
use traffic::netlink::{Batch, Protocol, Socket};
use traffic::queue::{Decision, Delivery, Queue, QueueConfig, ReceiveBuffer};
use traffic::reason::DropReason;
use traffic::rules::{Admitted, Role, RouterRules, Ticket};

use crate::namespace::{Namespace, QUIET, add_route, eventually, index, link, octets};
use crate::raw::{self, Raw};

/// Number of the signalling queue.
pub const SIGNALLING: u16 = 1;
/// Number of the data queue.
pub const DATA: u16 = 2;
pub const AH: u8 = 51;
pub const UDP: u8 = 17;
pub const SPI: u32 = 4096;
pub const LASTING: Duration = Duration::from_secs(600);

/// Sender, router towards it, router towards the receiver, receiver.
pub const FAMILIES: [[&str; 4]; 2] =
    [["192.168.20.1", "192.168.20.254", "192.168.21.254", "192.168.21.4"], ["fd20::1", "fd20::fe", "fd21::fe", "fd21::4"]];

pub fn shielded() -> RouterRules {
    RouterRules { shield: true, ..RouterRules::new(SIGNALLING, DATA, 30_270) }
}

/// The rules alone, and a shield at the ingress before them.
pub fn both() -> [RouterRules; 2] {
    [shielded(), RouterRules { ingress: true, ..shielded() }]
}

/// Waits for the outcome of a request.
pub fn settled(admitted: &Admitted, ticket: Ticket) -> Result<(), String> {
    let mut outcome = None;
    eventually("the request is settled", || {
        outcome = admitted.outcome(ticket);
        outcome.is_some()
    });
    outcome.unwrap()
}

/// Sender, router, receiver, and the router's data queue.
pub struct Path {
    pub sender: Namespace,
    pub router: Namespace,
    pub receiver: Namespace,
    pub queue: Queue,
    buffer: ReceiveBuffer,
    pub admitted: Admitted,
    pub ingress: Option<Ingress>,
}

impl Path {
    pub fn new(rules: RouterRules) -> Self {
        let (sender, router, receiver) = (Namespace::new(), Namespace::new(), Namespace::new());
        let end = |position: usize| FAMILIES.map(|addresses| (addresses[position], if addresses[0].contains(':') { 64 } else { 24 }));
        link(1500, (&sender, "up", &end(0)), (&router, "down", &end(1)));
        link(1500, (&router, "up", &end(2)), (&receiver, "down", &end(3)));
        for [_, near, far, _] in FAMILIES {
            let any = if near.contains(':') { "::" } else { "0.0.0.0" };
            add_route(&sender, any, 0, near);
            add_route(&receiver, any, 0, far);
        }
        router.sysctl("net/ipv4/ip_forward", "1");
        router.sysctl("net/ipv6/conf/all/forwarding", "1");
        for of in ["all", "default", "down", "up"] {
            router.sysctl(&format!("net/ipv4/conf/{of}/rp_filter"), "0");
        }
        router.run(|| rules.install().unwrap());
        let queue = router.run(|| Queue::open(QueueConfig::new(DATA)).unwrap());
        let admitted = router.run(|| Admitted::open(Role::Router).unwrap());
        let ingress = rules.ingress.then(|| router.run(|| Ingress::open(rules.permissions).unwrap()));
        ingress.iter().for_each(|ingress| admitted.stand_behind(ingress.front()));
        Self { sender, router, receiver, queue, buffer: ReceiveBuffer::default(), admitted, ingress }
    }

    /// Addresses of sender and receiver, and a socket of the sender's.
    pub fn ends(&self, [sender, _, _, receiver]: [&str; 4]) -> (IpAddr, IpAddr, Raw) {
        (sender.parse().unwrap(), receiver.parse().unwrap(), self.sender.run(|| Raw::open(sender)))
    }

    /// Length of the next packet that comes to the queue, which is dropped there; `None` if none comes.
    pub fn came(&mut self) -> Option<usize> {
        let never = EventFd::new().unwrap();
        for _ in 0..10 {
            self.queue.wait(never.as_fd(), Some(QUIET / 4)).unwrap();
            let Ok(mut deliveries) = self.queue.receive(&mut self.buffer) else { continue };
            let Some(Delivery::Packet(packet)) = deliveries.next() else { continue };
            let (id, len) = (packet.id, packet.len);
            self.queue.verdict(id, Decision::Drop).unwrap();
            return Some(len);
        }
        None
    }

    /// Lets everything pass that is in the queue, and answers how much of that was under AH; the rest are errors of the receiver, which
    /// knows no such protocol.
    pub fn accept_all(&mut self) -> usize {
        let mut passed = 0;
        while let Ok(deliveries) = self.queue.receive(&mut self.buffer) {
            let protocol = |packet: &[u8]| if packet[0] >> 4 == 4 { packet[9] } else { packet[6] };
            let of = |delivery| if let Delivery::Packet(packet) = delivery { Some((packet.id, protocol(packet.payload))) } else { None };
            let packets: Vec<_> = deliveries.filter_map(of).collect();
            for (id, protocol) in packets {
                self.queue.verdict(id, Decision::Accept).unwrap();
                passed += usize::from(protocol == AH);
            }
        }
        passed
    }

    /// Packets that the rules have dropped for this reason.
    pub fn counted(&self, reason: DropReason) -> u64 {
        let admitted = &self.admitted;
        let dropped = self.router.run(|| admitted.dropped().unwrap());
        dropped.iter().filter(|(of, _)| *of == reason).map(|(_, count)| count.packets).sum()
    }

    pub fn dropped(&self) -> u64 {
        let admitted = &self.admitted;
        let dropped = self.router.run(|| admitted.dropped().unwrap());
        dropped.iter().map(|(_, count)| count.packets).sum()
    }
}

/// An IPv6 packet with a Fragment header, of which nothing else follows.
pub fn in_one_fragment(packet: &[u8]) -> Vec<u8> {
    const FRAGMENT: u8 = 44;
    let mut whole = packet.to_vec();
    let (next, len) = (whole[6], u16::from_be_bytes([whole[4], whole[5]]) + 8);
    whole[6] = FRAGMENT;
    whole[4..6].copy_from_slice(&len.to_be_bytes());
    whole.splice(40..40, [next, 0, 0, 0, 0, 0, 0, 9]);
    whole
}

/// A packet under AH with so many octets behind it; nobody looks at its ICV here.
pub fn sealed(ends: raw::Ends<'_>, spi: u32, len: usize) -> Vec<u8> {
    let words = if ends.0.contains(':') { 6 } else { 5 };
    let mut payload = [&[UDP, words, 0, 0][..], &spi.to_be_bytes(), &[0, 0, 0, 1]].concat();
    payload.resize(4 * (usize::from(words) + 2) + len, 7);
    raw::packet(ends, AH, payload, 20)
}

pub fn datagram(ends: raw::Ends<'_>, (from, to): (u16, u16)) -> Vec<u8> {
    let payload = [from.to_be_bytes(), to.to_be_bytes(), 12u16.to_be_bytes(), [0; 2]].concat();
    raw::packet(ends, UDP, [payload, vec![7; 4]].concat(), 6)
}

/// ICMP's "unreachable" about a packet.
pub fn quoting(packet: &[u8]) -> Vec<u8> {
    let is_ipv4 = packet[0] >> 4 == 4;
    [&[if is_ipv4 { 3 } else { 1 }, 1, 0, 0, 0, 0, 0, 0], packet].concat()
}

/// Takes a neighbour out of the kernel's cache, if it is there.
pub fn forget_neighbour(link: &str, address: &str) {
    let address: IpAddr = address.parse().unwrap();
    let family = if address.is_ipv4() { 2 } else { 10 };
    let [a, b, c, d] = index(link).to_ne_bytes();
    let fixed = [family, 0, 0, 0, a, b, c, d, 0, 0, 0, 0];
    let mut batch = Batch::new("forget a neighbour");
    batch.request("forget a neighbour", 29, 0, &fixed, |writer| writer.put(1, &octets(address)));
    let _ = Socket::open(Protocol::Route).unwrap().transact(batch);
}

/// Frames that have come in by the link of this namespace.
pub fn received() -> u64 {
    let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = devices.lines().find_map(|line| line.trim_start().strip_prefix("down:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
