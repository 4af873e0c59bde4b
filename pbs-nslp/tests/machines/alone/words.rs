//! What a node does, in words.

use gist::api::{PathId, SendMessage};
use pbs_nslp::datapath::Command;
use pbs_nslp::output::Output;
use pbs_nslp::report::ReportEvent;
use pbs_nslp::wire::{self, Defense, Message, Permission, Query};

use crate::world::NSLP_ID;

/// `None` for what says nothing that another line does not say.
pub(super) fn of(output: &Output) -> Option<String> {
    Some(match output {
        Output::Send(message) => sent(message),
        Output::SetStateLifetime { lifetime, .. } => format!("way {} s", lifetime.as_secs()),
        Output::AdoptPeer { .. } => "adopts the peer".to_owned(),
        Output::DoubtPeer { .. } => "doubts the way".to_owned(),
        Output::SetPeering { willing, .. } => format!("peering {willing}"),
        Output::Datapath(command) => format!("packets: {}", commanded(command)),
        Output::Ask(_) => "asks somebody".to_owned(),
        Output::Report(report) => return reported(&report.event),
    })
}

fn sent(message: &SendMessage) -> String {
    let way = if message.path == PathId::ROUTED { String::new() } else { format!(" by way {}", message.path.0) };
    let what = match wire::decode(message.payload.clone(), message.session, NSLP_ID).unwrap() {
        Message::Query(query) => asked(&query.message),
        Message::Permission(permission) => granted(&permission.message),
        Message::Notify(notify) => format!("notice {:?}", notify.message.code),
    };
    format!("{what}{way}")
}

fn asked(query: &Query) -> String {
    let sent = query.sent.map(|sent| format!(", {} sent", sent.0)).unwrap_or_default();
    match query.requested {
        Some(volume) if volume.is_zero() => format!("RELEASE{sent}"),
        Some(volume) => format!("QUERY for {}{sent}", volume.0),
        None => format!("QUERY{sent}"),
    }
}

fn granted(permission: &Permission) -> String {
    if permission.is_removal() {
        let echo = if permission.echo == Some(0) { ", unasked" } else { "" };
        return format!("DENIAL{echo}");
    }
    let kind = if permission.defense == Some(Defense::ChangePath) { "OTHER PATH" } else { "PERMISSION" };
    let signed = if matches!(permission.defense, Some(Defense::PublicKey { .. })) { " signed" } else { "" };
    let new = if permission.sa.is_some_and(|sa| sa.new_epoch) { " new" } else { "" };
    let unasked = if permission.echo == Some(0) { ", unasked" } else { "" };
    format!("{kind} of {}{signed}{new} for {} s{unasked}", permission.allowed.0, permission.ttl.as_secs())
}

fn commanded(command: &Command) -> String {
    match command {
        Command::Install { grant, .. } => format!("install {}", grant.allowed),
        Command::Update { allowed, .. } => format!("update {allowed}"),
        Command::Remove { .. } => "remove".to_owned(),
        Command::Drain { .. } => "drain".to_owned(),
        Command::Compare { .. } => "compare".to_owned(),
        Command::Snapshot { .. } => "read".to_owned(),
        Command::Expect { .. } => "expect".to_owned(),
        Command::ReleaseHeld { .. } => "release held".to_owned(),
        Command::Route { path, waits, .. } => format!("route {}{}", path.0, if *waits { ", waiting" } else { "" }),
        Command::DropHeld { .. } => "drop held".to_owned(),
    }
}

fn reported(event: &ReportEvent) -> Option<String> {
    Some(match event {
        // The message that leaves says it.
        ReportEvent::Notifying { .. } => return None,
        ReportEvent::Refused(refusal) => format!("“refused: {:?}”", refusal.code),
        ReportEvent::Expired { clock } => format!("“expired: {clock}”"),
        ReportEvent::Notified { code, .. } => format!("“notified: {code:?}”"),
        ReportEvent::Denied { hold, why } => format!("“denied: {}, {} s”", name(why), hold.as_secs()),
        ReportEvent::Compared { finding, .. } => format!("“compared: {}”", name(finding)),
        ReportEvent::Evidence(attack) => format!("“evidence: {}”", name(attack)),
        ReportEvent::Attacked { reaction } => format!("“attacked: {}”", name(reaction)),
        other => format!("“{}”", name(other).to_lowercase()),
    })
}

/// A variant without what it carries.
fn name(value: &impl std::fmt::Debug) -> String {
    let shown = format!("{value:?}");
    shown.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
