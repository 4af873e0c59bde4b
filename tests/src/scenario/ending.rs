//! Ends that somebody makes hard: the receiver takes a permission back, and its word is lost, crosses a question, or is asked again.

use std::io;
use std::time::Duration;

use super::Scenario;
use super::audit::Of;
use super::flow::{self, Programs, Steady};
use super::outcome::Outcome;
use super::site::{SHORTEST, Site, Terms, of_flow};
use crate::network::capture::Capture;
use crate::network::frame;
use crate::network::graph::{Addresses, Place};
use crate::network::relay::{Fate, Way, packet};

/// One datagram each.
const PAUSE: Duration = Duration::from_millis(5);
/// What passes within that after a revocation may have been on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(300);
const BETWEEN: Terms = Terms { place: Place::BetweenRouters, refresh: SHORTEST, volume: 64_000_000, reactions: "", rogue: None };
const LAST: Terms = Terms { place: Place::LastLink, ..BETWEEN };
/// Protocol number of the Authentication Header.
const AH: u8 = 51;

pub(super) const LOST_BETWEEN: Scenario = Scenario {
    name: "revocation-lost-between",
    what: "the receiver revokes, and nothing but data passes between the routers: router2 stops the flow at once, the nodes before it \
           end the permission within 3.5 T",
    terms: BETWEEN,
    run: lose_between,
};

pub(super) const LOST_LAST: Scenario = Scenario {
    name: "revocation-lost-last",
    what: "the same on the receiver's link: the receiver takes nothing from then on, every other node ends the permission within 3.5 T",
    terms: LAST,
    run: lose_last,
};

pub(super) const CROSSING: Scenario = Scenario {
    name: "crossing",
    what: "a Query for more and an unasked Permission that revokes cross on a slow link: all four nodes end with no permission",
    terms: BETWEEN,
    run: cross,
};

pub(super) const DENIED: Scenario = Scenario {
    name: "denial-hold-down",
    what: "revoked, and the program goes on: the sender asks again after pauses that double, the receiver denies each, nothing passes",
    terms: BETWEEN,
    run: deny,
};

/// A steady flow under a permission.
fn begin(site: &Site, progress: &dyn Fn(&str)) -> io::Result<Steady> {
    progress("asking, sending steadily");
    let programs = Programs::start(site)?;
    programs.ask(site)?;
    let steady = programs.steady(PAUSE)?;
    std::thread::sleep(Duration::from_secs(1) + site.plan.before_attack());
    Ok(steady)
}

/// In refresh periods, when a node said that it has ended the permission.
fn must_end(site: &Site, outcome: &mut Outcome, node: &str, rules: &[&str], from: Duration, periods: f64) -> io::Result<()> {
    let limit = site.refresh.mul_f64(periods + 0.2).saturating_sub(site.now().saturating_sub(from));
    let told = flow::await_rule(site, node, rules, from, limit)?;
    let after = told.as_ref().map(|told| (told.at - from.as_secs_f64()) / site.refresh.as_secs_f64());
    let found = told.map_or("nothing".to_owned(), |told| format!("{} {}, after {:.2} T", told.rule, told.message, after.unwrap_or(0.0)));
    outcome.check(format!("{node} ends the permission within {periods} T"), after.is_some_and(|after| after <= periods + 0.05), found);
    Ok(())
}

fn no_flow_left(site: &Site, outcome: &mut Outcome) -> io::Result<()> {
    for node in super::site::NODES {
        let flow = site.flow(node)?;
        outcome.check(format!("{node} has no permission left"), flow.is_none(), format!("{flow:?}"));
    }
    Ok(())
}

/// From now on only data under AH passes.
fn drop_signalling(site: &Site) {
    site.relay.set(|_, frame| match packet(frame).and_then(frame::read) {
        Some(seen) if seen.authentication.is_none() && seen.protocol != AH => Fate::Drop,
        _ => Fate::Pass,
    });
}

fn lose_between(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link, without any key, letting only data pass".to_owned();
    let steady = begin(site, progress)?;
    progress("revoking; the word is lost between the routers (18 s)");
    let before = site.drops()?;
    drop_signalling(site);
    site.revoke()?;
    let from = site.now();
    must_end(site, outcome, "router2", &["FN-26"], from.saturating_sub(ON_ITS_WAY), 0.2)?;
    must_end(site, outcome, "sender", &["FS-28", "FS-29", "FS-27"], from, 3.5)?;
    must_end(site, outcome, "router1", &["FN-28", "FN-26"], from, 3.5)?;
    site.got_through(outcome, Of::Flow, (from + ON_ITS_WAY, site.now()));
    outcome.check("nothing gets past router2", outcome.octets_through == 0, format!("{} octets", outcome.octets_through));
    outcome.dropped = site.drops()?.since(&before);
    let dropped = outcome.dropped_at("router2", "no_permission") + outcome.dropped_at("router2", "unknown_spi");
    outcome.check("router2 dropped what still came", dropped > 100, format!("{dropped} packets"));
    steady.end().map(drop)
}

fn lose_last(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the receiver's link, without any key, letting only data pass".to_owned();
    let steady = begin(site, progress)?;
    progress("revoking; the word is lost on the receiver's link (18 s)");
    let before = site.drops()?;
    drop_signalling(site);
    site.revoke()?;
    let from = site.now();
    must_end(site, outcome, "sender", &["FS-28", "FS-29", "FS-27"], from, 3.5)?;
    for router in ["router1", "router2"] {
        must_end(site, outcome, router, &["FN-28", "FN-26"], from, 3.5)?;
    }
    outcome.dropped = site.drops()?.since(&before);
    // It came to the receiver's link, and no further: routers on the path know no better.
    site.got_through(outcome, Of::Flow, (from + ON_ITS_WAY, site.now()));
    let dropped: u64 = ["unknown_spi", "no_permission"].iter().map(|reason| outcome.dropped_at("receiver", reason)).sum();
    let came = site.last.look(|frames| frames.iter().filter(|frame| frame.at >= from).filter_map(of_flow).count() as u64);
    let passed = came.saturating_sub(dropped);
    let few = (ON_ITS_WAY.as_millis() / PAUSE.as_millis()) as u64;
    outcome.check(
        "the receiver drops what still comes",
        dropped > 100 && passed <= few,
        format!("{dropped} of {came} packets after the revocation"),
    );
    steady.end().map(drop)
}

fn cross(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    /// What each frame of signalling takes longer.
    const SLOW: Duration = Duration::from_millis(300);
    outcome.attacker = "nobody; a link that signalling takes 300 ms to cross".to_owned();
    let steady = begin(site, progress)?;
    progress("asking for more and revoking at once (6 s)");
    site.relay.set(|_, frame| match packet(frame).and_then(frame::read) {
        Some(seen) if seen.authentication.is_none() && seen.protocol != AH => Fate::Delay(SLOW),
        _ => Fate::Pass,
    });
    let from = site.now();
    site.request(1_000_000)?;
    site.revoke()?;
    let revoked = site.now();
    must_end(site, outcome, "receiver", &["FR-16"], from.saturating_sub(ON_ITS_WAY), 0.2)?;
    must_end(site, outcome, "sender", &["FS-27"], from, 0.4)?;
    std::thread::sleep(Duration::from_secs(2));
    let crossed = crossed(site, from, revoked + SLOW);
    outcome.check("a Query and a Permission were on the slow link at once", crossed, format!("{crossed}"));
    no_flow_left(site, outcome)?;
    site.got_through(outcome, Of::Flow, (revoked + ON_ITS_WAY + SLOW, site.now()));
    outcome.check("nothing passes afterwards", outcome.octets_through == 0, format!("{} octets", outcome.octets_through));
    steady.end().map(drop)
}

/// Whether signalling came to the slow link from both sides within the time that it takes to cross it.
fn crossed(site: &Site, from: Duration, to: Duration) -> bool {
    let [left, right] = &site.middle;
    let [_, towards_router2] = Addresses::of(site.family).router1;
    let came = |capture: &Capture, way: Way| {
        capture.look(|frames| {
            frames.iter().filter(|frame| (from..=to).contains(&frame.at)).filter_map(|frame| frame.ip()).filter_map(frame::read).any(
                |seen| {
                    let goes_there = seen.source == towards_router2;
                    seen.protocol == 6 && !seen.payload.is_empty() && seen.length > 300 && goes_there == (way == Way::There)
                },
            )
        })
    };
    came(left, Way::There) && came(right, Way::Back)
}

fn deny(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "nobody; a program that goes on after it was told no".to_owned();
    let steady = begin(site, progress)?;
    progress("revoking; the program goes on (20 s)");
    let before = site.drops()?;
    site.revoke()?;
    let from = site.now();
    must_end(site, outcome, "sender", &["FS-27"], from.saturating_sub(ON_ITS_WAY), 0.2)?;
    std::thread::sleep(site.refresh * 4);
    let story = site.story()?;
    let asked: Vec<f64> = story.of("receiver", "FR-06", from).map(|told| told.at).collect();
    // Held for 1, 2, 4 and 8 s, then 16: four questions in 20 s, and not one each packet.
    outcome.figure("questions denied in four periods", asked.len() as u64);
    outcome.check("the sender asks again, and seldom", (2..=6).contains(&asked.len()), format!("denied at {asked:.2?} s"));
    let pauses: Vec<f64> = asked.iter().zip(asked.iter().skip(1)).map(|(one, next)| next - one).collect();
    let grows = pauses.iter().zip(pauses.iter().skip(1)).all(|(one, next)| *next > one * 1.5);
    outcome.check("each pause is longer than the one before", grows && !pauses.is_empty(), format!("{pauses:.2?} s"));
    site.got_through(outcome, Of::Flow, (from + ON_ITS_WAY, site.now()));
    outcome.check("nothing gets to the receiver's link", outcome.octets_through == 0, format!("{} octets", outcome.octets_through));
    outcome.dropped = site.drops()?.since(&before);
    no_flow_left(site, outcome)?;
    steady.end().map(drop)
}
