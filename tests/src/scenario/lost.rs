//! Each message lost once at each hop: the frame that bears it, or the whole association with it, whose loss both ends are told by a
//! reset. Everything heals by itself within a stated time.

use std::io;
use std::time::{Duration, Instant};

use serde_json::json;

use super::Scenario;
use super::audit::{Of, Shown, Unit};
use super::flow::{self, Programs, Steady};
use super::messages::Message;
use super::outcome::{Cell, Outcome};
use super::session::{SLACK, Session, nobody_crashed};
use super::site::{BEHIND, FIRST, OTHER_PORT, SHORTEST, Site, Terms};
use super::trap::{self, How, Trap};
use crate::network::graph::Place;
use crate::network::relay::Relay;

/// One datagram each.
const PAUSE: Duration = Duration::from_millis(5);
/// The first of the sender's ports; each flow has its own.
const FIRST_SOURCE: u16 = 32_000;
/// GIST repeats after half a second, TCP after a fifth.
const REPEATED: Duration = Duration::from_secs(1);
/// The links in the order of the path.
const LINKS: [&str; 3] = ["sender's link", "between the routers", "receiver's link"];
const TERMS: Terms = Terms { place: Place::EveryLink, refresh: SHORTEST, volume: 64_000_000, reactions: "", rogue: None };

pub(super) const GRANT: Scenario = Scenario {
    name: "lost-at-grant",
    what: "each message that leads to a permission is lost once on each link, its frame or its association with it: the flow is granted \
           within 3 s, or T and 2 s where it was the association",
    terms: TERMS,
    run: |site, outcome, progress| {
        use What::{Confirm, GistQuery, Permission, Query, Response};
        play(site, outcome, progress, &[GistQuery, Response, Confirm, Query, Permission], &BOTH)
    },
};

pub(super) const REFRESH: Scenario = Scenario {
    name: "lost-at-refresh",
    what: "Query and Permission of a refresh are lost once on each link, frame or association: the permission lives, under the same SPI, \
           and no datagram is lost",
    terms: TERMS,
    run: |site, outcome, progress| play(site, outcome, progress, &[What::RefreshQuery, What::RefreshPermission], &BOTH),
};

pub(super) const END: Scenario = Scenario {
    name: "lost-at-end",
    what: "the Permission that revokes, the Query that gives back and the notice that an operator refuses are lost once on each link, frame \
           or association: every node ends the permission within 3 s, or 3.5 T and 2 s where it was the association; the sender is told \
           why as soon",
    terms: TERMS,
    run: |site, outcome, progress| play(site, outcome, progress, &[What::Revocation, What::Release, What::Notice], &BOTH),
};

pub(super) const HALF_OPEN: Scenario = Scenario {
    name: "half-open",
    what: "one end of an association is gone without a word, as after a crash of its host, that which opened it or the other, once on each \
           link: its kernel does not tell the other end, whose TCP would wait for half a minute; granted, or refreshed under the same SPI \
           without any loss, within T and 2 s",
    terms: TERMS,
    run: |site, outcome, progress| play(site, outcome, progress, &[What::Query, What::RefreshQuery], &[How::Opener, How::Opened]),
};

/// What is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    GistQuery,
    Response,
    Confirm,
    Query,
    Permission,
    RefreshQuery,
    RefreshPermission,
    Revocation,
    Release,
    Notice,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::GistQuery => "GIST Query",
            Self::Response => "GIST Response",
            Self::Confirm => "GIST Confirm",
            Self::Query => "Query",
            Self::Permission => "Permission",
            Self::RefreshQuery => "Query of a refresh",
            Self::RefreshPermission => "Permission of a refresh",
            Self::Revocation => "P(AV=0)",
            Self::Release => "Query that gives back",
            Self::Notice => "Notify",
        }
    }

    fn message(self) -> Message {
        match self {
            Self::GistQuery => Message::GistQuery,
            Self::Response => Message::Response,
            Self::Confirm => Message::Confirm,
            Self::Query | Self::RefreshQuery | Self::Release => Message::Query,
            Self::Permission | Self::RefreshPermission | Self::Revocation => Message::Permission,
            Self::Notice => Message::Notify,
        }
    }

    /// Whether it goes over that link. A router before the receiver's link sends the notice.
    fn crosses(self, link: usize) -> bool {
        self != Self::Notice || link < 2
    }
}

const BOTH: [How; 2] = [How::Frame, How::Association];

fn play(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str), messages: &[What], hows: &[How]) -> io::Result<()> {
    outcome.attacker = "on every link, without any key; a frame is dropped, or a connection reset".to_owned();
    outcome.head("message", &["link", "lost", "at, s", "healed after, ms"]);
    let mut source = FIRST_SOURCE;
    for &what in messages {
        progress(&format!("losing {} on each link", what.name()));
        for link in site.plan.shuffled(0..LINKS.len()) {
            for &how in hows {
                // GIST asks outside of associations.
                if what.crosses(link) && (what, how) != (What::GistQuery, How::Association) {
                    Trial { site, what, how, link, source }.run(outcome)?;
                    source += 1;
                }
            }
        }
    }
    nobody_crashed(site, outcome)
}

/// One message lost on one link.
struct Trial<'a> {
    site: &'a Site,
    what: What,
    how: How,
    link: usize,
    source: u16,
}

impl Trial<'_> {
    fn run(&self, outcome: &mut Outcome) -> io::Result<()> {
        let Self { site, what, how, link, source } = *self;
        let (session, programs) = Session::begin(site, source)?;
        let place = LINKS.get(link).copied().unwrap_or_default();
        let lost = match how {
            How::Frame => "frame",
            How::Association => "association",
            How::Opener => "opener",
            How::Opened => "opened",
        };
        let case = format!("{}, {place}, {lost}", what.name());
        let (at, healed) = match what {
            What::GistQuery | What::Response | What::Confirm | What::Query | What::Permission => {
                let trap = self.trap()?;
                let flow = programs.steady(PAUSE)?;
                let at = trap.sprung(self.relay()?)?;
                let healed = self.must_flow(outcome, &case, &flow, at);
                session.must_agree(outcome, &case)?;
                flow.end()?;
                session.must_be_permitted(outcome, &case)?;
                session.release()?;
                (at, healed)
            }
            What::RefreshQuery | What::RefreshPermission => self.refresh(outcome, session, &programs, &case)?,
            What::Revocation | What::Release => self.end(outcome, session, &programs, &case)?,
            What::Notice => self.notice(outcome, &case)?,
        };
        site.relays()?.into_iter().for_each(Relay::pass_all);
        outcome.check(format!("{case}: it was seen and lost"), at.is_some(), format!("{at:?}"));
        let at = at.map_or_else(String::new, |at| format!("{:.3}", at.as_secs_f64()));
        let [place, lost, at] = [place.to_owned(), lost.to_owned(), at].map(Cell::Text);
        outcome.row(what.name(), vec![place, lost, at, Cell::Figure(healed)]);
        Ok(())
    }

    /// How long until all is well again.
    fn limit(&self, association: Duration) -> Duration {
        SLACK
            + match self.how {
                How::Frame => REPEATED,
                How::Association | How::Opener | How::Opened => association,
            }
    }

    /// Data must be behind router2. Gives what the figure is called that says when it was.
    fn must_flow(&self, outcome: &mut Outcome, case: &str, flow: &Steady, at: Option<Duration>) -> String {
        let Self { site, .. } = *self;
        let at = at.unwrap_or_else(|| site.now());
        let limit = self.limit(site.refresh);
        let came = flow.await_more(0, limit + Duration::from_secs(8));
        let figure = format!("milliseconds from the loss to data behind router2: {case}");
        let counted = site.last.look(|frames| Shown::count(&figure, BEHIND, frames, Of::Flow, (at, site.now())));
        let after = outcome.figure_of(&figure, Unit::Milliseconds, [(counted, false)]);
        let holds = came && u128::from(after) <= limit.as_millis();
        outcome.check(format!("{case}: granted within {} s", limit.as_secs()), holds, format!("{came}, after {after} ms"));
        figure
    }

    /// Waits for data of a flow.
    fn run_until_granted(programs: &Programs) -> io::Result<Steady> {
        let flow = programs.steady(PAUSE)?;
        if !flow.await_more(20, trap::LIMIT) {
            return Err(io::Error::other("nothing arrived: no permission"));
        }
        Ok(flow)
    }

    fn refresh(
        &self,
        outcome: &mut Outcome,
        session: Session<'_>,
        programs: &Programs,
        case: &str,
    ) -> io::Result<(Option<Duration>, String)> {
        let flow = Self::run_until_granted(programs)?;
        let before = session.spi("sender")?;
        let trap = self.trap()?;
        let at = trap.sprung(self.relay()?)?;
        let from = at.unwrap_or_else(|| self.site.now());
        let healed = self.must_answer(outcome, case, from);
        session.must_agree(outcome, case)?;
        let after = session.spi("sender")?;
        outcome.check(format!("{case}: the permission lives"), before.is_some() && before == after, format!("{before:x?}, {after:x?}"));
        let delivered = flow.end()?;
        outcome.check(format!("{case}: no datagram is lost"), delivered.own == delivered.sent, format!("{delivered}"));
        session.must_be_permitted(outcome, case)?;
        session.release()?;
        Ok((at, healed))
    }

    /// A Permission must be on the sender's link. Gives what the figure is called that says when it was.
    fn must_answer(&self, outcome: &mut Outcome, case: &str, from: Duration) -> String {
        let Self { site, .. } = *self;
        let limit = self.limit(site.refresh);
        let figure = format!("milliseconds from the loss to a Permission: {case}");
        let count = || site.first.look(|frames| Shown::count(&figure, FIRST, frames, Of::Permissions, (from, site.now())));
        let deadline = Instant::now() + limit;
        while count().packets == 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let counted = count();
        let came = counted.packets > 0;
        let after = outcome.figure_of(&figure, Unit::Milliseconds, [(counted, false)]);
        let holds = came && u128::from(after) <= limit.as_millis();
        outcome.check(format!("{case}: refreshed within {} s", limit.as_secs()), holds, format!("{came}, after {after} ms"));
        figure
    }

    fn end(&self, outcome: &mut Outcome, session: Session<'_>, programs: &Programs, case: &str) -> io::Result<(Option<Duration>, String)> {
        let flow = Self::run_until_granted(programs)?;
        let (node, command) = if self.what == What::Revocation { ("receiver", "revoke") } else { ("sender", "release") };
        // The program stops first: it would ask again for what it was told to give back.
        let delivered = flow.end()?;
        let trap = self.trap()?;
        session.order(node, json!({ "command": command }))?;
        let at = trap.sprung(self.relay()?)?;
        let begun = Instant::now();
        let limit = self.limit(self.site.refresh.mul_f64(3.5));
        let left = session.await_end(limit)?;
        let healed = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let must = format!("{case}: no node keeps the permission for more than {:.1} s", limit.as_secs_f64());
        outcome.check(must, left.is_empty(), format!("{left:?} after {healed} ms"));
        outcome.check(format!("{case}: the flow ran before"), delivered.own > 0, format!("{delivered}"));
        let figure = format!("milliseconds until no node permits it: {case}");
        outcome.figure(figure.clone(), healed);
        Ok((at, figure))
    }

    /// Router2 lets nobody permit anything to the other port.
    fn notice(&self, outcome: &mut Outcome, case: &str) -> io::Result<(Option<Duration>, String)> {
        let Self { site, .. } = *self;
        let (sender, _receiver) = site.sockets_from(0, OTHER_PORT)?;
        let trap = self.trap()?;
        let begun = site.now();
        sender.send(b"may I?")?;
        let at = trap.sprung(self.relay()?)?;
        let from = at.unwrap_or(begun);
        let limit = self.limit(site.refresh);
        let told = flow::await_rule(site, "sender", &["FS-13"], from, limit)?;
        let healed = told.as_ref().map(|told| ((told.at - from.as_secs_f64()) * 1e3).max(0.0) as u64);
        let found = told.map_or("nothing".to_owned(), |told| told.message);
        outcome.check(format!("{case}: the sender is told within {} s", limit.as_secs()), healed.is_some(), found);
        let told_after = format!("milliseconds until the sender is told: {case}");
        healed.into_iter().for_each(|healed| outcome.figure(told_after.clone(), healed));
        let figure = format!("packets of what is refused behind router2: {case}");
        let counted = site.last.look(|frames| Shown::count(&figure, BEHIND, frames, Of::Other, (begun, site.now())));
        let passed = outcome.figure_of(&figure, Unit::Packets, [(counted, false)]);
        outcome.check(format!("{case}: nothing of it passes"), passed == 0, format!("{passed} packets"));
        Ok((at, told_after))
    }

    fn relay(&self) -> io::Result<&Relay> {
        let [first, middle, last] = self.site.relays()?;
        Ok([first, middle, last].get(self.link).copied().unwrap_or(last))
    }

    /// From now on the first such message is lost on the link.
    fn trap(&self) -> io::Result<Trap> {
        let (wanted, how) = (self.what.message(), self.how);
        let trap = Trap::new(self.site.now(), how);
        trap.set(self.relay()?, wanted);
        Ok(trap)
    }
}
