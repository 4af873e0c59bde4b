//! The three cores by one name for what they have in common.

use gist::api::{Indication, ReceivedMessage};
use gist::time::Instant;
use pbs_nslp::datapath::Event;
use pbs_nslp::output::Output;
use pbs_nslp::receiver::Receiver;
use pbs_nslp::router::Router;
use pbs_nslp::sender::Sender;
use pbs_nslp::wire::Volume;

use super::Alone;
use crate::world::{VOLUME, flow, seconds};

pub(crate) trait Core: Clone {
    const IS_SENDER: bool;
    fn gist(&mut self, indication: Indication, now: Instant);
    fn datapath(&mut self, event: Event, now: Instant);
    fn time(&mut self, now: Instant);
    fn wakes(&self) -> Option<Instant>;
    fn output(&mut self) -> Option<Output>;
    /// How many events no row was for.
    fn ignored(&self) -> u64;
    /// The states of its sessions.
    fn states(&self) -> Vec<String>;
    /// Has an old message find a session, where it would else find none and tell nothing.
    fn ask_anew(_: &mut Alone<Self>) {}
    /// An old message as somebody would show it to that session.
    fn readdressed(_: &Alone<Self>, received: &ReceivedMessage) -> ReceivedMessage {
        received.clone()
    }
}

macro_rules! common {
    () => {
        fn gist(&mut self, indication: Indication, now: Instant) {
            self.handle_gist(indication, now);
        }
        fn datapath(&mut self, event: Event, now: Instant) {
            self.handle_datapath(event, now);
        }
        fn time(&mut self, now: Instant) {
            self.handle_timeout(now);
        }
        fn wakes(&self) -> Option<Instant> {
            self.poll_timeout()
        }
        fn output(&mut self) -> Option<Output> {
            self.poll_output()
        }
        fn ignored(&self) -> u64 {
            self.counters().ignored
        }
        fn states(&self) -> Vec<String> {
            self.sessions().into_iter().map(|session| session.state).collect()
        }
    };
}

impl Core for Sender {
    const IS_SENDER: bool = true;
    common!();

    fn ask_anew(node: &mut Alone<Self>) {
        node.passes(seconds(70));
        node.host(|sender, now| sender.want(flow(), Volume(VOLUME), now).unwrap());
    }

    /// Signed anew for the new session, with its old number: what the receiver would never do, and its memory goes by.
    fn readdressed(node: &Alone<Self>, received: &ReceivedMessage) -> ReceivedMessage {
        super::sender::readdressed(node.session, received)
    }
}

impl Core for Receiver {
    const IS_SENDER: bool = false;
    common!();
}

impl Core for Router {
    const IS_SENDER: bool = false;
    common!();
}
