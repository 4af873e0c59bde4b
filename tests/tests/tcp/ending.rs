//! Connections whose permissions end, or whose hosts forget them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pbs_lab::network::topology::Family;
use serde_json::{Value, json};

use crate::site::{LARGE, REFRESH, Site};

/// Time that the end of a permission may take.
const PROMPTLY: Duration = Duration::from_secs(1);

pub(crate) fn released() {
    ended("release", true);
}

pub(crate) fn revoked() {
    ended("revoke", false);
}

/// The permission to send is ended at one host; both directions stop, at every node.
fn ended(command: &str, by_sender: bool) {
    let site = Site::start();
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    let flow = site.flows(&site.sender).into_iter().find(|flow| flow["flow"]["destination_port"] == LARGE.port).unwrap();
    let mut request = flow["flow"].clone();
    request["command"] = json!(command);
    let daemon = if by_sender { &site.sender } else { &site.receiver };
    daemon.as_ref().unwrap().ask(&request).unwrap();
    std::thread::sleep(PROMPTLY);
    let before = site.seen(&site.right, LARGE.port);
    std::thread::sleep(PROMPTLY * 2);
    // A sender that gave back may ask again for what its application goes on sending; a revoked one is refused.
    let live = |daemon| -> Vec<Value> { site.flows(daemon).into_iter().filter(|flow| !flow["spi"].is_null()).collect() };
    let after = site.seen(&site.right, LARGE.port);
    if by_sender {
        let sessions = [&site.sender, &site.receiver].map(|daemon| live(daemon).len());
        assert!(sessions.iter().all(|sessions| *sessions <= 2), "{sessions:?}");
    } else {
        assert_eq!(before.there.packets + before.back.packets, after.there.packets + after.back.packets);
        for daemon in [&site.sender, &site.router, &site.receiver] {
            assert_eq!(live(daemon), [] as [Value; 0]);
        }
    }
}

pub(crate) fn sender_restarts() {
    let mut site = Site::start();
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    site.start_sender();
    talk.must_move(REFRESH);
}

pub(crate) fn receiver_restarts() {
    let mut site = Site::start();
    let talk = Talk::start(&site);
    talk.must_move(PROMPTLY);
    site.start_receiver();
    // The sender's next refresh, and the longest pause that TCP has made meanwhile.
    talk.must_move(REFRESH * 3);
}

/// Two programs that send each other a word at a time.
struct Talk {
    words: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Talk {
    fn start(site: &Site) -> Self {
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
    fn must_move(&self, patience: Duration) {
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
