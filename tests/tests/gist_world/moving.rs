//! A node with two links towards another one, whose route changes while it asks.
//!
//! ```text
//!        +-- 30 --+
//! asker            answerer (21.4)
//!        +-- 31 --+
//! ```

use std::time::Instant;

use gist::wire::{Message, datagram};
use pbs_lab::network::capture::Capture;
use pbs_lab::network::frame;
use pbs_lab::network::link::{self, End};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::Family::{Ipv4, Ipv6};
use pbs_lab::network::topology::MTU;

use crate::console::Console;
use crate::row::{await_that, both, forward, of};

const GIST_PORT: u16 = 270;

/// G-158: the first Query leaves by one link and finds nobody. Then the route leads over the other one, which nobody tells the node: the
/// Query that is repeated names the address there, and so does what comes after it.
#[test]
fn a_query_that_is_repeated_names_the_address_that_the_flow_leaves_by_now() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let [asker, answerer] = ["asker", "answerer"].map(|name| Namespace::create(name).unwrap());
    forward(&answerer);
    for (network, there, back, more) in [(30, "a0", "b0", &[][..]), (31, "a1", "b1", &both(21, 4)[..])] {
        let right = [&both(network, 2)[..], more].concat();
        let left = End { host: &asker, interface: there, addresses: &both(network, 1) };
        link::join(left, End { host: &answerer, interface: back, addresses: &right }, MTU).unwrap();
    }
    let lead_over = |network| {
        for ((to, prefix), (gateway, _)) in both(21, 0).into_iter().zip(both(network, 2)) {
            link::set_route(&asker, (to, prefix), gateway).unwrap();
        }
    };
    let own = |networks: &[(u8, u8)]| -> Vec<String> {
        networks.iter().flat_map(|(network, host)| both(*network, *host)).map(|(address, _)| format!("--address={address}")).collect()
    };
    let started = Instant::now();
    let [first, second] = ["a0", "a1"].map(|interface| Capture::start(&asker, interface, started).unwrap());
    let mut asking = Console::start(&asker, &own(&[(30, 1), (31, 1)]), &["--nslp-id=32720"]);
    for family in [Ipv4, Ipv6] {
        lead_over(30);
        let before = (said(&first).len(), said(&second).len());
        asking.say(&format!("send {} {} word protocol=17", family.sender(), of(family, both(21, 4))));
        await_that("no Query leaves", || said(&first).len() > before.0);
        lead_over(31);
        let mut answering = Console::start(&answerer, &own(&[(30, 2), (31, 2), (21, 4)]), &["--nslp-id=32720"]);
        let received = answering.event("received");
        assert_eq!(received["payload"], hex::encode("word"), "{received}");
        await_that("Query, Confirm and Data", || said(&second).len() >= before.1 + 3);
        let mut named: Vec<_> = said(&second)[before.1..].iter().filter_map(|message| message.nli().map(|nli| nli.address)).collect();
        // Those of the other round are refreshed meanwhile.
        named.retain(|address| address.is_ipv6() == family.sender().is_ipv6());
        assert!(named.iter().all(|address| *address == of(family, both(31, 1))), "{family:?}: {named:?}");
    }
    assert_eq!((first.lost(), second.lost()), (0, 0));
}

/// What the asker has said on a link, in datagrams.
fn said(capture: &Capture) -> Vec<Message> {
    let to_gist = |ip: &[u8]| {
        let seen = frame::read(ip).filter(|seen| seen.ports.1 == GIST_PORT && seen.protocol == 17)?;
        let message = datagram::decode(seen.payload.to_vec().into()).ok()?;
        let is_its_own = message.nli().is_some_and(|nli| [both(30, 1), both(31, 1)].iter().flatten().any(|(own, _)| *own == nli.address));
        is_its_own.then_some(message)
    };
    capture.look(|frames| frames.iter().filter_map(|frame| to_gist(frame.ip()?)).collect())
}
