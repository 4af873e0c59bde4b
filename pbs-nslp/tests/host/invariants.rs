//! What must hold after every step.

use std::collections::BTreeSet;

use pbs_nslp::flow::FlowId;
use pbs_nslp::host::Host;
use pbs_nslp::status::SessionStatus;

use crate::world::{ASKING, World};

impl World {
    /// What must hold after every step.
    pub(crate) fn check(&self) {
        let [asking, granting] = &self.hosts;
        if !self.both_want {
            self.check_reverse_follows(asking, granting);
        }
        for (place, host) in [(ASKING, asking), (self.end(), granting)] {
            let sessions = host.sender().sessions();
            for session in &sessions {
                assert_eq!(self.place_of(session.flow.source), place);
                // Nothing is left without a clock.
                assert!(host.poll_timeout().is_some(), "INV-08");
            }
            let flows: BTreeSet<FlowId> = sessions.iter().map(|session| session.flow).collect();
            assert_eq!(flows.len(), sessions.len(), "two sessions of one flow at its sender\n{}", self.story());
        }
        for ((place, part), packets) in &self.packets {
            for ((flow, _), entry) in &packets.table {
                assert!(entry.counted <= entry.grant.allowed, "INV-02 at {place} {part:?}: {flow}");
            }
        }
    }

    /// The asking host grants the reverse only under a live permission of its own; the granting host asks for the reverse
    /// only under a live permission that it gave.
    fn check_reverse_follows(&self, asking: &Host, granting: &Host) {
        let granted = |session: &SessionStatus| session.permission.is_some();
        for session in asking.receiver().sessions().iter().filter(|session| granted(session)) {
            let forward = session.flow.reversed();
            let lives = asking
                .sender()
                .sessions()
                .iter()
                .any(|own| own.flow == forward && granted(own) && ["Wait P", "Permitted"].contains(&own.state.as_str()));
            assert!(lives, "the reverse outlives its cause at the asking host\n{}", self.story());
        }
        for session in granting.sender().sessions().iter().filter(|own| ["Wait P", "Permitted"].contains(&own.state.as_str())) {
            let forward = session.flow.reversed();
            let lives = granting.receiver().sessions().iter().any(|given| given.flow == forward && granted(given));
            assert!(lives, "the reverse outlives its cause at the granting host\n{}", self.story());
        }
    }
}
