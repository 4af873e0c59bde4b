//! What routing states take of memory, so that a million of them can be held: either end of a session, a router's two of each that passes
//! through it, and those whose peers, each another one, are reached by datagrams.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
// An allocator that counts is unsafe by its trait.
#![allow(unsafe_code)]

mod node_world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use gist::api::{Request, SendMessage, TransferAttributes};
use gist::node::{DatagramRate, Node, NodeConfig, Output, Transmit};
use gist::wire::{
    Body, Confirm, Cookie, ErrorBody, ErrorCause, GistError, Message, MessageType, Nli, NslpId, PeerIdentity, Query, ResponderPart,
    Response, SessionId,
};
use node_world::*;

/// Sessions held.
const SESSIONS: usize = 2000;

/// Most octets for each session, with its places in all tables: of either state, and of both. `pbs-lab bench gist` measures the same of a
/// million of them.
const MOST: usize = 400;

/// The system's allocator, with what it has handed out: each piece with its header, in steps of 16 octets as the common ones have them.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);

fn piece(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory that is handed out.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(piece(layout), Ordering::Relaxed);
        // SAFETY: the caller keeps to what the trait asks of it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(piece(layout), Ordering::Relaxed);
        // SAFETY: the caller keeps to what the trait asks of it.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// G-395: what strangers say of states takes none either.
/// One test, since everything in the process is counted.
#[test]
fn a_session_is_held_in_little_memory() {
    let empty = held_by(World::chain().members.remove(1).node);
    let [asked, passing, answered] = over_associations();
    let (asked_by_datagram, answered_by_datagram) = (asking_by_datagram(), answering_by_datagram());
    let states = [
        ("asked for, over associations", asked, 1),
        ("asked for by another, over associations", answered, 1),
        ("both of a session that passes through", passing, 2),
        ("asked for, by datagram", asked_by_datagram, 1),
        ("asked for by another, by datagram", answered_by_datagram, 1),
    ];
    for (kind, node, of_session) in states {
        assert_eq!(node.routing_states(), of_session * SESSIONS, "{kind}");
        let octets = (held_by(node) - empty) / SESSIONS;
        println!("{kind}: {octets} octets for each session");
        assert!(octets <= MOST, "{kind}: {octets} octets for each session");
        assert!(octets > 150, "{kind}: {octets} octets: they are counted");
    }
}

/// Sender, router and receiver of sessions over associations.
fn over_associations() -> [Node; 3] {
    let mut world = World::chain_with(|_, config| lasting(config));
    for number in 0..SESSIONS {
        let message = SendMessage { session: session_of(number), ..text("four") };
        world.request(0, Request::Send(message));
        world.run(20 * DELAY);
        let life = Request::SetStateLifetime { nslp_id: NSLP, session: session_of(number), mri: down(), lifetime: secs(3600) };
        world.request(1, life);
        world.trace.clear();
        world.outputs.clear();
    }
    // Errors that anybody may have written about the Queries that brought the states change nothing, and nothing is kept of them.
    for (_, _, query) in world.datagrams_of(1, MessageType::Query) {
        let Body::Query(body) = &query.body else { panic!("Query") };
        let header = query.to_bytes().unwrap()[..8].try_into().unwrap();
        let error =
            GistError { session: Some(body.session), mri: Some(body.mri.clone()), ..GistError::new(ErrorCause::HopLimitExceeded, header) };
        let body = Body::Error(ErrorBody { nat: None, nli: None, error });
        let error = Message { hop_count: 1, nslp_id: NslpId::NONE, source_is_signalling: true, body, unknown: Vec::new() };
        world.inject(1, direct("10.9.9.9:270", "10.0.2.254", &error));
    }
    let mut nodes = world.members.into_iter().map(|member| member.node);
    [(); 3].map(|()| nodes.next().unwrap())
}

/// A router whose own Queries another node answers each.
fn asking_by_datagram() -> Node {
    let mut node = without_stack();
    for number in 0..SESSIONS {
        let message = SendMessage { session: session_of(number), attributes: TransferAttributes::default(), ..text("four") };
        node.handle_request(Request::Send(message), at_millis(0));
        let Body::Query(query) = sent_by(&mut node) else { panic!("Query") };
        let responder = Some(ResponderPart { cookie: Cookie::new(vec![7; 32]).unwrap(), stack: None });
        let Query { session, mri, cookie: query_cookie, .. } = query;
        let (nli, mri) = (nli(number), mri.inverted());
        let response = Response { nat: None, mri, session, nli, query_cookie, confirm_requested: true, responder, payload: None };
        node.handle_datagram(direct(&source(number), "10.0.2.254", &of(Body::Response(response))), at_millis(0));
        assert!(matches!(sent_by(&mut node), Body::Confirm(_)));
        assert!(matches!(sent_by(&mut node), Body::Data(_)));
    }
    node
}

/// A router that another node asks each.
fn answering_by_datagram() -> Node {
    let mut node = without_stack();
    for number in 0..SESSIONS {
        // Where answers have gone is kept for a few seconds, which is another bound.
        let now = at_millis(100 * number as u64);
        let (session, mri) = (session_of(number), down());
        let cookie = Cookie::new(vec![7; 16]).unwrap();
        let query = Query { nat: None, mri: mri.clone(), session, nli: nli(number), cookie, stack: None, payload: None };
        node.handle_datagram(passing(&source(number), &of(Body::Query(query))), now);
        let Body::Response(response) = sent_by(&mut node) else { panic!("Response") };
        let responder_cookie = Some(response.responder.unwrap().cookie);
        let confirm = Confirm { mri, session, nli: nli(number), responder_cookie, proposal: None, configuration: None, payload: None };
        node.handle_datagram(direct(&source(number), "10.0.1.254", &of(Body::Confirm(confirm))), now);
    }
    node
}

/// A router whose application offers no association.
fn without_stack() -> Node {
    let change = |_, config: &mut NodeConfig| {
        lasting(config);
        config.registrations[0].offer.clear();
    };
    World::chain_with(change).members.remove(1).node
}

/// Nothing ends, and nothing waits, while it is counted.
fn lasting(config: &mut NodeConfig) {
    config.validity = secs(24 * 3600);
    config.inactivity = secs(24 * 3600);
    config.datagram_rate = DatagramRate { per_second: u32::MAX, burst: u32::MAX, most_per_second: u32::MAX };
}

/// As chance makes them: all octets count.
fn session_of(number: usize) -> SessionId {
    SessionId((number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes())
}

/// A neighbour in a network of its own.
fn nli(number: usize) -> Nli {
    let address = std::net::Ipv4Addr::from(0x0a10_0001 + ((number as u32) << 8)).into();
    let peer = PeerIdentity::new(format!("peer {number:011}").into_bytes()).unwrap();
    Nli { ip_ttl: 0, validity: secs(3600), peer, address }
}

fn source(number: usize) -> String {
    format!("{}:270", nli(number).address)
}

fn of(body: Body) -> Message {
    Message { hop_count: 64, nslp_id: NSLP, source_is_signalling: true, body, unknown: Vec::new() }
}

/// What the node sends next.
fn sent_by(node: &mut Node) -> Body {
    let Some(Output::Transmit(Transmit::Normal { payload, .. } | Transmit::QueryMode { payload, .. })) = node.poll_output() else {
        panic!("nothing is sent")
    };
    gist::wire::datagram::decode(payload).unwrap().body
}

/// What is given back when the node ends.
fn held_by(node: Node) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    drop(node);
    before - HELD.load(Ordering::Relaxed)
}
