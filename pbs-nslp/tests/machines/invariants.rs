//! What must hold after every step (`fsm-specs/requirements/fsm.md` §5).
//!
//! INV-07's other half, that no number is used twice under an SPI, is checked by the packet side of the tests at each packet.

use core::time::Duration;
use std::collections::BTreeSet;

use pbs_nslp::flow::FlowId;
use pbs_nslp::status::SessionStatus;

use crate::datapath::Datapath;
use crate::world::{Place, SENDER, Transit, World};

/// Time limits are told in whole milliseconds.
const MILLISECOND: Duration = Duration::from_millis(1);

impl World {
    /// INV-02, 03, 07, 08, 11, 12 and 17 in the present state.
    pub(crate) fn check(&self) {
        for (place, datapath) in self.datapaths.iter().enumerate() {
            for ((flow, spi), entry) in &datapath.table {
                assert!(entry.counted <= entry.ceiling, "INV-02, INV-07: {spi:#x} at {place}: {entry:?}");
                assert!(*spi >= 256);
                // The entry ends with the time limit or with the soft state, whichever is earlier.
                let outlived = entry.grant.expires_at + MILLISECOND < self.now && !datapath.lags() && !self.leftovers;
                assert!(!outlived, "INV-08: {flow} at {place} ends at {} and it is {}\n{}", entry.grant.expires_at, self.now, self.story());
            }
        }
        for (place, sessions) in self.all_sessions().into_iter().enumerate() {
            self.check_sessions(place, &sessions);
        }
        for (flow, spi) in self.datapaths[SENDER].table.keys().filter(|(flow, _)| self.is_whole(flow)) {
            let mut others = self.datapaths.iter().skip(1);
            let everywhere = others.all(|datapath| datapath.table.contains_key(&(*flow, *spi)));
            let ending = self.is_ending(*flow);
            assert!(everywhere || ending, "INV-11: the sender has {spi:#x} and another node has not\n{}", self.story());
        }
    }

    fn check_sessions(&self, place: Place, sessions: &[SessionStatus]) {
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
        if (1..self.end()).contains(&place) {
            let pending = sessions.iter().filter(|session| session.state == "Wait P").count();
            assert!(pending <= self.pending, "INV-12: {pending} sessions wait at {place}");
            for (flow, spi) in self.datapaths[place].table.keys().filter(|_| !self.leftovers) {
                let of_session = |session: &SessionStatus| session.flow == *flow && session.state == "Permitted";
                assert!(sessions.iter().any(of_session), "INV-03: {spi:#x} at {place} without consent");
            }
        }
    }

    fn all_sessions(&self) -> Vec<Vec<SessionStatus>> {
        (0..=self.end()).map(|place| self.sessions_at(place)).collect()
    }

    fn sessions_at(&self, place: Place) -> Vec<SessionStatus> {
        if place == SENDER {
            self.sender.sessions()
        } else if place == self.end() {
            self.receiver.sessions()
        } else {
            self.routers[place - 1].sessions()
        }
    }

    /// Whether a denial is on its way to the sender: nodes nearer to the receiver have removed what the sender still has. It may
    /// wait for a packet side that lags behind.
    fn is_ending(&self, flow: FlowId) -> bool {
        let denies = |transit: &Transit| transit.permission().is_some_and(|p| p.flow == flow && p.is_removal());
        let lags = |(place, datapath): (Place, &Datapath)| place != SENDER && (datapath.lags() || self.down.contains(&place));
        self.leftovers || self.wires.iter().any(denies) || self.datapaths.iter().enumerate().any(lags)
    }

    /// INV-11 and P-144: a node has installed what the Permission grants, or removed what it takes, before it leaves.
    pub(crate) fn check_departure(&self, transit: &Transit) {
        let Some(permission) = transit.permission() else {
            return;
        };
        let table = &self.datapaths[transit.from].table;
        let sessions = self.sessions_at(transit.from);
        let (own, others): (Vec<_>, Vec<_>) = sessions
            .iter()
            .filter(|session| session.flow == permission.flow)
            .partition(|session| session.session == transit.received.session);
        if permission.is_removal() {
            for ((_, spi), entry) in table.iter().filter(|((flow, _), _)| *flow == permission.flow) {
                // What a newer session has, or has taken over to drain, is not what the denial is about.
                let active = |other: &&SessionStatus| other.permission.as_ref().is_some_and(|active| active.spi == *spi);
                let of_others = others.iter().any(|other| active(other) || entry.draining);
                assert!(of_others, "P-144: a denial left {} before the removal of {spi:#x}", transit.from);
            }
        } else {
            // A router passes on what it has no state for without installing it (FN-03), and the advice while it waits (FN-11).
            let waits = permission.sa.is_none() && own.iter().all(|session| session.state == "Wait P");
            let passed_on = (1..self.end()).contains(&transit.from) && (own.is_empty() || waits);
            // One that asks for another path names no association, and leaves what is there.
            let has = match permission.sa {
                Some(sa) => table.contains_key(&(permission.flow, sa.spi)),
                None => table.keys().any(|(flow, _)| *flow == permission.flow),
            };
            assert!(has || passed_on, "INV-11: a Permission left {} before the install", transit.from);
        }
    }
}
