//! What gets into the kernel's memory for datagrams that are not whole yet.
//!
//! That memory is small and slow: 4 MiB, in which a fragment without its rest stays for 30 s (IPv4) or 60 s (IPv6), and takes a
//! kilobyte or more however short it is. When it is full, no datagram in fragments passes at all, so that 140 packets a second from
//! anywhere would be enough. Therefore only what belongs to a permission goes in without a bound: a first fragment with AH
//! whose SPI lives between its addresses ([`Admitted`](super::Admitted)), and the fragments that follow it. For everything else there are
//! so few a second that it never fills the memory. Nobody knows an SPI who has not seen the flow; who has can fill the memory still, and
//! harms datagrams in fragments alone.

use super::Fragments;
use super::admitted::ADMITTED;
use super::expression::{ADDRESS_LOCAL, Expression, fragmented, host, interface, protocol, unfragmented};
use super::key::{FRAGMENT_HEADER, Key};
use super::plan::{Base, Bucket, Chain, Family, Hook, Interface, Policy, Rule, Set, Table};

const AH: u8 = 51;

/// The datagrams whose first fragment was admitted.
const BEGUN: &str = "fragments-begun-datagrams";
/// How long the rest of such a datagram is waited for, in milliseconds.
const REST: u64 = 5_000;
/// Fragments of one datagram: more than 65,535 octets have on a link of 576 octets.
const OF_A_DATAGRAM: Bucket = Bucket::new(64, 128);

const OF_ONE: &str = "fragments-begun";
const OF_A_SOURCE: &str = "fragments-source";
const OF_AN_INTERFACE: &str = "fragments-interface";
const OF_THE_NODE: &str = "fragments-node";

/// Fragments a second that belong to no permission: of one source, an address or an IPv6 /64; on one interface; and on all of them. As
/// many as wait at the most take up half of the kernel's memory, if each takes up that of a full frame. The longest datagram
/// passes at once.
const fn others(family: Family) -> [Bucket; 3] {
    // The kernel waits for the rest twice as long on IPv6.
    match family {
        Family::Ipv4 => [Bucket::new(10, 46), Bucket::new(20, 64), Bucket::new(30, 96)],
        Family::Ipv6 => [Bucket::new(5, 46), Bucket::new(10, 64), Bucket::new(15, 96)],
    }
}

/// Adds the chain that everything passes before reassembly. A node's traffic with itself is not concerned. Where a router's interface
/// is `observed`, what would be dropped here goes on as it is, and is judged so.
pub(super) fn chains(fragments: Fragments, observed: bool, table: &mut Table) {
    let family = table.family;
    let loopback = Rule::new("loopback", [interface(Interface::Arriving, "lo"), vec![Expression::Accept]]);
    let rules = match fragments {
        Fragments::Drop => vec![loopback, Rule::new("fragments", [fragmented(family), vec![Expression::Counter, Expression::Drop]])],
        Fragments::Reassemble => [vec![loopback], whole(family), made_whole(observed, table)].concat(),
    };
    table.chains.push(Chain {
        name: "fragments".into(),
        base: Some(Base { hook: Hook::Prerouting, priority: -450, kind: "filter", policy: Policy::Accept }),
        rules,
    });
}

/// What waits for nothing. So does a fragment that is the whole datagram (RFC 6946).
fn whole(family: Family) -> Vec<Rule> {
    let mut tests = vec![unfragmented(family)];
    if family == Family::Ipv6 {
        tests.push(vec![PLACE, Expression::Mask(vec![0xff, 0xf9]), Expression::Equal(vec![0, 0])]);
    }
    tests.into_iter().map(|test| Rule::new("whole", [test, vec![Expression::Accept]])).collect()
}

fn made_whole(observed: bool, table: &mut Table) -> Vec<Rule> {
    let family = table.family;
    table.sets.push(Set { name: BEGUN.into(), key: Key::Datagram, timeout: REST });
    table.add_buckets(OF_ONE, OF_A_DATAGRAM, Key::Datagram, Expression::Accept, None);
    let [of_a_source, of_an_interface, of_the_node] = others(family);
    table.chains.push(of_the_whole_node(of_the_node));
    table.add_bucket(OF_AN_INTERFACE, of_an_interface, Interface::Arriving, Expression::Jump(OF_THE_NODE.into()));
    table.add_buckets(OF_A_SOURCE, of_a_source, Key::Source(Interface::Arriving), Expression::Jump(OF_AN_INTERFACE.into()), None);
    if observed {
        for chain in table.chains.iter_mut().filter(|chain| [OF_A_SOURCE, OF_AN_INTERFACE, OF_THE_NODE].contains(&&*chain.name)) {
            let before_the_last = chain.rules.len().saturating_sub(1);
            chain.rules.insert(before_the_last, as_it_is(Vec::new()));
        }
    }
    let short = || [first(family), too_short(family)].concat();
    let known = [first(family), protocol(AH), Key::Association.load(family), vec![Expression::Known(ADMITTED.into())]].concat();
    let begin = [Key::Datagram.load(family), vec![Expression::Remember { set: BEGUN.into(), timeout: REST }]].concat();
    let begun = [Key::Datagram.load(family), vec![Expression::Known(BEGUN.into()), Expression::Jump(OF_ONE.into())]];
    let mut rules = vec![
        Rule::new("too short", [short(), vec![Expression::Counter, Expression::Drop]]),
        Rule::new("of a permission", [known, begin, vec![Expression::Counter, Expression::Jump(OF_ONE.into())]]),
        Rule::new("of a datagram begun", begun),
        Rule::new("of no permission", [vec![Expression::Jump(OF_A_SOURCE.into())]]),
    ];
    if observed {
        rules.insert(0, as_it_is(short()));
    }
    rules
}

/// One bucket for all interfaces.
fn of_the_whole_node(bucket: Bucket) -> Chain {
    let rules = vec![
        Rule::new("within the bucket", [vec![Expression::Rate(bucket), Expression::Counter, Expression::Accept]]),
        Rule::new("above the bucket", [vec![Expression::Counter, Expression::Drop]]),
    ];
    Chain { name: OF_THE_NODE.into(), base: None, rules }
}

/// Past reassembly, where whoever observes sees it. Not what is for the node itself, whose stack would make it whole later.
fn as_it_is(test: Vec<Expression>) -> Rule {
    let forwarded = vec![Expression::LoadDestinationType, Expression::Unequal(host(ADDRESS_LOCAL))];
    Rule::new("not made whole", [test, forwarded, vec![Expression::Counter, Expression::LeaveAsItIs, Expression::Accept]])
}

/// Offset in units of 8 octets and whether more follow, as they stand in the header.
const PLACE: Expression = Expression::LoadExtension { kind: FRAGMENT_HEADER, offset: 2, len: 2 };

/// Tests whether a fragment is the first.
fn first(family: Family) -> Vec<Expression> {
    let (place, offset) = match family {
        Family::Ipv4 => (Expression::LoadNetwork { offset: 6, len: 2 }, vec![0x1f, 0xff]),
        Family::Ipv6 => (PLACE, vec![0xff, 0xf8]),
    };
    vec![place, Expression::Mask(offset), Expression::Equal(vec![0, 0])]
}

/// Tests whether a first fragment has no room for IP, the shortest AH that PBS uses, and ports: no link is that narrow, so that it is
/// made for nothing good (RFC 1858 §3.1, RFC 7112).
fn too_short(family: Family) -> Vec<Expression> {
    // The total length on IPv4; that of what is behind the first header on IPv6: a Fragment header, AH, 8 octets.
    let (place, most) = match family {
        Family::Ipv4 => (2, 59u16),
        Family::Ipv6 => (4, 47),
    };
    vec![Expression::LoadNetwork { offset: place, len: 2 }, Expression::Between(vec![0, 0], most.to_be_bytes().to_vec())]
}
