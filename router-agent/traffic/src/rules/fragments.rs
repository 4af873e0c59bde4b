//! What gets into the kernel's memory for datagrams that are not whole yet.
//!
//! When that memory is full, no datagram in fragments passes at all. Therefore nobody gets more than a share of it
//! ([`Reassembly`]). A first fragment with AH whose SPI lives between its addresses ([`Admitted`](super::Admitted)) goes in within the bucket
//! of its permission, and the fragments that follow it within the same: who knows an SPI, having seen the flow or being its sender,
//! harms datagrams in fragments of that flow alone. The permissions of one source share another bucket, so that nobody fills the memory
//! by having many, and all permissions a third, so that many sources together leave everything else its own: of that there is so little a
//! second that all of it together takes up no more than a share. Behind a shield ([`super::shield`]) a first fragment with AH under any other
//! SPI does not go in at all.

use super::Fragments;
use super::admitted::ADMITTED;
use super::expression::{ADDRESS_LOCAL, Expression, Unit, fragmented, host, interface, protocol, unfragmented};
use super::key::{FRAGMENT_HEADER, Key, LOAD_SPI};
use super::plan::{Base, Bucket, Chain, Family, Hook, Interface, Policy, Rule, Set, Table};
use super::reassembly::{Reassembly, Share};
use crate::reason::DropReason;

const AH: u8 = 51;

/// The datagrams whose first fragment was admitted, and the SPI of each.
const BEGUN: &str = "fragments-begun-datagrams";
/// Fragments of one datagram: more than 65,535 octets have on a link of 576 octets.
const OF_A_DATAGRAM: Bucket = Bucket::new(64, 128);
/// Where a rule keeps the SPI of a first fragment, behind every key (octets).
const SPI_AT: u32 = 60;

/// First fragments under an SPI that lives.
const FIRST: &str = "fragments-permission-first";
/// What follows them.
const LATER: &str = "fragments-permission-later";
const OF_A_SOURCE: &str = "fragments-source";
const OF_AN_INTERFACE: &str = "fragments-interface";
const OF_THE_NODE: &str = "fragments-node";

/// The chain for what arrives in fragments.
pub(super) const FRAGMENTS: &str = "fragments";
/// Where everything passes it before reassembly.
pub(super) const BEFORE_REASSEMBLY: Base = Base { hook: Hook::Prerouting, priority: -450, kind: "filter", policy: Policy::Accept };

/// Adds the chain before reassembly, which everything passes if it has a `base`, and else what is sent there: then a shield stands there,
/// and first fragments under an SPI that does not live are dropped. A node's traffic with itself is not concerned. Where a router's
/// interface is `observed`, what would be dropped here goes on as it is, and is judged so.
pub(super) fn chains(fragments: Fragments, reassembly: &Reassembly, observed: bool, base: Option<Base>, table: &mut Table) {
    let family = table.family;
    let loopback = Rule::new("loopback", [interface(Interface::Arriving, "lo"), vec![Expression::Accept]]);
    let rules = match fragments {
        Fragments::Drop => vec![loopback, Rule::new("fragments", [fragmented(family), vec![Expression::Counter, Expression::Drop]])],
        Fragments::Reassemble => {
            let shielded = base.is_none();
            [vec![loopback], whole(shielded, family), made_whole(reassembly, observed, shielded, table)].concat()
        }
    };
    table.chains.push(Chain { name: FRAGMENTS.into(), base, rules });
}

/// What waits for nothing. So does a fragment that is the whole datagram (RFC 6946).
fn whole(shielded: bool, family: Family) -> Vec<Rule> {
    let passes = |test: Vec<Expression>| Rule::new("whole", [test, vec![Expression::Accept]]);
    let mut rules = vec![passes(unfragmented(family))];
    if family == Family::Ipv6 {
        let alone = || vec![PLACE, Expression::Mask(vec![0xff, 0xf9]), Expression::Equal(vec![0, 0])];
        if shielded {
            rules.extend([passes([alone(), known(family)].concat()), unknown(alone())]);
        }
        rules.push(passes(alone()));
    }
    rules
}

/// Tests for AH under an SPI that lives.
fn known(family: Family) -> Vec<Expression> {
    [protocol(AH), Key::Association.load(family), vec![Expression::Known(ADMITTED.into())]].concat()
}

/// Drops the others with AH.
fn unknown(test: Vec<Expression>) -> Rule {
    Rule::new(DropReason::UnknownSpi.word(), [test, protocol(AH), vec![Expression::Counter, Expression::Drop]])
}

fn made_whole(reassembly: &Reassembly, observed: bool, shielded: bool, table: &mut Table) -> Vec<Rule> {
    let family = table.family;
    of_permissions(reassembly, table);
    let bucket = |share| reassembly.bucket(share, family);
    table.chains.push(of_the_whole_node(bucket(Share::Node)));
    table.add_bucket(OF_AN_INTERFACE, bucket(Share::Interface), Interface::Arriving, Expression::Jump(OF_THE_NODE.into()));
    let next = Expression::Jump(OF_AN_INTERFACE.into());
    table.add_buckets(OF_A_SOURCE, bucket(Share::Source), Key::Source(Interface::Arriving), next, None);
    if observed {
        let bounded = [FIRST, LATER, OF_A_SOURCE, OF_AN_INTERFACE, OF_THE_NODE];
        for chain in table.chains.iter_mut().filter(|chain| bounded.contains(&&*chain.name)) {
            let before_the_last = chain.rules.len().saturating_sub(1);
            chain.rules.insert(before_the_last, as_it_is(Vec::new()));
        }
    }
    let short = || [first(family), too_short(family)].concat();
    let known = [first(family), known(family)].concat();
    let begun = [Key::Datagram.load(family), vec![recall(family)]].concat();
    let mut rules = vec![
        Rule::new("too short", [short(), vec![Expression::Counter, Expression::Drop]]),
        Rule::new("of a permission", [known, vec![Expression::Jump(FIRST.into())]]),
        Rule::new("of a datagram begun", [begun, vec![Expression::Jump(LATER.into())]]),
        Rule::new("of no permission", [vec![Expression::Jump(OF_A_SOURCE.into())]]),
    ];
    if observed {
        rules.insert(0, as_it_is(short()));
    }
    if shielded {
        rules.insert(2, unknown(first(family)));
    }
    rules
}

/// Adds the chains for fragments under an SPI that lives. A datagram is begun within the buckets only: otherwise whoever knows one SPI would
/// fill the map of those that are.
fn of_permissions(reassembly: &Reassembly, table: &mut Table) {
    let family = table.family;
    let rest = u64::from(reassembly.memory(family).wait.clamp(1, 5)).saturating_mul(1000);
    table.sets.push(Set { is_map: true, ..Set::new(BEGUN.into(), Key::Datagram, rest) });
    let mut within = |name: &'static str, key, bucket| {
        let set = Set::of_buckets(name.into(), key, bucket);
        let limit = Expression::Limit { set: name.into(), timeout: set.timeout, bucket, unit: Unit::Packets };
        table.sets.push(set);
        limit
    };
    let of_one = within("fragments-datagram", Key::Datagram, OF_A_DATAGRAM);
    let of_a_permission = within("fragments-permission", Key::Association, reassembly.bucket(Share::Permission, family));
    let of_its_source = within("fragments-permitted-source", Key::SourceAddress, reassembly.bucket(Share::PermittedSource, family));
    let of_all = within("fragments-permitted", Key::Everything, reassembly.bucket(Share::Permitted, family));
    let of_its_source = [Key::SourceAddress.load(family), vec![of_its_source]].concat();
    let buckets = [vec![of_a_permission], of_its_source, Key::Everything.load(family), vec![of_all]].concat();
    let mut begin = Key::Datagram.load(family);
    begin.push(Expression::Behind { octets: SPI_AT, load: Box::new(LOAD_SPI) });
    begin.push(Expression::RememberWith { map: BEGUN.into(), timeout: rest, at: SPI_AT });
    let datagram = [Key::Datagram.load(family), vec![of_one, recall(family)]].concat();
    let passes = || vec![Expression::Counter, Expression::Accept];
    let chain = |name: &'static str, within| {
        let above = Rule::new("above the bucket", [vec![Expression::Counter, Expression::Drop]]);
        Chain { name: name.into(), base: None, rules: vec![within, above] }
    };
    let first = Rule::new("within the bucket", [Key::Association.load(family), buckets.clone(), begin, passes()]);
    let later = Rule::new("within the bucket", [datagram, buckets, passes()]);
    table.chains.extend([chain(FIRST, first), chain(LATER, later)]);
}

/// Puts the SPI of the loaded datagram in place of its identification, so that its permission is loaded then.
fn recall(family: Family) -> Expression {
    Expression::Recall { map: BEGUN.into(), at: Key::Datagram.octets(family).saturating_sub(4) }
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
