//! Ends that vanish: nobody refreshes their permissions, and every node forgets them by itself.

use std::io;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;
use traffic::rules::Role;

use super::held_back;
use super::line::Line;
use super::site::{self, REFRESH, Site};
use super::trial::Trial;
use crate::network::topology::Family::Ipv4;
use crate::process::Program;

/// The flow both of whose ends vanish: nobody can tell the router that it is over.
const BOTH_GONE: u16 = 9030;
/// The flow whose sender vanishes: the receiver has to notice.
const SENDER_GONE: u16 = 9031;
/// Packets that are held back: half of them are sent on while the permission lives.
const HELD_BACK: u64 = 40;
/// How long after the end of its lifetime a permission is looked for.
const MARGIN: Duration = Duration::from_millis(500);
/// L: how long a permission lives that nobody refreshes.
const LIFETIME: Duration = Duration::from_millis(REFRESH.as_millis() as u64 * 7 / 2);

/// What is left of two flows when their daemons have died.
#[derive(Debug)]
pub struct Abandoned {
    /// When the last of the daemons died.
    at: Instant,
    /// Packets under a real key that no router has seen.
    packets: Vec<Vec<u8>>,
    /// How many of such packets passed while the permission lived.
    passed_before: u64,
    /// Looks at every holder shortly before the permission's end, and gives why the later look would show nothing.
    shortly_before: JoinHandle<io::Result<Vec<String>>>,
}

/// A node that holds the permission of a flow, which nobody refreshes any more.
struct Holder {
    node: &'static str,
    port: u16,
    /// When the flow was granted: the refreshes that came later, if any, only prolong it.
    granted: Instant,
}

/// Grants two flows, keeps packets of one off the router, and kills the daemons of the ends. New ones take their place, which know
/// nothing of these flows.
pub(super) fn abandon(site: &mut Site) -> io::Result<Vec<Line>> {
    let both_gone = Instant::now();
    held_back::grant(site, Ipv4, BOTH_GONE)?;
    let mut packets = held_back::hold_back(site, Ipv4, BOTH_GONE, HELD_BACK, b"held back")?;
    let late = packets.split_off(packets.len() / 2);
    let passed_before = held_back::send_on(site, Ipv4, BOTH_GONE, &packets)?;
    site.start_sender(Program::Host)?;
    site.start_receiver(Program::Host)?;
    let sender_gone = Instant::now();
    held_back::grant(site, Ipv4, SENDER_GONE)?;
    site.start_sender(Program::Host)?;
    let at = Instant::now();
    let holders = vec![
        Holder { node: "router", port: BOTH_GONE, granted: both_gone },
        Holder { node: "router", port: SENDER_GONE, granted: sender_gone },
        Holder { node: "receiver", port: SENDER_GONE, granted: sender_gone },
    ];
    let directory = site.directory.clone();
    // Other steps go on meanwhile.
    let shortly_before = std::thread::spawn(move || look_shortly_before(&directory, &holders));
    site.abandoned = Some(Abandoned { at, packets: late, passed_before, shortly_before });
    Ok(Vec::new())
}

/// At 3 T every holder must still hold its permission: the end must come for want of a refresh, and neither earlier nor for
/// another reason.
fn look_shortly_before(directory: &Path, holders: &[Holder]) -> io::Result<Vec<String>> {
    let mut against = Vec::new();
    for Holder { node, port, granted } in holders {
        std::thread::sleep((REFRESH * 3).saturating_sub(granted.elapsed()));
        let role = if *node == "router" { Role::Router } else { Role::Host };
        let holds = holds(&directory.join(format!("{node}.sock")), role, *port)?;
        let age = granted.elapsed();
        if age >= LIFETIME {
            against.push(format!("on this busy machine the {node} was asked {:.1} s after the grant only", age.as_secs_f64()));
        } else if !holds {
            against.push(format!("{:.1} s after the grant the {node} no longer held the permission for port {port}", age.as_secs_f64()));
        }
    }
    Ok(against)
}

/// After L = 3.5 T nobody holds the permissions, and genuine packets that come then are stopped.
pub(super) fn expired(site: &mut Site) -> io::Result<Vec<Line>> {
    let abandoned = site.abandoned.take().ok_or_else(|| io::Error::other("no flow was abandoned"))?;
    std::thread::sleep((LIFETIME + MARGIN).saturating_sub(abandoned.at.elapsed()));
    let mut trial = Trial::start(site, "expiry", "ends dead for 3.5 T (SIGKILL): packets that come late", Ipv4, BOTH_GONE)?;
    trial.line.measure(format!("{:.1} s later, L is {:.1} s", abandoned.at.elapsed().as_secs_f64(), LIFETIME.as_secs_f64()));
    let against = abandoned.shortly_before.join().map_err(|_| io::Error::other("the thread that looks before the end panicked"))??;
    if against.is_empty() {
        trial.line.measure("held by all at 3 T");
    }
    for against in against {
        trial.line.must(false, format!("{against}: that it is gone later shows nothing"));
    }
    for (name, node, port) in
        [("router", &site.router, BOTH_GONE), ("router", &site.router, SENDER_GONE), ("receiver", &site.receiver, SENDER_GONE)]
    {
        trial.line.must(site.flow(node, port)?.is_none(), format!("{name} still holds the permission for port {port}"));
    }
    trial.line.sent = site.attacker.send(&abandoned.packets)?;
    let mut line = trial.finish()?;
    let (before, half) = (abandoned.passed_before, HELD_BACK / 2);
    line.measure(format!("{before} of {half} such packets passed before"));
    line.must(before == half, "late packets of a living permission did not pass: that none passes now shows nothing");
    line.must(line.sent == half, format!("{} packets were kept instead of {half}", line.sent));
    line.must(line.arrived == 0, "packets passed the router after the end of their permission");
    let dropped = line.dropped_at("router", "expired") + line.dropped_at("router", "unknown_spi");
    line.must(dropped == line.sent, format!("the router dropped {dropped} of {} as expired or unknown", line.sent));
    Ok(vec![line])
}

/// Whether the node behind a control socket holds a permission for the port.
fn holds(control: &Path, role: Role, port: u16) -> io::Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let flows = runtime.block_on(daemon::control::ask(control, role, &json!({ "command": "flows" }))).map_err(io::Error::other)?;
    Ok(site::entry(&flows, port).is_some())
}
