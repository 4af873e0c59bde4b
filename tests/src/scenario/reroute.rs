//! A path that moves between two routers that both live (X-95, X-114, TMP-12), and back.

use std::io;
use std::time::Duration;

use super::audit::Unit;
use super::forked::{Scenario, Site, Terms};
use super::outcome::{Outcome, arrival};
use super::site::SHORTEST;
use crate::network::fork::{Chooser, Way};

/// One datagram each.
const PAUSE: Duration = Duration::from_millis(5);
/// So long that no refresh helps.
const LONG: Duration = Duration::from_secs(60);
/// What a busy machine may need for a local repair: about three round trips, two connections among them, or a tenth of T at most.
const REPAIR: Duration = Duration::from_secs(5);
/// The same on top of one T, where nobody is told.
const SLACK: Duration = Duration::from_secs(2);
/// How long a router is dead before the path moves.
const AWAY: Duration = Duration::from_secs(1);
/// How long a flow runs on one way.
const CALM: Duration = Duration::from_secs(3);

pub(super) const SEEN: Scenario = Scenario {
    name: "reroute",
    what: "router1 sends a running flow over another router, and back, all of them alive: it hears so from its own kernel, asks for the \
           new peer and repairs the path at once, long before a refresh (T is 60 s)",
    terms: Terms { chooser: Chooser::Router1, refresh: LONG },
    run: seen,
};

pub(super) const UNSEEN: Scenario = Scenario {
    name: "reroute-unseen",
    what: "the same by a router without permissions behind router1, so that no node is told: the next refresh asks who is on the path, and \
           the flow goes on within one T",
    terms: Terms { chooser: Chooser::Plain, refresh: SHORTEST },
    run: unseen,
};

pub(super) const FAILOVER: Scenario = Scenario {
    name: "failover",
    what: "router2a is killed under a running flow (SIGKILL), and a second later router1 sends the flow over router2b: data flows again at \
           once, long before a refresh (T is 60 s)",
    terms: Terms { chooser: Chooser::Router1, refresh: LONG },
    run: fail_over,
};

fn seen(site: &mut Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    move_there_and_back(site, outcome, progress, REPAIR)
}

fn unseen(site: &mut Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    let limit = site.refresh + SLACK;
    move_there_and_back(site, outcome, progress, limit)
}

fn move_there_and_back(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str), limit: Duration) -> io::Result<()> {
    let programs = site.programs()?;
    progress("asking, sending steadily");
    let flow = programs.steady(PAUSE)?;
    let granted = site.await_arrival(Way::A, Duration::ZERO, Duration::from_secs(10));
    outcome.check("the flow runs over router2a", granted.is_some(), arrival(granted));
    for (way, name, figure) in
        [(Way::B, "router2b", "milliseconds without data, first move"), (Way::A, "router2a", "milliseconds without data, second move")]
    {
        std::thread::sleep(CALM + site.plan.before_attack());
        progress(&format!("leading the flow over {name}"));
        let moved = site.now();
        site.network.choose(way)?;
        if !outcome.must_arrive(site, way, figure, moved, limit) {
            break;
        }
    }
    std::thread::sleep(CALM);
    let end = site.now();
    let last = site.last_arrival(Way::A, end);
    let running = last.is_some_and(|last| end.saturating_sub(last) < Duration::from_secs(1));
    outcome.check(
        "the flow still runs there at the end",
        running,
        format!("last packet: {}; the end: {:.3} s", arrival(last), end.as_secs_f64()),
    );
    let delivered = flow.end()?;
    outcome.figure("datagrams sent", delivered.sent);
    outcome.figure("datagrams lost", delivered.sent.saturating_sub(delivered.own));
    Ok(())
}

fn fail_over(site: &mut Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    let programs = site.programs()?;
    progress("asking, sending steadily");
    let flow = programs.steady(PAUSE)?;
    let granted = site.await_arrival(Way::A, Duration::ZERO, Duration::from_secs(10));
    outcome.check("the flow runs over router2a", granted.is_some(), arrival(granted));
    std::thread::sleep(CALM + site.plan.before_attack());
    progress("killing router2a");
    site.kill("router2a")?;
    std::thread::sleep(AWAY);
    progress("leading the flow over router2b");
    let moved = site.now();
    site.network.choose(Way::B)?;
    outcome.must_arrive(site, Way::B, "milliseconds without data after the move", moved, REPAIR);
    std::thread::sleep(CALM);
    let delivered = flow.end()?;
    outcome.figure("datagrams sent", delivered.sent);
    outcome.figure("datagrams lost", delivered.sent.saturating_sub(delivered.own));
    Ok(())
}

impl Outcome {
    /// Data must be behind a router within `limit` of the move.
    fn must_arrive(&mut self, site: &Site, way: Way, figure: &'static str, moved: Duration, limit: Duration) -> bool {
        let heard = site.await_arrival(way, moved, limit + Duration::from_secs(3));
        let after = heard.map(|heard| heard.saturating_sub(moved));
        let found = after.map_or_else(|| "not at all".to_owned(), |after| format!("after {:.3} s", after.as_secs_f64()));
        let must = format!("data behind {} within {:.0} s of the move", way.of(["router2a", "router2b"]), limit.as_secs_f64());
        self.check(must, after.is_some_and(|after| after <= limit), found);
        self.figure_of(figure, Unit::Milliseconds, [(site.count_behind(way, figure, (moved, site.now())), false)]);
        heard.is_some()
    }
}
