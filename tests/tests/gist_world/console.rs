//! `pbs-lab gist`, worked by a script.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pbs_lab::network::namespace::{Lifetime, Namespace};
use serde_json::Value;

/// A running `pbs-lab gist`.
pub(crate) struct Console {
    child: Child,
    input: ChildStdin,
    events: Receiver<Value>,
}

impl Console {
    /// Starts one on a host, with its own addresses as arguments and others.
    pub(crate) fn start(host: &Namespace, addresses: &[String], more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pbs-lab"));
        command.arg("gist").args(addresses).args(more).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        host.contain(&mut command, Lifetime::Laboratory).unwrap();
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        // It says so when its sockets are open.
        let mut greeting = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut greeting).unwrap();
        assert!(greeting.starts_with("GIST node"), "{greeting}");
        let (told, events) = channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.map_while(|line| serde_json::from_str(&line).ok()).try_for_each(|event| told.send(event))
        });
        Self { child, input, events }
    }

    /// Asks it to end, as a supervisor does; whether it ends in good order.
    #[allow(dead_code, reason = "one test does")]
    pub(crate) fn terminate(mut self) -> bool {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        self.child.wait().unwrap().success()
    }

    /// A line on its console.
    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
    }

    /// The next event.
    pub(crate) fn any_event(&mut self) -> Value {
        self.events.recv_timeout(Duration::from_secs(10)).expect("no event came")
    }

    /// The next event, which is of this kind.
    pub(crate) fn event(&mut self, kind: &str) -> Value {
        let event = self.any_event();
        assert_eq!(event["event"], kind, "{event}");
        event
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "quit");
        let _ = self.child.wait();
    }
}

/// The number of this name in what is shown, however deep.
pub(crate) fn find(shown: &Value, name: &str) -> Option<u64> {
    let Value::Object(fields) = shown else { return None };
    fields.get(name).and_then(Value::as_u64).or_else(|| fields.values().find_map(|value| find(value, name)))
}
