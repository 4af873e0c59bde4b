//! What is left to an attacker when the sender signs its packets: packets with made-up signatures.

use std::io;
use std::time::Duration;

use traffic::verifier::SignatureBudget;

use super::Scenario;
use super::attacker::{self, Attacker, Sent};
use super::audit::Of;
use super::flow::{self, Delivered, Programs};
use super::outcome::Outcome;
use super::site::{OTHER_PORT, SHORTEST, Site, Terms};
use crate::network::graph::Place;
use crate::process::Program;

/// More numbers than the flow uses during an attack.
const AHEAD: u32 = 3000;
/// One datagram each.
const PAUSE: Duration = Duration::from_millis(4);
/// The attack with the shared key that leads to signed packets: beyond what is tolerated as in flight (256 KiB).
const FORGED: u32 = 400;
const PAYLOAD: usize = 1208;
const SETTLE: Duration = Duration::from_millis(300);
const TERMS: Terms = Terms {
    place: Place::BetweenRouters,
    refresh: SHORTEST,
    volume: 32_000_000,
    reactions: "",
    rogue: Some(("router1", Program::LeakingRouter)),
};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "injection-signed",
    what: "after the escalation 1,000 packets a second with made-up signatures between the routers: the second router drops each, and \
           the flow keeps at least 95 % of its goodput",
    terms: TERMS,
    run: few,
};

pub(super) const FLOOD: Scenario = Scenario {
    name: "flood-signed",
    what: "the same with 10,000 packets a second, more signatures than a router verifies for one flow: the flow itself suffers, a known \
           weakness; what the router spends is bounded, and another flow of the same hosts keeps at least 95 % of its goodput",
    terms: TERMS,
    run: flood,
};

fn few(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    let programs = escalate(site, outcome, progress)?;
    progress("sending steadily, and packets with made-up signatures beside it (5 s)");
    let attacked = attack(site, outcome, &programs, 5_000, Duration::from_millis(1))?;
    let bad = outcome.dropped_at("router2", "bad_icv");
    let sent = attacked.pretended.packets;
    outcome.check("the second router drops every one of them for its signature", bad == sent, format!("{bad} of {sent}"));
    let goodput = attacked.flow.goodput();
    outcome.check("the flow keeps 95 % of its goodput", goodput >= 95.0, format!("{goodput:.1} %, {}", attacked.flow));
    Ok(())
}

fn flood(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    let programs = escalate(site, outcome, progress)?;
    let others = Programs::start_on(site, OTHER_PORT)?;
    others.sender.send(b"may I?")?;
    others.receiver.set_read_timeout(Some(Duration::from_secs(10)))?;
    others.receiver.recv(&mut [0; 64])?;
    progress("sending two flows steadily, and packets with made-up signatures for one of them (4 s)");
    let other = others.steady(PAUSE)?;
    let begun = site.now();
    let attacked = attack(site, outcome, &programs, 40_000, Duration::from_micros(100))?;
    let took = site.now().saturating_sub(begun).as_secs_f64();
    let other = other.end()?;
    let (bad, unverified) = (outcome.dropped_at("router2", "bad_icv"), outcome.dropped_at("router2", "verification_budget"));
    // Where the machine does other work besides, the router's queue may be full for a moment, for whoever's packet comes then. Nothing
    // else may make up a difference.
    let unqueued = outcome.dropped_at("router2", "queue_full");
    outcome.figure("packets with made-up signatures a second", (attacked.pretended.packets as f64 / took) as u64);
    let lost = |flow: &Delivered| flow.sent.saturating_sub(flow.own);
    let at_least = attacked.pretended.packets + lost(&attacked.flow);
    outcome.check(
        "each of them is dropped, for its signature or unverified, and with them what the flow loses",
        unverified > 0 && bad + unverified <= at_least && (at_least..=at_least + lost(&other)).contains(&(bad + unverified + unqueued)),
        format!(
            "{bad} bad_icv, {unverified} verification_budget, {unqueued} queue_full, of {} and {}",
            attacked.pretended.packets, attacked.flow
        ),
    );
    let SignatureBudget { per_second, burst } = SignatureBudget::DEFAULT;
    let most = f64::from(per_second) * took + f64::from(burst);
    outcome.check("the router verifies no more than its budget for the flow", bad as f64 <= most, format!("{bad} of {most:.0}"));
    outcome.figure("goodput of the flow meanwhile, in percent (no bound is promised)", attacked.flow.goodput() as u64);
    let goodput = other.goodput();
    outcome.check("the other flow keeps 95 % of its goodput", goodput >= 95.0, format!("{goodput:.1} %, {other}"));
    Ok(())
}

/// Asks, and makes the sender sign by an attack with the shared key.
fn escalate(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<Programs> {
    outcome.attacker = format!("{} (router1); of the signing key he has nothing", attacker::WITH_KEY);
    progress("asking; injecting with the shared key until the sender signs (at most 10 s)");
    let programs = Programs::start(site)?;
    programs.ask(site)?;
    let from = site.now();
    let attacker = Attacker::with_key_of(site, "router1")?;
    let next = attacker::highest_number(site, attacker.leaked.spi) + 1;
    attacker.inject(site, (0..FORGED).map(|index| attacker.forge(next + index, PAYLOAD)), Duration::from_millis(1))?;
    outcome.must_detect(site, &["FR-31"], from, 2.0)?;
    outcome.must_follow(site, "sender", "FS-24", from, Duration::from_secs(1))?;
    site.got_through(outcome, Of::Marked, (from, site.now()));
    Ok(programs)
}

/// What became of a flow, and of made-up packets beside it.
struct Attacked {
    flow: Delivered,
    pretended: Sent,
}

/// Sends steadily, and `count` packets with made-up signatures beside it, of which none may get past the second router.
fn attack(site: &Site, outcome: &mut Outcome, programs: &Programs, count: u32, pause: Duration) -> io::Result<Attacked> {
    let before = site.drops()?;
    let from = site.now();
    let flow = programs.steady(PAUSE)?;
    std::thread::sleep(SETTLE);
    let spi = newest_spi(site, from).ok_or_else(|| io::Error::other("no packet of the flow to see the new SPI in"))?;
    // Numbers that the flow will not come to meanwhile, but could: an attacker who watches the link would choose such.
    let ahead = attacker::highest_number(site, spi) + AHEAD;
    let attacker = Attacker::with_key_of(site, "router1")?;
    let pretended = attacker.inject(site, (0..count).map(|index| attacker::pretend(site, spi, ahead + index % AHEAD, PAYLOAD)), pause)?;
    let flow = flow.end()?;
    std::thread::sleep(SETTLE);
    outcome.dropped = site.drops()?.since(&before);
    let lengths = flow::by_icv_length(&site.first, from);
    let all_signed = lengths.keys().eq([&attacker::signature_octets(site.family)]);
    outcome.check("the sender signs: ICV of 64 octets", all_signed, format!("packets by octets of ICV: {lengths:?}"));
    let through = attacker::got_through(site, from);
    outcome.check("none of them gets past the second router", through.packets == 0, format!("{} packets", through.packets));
    Ok(Attacked { flow, pretended })
}

/// The SPI of the flow's newest packet in the middle, since `from`.
fn newest_spi(site: &Site, from: Duration) -> Option<u32> {
    let [_, right] = &site.middle;
    right.look(|frames| {
        let newest = frames.iter().rev().take_while(|frame| frame.at >= from).find_map(super::site::of_flow)?;
        newest.authentication.map(|ah| ah.spi)
    })
}
