//! What requests and answers say, whoever has sent them.

use std::path::Path;

use serde_json::{Value, json};
use traffic::rules::Role;

use super::ControlError;

/// Why a request is answered without anybody being asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It is no request.
    Unreadable(String),
    /// It is for a daemon of another role, or does not say for which.
    Misdirected(String),
}

impl Refused {
    pub(super) fn answer(self) -> Value {
        match self {
            Self::Unreadable(why) => json!({ "error": why }),
            Self::Misdirected(why) => json!({ "error": why, "misdirected": true }),
        }
    }
}

/// Reads a request to a daemon of this role.
///
/// # Errors
///
/// See [`Refused`].
pub fn read_request(line: &str, own: Role) -> Result<Value, Refused> {
    let body = serde_json::from_str(line).map_err(|error| Refused::Unreadable(format!("the request is not JSON: {error}")))?;
    check_role(&body, own).map_err(Refused::Misdirected)?;
    Ok(body)
}

/// Reads the answer of the daemon whose socket is `path`.
///
/// # Errors
///
/// It refuses, is of another role, or does not answer as it should.
pub fn read_answer(line: &str, path: &Path) -> Result<Value, ControlError> {
    let wrong = |what: String| ControlError::Answer { path: path.to_owned(), what };
    let mut answer: Value = serde_json::from_str(line).map_err(|error| wrong(format!("the answer is not JSON: {error}")))?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        if answer.get("misdirected") == Some(&Value::Bool(true)) {
            return Err(ControlError::Misdirected { path: path.to_owned(), why: error.to_owned() });
        }
        return Err(ControlError::Refused(error.to_owned()));
    }
    answer.get_mut("ok").map(Value::take).ok_or_else(|| wrong("the answer has neither `ok` nor `error`".to_owned()))
}

/// The name of a role in requests.
pub const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Router => "router",
        Role::Host => "host",
    }
}

/// The command line that talks to daemons of a role.
const fn program(role: Role) -> &'static str {
    match role {
        Role::Router => "pbs-router",
        Role::Host => "pbs",
    }
}

/// Refuses what is not meant for a daemon of this role: whoever confuses two sockets must not open the wrong node.
fn check_role(body: &Value, own: Role) -> Result<(), String> {
    let (name, program) = (role_name(own), program(own));
    match body.get("role").and_then(Value::as_str) {
        Some(asked) if asked == name => Ok(()),
        Some(asked) => Err(format!("a {name} answers here, and the request is for a {asked}: nothing was done; use `{program}`")),
        None => Err(format!("a {name} answers here, and the request does not say for which role it is: nothing was done")),
    }
}
