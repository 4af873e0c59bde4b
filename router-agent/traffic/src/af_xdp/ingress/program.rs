//! What the kernel does with a packet at the ingress of an interface: a program for its traffic control, in its own instructions.
//!
//! It judges whole packets for this node's hardware address, without a VLAN tag, whose AH stands just behind an IP header without options.
//! What belongs to a live permission it signs and lets by, so that the filter rules need not look it up again; what belongs to none it
//! drops and counts. All else goes on as it is, to whatever the rules say of it.

use super::super::instruction::{Assembler, Astray, Condition, Helper, Instruction, MapDescriptor, Register, Size};
use super::lines::{BESIDE, Mixing, PLACE_LEN, PLACES, TICK};
use crate::rules::LET_BY;
use Condition::{Equal, Greater, Unequal};
use Register::{R0, R1, R2, R3, R4, R6, R7, R8, R9, R10};
use Size::{Eight, Four, One, Two};

/// Octets of the number of what was dropped, and of the only entry: packets, octets.
pub(super) const DROPPED_LEN: (u32, u32) = (4, 16);

/// The maps of a program, and how lines are chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parts<'a> {
    pub(super) lines: MapDescriptor,
    pub(super) dropped: MapDescriptor,
    pub(super) mixing: &'a Mixing,
}

// What a program answers (`TCX_NEXT`, `TCX_DROP`).
const GO_ON: i32 = -1;
const DROPPED: i32 = 2;

// Where things are in what the program is given (`struct __sk_buff`).
const LEN: i16 = 0;
const FOR_WHOM: i16 = 4;
const TAGGED: i16 = 20;
const PRIORITY: i16 = 32;
const DATA: i16 = 76;
const DATA_END: i16 = 80;
/// For this node's hardware address (`PACKET_HOST`).
const FOR_US: i32 = 0;

const ETHERNET_LEN: i32 = 14;
const IP: i16 = ETHERNET_LEN as i16;
const IPV4_LEN: i32 = 20;
const IPV6_LEN: i32 = 40;
const AH: i32 = 51;
/// Headers of IPv6 that others follow (RFC 8200 §4, RFC 4302, RFC 6275, RFC 7401, RFC 5533).
const EXTENSION_HEADERS: [i32; 8] = [0, 43, 44, AH, 60, 135, 139, 140];
/// Octets of AH up to the end of its SPI, and where that begins.
const AH_LEN: i32 = 8;
const SPI: i16 = 4;

/// On the stack: the number of a line.
const NUMBER: i16 = -8;

/// Places in the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Ipv4,
    LookUp,
    /// The place of a line that is looked at when another has not been it.
    Next(usize),
    Found,
    Unknown,
    Drop,
    GoOn,
}
use Place::{Drop, Found, GoOn, Ipv4, LookUp, Next, Unknown};

type Code = Assembler<Place>;

/// The program, the same for every interface. `R8` has the addresses and `R7` the SPI when it comes to the look-up.
pub(super) fn assemble(parts: &Parts<'_>) -> Result<Vec<Instruction>, Astray> {
    let mut code = Assembler::new();
    code.copy(R6, R1);
    // A tag is taken off by the interface that is for it; what has a class already has been given it by somebody.
    for (field, as_usual) in [(FOR_WHOM, FOR_US), (TAGGED, 0), (PRIORITY, 0)] {
        code.load(Four, R2, R6, field);
        code.jump_if(R2, Unequal, as_usual, GoOn);
    }
    code.load(Four, R7, R6, DATA);
    code.load(Four, R8, R6, DATA_END);
    has(&mut code, IPV4_LEN + AH_LEN);
    code.load(Two, R2, R7, 12);
    code.jump_if(R2, Equal, in_packet(0x0800), Ipv4);
    code.jump_if(R2, Unequal, in_packet(0x86dd), GoOn);
    ipv6(&mut code, parts.mixing);
    code.place(Ipv4);
    ipv4(&mut code);
    code.place(LookUp);
    look_up(&mut code, parts);
    code.place(Found);
    live(&mut code);
    code.set(R2, LET_BY.cast_signed());
    code.store(Four, R6, PRIORITY, R2);
    code.jump(GoOn);
    code.place(Unknown);
    // Of those that stand beside the line the rules know.
    code.load(Four, R2, R9, PLACE_LEN as i16 - 4);
    code.and(R2, BESIDE.cast_signed());
    code.jump_if(R2, Unequal, 0, GoOn);
    count(&mut code, parts.dropped);
    code.place(Drop);
    code.set(R0, DROPPED);
    code.exit();
    code.place(GoOn);
    code.set(R0, GO_ON);
    code.exit();
    code.finish()
}

/// Two octets as they lie in a packet, as the machine reads them there.
fn in_packet(value: u16) -> i32 {
    i32::from(u16::from_ne_bytes(value.to_be_bytes()))
}

/// Whether the frame has so many octets behind its Ethernet header. What is looked at below lies within that.
fn has(code: &mut Code, octets: i32) {
    code.copy(R2, R7);
    code.add(R2, ETHERNET_LEN + octets);
    code.jump_if_register(R2, Greater, R8, GoOn);
}

/// A packet of IPv6 whose fixed header is followed by AH, and that by no further extension header: it might be a fragment's, which reassembly
/// finds behind AH too, and which has buckets to pass.
fn ipv6(code: &mut Code, mixing: &Mixing) {
    const NEXT_HEADER: i16 = IP + 6;
    const ADDRESSES: i16 = IP + 8;
    has(code, IPV6_LEN + AH_LEN);
    code.load(One, R2, R7, IP);
    code.and(R2, 0xf0);
    code.jump_if(R2, Unequal, 0x60, GoOn);
    code.load(One, R2, R7, NEXT_HEADER);
    code.jump_if(R2, Unequal, AH, GoOn);
    code.load(One, R2, R7, IP + IPV6_LEN as i16);
    for extension in EXTENSION_HEADERS {
        code.jump_if(R2, Equal, extension, GoOn);
    }
    code.set_wide(R8, mixing.first);
    for (at, [one, other]) in (ADDRESSES..).step_by(8).zip(mixing.of_addresses) {
        // A sum of products of sums: of two inputs nobody can say how theirs differ.
        for (register, at, number) in [(R2, at, one), (R4, at + 4, other)] {
            code.load(Four, register, R7, at);
            code.set_wide(R3, number);
            code.add_register(register, R3);
        }
        code.multiply(R2, R4);
        code.add_register(R8, R2);
    }
    code.load(Four, R7, R7, IP + IPV6_LEN as i16 + SPI);
    code.jump(LookUp);
}

/// A packet of IPv4 without options, whole, with AH.
fn ipv4(code: &mut Code) {
    const FRAGMENT: i16 = IP + 6;
    const PROTOCOL: i16 = IP + 9;
    const ADDRESSES: i16 = IP + 12;
    code.load(One, R2, R7, IP);
    code.jump_if(R2, Unequal, 0x45, GoOn);
    code.load(One, R2, R7, PROTOCOL);
    code.jump_if(R2, Unequal, AH, GoOn);
    // "More fragments", and the offset.
    code.load(Two, R2, R7, FRAGMENT);
    code.and(R2, in_packet(0x3fff));
    code.jump_if(R2, Unequal, 0, GoOn);
    code.load(Four, R8, R7, ADDRESSES);
    code.load(Four, R4, R7, ADDRESSES + 4);
    code.shift_left(R4, 32);
    code.or(R8, R4);
    code.load(Four, R7, R7, IP + IPV4_LEN as i16 + SPI);
}

fn multiply_and_fold(code: &mut Code, number: Register, factor: u64) {
    code.set_wide(R3, factor);
    code.multiply(number, R3);
    code.copy(R3, number);
    code.shift_right(R3, 32);
    code.exclusive_or(number, R3);
}

/// Goes on at `Found` with the time that stands with the permission in `R7`, and at `Unknown` otherwise; `R9` points at the line.
fn look_up(code: &mut Code, parts: &Parts<'_>) {
    let [first, second, third] = parts.mixing.of_line;
    code.set_wide(R2, parts.mixing.mask);
    code.exclusive_or(R2, R8);
    multiply_and_fold(code, R2, first);
    code.add_register(R2, R7);
    multiply_and_fold(code, R2, second);
    code.set_wide(R3, third);
    code.multiply(R2, R3);
    code.shift_right(R2, 64_i32.saturating_sub_unsigned(parts.mixing.bits));
    code.store(Four, R10, NUMBER, R2);
    code.set_map(R1, parts.lines);
    code.copy(R2, R10);
    code.add(R2, i32::from(NUMBER));
    code.call(Helper::MapLookUp);
    code.jump_if(R0, Equal, 0, GoOn);
    code.copy(R9, R0);
    for place in 0..PLACES {
        let at = (place * PLACE_LEN) as i16;
        let other = if place + 1 == PLACES { Unknown } else { Next(place + 1) };
        code.place(Next(place));
        code.load(Eight, R2, R9, at);
        code.jump_if_register(R2, Unequal, R8, other);
        code.load(Four, R2, R9, at + 8);
        code.jump_if_register(R2, Unequal, R7, other);
        code.load(Four, R7, R9, at + 12);
        code.jump(Found);
    }
}

/// Whether the time in `R7` is yet to come: from the next tick on, and less than half of all ticks away. 0 is nobody's.
fn live(code: &mut Code) {
    code.and(R7, !BESIDE.cast_signed());
    code.jump_if(R7, Equal, 0, Unknown);
    code.call(Helper::CoarseNanoseconds);
    code.shift_right(R0, TICK.cast_signed());
    code.shift_left(R0, 1);
    code.subtract(R7, R0);
    code.shift_left(R7, 32);
    code.shift_right(R7, 32);
    code.jump_if(R7, Equal, 0, Unknown);
    code.jump_if(R7, Greater, i32::MAX, Unknown);
}

/// Counts what is dropped. Nothing else counts on this processor meanwhile.
fn count(code: &mut Code, dropped: MapDescriptor) {
    code.store_value(Four, R10, NUMBER, 0);
    code.set_map(R1, dropped);
    code.copy(R2, R10);
    code.add(R2, i32::from(NUMBER));
    code.call(Helper::MapLookUp);
    code.jump_if(R0, Equal, 0, Drop);
    code.load(Eight, R2, R0, 0);
    code.add(R2, 1);
    code.store(Eight, R0, 0, R2);
    code.load(Four, R3, R6, LEN);
    code.add(R3, -ETHERNET_LEN);
    code.load(Eight, R2, R0, 8);
    code.add_register(R2, R3);
    code.store(Eight, R0, 8, R2);
}
