//! Connections whose permissions end, or whose hosts forget them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pbs_lab::network::topology::Family;
use pbs_lab::process::Daemon;
use serde_json::{Value, json};

use crate::site::{LARGE, REFRESH, Site};

/// Time that the end of a permission may take.
const PROMPTLY: Duration = Duration::from_secs(1);

/// The application is done, and the sending host gives its permission back.
pub(crate) fn released() {
    let site = Site::start();
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    let flow = flow(&site);
    drop(talk);
    std::thread::sleep(PROMPTLY / 2);
    order(&site.sender, "release", flow);
    std::thread::sleep(PROMPTLY);
    assert_nothing_is_permitted(&site);
}

/// The receiving host takes its permission back under a running connection: both directions stop.
pub(crate) fn revoked() {
    let site = Site::start();
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    order(&site.receiver, "revoke", flow(&site));
    std::thread::sleep(PROMPTLY);
    let before = site.seen_in_the_end(&site.right, LARGE.port);
    std::thread::sleep(PROMPTLY * 2);
    assert_eq!(before, site.seen_in_the_end(&site.right, LARGE.port));
    assert_nothing_is_permitted(&site);
}

/// The five values of the flow that the sender began.
pub(crate) fn flow(site: &Site) -> Value {
    let flows = site.flows(&site.sender);
    let own = flows.iter().find(|flow| flow["flow"]["destination_port"] == LARGE.port).unwrap();
    own["flow"].clone()
}

fn order(daemon: &Option<Daemon>, command: &str, mut flow: Value) {
    flow["command"] = json!(command);
    daemon.as_ref().unwrap().ask(&flow).unwrap();
}

#[track_caller]
fn assert_nothing_is_permitted(site: &Site) {
    for daemon in [&site.sender, &site.router, &site.receiver] {
        let live: Vec<Value> = site.flows(daemon).into_iter().filter(|flow| !flow["spi"].is_null()).collect();
        assert_eq!(live, [] as [Value; 0]);
    }
}

pub(crate) fn sender_restarts() {
    let mut site = Site::start();
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    // Numbers are seconds: what restarts within the one of its last Query has to wait for the next.
    std::thread::sleep(PROMPTLY * 2);
    site.start_sender();
    talk.must_move(REFRESH);
}

pub(crate) fn receiver_restarts() {
    let mut site = Site::start();
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    std::thread::sleep(PROMPTLY * 2);
    site.start_receiver();
    // The sender's next refresh, and the longest pause that TCP has made meanwhile.
    talk.must_move(REFRESH * 3);
}

/// Two programs that send each other a word at a time.
pub(crate) struct Talk {
    words: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Talk {
    pub(crate) fn start(site: &Site) -> Self {
        let talk = Self { words: Arc::default(), stop: Arc::default() };
        let stop = talk.stop.clone();
        let _server = site.serve(Family::Ipv4, LARGE.port, move |stream| echo(stream, &stop));
        let (mut stream, _) = site.connect(Family::Ipv4, LARGE.port);
        stream.set_nodelay(true).unwrap();
        let (words, stop) = (talk.words.clone(), talk.stop.clone());
        std::thread::spawn(move || {
            let mut word = [7; 100];
            while !stop.load(Ordering::Relaxed) && stream.write_all(&word).is_ok() && stream.read_exact(&mut word).is_ok() {
                words.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        talk
    }

    /// Waits until some words have gone both ways.
    #[track_caller]
    pub(crate) fn must_move(&self, patience: Duration) {
        let (started, before) = (Instant::now(), self.words.load(Ordering::Relaxed));
        while self.words.load(Ordering::Relaxed) < before + 5 {
            assert!(started.elapsed() < patience, "no word within {patience:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("  words again after {:.2} s", started.elapsed().as_secs_f64());
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn echo(mut stream: TcpStream, stop: &AtomicBool) {
    let mut word = [0; 100];
    while !stop.load(Ordering::Relaxed) && stream.read_exact(&mut word).is_ok() && stream.write_all(&word).is_ok() {}
}
