//! As much of everything as a link carries.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use gist::wire::MessageType;
use pbs_lab::attack::injector::Injector;
use pbs_lab::attack::packet;
use pbs_lab::network::topology::{LEFT_LINK, ROUTER_LEFT, SENDER, SENDER_LINK};

use super::datagrams::{kinds, most_errors};
use super::forged::Kind;
use super::{STRANGER, STRANGERS_ROUTER, Said, World, counters, grown};
use crate::support::daemon::{Daemon, wait_until};

/// How long each lasts.
const LASTS: Duration = Duration::from_secs(3);

/// Between two of a stranger's: so many times what a router takes, and little enough for a capture to keep up.
const PAUSE: Duration = Duration::from_micros(20);

/// RFC 5971 §5.3.3, §8.4; X-58.
#[test]
fn floods_of_what_is_forged_and_malformed_end_in_their_bucket_and_a_flow_beside_goes_on() {
    if !pbs_lab::may_make_networks() {
        return;
    }
    let world = World::build();
    let chain = &world.living.site.chain;
    let response = world.captured(ROUTER_LEFT, SENDER, MessageType::Response);
    let (router, sender) = (&world.living.router, &world.living.sender);
    println!("grants without a flood: {:.1?}", [(); 5].map(|()| world.grant()));

    let socket = world.stranger.run(|| UdpSocket::bind((STRANGER, 270))).unwrap();
    let flood = Flood { who: "a stranger, to the router", node: router, kinds: kinds(&world, &response, STRANGER), answers: STRANGER };
    flood.play(&world, |payload| {
        socket.send_to(payload, (STRANGERS_ROUTER, 270)).unwrap();
        std::thread::sleep(PAUSE);
    });
    let on_link = |injector: &Injector, from: IpAddr, to: IpAddr, payload: &[u8]| {
        injector.send(&[packet::udp((from, 270), (to, 270), payload).unwrap()]).unwrap();
    };
    let to_router = Injector::new(&chain.sender, SENDER_LINK, &chain.router, LEFT_LINK).unwrap();
    let flood = Flood { who: "on the link, to the router", node: router, kinds: kinds(&world, &response, SENDER), answers: SENDER };
    flood.play(&world, |payload| on_link(&to_router, SENDER, ROUTER_LEFT, payload));
    let to_sender = Injector::new(&chain.router, LEFT_LINK, &chain.sender, SENDER_LINK).unwrap();
    let flood = Flood { who: "on the link, to the host", node: sender, kinds: kinds(&world, &response, ROUTER_LEFT), answers: ROUTER_LEFT };
    flood.play(&world, |payload| on_link(&to_sender, ROUTER_LEFT, SENDER, payload));
    world.must_stand("floods");
}

struct Flood<'a> {
    who: &'a str,
    node: &'a Daemon,
    /// In turn.
    kinds: Vec<Kind>,
    /// Where answers go.
    answers: IpAddr,
}

impl Flood<'_> {
    /// Says everything in turn, as fast as it can be said, while new flows ask for their grants.
    fn play(&self, world: &World, say: impl Fn(&[u8]) + Sync) {
        let Self { who, node, .. } = self;
        let (counted, (passed, above)) = (counters(node), signalling(node));
        let answered = world.sent_to(self.answers, MessageType::Error);
        let began = Instant::now();
        let (grants, said) = std::thread::scope(|scope| {
            let saying = scope.spawn(|| {
                let mut said = Said::default();
                for payload in self.kinds.iter().flat_map(|kind| &kind.payloads).cycle().take_while(|_| began.elapsed() < LASTS) {
                    say(payload);
                    said = Said { messages: said.messages + 1, octets: said.octets + payload.len() };
                }
                said
            });
            let mut grants = Vec::new();
            while !saying.is_finished() {
                grants.push(world.grant());
                std::thread::sleep(Duration::from_millis(200));
            }
            (grants, saying.join().unwrap())
        });
        world.running.must_lose_nothing(who);

        // What the rules let pass came to the daemon, or found its socket full: the kernel says so with the next datagram.
        let mut now = grown(node, &counted);
        let mut rules = (0, 0);
        wait_until(&format!("all that passed is counted ({who})"), || {
            say(b"no magic number");
            std::thread::sleep(Duration::from_millis(20));
            let (now_passed, now_above) = signalling(node);
            rules = (now_passed - passed, now_above - above);
            now = grown(node, &counted);
            let of = |name: &str| now.get(name).copied().unwrap_or_default();
            of("datagrams_received") - of("intercepted") + of("datagrams_overflowed") == rules.0
        });
        let (passed, above) = rules;
        let errors = world.sent_to(self.answers, MessageType::Error);
        let errors = Said { messages: errors.messages - answered.messages, octets: errors.octets - answered.octets };
        println!(
            "{who}: {said:?}, {passed} past the bucket and {above} above it; answered {errors:?}; grants beside {grants:.1?}; counted {now:?}"
        );
        assert!(passed + above >= u64::try_from(said.messages).unwrap(), "each is counted by a rule");
        let missing = self.reasons().into_iter().filter(|reasons| !reasons.split('|').any(|reason| now.contains_key(reason)));
        assert_eq!(missing.collect::<Vec<_>>(), Vec::<&str>::new(), "reasons that nothing was counted for");
        assert!(errors.messages <= most_errors(began.elapsed()) && errors.octets < said.octets, "{errors:?}");
    }

    fn reasons(&self) -> BTreeSet<&'static str> {
        self.kinds.iter().flat_map(|kind| kind.counted).copied().collect()
    }
}

/// IPv4 datagrams to the node's own port of signalling, from whomever, that the rules have let pass and have dropped.
fn signalling(node: &Daemon) -> (u64, u64) {
    let counters = node.ask("counters");
    let rules = counters["rules"].as_array().unwrap();
    let of = |name: &[&str]| -> u64 {
        let such = rules.iter().filter(|rule| rule["family"] == "ip" && rule["chain"] == "in-signalling");
        such.filter(|rule| name.contains(&rule["rule"].as_str().unwrap())).map(|rule| rule["packets"].as_u64().unwrap()).sum()
    };
    (of(&["of a peer", "within the bucket"]), of(&["above the bucket"]))
}
