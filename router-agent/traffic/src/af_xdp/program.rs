//! What the kernel does with a frame before anything else sees it: an XDP program, in the kernel's own instructions, so that no compiler is
//! needed to build it.
//!
//! It takes out of the kernel's path what user space is to judge and send on, and nothing else: whole packets whose AH stands just behind an
//! IP header without options, that came to this interface's own address, that the kernel would forward now (routes, routing rules, neighbour,
//! hop limit, MTU: `bpf_fib_lookup`), and by an interface that takes part. Before the frame it writes by which one, and between
//! which hardware addresses, and to whom. All else goes on to the kernel, with whatever rules stand there: fragments, signalling, errors, what
//! is for this node, and what user space would have to answer by an error or to ask a neighbour about.
//!
//! Before that stands the shield, if there is one: of those packets only what belongs to a live permission goes any further. Where every
//! interface is closed it is asked first of all, as the shield of the filter rules is, and elsewhere of what leaves by an interface that
//! takes part, where those rules would drop it just so.
//!
//! At a host it takes out what has a permission and is for it, and nothing else: there the shield only tells that.
//!
//! Nobody there to take a frame: it is dropped (the map's default). The program lets nothing pass by itself.

use super::instruction::{Assembler, Astray, Condition, Helper, Instruction, MapDescriptor, Register, Size};
use Condition::{Equal, Greater, Less, Unequal};
use Register::{R0, R1, R2, R3, R4, R6, R7, R8, R9, R10};
use Size::{Eight, Four, One, Two};

/// Octets before the frame by which user space is told its way.
pub(super) const WAY_LEN: usize = 32;
/// Octets of an Ethernet header.
pub(super) const ETHERNET_LEN: usize = 14;

/// What a program is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    /// Hardware address of the interface.
    pub(super) address: [u8; 6],
    /// Who may pass at all; everybody, without.
    pub(super) shield: Option<Shield>,
    /// The way past the kernel's; without it what passes the shield goes on to the kernel.
    pub(super) short_way: Option<ShortWay<'a>>,
}

/// The maps of the shield.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shield {
    /// Until when each permission lives, in nanoseconds of the kernel's clock.
    pub(super) known: MapDescriptor,
    /// Packets and octets that were dropped.
    pub(super) dropped: MapDescriptor,
    /// Whether it is asked before it is known where a packet goes. Without a short way that is never known, and it is asked whatever stands
    /// here.
    pub(super) first: bool,
}

/// How frames come to user space.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShortWay<'a> {
    /// Which do.
    pub(super) what: What<'a>,
    /// Octets of the longest frame that user space has room for.
    pub(super) longest: u16,
    /// Where the sockets of this interface are, by number of its queue.
    pub(super) sockets: MapDescriptor,
    /// How many queues have one. What comes by others, that were made later, is the kernel's.
    pub(super) queues: u32,
}

/// Which frames come to user space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// What the kernel would forward now, by one of these interfaces.
    Forwarded(&'a [u32]),
    /// What has a permission that the shield knows, to which there must be one: it is for this host. All else goes on to the kernel.
    Permitted,
}

/// Octets of a key in the map of permissions, and of its value: version (a number of the machine's), addresses (of IPv4 with zeros behind),
/// SPI; and until when.
pub(super) const PERMISSION_LEN: (u32, u32) = (40, 8);
/// The number by which a key begins.
pub(super) const IPV4_KEY: u32 = AF_INET as u32;
pub(super) const IPV6_KEY: u32 = AF_INET6 as u32;
/// The same of the only entry of what was dropped: packets, octets.
pub(super) const DROPPED_LEN: (u32, u32) = (4, 16);

// What a program answers (`enum xdp_action`).
const DROP: i32 = 1;
const PASS: i32 = 2;

// Where things are in what the program is given (`struct xdp_md`).
const DATA: i16 = 0;
const DATA_END: i16 = 4;
const METADATA: i16 = 8;
const INTERFACE: i16 = 12;
const QUEUE: i16 = 16;

// The question about a route (`struct bpf_fib_lookup`), and where on the stack it is.
const QUESTION: i16 = -64;
const QUESTION_LEN: i32 = 64;
const FAMILY: i16 = QUESTION;
const UPPER_PROTOCOL: i16 = QUESTION + 1;
const TOTAL_LENGTH: i16 = QUESTION + 6;
/// The interface that it came by, and in the answer the one to leave by.
const WAY_OUT: i16 = QUESTION + 8;
/// IPv4: type of service. IPv6: traffic class and flow label, in network order.
const LABEL: i16 = QUESTION + 12;
const SOURCE: i16 = QUESTION + 16;
const DESTINATION: i16 = QUESTION + 32;
/// In the answer: hardware addresses of the interface and of the neighbour, six octets each.
const ADDRESSES: i16 = QUESTION + 52;
/// The key in the map of permissions, while there is no question yet: where label and both addresses are, and behind them.
const PERMISSION: i16 = LABEL;
const SPI: i16 = DESTINATION + 16;

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const AH: i32 = 51;
const IP: i16 = ETHERNET_LEN as i16;
const IPV4_LEN: i32 = 20;
const IPV6_LEN: i32 = 40;

/// Places in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ipv4,
    /// The shield has been asked about a packet of this version.
    Asked(u32),
    LookUp,
    TakesPart,
    Unknown,
    Drop,
    Pass,
}
use Place::{Asked, Drop, Ipv4, LookUp, Pass, TakesPart, Unknown};

/// Two octets as they lie in a packet, as the machine reads them there.
fn in_packet(value: u16) -> i32 {
    i32::from(u16::from_ne_bytes(value.to_be_bytes()))
}

/// The program for one interface.
pub(super) fn assemble(parts: &Parts<'_>) -> Result<Vec<Instruction>, Astray> {
    let shield = parts.shield.map(|shield| Shield { first: shield.first || parts.short_way.is_none(), ..shield });
    let mut code = Assembler::new();
    code.copy(R6, R1);
    code.load(Four, R7, R6, DATA);
    code.load(Four, R8, R6, DATA_END);
    has(&mut code, ETHERNET_LEN as i32 + IPV4_LEN);
    is_for(&mut code, parts.address);
    begin_question(&mut code);
    let ask = Parts { shield, ..*parts }.ask();
    code.load(Two, R2, R7, 12);
    code.jump_if(R2, Equal, in_packet(0x0800), Ipv4);
    code.jump_if(R2, Unequal, in_packet(0x86dd), Pass);
    ipv6(&mut code, ask);
    code.place(Ipv4);
    ipv4(&mut code, ask);
    code.place(LookUp);
    if let Some(way) = &parts.short_way {
        has_room_in_user_space(&mut code, way);
        if let What::Forwarded(leaving) = way.what {
            would_be_forwarded(&mut code, leaving);
            code.place(TakesPart);
            if shield.is_some_and(|shield| !shield.first) {
                code.jump_if(R9, Equal, 0, Unknown);
            }
            tell_way(&mut code);
        }
        give_to_user_space(&mut code, way.sockets);
    }
    code.place(Pass);
    code.set(R0, PASS);
    code.exit();
    if let Some(shield) = shield.filter(|_| !parts.is_for_host()) {
        code.place(Unknown);
        count(&mut code, shield.dropped);
        code.place(Drop);
        code.set(R0, DROP);
        code.exit();
    }
    code.finish()
}

type Code = Assembler<Place>;

/// What is asked about a packet with AH before anything else.
#[derive(Debug, Clone, Copy)]
struct Ask {
    shield: Option<Shield>,
    /// Where one goes that has no permission, if that is decided at once.
    refused: Option<Place>,
    /// Whether it must be such as a router forwards.
    forwarded: bool,
}

impl Parts<'_> {
    fn is_for_host(&self) -> bool {
        matches!(&self.short_way, Some(ShortWay { what: What::Permitted, .. }))
    }

    fn ask(&self) -> Ask {
        let forwarded = !self.is_for_host();
        let refused = if forwarded { self.shield.filter(|shield| shield.first).map(|_| Unknown) } else { Some(Pass) };
        Ask { shield: self.shield, refused, forwarded }
    }
}

/// Longer ones, if the interface takes any, are the kernel's, and so is what comes by a queue without a socket.
fn has_room_in_user_space(code: &mut Code, way: &ShortWay<'_>) {
    code.copy(R2, R7);
    code.add(R2, i32::from(way.longest));
    code.jump_if_register(R2, Less, R8, Pass);
    code.load(Four, R2, R6, QUEUE);
    code.jump_if(R2, Greater, way.queues.saturating_sub(1).cast_signed(), Pass);
}

/// Looks a packet's permission up, whose addresses stand in the question already. `R9` is 0 if it has none.
fn ask_shield(code: &mut Code, shield: Shield, refused: Option<Place>, version: u32, header_len: i32) {
    // Too short for an SPI: the kernel's path says so.
    has(code, ETHERNET_LEN as i32 + header_len + 8);
    code.store_value(Four, R10, PERMISSION, version.cast_signed());
    copy_words(code, (R7, IP + header_len as i16 + 4), (R10, SPI), 1);
    code.set_map(R1, shield.known);
    code.copy(R2, R10);
    code.add(R2, i32::from(PERMISSION));
    code.call(Helper::MapLookUp);
    code.set(R9, 0);
    code.jump_if(R0, Equal, 0, Asked(version));
    code.load(Eight, R9, R0, 0);
    code.call(Helper::Nanoseconds);
    code.jump_if_register(R0, Less, R9, Asked(version));
    code.set(R9, 0);
    code.place(Asked(version));
    if let Some(place) = refused {
        code.jump_if(R9, Equal, 0, place);
    }
    code.store_value(Four, R10, SPI, 0);
}

/// Counts what is dropped. Nothing else counts on this processor meanwhile.
fn count(code: &mut Code, dropped: MapDescriptor) {
    code.store_value(Four, R10, QUESTION, 0);
    code.set_map(R1, dropped);
    code.copy(R2, R10);
    code.add(R2, i32::from(QUESTION));
    code.call(Helper::MapLookUp);
    code.jump_if(R0, Equal, 0, Drop);
    code.load(Eight, R2, R0, 0);
    code.add(R2, 1);
    code.store(Eight, R0, 0, R2);
    code.subtract(R8, R7);
    code.add(R8, -(ETHERNET_LEN as i32));
    code.load(Eight, R2, R0, 8);
    code.add_register(R2, R8);
    code.store(Eight, R0, 8, R2);
}

/// Whether the frame is so long. What is looked at below lies within that.
fn has(code: &mut Code, octets: i32) {
    code.copy(R2, R7);
    code.add(R2, octets);
    code.jump_if_register(R2, Greater, R8, Pass);
}

/// Not a group's, and not what a switch has sent to every port: the kernel forwards neither.
fn is_for(code: &mut Code, address: [u8; 6]) {
    let [a, b, c, d, e, f] = address;
    for (offset, part) in [(0, [a, b]), (2, [c, d]), (4, [e, f])] {
        code.load(Two, R2, R7, offset);
        code.jump_if(R2, Unequal, in_packet(u16::from_be_bytes(part)), Pass);
    }
}

fn begin_question(code: &mut Code) {
    for offset in (QUESTION..0).step_by(8) {
        code.store_value(Eight, R10, offset, 0);
    }
    code.store_value(One, R10, UPPER_PROTOCOL, AH);
    code.load(Four, R2, R6, INTERFACE);
    code.store(Four, R10, WAY_OUT, R2);
}

/// A packet of IPv6 whose fixed header is followed by AH.
fn ipv6(code: &mut Code, ask: Ask) {
    const PAYLOAD_LENGTH: i16 = IP + 4;
    const NEXT_HEADER: i16 = IP + 6;
    const HOP_LIMIT: i16 = IP + 7;
    const FROM: i16 = IP + 8;
    const TO: i16 = IP + 24;
    has(code, ETHERNET_LEN as i32 + IPV6_LEN);
    code.load(One, R2, R7, IP);
    code.and(R2, 0xf0);
    code.jump_if(R2, Unequal, 0x60, Pass);
    code.load(One, R2, R7, NEXT_HEADER);
    code.jump_if(R2, Unequal, AH, Pass);
    for (from, to) in [(FROM, SOURCE), (TO, DESTINATION)] {
        copy_words(code, (R7, from), (R10, to), 4);
    }
    if let Some(shield) = ask.shield {
        ask_shield(code, shield, ask.refused, IPV6_KEY, IPV6_LEN);
    }
    if ask.forwarded {
        // The kernel answers for what may go no further.
        code.load(One, R2, R7, HOP_LIMIT);
        code.jump_if(R2, Less, 2, Pass);
    }
    // Addresses that mean something on one link only are not forwarded (RFC 4291 §2.5.6), and a host has to know by which they have come.
    for address in [FROM, TO] {
        code.load(Two, R2, R7, address);
        code.and(R2, in_packet(0xffc0));
        code.jump_if(R2, Equal, in_packet(0xfe80), Pass);
    }
    code.store_value(One, R10, FAMILY, AF_INET6);
    code.load(Two, R2, R7, PAYLOAD_LENGTH);
    code.turn_from_network_order(R2);
    code.add(R2, IPV6_LEN);
    code.store(Two, R10, TOTAL_LENGTH, R2);
    code.load(Four, R2, R7, IP);
    code.and(R2, i32::from_ne_bytes(0x0fff_ffff_u32.to_be_bytes()));
    code.store(Four, R10, LABEL, R2);
    code.jump(LookUp);
}

/// A packet of IPv4 without options, whole, with AH.
fn ipv4(code: &mut Code, ask: Ask) {
    const TYPE_OF_SERVICE: i16 = IP + 1;
    const LENGTH: i16 = IP + 2;
    const FRAGMENT: i16 = IP + 6;
    const TIME_TO_LIVE: i16 = IP + 8;
    const PROTOCOL: i16 = IP + 9;
    const FROM: i16 = IP + 12;
    const TO: i16 = IP + 16;
    code.load(One, R2, R7, IP);
    code.jump_if(R2, Unequal, 0x45, Pass);
    // "More fragments", and the offset.
    code.load(Two, R2, R7, FRAGMENT);
    code.and(R2, in_packet(0x3fff));
    code.jump_if(R2, Unequal, 0, Pass);
    code.load(One, R2, R7, PROTOCOL);
    code.jump_if(R2, Unequal, AH, Pass);
    for (from, to) in [(FROM, SOURCE), (TO, DESTINATION)] {
        copy_words(code, (R7, from), (R10, to), 1);
    }
    if let Some(shield) = ask.shield {
        ask_shield(code, shield, ask.refused, IPV4_KEY, IPV4_LEN);
    }
    if ask.forwarded {
        code.load(One, R2, R7, TIME_TO_LIVE);
        code.jump_if(R2, Less, 2, Pass);
    }
    code.store_value(One, R10, FAMILY, AF_INET);
    code.load(Two, R2, R7, LENGTH);
    code.turn_from_network_order(R2);
    code.store(Two, R10, TOTAL_LENGTH, R2);
    code.load(One, R2, R7, TYPE_OF_SERVICE);
    code.store_value(Four, R10, LABEL, 0);
    code.store(One, R10, LABEL, R2);
}

/// Whether the kernel would send it on now, by an interface that takes part.
fn would_be_forwarded(code: &mut Code, leaving: &[u32]) {
    code.copy(R1, R6);
    code.copy(R2, R10);
    code.add(R2, i32::from(QUESTION));
    code.set(R3, QUESTION_LEN);
    code.set(R4, 0);
    code.call(Helper::LookUpRoute);
    // Other answers: it is this node's, nobody's, too long, forwarding is off, or the neighbour has to be asked first.
    code.jump_if(R0, Unequal, 0, Pass);
    code.load(Four, R2, R10, WAY_OUT);
    for interface in leaving {
        // The kernel's numbers of interfaces are positive.
        code.jump_if(R2, Equal, interface.cast_signed(), TakesPart);
    }
    code.jump(Pass);
}

/// Writes the way before the frame.
fn tell_way(code: &mut Code) {
    code.copy(R1, R6);
    code.set(R2, -(WAY_LEN as i32));
    code.call(Helper::AdjustMetadata);
    code.jump_if(R0, Unequal, 0, Pass);
    code.load(Four, R7, R6, DATA);
    code.load(Four, R2, R6, METADATA);
    code.copy(R3, R2);
    code.add(R3, WAY_LEN as i32);
    code.jump_if_register(R3, Greater, R7, Pass);
    code.copy(R4, R2);
    copy_words(code, (R10, WAY_OUT), (R4, 0), 1);
    copy_words(code, (R10, ADDRESSES), (R4, 4), 3);
    // The router asked, or the packet's own destination (of IPv4 with zeros behind).
    copy_words(code, (R10, DESTINATION), (R4, 16), 4);
}

/// Gives a frame to the socket of its queue. Without one it is dropped.
fn give_to_user_space(code: &mut Code, sockets: MapDescriptor) {
    code.set_map(R1, sockets);
    code.load(Four, R2, R6, QUEUE);
    code.set(R3, DROP);
    code.call(Helper::RedirectByMap);
    code.exit();
}

fn copy_words(code: &mut Code, (from, first): (Register, i16), (to, at): (Register, i16), words: i16) {
    for word in 0..words {
        code.load(Four, R3, from, first + 4 * word);
        code.store(Four, to, at + 4 * word, R3);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shield_without_a_short_way_judges_every_packet_whatever_it_is_told() {
        let program = |first| {
            let shield = Shield { known: 3, dropped: 4, first };
            assemble(&Parts { address: [2; 6], shield: Some(shield), short_way: None }).unwrap()
        };
        assert_eq!(program(false), program(true));
    }
}
