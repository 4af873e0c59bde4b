//! The rules of a host.

use super::expression::{ADDRESS_UNICAST, Expression, destination_port, host, interface_name, protocol, reassembly, source_port};
use super::plan::{Base, Chain, Family, Hook, Policy, Rule, Table, bucket_chain};
use super::{GIST_PORT, HostRules};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// Which way a packet goes, seen from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Out,
    In,
}

/// The host's table in one family.
pub(super) fn plan(rules: &HostRules, family: Family) -> Table {
    let mut chains = Vec::new();
    let mut outbound = vec![Rule::new("loopback", [vec![Expression::LoadOutputName], loopback()])];
    let mut inbound = vec![
        Rule::new("reassembly", [reassembly()]),
        Rule::new("loopback", [vec![Expression::LoadInputName], loopback()]),
        // What the host forwards is not for it. Everything else is, broadcast and multicast too.
        Rule::new(
            "not for this host",
            [vec![Expression::LoadDestinationType, Expression::Equal(host(ADDRESS_UNICAST)), Expression::Counter, Expression::Accept]],
        ),
    ];
    for exemption in exemptions(rules, family) {
        for (way, chain, base) in [(Way::Out, exemption.out_chain, &mut outbound), (Way::In, exemption.in_chain, &mut inbound)] {
            chains.push(bucket_chain(chain, exemption.bucket, Expression::Accept));
            for test in (exemption.tests)(way, rules) {
                base.push(Rule::new(exemption.name, [test, vec![Expression::Jump(chain)]]));
            }
        }
    }
    outbound.push(Rule::new("outbound", [vec![Expression::Counter, Expression::Queue(rules.outbound_queue)]]));
    inbound.push(Rule::new("inbound", [vec![Expression::Counter, Expression::Queue(rules.inbound_queue)]]));
    chains.push(Chain {
        name: "outbound",
        // After connection tracking, so that it sees the packet without AH.
        base: Some(Base { hook: Hook::Output, priority: -150, kind: "route", policy: Policy::Drop }),
        rules: outbound,
    });
    chains.push(Chain {
        name: "inbound",
        // After reassembly and before connection tracking, for the same reason.
        base: Some(Base { hook: Hook::Prerouting, priority: -300, kind: "filter", policy: Policy::Drop }),
        rules: inbound,
    });
    Table { family, chains }
}

/// Something that passes without permission, in a chain of its own each way.
struct Exemption {
    name: &'static str,
    out_chain: &'static str,
    in_chain: &'static str,
    bucket: super::Bucket,
    /// Which packets it is; any of the tests suffices.
    tests: fn(Way, &HostRules) -> Vec<Vec<Expression>>,
}

/// The list of X-58, and nothing beyond it.
fn exemptions(rules: &HostRules, family: Family) -> Vec<Exemption> {
    let buckets = rules.exemptions;
    let mut list = vec![
        Exemption {
            name: "signalling",
            out_chain: "out-signalling",
            in_chain: "in-signalling",
            bucket: buckets.signalling,
            tests: signalling,
        },
        Exemption {
            name: "association",
            out_chain: "out-association",
            in_chain: "in-association",
            bucket: buckets.associations,
            tests: association,
        },
    ];
    let errors = |tests| Exemption {
        name: "icmp errors",
        out_chain: "out-icmp-errors",
        in_chain: "in-icmp-errors",
        bucket: buckets.icmp_errors,
        tests,
    };
    let dhcp = |tests| Exemption { name: "dhcp", out_chain: "out-dhcp", in_chain: "in-dhcp", bucket: buckets.dhcp, tests };
    match family {
        Family::Ipv4 => list.extend([errors(icmp_errors), dhcp(dhcpv4)]),
        Family::Ipv6 => list.extend([
            errors(icmpv6_errors),
            dhcp(dhcpv6),
            Exemption {
                name: "neighbour discovery",
                out_chain: "out-neighbour-discovery",
                in_chain: "in-neighbour-discovery",
                bucket: buckets.neighbour_discovery,
                tests: neighbour_discovery,
            },
        ]),
    }
    list
}

/// From the node's own GIST socket, which no unprivileged program can pose as; and to it.
fn signalling(way: Way, _: &HostRules) -> Vec<Vec<Expression>> {
    let port = match way {
        Way::Out => source_port(GIST_PORT),
        Way::In => destination_port(GIST_PORT),
    };
    vec![[protocol(UDP), port].concat()]
}

/// Segments to the peer's port at either end. Those *from* that port pass only if they belong to a connection that goes to
/// it: otherwise whoever uses the port as its source could connect to any service.
fn association(_: Way, rules: &HostRules) -> Vec<Vec<Expression>> {
    const FLAGS: u32 = 13;
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    let opens_nothing =
        vec![Expression::LoadTransport { offset: FLAGS, len: 1 }, Expression::Mask(vec![SYN | ACK]), Expression::Unequal(vec![SYN])];
    vec![
        [protocol(TCP), destination_port(rules.association_port)].concat(),
        [protocol(TCP), source_port(rules.association_port), opens_nothing].concat(),
    ]
}

/// Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem (RFC 792).
fn icmp_errors(_: Way, _: &HostRules) -> Vec<Vec<Expression>> {
    [3, 11, 12].into_iter().map(|kind| [protocol(ICMP), icmp_types(kind, kind)].concat()).collect()
}

/// Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443 §2.1).
fn icmpv6_errors(_: Way, _: &HostRules) -> Vec<Vec<Expression>> {
    vec![[protocol(ICMPV6), icmp_types(1, 4)].concat()]
}

/// Client to server and back (RFC 2131 §4.1).
fn dhcpv4(way: Way, _: &HostRules) -> Vec<Vec<Expression>> {
    client_and_server(way, 68, 67)
}

/// Client to server and back (RFC 8415 §7.2).
fn dhcpv6(way: Way, _: &HostRules) -> Vec<Vec<Expression>> {
    client_and_server(way, 546, 547)
}

/// Queries and reports of MLD, router and neighbour solicitations and advertisements (130–136), and reports of MLDv2 (143).
/// Redirects are not needed and stay out (RFC 4861 §4, RFC 2710 §3, RFC 3810 §5).
fn neighbour_discovery(_: Way, _: &HostRules) -> Vec<Vec<Expression>> {
    vec![[protocol(ICMPV6), icmp_types(130, 136)].concat(), [protocol(ICMPV6), icmp_types(143, 143)].concat()]
}

fn client_and_server(way: Way, client: u16, server: u16) -> Vec<Vec<Expression>> {
    let (from, to) = match way {
        Way::Out => (client, server),
        Way::In => (server, client),
    };
    vec![[protocol(UDP), source_port(from), destination_port(to)].concat()]
}

fn icmp_types(from: u8, to: u8) -> Vec<Expression> {
    let test = if from == to { Expression::Equal(vec![from]) } else { Expression::Between(vec![from], vec![to]) };
    vec![Expression::LoadTransport { offset: 0, len: 1 }, test]
}

/// Traffic of the host with itself reaches no link. It has no bucket, being no exemption from anything that leaves or comes.
fn loopback() -> Vec<Expression> {
    vec![Expression::Equal(interface_name("lo")), Expression::Counter, Expression::Accept]
}
