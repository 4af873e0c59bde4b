//! Routes from IPv6 router advertisements: the kernel's own stays as it is, and what is sent goes by its shadow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod namespace;
mod raw;
mod routing;

use namespace::{Namespace, SOON, address, eventually, forbid_fragments, link, privileged, receive};
use nix::sys::socket::{setsockopt, sockopt};
use raw::Raw;
use routing::{MAIN, MARKED, Route, main_routes, routes};
use traffic::routes::{Left, MtuPlan, Routes, Why};

const PLAN: MtuPlan = MtuPlan::new(28, 32);
const ROUTERS: [&str; 2] = ["fe80::b", "fe80::c"];
/// An address of both routers, behind the default route.
const FAR: &str = "2001:db8:ffff::1";

/// A host without any address but what routers advertise, and a router on the link.
fn host_and_router() -> (Namespace, Namespace) {
    let (a, b) = (Namespace::new(), Namespace::new());
    link(1500, (&a, "left", &[("fe80::a", 64)]), (&b, "right", &[(ROUTERS[0], 64), (ROUTERS[1], 64), (FAR, 128), ("2001:db8::ffff", 64)]));
    // Asked for its address, it must say that it is a router, or the host forgets the routes through it.
    b.sysctl("net/ipv6/conf/right/forwarding", "1");
    (a, b)
}

/// Sends a router advertisement: prefix 2001:db8::/64 and a default route for so many seconds, with the router's preference (0
/// medium, 1 high).
fn advertise(b: &Namespace, router: &str, seconds: u16, preference: u8, mtu: Option<u32>) {
    let [high, low] = seconds.to_be_bytes();
    let mut message = vec![134, 0, 0, 0, 64, preference << 3, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    message.extend([3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0]);
    message.extend([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    if let Some(mtu) = mtu {
        message.extend([5, 1, 0, 0]);
        message.extend(mtu.to_be_bytes());
    }
    let mut packet = raw::packet((router, "ff02::1"), 58, message, 2);
    packet[7] = 255;
    b.run(|| Raw::open(router).send(&packet));
}

fn defaults() -> Vec<String> {
    main_routes("default")
}

/// The advertised default route is there, and so is an address.
fn wait_for(a: &Namespace, routers: usize) {
    a.run(|| {
        eventually("the routes come", || {
            defaults().iter().filter(|line| line.contains("proto 9")).count() == routers && !main_routes("2001:db8::/64").is_empty()
        });
    });
}

#[test]
fn a_host_that_learns_its_default_route_sends_packets_that_fit_with_ah() {
    if !privileged() {
        return;
    }
    let (a, b) = host_and_router();
    advertise(&b, ROUTERS[0], 1800, 0, None);
    wait_for(&a, 1);
    let before = a.run(|| routes(MAIN));
    let outcome = a.run(|| PLAN.apply().unwrap());
    assert_eq!(outcome.left, []);
    assert_eq!(
        a.run(defaults),
        [
            "default via fe80::b dev left proto 80 metric 1023 mtu 1468 expires 180",
            "default via fe80::b dev left proto 9 metric 1024 expires 180"
        ]
    );
    let kept = a.run(|| routes(MARKED));
    assert!(kept.contains(&"default via fe80::b dev left proto 80 metric 1023".into()), "{kept:?}");
    let receiver = b.udp(address(FAR, 5001));
    let sender = a.udp(address("::", 5000));
    forbid_fragments(&sender);
    for (mark, fits) in [(0, 1420), (PLAN.mark, 1452)] {
        setsockopt(&sender, sockopt::Mark, &mark).unwrap();
        assert_eq!(sender.send_to(&vec![1; fits + 1], address(FAR, 5001)).unwrap_err().raw_os_error(), Some(nix::libc::EMSGSIZE));
        sender.send_to(&vec![1; fits], address(FAR, 5001)).unwrap();
        assert_eq!(receive(&receiver, SOON).unwrap().len(), fits);
    }
    a.run(|| PLAN.restore().unwrap());
    assert_eq!(a.run(|| routes(MAIN)), before);
}

#[test]
fn a_shadow_follows_what_routers_advertise() {
    if !privileged() {
        return;
    }
    let (a, b) = host_and_router();
    let mut kept = a.run(|| Routes::open(PLAN).unwrap());
    let mut apply = || {
        let outcome = kept.apply().unwrap();
        assert_eq!(outcome.left, []);
        a.run(defaults).into_iter().filter(|line| line.contains("proto 80")).collect::<Vec<_>>()
    };
    assert_eq!(apply(), [""; 0]);
    advertise(&b, ROUTERS[0], 1800, 0, None);
    wait_for(&a, 1);
    assert_eq!(apply(), ["default via fe80::b dev left proto 80 metric 1023 mtu 1468 expires 180"]);
    // A later end is not announced by the kernel.
    advertise(&b, ROUTERS[0], 9000, 0, None);
    a.run(|| eventually("the end moves", || defaults()[1].ends_with("expires 900")));
    assert_eq!(apply(), ["default via fe80::b dev left proto 80 metric 1023 mtu 1468 expires 900"]);
    // Of two routers the one that says so is preferred, and packets do not take turns.
    advertise(&b, ROUTERS[1], 9000, 1, None);
    wait_for(&a, 2);
    let both = [
        "default via fe80::c dev left proto 80 metric 1022 mtu 1468 expires 900",
        "default via fe80::b dev left proto 80 metric 1023 mtu 1468 expires 900",
    ];
    assert_eq!(apply(), both);
    assert_eq!(apply(), both);
    // The link's MTU, as a router says it.
    advertise(&b, ROUTERS[1], 9000, 1, Some(1400));
    a.run(|| eventually("the MTU changes", || defaults().iter().any(|line| line.contains("proto 9") && line.contains("mtu 1400"))));
    assert_eq!(apply(), both.map(|line| line.replace("1468", "1368")));
    for router in ROUTERS {
        advertise(&b, router, 0, 0, None);
    }
    a.run(|| eventually("the routes go", || defaults().iter().all(|line| !line.contains("proto 9"))));
    assert_eq!(apply(), [""; 0]);
    assert!(a.run(|| routes(MARKED)).iter().all(|line| !line.starts_with("default")));
}

#[test]
fn a_shadow_does_not_stand_before_a_route_that_was_preferred() {
    if !privileged() {
        return;
    }
    let (a, b) = host_and_router();
    advertise(&b, ROUTERS[0], 1800, 0, None);
    wait_for(&a, 1);
    let outcome = a.run(|| {
        Route { destination: "::", via: Some(ROUTERS[1]), link: Some("left"), metric: Some(1023), ..Route::default() }.add();
        PLAN.apply().unwrap()
    });
    assert_eq!(outcome.left, [Left { route: "::/0".into(), why: Why::Advertised }]);
    assert_eq!(a.run(defaults).len(), 2);
}
