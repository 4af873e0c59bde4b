//! A host with a good certificate of its own says whatever it likes over associations of its own: about the sessions and flows of others, in
//! messages of every type, and what is no message at all. Their permissions, routing states and associations stay as they were.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use daemon::clock::unix_seconds;
use gist::io::tls;
use gist::wire::{
    Body, Confirm, Cookie, Data, ErrorBody, ErrorCause, GistError, HEADER_LENGTH, Hello, Message, NslpId, Response, datagram,
};
use pbs_lab::network::namespace::Namespace;
use pbs_lab::network::topology::ROUTER_LEFT;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::{ServerName, UnixTime};

use crate::garbage::{Living, connect_privileged};
use crate::support::daemon::{Daemon, wait_until};
use crate::support::files::Files;
use crate::support::site::ASSOCIATION_PORT;

/// The host's own address, which its certificate names.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 20, 9));

/// Under which of these the router counts what it does not act upon.
const REFUSED: [&str; 12] = [
    "malformed",
    "hop_count_zero",
    "wrong_encapsulation",
    "unknown_nslp_id",
    "stray",
    "stale_responder_cookies",
    "bad_responder_cookies",
    "bad_query_cookies",
    "wrong_association",
    "no_routing_state",
    "flows_refused",
    "takeovers_refused",
];

#[test]
fn an_authenticated_host_changes_nothing_of_others_whatever_it_says() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let living = Living::build();
    living.site.files.issue(&living.site.authority, "stranger", &[STRANGER]);
    let before = living.tables();
    let refused = |router: &Daemon| REFUSED.iter().map(|counter| router.gist(counter)).sum::<u64>();
    let (counted, failed) = (refused(&living.router), living.router.gist("handshakes_failed"));
    let received = living.router.gist("association_messages_received");
    let mut messages = 0;
    for (is_message, octets) in &inputs(&living.query) {
        say(&living, octets);
        messages += u64::from(*is_message);
    }
    let heard = living.router.gist("association_messages_received") - received;
    assert!(heard >= messages + ErrorCause::ALL.len() as u64, "{heard} messages have been heard");
    assert_eq!(living.router.gist("handshakes_failed"), failed, "its certificate is good");
    wait_until("each is counted as refused", || refused(&living.router) >= counted + messages);
    wait_until("its associations are gone", || living.tables() == before);
    living.must_be_as_before(&before);
}

/// What it says, each over an association of its own: whether it is to be counted as refused, and the octets.
fn inputs(query: &[u8]) -> Vec<(bool, Vec<u8>)> {
    let asked = datagram::decode(Bytes::copy_from_slice(query)).unwrap();
    let Body::Query(theirs) = &asked.body else { panic!("{asked:?}") };
    let (session, nslp_id) = (theirs.session, asked.nslp_id);
    let [downstream, upstream] = [theirs.mri.clone(), theirs.mri.inverted()];
    let random = |length: usize| {
        let mut random = vec![0; length];
        SystemRandom::new().fill(&mut random).unwrap();
        random
    };
    let write = |nslp_id, body| {
        let message = Message { hop_count: 10, nslp_id, source_is_signalling: true, body, unknown: Vec::new() };
        message.to_bytes().unwrap().to_vec()
    };
    let cookie = || Cookie::new(random(16)).unwrap();
    let data = |mri: &gist::wire::Mri| {
        let payload = random(256).into();
        write(nslp_id, Body::Data(Data { nat: None, mri: mri.clone(), session, nli: None, payload, explicit: false, context_free: false }))
    };
    let confirm = Confirm {
        mri: downstream.clone(),
        session,
        nli: theirs.nli.clone(),
        responder_cookie: Some(cookie()),
        proposal: None,
        configuration: None,
        payload: None,
    };
    let response = Response {
        nat: None,
        mri: upstream.clone(),
        session,
        nli: theirs.nli.clone(),
        query_cookie: cookie(),
        confirm_requested: false,
        responder: None,
        payload: None,
    };
    let errors = ErrorCause::ALL.into_iter().flat_map(|cause| {
        let error = GistError { session: Some(session), mri: Some(downstream.clone()), ..GistError::new(cause, [0; HEADER_LENGTH]) };
        write(NslpId::NONE, Body::Error(ErrorBody { nat: None, nli: None, error }))
    });
    let hellos = (0..500).flat_map(|id| write(NslpId::NONE, Body::Hello(Hello { request: id % 2 == 1, id })));
    let mut promised = query[4..16].to_vec();
    promised[2..4].fill(0xff);
    vec![
        // Data downstream and upstream in another's session.
        (true, data(&downstream)),
        (true, data(&upstream)),
        // A Confirm with a cookie of its own making.
        (true, write(nslp_id, Body::Confirm(confirm))),
        // A Response that nobody has asked for.
        (true, write(nslp_id, Body::Response(response))),
        // Another's Query, which belongs into a datagram.
        (true, query[4..].to_vec()),
        // Every error about another's session.
        (false, errors.collect()),
        // Hellos without end.
        (false, hellos.collect()),
        // What is no message, and a header that promises more than any message has.
        (false, random(4096)),
        (false, promised),
    ]
}

/// Says so over a new association, and waits a moment for what the router does about it.
fn say(living: &Living, octets: &[u8]) {
    let mut over = associate(&living.site.files, &living.site.chain.sender, ROUTER_LEFT);
    over.sock.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    // The router may close it before everything is written.
    let _ = over.write_all(octets);
    let _ = over.flush();
    let mut answer = [0; 4096];
    while over.read(&mut answer).is_ok_and(|length| length > 0) {}
}

/// Opens an association under the stranger's certificate, from the namespace to a node's address.
pub(crate) fn associate(files: &Files, from: &Namespace, to: IpAddr) -> StreamOwned<ClientConnection, TcpStream> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds()));
    let certificate = tls::read_certificates(&files.path("stranger.crt"), now).unwrap();
    let anchors = tls::read_anchors(&files.path("ca.crt"), now).unwrap();
    let tls = tls::configs(certificate, tls::read_key(&files.path("stranger.key")).unwrap(), anchors).unwrap();
    let mut stream: TcpStream = from.run(|| connect_privileged(SocketAddr::new(to, ASSOCIATION_PORT))).unwrap();
    let mut connection = ClientConnection::new(tls.client, ServerName::IpAddress(to.into())).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).unwrap();
    }
    StreamOwned::new(connection, stream)
}
