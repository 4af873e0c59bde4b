//! D-mode handshakes over real sockets: Queries and Confirms of many neighbours, on the loopback interface of a namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::Duration;

use bytes::Bytes;
use gist::wire::{Body, datagram};

use super::flows::{Neighbour, Session, confirm, in_datagram, query};
use super::node::Carrier;
use super::router::{ROUTER, Router};
use crate::bench::pairs::{Goal, Sample, Trial};
use crate::bench::processor::{Thread, Watch, pin};
use crate::network::namespace::Namespace;
use crate::network::sys::many::{Incoming, MANY, Outgoing, send};

/// Handshakes of one measurement.
const HANDSHAKES: usize = 40_000;
/// Handshakes under way at a time: two datagrams of each fit into a socket's buffer of the usual size.
const UNDER_WAY: usize = 96;
const GIST_PORT: u16 = 270;
const LOAD_PORT: u16 = 40_000;
/// A load that hears nothing for so long gives up.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) fn trial() -> Trial {
    Trial {
        name: "gist router on sockets: D-mode handshakes answered".to_owned(),
        unit: "handshakes per second of processor time",
        goal: Goal::AtLeast(20_000.0),
        bound_is: "a bare loop of recvmmsg and sendmmsg that answers datagrams of the Query's length with one of the Response's and takes \
                   one of the Confirm's",
        ours: Box::new(ours),
        bound: Box::new(bound),
    }
}

fn ours() -> io::Result<Sample> {
    let host = Namespace::create("gist")?;
    let router = Router::start(&host, Carrier::Datagram, HANDSHAKES, None, None)?;
    let sample = measure(&host, router.thread, asking, |answer| {
        let message = datagram::decode(Bytes::copy_from_slice(answer)).map_err(io::Error::other)?;
        let Body::Response(response) = message.body else { return Err(io::Error::other("no Response")) };
        let neighbour = Neighbour::at(response.mri.source());
        let confirm = in_datagram(&confirm(&neighbour, &response, false));
        // The bound's are as long.
        if answer.len().abs_diff(LENGTHS[1]) > SLACK || confirm.len().abs_diff(LENGTHS[2]) > SLACK {
            return Err(io::Error::other(format!("Response and Confirm have {} and {} bytes", answer.len(), confirm.len())));
        }
        Ok((response.mri.source(), confirm))
    })?;
    let held = router.snapshot()?.routing.len();
    if held == HANDSHAKES { Ok(sample) } else { Err(io::Error::other(format!("{held} routing states after {HANDSHAKES} handshakes"))) }
}

/// Lengths of Query, Response and Confirm as they travel here; an address in an identity is a word longer or shorter.
const LENGTHS: [usize; 3] = [116, 152, 128];
const SLACK: usize = 8;

fn bound() -> io::Result<Sample> {
    let host = Namespace::create("gist")?;
    let (say, hear) = std::sync::mpsc::channel();
    let bare = host.spawn(move || -> io::Result<()> {
        pin(0)?;
        let socket = UdpSocket::bind((ROUTER, GIST_PORT))?;
        socket.set_read_timeout(Some(SILENCE))?;
        let _ = say.send(Thread::current());
        let mut incoming = Incoming::new();
        let (mut confirmed, mut answers) = (0, Vec::with_capacity(MANY));
        while confirmed < HANDSHAKES {
            incoming.receive(&socket)?;
            answers.clear();
            for (source, payload) in incoming.datagrams() {
                if payload.len() == LENGTHS[0] {
                    let mut answer = [0; LENGTHS[1]];
                    answer.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
                    answers.push(Outgoing { source: ROUTER, destination: source, payload: Bytes::copy_from_slice(&answer) });
                } else {
                    confirmed += 1;
                }
            }
            send(&socket, &answers)?;
        }
        // Until its time has been read.
        let _ = socket.recv(&mut [0]);
        Ok(())
    })?;
    let thread = hear.recv().map_err(io::Error::other)?;
    let blank = |number: usize| {
        let real = asking(number)?;
        let mut payload = [0; LENGTHS[0]];
        payload.iter_mut().zip((number as u64).to_be_bytes()).for_each(|(to, from)| *to = from);
        Ok(Outgoing { payload: Bytes::copy_from_slice(&payload), ..real })
    };
    let sample = measure(&host, thread, blank, |answer| {
        let number = answer.first_chunk().copied().map_or(0, u64::from_be_bytes);
        let source = Neighbour::asking(127, usize::try_from(number).unwrap_or(0)).address;
        Ok((source, Bytes::from_static(&[0; LENGTHS[2]])))
    });
    let last = host.run(|| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.send_to(&[0; 4], (ROUTER, GIST_PORT)));
    let ended = bare.join().map_err(|_| io::Error::other("the bound panicked"))??;
    ended?;
    last?;
    sample
}

/// Plays [`HANDSHAKES`] handshakes against the thread; `confirm` says what follows a Response, and from whom.
fn measure(
    host: &Namespace,
    thread: Thread,
    query: impl Fn(usize) -> io::Result<Outgoing> + Send,
    confirm: impl Fn(&[u8]) -> io::Result<(IpAddr, Bytes)> + Send,
) -> io::Result<Sample> {
    host.run(move || {
        pin(1)?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, LOAD_PORT))?;
        socket.set_read_timeout(Some(SILENCE))?;
        // Before the time begins, so that the load is as light as it can be.
        let queries: Vec<Outgoing> = (0..HANDSHAKES).map(query).collect::<io::Result<_>>()?;
        let (load, borne) = (Watch::start(Thread::current())?, Watch::start(thread)?);
        let mut incoming = Incoming::new();
        let (mut asked, mut confirmed, mut out) = (0, 0, Vec::with_capacity(MANY));
        while confirmed < HANDSHAKES {
            let next = queries.get(asked..(asked + MANY).min(confirmed + UNDER_WAY).min(HANDSHAKES)).unwrap_or_default();
            send(&socket, next)?;
            asked += next.len();
            incoming.receive(&socket).map_err(|error| io::Error::new(error.kind(), format!("after {confirmed} handshakes: {error}")))?;
            out.clear();
            for (_, answer) in incoming.datagrams() {
                let (source, payload) = confirm(answer)?;
                out.push(Outgoing { source: version_4(source)?, destination: AT, payload });
            }
            send(&socket, &out)?;
            confirmed += out.len();
        }
        // What the router has still to do with the last Confirms.
        std::thread::sleep(Duration::from_millis(20));
        let (busy, passed) = (borne.busy()?, borne.passed());
        Ok(Sample::of(HANDSHAKES as f64 / busy)
            .with("handshakes per second on the wall", HANDSHAKES as f64 / passed)
            .with("microseconds of the load's processor time for each", load.busy()? * 1e6 / HANDSHAKES as f64)
            .with("part of the time that its processor was had", busy / passed))
    })
}

/// Where the router listens.
const AT: SocketAddrV4 = SocketAddrV4::new(ROUTER, GIST_PORT);

fn asking(number: usize) -> io::Result<Outgoing> {
    let neighbour = Neighbour::asking(127, number);
    let session = Session::new(number, neighbour.address, ROUTER.into());
    let payload = in_datagram(&query(&neighbour, session, Carrier::Datagram));
    Ok(Outgoing { source: version_4(neighbour.address)?, destination: AT, payload })
}

fn version_4(address: IpAddr) -> io::Result<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}
