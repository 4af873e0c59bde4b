//! Whoever ends the laboratory in the middle finds nothing left behind: no process, no directory, no namespace.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn an_interrupted_demonstration_leaves_nothing_behind() {
    // While the network is built, when the daemons have just started, while the first permission is asked for, while files are sent.
    for (signal, moment, delay, daemons, code) in [
        (Signal::SIGINT, "building three hosts", 30, 0, 130),
        (Signal::SIGTERM, "host that does not ask", 0, 3, 143),
        (Signal::SIGINT, "trying: asking for permissions", 30, 3, 130),
        (Signal::SIGHUP, "trying: asking for permissions", 400, 3, 129),
    ] {
        if !pbs_lab::may_make_networks() {
            return;
        }
        let interrupted = Interrupted::start(&["demo", "--only", "granted"], moment, Duration::from_millis(delay));
        let namespaces = interrupted.namespaces();
        assert_eq!(namespaces.len(), daemons, "at \"{moment}\"");
        let (code_given, rest) = interrupted.end(signal);
        assert_eq!(code_given, Some(code), "{signal} at \"{moment}\": {rest}");
        assert!(rest.contains("nothing is left behind"), "{rest}");
        for namespace in namespaces {
            assert!(!lives(|other| *other == namespace), "{} lives on", namespace.display());
        }
    }
}

#[test]
fn an_interrupted_up_leaves_nothing_behind() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let name = format!("test-interrupted-{}", std::process::id());
    for delay in [0, 20, 60, 120, 200] {
        let mut child =
            Command::new(env!("CARGO_BIN_EXE_pbs-lab")).args(["up", &name]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay));
        send(&child, Signal::SIGINT);
        let status = child.wait().unwrap();
        // Either it was done before the signal came, or it was interrupted; before the first instruction a signal just ends it.
        let down = Command::new(env!("CARGO_BIN_EXE_pbs-lab")).args(["down", &name]).output().unwrap();
        let expected = if status.success() { 0 } else { 1 };
        assert_eq!(down.status.code(), Some(expected), "after {delay} ms {status}");
        for place in ["/run/netns", "/run/pbs-lab", "/var/lib/pbs-lab"] {
            let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
            let left: Vec<_> = entries.filter(|entry| entry.file_name().to_string_lossy().contains(&name)).collect();
            assert!(left.is_empty(), "after {delay} ms: {left:?}");
        }
        assert!(!command_lines().any(|line| line.contains(&format!("/{name}/"))), "after {delay} ms a process is left");
    }
}

/// The laboratory at work, with a directory of its own for what it makes.
struct Interrupted {
    child: Child,
    output: BufReader<std::process::ChildStderr>,
    directory: PathBuf,
}

impl Interrupted {
    /// Runs the laboratory until `delay` after it says `moment`.
    fn start(arguments: &[&str], moment: &str, delay: Duration) -> Self {
        let directory = std::env::temp_dir().join(format!("interrupted-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_pbs-lab"));
        command.args(arguments).env("TMPDIR", &directory).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut output = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains(moment) {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "it ended before it said \"{moment}\"");
        }
        std::thread::sleep(delay);
        Self { child, output, directory }
    }

    /// Network namespaces of its daemons.
    fn namespaces(&self) -> Vec<PathBuf> {
        children(self.child.id()).iter().filter_map(|id| std::fs::read_link(format!("/proc/{id}/ns/net")).ok()).collect()
    }

    /// Sends the signal; gives the exit code and what was said from then on.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let processes = children(self.child.id());
        send(&self.child, signal);
        let sent = Instant::now();
        let status = self.child.wait().unwrap();
        assert!(sent.elapsed() < Duration::from_secs(2), "it took {:?} to end", sent.elapsed());
        for id in processes {
            assert!(!Path::new(&format!("/proc/{id}")).exists(), "process {id} is left");
        }
        let left: Vec<_> = std::fs::read_dir(&self.directory).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
        std::fs::remove_dir(&self.directory).unwrap();
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (status.code(), rest)
    }
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

fn processes() -> impl Iterator<Item = u32> {
    std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
}

fn command_lines() -> impl Iterator<Item = String> {
    processes().filter_map(|id| Some(String::from_utf8_lossy(&std::fs::read(format!("/proc/{id}/cmdline")).ok()?).into_owned()))
}

fn children(parent: u32) -> Vec<u32> {
    let of_parent = |id: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        fields.split_whitespace().nth(1).and_then(|id| id.parse().ok()) == Some(parent)
    };
    processes().filter(of_parent).collect()
}

/// Whether any process lives in a network namespace of this kind.
fn lives(wanted: impl Fn(&PathBuf) -> bool) -> bool {
    processes().filter_map(|id| std::fs::read_link(format!("/proc/{id}/ns/net")).ok()).any(|namespace| wanted(&namespace))
}
