//! Routes and routing rules for tests: as they are asked for, and as the kernel lists them.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::net::IpAddr;

use traffic::netlink::{APPEND, Attribute, CREATE, EXCLUSIVE, Protocol, Socket, attributes};

use crate::namespace::{index, octets, route_request};

pub const MAIN: u32 = 254;
pub const MARKED: u32 = traffic::routes::TABLE;

const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;
const NEW_RULE: u16 = 32;
const GET_RULE: u16 = 34;

/// A route to be added.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    pub destination: &'a str,
    pub prefix: u8,
    pub via: Option<&'a str>,
    pub link: Option<&'a str>,
    pub table: u32,
    pub metric: Option<u32>,
    pub mtu: Option<u32>,
    pub locked: bool,
    pub expires: Option<u32>,
    pub protocol: u8,
    /// 1 unicast, 6 blackhole.
    pub kind: u8,
}

impl Default for Route<'_> {
    fn default() -> Self {
        Self {
            destination: "0.0.0.0",
            prefix: 0,
            via: None,
            link: None,
            table: MAIN,
            metric: None,
            mtu: None,
            locked: false,
            expires: None,
            protocol: 4,
            kind: 1,
        }
    }
}

impl Route<'_> {
    /// Adds it in the calling thread's namespace, behind those that stand.
    pub fn add(&self) {
        self.request(NEW_ROUTE, CREATE | APPEND);
    }

    /// Puts it in the place of one that stands.
    pub fn replace(&self) {
        self.request(NEW_ROUTE, CREATE | traffic::netlink::REPLACE);
    }

    /// Removes it.
    pub fn remove(&self) {
        self.request(25, 0);
    }

    fn request(&self, kind: u16, flags: u16) {
        let destination: IpAddr = self.destination.parse().unwrap();
        let family = if destination.is_ipv4() { 2 } else { 10 };
        let scope = if self.via.is_none() && destination.is_ipv4() && self.kind == 1 { 253 } else { 0 };
        let fixed = [family, self.prefix, 0, 0, 0, self.protocol, scope, self.kind, 0, 0, 0, 0];
        route_request("change a route", kind, flags, &fixed, |writer| {
            writer.put_u32(15, self.table);
            if self.prefix > 0 {
                writer.put(1, &octets(destination));
            }
            if let Some(link) = self.link {
                writer.put_u32(4, index(link));
            }
            if let Some(via) = self.via {
                writer.put(5, &octets(via.parse().unwrap()));
            }
            if let Some(metric) = self.metric {
                writer.put_u32(6, metric);
            }
            if let Some(mtu) = self.mtu {
                writer.nest(8, |metrics| {
                    if self.locked {
                        metrics.put_u32(1, 1 << 2);
                    }
                    metrics.put_u32(2, mtu);
                });
            }
            if let Some(expires) = self.expires {
                writer.put_u32(23, expires);
            }
        });
    }
}

/// The routes of a table in the calling thread's namespace, in the kernel's order, IPv4 first; expiry in tens of seconds.
/// Link-local and multicast ones are left out.
pub fn routes(table: u32) -> Vec<String> {
    let mut lines = Vec::new();
    for family in [2u8, 10] {
        let mut fixed = [0; 12];
        fixed[0] = family;
        let listed = Socket::open(Protocol::Route).unwrap().dump(
            "routes",
            GET_ROUTE,
            &fixed,
            |_| {},
            |message| {
                let fixed = *message.fixed::<12>()?;
                let find = |kind: u16| attributes(message.after(12).unwrap()).find(kind).unwrap();
                let number = |kind: u16| find(kind).map(|attribute| attribute.u32().unwrap());
                let destination = find(1).map_or_else(|| "default".to_owned(), |to| format!("{}/{}", address(&to), fixed[1]));
                if message.kind != NEW_ROUTE
                    || number(15) != Some(table)
                    || ["fe80", "ff00"].iter().any(|start| destination.starts_with(start))
                {
                    return Ok(None);
                }
                let mut line = destination;
                if fixed[7] != 1 {
                    line += &format!(" type {}", fixed[7]);
                }
                if let Some(via) = find(5) {
                    line += &format!(" via {}", address(&via));
                }
                if let Some(link) = number(4) {
                    line += &format!(" dev {}", name(link));
                }
                line += &format!(" proto {}", fixed[5]);
                if let Some(metric) = number(6) {
                    line += &format!(" metric {metric}");
                }
                if let Some(metrics) = find(8) {
                    for metric in metrics.nested().map(Result::unwrap) {
                        match metric.kind {
                            1 => line += &format!(" lock {:#x}", metric.u32()?),
                            2 => line += &format!(" mtu {}", metric.u32()?),
                            _ => {}
                        }
                    }
                }
                if let Some(expires) = find(12).map(|info| i32::from_ne_bytes(info.value[8..12].try_into().unwrap())).filter(|at| *at != 0)
                {
                    line += &format!(" expires {}", (expires + 500) / 1000);
                }
                Ok(Some(line))
            },
        );
        lines.extend(listed.unwrap());
    }
    lines
}

/// The main table's routes with this beginning.
pub fn main_routes(start: &str) -> Vec<String> {
    routes(MAIN).into_iter().filter(|line| line.starts_with(start)).collect()
}

/// A routing rule to be added: priority, mark (inverted or not), table, and whether default routes do not count.
pub fn add_rule(family: u8, priority: u32, not_mark: Option<u32>, table: u32, no_default: bool) {
    const INVERTED: u32 = 2;
    let mut fixed = [family, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    if not_mark.is_some() {
        fixed[8..12].copy_from_slice(&INVERTED.to_ne_bytes());
    }
    route_request("add a rule", NEW_RULE, CREATE | EXCLUSIVE, &fixed, |writer| {
        writer.put_u32(6, priority);
        writer.put_u32(15, table);
        if let Some(mark) = not_mark {
            writer.put_u32(10, mark);
        }
        if no_default {
            writer.put_u32(14, 0);
        }
    });
}

/// Priorities and tables of the rules of a family.
pub fn rules(family: u8) -> Vec<(u32, u32)> {
    let mut fixed = [0; 12];
    fixed[0] = family;
    let listed = Socket::open(Protocol::Route).unwrap().dump(
        "rules",
        GET_RULE,
        &fixed,
        |_| {},
        |message| {
            let number = |kind: u16| attributes(message.after(12).unwrap()).find(kind).unwrap().map(|attribute| attribute.u32().unwrap());
            Ok((message.kind == NEW_RULE).then(|| (number(6).unwrap_or(0), number(15).unwrap_or(0))))
        },
    );
    listed.unwrap()
}

fn address(attribute: &Attribute<'_>) -> IpAddr {
    match *attribute.value {
        [a, b, c, d] => [a, b, c, d].into(),
        _ => <[u8; 16]>::try_from(attribute.value).unwrap().into(),
    }
}

fn name(link: u32) -> String {
    nix::net::if_::if_indextoname(link).unwrap().into_string().unwrap()
}
