//! Several data queues, one for each worker ([`crate::spread`]): what has AH goes by its destination and SPI, everything else to the first,
//! tunnels among that. A tunnel's packets are known by what AH says that it protects, or by their SPI where that is options; errors about
//! them by the SPI that they quote.

use super::RouterRules;
use super::admitted::{ADMITTED, FLOWS};
use super::class;
use super::expression::{Expression, host, protocol};
use super::key::{Key, NEXT_HEADER_OF_AH, quoted_tunnel, tunnel};
use super::plan::{Chain, Family, Rule, Table};
use crate::tunnel::{IPV4_INSIDE, IPV6_INSIDE};

const AH: u8 = 51;
/// Options between AH and the transport are only where IPv6 has them (RFC 8200 §4.1).
const DESTINATION_OPTIONS: u8 = 60;

/// Which queue of each worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Towards {
    /// That of what is judged.
    Data,
    /// That of what leaves by interfaces that are observed.
    Observed,
}

impl Towards {
    const fn chain(self) -> &'static str {
        match self {
            Self::Data => "spread",
            Self::Observed => "spread-observed",
        }
    }

    const fn errors(self) -> &'static str {
        match self {
            Self::Data => "spread-errors",
            Self::Observed => "spread-observed-errors",
        }
    }

    fn queue(self, rules: &RouterRules, worker: u16) -> Expression {
        match self {
            Self::Data => Expression::Queue(rules.data_queue_of(worker)),
            Self::Observed => Expression::QueueOrPass(rules.observed_queue_of(worker)),
        }
    }

    /// What ends a rule whose packets go to the queues. Never goes on behind it.
    pub(super) fn expression(self, rules: &RouterRules) -> Expression {
        if rules.spread.workers() == 1 { self.queue(rules, 0) } else { Expression::Jump(self.chain().into()) }
    }
}

/// Adds the chains that [`Towards::expression`] jumps to, if there are any.
pub(super) fn chains(towards: Towards, rules: &RouterRules, table: &mut Table) {
    if rules.spread.workers() == 1 {
        return;
    }
    let family = table.family;
    let further = || 1..rules.spread.workers();
    let to = |worker: u16| vec![Expression::Counter, towards.queue(rules, worker)];
    let of_worker =
        |worker: u16, key: Key| [key.load(family), hash(key, rules, family), vec![Expression::Equal(host(u32::from(worker)))]].concat();
    let known = || [Key::QuotedAssociation.load(family), vec![Expression::Known(ADMITTED.into())]].concat();

    // An error about a packet inside another names an association that stands nowhere here.
    let quoted =
        further().map(|worker| Rule::new(format!("worker {worker}"), [known(), of_worker(worker, Key::QuotedRecipient), to(worker)]));
    let first = || Rule::new("worker 0", [to(0)]);
    let around = |test: Vec<Expression>| Rule::new("worker 0, packets around packets", [test, to(0)]);
    let known_as_tunnel = |load: Vec<Expression>| [load, vec![Expression::Known(FLOWS.into())]].concat();
    let errors = std::iter::once(around(known_as_tunnel(quoted_tunnel(family)))).chain(quoted).chain([first()]).collect();

    let protects = |protected: u8| [protocol(AH), vec![NEXT_HEADER_OF_AH, Expression::Equal(vec![protected])]].concat();
    let behind_options = || [protects(DESTINATION_OPTIONS), known_as_tunnel(tunnel(family))].concat();
    let inside = [IPV4_INSIDE, IPV6_INSIDE].map(|inside| around(protects(inside)));
    let inside = inside.into_iter().chain((family == Family::Ipv6).then(|| around(behind_options())));
    let by_hash =
        further().map(|worker| Rule::new(format!("worker {worker}"), [protocol(AH), of_worker(worker, Key::Recipient), to(worker)]));
    let tests = match family {
        Family::Ipv4 => class::icmp_errors(),
        Family::Ipv6 => class::icmpv6_errors(),
    };
    let about = tests.into_iter().map(|test| Rule::new("errors", [test, vec![Expression::Jump(towards.errors().into())]]));
    let all = inside.chain(by_hash).chain(about).chain([first()]).collect();
    table.chains.push(Chain { name: towards.errors().into(), base: None, rules: errors });
    table.chains.push(Chain { name: towards.chain().into(), base: None, rules: all });
}

fn hash(key: Key, rules: &RouterRules, family: Family) -> Vec<Expression> {
    vec![Expression::Hash { len: key.octets(family), buckets: rules.spread.workers().into(), seed: rules.spread.seed() }]
}
