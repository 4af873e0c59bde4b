//! Sender, router and receiver in a row, with real daemons.

use std::net::{IpAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pbs_lab::network::topology::{Chain, RECEIVER, RECEIVER6, ROUTER_LEFT, ROUTER_LEFT6, ROUTER_RIGHT, ROUTER_RIGHT6, SENDER, SENDER6};
use pbs_lab::pki::Authority;
use pbs_lab::process::Program;

use super::daemon::{Daemon, wait_until};
use super::files::{Files, common};

/// TCP port of messaging associations.
pub(crate) const ASSOCIATION_PORT: u16 = 30270;

/// Three hosts with good certificates and configurations. No daemon runs yet.
pub(crate) struct Site {
    pub(crate) chain: Chain,
    pub(crate) files: Files,
    pub(crate) authority: Authority,
}

impl Site {
    pub(crate) fn build() -> Self {
        let files = Files::new();
        let authority = files.authority();
        files.issue(&authority, "sender", &[SENDER, SENDER6]);
        files.issue(&authority, "router", &[ROUTER_LEFT, ROUTER_RIGHT, ROUTER_LEFT6, ROUTER_RIGHT6]);
        files.issue(&authority, "receiver", &[RECEIVER, RECEIVER6]);
        let ask = "[[ask]]\ndestination = \"192.168.21.0/24\"\nprotocol = \"udp\"\nvolume = 100000\n";
        let grant = "[[grant]]\nsource = \"192.168.20.0/24\"\nprotocol = \"udp\"\nvolume = 100000\nrefresh = \"5s\"\n";
        files.write("sender.toml", common("sender") + ask);
        files.write("router.toml", common("router"));
        files.write("receiver.toml", common("receiver") + grant);
        Self { chain: Chain::build().unwrap(), files, authority }
    }

    pub(crate) fn start_sender(&self) -> Daemon {
        Daemon::start(&self.chain.sender, Program::Host, &self.files, "sender")
    }

    pub(crate) fn start_router(&self) -> Daemon {
        Daemon::start(&self.chain.router, Program::Router, &self.files, "router")
    }

    pub(crate) fn start_receiver(&self) -> Daemon {
        Daemon::start(&self.chain.receiver, Program::Host, &self.files, "receiver")
    }

    /// A socket of an application at each end.
    pub(crate) fn application(&self, receiver: IpAddr) -> Application {
        let receiver = self.chain.receiver.run(|| UdpSocket::bind((receiver, 9000))).unwrap();
        let sender = self.chain.sender.run(|| UdpSocket::bind((SENDER, 9001))).unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        Application { sender, receiver }
    }
}

/// Unmodified programs at both ends.
pub(crate) struct Application {
    sender: UdpSocket,
    receiver: UdpSocket,
}

impl Application {
    pub(crate) fn send(&self) {
        self.send_octets(b"application");
    }

    pub(crate) fn send_octets(&self, octets: &[u8]) {
        // What the host drops on the way out may come back as an error; that is not an arrival.
        let _ = self.sender.send(octets);
    }

    /// Whether a datagram comes within `patience`.
    pub(crate) fn arrives(&self, patience: Duration) -> bool {
        self.receiver.set_read_timeout(Some(patience)).unwrap();
        self.receiver.recv(&mut [0; 64]).is_ok()
    }
}

/// A program that goes on sending, and how much of it arrives; until this value goes.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    arrived: Arc<AtomicU64>,
}

impl Application {
    /// Has both programs run by themselves: a datagram every 20 ms.
    pub(crate) fn run(&self) -> Running {
        let (sender, receiver) = (self.sender.try_clone().unwrap(), self.receiver.try_clone().unwrap());
        let running = Running { stop: Arc::default(), sent: Arc::default(), arrived: Arc::default() };
        let (stop, sent) = (running.stop.clone(), running.sent.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // Counted before, so that never more have arrived than were sent.
                sent.fetch_add(1, Ordering::SeqCst);
                let _ = sender.send(b"application");
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        receiver.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (stop, arrived) = (running.stop.clone(), running.arrived.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if receiver.recv(&mut [0; 64]).is_ok() {
                    arrived.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        running
    }
}

impl Running {
    /// How many have arrived so far.
    pub(crate) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }

    /// Everything that was sent up to now arrives.
    #[track_caller]
    pub(crate) fn must_lose_nothing(&self, during: &str) {
        let sent = self.sent.load(Ordering::SeqCst);
        wait_until(&format!("all {sent} packets of the flow beside arrive ({during})"), || self.arrived.load(Ordering::SeqCst) >= sent);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
