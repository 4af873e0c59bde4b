//! What a line on the console asks.

use std::net::IpAddr;

use gist::io::ipc::{Asked, Direction, Method, Over, Request, What};
use gist::wire::NslpId;

/// What `help` says.
pub(super) const HELP: &str = "\
send SOURCE DESTINATION TEXT [KEY=VALUE]…   a message along the path of a flow; TEXT is padded with spaces to whole words
    session=HEX32 (otherwise a new one)  direction=upstream  handle=N  reliable  secure  timeout=MILLISECONDS  hop_count=N
    stateless  to_peer=HEX32  over=ask|udp|tcp|tls
    protocol=N  source_port=N  destination_port=N  source_prefix=N  destination_prefix=N  ds_field=N  flow_label=N  spi=N
show routing|associations|counters [FROM]   256 entries at most, without the first FROM
use NSLPID                                  which application speaks; at first the first one
{\"request\":…}                               any request of the Unix socket, as JSON
help, quit                                  (the end of the input ends nothing)";

/// A line, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// For the node.
    Request(Asked),
    /// Speak as this application from now on.
    Use(NslpId),
    /// Say what can be said.
    Help,
    /// End.
    Quit,
    /// Nothing.
    Nothing,
}

/// Reads a line; `session` is the one of a message that names none.
///
/// # Errors
///
/// What is wrong with it, for the person who typed it.
pub(super) fn read(line: &str, session: [u8; 16]) -> Result<Line, String> {
    if line.trim_start().starts_with('{') {
        return Asked::read(line.as_bytes()).map(Line::Request).map_err(|error| error.to_string());
    }
    let mut words = line.split_whitespace();
    match words.next() {
        None => Ok(Line::Nothing),
        Some("help") => Ok(Line::Help),
        Some("quit") => Ok(Line::Quit),
        Some("use") => number(words.next().ok_or("use NSLPID")?, "an NSLPID").map(|number| Line::Use(NslpId(number))),
        Some("show") => {
            let what = match words.next() {
                Some("routing") => What::Routing,
                Some("associations") => What::Associations,
                Some("counters") => What::Counters,
                _ => return Err("show routing|associations|counters".to_owned()),
            };
            let from = words.next().map_or(Ok(0), |word| number(word, "a number of entries"))?;
            Ok(Line::Request(unnamed(Request::Show { what, from })))
        }
        Some("send") => send(words, session).map(unnamed).map(Line::Request),
        Some(other) => Err(format!("`{other}` is no command; `help` lists them")),
    }
}

fn unnamed(request: Request) -> Asked {
    Asked { id: None, request }
}

fn send<'a>(mut words: impl Iterator<Item = &'a str>, session: [u8; 16]) -> Result<Request, String> {
    let usage = "send SOURCE DESTINATION TEXT [KEY=VALUE]…";
    let mut address = || -> Result<IpAddr, String> {
        let word = words.next().ok_or(usage)?;
        word.parse().map_err(|_| format!("`{word}` is no address"))
    };
    let (source, destination) = (address()?, address()?);
    let mut payload = words.next().ok_or(usage)?.as_bytes().to_vec();
    payload.resize(payload.len().next_multiple_of(4), b' ');
    let mut flow = Flow::default();
    let mut message = Message { session, ..Message::default() };
    for word in words {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        match key {
            "session" => {
                let octets = hex::decode(value).ok().and_then(|octets| octets.try_into().ok());
                message.session = octets.ok_or("session=HEX32: 32 hexadecimal digits")?;
            }
            "direction" => {
                flow.upstream = match value {
                    "upstream" => true,
                    "downstream" => false,
                    _ => return Err("direction=upstream or direction=downstream".to_owned()),
                }
            }
            "handle" => message.handle = number(value, key)?,
            "stateless" => message.stateless = true,
            "to_peer" => {
                let octets = hex::decode(value).ok().and_then(|octets| octets.try_into().ok());
                message.to_peer = Some(octets.ok_or("to_peer=HEX32: the `peer_handle` of a message that was received")?);
            }
            "over" => {
                message.over = Some(match value {
                    "ask" => Over::Ask,
                    "udp" => Over::Udp,
                    "tcp" => Over::Tcp,
                    "tls" => Over::Tls,
                    _ => return Err("over=ask|udp|tcp|tls".to_owned()),
                });
            }
            "reliable" => message.reliable = true,
            "secure" => message.secure = true,
            "timeout" => message.timeout = Some(number(value, key)?),
            "hop_count" => message.hop_count = Some(number(value, key)?),
            "protocol" => flow.protocol = Some(number(value, key)?),
            "source_port" => flow.source_port = Some(number(value, key)?),
            "destination_port" => flow.destination_port = Some(number(value, key)?),
            "source_prefix" => flow.source_prefix = Some(number(value, key)?),
            "destination_prefix" => flow.destination_prefix = Some(number(value, key)?),
            "ds_field" => flow.ds_field = Some(number(value, key)?),
            "flow_label" => flow.flow_label = Some(number(value, key)?),
            "spi" => flow.spi = Some(number(value, key)?),
            _ => return Err(format!("`{key}` is no key of a message; `help` lists them")),
        }
    }
    Ok(Request::Send {
        session: message.session,
        mri: flow.between(source, destination),
        payload,
        handle: message.handle,
        reliable: message.reliable,
        secure: message.secure,
        timeout: message.timeout,
        hop_count: message.hop_count,
        stateless: message.stateless,
        to_peer: message.to_peer,
        over: message.over,
    })
}

#[derive(Default)]
struct Message {
    session: [u8; 16],
    handle: u64,
    reliable: bool,
    secure: bool,
    timeout: Option<u64>,
    hop_count: Option<u8>,
    stateless: bool,
    to_peer: Option<[u8; 16]>,
    over: Option<Over>,
}

#[derive(Default)]
struct Flow {
    upstream: bool,
    source_prefix: Option<u8>,
    destination_prefix: Option<u8>,
    protocol: Option<u8>,
    ds_field: Option<u8>,
    flow_label: Option<u32>,
    spi: Option<u32>,
    source_port: Option<u16>,
    destination_port: Option<u16>,
}

impl Flow {
    fn between(self, source: IpAddr, destination: IpAddr) -> Method {
        Method::PathCoupled {
            direction: if self.upstream { Direction::Upstream } else { Direction::Downstream },
            source,
            destination,
            source_prefix: self.source_prefix,
            destination_prefix: self.destination_prefix,
            protocol: self.protocol,
            ds_field: self.ds_field,
            flow_label: self.flow_label,
            spi: self.spi,
            source_port: self.source_port,
            destination_port: self.destination_port,
        }
    }
}

fn number<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not {what}, or too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_it_would_say_in_json() {
        let typed = "send 10.0.0.1 10.0.9.1 hello direction=upstream protocol=17 source_port=4000 secure handle=7";
        let json = r#"{"request":"send","session":"09090909090909090909090909090909","payload":"68656c6c6f202020","handle":7,"secure":true,
            "mri":{"method":"path-coupled","direction":"upstream","source":"10.0.0.1","destination":"10.0.9.1","protocol":17,
                   "source_port":4000}}"#;
        assert_eq!(read(typed, [9; 16]), read(&json.replace('\n', ""), [0; 16]));
        assert!(matches!(read(typed, [9; 16]), Ok(Line::Request(Asked { request: Request::Send { .. }, .. }))));
    }

    #[test]
    fn a_line_that_says_nothing_sensible_is_answered_in_words() {
        for (line, words) in [
            ("sned", "`sned` is no command"),
            ("send 10.0.0.1", "send SOURCE DESTINATION"),
            ("send 10.0.0.1 ten x", "`ten` is no address"),
            ("send 10.0.0.1 10.0.0.2 x port=4", "`port` is no key"),
            ("send 10.0.0.1 10.0.0.2 x protocol=256", "`256` is not protocol"),
            ("send 10.0.0.1 10.0.0.2 x session=00", "32 hexadecimal digits"),
            ("show me", "show routing|associations|counters"),
            ("{}", "not a request"),
        ] {
            let told = read(line, [0; 16]).unwrap_err();
            assert!(told.contains(words), "{line}: {told}");
        }
        assert_eq!(read("  ", [0; 16]), Ok(Line::Nothing));
    }
}
