//! A storm of replayed packets: somebody on the link without any key, who has recorded everything.

use std::io;
use std::time::{Duration, Instant};

use super::Scenario;
use super::audit::{Of, Unit};
use super::flow::{self, Programs};
use super::losing::EVIDENCE;
use super::outcome::Outcome;
use super::site::{SHORTEST, Site, Terms, of_flow};
use crate::network::graph::Place;
use crate::network::relay::{Way, with_packet};

/// One datagram each.
const PAUSE: Duration = Duration::from_millis(3);
/// How long packets are recorded before, and how long the storm lasts.
const RECORDED: Duration = Duration::from_secs(4);
const STORM: Duration = Duration::from_secs(11);
/// Packets of the storm in a burst, and the pause after it: some 4,000 a second.
const BURST: usize = 20;
const BETWEEN: Duration = Duration::from_millis(5);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "replay-storm",
    what: "every packet of the flow recorded and sent again thousands of times a second for two periods, the newest beside the oldest: \
           router2 drops each as replayed, nobody is accused, and the flow keeps 95 % of its goodput",
    terms: Terms { place: Place::BetweenRouters, refresh: SHORTEST, volume: 64_000_000, reactions: "", rogue: None },
    run,
};

fn run(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link, without any key, with everything that went over it".to_owned();
    progress("asking, sending steadily, recording (4 s)");
    let programs = Programs::start(site)?;
    programs.ask(site)?;
    let steady = programs.steady(PAUSE)?;
    std::thread::sleep(RECORDED + site.plan.before_attack());
    progress("replaying (11 s)");
    let before = site.drops()?;
    let from = site.now();
    let header = site.frame_header()?;
    let [left, _] = &site.middle;
    let (begun, mut sent) = (Instant::now(), 0_u64);
    while begun.elapsed() < STORM {
        // What has gone over the link until now: the oldest come round again and again, the newest a moment after themselves.
        let recorded: Vec<Vec<u8>> = left.look(|frames| {
            let packets: Vec<&[u8]> = frames.iter().filter(|frame| of_flow(frame).is_some()).filter_map(|frame| frame.ip()).collect();
            let newest = packets.iter().rev().take(BURST / 2);
            let oldest = packets.iter().cycle().skip(sent as usize).take(BURST / 2);
            newest.chain(oldest).map(|packet| packet.to_vec()).collect()
        });
        for packet in &recorded {
            site.relay.inject(Way::There, &with_packet(&header, packet))?;
            sent += 1;
        }
        std::thread::sleep(BETWEEN);
    }
    std::thread::sleep(Duration::from_millis(500));
    let delivered = steady.end()?;
    outcome.dropped = site.drops()?.since(&before);
    let twice = outcome.figure_behind(site, "of those, past the second router", Unit::Packets, Of::Again, (Duration::ZERO, site.now()));
    site.got_through(outcome, Of::Again, (Duration::ZERO, site.now()));
    let octets = outcome.octets_through;
    outcome.figure("packets replayed", sent);
    let dropped = outcome.dropped_at("router2", "replayed");
    outcome.check("the storm was one", sent > 5_000, format!("{sent} packets"));
    outcome.check("router2 drops every one of them as replayed", dropped == sent, format!("{dropped} of {sent}"));
    outcome.check("no number passes router2 twice", twice == 0, format!("{twice} packets, {octets} octets"));
    let goodput = delivered.goodput();
    outcome.check("the flow keeps 95 % of its goodput", goodput >= 95.0, format!("{goodput:.1} %: {delivered}"));
    let story = site.story()?;
    let evidence: Vec<_> = EVIDENCE.iter().flat_map(|rule| story.of("receiver", rule, from)).map(|told| &told.message).collect();
    outcome.check("nobody is accused", evidence.is_empty(), format!("{evidence:?}"));
    let agreed = flow::await_rule(site, "receiver", &["FR-32"], from, Duration::ZERO)?;
    outcome.check("the volumes agree under the storm", agreed.is_some(), agreed.map_or("no comparison".into(), |told| told.message));
    Ok(())
}
