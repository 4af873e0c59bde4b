//! A TCP connection whose data somebody drops: it stalls, and sends no more than a packet now and then.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::Scenario;
use super::flow;
use super::outcome::Outcome;
use super::site::{PORT, Site, is_of_flow};
use super::spare;
use crate::demo::trial::source_port;
use crate::dice::Dice;
use crate::network::relay::{Fate, Way, packet};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "data-drop-tcp",
    what: "figure 6, and a connection: its data dropped between the routers, signalling not. It stalls, and what it sends again is far less \
           than what is tolerated of any flow; the receiver asks for another path nevertheless, and the file arrives whole over it",
    terms: spare::TERMS,
    run: drop_data,
};

/// Octets that the program writes at once, and how often: 400 KB a second.
const CHUNK: usize = 1200;
const PAUSE: Duration = Duration::from_millis(3);
/// How long a program waits for anything.
const PATIENCE: Duration = Duration::from_secs(40);
/// Periods until the reaction at the most: what is left of the one in which it begins, two in which nothing arrives, one more in which a
/// stalled connection may send nothing at all, and the time that what is missing may still arrive, twice.
const PERIODS: f64 = 4.6;

/// A file that is written until it is enough.
struct Connection {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    sending: JoinHandle<io::Result<u64>>,
    receiving: JoinHandle<io::Result<(u64, bool)>>,
}

impl Connection {
    fn open(site: &Site) -> io::Result<Self> {
        let listener = site.hosts.receiver.run(|| TcpListener::bind((site.family.receiver(), PORT)))?;
        let (from, to) = (SocketAddr::from((site.family.sender(), source_port(PORT))), SocketAddr::from((site.family.receiver(), PORT)));
        let connect = || -> io::Result<TcpStream> {
            let socket = Socket::new(Domain::for_address(from), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&from.into())?;
            socket.connect_timeout(&to.into(), Duration::from_secs(10))?;
            Ok(socket.into())
        };
        let sender = site.hosts.sender.run(connect)?;
        let (receiver, _) = listener.accept()?;
        for stream in [&sender, &receiver] {
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
        }
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, counted, seed) = (stop.clone(), received.clone(), site.plan.payload);
        let sending = std::thread::spawn(move || send(sender, Dice::new(seed), &ended));
        let receiving = std::thread::spawn(move || receive(receiver, Dice::new(seed), &counted));
        Ok(Self { stop, received, sending, receiving })
    }

    /// Octets that have arrived so far.
    fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Waits until more than `before` have arrived.
    fn await_more(&self, before: u64, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        while self.received() <= before && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        self.received() > before
    }

    /// Ends the file. Gives what was sent, what was received, and whether that is the same.
    fn end(self) -> io::Result<(u64, u64, bool)> {
        self.stop.store(true, Ordering::Relaxed);
        let panicked = |_| io::Error::other("a thread of the connection panicked");
        let sent = self.sending.join().map_err(panicked)??;
        let (received, is_intact) = self.receiving.join().map_err(panicked)??;
        Ok((sent, received, is_intact))
    }
}

fn send(mut stream: TcpStream, mut file: Dice, ended: &AtomicBool) -> io::Result<u64> {
    stream.set_nodelay(true)?;
    let mut sent = 0;
    while !ended.load(Ordering::Relaxed) {
        stream.write_all(&file.octets(CHUNK))?;
        sent += CHUNK as u64;
        std::thread::sleep(PAUSE);
    }
    stream.shutdown(Shutdown::Write)?;
    // The receiver closes when it has everything.
    stream.read_to_end(&mut Vec::new())?;
    Ok(sent)
}

fn receive(mut stream: TcpStream, mut file: Dice, counted: &AtomicU64) -> io::Result<(u64, bool)> {
    let (mut received, mut is_intact) = (0, true);
    let mut chunk = [0; CHUNK];
    loop {
        match stream.read_exact(&mut chunk) {
            Ok(()) => is_intact &= chunk[..] == file.octets(CHUNK),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok((received, is_intact)),
            Err(error) => return Err(error),
        }
        received += CHUNK as u64;
        counted.store(received, Ordering::Relaxed);
    }
}

fn drop_data(site: &Site, outcome: &mut Outcome, progress: &dyn Fn(&str)) -> io::Result<()> {
    outcome.attacker = "on the link, without any key; he drops one connection's data".to_owned();
    progress("connecting, sending a file until the volumes have been compared");
    let connection = Connection::open(site)?;
    let agreed = flow::await_rule(site, "receiver", &["FR-32"], Duration::ZERO, site.refresh * 2)?;
    outcome.check("the volumes agree before", agreed.is_some(), agreed.map_or("no comparison".into(), |told| told.message));
    std::thread::sleep(Duration::from_millis(200) + site.plan.before_attack());
    let (spi, from) = (site.flow("sender")?.and_then(|flow| flow.get("spi").cloned()), site.now());
    progress("dropping the connection's data, not signalling (at most 23 s)");
    site.relay.set(|way, frame| match packet(frame).and_then(is_of_flow) {
        Some(_) if way == Way::There => Fate::Drop,
        _ => Fate::Pass,
    });
    let told = outcome.must_detect(site, &["FR-36"], from, PERIODS)?;
    outcome.must_follow(site, "receiver", "FR-42", from, Duration::from_secs(1))?;
    let changed = outcome.must_follow(site, "sender", "FS-25", from, Duration::from_secs(1))?;
    let changed = changed.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    let reaction = told.map_or(site.now(), |told| Duration::from_secs_f64(told.at));
    outcome.octets_lost(site, "octets of the connection lost until the reaction", from, reaction);
    let stalled = connection.received();

    progress("over the second uplink, as soon as TCP tries again (at most 30 s)");
    let goes_on = connection.await_more(stalled, Duration::from_secs(30));
    let after = (site.now().saturating_sub(changed)).as_secs_f64();
    outcome.check("the connection goes on", goes_on, format!("{after:.1} s after the change"));
    spare::must_go_on(site, outcome, changed)?;
    let now = site.flow("sender")?.and_then(|flow| flow.get("spi").cloned());
    outcome.check("under the same SPI", spi.is_some() && spi == now, format!("{spi:?}, {now:?}"));
    let (sent, received, is_intact) = connection.end()?;
    outcome.check("the file arrives whole", is_intact && sent == received, format!("{received} of {sent} octets"));
    let story = site.story()?;
    let injected: Vec<_> = ["FR-21", "FR-31", "FR-40"]
        .iter()
        .flat_map(|rule| ["sender", "receiver"].map(|node| story.of(node, rule, Duration::ZERO)).into_iter().flatten())
        .collect();
    outcome.check("nobody is taken for a holder of the key", injected.is_empty(), format!("{injected:?}"));
    Ok(())
}
