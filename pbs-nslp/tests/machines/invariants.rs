//! What must hold after every step (`fsm-specs/requirements/fsm.md` §5).

use std::collections::BTreeSet;

use pbs_nslp::flow::FlowId;
use pbs_nslp::status::SessionStatus;

use crate::world::{SENDER, Transit, World};

impl World {
    /// INV-02, 03, 07, 08, 11, 12, 17 and P-144 in the present state.
    pub(crate) fn check(&self) {
        for (place, datapath) in self.datapaths.iter().enumerate() {
            for ((_, spi), entry) in &datapath.table {
                // A receiver may lower AV below what was counted; then nothing more passes.
                let lowered = entry.counted > entry.grant.allowed;
                assert!(!lowered || self.lowered, "INV-02/INV-07: {spi:#x} at {place}: {entry:?}");
                assert!(*spi >= 256);
            }
        }
        for (place, sessions) in self.all_sessions().into_iter().enumerate() {
            self.check_sessions(place, &sessions);
        }
        if self.stable {
            for (flow, spi) in self.datapaths[SENDER].table.keys() {
                let everywhere =
                    self.datapaths.iter().skip(1).all(|datapath| datapath.table.contains_key(&(*flow, *spi)) || self.removing(*flow));
                assert!(everywhere, "INV-11: the sender has {spi:#x} and another node has not\n{}", self.trace.join("\n"));
            }
        }
    }

    fn check_sessions(&self, place: usize, sessions: &[SessionStatus]) {
        let mut permitted: BTreeSet<FlowId> = BTreeSet::new();
        for session in sessions {
            if session.permission.is_some() && session.state != "Idle" {
                assert!(permitted.insert(session.flow) || place == self.end(), "INV-17 at {place}: {sessions:#?}");
            }
            if matches!(session.state.as_str(), "Permitted" | "Compare Sv") {
                let ends = session.permission.as_ref().and_then(|permission| permission.expires_at);
                // A receiver's new epoch may wait for the end of the one before; the time limit runs already.
                let begins = place == self.end() && session.permission.is_none();
                assert!(ends.is_some() || begins, "INV-08: no TTL at {place}");
            }
        }
        let clock = if place == SENDER {
            self.sender.poll_timeout()
        } else if place == self.end() {
            self.receiver.poll_timeout()
        } else {
            self.routers[place - 1].poll_timeout()
        };
        assert!(sessions.is_empty() || clock.is_some(), "INV-08: a state without a clock at {place}");
        if (1..self.end()).contains(&place) && !self.leftovers {
            for (flow, spi) in self.datapaths[place].table.keys() {
                let of_session = |session: &SessionStatus| session.flow == *flow && session.state == "Permitted";
                assert!(sessions.iter().any(of_session), "INV-03: {spi:#x} at {place} without consent");
            }
        }
    }

    fn all_sessions(&self) -> Vec<Vec<SessionStatus>> {
        let mut all = vec![self.sender.sessions()];
        all.extend(self.routers.iter().map(pbs_nslp::router::Router::sessions));
        all.push(self.receiver.sessions());
        all
    }

    /// A denial on its way: nodes nearer to the receiver have removed what the sender still has.
    fn removing(&self, flow: FlowId) -> bool {
        let denied = |transit: &Transit| transit.permission().is_some_and(|p| p.flow == flow && p.is_removal());
        self.recorded.iter().any(denied) || self.recorded.iter().any(|t| t.query().is_some_and(|q| q.is_release()))
    }

    /// INV-11 and P-144: a node has installed what the Permission grants, or removed what it takes, before it leaves.
    pub(crate) fn check_departure(&self, transit: &Transit) {
        let Some(permission) = transit.permission() else {
            return;
        };
        let table = &self.datapaths[transit.from].table;
        if permission.is_removal() {
            let stays = |session: &SessionStatus| session.flow == permission.flow && session.session != transit.received.session;
            let superseded = self.receiver.sessions().iter().any(stays);
            let left = table.keys().any(|(flow, _)| *flow == permission.flow);
            assert!(!left || superseded, "P-144: a denial left {} before the removal", transit.from);
        } else {
            let spi = permission.sa.unwrap().spi;
            let has = table.contains_key(&(permission.flow, spi));
            assert!(has || !self.stable, "INV-11: a Permission left {} before the install", transit.from);
        }
    }
}
