//! What cannot be permitted does not reach user space: of what is forwarded only packets whose addresses and SPI belong to a live permission
//! ([`Admitted`](super::Admitted)), and few ICMP errors that may be about such packets, go up to the data queue.
//!
//! If every interface is closed the shield stands first of all in PREROUTING, where what is dropped costs least, in one chain together
//! with what is taken out or held back there, since each further chain costs every packet. Of fragments the first shows whose they are
//! (`fragments`), so that what comes to FORWARD with AH needs no second look. What has none and came in fragments is judged there. There
//! the shield stands alone where what becomes of a packet depends on the interface by which it leaves. The exemptions of X-58 and what is
//! for the router itself are let by, but for AH, which is never exempt.
//!
//! Each rule that drops is named by the reason ([`DropReason`]) by which the verifier would drop the packet, whose table has the same
//! permissions; but under an SPI that lives between other addresses it is `unknown_spi` here.

use super::admitted::{ADMITTED, FLOWS};
use super::class;
use super::expression::{ADDRESS_UNICAST, Expression, fragmented, host, protocol, unfragmented};
use super::fragments::FRAGMENTS;
use super::key::{Key, LOAD_SPI, flow_without_ports, tunnels_towards};
use super::plan::{Base, Bucket, Chain, Family, Hook, Interface, Policy, Rule, Table};
use super::spread::Towards;
use super::{LET_BY, RouterRules};
use crate::counters::Count;
use crate::reason::DropReason;
use crate::rules::RuleCounter;

const AH: u8 = 51;
const UDP: u8 = 17;
/// Whose headers begin with two ports (TCP, UDP, DCCP, SCTP, UDP-Lite), as the verifier tells flows apart.
const WITH_PORTS: [u8; 5] = [6, UDP, 33, 132, 136];

/// Before reassembly.
const PRIORITY: i32 = -450;
const BEFORE_ROUTING: &str = "shield-before-routing";
const BEHIND_ROUTING: &str = "forward";
const NOT_PERMITTED: &str = "shield";
const ERRORS: &str = "shield-errors";
const ERRORS_OF_ONE: &str = "shield-errors-permitted";
const ERRORS_OF_TUNNELS: &str = "shield-errors-tunnels";
const ERRORS_OF_OTHERS: &str = "shield-errors-others";
/// In every network namespace.
const INDEX_OF_LOOPBACK: u32 = 1;
/// What names packets that pass the shield.
const PASSED: &str = "permitted";

/// ICMP errors that quote packets of one permission: more than the verifier passes on of them.
const OF_ONE: Bucket = Bucket::new(50, 50);
/// Of others that go to one node whose permission is for a tunnel, in which what is quoted may have come this way unseen.
const OF_TUNNELS: Bucket = Bucket::new(100, 100);
/// Of others that arrive by one interface: AH may stand in a quote behind extension headers.
const OF_OTHERS: Bucket = Bucket::new(200, 100);

/// Whether it stands in PREROUTING.
pub(super) fn is_before_routing(rules: &RouterRules) -> bool {
    rules.shield && rules.modes.are_closed()
}

/// The chain for a router all of whose interfaces are closed. `signalling` takes out what is for the signalling queue.
pub(super) fn before_routing(rules: &RouterRules, signalling: Rule, family: Family) -> Option<Chain> {
    if !is_before_routing(rules) {
        return None;
    }
    let pass = |test: Vec<Expression>| [test, vec![Expression::Accept]];
    let mut list = vec![
        // The queue's rule in FORWARD counts them.
        Rule::new(PASSED, [whole_with_ah(family), of_a_permission(family), vec![Expression::Accept]]),
        Rule::new("loopback", pass(vec![Expression::LoadInputIndex, Expression::Equal(host(INDEX_OF_LOOPBACK))])),
        drops(DropReason::UnknownSpi, [whole_with_ah(family), vec![LOAD_SPI]].concat()),
        // Too short for an SPI.
        drops(DropReason::Malformed, whole_with_ah(family)),
        signalling,
        Rule::new("in fragments", [fragmented(family), vec![Expression::Jump(FRAGMENTS.into())]]),
    ];
    // Their buckets stand in FORWARD.
    list.extend(errors(family).map(|test| Rule::new("icmp errors", pass(test))));
    list.extend(to_nodes_of_the_link(family).map(|test| Rule::new("for this node", pass(test))));
    // Also what cannot be routed, which goes no further.
    let not_forwarded = vec![Expression::LoadDestinationType, Expression::Unequal(host(ADDRESS_UNICAST))];
    list.push(Rule::new("for this node", pass(not_forwarded)));
    for exempt in &rules.exempt {
        // Its bucket stands in FORWARD.
        let tests = [true, false].into_iter().filter_map(|asks| exempt.forwarded_before_routing(asks, family));
        list.extend(tests.map(|test| Rule::new(format!("exempt {}", exempt.name), pass(test))));
    }
    list.extend([not_permitted(), without_permission()]);
    if rules.ingress {
        // What comes to FORWARD without AH is judged there whoever has signed it.
        let signed = vec![Expression::LoadPriority, Expression::Equal(host(LET_BY))];
        // IPv4 gives each forwarded packet its class anew, unless it is told not to (ip_forward_update_priority).
        let take_off = match family {
            Family::Ipv4 => Vec::new(),
            Family::Ipv6 => vec![Expression::Load(host(0)), Expression::SetPriority],
        };
        list.insert(0, Rule::new("let by at the ingress", [signed, take_off, vec![Expression::Accept]]));
    }
    let base = Base { hook: Hook::Prerouting, priority: PRIORITY, kind: "filter", policy: Policy::Accept };
    Some(Chain { name: BEFORE_ROUTING.into(), base: Some(base), rules: list })
}

/// What begins FORWARD behind [`before_routing`]: whatever has AH here has shown its SPI there.
pub(super) fn to_the_queue(rules: &RouterRules, family: Family) -> Option<Rule> {
    let with_ah = match family {
        Family::Ipv4 => vec![Expression::LoadNetwork { offset: 9, len: 1 }, Expression::Equal(vec![AH])],
        Family::Ipv6 => protocol(AH),
    };
    is_before_routing(rules).then(|| Rule::new(PASSED, [with_ah, vec![Expression::Counter, Towards::Data.expression(rules)]]))
}

/// The rules that end FORWARD behind [`before_routing`]: what came in fragments without AH is judged here, and everything else without
/// AH once more, since others may have changed it on the way, and multicast that is routed comes here as it is.
pub(super) fn behind_routing(queue: &Expression, table: &mut Table) -> Vec<Rule> {
    add(queue, table);
    vec![not_permitted(), without_permission()]
}

/// Packets of a live permission.
pub(super) fn permitted(then: Expression, family: Family) -> Rule {
    Rule::new(PASSED, [protocol(AH), of_a_permission(family), vec![Expression::Counter, then]])
}

/// Tests a packet with AH for a permission.
fn of_a_permission(family: Family) -> Vec<Expression> {
    [Key::Association.load(family), vec![Expression::Known(ADMITTED.into())]].concat()
}

/// Tests for AH in what is no fragment of any kind.
fn whole_with_ah(family: Family) -> Vec<Expression> {
    match family {
        // More fragments or an offset, behind the identification: the kernel has a short way to load, mask and compare 4 octets at a
        // multiple of 4, and one at any place.
        Family::Ipv4 => vec![
            Expression::LoadNetwork { offset: 9, len: 1 },
            Expression::Equal(vec![AH]),
            Expression::LoadNetwork { offset: 4, len: 4 },
            Expression::Mask(vec![0, 0, 0x3f, 0xff]),
            Expression::Equal(vec![0; 4]),
        ],
        Family::Ipv6 => [protocol(AH), unfragmented(family)].concat(),
    }
}

/// Goes to [`add`]'s chain, and comes back with packets that claim no permission, belong to none, and are no ICMP errors.
pub(super) fn not_permitted() -> Rule {
    Rule::new("not permitted", [vec![Expression::Jump(NOT_PERMITTED.into())]])
}

/// Drops what [`not_permitted`] has left.
pub(super) fn without_permission() -> Rule {
    drops(DropReason::NoPermission, Vec::new())
}

/// Adds the chains for packets that are not [`permitted`]; `then` is what becomes of ICMP errors.
pub(super) fn add(then: &Expression, table: &mut Table) {
    let family = table.family;
    // Its last rule is for what is above the bucket.
    table.add_buckets(ERRORS_OF_ONE, OF_ONE, Key::QuotedAssociation, then.clone(), None);
    table.add_buckets(ERRORS_OF_TUNNELS, OF_TUNNELS, Key::DestinationAddress, then.clone(), None);
    table.add_bucket(ERRORS_OF_OTHERS, OF_OTHERS, Interface::Arriving, then.clone());
    let known = |load: Vec<Expression>| [load, vec![Expression::Known(FLOWS.into())]].concat();
    let quoted = [Key::QuotedAssociation.load(family), vec![Expression::Known(ADMITTED.into())]].concat();
    let errors_by_quote = vec![
        Rule::new("of a permission", [quoted, vec![Expression::Jump(ERRORS_OF_ONE.into())]]),
        Rule::new("of tunnels", [known(tunnels_towards(family)), vec![Expression::Jump(ERRORS_OF_TUNNELS.into())]]),
        Rule::new("of others", [vec![Expression::Jump(ERRORS_OF_OTHERS.into())]]),
    ];
    table.chains.push(Chain { name: ERRORS.into(), base: None, rules: errors_by_quote });
    let with_ports = |of| drops(DropReason::MissingAh, known([protocol(of), Key::Flow.load(family)].concat()));
    let mut rules = vec![
        drops(DropReason::UnknownSpi, [protocol(AH), Key::Association.load(family)].concat()),
        // Too short for an SPI.
        drops(DropReason::Malformed, protocol(AH)),
    ];
    rules.extend(errors(family).map(|test| Rule::new("icmp errors", [test, vec![Expression::Jump(ERRORS.into())]])));
    rules.extend(WITH_PORTS.map(with_ports));
    rules.push(drops(DropReason::MissingAh, known(flow_without_ports(family, false))));
    table.chains.push(Chain { name: NOT_PERMITTED.into(), base: None, rules });
}

/// What the rules have dropped instead of the verifier, by reason.
pub(super) fn dropped(counters: &[RuleCounter]) -> Vec<(DropReason, Count)> {
    let reason = |counter: &RuleCounter| match (&*counter.chain, &*counter.rule) {
        (ERRORS_OF_ONE | ERRORS_OF_TUNNELS | ERRORS_OF_OTHERS, "above the bucket") => Some(DropReason::ErrorRate),
        (NOT_PERMITTED | BEFORE_ROUTING | BEHIND_ROUTING | FRAGMENTS | "forward-closed", word) => {
            DropReason::ALL.iter().copied().find(|reason| reason.word() == word)
        }
        _ => None,
    };
    let sum = |of: DropReason| {
        let counted = counters.iter().filter(|counter| reason(counter) == Some(of));
        counted.fold(Count::default(), |sum, counter| sum.plus(Count { packets: counter.packets, bytes: counter.bytes }))
    };
    DropReason::ALL.iter().map(|reason| (*reason, sum(*reason))).filter(|(_, count)| count.packets > 0).collect()
}

fn drops(reason: DropReason, test: Vec<Expression>) -> Rule {
    Rule::new(reason.word(), [test, vec![Expression::Counter, Expression::Drop]])
}

/// IPv6 link-local and multicast, without a look at the routing table.
fn to_nodes_of_the_link(family: Family) -> impl Iterator<Item = Vec<Expression>> {
    let prefix = |mask: [u8; 2], value: [u8; 2]| {
        vec![Expression::LoadNetwork { offset: 24, len: 2 }, Expression::Mask(mask.to_vec()), Expression::Equal(value.to_vec())]
    };
    let tests = [prefix([0xff, 0xc0], [0xfe, 0x80]), prefix([0xff, 0], [0xff, 0])];
    tests.into_iter().filter(move |_| family == Family::Ipv6)
}

fn errors(family: Family) -> impl Iterator<Item = Vec<Expression>> {
    match family {
        Family::Ipv4 => class::icmp_errors(),
        Family::Ipv6 => class::icmpv6_errors(),
    }
    .into_iter()
}
