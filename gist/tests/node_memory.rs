//! What routing states take of memory, so that a million of them can be held: a router's two of each session that it forwards.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
// An allocator that counts is unsafe by its trait.
#![allow(unsafe_code)]

mod node_world;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use gist::api::{Request, SendMessage};
use gist::node::{DatagramRate, Node};
use gist::wire::{Body, ErrorBody, ErrorCause, GistError, Message, MessageType, NslpId, SessionId};
use node_world::*;

/// Sessions held.
const SESSIONS: usize = 2000;

/// Most octets of a router for each session, both states with their places in all tables: what `pbs-lab bench gist` tells of a million of
/// them, and a little for so few.
const MOST: usize = 450;

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
fn a_router_holds_a_session_in_little_memory() {
    let mut world = World::chain_with(|_, config| {
        config.validity = secs(24 * 3600);
        config.inactivity = secs(24 * 3600);
        config.datagram_rate = DatagramRate { per_second: u32::MAX, burst: u32::MAX, most_per_second: u32::MAX };
    });
    let empty = held_by(World::chain().members.remove(1).node);
    for number in 0..SESSIONS {
        // As chance makes them: all octets count.
        let session = SessionId((number as u128).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
        let lifetime = secs(3600);
        let message = SendMessage { session, ..text("four") };
        world.request(0, Request::Send(message));
        world.run(20 * DELAY);
        let life = Request::SetStateLifetime { nslp_id: NSLP, session, mri: down(), lifetime };
        world.request(1, life);
        world.trace.clear();
        world.outputs.clear();
    }
    let states = world.node(1).routing_states();
    assert_eq!(states, 2 * SESSIONS, "each session has both states");
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
    let router = world.members.remove(1).node;
    let of_session = (held_by(router) - empty) / SESSIONS;
    assert!(of_session <= MOST, "{of_session} octets for each session");
    assert!(of_session > 200, "{of_session} octets: they are counted");
}

/// What is given back when the node ends.
fn held_by(node: Node) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    drop(node);
    before - HELD.load(Ordering::Relaxed)
}
