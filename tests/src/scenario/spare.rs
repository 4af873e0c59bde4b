//! A second uplink of the sender: where a flow goes that nobody answers, or whose packets are dropped (figures 5 and 6 of the draft).

use std::io;
use std::time::Duration;

use traffic::netlink::{Protocol, Socket, attributes};

use super::Scenario;
use super::flow::{self, Programs};
use super::losing::{self, AH};
use super::outcome::Outcome;
use super::site::{OTHER_PORT, PORT, SHORTEST, Site, Terms, is_to};
use crate::network::capture::Capture;
use crate::network::frame;
use crate::network::graph::Place;
use crate::network::namespace::Namespace;
use crate::network::relay::{Fate, packet};
use crate::network::topology::{Family, SENDER, SENDER6};

pub(super) const TERMS: Terms = Terms { place: Place::BesideSpare, refresh: SHORTEST, volume: 64_000_000, reactions: "", rogue: None };

pub(super) const ALL: Scenario = Scenario {
    name: "black-hole-spare",
    what: "figure 5: everything dropped between the routers, and a second uplink: after the second time-out the flow goes on over it; \
           after SIGTERM nothing of the way is left; the daemon's successor finds it again, and after SIGKILL the next one removes it",
    terms: TERMS,
    run: drop_all,
};

pub(super) const DATA: Scenario = Scenario {
    name: "data-drop-spare",
    what: "figure 6: one flow's data dropped between the routers, signalling not, and a second uplink: after two periods the receiver \
           asks for another path, and that flow alone takes it; released, it gives the way back",
    terms: TERMS,
    run: drop_data,
};

/// How long the nodes of a new path may take to learn of a flow: two handshakes of GIST with TLS, on a busy machine.
const SET_UP: Duration = Duration::from_secs(3);
/// How long a program cannot send because the kernel keeps its last packets for a next hop that is silent.
const STUCK: Duration = Duration::from_secs(4);
/// The routing tables of ways out, and who has made them (see the sample configuration of `pbs`).
const TABLES: std::ops::RangeInclusive<u32> = 20_547..=20_553;
const PROTOCOL: u8 = 81;

fn drop_all(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link, without any key".to_owned();
    let (_programs, steady, from) = losing::begin(site, outcome, progress)?;
    must_stand(site, outcome, "before, nothing leads to the second uplink", false)?;
    progress("dropping everything (at most 18 s)");
    site.relay.set(|_, _| Fate::Drop);
    let told = flow::await_rule(site, "sender", &["FS-31"], from, site.refresh * 4)?;
    let after = told.as_ref().map(|told| (told.at - from.as_secs_f64()) / site.refresh.as_secs_f64());
    // A period until the next Query at the latest, 4 s until it is repeated, and 8 s.
    let limit = 1.0 + 12.5 / site.refresh.as_secs_f64();
    outcome.check(
        "the sender changes its path after the second time-out",
        after.is_some_and(|after| after <= limit),
        told.as_ref().map_or("no".to_owned(), |told| format!("{} after {:.2} refresh periods", told.message, after.unwrap_or(0.0))),
    );
    let changed = told.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    must_go_on(site, outcome, changed)?;
    outcome.octets_lost(site, "octets of the flow lost until then", from, site.now());
    must_stand(site, outcome, "one rule and one route lead there", true)?;

    progress("SIGTERM, and the daemon again: it asks anew (16 s)");
    site.daemon("sender", |daemon| daemon.terminate())?;
    must_stand(site, outcome, "after SIGTERM nothing leads there", false)?;
    let again = site.now();
    site.restart("sender")?;
    let told = outcome.must_follow(site, "sender", "FS-09", again, Duration::from_secs(20))?;
    must_go_on(site, outcome, told.map_or(again, |told| Duration::from_secs_f64(told.at)))?;

    progress("SIGKILL, and the daemon again");
    site.daemon("sender", |daemon| daemon.kill())?;
    must_stand(site, outcome, "after SIGKILL rule and route are left", true)?;
    site.restart("sender")?;
    must_stand(site, outcome, "its successor has removed them", false)?;
    let delivered = steady.end()?;
    outcome.check("the flow goes on", delivered.own > 0, format!("{delivered}"));
    Ok(())
}

fn drop_data(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link, without any key; he drops one flow's data".to_owned();
    let other = Programs::start_on(site, OTHER_PORT)?;
    let (_programs, steady, from) = losing::begin(site, outcome, progress)?;
    let other = other.steady(Duration::from_millis(20))?;
    let spi = site.flow("sender")?.and_then(|flow| flow.get("spi").cloned());
    progress("dropping the flow's data, not signalling (at most 13 s)");
    site.relay.set(|_, frame| match packet(frame).and_then(frame::read) {
        Some(seen) if (seen.authentication.is_some() || seen.protocol == AH) && seen.ports.1 != OTHER_PORT => Fate::Drop,
        _ => Fate::Pass,
    });
    // Two periods, and the time that what is missing may still arrive, twice.
    outcome.must_detect(site, &["FR-36"], from, 2.6)?;
    outcome.must_follow(site, "receiver", "FR-42", from, Duration::from_secs(1))?;
    let told = outcome.must_follow(site, "sender", "FS-25", from, Duration::from_secs(1))?;
    let changed = told.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    outcome.octets_lost(site, "octets of the flow lost until the reaction", from, changed);
    let first = must_go_on(site, outcome, changed)?;
    let now = site.flow("sender")?.and_then(|flow| flow.get("spi").cloned());
    outcome.check("under the same SPI", spi.is_some() && spi == now, format!("{spi:?}, {now:?}"));
    must_stand(site, outcome, "one rule and one route lead there", true)?;

    progress("both flows, until the volumes agree again (at most 15 s)");
    let agreed = flow::await_rule(site, "receiver", &["FR-32"], changed + site.refresh, site.refresh * 3)?;
    outcome.check("the volumes agree again", agreed.is_some(), agreed.map_or("no comparison".into(), |told| told.message));
    let [stayed, left] = [&site.first, site.spare()?].map(|capture| packets(capture, OTHER_PORT, changed));
    outcome.check(
        "the other flow between the same hosts stays on the first link",
        stayed > 0 && left == 0,
        format!("{stayed} packets on the first link, {left} on the second"),
    );
    let [behind, moved] = [&site.first, site.spare()?].map(|capture| packets(capture, PORT, first));
    outcome.check(
        "the flow has left the first link",
        behind == 0 && moved > 0,
        format!("{behind} packets on the first link, {moved} on the second"),
    );
    let queries = queries(site.spare()?, changed);
    outcome.check("its Queries go there too", queries > 0, format!("{queries} of GIST on the second link"));

    progress("releasing the flow");
    let (delivered, others) = (steady.end()?, other.end()?);
    outcome.check("the other flow lost nothing", others.goodput() > 99.0, format!("{others}"));
    outcome.check("the flow goes on", delivered.own > 0, format!("{delivered}"));
    let released = site.now();
    site.release()?;
    outcome.must_follow(site, "sender", "FS-50", released, Duration::from_secs(2))?;
    must_stand(site, outcome, "released, nothing leads there any more", false)
}

/// The flow's packets are on the second link, and at both ends there is a permission for them. Gives when the first one was there.
pub(super) fn must_go_on(site: &Site, outcome: &mut Outcome, from: Duration) -> io::Result<Duration> {
    must_go_on_over(site, outcome, (site.spare()?, "the second uplink"), from)
}

/// The same on a link, and what it is called.
pub(super) fn must_go_on_over(site: &Site, outcome: &mut Outcome, (link, name): (&Capture, &str), from: Duration) -> io::Result<Duration> {
    let told = outcome.must_follow(site, "sender", "FS-05", from, SET_UP)?;
    std::thread::sleep(Duration::from_millis(500));
    let mut first = None;
    site.await_story(STUCK, |_| {
        first = link.look(|frames| {
            let mut of_flow = frames.iter().filter(|frame| frame.at >= from && super::site::of_flow(frame).is_some());
            of_flow.next().map(|frame| frame.at)
        });
        first
    })?;
    outcome.check(
        format!("the flow's packets leave by {name}"),
        first.is_some(),
        first.map_or("none".to_owned(), |first| format!("the first {:.0} ms after the change", (first - from).as_secs_f64() * 1000.0)),
    );
    if let Some(told) = told {
        outcome.figures.entry("milliseconds from the change to the grant on the new path".to_owned()).or_insert(millis(told.at, from));
    }
    losing::must_be_permitted(site, outcome)?;
    Ok(first.unwrap_or(from))
}

fn millis(at: f64, from: Duration) -> u64 {
    ((at - from.as_secs_f64()) * 1000.0).max(0.0).round() as u64
}

/// Packets of a flow to `port` that a link carried towards the receiver since `from`.
pub(super) fn packets(capture: &Capture, port: u16, from: Duration) -> usize {
    let is_of_flow = |ip: &[u8]| frame::read(ip).is_some_and(|seen| is_to(&seen, port));
    capture.look(|frames| frames.iter().filter(|frame| frame.at >= from && frame.ip().is_some_and(is_of_flow)).count())
}

/// Queries of GIST from the sender that a link carried since `from`.
pub(super) fn queries(capture: &Capture, from: Duration) -> usize {
    let is_query = |ip: &[u8]| frame::read(ip).is_some_and(|seen| [SENDER, SENDER6].contains(&seen.source) && is_to(&seen, 270));
    capture.look(|frames| frames.iter().filter(|frame| frame.at >= from && frame.ip().is_some_and(is_query)).count())
}

/// Whether rules and routes of ways out stand in the sender's kernel.
pub(super) fn must_stand(site: &Site, outcome: &mut Outcome, must: &str, wanted: bool) -> io::Result<()> {
    let standing = standing(&site.hosts.sender, site.family)?;
    let expected = if wanted { (1, 1) } else { (0, 0) };
    outcome.check(must, standing == expected, format!("{} rules, {} routes", standing.0, standing.1));
    Ok(())
}

/// How many rules and routes of ways out the kernel of a host lists.
pub(super) fn standing(host: &Namespace, family: Family) -> io::Result<(usize, usize)> {
    const GET_ROUTE: u16 = 26;
    const GET_RULE: u16 = 34;
    let count = |what: u16, kind: u16, is_own: fn(&[u8]) -> bool| -> io::Result<usize> {
        let socket = Socket::open(Protocol::Route).map_err(io::Error::other)?;
        let mut fixed = [0; 12];
        fixed[0] = if family == Family::Ipv4 { 2 } else { 10 };
        let listed = socket.dump(
            "list rules or routes",
            what,
            &fixed,
            |_| {},
            |message| {
                let value = attributes(message.after(12)?).find(kind)?.map(|value| value.value.to_vec());
                Ok(value.is_some_and(|value| is_own(&value)).then_some(()))
            },
        );
        Ok(listed.map_err(io::Error::other)?.len())
    };
    host.run(|| {
        let rules = count(GET_RULE, 21, |value| value == [PROTOCOL])?;
        let routes =
            count(GET_ROUTE, 15, |value| <[u8; 4]>::try_from(value).is_ok_and(|octets| TABLES.contains(&u32::from_ne_bytes(octets))))?;
        Ok((rules, routes))
    })
}
