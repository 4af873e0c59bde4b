//! Two routers side by side between sender and receiver.

use std::cell::Cell;
use std::rc::Rc;

use gist::node::{ApdEntry, IdentityPattern, NodeConfig, PeerRole, Role};

use super::{Fate, Parcel, World, authorised_peers};

/// The second router.
pub const BYPASS: usize = 3;

/// For taps: whether the flow goes over the second router.
pub type Switch = Rc<Cell<bool>>;

impl World {
    /// The chain and a second router, [`BYPASS`], beside the first: 10.0.1.253 / 10.0.2.253. The flow goes over the first.
    pub fn fork() -> Self {
        Self::fork_with(|_, _| {})
    }

    pub fn fork_with(change: impl Fn(usize, &mut NodeConfig)) -> Self {
        let with_bypass = |number: usize, config: &mut NodeConfig| {
            config.authorised_peers = both_routers();
            change(number, config);
        };
        let mut world = Self::chain_with(with_bypass);
        let facing = [("10.0.1.0/24", "10.0.1.253"), ("0.0.0.0/0", "10.0.2.253")];
        world.add("bypass", Role::Router, &["10.0.1.253", "10.0.2.253"], &facing, &with_bypass);
        world.members[BYPASS].relays = true;
        world
    }

    /// From now on the sender's Queries go over the second router while the switch is on.
    pub fn reroute(&mut self) -> Switch {
        let switch = Switch::default();
        let bypass = Rc::clone(&switch);
        self.tap(move |_, parcel| detour(parcel, bypass.get()));
        switch
    }
}

/// Both routers may be the peer of any flow, everybody else of their own.
pub fn both_routers() -> Vec<ApdEntry> {
    let pattern = IdentityPattern::DnsName("bypass.pbs.test".to_owned());
    let bypass = ApdEntry { pattern, role: PeerRole::Router, allow: true };
    [vec![bypass], authorised_peers()].concat()
}

/// Where the sender's Queries go.
pub fn detour(parcel: &Parcel, bypass: bool) -> Fate {
    match parcel {
        Parcel::Datagram { from: 0, to: 1, datagram } if bypass && datagram.query_mode => {
            Fate::Change(Parcel::Datagram { from: 0, to: BYPASS, datagram: datagram.clone() })
        }
        _ => Fate::Pass,
    }
}
