//! Nodes that die under a running flow and come back with empty hands: each heals without anybody's help (TMP-13, X-96, X-100, X-101).

use std::io;
use std::time::Duration;

use super::forked::{Scenario, Site, Terms};
use super::outcome::{Outcome, arrival};
use super::site::SHORTEST;
use crate::network::fork::{Chooser, Way};

/// One datagram each.
const PAUSE: Duration = Duration::from_millis(5);
/// How long the flow runs before the next node dies.
const CALM: Duration = Duration::from_secs(3);
/// What a busy machine may need on top of one T.
const SLACK: Duration = Duration::from_secs(2);

pub(super) const SCENARIO: Scenario = Scenario {
    name: "restarts",
    what: "each node in turn is killed under a running flow (SIGKILL) and started again a moment later: nothing passes meanwhile, and data \
           flows again within one T of its return",
    terms: Terms { chooser: Chooser::Router1, refresh: SHORTEST },
    run: restart_each,
};

const FIGURES: [(&str, &str); 4] = [
    ("router1", "milliseconds until data flows again, router1"),
    ("router2a", "milliseconds until data flows again, router2a"),
    ("receiver", "milliseconds until data flows again, receiver"),
    ("sender", "milliseconds until data flows again, sender"),
];

fn restart_each(site: &mut Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    let programs = site.programs()?;
    progress("asking, sending steadily");
    let flow = programs.steady(PAUSE)?;
    let granted = site.await_arrival(Way::A, Duration::ZERO, Duration::from_secs(10));
    outcome.check("the flow runs", granted.is_some(), arrival(granted));
    let limit = site.refresh + SLACK;
    for (name, figure) in site.plan.shuffled(FIGURES) {
        std::thread::sleep(CALM + site.plan.before_attack());
        progress(&format!("killing {name}, starting it again"));
        // What the program gets, not what is on the last link: the receiver's own node takes part.
        let had = flow.received();
        site.kill(name)?;
        let settled = site.now();
        std::thread::sleep(site.plan.away());
        let meanwhile = flow.received() - had;
        let most = 1 + u64::try_from(settled.as_millis().min(100) / PAUSE.as_millis()).unwrap_or(0);
        outcome.check(
            format!("without {name} nothing arrives but what was under way"),
            meanwhile <= most,
            format!("{meanwhile} datagrams"),
        );
        site.start(name)?;
        let (back, before) = (site.now(), flow.received());
        let again = flow.await_more(before, limit + Duration::from_secs(3));
        let after = again.then(|| site.now().saturating_sub(back));
        let found = after.map_or_else(|| "not at all".to_owned(), |after| format!("after {:.3} s", after.as_secs_f64()));
        let holds = after.is_some_and(|after| after <= limit);
        outcome.check(format!("data flows again within {:.0} s of {name}'s return", limit.as_secs_f64()), holds, found);
        outcome.figure(figure, after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)));
        if !again {
            break;
        }
    }
    let delivered = flow.end()?;
    outcome.figure("datagrams sent", delivered.sent);
    outcome.figure("datagrams lost", delivered.sent.saturating_sub(delivered.own));
    Ok(())
}
