//! What the kernel does with a frame before anything else sees it: an XDP program, in the kernel's own instructions, so that no compiler is
//! needed to build it.
//!
//! It takes out of the kernel's path what user space is to judge and send on, and nothing else: whole packets whose AH stands just behind an
//! IP header without options, that came to this interface's own address, that the kernel would forward now (routes, routing rules, neighbour,
//! hop limit, MTU: `bpf_fib_lookup`), and by an interface that takes part. Before the frame it writes by which one, and between
//! which hardware addresses. All else goes on to the kernel, with whatever rules stand there: fragments, signalling, errors, what is for this
//! node, and what user space would have to answer by an error or to ask a neighbour about.
//!
//! The kernel keeps no account of a neighbour that it does not send to. So one packet a second of those to each goes the kernel's way, and is
//! judged there: by it the kernel notices when a neighbour is gone or has another address.
//!
//! Nobody there to take a frame: it is dropped (the map's default). The program lets nothing pass by itself.

use super::Interface;
use super::instruction::{Assembler, Astray, Condition, Helper, Instruction, MapDescriptor, Register, Size};
use Condition::{Equal, Greater, Less, Unequal};
use Register::{R0, R1, R2, R3, R4, R6, R7, R8, R9, R10};
use Size::{Eight, Four, One, Two};

/// Octets before the frame by which user space is told its way.
pub(super) const WAY_LEN: usize = 16;
/// Octets of an Ethernet header.
pub(super) const ETHERNET_LEN: usize = 14;

/// What a program is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    /// Hardware address of the interface.
    pub(super) address: [u8; 6],
    /// The interfaces by which frames may be sent on.
    pub(super) leaving: &'a [Interface],
    /// Octets of the longest frame that user space has room for.
    pub(super) longest: u16,
    /// Where the sockets of this interface are, by number of its queue.
    pub(super) sockets: MapDescriptor,
    /// When the kernel was last given a packet to each neighbour.
    pub(super) shown: MapDescriptor,
}

/// Octets of a key in the map of neighbours: the same that is written before a frame. And of its value: nanoseconds.
pub(super) const NEIGHBOUR_LEN: (u32, u32) = (WAY_LEN as u32, 8);

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
/// A key in the map of neighbours: interface, and both addresses.
const NEIGHBOUR: i16 = QUESTION - WAY_LEN as i16;
const NOW: i16 = NEIGHBOUR - 8;

const AF_INET: i32 = 2;
const AF_INET6: i32 = 10;
const AH: i32 = 51;
const IP: i16 = ETHERNET_LEN as i16;
const IPV4_LEN: i32 = 20;
const IPV6_LEN: i32 = 40;
/// How often the kernel is given a packet to each neighbour, in nanoseconds.
const SHOWN_EVERY: i32 = 1_000_000_000;

/// Places in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ipv4,
    LookUp,
    TakesPart,
    Shown,
    Ours,
    Pass,
}
use Place::{Ipv4, LookUp, Ours, Pass, Shown, TakesPart};

/// Two octets as they lie in a packet, as the machine reads them there.
fn in_packet(value: u16) -> i32 {
    i32::from(u16::from_ne_bytes(value.to_be_bytes()))
}

/// The program for one interface.
pub(super) fn assemble(parts: &Parts<'_>) -> Result<Vec<Instruction>, Astray> {
    let mut code = Assembler::new();
    code.copy(R6, R1);
    code.load(Four, R7, R6, DATA);
    code.load(Four, R8, R6, DATA_END);
    has_room_in_user_space(&mut code, parts.longest);
    has(&mut code, ETHERNET_LEN as i32 + IPV4_LEN);
    is_for(&mut code, parts.address);
    begin_question(&mut code);
    code.load(Two, R2, R7, 12);
    code.jump_if(R2, Equal, in_packet(0x0800), Ipv4);
    code.jump_if(R2, Unequal, in_packet(0x86dd), Pass);
    ipv6(&mut code);
    code.place(Ipv4);
    ipv4(&mut code);
    code.place(LookUp);
    would_be_forwarded(&mut code, parts.leaving);
    code.place(TakesPart);
    is_shown_to_the_kernel(&mut code, parts.shown);
    code.place(Ours);
    give_to_user_space(&mut code, parts.sockets);
    code.place(Pass);
    code.set(R0, PASS);
    code.exit();
    code.finish()
}

type Code = Assembler<Place>;

/// Longer ones, if the interface takes any, are the kernel's.
fn has_room_in_user_space(code: &mut Code, longest: u16) {
    code.copy(R2, R7);
    code.add(R2, i32::from(longest));
    code.jump_if_register(R2, Less, R8, Pass);
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
fn ipv6(code: &mut Code) {
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
    // The kernel answers for what may go no further.
    code.load(One, R2, R7, HOP_LIMIT);
    code.jump_if(R2, Less, 2, Pass);
    // Addresses that mean something on one link only are not forwarded (RFC 4291 §2.5.6).
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
    for (from, to) in [(FROM, SOURCE), (TO, DESTINATION)] {
        copy_words(code, (R7, from), (R10, to), 4);
    }
    code.jump(LookUp);
}

/// A packet of IPv4 without options, whole, with AH.
fn ipv4(code: &mut Code) {
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
    code.load(One, R2, R7, TIME_TO_LIVE);
    code.jump_if(R2, Less, 2, Pass);
    code.store_value(One, R10, FAMILY, AF_INET);
    code.load(Two, R2, R7, LENGTH);
    code.turn_from_network_order(R2);
    code.store(Two, R10, TOTAL_LENGTH, R2);
    code.load(One, R2, R7, TYPE_OF_SERVICE);
    code.store(One, R10, LABEL, R2);
    for (from, to) in [(FROM, SOURCE), (TO, DESTINATION)] {
        copy_words(code, (R7, from), (R10, to), 1);
    }
}

/// Whether the kernel would send it on now, by an interface that takes part.
fn would_be_forwarded(code: &mut Code, leaving: &[Interface]) {
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
        code.jump_if(R2, Equal, interface.index.cast_signed(), TakesPart);
    }
    code.jump(Pass);
}

/// Passes one packet a second to each neighbour. Two processors that do so at once pass one each, which does no harm.
fn is_shown_to_the_kernel(code: &mut Code, shown: MapDescriptor) {
    code.store(Four, R10, NEIGHBOUR, R2);
    copy_words(code, (R10, ADDRESSES), (R10, NEIGHBOUR + 4), 3);
    code.call(Helper::Nanoseconds);
    code.copy(R9, R0);
    code.set_map(R1, shown);
    code.copy(R2, R10);
    code.add(R2, i32::from(NEIGHBOUR));
    code.call(Helper::MapLookUp);
    code.jump_if(R0, Unequal, 0, Shown);
    code.store(Eight, R10, NOW, R9);
    code.set_map(R1, shown);
    code.copy(R2, R10);
    code.add(R2, i32::from(NEIGHBOUR));
    code.copy(R3, R10);
    code.add(R3, i32::from(NOW));
    code.set(R4, 0);
    code.call(Helper::MapUpdate);
    code.jump(Pass);
    code.place(Shown);
    code.load(Eight, R2, R0, 0);
    code.copy(R3, R9);
    code.subtract(R3, R2);
    code.jump_if(R3, Less, SHOWN_EVERY, Ours);
    code.store(Eight, R0, 0, R9);
    code.jump(Pass);
}

/// Writes the way before the frame, and gives it to the socket of its queue. Without one it is dropped.
fn give_to_user_space(code: &mut Code, sockets: MapDescriptor) {
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
    copy_words(code, (R10, NEIGHBOUR), (R4, 0), 4);
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
