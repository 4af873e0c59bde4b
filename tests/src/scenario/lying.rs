//! Hosts that lie under their own signature.

use std::io;
use std::time::Duration;

use super::Scenario;
use super::audit::Of;
use super::flow::{self, Programs};
use super::outcome::Outcome;
use super::site::{OTHER_PORT, SHORTEST, Site, Terms};
use crate::network::graph::Place;
use crate::process::Program;

/// One datagram each.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes granted, of which some are sent.
const GRANTED: u64 = 16_000_000;
const TERMS: Terms = Terms { place: Place::BetweenRouters, refresh: SHORTEST, volume: GRANTED, reactions: "", rogue: None };

pub(super) const VOLUME: Scenario = Scenario {
    name: "lying-sender",
    what: "a sender says that it has sent half of what it has: the first comparison shows it (E1), signed packets do not help it, and \
           the receiver ends the permission",
    terms: Terms { rogue: Some(("sender", Program::UnderstatingHost)), ..TERMS },
    run: understate,
};

pub(super) const COLLISION: Scenario = Scenario {
    name: "spi-collision",
    what: "a receiver grants a second flow under the SPI of the first: the routers refuse it, and the first flow goes on",
    terms: Terms { rogue: Some(("receiver", Program::CollidingHost)), ..TERMS },
    run: collide,
};

fn understate(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "the sender itself: it halves SV in every Query, and signs it".to_owned();
    progress("asking, sending steadily (at most 20 s)");
    let programs = Programs::start(site)?;
    let from = site.now();
    programs.ask(site)?;
    let before = site.drops()?;
    let steady = programs.steady(PAUSE)?;
    outcome.must_detect(site, &["FR-31"], from, 1.2)?;
    outcome.must_follow(site, "receiver", "FR-40", from, Duration::from_secs(1))?;
    // It lies on: the next comparison, of signed packets, ends the permission.
    let ended = outcome.must_follow(site, "receiver", "FR-41", from, site.refresh * 2)?;
    outcome.must_follow(site, "sender", "FS-27", from, Duration::from_secs(1))?;
    let end = ended.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    let after = (end.saturating_sub(from)).as_secs_f64() / site.refresh.as_secs_f64();
    outcome.figure("hundredths of a refresh period until the end", (after * 100.0) as u64);
    std::thread::sleep(Duration::from_secs(2));
    let octets = |from: Duration, to: Duration| -> u64 {
        site.last.look(|frames| {
            let within = frames.iter().filter(|frame| (from..to).contains(&frame.at));
            within.filter_map(super::site::of_flow).map(|seen| seen.length as u64).sum()
        })
    };
    site.got_through(outcome, Of::Flow, (from, end));
    outcome.check("it never got more than it was granted", outcome.octets_through <= GRANTED, format!("{}", outcome.octets_through));
    let late = octets(end + Duration::from_millis(300), site.now());
    outcome.check("nothing passes once it is over", late == 0, format!("{late} octets"));
    outcome.dropped = site.drops()?.since(&before);
    steady.end().map(drop)
}

fn collide(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "the receiver itself: it names one SPI in all its Permissions, and signs them".to_owned();
    progress("a first flow, steadily; then a second one under its SPI (12 s)");
    let programs = Programs::start(site)?;
    programs.ask(site)?;
    let steady = programs.steady(PAUSE)?;
    std::thread::sleep(Duration::from_secs(1) + site.plan.before_attack());
    let before = site.drops()?;
    let from = site.now();
    let other = Programs::start_on(site, OTHER_PORT)?;
    other.sender.send(b"may I?")?;
    let refused = flow::await_rule(site, "router2", &["FN-06"], from, Duration::from_secs(2))?;
    let after = refused.as_ref().map(|told| format!("{} at {:.3} s", told.message, told.at));
    outcome.check("router2 refuses the Permission", refused.is_some(), after.unwrap_or_else(|| "nothing of the kind".to_owned()));
    // Two refreshes of the first flow come in between, and further tries of the second.
    std::thread::sleep(site.refresh * 2);
    site.got_through(outcome, Of::Other, (from, site.now()));
    outcome.check(
        "nothing of the second flow gets to the receiver's link",
        outcome.octets_through == 0,
        format!("{} octets", outcome.octets_through),
    );
    outcome.dropped = site.drops()?.since(&before);
    let delivered = steady.end()?;
    let whole = delivered.own == delivered.sent;
    outcome.check("the first flow loses nothing", whole, format!("{delivered}"));
    Ok(())
}
