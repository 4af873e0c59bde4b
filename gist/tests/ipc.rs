//! GIST for other programs, on real Unix sockets between real nodes: appendix B without Rust.
#![cfg(feature = "ipc")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod io_support;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use gist::io::ipc::{CLIENTS, Ipc, IpcError, LONGEST_LINE, PAGE, serve};
use io_support::{ANSWERER, ASKER, Authority, NSLP, Node, in_own_network};
use rcgen::PKCS_ED25519;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Command;

/// G-387, G-388 over the socket: a message goes there, its answer comes back, and both ends are told what carried them.
#[test]
fn two_programs_exchange_messages_and_see_the_transport_of_each() {
    in_own_network(|| async {
        let (asker, answerer) = nodes();
        let (mut asking, mut answering) = (asker.program().await, answerer.program().await);
        asking.say(send("downstream", b"ask!", true)).await;
        let asked = answering.event("received").await;
        assert_eq!((&asked["payload"], &asked["transport"], &asked["authenticated"]), (&json!("61736b21"), &json!("tls"), &json!(true)));
        assert_eq!(asked["mri"]["destination"], json!(ANSWERER.to_string()));
        answering.say(send("upstream", b"answer..", true)).await;
        let answered = asking.event("received").await;
        assert_eq!((&answered["payload"], &answered["transport"]), (&json!(hex::encode("answer..")), &json!("tls")));
        // What both nodes now know.
        asking.say(json!({ "request": "show", "what": "routing" })).await;
        let shown = asking.event("shown").await;
        assert_eq!((&shown["content"][0]["side"], &shown["content"][0]["state"]), (&json!("querying"), &json!("Established")));
        answering.say(json!({ "request": "show", "what": "associations" })).await;
        assert_eq!(answering.event("shown").await["content"][0]["opened_here"], json!(false));
        // B.5: no interest any more.
        let mut end = send("downstream", b"", true);
        end["request"] = "set_state_lifetime".into();
        end["lifetime"] = 0.into();
        for key in ["payload", "reliable", "secure", "handle"] {
            end.as_object_mut().unwrap().remove(key);
        }
        asking.say(end).await;
        asking.say(json!({ "request": "show", "what": "routing" })).await;
        assert_eq!(asking.event("shown").await["content"], json!([]));
    });
}

#[test]
fn a_message_that_is_not_sent_is_reported_by_its_handle() {
    in_own_network(|| async {
        let (asker, _answerer) = nodes();
        let mut program = asker.program().await;
        let mut unsent = send("downstream", b"odd", true);
        unsent["handle"] = 77.into();
        program.say(unsent).await;
        let status = program.event("message_status").await;
        assert_eq!((&status["handle"], &status["error"], &status["why"]), (&json!(77), &json!("too_large"), &json!("message too large")));
    });
}

#[test]
fn what_is_no_request_is_refused_with_the_reason_and_the_next_line_counts() {
    in_own_network(|| async {
        let (asker, _answerer) = nodes();
        let mut program = Program::connect(&asker.path).await;
        for (line, why) in [
            ("nonsense", "not a request"),
            (r#"{"request":"register","nslp_id":1}"#, "this node has no application 1"),
            (r#"{"request":"set_state_lifetime"}"#, "missing field"),
        ] {
            program.write.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            let refused = program.event("refused").await["why"].as_str().unwrap().to_owned();
            assert!(refused.contains(why), "{refused}");
        }
        program.say(send("downstream", b"ask!", true)).await;
        assert!(program.event("refused").await["why"].as_str().unwrap().contains("`register` comes first"));
        program.say(json!({ "request": "register", "nslp_id": NSLP.0 })).await;
        program.event("registered").await;
        // One program an application; its place is free when it hangs up.
        let mut second = Program::connect(&asker.path).await;
        second.say(json!({ "request": "register", "nslp_id": NSLP.0 })).await;
        assert!(second.event("refused").await["why"].as_str().unwrap().contains("another program"));
        drop(program);
        loop {
            second.say(json!({ "request": "register", "nslp_id": NSLP.0 })).await;
            if second.next().await.unwrap()["event"] == "registered" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

/// A program that has many requests under way knows which of them was refused.
#[test]
fn what_is_refused_and_what_is_shown_names_its_request() {
    in_own_network(|| async {
        let (asker, _answerer) = nodes();
        let mut program = Program::connect(&asker.path).await;
        for (line, id, number) in [
            (r#"{"id":41,"request":"set_state_lifetime"}"#, json!(41), 1),
            (r#"{"id":"one","request":"show","what":"routing"}"#, Value::Null, 2),
            ("nonsense", Value::Null, 3),
            (r#"{"id":42,"request":"register","nslp_id":1}"#, json!(42), 4),
            (r#"{"request":"register","nslp_id":1}"#, Value::Null, 5),
        ] {
            program.write.write_all(format!("{line}\n").as_bytes()).await.unwrap();
            let refused = program.event("refused").await;
            assert_eq!((&refused["id"], &refused["line"]), (&id, &json!(number)), "{refused}");
        }
        program.say(json!({ "id": 43, "request": "show", "what": "counters" })).await;
        let shown = program.event("shown").await;
        assert_eq!((&shown["id"], &shown["total"], &shown["next"]), (&json!(43), &json!(1), &Value::Null));
    });
}

/// However much a node knows, no line it writes is longer than a page of it.
#[test]
fn what_is_shown_comes_in_pages() {
    in_own_network(|| async {
        let (asker, _answerer) = nodes();
        let mut program = asker.program().await;
        let count = 2 * PAGE + 3;
        for number in 0..count {
            // Nobody has this application there: each of them asks for a while.
            let mut message = send("downstream", b"ask!", false);
            message["session"] = format!("{number:032x}").into();
            message["mri"]["destination"] = "127.0.0.77".into();
            program.say(message).await;
        }
        let (mut from, mut sessions) = (Value::from(0), std::collections::BTreeSet::new());
        let mut pages = Vec::new();
        while !from.is_null() {
            program.say(json!({ "request": "show", "what": "routing", "from": from })).await;
            let shown = program.event("shown").await;
            let content = shown["content"].as_array().unwrap();
            assert_eq!(shown["total"], count);
            sessions.extend(content.iter().map(|entry| entry["session"].as_str().unwrap().to_owned()));
            pages.push(content.len());
            from = shown["next"].clone();
        }
        assert_eq!((pages, sessions.len()), (vec![PAGE, PAGE, 3], count));
        program.say(json!({ "request": "show", "what": "associations", "from": 9 })).await;
        assert_eq!(program.event("shown").await["content"], json!([]));
    });
}

/// G-389: a program is asked what may carry its message, and what it refuses is not sent.
#[test]
fn a_program_decides_what_may_carry_its_message() {
    in_own_network(|| async {
        let (asker, answerer) = nodes();
        let (mut asking, mut answering) = (asker.program().await, answerer.program().await);
        let over = |word: &str, payload: &[u8]| {
            let mut message = send("downstream", payload, true);
            message["over"] = word.into();
            message
        };
        for word in ["ask", "tcp", "udp"] {
            asking.say(over(word, b"veto")).await;
            let proposed = asking.event("message_proposed").await;
            assert_eq!((&proposed["handle"], &proposed["transport"]), (&json!(1), &json!("tls")), "{word}");
        }
        asking.say(over("tls", b"good")).await;
        assert_eq!(answering.event("received").await["payload"], json!(hex::encode("good")));
    });
}

#[test]
fn the_end_of_the_node_is_the_end_of_its_socket() {
    in_own_network(|| async {
        let (mut asker, _answerer) = nodes();
        let mut program = asker.program().await;
        asker.node.stop().await;
        tokio::time::timeout(Duration::from_secs(10), asker.ipc.ended()).await.expect("nobody notices");
        assert!(program.next().await.is_none(), "programs are hung up on");
    });
}

#[test]
fn a_line_without_end_and_a_crowd_are_hung_up_on_and_nobody_else_notices() {
    in_own_network(|| async {
        let (asker, _answerer) = nodes();
        let mut endless = Program::connect(&asker.path).await;
        endless.write.write_all(&vec![b' '; LONGEST_LINE]).await.unwrap();
        assert!(endless.event("refused").await["why"].as_str().unwrap().contains("a line of more than"));
        assert!(endless.next().await.is_none());
        drop(endless);
        let mut crowd = Vec::new();
        for _ in 0..CLIENTS {
            let mut program = Program::connect(&asker.path).await;
            program.say(json!({ "request": "show", "what": "counters" })).await;
            program.event("shown").await;
            crowd.push(program);
        }
        let mut one_more = Program::connect(&asker.path).await;
        assert!(one_more.next().await.is_none());
        crowd[0].say(json!({ "request": "show", "what": "counters" })).await;
        assert_eq!(crowd[0].event("shown").await["content"]["node"]["malformed"], 0);
    });
}

#[test]
fn only_the_owner_may_open_the_socket_and_what_lies_in_its_place_is_not_removed() {
    in_own_network(|| async {
        let (asker, answerer) = nodes();
        let mode = std::fs::metadata(&asker.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (handle, path) = (answerer.node.clone(), asker.path.clone());
        let taken = serve(&path, &[NSLP], handle.clone(), tokio::sync::mpsc::channel(1).1).unwrap_err();
        assert!(matches!(taken, IpcError::Taken { .. }), "{taken}");
        let file = asker.path.with_extension("text");
        std::fs::write(&file, "mine").unwrap();
        let not_a_socket = serve(&file, &[NSLP], handle.clone(), tokio::sync::mpsc::channel(1).1).unwrap_err();
        assert!(matches!(not_a_socket, IpcError::NotASocket { .. }), "{not_a_socket}");
        // What a killed node has left is.
        let left = asker.path.with_extension("left");
        drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
        let served = serve(&left, &[NSLP], handle, tokio::sync::mpsc::channel(1).1).unwrap();
        drop(served);
        assert!(!left.exists());
    });
}

/// The example in another language, between two nodes.
#[test]
fn a_program_in_python_is_a_signalling_application() {
    if let Err(error) = std::process::Command::new("python3").arg("--version").output() {
        assert!(!io_support::in_ci(), "this must not be skipped in CI, and it needs python3 ({error})");
        let _ = writeln!(std::io::stderr(), "skipped: needs python3 ({error})");
        return;
    }
    in_own_network(|| async {
        let (asker, answerer) = nodes();
        let start = |path: &PathBuf, arguments: &[&str]| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ping.py");
            let mut command = Command::new("python3");
            command.arg(script).arg(path).arg(NSLP.0.to_string()).args(arguments).stdout(Stdio::piped()).kill_on_drop(true);
            command.spawn().unwrap()
        };
        let mut answering = start(&answerer.path, &["answer"]);
        let mut events = BufReader::new(answering.stdout.take().unwrap()).lines();
        assert!(events.next_line().await.unwrap().unwrap().contains("registered"));
        let asking = start(&asker.path, &["ask", &ASKER.to_string(), &ANSWERER.to_string(), "--secure"]);
        let asked = asking.wait_with_output().await.unwrap();
        let told = String::from_utf8(asked.stdout).unwrap();
        assert!(asked.status.success(), "{told}");
        assert!(told.contains(&hex::encode("pong")) && told.contains(r#""transport":"tls""#), "{told}");
        assert!(events.next_line().await.unwrap().unwrap().contains(&hex::encode("ping")));
        // The place is taken: the second one says so and ends.
        let second = start(&answerer.path, &["answer"]).wait_with_output().await.unwrap();
        assert_eq!((second.status.code(), String::from_utf8(second.stdout).unwrap().contains("another program")), (Some(1), true));
    });
}

/// A node whose application is whoever registers on its socket.
struct Served {
    path: PathBuf,
    node: gist::io::Handle,
    ipc: Ipc,
    _directory: tempfile::TempDir,
}

fn nodes() -> (Served, Served) {
    let authority = Authority::new("ours");
    let node = |name: &str, address: std::net::IpAddr| {
        let identity = authority.issue(&PKCS_ED25519, &[&format!("{name}.pbs.test"), &address.to_string()]);
        let Node { handle, indications, .. } = Node::start(address, identity.tls(&authority), "*.pbs.test");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gist.sock");
        let ipc = serve(&path, &[NSLP], handle.clone(), indications).unwrap();
        Served { path, node: handle, ipc, _directory: directory }
    };
    (node("asker", ASKER), node("answerer", ANSWERER))
}

impl Served {
    async fn program(&self) -> Program {
        let mut program = Program::connect(&self.path).await;
        program.say(json!({ "request": "register", "nslp_id": NSLP.0 })).await;
        assert_eq!(program.event("registered").await["nslp_id"], NSLP.0);
        program
    }
}

struct Program {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
}

impl Program {
    async fn connect(path: &PathBuf) -> Self {
        let (read, write) = UnixStream::connect(path).await.unwrap().into_split();
        Self { read: BufReader::new(read), write }
    }

    async fn say(&mut self, request: Value) {
        self.write.write_all(format!("{request}\n").as_bytes()).await.unwrap();
    }

    /// `None` when the node has hung up.
    async fn next(&mut self) -> Option<Value> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.read).take(1 << 20);
        let read = tokio::time::timeout(Duration::from_secs(10), bounded.read_until(b'\n', &mut line)).await;
        // What was unread when it hung up makes it an error.
        let length = read.expect("no event came").unwrap_or(0);
        (length > 0).then(|| serde_json::from_slice(&line).unwrap())
    }

    async fn event(&mut self, kind: &str) -> Value {
        let event = self.next().await.expect("the node has hung up");
        assert_eq!(event["event"], kind, "{event}");
        event
    }
}

fn send(direction: &str, payload: &[u8], demanding: bool) -> Value {
    json!({
        "request": "send", "session": "07".repeat(16), "payload": hex::encode(payload), "reliable": demanding, "secure": demanding, "handle": 1,
        "mri": {
            "method": "path-coupled", "direction": direction, "source": ASKER, "destination": ANSWERER, "protocol": 17,
            "source_port": 4000, "destination_port": 9000,
        },
    })
}
