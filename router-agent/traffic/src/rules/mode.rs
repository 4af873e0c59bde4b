//! What leaves a router by interfaces that are not closed.
//!
//! Open: of what has no AH, so much goes up to the queue as one source could fill its trickle with, and what the worker lets trickle is
//! then measured in octets, for each source and for the interface. Observe: everything goes up, and passes also if nobody listens;
//! what is too much to be judged passes unjudged, and is counted. Closed, and open without a daemon: nothing.

use super::expression::{Expression, host, interface, protocol};
use super::key::Key;
use super::plan::{Base, Bucket, Chain, Hook, Interface, Policy, Rule, Table};
use super::spread::{self, Towards};
use super::{RouterRules, shield};
use crate::mode::{BITS, OBSERVE, OPEN, TRICKLE};

const AH: u8 = 51;

/// Most interfaces with a mode of their own.
pub const MOST_INTERFACES: usize = 64;

/// What becomes of packets without permission that leave by an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They are dropped.
    Closed,
    /// They trickle: 8000 octets a second from each source (an IPv4 address or an IPv6 /64), 8192 at once, and from all together so
    /// many a second as said here, at least 1, and as many at once.
    Open {
        /// Octets a second.
        aggregate: u32,
    },
    /// They pass, and it is said why they would have been dropped. Also without a daemon.
    Observe,
}

/// The modes of a router's interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modes {
    /// Of every interface that is not listed.
    pub others: Mode,
    /// By name; at most [`MOST_INTERFACES`].
    pub interfaces: Vec<(String, Mode)>,
}

impl Modes {
    /// All interfaces are closed.
    pub const CLOSED: Self = Self { others: Mode::Closed, interfaces: Vec::new() };

    /// Whether that is so.
    pub fn are_closed(&self) -> bool {
        self.others == Mode::Closed && self.interfaces.iter().all(|(_, mode)| *mode == Mode::Closed)
    }

    /// Whether any interface is observed.
    pub fn observe(&self) -> bool {
        self.others == Mode::Observe || self.interfaces.iter().any(|(_, mode)| *mode == Mode::Observe)
    }

    /// Whether no interface is closed, so that what has no permission trickles, or passes, whatever way it takes.
    pub fn are_open(&self) -> bool {
        self.others != Mode::Closed && self.interfaces.iter().all(|(_, mode)| *mode != Mode::Closed)
    }
}

/// Octets a second of each source. The kernel lets as many come at once as the rate and the burst together.
const OF_A_SOURCE: Bucket = Bucket::new(8000, 192);
/// Packets a second of each source that may ask: the smallest fill the trickle with fewer.
const ASKING: Bucket = Bucket::new(300, 300);
/// The same of all sources together.
const ALL_ASKING: Bucket = Bucket::new(20_000, 10_000);
/// What is judged at most in observe mode: no more at once than half a queue holds.
const OBSERVED: Bucket = Bucket::new(20_000, 512);

const CLOSED_CHAIN: &str = "forward-closed";
const OPEN_CHAIN: &str = "forward-open";
const OBSERVE_CHAIN: &str = "forward-observe";
const TRICKLE_CHAIN: &str = "trickle";

/// The rules by which forwarded packets get to the queue. Chains that they need are added to `table`.
pub(super) fn forward(rules: &RouterRules, table: &mut Table) -> Vec<Rule> {
    spread::chains(Towards::Data, rules, table);
    if rules.modes.are_closed() {
        return match rules.shield {
            true => shield::behind_routing(&Towards::Data.expression(rules), table),
            false => vec![Rule::new("data", [vec![Expression::Counter, Towards::Data.expression(rules)]])],
        };
    }
    spread::chains(Towards::Observed, rules, table);
    let chain = |mode| match mode {
        Mode::Closed => CLOSED_CHAIN,
        Mode::Open { .. } => OPEN_CHAIN,
        Mode::Observe => OBSERVE_CHAIN,
    };
    let towards = |(name, mode): &(String, Mode)| {
        let jump = vec![Expression::Counter, Expression::Jump(chain(*mode).into())];
        Rule::new(format!("towards {name}"), [interface(Interface::Leaving, name), jump])
    };
    let mut list: Vec<Rule> = rules.modes.interfaces.iter().map(towards).collect();
    list.push(Rule::new("data", [vec![Expression::Counter, Expression::Jump(chain(rules.modes.others).into())]]));
    if rules.shield {
        shield::add(&Towards::Data.expression(rules), table);
    }
    closed(rules, table);
    open(rules, table);
    observe(rules, table);
    trickle(&rules.modes, table);
    table.chains.push(behind_the_queue());
    list
}

/// The rules at the end of what is for the router itself.
pub(super) fn not_exempt(modes: &Modes) -> Vec<Rule> {
    let rule = |test: Vec<Expression>, mode| match mode {
        Mode::Observe => Rule::new("would drop, not exempt", [test, vec![Expression::Counter, Expression::Accept]]),
        Mode::Closed | Mode::Open { .. } => Rule::new("not exempt", [test, vec![Expression::Counter, Expression::Drop]]),
    };
    let listed = modes.interfaces.iter().filter(|_| !modes.are_closed());
    let mut rules: Vec<Rule> = listed.map(|(name, mode)| rule(interface(Interface::Arriving, name), *mode)).collect();
    rules.push(rule(Vec::new(), modes.others));
    rules
}

/// Writes the mode over whatever stands in its bits.
fn say(bits: u32) -> Vec<Expression> {
    vec![Expression::LoadMark, Expression::Change { mask: host(!BITS), flip: host(bits) }, Expression::SetMark]
}

fn chain(name: &'static str, rules: Vec<Rule>) -> Chain {
    Chain { name: name.into(), base: None, rules }
}

fn closed(rules: &RouterRules, table: &mut Table) {
    let queue = Towards::Data.expression(rules);
    let mut list = vec![Rule::new("closed", [say(0)])];
    match rules.shield {
        true => list.extend([shield::permitted(queue, table.family), shield::not_permitted(), shield::without_permission()]),
        false => list.push(Rule::new("data", [vec![Expression::Counter, queue]])),
    }
    table.chains.push(chain(CLOSED_CHAIN, list));
}

fn open(rules: &RouterRules, table: &mut Table) {
    let queue = || Towards::Data.expression(rules);
    const OF_ALL: &str = "without-ah-all";
    const OF_EACH: &str = "without-ah";
    table.add_bucket(OF_ALL, ALL_ASKING, Interface::Leaving, queue());
    table.add_buckets(OF_EACH, ASKING, Key::Source(Interface::Leaving), Expression::Jump(OF_ALL.into()), None);
    let mut list = vec![Rule::new("open", [say(OPEN)])];
    match rules.shield {
        true => list.extend([shield::permitted(queue(), table.family), shield::not_permitted()]),
        false => list.push(Rule::new("data", [protocol(AH), vec![Expression::Counter, queue()]])),
    }
    list.push(Rule::new("without AH", [vec![Expression::Jump(OF_EACH.into())]]));
    table.chains.push(chain(OPEN_CHAIN, list));
}

fn observe(rules: &RouterRules, table: &mut Table) {
    const JUDGED: &str = "observed";
    table.add_bucket(JUDGED, OBSERVED, Interface::Leaving, Towards::Observed.expression(rules));
    // What is above the bucket is not dropped: the bucket's own rule for it gives way.
    if let Some(above) = table.chains.last_mut().and_then(|chain| chain.rules.last_mut()) {
        *above = Rule::new("above the bucket", [vec![Expression::Counter, Expression::Accept]]);
    }
    table
        .chains
        .push(chain(OBSERVE_CHAIN, vec![Rule::new("observe", [say(OBSERVE)]), Rule::new("data", [vec![Expression::Jump(JUDGED.into())]])]));
}

/// Buckets in octets: first the source's, then the interface's.
fn trickle(modes: &Modes, table: &mut Table) {
    const OF_A_SOURCE_CHAIN: &str = "trickle-source";
    const OF_ALL: &str = "trickle-all";
    let mut all = Vec::new();
    let mut aggregate = |test: Vec<Expression>, name: String, mode: Mode| {
        let Mode::Open { aggregate } = mode else { return };
        // The burst is what the kernel takes a rate for, and no more.
        let bucket = Bucket { rate: aggregate.max(1), burst: 0 };
        table.add_octets(name.clone(), bucket, Key::Interface(Interface::Leaving), Expression::Accept);
        all.push(Rule::new(name.clone(), [test, vec![Expression::Jump(name.into())]]));
    };
    for (place, (name, mode)) in modes.interfaces.iter().enumerate() {
        aggregate(interface(Interface::Leaving, name), format!("trickle-{place}"), *mode);
    }
    aggregate(Vec::new(), "trickle-others".to_owned(), modes.others);
    all.push(Rule::new("no trickle here", [vec![Expression::Counter, Expression::Drop]]));
    table.chains.push(chain(OF_ALL, all));
    table.add_octets(OF_A_SOURCE_CHAIN.to_owned(), OF_A_SOURCE, Key::Source(Interface::Leaving), Expression::Jump(OF_ALL.into()));
    // Behind everything that has a permission, where the link has classes (TC_PRIO_BULK).
    const BULK: u32 = 2;
    let last = vec![Expression::Load(host(BULK)), Expression::SetPriority];
    let rules = vec![
        Rule::new("mark", [say(0)]),
        Rule::new("class", [last]),
        Rule::new("source", [vec![Expression::Jump(OF_A_SOURCE_CHAIN.into())]]),
    ];
    table.chains.push(chain(TRICKLE_CHAIN, rules));
}

/// Holds the trickle to its buckets, and gives the bits of the mark back. Whoever has judged what is observed has taken them off: what
/// still says so has found no room in the queue, or no daemon behind it, or was above the bucket.
fn behind_the_queue() -> Chain {
    let marked = |test| vec![Expression::LoadMark, Expression::Mask(host(BITS)), test];
    let base = Base { hook: Hook::Forward, priority: 1, kind: "filter", policy: Policy::Accept };
    let rules = vec![
        Rule::new("trickle", [marked(Expression::Equal(host(TRICKLE))), vec![Expression::Jump(TRICKLE_CHAIN.into())]]),
        Rule::new("passed unjudged", [marked(Expression::Equal(host(OBSERVE))), vec![Expression::Counter]]),
        Rule::new("mark", [marked(Expression::Unequal(host(0))), say(0)]),
    ];
    Chain { name: "behind-the-queue".into(), base: Some(base), rules }
}
