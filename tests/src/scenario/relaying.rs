//! Relays of a sender: where a flow goes whose packets are dropped on the routed path, and then if its relay dies (X-99, P-189).

use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use super::audit::{Of, Unit};
use super::outcome::Outcome;
use super::overlay::{Scenario, Site};
use super::site::{OTHER_PORT, PORT, SHORTEST};
use super::spare::standing;
use super::story::Told;
use crate::network::frame;
use crate::network::relay::{Fate, packet};
use crate::network::topology::Family;

const UDP: u8 = 17;
const AH: u8 = 51;
/// Between datagrams of a flow.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a relay may be dead until its flows leave it: it is asked every second, and dead after 3 s without an answer, on a busy
/// machine. Two time-outs of a refresh would take 12 s, and come up to a period later.
pub(super) const LEFT: Duration = Duration::from_secs(7);
/// How long the nodes behind a relay may take to learn of a flow: two handshakes of GIST with TLS, on a busy machine.
const SET_UP: Duration = Duration::from_secs(4);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "relay",
    what: "one flow's data dropped between the routers, and three relays, of which one admits others: the flow goes on over the nearest, \
           and when that is killed over the other; no other flow moves, tunnel and flow count both, and released it gives the way back. \
           Every host believes sources only by the link of its own route there (strict reverse path)",
    refresh: SHORTEST,
    run: play,
};

fn play(site: &mut Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link between the routers, without any key; he drops one flow's data".to_owned();
    progress("two flows, until the volumes have been compared and the relays are known");
    let (programs, others) = (site.programs(PORT)?, site.programs(OTHER_PORT)?);
    let (steady, other) = (programs.steady(PAUSE)?, others.steady(2 * PAUSE)?);
    must_know_the_relays(site, outcome)?;
    let agreed = await_agreement(site, Duration::ZERO)?;
    outcome.check("the volumes agree before", agreed.is_some(), words(agreed.as_ref()));
    must_stand(site, outcome, "before, nothing leads to a relay", false)?;
    let spi = spi(site, "sender")?;
    let unused = site.count("relay1-link", Of::Tunnel, (Duration::ZERO, site.now())).packets;
    outcome.check("before, no packet is packed", unused == 0, format!("{unused} packets under AH with a packet inside at relay1"));

    std::thread::sleep(site.plan.before_attack());
    progress("dropping the flow's data, not signalling (at most 13 s)");
    let dropped = site.now();
    site.middle.set(|_, frame| match packet(frame).and_then(frame::read) {
        Some(seen) if (seen.authentication.is_some() || seen.protocol == AH) && seen.ports.1 != OTHER_PORT => Fate::Drop,
        _ => Fate::Pass,
    });
    // Two periods, and the time that what is missing may still arrive, twice.
    let told = site.await_rule("receiver", &["FR-36"], dropped, site.refresh.mul_f64(2.6) + Duration::from_secs(1))?;
    outcome.check("the receiver finds that packets are missing", told.is_some(), words(told.as_ref()));
    let told = must_follow(site, outcome, "sender", &["FS-25"], dropped, Duration::from_secs(2))?;
    let changed = moment(site, told.as_ref());
    let first = must_go_on(site, outcome, changed, "relay1-link", "the nearest relay")?;
    let elsewhere = site.count("relay2-link", Of::Tunnel, (changed, site.now())).packets;
    outcome.check("and not over the farther one", elsewhere == 0, format!("{elsewhere} packets there"));
    let now = self::spi(site, "sender")?;
    outcome.check("under the same SPI, at both ends", spi == now && spi == self::spi(site, "receiver")?, format!("{spi}, {now}"));
    must_stand(site, outcome, "one rule and one route lead to it", true)?;
    progress("both flows, until the volumes agree again (at most 15 s)");
    let agreed = await_agreement(site, changed + Duration::from_secs(1))?;
    outcome.check("the volumes agree again", agreed.is_some(), words(agreed.as_ref()));

    std::thread::sleep(Duration::from_millis(site.plan.away_ms));
    progress("killing that relay (at most 8 s)");
    site.kill("relay1")?;
    let killed = site.now();
    let told = must_follow(site, outcome, "sender", &["FS-36"], killed, LEFT)?;
    let changed_again = moment(site, told.as_ref());
    must_go_on(site, outcome, changed_again, "relay2-link", "the other relay")?;
    std::thread::sleep(Duration::from_secs(2));
    let ended = site.now();
    let shown = site.count("before-router3", Of::Flow, (killed, ended));
    let waited = outcome.figure_of("milliseconds without data when the relay died", Unit::Milliseconds, [(shown, false)]);
    let limit = (LEFT + SET_UP).as_millis();
    outcome.check(
        "seconds, not time-outs, after its death",
        0 < waited && u128::from(waited) < limit,
        format!("{waited} ms, {limit} at most"),
    );
    let shown = site.count("before-router3", Of::Flow, (dropped, ended));
    outcome.figure_of("milliseconds without data when packets were dropped", Unit::Milliseconds, [(shown, false)]);

    progress("ending both flows, and counting");
    let (delivered, others) = (steady.end()?, other.end()?);
    outcome.check("the other flow between the same hosts lost nothing", others.goodput() > 99.0, format!("{others}"));
    outcome.check("the flow goes on", delivered.own > 0, format!("{delivered}"));
    let whole = (dropped, site.now());
    let [stayed, moved] = ["middle-right", "before-router3"].map(|capture| site.count(capture, Of::Other, whole));
    outcome.check(
        "it stayed on the routed path",
        stayed.packets > 0 && moved.packets == 0,
        format!("{} packets there, {} behind the relays", stayed.packets, moved.packets),
    );
    let behind = site.count("before-router3", Of::Clear, (Duration::ZERO, site.now())).packets;
    outcome.check("no packet of the flow came without AH behind a relay", behind == 0, format!("{behind} packets"));
    let left = site.count("middle-right", Of::Flow, (first, site.now())).packets;
    outcome.check("nothing of the flow came over the routed path any more", left == 0, format!("{left} packets"));
    must_count(site, outcome, "relay2", "relay2-link", Of::Tunnel)?;
    must_count(site, outcome, "receiver", "receiver-link", Of::Flow)?;
    for (relay, capture, within) in [("relay1", "relay1-link", (changed, killed)), ("relay2", "relay2-link", (changed_again, site.now()))] {
        let (tunnel, flow) = (site.count(capture, Of::Tunnel, within), site.count("before-router3", Of::Flow, within));
        let packed = outcome.figure_of(&format!("{relay}: octets to it, packed"), Unit::Octets, [(tunnel, false)]);
        let sent_on = outcome.figure_of(&format!("{relay}: octets of the flow behind it"), Unit::Octets, [(flow, false)]);
        outcome.check(
            format!("what came out of {relay} went in"),
            0 < sent_on && sent_on < packed,
            format!("{sent_on} of {packed} octets"),
        );
    }
    must_refuse(site, outcome)?;
    must_be_answered(site, outcome)?;

    progress("releasing the flow");
    let released = site.now();
    site.release(PORT)?;
    must_follow(site, outcome, "sender", &["FS-50"], released, Duration::from_secs(2))?;
    must_stand(site, outcome, "released, nothing leads to a relay any more", false)
}

/// The two relays that admit the sender live, and the nearest is known.
pub(super) fn must_know_the_relays(site: &Site, outcome: &mut Outcome) -> io::Result<()> {
    let mut ways = Value::Null;
    let known = site.wait(Duration::from_secs(10), || {
        ways = ways_of(site)?;
        Ok(["relay1", "relay2"].iter().all(|name| at(way(&ways, name), "/live") == true))
    })?;
    let [near, far] = ["relay1", "relay2"].map(|name| at(way(&ways, name), "/relay/hops").as_u64());
    outcome.check("the relays that admit the sender live, before they are needed", known, format!("{near:?} and {far:?} hops away"));
    outcome.check("relay1 is nearer", near.zip(far).is_some_and(|(near, far)| near < far), format!("{near:?} and {far:?} hops"));
    Ok(())
}

/// The relay that admits others has refused this sender, and is never taken.
fn must_refuse(site: &Site, outcome: &mut Outcome) -> io::Result<()> {
    let ways = ways_of(site)?;
    let (live, used) = (at(way(&ways, "relay3"), "/live"), site.ask("relay3", &json!({ "command": "status" }))?);
    let forwarded = at(&used, "/relay/forwarded/packets");
    let denied = site.await_rule("relay3", &["FR-06"], Duration::ZERO, Duration::ZERO)?;
    outcome.check(
        "the relay that does not admit the sender denies, does not live for it and sends nothing on",
        live == false && forwarded == 0 && denied.is_some(),
        format!("{}; live: {live}, sent on: {forwarded}", words(denied.as_ref())),
    );
    Ok(())
}

/// What the first router behind the relays says to the sender does not come through a relay.
fn must_be_answered(site: &Site, outcome: &mut Outcome) -> io::Result<()> {
    let counters = site.ask("router0", &json!({ "command": "counters" }))?;
    let passed = ["answer-exempt-datagrams", "answer-exempt-associations"].map(|chain| {
        let rules = counters.pointer("/rules").and_then(Value::as_array).into_iter().flatten();
        let of_chain = rules.filter(|rule| at(rule, "/chain") == chain && at(rule, "/rule") == "within the bucket");
        of_chain.filter_map(|rule| at(rule, "/packets").as_u64()).sum::<u64>()
    });
    let [datagrams, segments] = passed;
    outcome.check(
        "what router3 answers passes the sender's router by its exemptions",
        passed.iter().all(|packets| *packets > 0),
        format!("{datagrams} datagrams of GIST, {segments} segments of an association"),
    );
    Ok(())
}

/// The flow's packets come out of a relay, and at both ends there is a permission for them. Gives when the first one did.
pub(super) fn must_go_on(site: &Site, outcome: &mut Outcome, from: Duration, capture: &'static str, over: &str) -> io::Result<Duration> {
    must_follow(site, outcome, "sender", &["FS-05"], from, SET_UP)?;
    let mut shown = site.count(capture, Of::Tunnel, (from, site.now()));
    site.wait(SET_UP, || {
        shown = site.count("before-router3", Of::Flow, (from, site.now()));
        Ok(shown.packets > 0)
    })?;
    let packed = site.count(capture, Of::Tunnel, (from, site.now()));
    let first = shown.first_us.map(Duration::from_micros);
    outcome.check(
        format!("the flow's packets go over {over}"),
        first.is_some() && packed.packets > 0,
        first.map_or("none".to_owned(), |first| format!("the first {:.0} ms after the change", (first - from).as_secs_f64() * 1000.0)),
    );
    Ok(first.unwrap_or(from))
}

/// What a node has counted under its permission is what its link shows.
pub(super) fn must_count(site: &Site, outcome: &mut Outcome, node: &str, capture: &'static str, of: Of) -> io::Result<()> {
    let (protocol, port) = match (of, site.family) {
        (Of::Tunnel, Family::Ipv4) => (4, 0),
        (Of::Tunnel, Family::Ipv6) => (41, 0),
        _ => (UDP, PORT),
    };
    let (mut counted, mut shown) = (None, 0);
    // Signalling goes on through the tunnel.
    let agree = site.wait(Duration::from_secs(3), || {
        counted = at(&site.flow(node, protocol, port)?, "/counted").as_u64();
        shown = site.count(capture, of, (Duration::ZERO, site.now())).octets;
        Ok(counted == Some(shown))
    })?;
    let what = if of == Of::Tunnel { "of the tunnel" } else { "of the flow" };
    outcome.check(format!("{node} has counted each octet {what} on its link"), agree, format!("{counted:?} of {shown}"));
    Ok(())
}

/// The receiver's next comparison of the flow's volumes that agrees, within three periods.
pub(super) fn await_agreement(site: &Site, from: Duration) -> io::Result<Option<Told>> {
    site.await_rule_of(Some(PORT), "receiver", &["FR-32"], from, site.refresh * 3)
}

pub(super) fn must_follow(
    site: &Site,
    outcome: &mut Outcome,
    node: &str,
    rules: &[&str],
    from: Duration,
    limit: Duration,
) -> io::Result<Option<Told>> {
    let told = site.await_rule(node, rules, from, limit)?;
    outcome.check(format!("{node} takes {}", rules.join(" or ")), told.is_some(), words(told.as_ref()));
    Ok(told)
}

pub(super) fn must_stand(site: &Site, outcome: &mut Outcome, must: &str, wanted: bool) -> io::Result<()> {
    let expected = if wanted { (1, 1) } else { (0, 0) };
    let mut found = (0, 0);
    // The daemon says what it does before it does it.
    let holds = site.wait(Duration::from_secs(2), || {
        found = standing(site.sender()?, site.family)?;
        Ok(found == expected)
    })?;
    outcome.check(must, holds, format!("{} rules, {} routes", found.0, found.1));
    Ok(())
}

fn ways_of(site: &Site) -> io::Result<Value> {
    Ok(at(&site.ask("sender", &json!({ "command": "status" }))?, "/paths"))
}

fn way<'a>(ways: &'a Value, name: &str) -> &'a Value {
    ways.as_array().into_iter().flatten().find(|way| at(way, "/name") == name).unwrap_or(&Value::Null)
}

/// What stands in an answer at some place; null if nothing does.
fn at(answer: &Value, pointer: &str) -> Value {
    answer.pointer(pointer).cloned().unwrap_or_default()
}

fn spi(site: &Site, node: &str) -> io::Result<Value> {
    Ok(at(&site.flow(node, UDP, PORT)?, "/spi"))
}

pub(super) fn moment(site: &Site, told: Option<&Told>) -> Duration {
    told.map_or(site.now(), |told| Duration::from_secs_f64(told.at))
}

pub(super) fn words(told: Option<&Told>) -> String {
    told.map_or("nothing of the kind".to_owned(), |told| format!("{} {} at {:.3} s", told.rule, told.message, told.at))
}
