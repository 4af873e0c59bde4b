//! How the filter rules see associations of real daemons.

use std::io;
use std::time::Duration;

use pbs_lab::network::topology::RECEIVER;
use traffic::rules::Role;

use crate::support::daemon::wait_until;
use crate::support::site::Site;

/// until the peer has shown its certificate a connection spends what everybody can spend, and from then on its own bucket.
#[test]
fn an_accepted_association_has_a_bucket_of_its_own_once_its_peer_is_authenticated() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let daemons = (site.start_receiver(), site.start_router(), site.start_sender());
    let application = site.application(RECEIVER);
    wait_until("the permission comes", || {
        application.send();
        application.arrives(Duration::from_millis(200))
    });
    // The receiver opens no association of itself: it is the last on the path.
    let within = |chain: &str| -> u64 {
        let counters = site.chain.receiver.run(|| traffic::rules::counters(Role::Host).map_err(io::Error::other)).unwrap();
        let of_chain = counters.iter().filter(|counter| counter.chain == chain && counter.rule == "within the bucket");
        of_chain.map(|counter| counter.packets).sum()
    };
    assert_eq!(within("in-opening-written-to"), 1, "one router has called, whose Query has been answered");
    // What comes at once behind the peer's certificate may be there before the daemon has read that.
    wait_until("segments are counted for the association", || {
        application.send();
        within("in-association") >= 3
    });
    let handshake = within("in-handshake");
    assert!((2..20).contains(&handshake), "{handshake} segments before the peer was authenticated");
    drop(daemons);
}
