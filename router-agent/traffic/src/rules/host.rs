//! The rules of a host.

use super::admitted;
use super::asking;
use super::class::{self, Way};
use super::expression::{ADDRESS_LOCAL, ADDRESS_UNICAST, Expression, fragmented, host, interface, protocol, reassembly};
use super::fragments;
use super::peers;
use super::plan::{Base, Chain, Family, Hook, Interface, Policy, Rule, Table};
use super::{HostRules, Whole};
use crate::af_xdp::INLET;
use crate::table::DEFAULT_CAPACITY;

/// Priority of the chain that queues what the host sends.
pub(super) const OUTBOUND: i32 = -150;
/// Priority before the kernel makes datagrams whole.
const BEFORE_REASSEMBLY: i32 = -450;
/// Priority of the chain that marks what comes back by ways: after reassembly.
const BACK: i32 = -310;
const AH: u8 = 51;

/// The host's table in one family.
pub(super) fn plan(rules: &HostRules, family: Family) -> Table {
    let mut table = Table::new(family);
    table.sets.push(admitted::set(DEFAULT_CAPACITY));
    table.sets.extend(peers::sets());
    let mut outbound = relayed(rules);
    outbound.push(Rule::new("loopback", [interface(Interface::Leaving, "lo"), pass()]));
    outbound.extend(rules.relayed.map(|mark| Rule::new("relayed", [is_marked(mark), pass()])));
    outbound.extend(rules.whole.map(|whole| Rule::new("own segments", [is_own_segment(whole), pass()])));
    let mut inbound = vec![
        Rule::new("reassembly", [reassembly()]),
        class::own_errors_about_size(family),
        Rule::new("loopback", [interface(Interface::Arriving, "lo"), pass()]),
    ];
    inbound.extend(rules.inlet.map(|index| Rule::new("judged", [is_inlet(index), pass()])));
    inbound.push(
        // What the host forwards is not for it. Everything else is, broadcast and multicast too.
        Rule::new("not for this host", [vec![Expression::LoadDestinationType, Expression::Equal(host(ADDRESS_UNICAST))], pass()]),
    );
    let exempt = class::Listed {
        association_port: rules.association_port,
        path_mark: rules.path_mark,
        exemptions: rules.exemptions,
        exempt: &rules.exempt,
    };
    outbound.extend(exempt.rules(Way::Out, &mut table));
    inbound.extend(exempt.rules(Way::In, &mut table));
    inbound.push(class::errors_about_size(rules, &mut table));
    let asking = asking::chains(rules.outbound_queue, rules.whole.map(|whole| whole.queue), rules.asking, &mut table);
    outbound.push(Rule::new("outbound", [vec![Expression::Counter, Expression::Jump(asking.into())]]));
    inbound.push(Rule::new("inbound", [vec![Expression::Counter, Expression::Queue(rules.inbound_queue)]]));
    fragments::chains(rules.fragments, &rules.reassembly, false, Some(fragments::BEFORE_REASSEMBLY), &mut table);
    table.chains.extend(comes_back(rules).filter(|_| family == Family::Ipv4));
    table.chains.extend(rules.relayed.filter(|_| family == Family::Ipv6).map(relayed_parts));
    table.chains.extend(rules.relayed.map(|_| nothing_forwarded()));
    table.chains.extend(rules.whole.map(own_segments));
    table.chains.push(Chain {
        name: "outbound".into(),
        // After connection tracking, so that it sees the packet without AH.
        base: Some(Base { hook: Hook::Output, priority: OUTBOUND, kind: "route", policy: Policy::Drop }),
        rules: outbound,
    });
    table.chains.push(Chain {
        name: "inbound".into(),
        // After reassembly and before connection tracking, for the same reason.
        base: Some(Base { hook: Hook::Prerouting, priority: -300, kind: "filter", policy: Policy::Drop }),
        rules: inbound,
    });
    table
}

/// Parts of datagrams that a relay sends on leave as they came (IPv4: by an option of its socket). Made whole first, those whose rest never
/// comes would wait here, in the memory of what comes to this host, and beside the buckets that keep its shares.
fn relayed_parts(mark: u32) -> Chain {
    let as_they_are = vec![Expression::Counter, Expression::LeaveAsItIs, Expression::Accept];
    Chain {
        name: "relayed-parts".into(),
        base: Some(Base { hook: Hook::Output, priority: BEFORE_REASSEMBLY, kind: "filter", policy: Policy::Accept }),
        rules: vec![Rule::new("relayed parts", [is_marked(mark), fragmented(Family::Ipv6), as_they_are])],
    }
}

/// Segments with AH of what this host's stack has handed down as one packet: connection tracking has seen that, and would take these for
/// something else.
fn own_segments(whole: Whole) -> Chain {
    let as_they_are = vec![Expression::Counter, Expression::LeaveAsItIs, Expression::Accept];
    Chain {
        name: "own-segments".into(),
        base: Some(Base { hook: Hook::Output, priority: BEFORE_REASSEMBLY, kind: "filter", policy: Policy::Accept }),
        rules: vec![Rule::new("own segments", [is_own_segment(whole), as_they_are])],
    }
}

/// AH, and the mark of what has been through the queue: to set it takes the privilege to send anything at all.
fn is_own_segment(whole: Whole) -> Vec<Expression> {
    let mark = vec![Expression::LoadMark, Expression::Mask(host(whole.mark)), Expression::Equal(host(whole.mark))];
    [protocol(AH), mark].concat()
}

/// What comes back by the link of a way gets its bits, before routing asks whether it may come from there. Of several ways by one
/// link the first counts.
fn comes_back(rules: &HostRules) -> impl Iterator<Item = Chain> {
    let back = |(link, bits): &(String, u32)| {
        let is_for_us = vec![Expression::LoadDestinationType, Expression::Equal(host(ADDRESS_LOCAL))];
        let says_so = [Expression::Change { mask: host(!rules.path_mark), flip: host(*bits) }, Expression::SetMark];
        let unmarked = [Expression::LoadMark, Expression::Mask(host(rules.path_mark)), Expression::Equal(host(0)), Expression::LoadMark];
        Rule::new("comes back by a way", [interface(Interface::Arriving, link), is_for_us, unmarked.into(), says_so.into()])
    };
    let base = Base { hook: Hook::Prerouting, priority: BACK, kind: "filter", policy: Policy::Accept };
    let rules: Vec<Rule> = rules.ways.iter().map(back).collect();
    (!rules.is_empty()).then(|| Chain { name: "ways".into(), base: Some(base), rules }).into_iter()
}

/// What a relay sends on is for others: to none of the host's own addresses, whichever it has at this moment.
fn relayed(rules: &HostRules) -> Vec<Rule> {
    let dropped = || vec![Expression::Counter, Expression::Drop];
    let to_itself = |mark| Rule::new("relayed to this host", [is_marked(mark), interface(Interface::Leaving, "lo"), dropped()]);
    rules.relayed.map(to_itself).into_iter().collect()
}

/// A relay sends on what it has judged, from its own sockets. What the kernel forwards, if its forwarding is on, nobody has: a host
/// that stands between two networks would let everything pass.
fn nothing_forwarded() -> Chain {
    Chain {
        name: "forward".into(),
        base: Some(Base { hook: Hook::Forward, priority: 0, kind: "filter", policy: Policy::Drop }),
        rules: vec![Rule::new("forwarded unjudged", [vec![Expression::Counter, Expression::Drop]])],
    }
}

/// What comes by the device of this host's own daemon, past its queue.
fn is_inlet(index: u32) -> Vec<Expression> {
    let is_it = vec![Expression::LoadInputIndex, Expression::Equal(host(index))];
    [is_it, interface(Interface::Arriving, INLET)].concat()
}

fn is_marked(mark: u32) -> Vec<Expression> {
    vec![Expression::LoadMark, Expression::Equal(host(mark))]
}

/// Traffic of the host with itself reaches no link. It has no bucket, being no exemption from anything that leaves or comes.
fn pass() -> Vec<Expression> {
    vec![Expression::Counter, Expression::Accept]
}
