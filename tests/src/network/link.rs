//! Links, addresses and routes, set through netlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};
use traffic::netlink::{Protocol, Socket, attributes};

use super::namespace::Namespace;

/// Numbers of rtnetlink(7): the request, two attributes of a link, and the state.
const GET_LINK: u16 = 18;
const NAME: u16 = 3;
const OPERATIONAL_STATE: u16 = 16;
const UP: u8 = 6;
/// How long an interface may take until it carries packets.
const RUNNING_LIMIT: Duration = Duration::from_secs(5);

/// One end of a link.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// The host.
    pub host: &'a Namespace,
    /// Name of the interface on that host.
    pub interface: &'a str,
    /// Addresses with prefix lengths.
    pub addresses: &'a [(IpAddr, u8)],
}

/// Joins two hosts by a veth pair with an MTU of `mtu` bytes and brings both ends up.
pub fn join(left: End<'_>, right: End<'_>, mtu: u32) -> io::Result<()> {
    let (left_name, right_name, right_host) = (left.interface.to_owned(), right.interface.to_owned(), right.host.raw_handle());
    left.host.run_async(|| async move {
        let netlink = open()?;
        netlink.link().add(LinkVeth::new(&left_name, &right_name).mtu(mtu).build()).execute().await.map_err(io::Error::other)?;
        let away = LinkUnspec::new_with_name(&right_name).mtu(mtu).setns_by_fd(right_host).build();
        netlink.link().set(away).execute().await.map_err(io::Error::other)
    })?;
    for end in [left, right] {
        bring_up(end.host, end.interface)?;
        for &(address, prefix) in end.addresses {
            add_address(end.host, end.interface, address, prefix)?;
        }
    }
    [left, right].iter().try_for_each(|end| await_running(end.host, end.interface))
}

/// Joins hosts by one link that all of them are on: `lan`, where only that is. What hosts say to each other passes through it
/// unchanged.
pub fn join_all(lan: &Namespace, ends: &[End<'_>], mtu: u32) -> io::Result<()> {
    const BRIDGE: &str = "lan";
    lan.write_setting("net/ipv6/conf/all/disable_ipv6", "1")?;
    lan.write_setting("net/ipv6/conf/default/disable_ipv6", "1")?;
    add_switch(lan, BRIDGE)?;
    for (number, end) in ends.iter().enumerate() {
        let port = format!("port{number}");
        join(*end, End { host: lan, interface: &port, addresses: &[] }, mtu)?;
        plug_in(lan, &port, BRIDGE)?;
    }
    Ok(())
}

/// Makes a switch of a host: what comes in by one of the interfaces plugged into it goes out where it belongs.
pub fn add_switch(host: &Namespace, switch: &str) -> io::Result<()> {
    host.run_async(|| async move { open()?.link().add(LinkBridge::new(switch).up().build()).execute().await.map_err(io::Error::other) })
}

/// Plugs an interface into a switch of the same host.
pub fn plug_in(host: &Namespace, interface: &str, switch: &str) -> io::Result<()> {
    let index = host.run(|| nix::net::if_::if_nametoindex(switch).map_err(io::Error::from))?;
    set(host, LinkUnspec::new_with_name(interface).controller(index))
}

/// Waits until the kernel has noticed that the other end is up as well. It looks about once a second, and until then whatever is
/// sent on the interface is silently lost.
fn await_running(host: &Namespace, interface: &str) -> io::Result<()> {
    let deadline = Instant::now() + RUNNING_LIMIT;
    while !host.run(|| is_running(interface))? {
        if Instant::now() > deadline {
            return Err(io::Error::other(format!("{interface} of {} does not come up", host.name())));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // The state shows a moment before the interface really sends. A change, even one to nothing new, waits for the same lock.
    bring_up(host, interface)
}

/// Whether an interface of the calling thread's namespace is in operational state "up" (RFC 2863 §3.1.14).
fn is_running(interface: &str) -> io::Result<bool> {
    let socket = Socket::open(Protocol::Route).map_err(io::Error::other)?;
    let up = socket.dump(
        "list the links",
        GET_LINK,
        &[0; 16],
        |_| {},
        |message| {
            let rest = message.after(16)?;
            let name = attributes(rest).find(NAME)?.map(|name| name.text()).transpose()?;
            let state = attributes(rest).find(OPERATIONAL_STATE)?.map(|state| state.u8()).transpose()?;
            Ok((name == Some(interface)).then_some(state == Some(UP)))
        },
    );
    Ok(up.map_err(io::Error::other)?.contains(&true))
}

/// Brings an interface up.
pub fn bring_up(host: &Namespace, interface: &str) -> io::Result<()> {
    set(host, LinkUnspec::new_with_name(interface).up())
}

/// Takes an interface down.
pub fn take_down(host: &Namespace, interface: &str) -> io::Result<()> {
    set(host, LinkUnspec::new_with_name(interface).down())
}

/// Changes what an interface carries.
pub fn set_mtu(host: &Namespace, interface: &str, mtu: u32) -> io::Result<()> {
    set(host, LinkUnspec::new_with_name(interface).mtu(mtu))
}

/// Lets an interface send every packet as it would be on a wire: with its checksum, and no longer than the MTU. Otherwise captures show
/// what the kernel would have segmented later.
pub fn finish_packets(host: &Namespace, interface: &str) -> io::Result<()> {
    host.run(|| super::sys::finish_packets(interface))
}

/// Adds a default route for the family of `gateway`.
pub fn add_default_route(host: &Namespace, gateway: IpAddr) -> io::Result<()> {
    host.run_async(|| async move {
        let netlink = open()?;
        let message = match gateway {
            IpAddr::V4(gateway) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().gateway(gateway).build(),
            IpAddr::V6(gateway) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().gateway(gateway).build(),
        };
        netlink.route().add(message).execute().await.map_err(io::Error::other)
    })
}

/// Adds a route to a network, given with the length of its prefix, or leads it over another gateway of the same IP version.
pub fn set_route(host: &Namespace, (network, prefix): (IpAddr, u8), gateway: IpAddr) -> io::Result<()> {
    let message = match (network, gateway) {
        (IpAddr::V4(network), IpAddr::V4(gateway)) => {
            RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(network, prefix).gateway(gateway).build()
        }
        (IpAddr::V6(network), IpAddr::V6(gateway)) => {
            RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(network, prefix).gateway(gateway).build()
        }
        _ => return Err(io::Error::other("a route has network and gateway of one IP version")),
    };
    host.run_async(|| async move { open()?.route().add(message).replace().execute().await.map_err(io::Error::other) })
}

/// Index and hardware address of an interface.
pub fn identify(host: &Namespace, interface: &str) -> io::Result<(u32, [u8; 6])> {
    host.run(|| {
        let index = nix::net::if_::if_nametoindex(interface)?;
        let text = nix::ifaddrs::getifaddrs()?
            .filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address?.as_link_addr()?.addr())
            .ok_or_else(|| io::Error::other(format!("{interface} has no hardware address")))?;
        Ok((index, text))
    })
}

fn set(host: &Namespace, link: rtnetlink::LinkMessageBuilder<LinkUnspec>) -> io::Result<()> {
    let message = link.build();
    host.run_async(|| async move { open()?.link().set(message).execute().await.map_err(io::Error::other) })
}

/// Adds an address with the length of its prefix.
pub fn add_address(host: &Namespace, interface: &str, address: IpAddr, prefix: u8) -> io::Result<()> {
    host.run_async(|| async move {
        let index = nix::net::if_::if_nametoindex(interface)?;
        open()?.address().add(index, address, prefix).execute().await.map_err(io::Error::other)
    })
}

/// A netlink connection into the namespace of the calling thread.
fn open() -> io::Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}
