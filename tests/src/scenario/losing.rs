//! Packets that do not arrive: by somebody's will (figures 5 and 6 of the draft), and by nature.

use std::io;
use std::time::Duration;

use super::Scenario;
use super::flow::{self, Programs, Steady};
use super::outcome::Outcome;
use super::site::{SHORTEST, Site, Terms};
use crate::network::frame;
use crate::network::graph::Place;
use crate::network::relay::{Fate, packet};

/// One datagram each: 2 MB a refresh period, so that the share decides and not the floor of 64 KiB.
const PAUSE: Duration = Duration::from_millis(3);
const TERMS: Terms = Terms { place: Place::BetweenRouters, refresh: SHORTEST, volume: 64_000_000, reactions: "", rogue: None };
/// Protocol number of the Authentication Header.
pub(super) const AH: u8 = 51;

pub(super) const DATA: Scenario = Scenario {
    name: "data-drop",
    what: "figure 6: data dropped between the routers, signalling not: after two periods the receiver asks for another path, and the \
           sender says that there is none",
    terms: TERMS,
    run: drop_data,
};

pub(super) const ALL: Scenario = Scenario {
    name: "black-hole",
    what: "figure 5: everything dropped between the routers: the sender asks twice, has no other path, and the permission lives out its \
           time",
    terms: TERMS,
    run: drop_all,
};

pub(super) const NTH: Scenario = Scenario {
    name: "every-nth",
    what: "every tenth data packet dropped, signalling not: after two periods the receiver asks for another path",
    terms: TERMS,
    run: drop_every_tenth,
};

pub(super) const BELOW: Scenario = Scenario {
    name: "loss-below",
    what: "3 % of all packets are lost by nature, 5 % are tolerated: no reaction in four periods",
    terms: TERMS,
    run: lose_little,
};

pub(super) const ABOVE: Scenario = Scenario {
    name: "loss-above",
    what: "10 % of all packets are lost by nature, 5 % are tolerated: after two periods the receiver asks for another path",
    terms: TERMS,
    run: lose_much,
};

/// What receivers say of missing and injected packets.
pub(super) const EVIDENCE: [&str; 6] = ["FR-21", "FR-31", "FR-35", "FR-36", "FR-40", "FR-42"];

/// A steady flow that has been compared once. Gives the moment after the comparison.
pub(super) fn begin(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<(Programs, Steady, Duration)> {
    progress("asking, sending steadily until the volumes have been compared");
    let programs = Programs::start(site)?;
    programs.ask(site)?;
    let flow = programs.steady(PAUSE)?;
    let agreed = flow::await_rule(site, "receiver", &["FR-32"], Duration::ZERO, site.refresh * 2)?;
    outcome.check("the volumes agree before", agreed.is_some(), agreed.map_or("no comparison".into(), |told| told.message));
    // The answer to that Query is to arrive yet.
    std::thread::sleep(Duration::from_millis(200) + site.plan.before_attack());
    Ok((programs, flow, site.now()))
}

/// The permission must still be the same.
pub(super) fn must_be_permitted(site: &Site, outcome: &mut Outcome) -> io::Result<()> {
    let [sender, receiver] = ["sender", "receiver"].map(|node| site.flow(node));
    let spi = |flow: &Option<serde_json::Value>| flow.as_ref().and_then(|flow| flow.get("spi").cloned());
    let (sender, receiver) = (spi(&sender?), spi(&receiver?));
    outcome.check("the permission lives", sender.is_some() && sender == receiver, format!("{sender:?}, {receiver:?}"));
    Ok(())
}

fn drop_data(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link, without any key".to_owned();
    let (_programs, flow, from) = begin(site, outcome, progress)?;
    let before = site.drops()?;
    progress("dropping data, not signalling (at most 13 s)");
    site.relay.set(|_, frame| match packet(frame).and_then(frame::read) {
        Some(seen) if seen.authentication.is_some() || seen.protocol == AH => Fate::Drop,
        _ => Fate::Pass,
    });
    // Two periods, and the time that what is missing may still arrive, twice.
    let told = outcome.must_detect(site, &["FR-36"], from, 2.6)?;
    outcome.must_follow(site, "receiver", "FR-42", from, Duration::from_secs(1))?;
    outcome.must_follow(site, "sender", "FS-26", from, Duration::from_secs(1))?;
    let reaction = told.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    outcome.octets_lost(site, "octets of the flow lost until the reaction", from, reaction);
    outcome.octets_through = 0;
    must_be_permitted(site, outcome)?;
    progress("data passes again");
    let healed = site.now();
    site.relay.pass_all();
    let agreed = flow::await_rule(site, "receiver", &["FR-32"], healed + site.refresh, site.refresh * 3)?;
    outcome.check("the volumes agree again afterwards", agreed.is_some(), agreed.map_or("no comparison".into(), |told| told.message));
    let delivered = flow.end()?;
    outcome.dropped = site.drops()?.since(&before);
    outcome.check("the flow goes on", delivered.own > 0, format!("{delivered}"));
    Ok(())
}

fn drop_every_tenth(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    /// Which packets are dropped.
    const TENTH: u64 = 10;
    outcome.attacker = "on the link, without any key".to_owned();
    let (_programs, flow, from) = begin(site, outcome, progress)?;
    progress("dropping every tenth data packet (at most 14 s)");
    let mut count = 0;
    site.relay.set(move |_, frame| match packet(frame).and_then(frame::read) {
        Some(seen) if seen.authentication.is_some() => {
            count += 1;
            if count % TENTH == 0 { Fate::Drop } else { Fate::Pass }
        }
        _ => Fate::Pass,
    });
    let told = outcome.must_detect(site, &["FR-36"], from, 2.6)?;
    outcome.must_follow(site, "receiver", "FR-42", from, Duration::from_secs(1))?;
    outcome.must_follow(site, "sender", "FS-26", from, Duration::from_secs(1))?;
    let reaction = told.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    outcome.octets_lost(site, "octets of the flow lost until the reaction", from, reaction);
    let story = site.story()?;
    let injected: Vec<_> = ["FR-21", "FR-31", "FR-40"].iter().flat_map(|rule| story.of("receiver", rule, from)).collect();
    outcome.check("nobody is taken for a holder of the key", injected.is_empty(), format!("{injected:?}"));
    must_be_permitted(site, outcome)?;
    flow.end().map(drop)
}

fn drop_all(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link, without any key".to_owned();
    let (_programs, flow, from) = begin(site, outcome, progress)?;
    progress("dropping everything (at most 26 s)");
    site.relay.set(|_, _| Fate::Drop);
    let told = |name: &str, rules: &[&str], limit| -> io::Result<(Option<f64>, String)> {
        let told = flow::await_rule(site, name, rules, from, limit)?;
        let after = told.as_ref().map(|told| (told.at - from.as_secs_f64()) / site.refresh.as_secs_f64());
        Ok((after, told.map_or("nothing".to_owned(), |told| format!("{} at {:.3} s", told.message, told.at))))
    };
    let (after, found) = told("sender", &["FS-32"], site.refresh * 4)?;
    // A period until the next Query at the latest, 5 s until it is repeated, and 10 s.
    let limit = 1.0 + 15.5 / site.refresh.as_secs_f64();
    outcome.check("the sender has asked twice, and says so", after.is_some_and(|after| after <= limit), found);
    // The receiver's word that it has ended may come to router2 a moment before its own time is over.
    let router2 = &["FN-28", "FN-26"][..];
    for (node, rules) in [("sender", &["FS-28", "FS-29"][..]), ("router1", &["FN-28"]), ("router2", router2), ("receiver", &["FR-15"])] {
        let (after, found) = told(node, rules, site.refresh * 2)?;
        outcome.check(format!("{node} ends the permission within 3.5 T"), after.is_some_and(|after| after <= 3.55), found);
    }
    outcome.octets_lost(site, "octets of the flow lost until the end", from, site.now());
    flow.end().map(drop)
}

fn lose_little(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "nobody; the middle loses 3 % of all packets both ways, signalling included".to_owned();
    let (_programs, flow, from) = begin(site, outcome, progress)?;
    progress("losing 3 % (20 s)");
    lose(site, 3);
    std::thread::sleep(site.refresh * 4);
    let story = site.story()?;
    let comparisons = story.of("receiver", "FR-32", from).count();
    outcome.check("the volumes were compared", comparisons >= 3, format!("{comparisons} times"));
    let evidence: Vec<_> = EVIDENCE.iter().flat_map(|rule| story.of("receiver", rule, from)).map(|told| &told.message).collect();
    outcome.check("no reaction, nor even a suspicion", evidence.is_empty(), format!("{evidence:?}"));
    outcome.octets_lost(site, "octets of the flow lost", from, site.now());
    must_be_permitted(site, outcome)?;
    flow.end().map(drop)
}

fn lose_much(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "nobody; the middle loses 10 % of all packets both ways, signalling included".to_owned();
    let (_programs, flow, from) = begin(site, outcome, progress)?;
    progress("losing 10 % (at most 18 s)");
    lose(site, 10);
    // As for data alone; a Query of its own may be lost as well.
    let told = outcome.must_detect(site, &["FR-36"], from, 3.6)?;
    outcome.must_follow(site, "receiver", "FR-42", from, Duration::from_secs(1))?;
    let reaction = told.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    outcome.octets_lost(site, "octets of the flow lost until the reaction", from, reaction);
    outcome.must_follow(site, "sender", "FS-26", from, Duration::from_secs(3))?;
    must_be_permitted(site, outcome)?;
    flow.end().map(drop)
}

/// From now on so many of a hundred IP packets of each direction are lost, which ones the seed decides.
fn lose(site: &Site, percent: u64) {
    let mut losing = site.plan.losing(percent);
    site.relay.set(move |way, frame| if packet(frame).is_some() && losing(way) { Fate::Drop } else { Fate::Pass });
}
