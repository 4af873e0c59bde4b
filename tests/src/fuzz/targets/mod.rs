//! The targets.
#![allow(clippy::panic, reason = "a target panics where something is broken, and that is what a campaign looks for")]

mod certificate;
mod configuration;
mod control;
mod conversation;
mod intercepted;
mod ipc;
mod message;
mod netlink;
mod node;
mod nodes;
mod packet;
mod pbs;
mod stream;
mod verifier;

use super::{Layout, Target};
pub use verifier::judge;

/// All of them.
pub const TARGETS: [Target; 16] = [
    Target {
        name: "gist-message",
        reads: "a GIST message, without magic number",
        layout: Layout::Gist { at: 0 },
        seeds: no_seeds,
        take: message::take,
    },
    Target {
        name: "gist-routing",
        reads: "the value of a Message-Routing-Information object",
        layout: Layout::Plain,
        seeds: no_seeds,
        take: message::take_routing,
    },
    Target {
        name: "gist-stream",
        reads: "a messaging association's octets, in pieces of the length that the first one says",
        layout: Layout::Gist { at: 1 },
        seeds: no_seeds,
        take: stream::take,
    },
    Target {
        name: "gist-intercepted",
        reads: "an IP packet on its way past a GIST node",
        layout: Layout::Ip { at: 0 },
        seeds: no_seeds,
        take: intercepted::take,
    },
    Target {
        name: "gist-datagram",
        reads: "a datagram to a node in one of its states: which state, how it comes, and the payload behind the magic number",
        layout: Layout::Gist { at: 2 },
        seeds: node::datagrams,
        take: node::take_datagram,
    },
    Target {
        name: "gist-association",
        reads: "a message on an association of a node in one of its states: which state, which association, and the message",
        layout: Layout::Gist { at: 2 },
        seeds: node::messages,
        take: node::take_message,
    },
    Target {
        name: "gist-conversation",
        reads: "what a node in one of its states gets over some time: which state, and steps of four octets",
        layout: Layout::Plain,
        seeds: conversation::seeds,
        take: conversation::take,
    },
    Target {
        name: "gist-ipc",
        reads: "a line of a program on the socket of applications",
        layout: Layout::Text,
        seeds: no_seeds,
        take: ipc::take,
    },
    Target { name: "pbs-message", reads: "a message of PBS", layout: Layout::Pbs, seeds: no_seeds, take: pbs::take },
    Target {
        name: "ip-packet",
        reads: "an IP packet, with AH or without",
        layout: Layout::Ip { at: 0 },
        seeds: no_seeds,
        take: packet::take,
    },
    Target {
        name: "ip-tunnel",
        reads: "an IP packet that may hold another",
        layout: Layout::Ip { at: 0 },
        seeds: no_seeds,
        take: packet::take_tunnel,
    },
    Target {
        name: "certificate",
        reads: "a certificate in DER",
        layout: Layout::Plain,
        seeds: certificate::seeds,
        take: certificate::take,
    },
    Target {
        name: "configuration",
        reads: "a configuration file, as that of a host and as that of a router",
        layout: Layout::Lines,
        seeds: configuration::seeds,
        take: configuration::take,
    },
    Target {
        name: "control-socket",
        reads: "a line on the control socket, as a request to either daemon and as an answer of one",
        layout: Layout::Text,
        seeds: control::seeds,
        take: control::take,
    },
    Target {
        name: "netlink",
        reads: "what the kernel says: who reads it (queue, routes, links, neighbours, rules, filter), and the messages",
        layout: Layout::Netlink { at: 1 },
        seeds: netlink::seeds,
        take: netlink::take,
    },
    Target {
        name: "verifier",
        reads: "a row of packets to a verifier with live permissions: where it stands, and records of what is done to each",
        layout: Layout::Plain,
        seeds: verifier::seeds,
        take: verifier::take,
    },
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn no_seeds() -> Vec<Vec<u8>> {
    Vec::new()
}
