//! Figure 4 of the draft: more arrives than was sent.

use std::io;
use std::time::Duration;

use super::Scenario;
use super::attacker::{self, Attacker, Sent};
use super::audit::{Of, Unit};
use super::flow::{self, Programs};
use super::outcome::Outcome;
use super::site::{SHORTEST, Site, Terms};
use crate::network::graph::Place;
use crate::process::Program;

/// Bytes granted.
const GRANTED: u64 = 10_000_000;
/// Octets that the program sends before the attack, and under attack once packets are signed.
const FILE: usize = 1_000_000;
const SECOND_FILE: usize = 500_000;
/// Octets that the attacker injects, in packets of `PAYLOAD`.
const INJECTED: usize = 2_000_000;
const PAYLOAD: usize = 1208;
/// How long the attack lasts: longer than two refresh periods, so that something is left of it when the reaction has come.
const ATTACK: Duration = Duration::from_secs(14);
/// How long packets of the old epoch may pass routers after the reaction, and everything may take to be counted.
const DRAIN: Duration = Duration::from_secs(2);
const SETTLE: Duration = Duration::from_millis(300);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "figure-4",
    what: "10 MB granted, 1 MB sent, 2 MB injected with the shared key between the routers: signed packets follow, and the second router \
           drops the rest",
    terms: Terms {
        place: Place::BetweenRouters,
        refresh: SHORTEST,
        volume: GRANTED,
        reactions: "",
        rogue: Some(("router1", Program::LeakingRouter)),
    },
    run,
};

fn run(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = format!("{} (router1)", attacker::WITH_KEY);
    progress("asking, sending 1 MB");
    let programs = Programs::start(site)?;
    programs.ask(site)?;
    let first = programs.transfer(FILE, Duration::from_micros(300))?;
    outcome.check("1 MB arrives intact before the attack", first.intact, format!("{} datagrams", first.sent));
    let agreed = flow::await_rule(site, "receiver", &["FR-32"], site.now(), site.refresh * 2)?;
    outcome.check("the volumes agree before the attack", agreed.is_some(), agreed.map_or("no comparison".into(), |told| told.message));

    std::thread::sleep(site.plan.before_attack());
    progress("injecting 2 MB with the shared key (14 s)");
    let attacker = Attacker::with_key_of(site, "router1")?;
    let spi = attacker.leaked.spi;
    let next = attacker::highest_number(site, spi) + 1;
    let before = site.drops()?;
    let from = site.now();
    let (injected, reaction) = std::thread::scope(|scope| {
        let count = INJECTED.div_ceil(PAYLOAD) as u32;
        let attacker = &attacker;
        let packets = (0..count).map(move |index| attacker.forge(next + index, PAYLOAD));
        let injecting = scope.spawn(move || attacker.inject(site, packets, ATTACK / count));
        let reaction = react(site, outcome, &programs, from, progress);
        let injected = injecting.join().map_err(|_| io::Error::other("the attacking thread panicked"))?;
        io::Result::Ok((injected?, reaction?))
    })?;
    std::thread::sleep(SETTLE);
    outcome.dropped = site.drops()?.since(&before);
    account(site, outcome, injected, (from, reaction));
    let agreed = flow::await_rule(site, "receiver", &["FR-32"], site.now(), site.refresh * 2)?;
    outcome.check("the volumes agree again afterwards", agreed.is_some(), agreed.map_or("no comparison".into(), |told| told.message));
    Ok(())
}

/// What must follow while the attack goes on. Gives the moment of the reaction.
fn react(site: &Site, outcome: &mut Outcome, programs: &Programs, from: Duration, progress: &dyn Fn(&str)) -> io::Result<Duration> {
    outcome.must_detect(site, &["FR-31", "FR-21"], from, 2.0)?;
    let escalated = outcome.must_follow(site, "receiver", "FR-40", from, Duration::from_secs(1))?;
    let reaction = escalated.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    outcome.must_follow(site, "sender", "FS-24", reaction, Duration::from_secs(2))?;
    progress("the sender signs; sending 0.5 MB more while the attack goes on");
    let second = programs.transfer(SECOND_FILE, Duration::from_millis(2))?;
    outcome.check("the flow goes on intact under attack", second.intact, format!("{} datagrams", second.sent));
    let signed = flow::by_icv_length(&site.first, reaction + SETTLE);
    let all_signed = signed.keys().eq([&attacker::signature_octets(site.family)]);
    outcome.check("the sender signs: AH of 76 octets, ICV of 64", all_signed, format!("packets by octets of ICV: {signed:?}"));
    let algorithm = site.flow("sender")?.and_then(|flow| flow.get("algorithm")?.as_str().map(str::to_owned));
    outcome.check("`flows` of the sender says so", algorithm.as_deref() == Some("public key"), format!("{algorithm:?}"));
    Ok(reaction)
}

/// Every injected packet must be accounted for.
fn account(site: &Site, outcome: &mut Outcome, injected: Sent, (from, reaction): (Duration, Duration)) {
    let through = attacker::got_through(site, from);
    let late = attacker::got_through(site, reaction + DRAIN + SETTLE);
    site.got_through(outcome, Of::Marked, (from, site.now()));
    outcome.figure("octets injected", injected.octets);
    let drain = "of those, past the second router after the reaction (drain)";
    outcome.figure_behind(site, drain, Unit::Octets, Of::Marked, (reaction, site.now()));
    let reasons = ["unknown_spi", "expired", "bad_icv"];
    let dropped: u64 = reasons.iter().map(|reason| outcome.dropped_at("router2", reason)).sum();
    let rest = injected.packets - through.packets;
    outcome.check(
        "the second router drops the rest, each packet counted",
        dropped == rest && rest > 0,
        format!("{dropped} of {rest} for {}; {} injected", reasons.join(", "), injected.packets),
    );
    outcome.check("nothing gets past it once the old epoch has drained", late.packets == 0, format!("{} packets", late.packets));
}
