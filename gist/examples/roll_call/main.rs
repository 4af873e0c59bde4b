//! A signalling application of one's own on GIST, small enough to copy: who is on the path of a flow?
//!
//! ```text
//! cargo run -p gist --example roll_call                             # in memory, with virtual time
//! cargo run -p gist --example roll_call --features io -- sockets    # on real sockets; needs root
//! ```
//!
//! * `application.rs`: the application, which is the same in both. Begin there.
//! * `memory.rs`: nodes without sockets and clock, as in a test or a simulator.
//! * `sockets.rs`: nodes on sockets, with TLS.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod application;
mod memory;
#[cfg(feature = "io")]
mod sockets;

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;
use std::time::Duration;

use application::{RollCall, flow};
use gist::wire::SessionId;
use memory::Network;

const CALLER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 1, 1));
const CALLED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 1));
const ROUTER: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 1, 254)), IpAddr::V4(Ipv4Addr::new(10, 0, 2, 254))];
/// Chosen at random by whoever begins a session (RFC 5971 §3.7), where it matters.
const SESSION: SessionId = SessionId([7; 16]);
const OTHER_SESSION: SessionId = SessionId([8; 16]);

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        None | Some("memory") => {
            in_memory().iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
        Some("sockets") => on_sockets(),
        Some(_) => {
            eprintln!("roll_call [memory|sockets]");
            ExitCode::FAILURE
        }
    }
}

#[cfg(feature = "io")]
fn on_sockets() -> ExitCode {
    match sockets::call() {
        Ok(names) => {
            println!("over sockets: {}", names.join(", "));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(not(feature = "io"))]
fn on_sockets() -> ExitCode {
    eprintln!("built without sockets: add --features io");
    ExitCode::FAILURE
}

/// One life of an application, in a line for each thing that happens.
fn in_memory() -> Vec<String> {
    let flow = flow(CALLER, CALLED);
    let mut network = Network::row(&[("caller", &[CALLER]), ("router", &ROUTER), ("called", &[CALLED])]);
    let mut story = Vec::new();

    // SendMessage: GIST finds the next node, and each node passes the call on.
    network.ask(0, |application| application.call(SESSION, &flow));
    network.run(Duration::from_secs(1));
    story.push(format!("the path: {}", last_answer(&network)));

    // The peering question: the router takes no part in sessions to come, so that their calls go past it.
    network.ask(1, |_| RollCall::take_part(false));
    network.ask(0, |application| application.call(OTHER_SESSION, &flow));
    network.run(Duration::from_secs(1));
    story.push(format!("the router stands aside: {}", last_answer(&network)));

    // InvalidateRoutingState and NetworkNotification: the router's program ends. Its peer asks anew, somebody else answers, and the
    // application calls again.
    network.stop(1);
    network.ask(0, |_| RollCall::doubt(SESSION, &flow));
    network.run(Duration::from_secs(1));
    story.push(format!("the router is gone: {}: {}", last_news(&network), last_answer(&network)));

    // SetStateLifetime: nothing is kept any more.
    for session in [SESSION, OTHER_SESSION] {
        network.ask(0, |_| RollCall::remember(session, &flow, Duration::ZERO));
    }
    story.push(format!("no interest any more: {} routing states", network.routing_states(0)));

    // MessageStatus: there is nobody.
    network.stop(2);
    network.ask(0, |application| application.call(SESSION, &flow));
    network.run(Duration::from_secs(60));
    story.push(format!("the last node is gone: {}", last_news(&network)));
    story
}

fn last_answer(network: &Network) -> String {
    let answers = network.application(0).map_or(&[][..], |application| &application.answers);
    answers.last().map_or_else(|| "no answer".to_owned(), |names| names.join(", "))
}

fn last_news(network: &Network) -> String {
    let news = network.application(0).map_or(&[][..], |application| &application.news);
    news.last().cloned().unwrap_or_else(|| "nothing new".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5971 Appendix B, each of its calls once.
    #[test]
    fn the_roll_of_a_path_in_memory_names_who_takes_part() {
        assert_eq!(
            in_memory(),
            [
                "the path: caller, router, called",
                "the router stands aside: caller, called",
                "the router is gone: peer changed: caller, called",
                "no interest any more: 0 routing states",
                "the last node is gone: message 4 was not sent: no GIST node on the path answered",
            ]
        );
    }

    #[test]
    fn the_same_life_is_the_same_each_time() {
        assert_eq!(in_memory(), in_memory());
    }

    #[cfg(feature = "io")]
    #[test]
    fn the_roll_over_sockets_names_both_ends() {
        match sockets::call() {
            Ok(names) => assert_eq!(names, ["caller", "called"]),
            Err(error) if error.to_string().contains("needs root") => {
                assert!(!in_ci(), "network tests must not be skipped in CI, and network namespaces need root ({error})");
                eprintln!("skipped: {error}");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether nothing may be skipped: `CI` is set, and to something else than nothing or `false`.
    #[cfg(feature = "io")]
    fn in_ci() -> bool {
        std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
    }
}
