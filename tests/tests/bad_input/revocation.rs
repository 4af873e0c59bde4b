//! Revocation lists that change while daemons run.

use std::net::UdpSocket;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::clock::unix_seconds;
use nix::sys::signal::{Signal, kill};
use pbs_lab::network::topology::{RECEIVER, SENDER, SENDER6};
use pbs_lab::pki::KeyKind;
use rcgen::CertificateParams;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, wait_until};
use crate::support::site::Site;

const SENDERS_SERIAL: u64 = 7;
const HOUR: Duration = Duration::from_secs(3600);

/// P-073, X-66, FN-73: who is put on a list loses his association and what he has been granted at once and gets nothing more, without a restart of anybody, and has all back
/// when he is taken off. A list that cannot be used leaves that of before in force until its end; from then on nobody is believed.
#[test]
fn a_list_that_changes_or_ends_counts_at_once_and_one_that_cannot_be_used_does_not() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let serial = |parameters: &mut CertificateParams| parameters.serial_number = Some(SENDERS_SERIAL.into());
    site.authority.issue_with(&site.files.path(""), "sender", &[SENDER, SENDER6], KeyKind::Ed25519, serial).unwrap();
    let list = |serials: &[u64], lasts| {
        let list = site.authority.revocation_list(serials, now() + lasts).unwrap();
        site.files.write("ca.crl", list);
    };
    list(&[], HOUR);
    let configuration = site.files.read("router.toml");
    site.files.write("router.toml", configuration.replace("trust_anchors", "revocation_lists = [\"ca.crl\"]\ntrust_anchors"));
    let (_receiver, router, _sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    let receiver = site.chain.receiver.run(|| UdpSocket::bind((RECEIVER, 9000))).unwrap();
    let passes = |patience| a_new_flow_passes(&site, &receiver, patience);
    assert!(passes(Duration::from_secs(10)));

    list(&[SENDERS_SERIAL], HOUR);
    read_again(&router);
    let ended = ["association ended", "not believed any more", "Revoked"];
    router.wait_for_log(&ended);
    // What stood, and would have stood for 3.5 T more.
    router.wait_for_log(&["WARN", "ended at once", "192.168.20.1 is believed no more: certificate revoked"]);
    assert_eq!(router.ask("status")["nslp"]["distrusted"], json!({ "certificate revoked": 1 }));
    assert!(router.permissions().is_empty());
    assert!(!passes(Duration::from_secs(2)), "revoked");
    list(&[SENDERS_SERIAL + 1], HOUR);
    read_again(&router);
    assert!(passes(Duration::from_secs(15)), "another one's revocation is nobody else's");

    site.files.write("ca.crl", "half of a list\n");
    kill(router.pid(), Signal::SIGHUP).unwrap();
    wait_until("it says why", || lists(&router)["not_usable_because"].as_str().is_some_and(|why| why.contains("holds no revocation list")));
    assert!(passes(Duration::from_secs(15)), "that of before holds");

    list(&[], Duration::from_secs(2));
    read_again(&router);
    wait_until("it is out of date", || lists(&router)["out_of_date"] == true);
    router.wait_for_log(&["ERROR", "a revocation list is out of date"]);
    router.wait_for_log(&["association ended", "not believed any more", "revocation list expired"]);
    assert!(!passes(Duration::from_secs(2)), "nobody is believed");
}

/// Without being told: the file is looked at every ten seconds. A receiver that finds the sender in it takes back what it has granted, and
/// its denial ends the permission on the path, where nobody has a list (FR-73).
#[test]
fn a_list_that_changes_is_found_without_being_told_and_ends_what_was_granted() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let site = Site::build();
    let write = |serials: &[u64]| site.files.write("ca.crl", site.authority.revocation_list(serials, now() + HOUR).unwrap());
    write(&[]);
    let serial = |parameters: &mut CertificateParams| parameters.serial_number = Some(SENDERS_SERIAL.into());
    site.authority.issue_with(&site.files.path(""), "sender", &[SENDER, SENDER6], KeyKind::Ed25519, serial).unwrap();
    let configuration = site.files.read("receiver.toml");
    site.files.write("receiver.toml", configuration.replace("trust_anchors", "revocation_lists = [\"ca.crl\"]\ntrust_anchors"));
    let (receiver, router, sender) = (site.start_receiver(), site.start_router(), site.start_sender());
    let application = site.application(RECEIVER);
    wait_until("the permission comes", || {
        application.send();
        application.arrives(Duration::from_millis(100))
    });
    assert_eq!(lists(&receiver)["read_again"], 0);
    write(&[SENDERS_SERIAL]);
    wait_until("it is read again", || lists(&receiver)["read_again"] == 1);
    receiver.wait_for_log(&["ended at once", "192.168.20.1 is believed no more: certificate revoked"]);
    let status = receiver.ask("status");
    assert_eq!(status["receiving"]["nslp"]["distrusted"], json!({ "certificate revoked": 1 }), "{status}");
    wait_until("nobody has a permission", || [&receiver, &router, &sender].iter().all(|node| node.permissions().is_empty()));
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_seconds())
}

/// Tells the daemon, and waits until it has read the list.
#[track_caller]
fn read_again(daemon: &Daemon) {
    let before = lists(daemon)["read_again"].as_u64().unwrap();
    kill(daemon.pid(), Signal::SIGHUP).unwrap();
    wait_until("the list is read again", || lists(daemon)["read_again"].as_u64().unwrap() > before);
}

fn lists(daemon: &Daemon) -> Value {
    daemon.ask("status")["revocation_lists"].clone()
}

/// Whether a packet of a flow that has not asked before arrives in time.
fn a_new_flow_passes(site: &Site, receiver: &UdpSocket, patience: Duration) -> bool {
    let sender = site.chain.sender.run(|| UdpSocket::bind((SENDER, 0))).unwrap();
    sender.connect(receiver.local_addr().unwrap()).unwrap();
    let own = sender.local_addr().unwrap();
    receiver.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let end = std::time::Instant::now() + patience;
    while std::time::Instant::now() < end {
        // What the host drops on the way out may come back as an error; that is not an arrival.
        let _ = sender.send(b"application");
        if receiver.recv_from(&mut [0; 64]).is_ok_and(|(_, from)| from == own) {
            return true;
        }
    }
    false
}
