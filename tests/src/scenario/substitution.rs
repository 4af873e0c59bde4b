//! Somebody with the shared key puts his own packets in the place of the flow's, number by number and of equal length: the volumes
//! fit (E4, requirements appendix E and F).

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Scenario;
use super::attacker::{self, Attacker};
use super::flow::{self, Programs, STEADY};
use super::outcome::Outcome;
use super::site::{SHORTEST, Site, Terms};
use crate::network::graph::Place;
use crate::network::topology::Family;
use crate::process::Program;

const GRANTED: u64 = 32_000_000;
/// One datagram each: about 500 kbit/s.
const PAUSE: Duration = Duration::from_millis(20);
/// Octets of a packet of the flow under the shared key: IP, AH, UDP, payload.
fn packet(family: Family) -> u64 {
    8 + STEADY as u64 + if family == Family::Ipv4 { 20 + 28 } else { 40 + 32 }
}

pub(super) const SCENARIO: Scenario = Scenario {
    name: "substitution",
    what: "own packets under the flow's numbers, of equal length, before the true ones on the receiver's link: the receiver sees two \
           holders of the key (E4), and signed packets follow",
    terms: Terms {
        place: Place::LastLink,
        refresh: SHORTEST,
        volume: GRANTED,
        reactions: "",
        rogue: Some(("router2", Program::LeakingRouter)),
    },
    run: on_the_last_link,
};

pub(super) const UPSTREAM: Scenario = Scenario {
    name: "substitution-upstream",
    what: "the same between the routers, a known weakness (appendix F): the second router drops the true packets as replayed, so that \
           the receiver sees only the attacker's and nothing follows; the router's counter is all that shows it",
    terms: Terms {
        place: Place::BetweenRouters,
        refresh: SHORTEST,
        volume: GRANTED,
        reactions: "",
        rogue: Some(("router1", Program::LeakingRouter)),
    },
    run: between_the_routers,
};

fn on_the_last_link(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = format!("{} (router2)", attacker::WITH_KEY);
    progress("asking, sending steadily");
    let programs = Programs::start(site)?;
    programs.ask(site)?;
    let before = site.drops()?;
    let under_attack = programs.steady(PAUSE)?;
    std::thread::sleep(Duration::from_secs(1) + site.plan.before_attack());
    progress("replacing every packet under the shared key");
    let from = site.now();
    let replaced = Attacker::with_key_of(site, "router2")?.substitute(site);
    outcome.must_detect(site, &["FR-21"], from, 1.0)?;
    outcome.must_follow(site, "receiver", "FR-40", from, Duration::from_secs(1))?;
    outcome.must_follow(site, "sender", "FS-24", from, Duration::from_secs(1))?;
    let stolen = under_attack.end()?;
    progress("the sender signs; sending on while the attacker stays");
    let signed_from = site.now();
    let signed = programs.steady(PAUSE)?;
    std::thread::sleep(Duration::from_secs(3));
    let signed = signed.end()?;
    outcome.dropped = site.drops()?.since(&before);
    outcome.octets_through = stolen.foreign * packet(site.family);
    outcome.figure("packets replaced", replaced.load(Ordering::Relaxed));
    outcome.figure("packets of the attacker that the program got", stolen.foreign);
    outcome.check("the attacker got through before", stolen.foreign > 0, format!("{} packets", stolen.foreign));
    let intact = signed.own == signed.sent && signed.foreign == 0;
    outcome.check("afterwards every packet is the sender's", intact, format!("{signed}"));
    let lengths = flow::by_icv_length(&site.last, signed_from);
    outcome.check(
        "the sender signs: ICV of 64 octets",
        lengths.keys().eq([&attacker::signature_octets(site.family)]),
        format!("packets by octets of ICV: {lengths:?}"),
    );
    Ok(())
}

fn between_the_routers(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = format!("{} (router1)", attacker::WITH_KEY);
    progress("asking; replacing every packet of a steady flow (11 s)");
    let programs = Programs::start(site)?;
    programs.ask(site)?;
    let before = site.drops()?;
    let from = site.now();
    let replaced = Attacker::with_key_of(site, "router1")?.substitute(site);
    let flow = programs.steady(PAUSE)?;
    std::thread::sleep(site.refresh * 2 + Duration::from_secs(1));
    let delivered = flow.end()?;
    outcome.dropped = site.drops()?.since(&before);
    outcome.octets_through = delivered.foreign * packet(site.family);
    let evidence = flow::await_rule(site, "receiver", &["FR-31", "FR-21", "FR-36"], from, Duration::ZERO)?;
    outcome.check("the receiver sees nothing", evidence.is_none(), evidence.map_or("no evidence".into(), |told| told.message));
    let (replaced, shown) = (replaced.load(Ordering::Relaxed), outcome.dropped_at("router2", "replayed"));
    outcome.check(
        "the second router drops every true packet as replayed",
        shown == replaced && delivered.foreign == replaced && delivered.own == 0,
        format!("{shown} of {replaced}; the program got {delivered}"),
    );
    Ok(())
}
