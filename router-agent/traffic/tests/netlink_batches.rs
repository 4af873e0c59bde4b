//! Batches of any length: the kernel's answers do not fill the socket, and an error names its request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod routing;
mod ruleset;

use namespace::{B4, Namespace, pair, privileged};
use routing::{MARKED, Route, main_routes, routes};
use ruleset::{GET_RULE, IPV4, NEW_CHAIN, NEW_RULE, NEW_TABLE, in_one_piece};
use traffic::netlink::{APPEND, Batch, CREATE, Errno, NetlinkError, Protocol, Socket};
use traffic::routes::MtuPlan;

/// A table with so many rules, in one piece; the one at `wrong` is none.
fn rules(count: usize, wrong: Option<usize>) -> Batch {
    in_one_piece("set rules", |batch| {
        batch.request("table", NEW_TABLE, CREATE, &IPV4, |writer| writer.put_text(1, "test"));
        batch.request("chain", NEW_CHAIN, CREATE, &IPV4, |writer| {
            writer.put_text(1, "test");
            writer.put_text(3, "chain");
        });
        for number in 0..count {
            batch.request(format!("rule {number}"), NEW_RULE, CREATE | APPEND, &IPV4, |writer| {
                writer.put_text(1, "test");
                writer.put_text(2, "chain");
                writer.nest(4, |list| {
                    list.nest(1, |element| {
                        element.put_text(1, if wrong == Some(number) { "nothing" } else { "counter" });
                        element.nest(2, |_| {});
                    });
                });
            });
        }
    })
}

fn standing(socket: &Socket) -> usize {
    socket.dump("rules", GET_RULE, &IPV4, |_| {}, |message| Ok((message.kind == NEW_RULE).then_some(()))).unwrap().len()
}

#[test]
fn thousands_of_filter_rules_are_set_in_one_piece_or_not_at_all() {
    if !privileged() {
        return;
    }
    for count in [300, 6000] {
        Namespace::new().run(|| {
            let socket = Socket::open(Protocol::Netfilter).unwrap();
            let error = socket.transact(rules(count, Some(count / 2))).unwrap_err();
            assert!(matches!(&error, NetlinkError::Refused { what, .. } if *what == format!("rule {}", count / 2)), "{error}");
            assert_eq!(standing(&socket), 0);
            // The same socket, right after a refusal.
            socket.transact(rules(count, None)).unwrap();
            assert_eq!(standing(&socket), count);
        });
    }
}

#[test]
fn what_no_buffer_takes_is_refused_with_its_length() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        let mut batch = Batch::new("set too much");
        for _ in 0..2200 {
            batch.request("rule", NEW_RULE, CREATE, &IPV4, |writer| writer.put(1, &[0; 65_000]));
        }
        let error = Socket::open(Protocol::Netfilter).unwrap().transact(batch).unwrap_err();
        assert!(
            matches!(&error, NetlinkError::BatchTooLong { what, octets } if what == "set too much" && *octets > 143_000_000),
            "{error}"
        );
    });
}

#[test]
fn thousands_of_routes_are_lowered_and_given_back() {
    if !privileged() {
        return;
    }
    const PLAN: MtuPlan = MtuPlan::new(28, 32);
    let (a, _b) = pair(1500);
    a.run(|| {
        for number in 0..3000 {
            let destination = format!("10.{}.{}.0", number / 250, number % 250);
            Route { destination: &destination, prefix: 24, via: Some(B4), ..Route::default() }.add();
        }
        let before = main_routes("");
        assert_eq!(PLAN.apply().unwrap().lowered.len(), 3002);
        assert_eq!(main_routes("10.").iter().filter(|line| line.ends_with("mtu 1472")).count(), 3000);
        assert_eq!(routes(MARKED), before);
        PLAN.restore().unwrap();
        assert_eq!((main_routes(""), routes(MARKED)), (before, vec![]));
    });
}

#[test]
fn each_route_that_is_refused_is_known_and_the_others_are_set() {
    if !privileged() {
        return;
    }
    Namespace::new().run(|| {
        let socket = Socket::open(Protocol::Route).unwrap();
        let mut batch = Batch::new("routes");
        for number in 0..300u32 {
            // Loopback takes them; a link that is not there does not.
            let link = if number == 120 { 99 } else { 1 };
            batch.request(format!("route {number}"), 24, CREATE, &[2, 32, 0, 0, 254, 4, 253, 1, 0, 0, 0, 0], |writer| {
                writer.put(1, &(0x0a00_0000 + number).to_be_bytes());
                writer.put_u32(4, link);
            });
        }
        let error = socket.transact(batch).unwrap_err();
        assert!(matches!(&error, NetlinkError::Refused { what, errno: Errno::ENODEV, .. } if what == "route 120"), "{error}");
        assert_eq!(main_routes("10.").len(), 299);
    });
}
