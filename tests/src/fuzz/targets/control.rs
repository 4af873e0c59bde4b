//! Lines on the control socket: requests to the daemons, and what those answer.

use std::path::Path;

use daemon::control::{ControlError, Refused, Request, read_answer, read_request};
use serde_json::{Value, json};
use traffic::rules::Role;

use crate::fuzz::mark;

/// Letters by which kinds of what is wrong are told apart.
const KIND: usize = 40;

/// Requests of both command lines, and answers.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let flow = |command: &str| {
        json!({
            "role": "host", "command": command, "source": "198.51.100.1", "destination": "192.0.2.1", "protocol": 17,
            "source_port": 9001, "destination_port": 9000, "volume": 100_000,
        })
    };
    let commands = ["status", "flows", "counters", "open", "reload"].map(|command| json!({ "role": "router", "command": command }));
    let flows = ["request", "release", "revoke", "lift", "change"].map(flow);
    let change = json!({ "volume": 5_000_000_000_u64, "limit": 6_000_000_000_u64, "ttl_ms": 600_000, "refresh_ms": 60_000, "rekey": true, "sign": false });
    let answers = [
        json!({ "ok": { "paths": [], "role": "host" } }),
        json!({ "ok": null }),
        json!({ "error": "no", "misdirected": true }),
        json!({ "error": "no" }),
    ];
    let six = json!({ "role": "host", "command": "request", "source": "fd20::1", "destination": "fd21::4", "protocol": 58 });
    commands.into_iter().chain(flows).chain([change, six]).chain(answers).map(|value| value.to_string().into_bytes()).collect()
}

/// A request is for one role at most, an answer is a yes or a no, and nobody is told at length what is wrong.
pub(super) fn take(input: &[u8]) -> u64 {
    let Ok(line) = std::str::from_utf8(input) else { return 0 };
    let asked = [Role::Host, Role::Router].map(|role| read_request(line, role));
    assert!(asked.iter().filter(|asked| asked.is_ok()).count() <= 1, "a request for both roles");
    let asked = asked.map(|asked| match asked {
        Ok(body) => (0, carry_out(body, input.len())),
        Err(Refused::Unreadable(why)) => (1, short(&why, input.len())),
        Err(Refused::Misdirected(why)) => (2, short(&why, input.len())),
    });
    let answer = match read_answer(line, Path::new("host.sock")) {
        Ok(value) => {
            let again = json!({ "ok": value }).to_string();
            assert!(read_answer(&again, Path::new("host.sock")).is_ok(), "not an answer any more");
            (0, String::new())
        }
        Err(ControlError::Answer { what, .. }) => (1, short(&what, input.len())),
        Err(ControlError::Refused(_)) => (2, String::new()),
        Err(ControlError::Misdirected { .. }) => (3, String::new()),
        Err(other) => panic!("nothing was opened, and yet: {other}"),
    };
    mark(&(asked, answer))
}

/// What every command reads of a request.
fn carry_out(body: Value, length: usize) -> String {
    let change = endpoint::check_change(&body);
    let (request, _answer) = Request::new(body);
    let flow = request.flow();
    if let Ok(flow) = &flow {
        let of = |field: &str| request.text(field).and_then(|text| text.parse().ok());
        assert_eq!((of("source"), of("destination")), (Some(flow.source), Some(flow.destination)), "another flow");
    }
    let command = request.command();
    let told = flow.err().map(|why| short(&why, length));
    format!("{} {told:?} {:?}", command.len().min(16), change.err().map(|why| short(&why, length)))
}

/// The kind of what is wrong, without what depends on the input.
fn short(why: &str, length: usize) -> String {
    assert!(why.len() <= length + 200, "{} octets to say what is wrong with {length}", why.len());
    why.split('`').next().unwrap_or_default().chars().filter(|letter| !letter.is_ascii_digit()).take(KIND).collect()
}
