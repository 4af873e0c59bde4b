//! Uplinks that die while a flow is on them (FS-36; X-99): the link of one goes down, the next hop of another falls silent.

use std::io;
use std::time::Duration;

use serde_json::Value;

use super::Scenario;
use super::audit::{Of, Shown, Unit};
use super::flow::Programs;
use super::losing::{self, AH};
use super::outcome::Outcome;
use super::site::{FIRST, OTHER_PORT, PORT, Site, Terms, UPLINKS};
use super::spare;
use super::story::Told;
use crate::network::frame;
use crate::network::graph::{Place, SPARE_LEFT_LINKS};
use crate::network::link;
use crate::network::relay::{Fate, packet};
use crate::network::silence;

pub(super) const SCENARIO: Scenario = Scenario {
    name: "uplink-dies",
    what: "one flow's data dropped on the routed path, and two more uplinks: it goes on over the second; when the link of that goes down, \
           over the third at once; and when the next hop there falls silent on a link that stays up, by the routed path again. The other \
           flow between the same hosts stays, and uplinks that come back change nothing",
    terms: Terms { place: Place::BesideSpares, ..spare::TERMS },
    run: play,
};

/// Between datagrams of a flow.
const PAUSE: Duration = Duration::from_millis(10);
/// How long until a link that is down is left: it is looked at twice a second and has to be down for a second; on a busy machine.
const DOWN: Duration = Duration::from_secs(4);
/// The same of a next hop that is silent: it is asked every 3 s, and has three more to answer; then as of a link.
const SILENT: Duration = Duration::from_secs(10);
/// How long until it is known that an uplink lives.
const KNOWN: Duration = Duration::from_secs(8);

fn play(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link between the routers, without any key; he drops one flow's data for a while".to_owned();
    progress("two flows");
    let (programs, others) = (Programs::start(site)?, Programs::start_on(site, OTHER_PORT)?);
    let other = others.steady(2 * PAUSE)?;
    programs.ask(site)?;
    let steady = programs.steady(PAUSE)?;
    must_live(site, outcome, "both other uplinks live before they are needed", [true, true])?;
    spare::must_stand(site, outcome, "before, nothing leads to them", false)?;
    let spi = spi(site)?;

    std::thread::sleep(site.plan.before_attack());
    progress("dropping the flow's data, not signalling (at most 13 s)");
    let from = site.now();
    site.relay.set(|_, frame| match packet(frame).and_then(frame::read) {
        Some(seen) if (seen.authentication.is_some() || seen.protocol == AH) && seen.ports.1 != OTHER_PORT => Fate::Drop,
        _ => Fate::Pass,
    });
    let told = outcome.must_follow(site, "sender", "FS-25", from, site.refresh.mul_f64(2.6) + Duration::from_secs(2))?;
    let changed = told.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    spare::must_go_on(site, outcome, changed)?;
    site.relay.pass_all();

    progress("taking the link of the second uplink down at its far end (at most 4 s)");
    std::thread::sleep(Duration::from_millis(site.plan.away_ms));
    // Its address is to be there when it comes up again, in IPv6 too.
    router(site, 0)?.write_setting(&format!("net/ipv6/conf/{}/keep_addr_on_down", SPARE_LEFT_LINKS[0]), "1")?;
    let down = site.now();
    link::take_down(router(site, 0)?, SPARE_LEFT_LINKS[0])?;
    must_leave(site, outcome, Onto::Third, (down, DOWN), "milliseconds without data when the link went down")?;
    let queries = spare::queries(site.second_spare()?, down);
    outcome.check("its Queries go there too", queries > 0, format!("{queries} of GIST on the third link"));
    spare::must_stand(site, outcome, "one rule and one route lead there", true)?;
    must_agree(site, outcome, "the volumes agree again", progress)?;

    progress("the next hop of the third uplink hears nothing any more; the link stays up (at most 10 s)");
    let silent = site.now();
    silence::begin(router(site, 1)?, SPARE_LEFT_LINKS[1])?;
    let back = must_leave(site, outcome, Onto::Routed, (silent, SILENT), "milliseconds without data when the next hop fell silent")?;
    spare::must_stand(site, outcome, "nothing leads to another uplink any more", false)?;

    progress("both uplinks live again");
    link::bring_up(router(site, 0)?, SPARE_LEFT_LINKS[0])?;
    silence::end(router(site, 1)?)?;
    must_live(site, outcome, "both other uplinks live again", [true, true])?;
    must_agree(site, outcome, "the volumes agree again, and nobody misses anything", progress)?;
    let end = site.now();
    let strayed: Vec<u64> = UPLINKS.iter().map(|uplink| count(site, uplink, Of::Flow, (back, end)).packets).collect();
    outcome.check("the flow stays where it is now", strayed == [0, 0], format!("{strayed:?} packets on the others"));
    must_change(site, outcome)?;
    outcome.check("all under one SPI", spi.is_some() && spi == self::spi(site)?, format!("{spi:?}"));

    progress("ending both flows, and counting");
    let (delivered, others) = (steady.end()?, other.end()?);
    outcome.check("the other flow lost nothing", others.goodput() > 99.0, format!("{others}"));
    let whole = (Duration::ZERO, site.now());
    let [stayed, second, third] = [FIRST, UPLINKS[0], UPLINKS[1]].map(|link| count(site, link, Of::Other, whole).packets);
    outcome.check(
        "and stayed on the routed path",
        stayed > 0 && (second, third) == (0, 0),
        format!("{stayed} packets there, {second} and {third} on the other uplinks"),
    );
    let clear: u64 = [FIRST, UPLINKS[0], UPLINKS[1]].iter().map(|link| count(site, link, Of::Clear, whole).packets).sum();
    outcome.check("no packet of the flow left without AH", clear == 0, format!("{clear} packets"));
    outcome.check("the flow goes on", delivered.own > 0, format!("{delivered}"));
    for (link, figure) in [(UPLINKS[0], "octets of the flow on the second uplink"), (UPLINKS[1], "octets of the flow on the third uplink")]
    {
        outcome.figure_of(figure, Unit::Octets, [(count(site, link, Of::Flow, whole), false)]);
    }
    let released = site.now();
    site.release()?;
    outcome.must_follow(site, "sender", "FS-50", released, Duration::from_secs(2)).map(drop)
}

/// The way that a flow takes when its own has died.
#[derive(Debug, Clone, Copy)]
enum Onto {
    Third,
    Routed,
}

/// The flow leaves the way that it is on, which died at a moment, within a time, and goes on over another. Gives when.
fn must_leave(site: &Site, outcome: &mut Outcome, onto: Onto, (died, limit): (Duration, Duration), figure: &str) -> io::Result<Duration> {
    let told = outcome.must_follow(site, "sender", "FS-36", died, limit)?;
    let changed = told.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    let (capture, name, link) = match onto {
        Onto::Third => (site.second_spare()?, "the third uplink", UPLINKS[1]),
        Onto::Routed => (&site.first, "the routed path", FIRST),
    };
    let first = spare::must_go_on_over(site, outcome, (capture, name), changed)?;
    outcome.figure_of(figure, Unit::Milliseconds, [(count(site, link, Of::Flow, (died, site.now())), false)]);
    Ok(first)
}

/// The ways that the sender's daemon takes for live.
fn must_live(site: &Site, outcome: &mut Outcome, must: &str, wanted: [bool; 2]) -> io::Result<()> {
    let deadline = site.now() + KNOWN;
    loop {
        let status = site.daemon("sender", |daemon| daemon.ask(&serde_json::json!({ "command": "status" })))?;
        let paths = status.pointer("/paths").and_then(Value::as_array).cloned().unwrap_or_default();
        let live: Vec<bool> = paths.iter().filter_map(|path| path.pointer("/live").and_then(Value::as_bool)).collect();
        if live == wanted || site.now() > deadline {
            outcome.check(must, live == wanted, format!("{live:?}"));
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The receiver finds the flow's volumes the same.
fn must_agree(site: &Site, outcome: &mut Outcome, must: &str, progress: &dyn Fn(&str)) -> io::Result<()> {
    progress("sending, until the volumes agree (at most 15 s)");
    let from = site.now() + Duration::from_millis(500);
    let of_flow = |told: &&Told| told.flow.contains(&format!(":{PORT} "));
    let agreed = site.await_story(site.refresh * 3, |story| story.of("receiver", "FR-32", from).find(of_flow).cloned())?;
    outcome.check(must, agreed.is_some(), agreed.map_or("no comparison".into(), |told| told.message));
    losing::must_be_permitted(site, outcome)
}

/// The flow has changed its way as often as one died or lost its packets, and the other flow never.
fn must_change(site: &Site, outcome: &mut Outcome) -> io::Result<()> {
    let story = site.story()?;
    let of = |port: u16| {
        let told = ["FS-09", "FS-25", "FS-31", "FS-36"].into_iter().flat_map(|rule| story.of("sender", rule, Duration::ZERO));
        let mut told: Vec<_> = told.filter(|told| told.flow.contains(&format!(":{port} "))).map(|told| (told.at, &told.rule)).collect();
        told.sort_by(|one, other| one.0.total_cmp(&other.0));
        told.into_iter().map(|(_, rule)| rule.as_str()).collect::<Vec<_>>()
    };
    let (own, other) = (of(PORT), of(OTHER_PORT));
    outcome.check("each death moved the flow once, and nothing else did", own == ["FS-25", "FS-36", "FS-36"], format!("{own:?}"));
    outcome.check("the other flow never moved", other.is_empty(), format!("{other:?}"));
    Ok(())
}

fn router(site: &Site, number: usize) -> io::Result<&crate::network::namespace::Namespace> {
    site.hosts.spares.get(number).ok_or_else(|| io::Error::other("the sender has no such uplink"))
}

fn count(site: &Site, link: &'static str, of: Of, within: (Duration, Duration)) -> Shown {
    let about = format!("{of:?}").to_lowercase();
    let capture = match (UPLINKS.iter().position(|uplink| *uplink == link), site.spare(), site.second_spare()) {
        (Some(0), Ok(second), _) => second,
        (Some(_), _, Ok(third)) => third,
        _ => &site.first,
    };
    capture.look(|frames| Shown::count(&about, link, frames, of, within))
}

fn spi(site: &Site) -> io::Result<Option<Value>> {
    Ok(site.flow("sender")?.and_then(|flow| flow.get("spi").cloned()))
}
