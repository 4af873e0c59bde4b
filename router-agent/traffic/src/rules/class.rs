//! What passes a node without permission: the list of X-58, and nothing beyond it.
//!
//! On a host it is exempt from the queues in both directions; on a router it is all that reaches the router itself.

use std::borrow::Cow;

use super::exempt::{At, Exempt};
use super::expression::{
    Expression, answers_opening, destination_port, host, icmp_types, interface, opens, opens_nothing, protocol, resets, source_port,
};
use super::key::{Key, QUOTE};
use super::peers::{self, Openings};
use super::plan::{Bucket, Chain, Exemptions, Family, Interface, Rule, Table};
use super::{ASSOCIATION_MARK, GIST_PORT, HostRules, LISTENER_MARK};

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const AH: u8 = 51;
const ICMPV6: u8 = 58;

/// Which way a packet goes, seen from the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

impl Way {
    /// The interface on which the packet meets the others.
    pub(super) const fn interface(self) -> Interface {
        match self {
            Self::Out => Interface::Leaving,
            Self::In => Interface::Arriving,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::In => "in",
        }
    }
}

/// The list as a node is configured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Listed<'a> {
    pub(super) association_port: u16,
    /// The bits of an association's mark that say by which way it leaves, and not what it is.
    pub(super) path_mark: u32,
    pub(super) exemptions: Exemptions,
    pub(super) exempt: &'a [Exempt],
}

/// One kind of packet on the list, with a bucket of its own for each way.
struct Class {
    name: Cow<'static, str>,
    bucket: Bucket,
    /// Which packets it is; any of the tests suffices.
    tests: Vec<Vec<Expression>>,
}

impl Listed<'_> {
    /// The rules of a base chain that send each kind to its bucket. The chains of the buckets are added to `table`.
    pub(super) fn rules(&self, way: Way, table: &mut Table) -> Vec<Rule> {
        let mut rules = Vec::new();
        for class in self.classes(way, table.family) {
            let chain: Cow<'static, str> = format!("{}-{}", way.word(), class.name.replace(' ', "-")).into();
            table.add_bucket(chain.clone(), class.bucket, way.interface(), Expression::Accept);
            rules.extend(class.tests.into_iter().map(|test| Rule::new(class.name.clone(), [test, vec![Expression::Jump(chain.clone())]])));
        }
        let chain = match way {
            Way::Out => "out-signalling",
            Way::In => "in-signalling",
        };
        peers::signalling(chain, way.interface(), &self.exemptions, Expression::Accept, table);
        if way == Way::Out {
            table.put_first(chain, [peers::written_to(Vec::new(), table.family)]);
        }
        rules.extend(self.association(way, table));
        rules
    }

    fn classes(&self, way: Way, family: Family) -> Vec<Class> {
        let buckets = self.exemptions;
        let class = |name: &'static str, bucket, tests| Class { name: name.into(), bucket, tests };
        let mut classes = vec![class("signalling", buckets.signalling, signalling(way))];
        if way == Way::In {
            classes.push(class("icmp errors", buckets.icmp_errors, self.errors_about_associations(family)));
        }
        match family {
            Family::Ipv4 => {
                classes.push(class("dhcp", buckets.dhcp, client_and_server(way, 68, 67)));
            }
            Family::Ipv6 => {
                classes.push(class("dhcp", buckets.dhcp, client_and_server(way, 546, 547)));
                classes.push(class("neighbour discovery", buckets.neighbour_discovery, neighbour_discovery()));
            }
        }
        classes.extend(self.exempt.iter().filter(|exempt| exempt.at != At::Beyond).filter_map(|exempt| {
            let tests = vec![exempt.test(way, family)?];
            Some(Class { name: format!("exempt {}", exempt.name).into(), bucket: exempt.bucket, tests })
        }));
        classes
    }

    /// ICMP errors about the node's own associations, without which those would not learn the path's MTU. Any other needs a
    /// permission, like the packet it speaks of, and no error leaves a host in the clear.
    ///
    /// TCP believes an error only if the quoted sequence number is one of data under way (RFC 5927 §4), so that posing as a router
    /// takes to see or to guess the association. Nothing of the kind guards UDP, and signalling by UDP has no use for errors: its
    /// messages are smaller than any link's MTU (G-055), and what is lost is sent again.
    fn errors_about_associations(&self, family: Family) -> Vec<Vec<Expression>> {
        // Behind the ICMP header stands the IP header of the packet in question. One with options is not taken for signalling.
        let (errors, mask, form, protocol_at, ports_at) = match family {
            Family::Ipv4 => (icmp_errors(), 0xff, 0x45, QUOTE + 9, QUOTE + 20),
            Family::Ipv6 => (icmpv6_errors(), 0xf0, 0x60, QUOTE + 6, QUOTE + 40),
        };
        let octets = |offset, value: &[u8]| {
            let len = u32::try_from(value.len()).unwrap_or(0);
            vec![Expression::LoadTransport { offset, len }, Expression::Equal(value.to_vec())]
        };
        let about = |at| [octets(protocol_at, &[TCP]), octets(at, &self.association_port.to_be_bytes())].concat();
        let quoted = [about(ports_at), about(ports_at + 2)];
        let form_of_header =
            vec![Expression::LoadTransport { offset: QUOTE, len: 1 }, Expression::Mask(vec![mask]), Expression::Equal(vec![form])];
        errors.iter().flat_map(|error| quoted.iter().map(|quote| [error.clone(), form_of_header.clone(), quote.clone()].concat())).collect()
    }

    /// Segments of associations: to the peer's port at either end, and only of sockets with [`ASSOCIATION_MARK`] or
    /// [`LISTENER_MARK`], which no unprivileged program has. Those *from* the port pass only if they belong to a connection that
    /// goes to it: otherwise whoever uses the port as its source could connect to any service.
    fn association(&self, way: Way, table: &mut Table) -> Vec<Rule> {
        let (authenticated, handshake) = match way {
            Way::Out => ("out-association", "out-handshake"),
            Way::In => ("in-association", "in-handshake"),
        };
        let buckets = self.exemptions;
        table.add_buckets(authenticated, buckets.association, Key::Connection(way.interface()), Expression::Accept, None);
        let to = [protocol(TCP), destination_port(self.association_port)].concat();
        let from = [protocol(TCP), source_port(self.association_port), opens_nothing()].concat();
        match way {
            Way::Out => {
                table.add_bucket(handshake, buckets.handshakes, way.interface(), Expression::Accept);
                let unasked = unasked_resets(self.association_port, self.path_mark, buckets.resets, table);
                let marked = |mark, chain: &'static str| {
                    let test = [Expression::Equal(host(mark)), Expression::Jump(chain.into())];
                    [&but_for_ways(Expression::LoadMark, self.path_mark)[..], &test].concat()
                };
                let rules = [
                    (to, ASSOCIATION_MARK, authenticated),
                    (from.clone(), ASSOCIATION_MARK, authenticated),
                    (from, LISTENER_MARK, handshake),
                ];
                let rules = rules.map(|(test, mark, chain)| Rule::new("association", [test, marked(mark, chain)]));
                let answers = answered_openings(self.association_port, self.path_mark, buckets, table);
                [unasked, answers].into_iter().chain(rules).collect()
            }
            Way::In => {
                table.put_first(authenticated, [peers::speaks(table.family)]);
                let opening = arriving_openings(buckets, table);
                table.add_buckets(handshake, buckets.handshakes, Key::Connection(way.interface()), Expression::Accept, None);
                let listener = arrives_at_the_listener(buckets, table);
                const SOCKET: &str = "in-association-socket";
                table.chains.push(of_marked_sockets(SOCKET, self.path_mark, authenticated, opening, listener, handshake));
                [to, from].map(|test| Rule::new("association", [test, vec![Expression::Jump(SOCKET.into())]])).into()
            }
        }
    }
}

/// Segments with which the kernel answers, from the port of associations, what belongs to no connection: it sends as many as come,
/// to whom they name as their source, with a sequence number of the sender's choice. They carry the mark of the listener or none.
pub(super) fn unasked_resets(association_port: u16, path_mark: u32, bucket: Bucket, table: &mut Table) -> Rule {
    const CHAIN: &str = "out-resets";
    table.add_bucket(CHAIN, bucket, Interface::Leaving, Expression::Accept);
    let mut not_authenticated = but_for_ways(Expression::LoadMark, path_mark);
    not_authenticated.push(Expression::Unequal(host(ASSOCIATION_MARK)));
    let to_chain = vec![Expression::Jump(CHAIN.into())];
    Rule::new("resets", [protocol(TCP), source_port(association_port), resets(), not_authenticated, to_chain])
}

/// Adds the chains for segments that open associations, and answers the name of the first. Strangers share by source, then by network, then
/// all; those written to have the same once more, apart; a peer has its own.
fn arriving_openings(buckets: Exemptions, table: &mut Table) -> &'static str {
    const STRANGERS: [&str; 3] = ["in-opening", "in-openings-network", "in-openings"];
    const WRITTEN_TO: [&str; 3] = ["in-opening-written-to", "in-openings-written-to-network", "in-openings-written-to"];
    const OF_A_PEER: &str = "in-opening-peer";
    let (arriving, family) = (Interface::Arriving, table.family);
    let strangers = (STRANGERS, Key::Source(arriving), buckets.of_one(family));
    let written_to = (WRITTEN_TO, Key::Peer(arriving), buckets.openings_of_one);
    for ([of_one, of_a_network, all], key, bucket) in [strangers, written_to] {
        table.add_bucket(all, buckets.openings, arriving, Expression::Accept);
        let next = Expression::Jump(all.into());
        table.add_buckets(of_a_network, buckets.openings_of_a_network, Key::SourceNetwork(arriving), next, Some(all));
        table.add_buckets(of_one, bucket, key, Expression::Jump(of_a_network.into()), Some(all));
    }
    let [opening, .., all] = STRANGERS;
    table.add_buckets(OF_A_PEER, buckets.openings_of_one, Key::Peer(arriving), Expression::Accept, Some(all));
    let known = Openings { of_a_peer: OF_A_PEER, of_one_written_to: "in-opening-written-to" };
    table.put_first(opening, peers::openings(known, arriving, family));
    opening
}

/// The same for segments of no connection: the last of an opening by SYN cookie is one.
fn arrives_at_the_listener(buckets: Exemptions, table: &mut Table) -> &'static str {
    const LISTENER: &str = "in-listener";
    const OF_ONE_KNOWN: &str = "in-listener-known";
    const OTHERS: &str = "in-listener-others";
    let arriving = Interface::Arriving;
    table.add_bucket(OTHERS, buckets.listener, arriving, Expression::Accept);
    table.add_buckets(LISTENER, buckets.listener, Key::Source(arriving), Expression::Accept, Some(OTHERS));
    table.add_buckets(OF_ONE_KNOWN, buckets.listener, Key::Peer(arriving), Expression::Accept, Some(OTHERS));
    let known = Openings { of_a_peer: OF_ONE_KNOWN, of_one_written_to: OF_ONE_KNOWN };
    table.put_first(LISTENER, peers::openings(known, arriving, table.family));
    LISTENER
}

/// Segments with which the kernel answers what opens associations, in whoever's name: again and again, if nobody goes on. So they are
/// few to each address, and to each network of addresses, however many it has; as many once more to addresses of it that were written to,
/// so that nobody else keeps their answers back. A peer's have no bucket but that of its address.
pub(super) fn answered_openings(association_port: u16, path_mark: u32, buckets: Exemptions, table: &mut Table) -> Rule {
    const TO_ONE: &str = "out-opening";
    const TO_A_NETWORK: &str = "out-openings";
    const TO_ONE_WRITTEN_TO: &str = "out-opening-written-to";
    const TO_ITS_NETWORK: &str = "out-openings-written-to";
    const TO_A_PEER: &str = "out-opening-peer";
    let (leaving, family) = (Interface::Leaving, table.family);
    let strangers = (TO_ONE, TO_A_NETWORK, Key::Destination(leaving), buckets.of_one(family));
    let written_to = (TO_ONE_WRITTEN_TO, TO_ITS_NETWORK, Key::Peer(leaving), buckets.openings_of_one);
    for (to_one, to_a_network, key, bucket) in [strangers, written_to] {
        let network = Key::DestinationNetwork(leaving);
        table.add_buckets(to_a_network, buckets.openings_of_a_network, network, Expression::Accept, None);
        table.add_buckets(to_one, bucket, key, Expression::Jump(to_a_network.into()), None);
    }
    table.add_buckets(TO_A_PEER, buckets.openings_of_one, Key::Peer(leaving), Expression::Accept, None);
    let known = Openings { of_a_peer: TO_A_PEER, of_one_written_to: TO_ONE_WRITTEN_TO };
    table.put_first(TO_ONE, peers::openings(known, leaving, family));
    let mut listeners = but_for_ways(Expression::LoadMark, path_mark);
    listeners.push(Expression::Equal(host(LISTENER_MARK)));
    let to_chain = vec![Expression::Jump(TO_ONE.into())];
    Rule::new("answers to openings", [protocol(TCP), source_port(association_port), answers_opening(), listeners, to_chain])
}

/// A mark without the bits of ways out, which may be any.
fn but_for_ways(mark: Expression, path_mark: u32) -> Vec<Expression> {
    let mask = (path_mark != 0).then(|| Expression::Mask(host(!path_mark)));
    std::iter::once(mark).chain(mask).collect()
}

/// Goes on in one of the chains for packets to a socket of signalling, and back for others. What everybody can send goes by other
/// buckets than what belongs to an association whose peer is authenticated, and what belongs to no connection by others than
/// what belongs to one. The listener itself is known by having no local address, which each connection has from its first
/// segment on, accepted or not.
///
/// The kernel shows no mark while a connection is being opened (the socket is then a mere request) and in TIME-WAIT. There
/// `IP_TRANSPARENT` stands for it, which takes the same privilege and which those inherit. A whole socket that is transparent
/// for other reasons does not pass.
fn of_marked_sockets(
    name: &'static str,
    path_mark: u32,
    authenticated: &'static str,
    opening: &'static str,
    listener: &'static str,
    handshake: &'static str,
) -> Chain {
    let mark = |mark| [&but_for_ways(Expression::LoadSocketMark, path_mark)[..], &[Expression::Equal(host(mark))]].concat();
    let wildcard = vec![Expression::LoadSocketWildcard, Expression::Equal(vec![1])];
    let transparent = vec![Expression::LoadSocketTransparent, Expression::Equal(vec![1])];
    let jump = |chain: &'static str| vec![Expression::Jump(chain.into())];
    let rules = vec![
        Rule::new("of an association", [mark(ASSOCIATION_MARK), jump(authenticated)]),
        Rule::new("opens an association", [mark(LISTENER_MARK), opens(), jump(opening)]),
        Rule::new("of no connection", [mark(LISTENER_MARK), wildcard, jump(listener)]),
        Rule::new("of an association that is not authenticated yet", [mark(LISTENER_MARK), jump(handshake)]),
        Rule::new("of another program", [vec![Expression::LoadSocketMark, Expression::Counter, Expression::Return]]),
        Rule::new("of an association that opens or has closed", [transparent, jump(handshake)]),
    ];
    Chain { name: name.into(), base: None, rules }
}

/// ICMP "too big" about packets with AH: to the queue that knows what this host has sent, within a bucket of their own. What
/// comes here is not about signalling. On IPv6 AH may stand behind extension headers, so all that are left go there.
pub(super) fn errors_about_size(rules: &HostRules, table: &mut Table) -> Rule {
    let test = if table.family == Family::Ipv4 { about_ah(table.family) } else { too_big(table.family) };
    table.add_bucket(ABOUT_SIZE, rules.exemptions.icmp_errors, Interface::Arriving, Expression::Queue(rules.outbound_queue));
    Rule::new("errors about size", [test, vec![Expression::Jump(ABOUT_SIZE.into())]])
}

/// What the host's own kernel says about packets with AH that are too long for their way's first link: it chooses their length by
/// the routed one. Through the chain of [`errors_about_size`].
pub(super) fn own_errors_about_size(family: Family) -> Rule {
    Rule::new("own errors about size", [interface(Interface::Arriving, "lo"), about_ah(family), vec![Expression::Jump(ABOUT_SIZE.into())]])
}

const ABOUT_SIZE: &str = "in-errors-about-size";

/// ICMP "too big" that quotes a packet in whose IP header AH is next.
pub(super) fn about_ah(family: Family) -> Vec<Expression> {
    let quoted_protocol = QUOTE + if family == Family::Ipv4 { 9 } else { 6 };
    [too_big(family), vec![Expression::LoadTransport { offset: quoted_protocol, len: 1 }, Expression::Equal(vec![AH])]].concat()
}

/// From the node's own GIST socket, which no unprivileged program can pose as; and to it.
fn signalling(way: Way) -> Vec<Vec<Expression>> {
    let port = match way {
        Way::Out => source_port(GIST_PORT),
        Way::In => destination_port(GIST_PORT),
    };
    vec![[protocol(UDP), port].concat()]
}

/// Destination unreachable (with "fragmentation needed"), time exceeded, parameter problem (RFC 792).
pub(super) fn icmp_errors() -> Vec<Vec<Expression>> {
    [3, 11, 12].into_iter().map(|kind| [protocol(ICMP), icmp_types(kind, kind)].concat()).collect()
}

/// Destination unreachable, packet too big, time exceeded, parameter problem (RFC 4443 §2.1).
pub(super) fn icmpv6_errors() -> Vec<Vec<Expression>> {
    vec![[protocol(ICMPV6), icmp_types(1, 4)].concat()]
}

/// "Fragmentation needed" (RFC 1191) and "packet too big" (RFC 4443 §3.2), by which paths are measured.
pub(super) fn too_big(family: Family) -> Vec<Expression> {
    const CODE: Expression = Expression::LoadTransport { offset: 1, len: 1 };
    match family {
        Family::Ipv4 => [protocol(ICMP), icmp_types(3, 3), vec![CODE, Expression::Equal(vec![4])]].concat(),
        Family::Ipv6 => [protocol(ICMPV6), icmp_types(2, 2)].concat(),
    }
}

/// Queries and reports of MLD, router and neighbour solicitations and advertisements (130–136), and reports of MLDv2 (143).
/// Redirects are not needed and stay out (RFC 4861 §4, RFC 2710 §3, RFC 3810 §5).
fn neighbour_discovery() -> Vec<Vec<Expression>> {
    vec![[protocol(ICMPV6), icmp_types(130, 136)].concat(), [protocol(ICMPV6), icmp_types(143, 143)].concat()]
}

/// DHCP, client to server and back (RFC 2131 §4.1, RFC 8415 §7.2).
fn client_and_server(way: Way, client: u16, server: u16) -> Vec<Vec<Expression>> {
    let (from, to) = match way {
        Way::Out => (client, server),
        Way::In => (server, client),
    };
    vec![[protocol(UDP), source_port(from), destination_port(to)].concat()]
}
