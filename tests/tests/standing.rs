//! A network that outlives the command that made it: `up`, packets of anybody's sockets, `down`, and nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use pbs_lab::network::topology::{RECEIVER, SENDER};

const HOSTS: [&str; 3] = ["sender", "router", "receiver"];

#[test]
fn a_network_stays_up_carries_packets_and_goes_without_a_trace() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let network = Network::named("stay");
    let output = network.up(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let usage = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(usage.contains(&format!("ip netns exec {}", network.namespace("sender"))) && usage.contains("pbs-lab down"), "{usage}");
    let processes = network.processes();
    assert_eq!(processes.len(), 3, "the daemons outlive the command");
    let namespaces: Vec<PathBuf> = processes.iter().map(|id| std::fs::read_link(format!("/proc/{id}/ns/net")).unwrap()).collect();

    let receiver = network.socket("receiver", (RECEIVER, 9000));
    let sender = network.socket("sender", (SENDER, 29_000));
    receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    sender.send_to(b"hello", (RECEIVER, 9000)).unwrap();
    let mut buffer = [0; 16];
    assert_eq!(receiver.recv(&mut buffer).unwrap(), 5);

    let router = network.tell("pbs-router", "router", &["flows", "--json"]);
    let flows: serde_json::Value = serde_json::from_slice(&router.stdout).unwrap();
    assert_eq!(flows[0]["flow"]["source_port"], 29_000, "{flows}");
    assert_eq!(network.tell("pbs", "sender", &["status"]).status.code(), Some(0));
    let flow = [
        "--source",
        "192.168.20.1",
        "--destination",
        "192.168.21.4",
        "--protocol",
        "17",
        "--source-port",
        "1",
        "--destination-port",
        "9001",
    ];
    let asked = network.tell("pbs", "sender", &[&["request", "--volume", "1000"], &flow[..]].concat());
    assert_eq!(asked.status.code(), Some(0), "{}", said(&asked));

    let again = network.up(&[]);
    assert_eq!(again.status.code(), Some(2));
    assert!(said(&again).contains("is up"), "{}", said(&again));
    assert_eq!(network.processes(), processes, "the second attempt changes nothing");

    drop((receiver, sender));
    let down = network.down();
    assert_eq!(down.status.code(), Some(0), "{}", said(&down));
    network.is_gone();
    for namespace in namespaces {
        assert!(!is_used(&namespace), "{} lives on", namespace.display());
    }
    assert_eq!(network.down().status.code(), Some(1), "there is no such network any more");
}

#[test]
fn a_network_that_cannot_be_finished_is_taken_back() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let network = Network::named("half");
    // The last of the three names is taken.
    let taken = Path::new("/run/netns").join(network.namespace("receiver"));
    std::fs::create_dir_all("/run/netns").unwrap();
    File::create_new(&taken).unwrap();
    let output = network.up(&[]);
    std::fs::remove_file(&taken).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains(taken.to_str().unwrap()), "{}", said(&output));
    network.is_gone();
}

#[test]
fn a_network_whose_command_is_killed_halfway_can_be_taken_down() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let network = Network::named("killed");
    let mut child = network.command("up").spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while network.processes().is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let down = network.down();
    assert_eq!(down.status.code(), Some(0), "{}", said(&down));
    network.is_gone();
}

#[test]
fn a_network_can_lie_in_a_directory_of_ones_choice_but_not_in_a_used_one() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let network = Network::named("chosen");
    let above = std::env::temp_dir().join(network.0.clone());
    let (fresh, used) = (above.join("fresh"), above.join("used"));
    std::fs::create_dir_all(used.join("something")).unwrap();
    let refused = network.up(&["--directory", used.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(said(&refused).contains("is not empty"), "{}", said(&refused));
    assert_eq!(network.up(&["--directory", fresh.to_str().unwrap()]).status.code(), Some(0));
    assert!(fresh.join("sender.toml").exists());
    assert_eq!(network.down().status.code(), Some(0));
    assert!(!fresh.exists() && used.join("something").exists(), "only its own directory goes");
    network.is_gone();
    std::fs::remove_dir_all(above).unwrap();
}

#[test]
fn a_name_that_is_none_is_refused() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    for (command, name) in [("up", "../etc"), ("down", "../etc"), ("up", ""), ("down", "a/b")] {
        let output = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).args([command, name]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{command} {name}");
        assert!(said(&output).contains("no name for a network"), "{}", said(&output));
    }
}

/// A standing network of its own for a test.
struct Network(String);

impl Network {
    fn named(name: &str) -> Self {
        Self(format!("test-{name}-{}", std::process::id()))
    }

    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.0)
    }

    fn directory(&self) -> PathBuf {
        Path::new("/var/lib/pbs-lab").join(&self.0)
    }

    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pbs-lab"));
        command.args([word, &self.0]);
        command
    }

    fn up(&self, arguments: &[&str]) -> Output {
        self.command("up").args(arguments).output().unwrap()
    }

    fn down(&self) -> Output {
        self.command("down").output().unwrap()
    }

    /// Runs a daemon's command line as `up` says.
    fn tell(&self, program: &str, host: &str, arguments: &[&str]) -> Output {
        let directory = self.directory();
        let mut command = Command::new(directory.join("bin").join(program));
        command.args(arguments).arg("--control").arg(directory.join(format!("{host}.sock"))).output().unwrap()
    }

    /// A plain socket, made on a thread that entered the namespace by its name.
    fn socket(&self, host: &str, address: (std::net::IpAddr, u16)) -> UdpSocket {
        let namespace = File::open(Path::new("/run/netns").join(self.namespace(host))).unwrap();
        let work = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            UdpSocket::bind(address).unwrap()
        };
        std::thread::spawn(work).join().unwrap()
    }

    /// The daemons whose command line names the network.
    fn processes(&self) -> Vec<u32> {
        let of_network = |id: &u32| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.starts_with("pbs") && line.contains(&format!("/{}/", self.0))
        };
        let mut found: Vec<u32> = processes().filter(of_network).collect();
        found.sort_unstable();
        found
    }

    fn is_gone(&self) {
        assert!(self.processes().is_empty(), "processes are left");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for host in HOSTS {
            let name = self.namespace(host);
            assert!(!mounts.contains(&name), "{name} is still mounted");
            assert!(!Path::new("/run/netns").join(&name).exists(), "{name} still has its name");
        }
        assert!(!self.directory().exists(), "its directory is left");
        assert!(!Path::new("/run/pbs-lab").join(format!("{}.json", self.0)).exists(), "its record is left");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A failed test leaves nothing running.
        let _ = self.down();
    }
}

fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
}

/// Whether a process lives in this network namespace.
fn is_used(namespace: &Path) -> bool {
    processes().any(|id| std::fs::read_link(format!("/proc/{id}/ns/net")).is_ok_and(|other| other == namespace))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
