//! `pbs-lab gist`: a GIST node with a console, by script, on real links with a router between.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

#[path = "gist_world/console.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod console;

use console::Console;
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::{Chain, RECEIVER, RECEIVER6, ROUTER_LEFT, ROUTER_LEFT6, ROUTER_RIGHT, ROUTER_RIGHT6, SENDER, SENDER6};
use serde_json::Value;

const SESSION: &str = "0123456789abcdef0123456789abcdef";

/// What a router's console is told of a Query that it took off the path, and what it sends on, in both IP versions; a router that
/// does not host the application lets the message by with one GIST hop less (G-065, G-066).
#[test]
fn messages_go_from_console_to_console_and_past_a_router_of_another_application() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let network = Chain::build().unwrap();
    let addresses = |list: [std::net::IpAddr; 2]| list.map(|address| format!("--address={address}"));
    let start = |host: &Namespace, own: [std::net::IpAddr; 2], more: &[&str]| Console::start(host, &addresses(own), more);
    let mut sender = start(&network.sender, [SENDER, SENDER6], &["--nslp-id=32720", "--nslp-id=32721"]);
    let mut router = {
        let own = [ROUTER_LEFT, ROUTER_RIGHT, ROUTER_LEFT6, ROUTER_RIGHT6].map(|address| format!("--address={address}"));
        Console::start(&network.router, &own, &["--nslp-id=32720", "--intercept"])
    };
    let mut receiver = start(&network.receiver, [RECEIVER, RECEIVER6], &["--nslp-id=32720", "--nslp-id=32721"]);
    for (source, destination) in [(SENDER, RECEIVER), (SENDER6, RECEIVER6)] {
        let message = |text: &str| format!("send {source} {destination} {text} session={SESSION} protocol=17");
        sender.say("use 32720");
        sender.say(&message("one."));
        let taken = router.event("received");
        assert_eq!((&taken["payload"], &taken["transport"]), (&hex::encode("one.").into(), &"udp".into()), "{taken}");
        router.say(&message("two."));
        let arrived = receiver.event("received");
        assert_eq!((&arrived["payload"], &arrived["nslp_id"]), (&hex::encode("two.").into(), &32720.into()), "{arrived}");
        // Past the router, straight to the receiver.
        sender.say("use 32721");
        sender.say(&message("past"));
        let past = receiver.event("received");
        assert_eq!((&past["payload"], &past["nslp_id"]), (&hex::encode("past").into(), &32721.into()), "{past}");
        assert_eq!(past["peer"], hex::encode(SENDER.to_string()), "{past}");
        // And back, by what the handshake has found.
        receiver.say("use 32721");
        receiver.say(&format!("{} direction=upstream", message("back")));
        assert_eq!(sender.event("received")["payload"], hex::encode("back"));
        receiver.say("use 32720");
    }
    router.say("show routing");
    let shown = router.event("shown");
    let sides: Vec<&Value> = shown["content"].as_array().unwrap().iter().map(|entry| &entry["side"]).collect();
    assert_eq!(sides.iter().filter(|side| **side == "querying").count(), 2, "{shown}");
    assert_eq!(sides.len(), 4, "nothing is known of the application that is not here: {shown}");
    // Asked to end as a supervisor asks, a node ends in good order, and its socket with it.
    drop(sender);
    let socket = std::env::temp_dir().join(format!("pbs-lab-gist-{}.sock", std::process::id()));
    let served = start(&network.sender, [SENDER, SENDER6], &["--nslp-id=32720", "--socket", socket.to_str().unwrap()]);
    assert!(socket.exists());
    assert!(served.terminate());
    assert!(!socket.exists());
}
