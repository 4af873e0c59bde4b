//! Half of something, and never the rest.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{STRANGERS_ROUTER, World, counters, grown, must_count};
use crate::authenticated::associate;
use crate::garbage::connect_privileged;
use crate::support::daemon::wait_until;
use crate::support::site::ASSOCIATION_PORT;

/// Connections of one source that may have their handshakes under way.
const HANDSHAKES: usize = 8;

/// Silent connections besides.
const SILENT: usize = 20;

/// After this everything that stalls is closed: ten seconds for who has confirmed nothing, five for a handshake, two for closing.
const CLOSED: Duration = Duration::from_secs(25);

/// G-082, G-207, G-231; X-58.
#[test]
fn half_messages_and_half_handshakes_that_stall_are_let_go_and_counted_and_a_flow_beside_goes_on() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let world = World::build();
    let router = &world.living.router;
    let before = counters(router);
    let query = &world.living.query[4..];
    // Nothing at all, half a header, a header alone, half of what it promises, all but the last octet; one of them an octet at a time.
    let lengths = [0, 3, 8, query.len() / 2, query.len() - 1];
    let mut associations: Vec<_> = lengths
        .into_iter()
        .map(|length| {
            let mut association = associate(&world.living.site.files, &world.stranger, STRANGERS_ROUTER);
            association.write_all(&query[..length]).unwrap();
            association.flush().unwrap();
            association
        })
        .collect();
    let begun = Instant::now();
    // A TLS record that promises more than comes, a part of its header, and nothing; the source gets no more than its places.
    let remote = SocketAddr::new(STRANGERS_ROUTER, ASSOCIATION_PORT);
    let hello = [&[0x16, 3, 1, 0x02, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x5a; 32]].concat();
    let mut connections: Vec<TcpStream> = Vec::new();
    for number in 0..SILENT {
        let Ok(mut stream) = world.stranger.run(|| connect_privileged(remote)) else { continue };
        let _ = stream.write_all(&hello[..[0, 2, hello.len()][number % 3]]);
        connections.push(stream);
    }
    let opened = u64::try_from(connections.len()).unwrap();
    let mut grants = Vec::new();
    wait_until("all of them are let go", || {
        grants.push(world.grant());
        world.running.must_lose_nothing("half messages and half handshakes");
        std::thread::sleep(Duration::from_millis(300));
        // Octet by octet it takes as long.
        let _ = associations[1].write_all(&query[3..4]).and_then(|()| associations[1].flush());
        let now = grown(router, &before);
        let of = |name: &str| now.get(name).copied().unwrap_or_default();
        of("unconfirmed_ended") >= 5 && of("handshakes_failed") + of("handshakes_refused") >= opened
    });
    println!("{opened} silent connections and 5 associations: let go in {:.1?}, grants beside {grants:.1?}", begun.elapsed());
    must_count(router, &before, &["unconfirmed_ended"], 5, "associations without a purpose");
    must_count(router, &before, &["messages_unfinished"], 4, "half messages");
    let now = grown(router, &before);
    println!("counted {now:?}");
    assert!(now["handshakes_failed"] >= 1 && now["handshakes_failed"] <= opened, "{now:?}");
    assert!(now["handshakes_refused"] >= opened - now["handshakes_failed"] && opened > HANDSHAKES as u64, "{now:?}");
    // As the sockets of whoever stalls see it.
    for stream in connections.iter_mut().chain(associations.iter_mut().map(|association| &mut association.sock)) {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut rest = [0; 4096];
        while matches!(stream.read(&mut rest), Ok(length) if length > 0) {}
        assert!(matches!(stream.read(&mut rest), Ok(0) | Err(_)));
    }
    assert!(begun.elapsed() < CLOSED, "{:?}", begun.elapsed());
    world.must_stand("half messages and half handshakes");
}
