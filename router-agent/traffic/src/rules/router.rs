//! The rules of a router.

use super::admitted::{self, ADMITTED};
use super::class::{self, Way};
use super::expression::{
    ADDRESS_LOCAL, Expression, destination_port, host, icmp_types, interface, protocol, reassembly, source_port, unfragmented,
};
use super::fragments::{self, BEFORE_REASSEMBLY};
use super::key::Key;
use super::mode;
use super::observe;
use super::peers;
use super::plan::{Base, Bucket, Chain, Family, Hook, Interface, Policy, Rule, Table};
use super::shield;
use super::{GIST_PORT, RouterRules, SIGNALLING_PASSED};

const ICMP: u8 = 1;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
/// A router's own packets leave by no other ways.
const NO_WAYS: u32 = 0;

/// The router's table in one family.
pub(super) fn plan(rules: &RouterRules, family: Family) -> Table {
    let mut table = Table::new(family);
    table.sets.extend([admitted::set(rules.permissions), admitted::flows(rules.permissions)]);
    table.sets.extend(peers::sets());
    let to_queue = || Expression::Queue(rules.signalling_queue);
    table.add_bucket("signalling", rules.signalling, Interface::Arriving, to_queue());
    peers::signalling("signalling", Interface::Arriving, &rules.exemptions, to_queue(), &mut table);
    table.add_bucket("passed-signalling", rules.passed_signalling, Interface::Arriving, Expression::Accept);
    for bucket in ["own-errors", "own-errors-about-size"] {
        table.add_bucket(bucket, rules.own_errors, Interface::Leaving, Expression::Accept);
    }
    let input = input(rules, &mut table);
    let forward = forward(rules, &mut table);
    let output = output(rules, &mut table);
    let base = (!shield::is_before_routing(rules)).then_some(BEFORE_REASSEMBLY);
    fragments::chains(rules.fragments, &rules.reassembly, rules.modes.observe(), base, &mut table);
    let before_routing = shield::before_routing(rules, intercepted(family), family);
    table.chains.extend([reassembly_chain(), before_routing.unwrap_or_else(|| interception(family))]);
    table.chains.extend([forward, input, output]);
    observe::spare(&rules.modes, &mut table);
    table
}

/// Takes signalling out before reassembly.
fn interception(family: Family) -> Chain {
    let base = Base { hook: Hook::Prerouting, priority: -450, kind: "filter", policy: Policy::Accept };
    Chain { name: "interception".into(), base: Some(base), rules: vec![intercepted(family)] }
}

/// A fragment is ordinary data, and so is what is for the router itself, which its socket receives.
fn intercepted(family: Family) -> Rule {
    let test = [
        protocol(UDP),
        unfragmented(family),
        destination_port(GIST_PORT),
        vec![Expression::LoadDestinationType, Expression::Unequal(host(ADDRESS_LOCAL))],
        vec![Expression::Jump("signalling".into())],
    ];
    Rule::new("signalling", test)
}

/// Whole datagrams for everything behind −400. That the rule stands somewhere suffices: nothing comes to the chain, so that it costs nothing.
fn reassembly_chain() -> Chain {
    Chain { name: "reassembly".into(), base: None, rules: vec![Rule::new("reassembly", [reassembly()])] }
}

fn forward(rules: &RouterRules, table: &mut Table) -> Chain {
    let passed = [
        vec![Expression::LoadMark, Expression::Equal(host(SIGNALLING_PASSED))],
        protocol(UDP),
        destination_port(GIST_PORT),
        vec![Expression::Jump("passed-signalling".into())],
    ];
    let first = shield::to_the_queue(rules, table.family).into_iter().collect();
    Chain {
        name: "forward".into(),
        base: Some(Base { hook: Hook::Forward, priority: 0, kind: "filter", policy: Policy::Drop }),
        rules: [first, vec![Rule::new("passed signalling", passed)], infrastructure(rules, table), mode::forward(rules, table)].concat(),
    }
}

/// What passes through to services that hosts need before they can ask for anything, and back, by the configuration. The
/// bucket is that of the interface by which a packet arrives.
fn infrastructure(rules: &RouterRules, table: &mut Table) -> Vec<Rule> {
    let mut list = Vec::new();
    for (exempt, (word, asks)) in rules.exempt.iter().flat_map(|exempt| [(exempt, ("ask", true)), (exempt, ("answer", false))]) {
        let Some(test) = exempt.forwarded(asks, table.family) else { continue };
        let chain = format!("{word}-exempt-{}", exempt.name);
        table.add_bucket(chain.clone(), exempt.bucket, Interface::Arriving, Expression::Accept);
        list.push(Rule::new(format!("exempt {}", exempt.name), [test, vec![Expression::Jump(chain.into())]]));
    }
    list
}

/// What reaches the router itself. Whatever the router would answer goes to the source that the packet names, and that may be
/// another's: an answer is a packet that nobody has permitted.
fn input(rules: &RouterRules, table: &mut Table) -> Chain {
    let (association_port, exemptions) = (rules.association_port, rules.exemptions);
    let listed = class::Listed { association_port, path_mark: NO_WAYS, exemptions, exempt: &rules.exempt };
    let mut list = vec![Rule::new("loopback", [interface(Interface::Arriving, "lo"), vec![Expression::Counter, Expression::Accept]])];
    list.extend(listed.rules(Way::In, table));
    list.extend(mode::not_exempt(&rules.modes));
    Chain { name: "input".into(), base: Some(Base { hook: Hook::Input, priority: 0, kind: "filter", policy: Policy::Drop }), rules: list }
}

/// What the router sends of itself is open (X-58: to and from the node itself), but for the errors with which its IP stack
/// answers packets of others: those it sends before FORWARD has judged the packet (hop limit, size, no route), so a bucket
/// bounds what a false source can draw upon its victim. Redirects count as such. "Too big" has a bucket of its own, and one for each
/// permission whose addresses and SPI it quotes: permitted flows live on it, and neither packets whose hop limit ends here nor large
/// ones under made-up SPIs may use it up. Likewise the resets with which it answers segments that come to the port of
/// associations and belong to none, and the answers to those that open one.
fn output(rules: &RouterRules, table: &mut Table) -> Chain {
    let family = table.family;
    let resets = class::unasked_resets(rules.association_port, NO_WAYS, rules.exemptions.resets, table);
    let redirect = match family {
        Family::Ipv4 => [protocol(ICMP), icmp_types(5, 5)],
        Family::Ipv6 => [protocol(ICMPV6), icmp_types(137, 137)],
    };
    let mut tests = match family {
        Family::Ipv4 => class::icmp_errors(),
        Family::Ipv6 => class::icmpv6_errors(),
    };
    tests.push(redirect.concat());
    let jump = || vec![Expression::Jump("own-errors".into())];
    let answers = class::answered_openings(rules.association_port, 0, rules.exemptions, table);
    let signals = peers::written_to([protocol(UDP), source_port(GIST_PORT)].concat(), family);
    let of_permissions = about_the_size_of_permitted(table);
    let about_size = Rule::new("own errors about size", [class::too_big(family), vec![Expression::Jump("own-errors-about-size".into())]]);
    let others = tests.into_iter().map(|test| Rule::new("own errors", [test, jump()]));
    Chain {
        name: "output".into(),
        base: Some(Base { hook: Hook::Output, priority: 0, kind: "filter", policy: Policy::Accept }),
        rules: [signals, resets, answers, of_permissions, about_size].into_iter().chain(others).collect(),
    }
}

/// Errors about the size of packets under live permissions: as many of each as its sender takes notice of.
fn about_the_size_of_permitted(table: &mut Table) -> Rule {
    const CHAIN: &str = "own-errors-permitted";
    const OF_ONE: Bucket = Bucket::new(10, 10);
    table.add_buckets(CHAIN, OF_ONE, Key::QuotedAssociation, Expression::Accept, None);
    let known = [Key::QuotedAssociation.load(table.family), vec![Expression::Known(ADMITTED.into())]].concat();
    let jump = vec![Expression::Jump(CHAIN.into())];
    Rule::new("own errors about the size of permitted packets", [class::about_ah(table.family), known, jump])
}
