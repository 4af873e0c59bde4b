//! What the kernel is told of a packet queue (`linux/netfilter/nfnetlink_queue.h`). All numbers are in network order.

use crate::netlink::{Batch, Header, REQUEST, Writer, messages};
use crate::processor::PacketId;

use super::runs::Part;
use super::{Decision, Kind, MAX_PACKET_LEN, QueueConfig};

/// Subsystem of the packet queue, in the upper half of a message's kind (`NFNL_SUBSYS_QUEUE`).
pub(super) const SUBSYSTEM: u16 = 3;
const VERDICT: u16 = SUBSYSTEM << 8 | 1;
const CONFIGURE: u16 = SUBSYSTEM << 8 | 2;
/// A verdict on everything that waits with a number or a lower one: see [`runs`](super::runs).
pub(super) const VERDICT_UP_TO: u16 = SUBSYSTEM << 8 | 3;
/// Asks nf_tables for its generation number: changes nothing, but needs the same privilege.
const GET_GENERATION: u16 = 10 << 8 | 16;

// Attributes of a verdict; the last two are of a packet as well.
const VERDICT_HEADER: u16 = 2;
pub(super) const MARK: u16 = 3;
pub(super) const PAYLOAD: u16 = 10;

/// Octets of a message's fixed part: family, version, queue number.
pub(super) const FIXED_LEN: usize = 4;
const FAMILY_NONE: u8 = 0;

/// Takes possession of the queue.
pub(super) fn bind(number: u16) -> Batch {
    const COMMAND: u16 = 1;
    const BIND: u8 = 1;
    let mut batch = Batch::new("bind a packet queue");
    batch.request(format!("bind packet queue {number}"), CONFIGURE, 0, &fixed(number), |writer| {
        writer.put(COMMAND, &[BIND, 0, 0, 0]);
    });
    batch
}

/// Sets copy mode, length and flags.
pub(super) fn configure(config: &QueueConfig, kind: Kind) -> Batch {
    let QueueConfig { number, capacity, copy_range, users, .. } = *config;
    const PARAMETERS: u16 = 2;
    const MAX_LEN: u16 = 3;
    const MASK: u16 = 4;
    const FLAGS: u16 = 5;
    const COPY_PACKET: u8 = 2;
    // Fail-open, conntrack, GSO, user id: each named in the mask, and the second never set.
    const KNOWN_FLAGS: u32 = 0xf;
    const FAIL_OPEN: u32 = 0x1;
    const WHOLE: u32 = 0x4;
    const USERS: u32 = 0x8;
    let range = u32::try_from(copy_range.min(MAX_PACKET_LEN)).unwrap_or(u32::MAX).to_be_bytes();
    let mut batch = Batch::new("configure a packet queue");
    batch.request(format!("configure packet queue {number}"), CONFIGURE, 0, &fixed(number), |writer| {
        let [a, b, c, d] = range;
        writer.put(PARAMETERS, &[a, b, c, d, COPY_PACKET]);
        writer.put_be32(MAX_LEN, capacity);
        writer.put_be32(MASK, KNOWN_FLAGS);
        let flag = |wanted, flag| if wanted { flag } else { 0 };
        let kind = flag(kind == Kind::Observed, FAIL_OPEN) | flag(kind == Kind::Whole, WHOLE);
        writer.put_be32(FLAGS, flag(users, USERS) | kind);
    });
    batch
}

/// A request that only asks for privilege.
pub(super) fn harmless() -> Batch {
    let mut batch = Batch::new("ask for privilege");
    batch.request("read the generation of the packet filter", GET_GENERATION, 0, &[FAMILY_NONE, 0, 0, 0], |_| {});
    batch
}

const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// What a verdict begins with.
const fn verdict_header(code: u32, number: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (code.to_be_bytes(), number.to_be_bytes());
    [a, b, c, d, e, f, g, h]
}

/// The verdict on one packet.
pub(super) fn verdict(writer: &mut Writer, number: u16, id: PacketId, decision: Decision<'_>) {
    const QUEUE: u32 = 3;
    let code = match decision {
        Decision::Drop => DROP,
        Decision::Queue(number) => u32::from(number) << 16 | QUEUE,
        Decision::Accept | Decision::AcceptMarked(_) | Decision::Replace { .. } => ACCEPT,
    };
    let id = number_of(id);
    // The sequence number comes back if the kernel refuses the verdict, and tells which packet it was.
    writer.message(Header { kind: VERDICT, flags: REQUEST, sequence: id }, &fixed(number), |writer| {
        writer.put(VERDICT_HEADER, &verdict_header(code, id));
        match decision {
            Decision::AcceptMarked(mark) | Decision::Replace { mark: Some(mark), .. } => writer.put_be32(MARK, mark),
            Decision::Accept | Decision::Replace { mark: None, .. } | Decision::Queue(_) | Decision::Drop => {}
        }
        if let Decision::Replace { payload, .. } = decision {
            writer.put(PAYLOAD, payload);
        }
    });
}

/// What one message says of several packets, or of one. The kernel does not look at the port of a request and gives it back if it refuses
/// it: there stands how many packets it lets go on, and 0 in what only drops.
pub(super) fn part(octets: &mut Vec<u8>, number: u16, part: Part) {
    let (kind, code, packet, packets) = match part {
        Part::One(packet) => (VERDICT, ACCEPT, packet, 0),
        Part::DropUpTo(packet) => (VERDICT_UP_TO, DROP, packet, 0),
        Part::AcceptUpTo(packet, packets) => (VERDICT_UP_TO, ACCEPT, packet, packets),
    };
    let start = octets.len();
    let mut writer = Writer::appending(std::mem::take(octets));
    writer.message(Header { kind, flags: REQUEST, sequence: packet }, &fixed(number), |writer| {
        writer.put(VERDICT_HEADER, &verdict_header(code, packet));
    });
    // Nothing in it is long.
    *octets = writer.finish().unwrap_or_default();
    if let Some(port) = octets.get_mut(start..).and_then(|message| message.get_mut(PORT_AT..)?.first_chunk_mut::<4>()) {
        *port = packets.to_ne_bytes();
    }
}

/// Where in a message its port stands.
pub(super) const PORT_AT: usize = 12;

/// The kernel's number of a packet.
pub(super) fn number_of(id: PacketId) -> u32 {
    let [_, _, _, _, a, b, c, d] = id.0.to_be_bytes();
    u32::from_be_bytes([a, b, c, d])
}

/// What [`verdict`] and [`part`] have written one behind the other.
pub(super) fn written(octets: &[u8]) -> impl Iterator<Item = Written<'_>> {
    let mut rest = octets;
    messages(octets).map_while(Result::ok).map_while(move |message| {
        let (octets, behind) = rest.split_at_checked(message.extent())?;
        rest = behind;
        Some(if message.kind == VERDICT {
            Written::Verdict(message.sequence, octets)
        } else {
            Written::UpTo { last: message.sequence, packets: message.port }
        })
    })
}

/// A message that says what becomes of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written<'a> {
    /// Of one: the kernel's number of it, and the whole message.
    Verdict(u32, &'a [u8]),
    /// Of so many, the last of which has this number; of none it drops.
    UpTo { last: u32, packets: u32 },
}

impl Written<'_> {
    /// The numbers of the packets that go on by a message about several.
    pub(super) fn run(last: u32, packets: u32) -> impl Iterator<Item = u32> {
        (0..packets).rev().map(move |before| last.wrapping_sub(before))
    }
}

pub(super) fn fixed(number: u16) -> [u8; FIXED_LEN] {
    let [high, low] = number.to_be_bytes();
    [FAMILY_NONE, 0, high, low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_that_no_verdict_can_carry_is_an_error() {
        let mut writer = Writer::default();
        verdict(&mut writer, 1, PacketId(1), Decision::Replace { payload: &vec![0; MAX_PACKET_LEN], mark: None });
        assert!(writer.finish().is_ok());
        let mut writer = Writer::default();
        verdict(&mut writer, 1, PacketId(1), Decision::Replace { payload: &vec![0; MAX_PACKET_LEN + 1], mark: None });
        assert!(writer.finish().is_err());
    }
}
