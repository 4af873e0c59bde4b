//! Data messages through the router over real sockets: in over one association, to its application, and out over another.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use gist::io::tls::Tls;
use gist::wire::stream::Framer;
use gist::wire::{Body, Hello, Message, datagram};

use super::core_data::PAYLOAD;
use super::flows::{Neighbour, Session, confirm, data, hello, in_datagram, query, response};
use super::node::{Carrier, PLAIN_PORT, PORT};
use super::router::{ROUTER, Router};
use super::secured::{Secured, certified};
use crate::bench::pairs::{Goal, Sample, Trial};
use crate::bench::processor::{Thread, Watch, pin};
use crate::network::namespace::Namespace;

/// Messages of one measurement.
const MESSAGES: usize = 100_000;
const UPSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const DOWNSTREAM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);
const GIST_PORT: u16 = 270;
/// Octets written, or read, at once by whoever makes and takes the load, and by the bound.
const AT_ONCE: usize = 64 << 10;
/// Nobody waits longer for anything.
const SILENCE: Duration = Duration::from_secs(30);

pub(super) fn trials() -> Vec<Trial> {
    let trial = |carrier, name: &str, least, bound_is| Trial {
        name: format!("gist router on sockets: Data messages through over {name}"),
        unit: "messages per second of processor time",
        goal: Goal::AtLeast(least),
        bound_is,
        ours: Box::new(move || ours(carrier)),
        bound: Box::new(move || bound(carrier)),
    };
    vec![
        trial(Carrier::Tcp, "TCP", 60_000.0, "a bare loop that reads, counts one hop less in each message, and writes, over TCP"),
        trial(Carrier::Tls, "TLS", 40_000.0, "a bare loop that reads, counts one hop less in each message, and writes, over TLS 1.3"),
    ]
}

/// The way of the flow before the router, and of the one behind it.
fn sessions() -> [Session; 2] {
    [Session::new(1, UPSTREAM.into(), ROUTER.into()), Session::new(2, ROUTER.into(), DOWNSTREAM.into())]
}

fn ours(carrier: Carrier) -> io::Result<Sample> {
    let host = Namespace::create("gist")?;
    let [above, below] = sessions();
    let [router, upstream, downstream] = identities(carrier)?;
    let sink = Sink::start(&host, carrier, downstream, true)?;
    let router = Router::start(&host, carrier, 16, router, Some(below))?;
    router.send(below)?;
    sink.ready()?;
    let mut stream = host.run(|| {
        let answer = ask(&query(&Neighbour::at(UPSTREAM.into()), above, carrier))?;
        let message = Message::decode(answer).map_err(io::Error::other)?;
        let Body::Response(answer) = message.body else { return Err(io::Error::other("no Response")) };
        let mut stream = Secured::connect((ROUTER, port(carrier)).into(), UPSTREAM, upstream.as_ref())?;
        stream.write_all(&confirm(&Neighbour::at(UPSTREAM.into()), &answer, true))?;
        Ok(stream)
    })?;
    measure(&mut stream, router.thread, &sink)
}

fn bound(carrier: Carrier) -> io::Result<Sample> {
    let host = Namespace::create("gist")?;
    let [router, upstream, downstream] = identities(carrier)?;
    let sink = Sink::start(&host, carrier, downstream, false)?;
    let (say, hear) = mpsc::channel();
    let bare = host.spawn(move || -> io::Result<()> {
        pin(0)?;
        let listener = TcpListener::bind((ROUTER, port(carrier)))?;
        let mut onwards = Secured::connect((DOWNSTREAM, port(carrier)).into(), ROUTER, router.as_ref())?;
        let _ = say.send(Thread::current());
        let mut from = Secured::accept(&listener, router.as_ref())?;
        let mut framer = Framer::default();
        let (mut buffer, mut out) = (vec![0; AT_ONCE], Vec::with_capacity(2 * AT_ONCE));
        loop {
            let length = from.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            framer.push(buffer.get(..length).unwrap_or_default());
            while let Some(message) = framer.next_message().map_err(io::Error::other)? {
                let hops = out.len() + 1;
                out.extend_from_slice(&message);
                out.get_mut(hops).into_iter().for_each(|hops: &mut u8| *hops = hops.saturating_sub(1));
            }
            onwards.write_all(&out)?;
            onwards.flush()?;
            out.clear();
        }
    })?;
    let thread = hear.recv().map_err(io::Error::other)?;
    let mut stream = host.run(|| Secured::connect((ROUTER, port(carrier)).into(), UPSTREAM, upstream.as_ref()))?;
    let sample = measure(&mut stream, thread, &sink);
    stream.close();
    // How its streams end is no matter.
    let _ = bare.join();
    sample
}

/// Writes all messages, and waits until they have come out.
fn measure(stream: &mut Secured, router: Thread, sink: &Sink) -> io::Result<Sample> {
    pin(1)?;
    let message = data(sessions()[0], vec![0x5a; PAYLOAD].into());
    let each = AT_ONCE / message.len();
    let block = message.repeat(each);
    let (load, taken, borne) = (Watch::start(Thread::current())?, Watch::start(sink.thread)?, Watch::start(router)?);
    let mut left = MESSAGES;
    while left > 0 {
        let now = left.min(each);
        stream.write_all(block.get(..now * message.len()).unwrap_or_default())?;
        left -= now;
    }
    stream.flush()?;
    sink.taken()?;
    let (busy, passed) = (borne.busy()?, borne.passed());
    Ok(Sample::of(MESSAGES as f64 / busy)
        .with("messages per second on the wall", MESSAGES as f64 / passed)
        .with("microseconds of the load's processor time for each", load.busy()? * 1e6 / MESSAGES as f64)
        .with("microseconds of the sink's processor time for each", taken.busy()? * 1e6 / MESSAGES as f64)
        .with("part of the time that its processor was had", busy / passed))
}

/// Who takes what comes out.
struct Sink {
    thread: Thread,
    news: mpsc::Receiver<io::Result<()>>,
    _runs: JoinHandle<io::Result<()>>,
}

impl Sink {
    /// Starts one; with a handshake, if it is a router that connects.
    fn start(host: &Namespace, carrier: Carrier, tls: Option<Tls>, handshake: bool) -> io::Result<Self> {
        let (say, hear) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        let runs = host.spawn(move || {
            let outcome = take(carrier, tls.as_ref(), handshake, &say, &tell);
            // Nobody may be there any more.
            let _ = tell.send(outcome);
        })?;
        let thread = hear.recv().map_err(io::Error::other)?;
        Ok(Self { thread, news, _runs: runs })
    }

    /// Until the router's association stands and its first message has come.
    fn ready(&self) -> io::Result<()> {
        self.news.recv_timeout(SILENCE).map_err(io::Error::other)?
    }

    /// Until all messages have come.
    fn taken(&self) -> io::Result<()> {
        self.news.recv_timeout(SILENCE).map_err(io::Error::other)?
    }
}

fn take(
    carrier: Carrier,
    tls: Option<&Tls>,
    handshake: bool,
    say: &mpsc::Sender<Thread>,
    tell: &mpsc::Sender<io::Result<()>>,
) -> io::Result<()> {
    pin(1)?;
    let listener = TcpListener::bind((DOWNSTREAM, port(carrier)))?;
    let socket = UdpSocket::bind((DOWNSTREAM, GIST_PORT))?;
    socket.set_read_timeout(Some(SILENCE))?;
    let _ = say.send(Thread::current());
    if handshake {
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer)?;
        let asked = datagram::decode(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default())).map_err(io::Error::other)?;
        let Body::Query(asked) = asked.body else { return Err(io::Error::other("no Query")) };
        let answer = response(&Neighbour::at(DOWNSTREAM.into()), &asked, carrier, false);
        socket.send_to(&in_datagram(&answer), SocketAddr::new(asked.nli.address, from.port()))?;
    }
    let mut stream = Secured::accept(&listener, tls)?;
    let mut framer = Framer::default();
    let mut buffer = vec![0; AT_ONCE];
    let mut left = MESSAGES + usize::from(handshake);
    while left > 0 {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Err(io::Error::other(format!("the router has ended with {left} messages left")));
        }
        framer.push(buffer.get(..length).unwrap_or_default());
        while let Some(message) = framer.next_message().map_err(io::Error::other)? {
            // The type of Data; all others are few, and are read.
            if message.get(6) == Some(&DATA) {
                left -= 1;
                if handshake && left == MESSAGES {
                    let _ = tell.send(Ok(()));
                }
            } else if let Ok(Message { body: Body::Hello(Hello { request: true, id }), .. }) = Message::decode(message) {
                stream.write_all(&hello(id))?;
                stream.flush()?;
            }
        }
    }
    tell.send(Ok(())).map_err(io::Error::other)?;
    // As long as anybody may still say something.
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
    Ok(())
}

/// The octet of a common header that says Data, with C=0.
const DATA: u8 = 3;

/// Asks the router by datagram, and gives its answer without the magic number.
fn ask(query: &[u8]) -> io::Result<Bytes> {
    let socket = UdpSocket::bind((UPSTREAM, GIST_PORT))?;
    socket.set_read_timeout(Some(SILENCE))?;
    socket.send_to(&in_datagram(query), (ROUTER, GIST_PORT))?;
    let mut buffer = [0; 2048];
    let (length, _) = socket.recv_from(&mut buffer)?;
    let answer = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
    datagram::message(&answer).ok_or_else(|| io::Error::other("no magic number"))
}

fn port(carrier: Carrier) -> u16 {
    if carrier == Carrier::Tls { PORT } else { PLAIN_PORT }
}

fn identities(carrier: Carrier) -> io::Result<[Option<Tls>; 3]> {
    let addresses = [ROUTER, UPSTREAM, DOWNSTREAM].map(IpAddr::V4);
    if carrier == Carrier::Tls { Ok(certified(addresses)?.map(Some)) } else { Ok([None, None, None]) }
}

/// A connection from one address of this host to another.
pub(super) fn connected(to: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&to.into())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}
