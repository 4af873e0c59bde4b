//! A routed path that swallows everything, signalling too, and a relay as the way out (figure 5 of the draft, P-175).

use std::io;
use std::time::Duration;

use super::audit::{Of, Unit};
use super::outcome::Outcome;
use super::overlay::{Scenario, Site};
use super::relaying::{LEFT, await_agreement, moment, must_count, must_follow, must_go_on, must_know_the_relays, must_stand, words};
use super::site::{OTHER_PORT, PORT, SHORTEST};
use crate::network::overlay;
use crate::network::relay::Fate;

/// Between datagrams of a flow.
const PAUSE: Duration = Duration::from_millis(10);
/// The flow that begins when nothing passes any more.
const LATE_PORT: u16 = 9003;
/// Two time-outs of a first Query, 5 s and 10 s, and handshakes on a busy machine.
const COLD: Duration = Duration::from_secs(21);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "black-hole-relay",
    what: "figure 5: everything dropped between the routers, signalling too, and three relays: each flow asks twice, and goes on over the \
           nearest; one that begins in the black hole is permitted there. When that relay is cut off without a word, all take the other",
    refresh: SHORTEST,
    run: play,
};

fn play(site: &mut Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link between the routers, without any key; he drops everything".to_owned();
    progress("two flows, until the volumes have been compared and the relays are known");
    let (programs, others, late) = (site.programs(PORT)?, site.programs(OTHER_PORT)?, site.programs(LATE_PORT)?);
    let (steady, other) = (programs.steady(PAUSE)?, others.steady(2 * PAUSE)?);
    must_know_the_relays(site, outcome)?;
    let agreed = await_agreement(site, Duration::ZERO)?;
    outcome.check("the volumes agree before", agreed.is_some(), words(agreed.as_ref()));
    must_stand(site, outcome, "before, nothing leads to a relay", false)?;

    std::thread::sleep(site.plan.before_attack());
    progress("dropping everything; a third flow begins (at most 20 s)");
    site.middle.set(|_, _| Fate::Drop);
    let dropped = site.now();
    let late = late.steady(4 * PAUSE)?;
    // The next refresh, and two time-outs of it: 4 s and 8 s under a permission of 5 s.
    let limit = site.refresh.mul_f64(3.4) + Duration::from_secs(3);
    let mut changed = site.now();
    for (port, which) in [(PORT, "the flow"), (OTHER_PORT, "the other flow")] {
        let told = site.await_rule_of(Some(port), "sender", &["FS-31"], dropped, limit)?;
        outcome.check(format!("{which} asks twice, and takes another way (FS-31)"), told.is_some(), words(told.as_ref()));
        changed = if port == PORT { moment(site, told.as_ref()) } else { changed };
    }
    must_go_on(site, outcome, changed, "relay1-link", "the nearest relay")?;
    let shown = site.count("before-router3", Of::Flow, (dropped, site.now()));
    let waited = outcome.figure_of("milliseconds without data in the black hole", Unit::Milliseconds, [(shown, false)]);
    let lifetime = site.refresh.mul_f64(3.5) + Duration::from_secs(2);
    outcome.check(
        "it waited no longer than a permission lives",
        0 < waited && u128::from(waited) < lifetime.as_millis(),
        format!("{waited} ms"),
    );

    progress("the flow that began in the black hole (at most 21 s), and all until the volumes agree again");
    let told =
        site.await_rule_of(Some(LATE_PORT), "sender", &["FS-09"], dropped, COLD.saturating_sub(site.now().saturating_sub(dropped)))?;
    outcome.check("the flow that began in it takes a way after two time-outs (FS-09)", told.is_some(), words(told.as_ref()));
    outcome.check("and its packets arrive", late.await_more(0, Duration::from_secs(6)), format!("{} so far", late.received()));
    let agreed = await_agreement(site, changed + Duration::from_secs(1))?;
    outcome.check("the volumes agree again", agreed.is_some(), words(agreed.as_ref()));
    must_stand(site, outcome, "one rule and one route lead to the relay, for all three", true)?;

    let elsewhere = site.count("relay2-link", Of::Tunnel, (dropped, site.now())).packets;
    outcome.check("nothing went over the farther relay", elsewhere == 0, format!("{elsewhere} packets"));

    progress("cutting that relay off, so that nobody says a word (at most 11 s)");
    site.cut_off("relay1", overlay::NEAR_LINK)?;
    let cut = site.now();
    for (port, which) in [(PORT, "the flow"), (OTHER_PORT, "the other flow"), (LATE_PORT, "the late flow")] {
        let told = site.await_rule_of(Some(port), "sender", &["FS-36"], cut, LEFT)?;
        outcome.check(format!("{which} leaves the relay that is silent (FS-36)"), told.is_some(), words(told.as_ref()));
        changed = if port == PORT { moment(site, told.as_ref()) } else { changed };
    }
    must_go_on(site, outcome, changed, "relay2-link", "the other relay")?;
    let shown = site.count("before-router3", Of::Flow, (cut, site.now()));
    outcome.figure_of("milliseconds without data when the relay was cut off", Unit::Milliseconds, [(shown, false)]);
    let before = late.received();
    outcome.check("the late flow's packets arrive too", late.await_more(before, Duration::from_secs(6)), format!("{before} before"));
    must_stand(site, outcome, "one rule and one route lead to the other relay", true)?;

    progress("ending the flows, and counting");
    let (delivered, others, late) = (steady.end()?, other.end()?, late.end()?);
    let more = [("the flow", &delivered), ("the other flow", &others), ("the late flow", &late)];
    let found: Vec<String> = more.iter().map(|(which, delivered)| format!("{which}: {delivered}")).collect();
    outcome.check("all three got through", more.iter().all(|(_, delivered)| delivered.own > 0), found.join("; "));
    let whole = (dropped, site.now());
    for (of, figure) in [(Of::Flow, "octets of the flow behind the relays"), (Of::Other, "octets of the other flow behind the relays")] {
        let behind = site.count("before-router3", of, whole);
        let behind = outcome.figure_of(figure, Unit::Octets, [(behind, false)]);
        let passed = site.count("middle-right", of, whole).packets;
        outcome.check(
            format!("{figure}, and none on the routed path"),
            behind > 0 && passed == 0,
            format!("{behind} octets, {passed} packets"),
        );
    }
    let clear = site.count("before-router3", Of::Clear, (Duration::ZERO, site.now())).packets;
    outcome.check("no packet of the flow came without AH behind a relay", clear == 0, format!("{clear} packets"));
    must_count(site, outcome, "relay2", "relay2-link", Of::Tunnel)?;
    must_count(site, outcome, "receiver", "receiver-link", Of::Flow)?;

    progress("releasing the flows");
    let released = site.now();
    [PORT, OTHER_PORT, LATE_PORT].into_iter().try_for_each(|port| site.release(port))?;
    must_follow(site, outcome, "sender", &["FS-50"], released, Duration::from_secs(2))?;
    must_stand(site, outcome, "released, nothing leads to a relay any more", false)
}
