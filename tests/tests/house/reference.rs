//! The reference explains what people meet.

use daemon::status;
use gist::time::Instant;
use gist::wire::SessionId;
use pbs_nslp::flow::FlowId;
use pbs_nslp::status::SessionStatus;
use traffic::paths::PackDrop;
use traffic::reason::DropReason;
use traffic::relay::RelayDrop;

use crate::source::root;

fn reference() -> String {
    std::fs::read_to_string(root().join("router-agent/README.md")).unwrap()
}

#[test]
fn every_reason_for_a_drop_is_explained_with_what_to_do() {
    let text = reference();
    let relayed = RelayDrop::ALL.iter().map(|reason| reason.word()).chain(PackDrop::ALL.iter().map(|reason| reason.word()));
    for reason in DropReason::ALL.iter().map(|reason| reason.word()).chain(relayed) {
        let row = text.lines().find(|line| line.starts_with(&format!("| `{reason}` |")));
        let cells = row.unwrap_or_else(|| panic!("{reason} is not explained")).split('|').filter(|cell| !cell.trim().is_empty()).count();
        assert_eq!(cells, 3, "{reason}: its meaning and what to do");
    }
}

#[test]
fn every_field_of_flows_is_explained() {
    let flow = FlowId::new([192, 0, 2, 1].into(), [198, 51, 100, 1].into(), 17, 1, 2).unwrap();
    let session = SessionStatus {
        flow,
        session: SessionId([7; 16]),
        state: "Idle".to_owned(),
        permission: None,
        why: None,
        asks_again_at: None,
        path: gist::api::PathId::ROUTED,
        answered: None,
    };
    let shown = status::session(&session, "out", Instant::ZERO);
    let text = reference();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split('|').nth(1)).collect();
    for field in shown.as_object().unwrap().keys() {
        assert!(rows.iter().any(|row| row.contains(&format!("`{field}`"))), "{field} is not explained");
    }
}
