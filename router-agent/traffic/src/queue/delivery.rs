//! What the kernel delivers from a packet queue: packets, and its answers to verdicts that it refuses. All numbers are in network order.

use crate::netlink::{Answer, Attribute, Errno, Malformed, Many, Message, Messages, attributes, messages};
use crate::processor::{PacketId, UserId};

use super::MANY;
use super::message::{FIXED_LEN, MARK, PAYLOAD, PORT_AT, SUBSYSTEM, VERDICT_UP_TO, number_of};
use super::runs::Way;

const PACKET: u16 = SUBSYSTEM << 8;

// Attributes of a packet, beside those that a verdict has.
const PACKET_HEADER: u16 = 1;
const INPUT_INTERFACE: u16 = 5;
const OUTPUT_INTERFACE: u16 = 6;
const ORIGINAL_LEN: u16 = 13;
const STATE: u16 = 14;
const USER: u16 = 16;

/// What is said of a packet (`NFQA_SKB_INFO`): its checksum is open; it is to be cut.
const CHECKSUM_OPEN: u32 = 0x1;
const SUPER_PACKET: u32 = 0x2;

/// Something that the kernel delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery<'a> {
    /// A packet that waits for its verdict.
    Packet(Packet<'a>),
    /// The kernel refused the verdict on a packet.
    Refused {
        /// The packet.
        id: PacketId,
        /// Why.
        errno: Errno,
    },
    /// A message that cannot be understood. With an id, that packet should be dropped; without, it waits until the queue closes.
    Unreadable {
        /// The packet, if the message said which.
        id: Option<PacketId>,
    },
}

/// A packet that waits for its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Its name in the verdict.
    pub id: PacketId,
    /// Where in the kernel it was queued (`NF_INET_*`: 0 prerouting, 2 forward, 3 output).
    pub hook: u8,
    /// Its mark, 0 for none.
    pub mark: u32,
    /// Index of the interface that it arrived on, 0 if this host sends it.
    pub input_interface: u32,
    /// Index of the interface that it leaves by, 0 if not known yet.
    pub output_interface: u32,
    /// Whose socket it comes from, if the queue asks for that and the packet comes from one.
    pub user: Option<UserId>,
    /// Whether its TCP checksum is still to be computed: only in a queue of super-packets.
    pub is_unfinished: bool,
    /// Whether it is a super-packet, of which verdicts can carry nothing but its end or another queue's number.
    pub is_whole: bool,
    /// The packet from the IP header on.
    pub payload: &'a [u8],
    /// Its full length in octets; more than the payload's if it was too long to be delivered whole.
    pub len: usize,
}

impl Packet<'_> {
    /// The hook of what has come over a link and is not routed yet (`NF_INET_PRE_ROUTING`).
    pub const PREROUTING: u8 = 0;

    /// Whether the end of the packet is missing.
    pub const fn is_cut(&self) -> bool {
        self.len > self.payload.len()
    }
}

/// What came with one receive call.
#[derive(Debug, Clone)]
pub struct Deliveries<'a> {
    messages: Messages<'a>,
    /// What the numbers of its packets have above those of the kernel.
    above: u64,
    /// Of a run that was refused, the last packet, and how many of them are still to be told.
    refused: (u32, u32, Errno),
}

impl<'a> Deliveries<'a> {
    /// What stands in `octets`; `above` is what the numbers of the packets have above those of the kernel.
    pub const fn new(octets: &'a [u8], above: u64) -> Self {
        Self { messages: messages(octets), above, refused: (0, 0, Errno::UnknownErrno) }
    }

    fn id(&self, number: u32) -> PacketId {
        PacketId(self.above | u64::from(number))
    }

    /// The next one, shown before it is given.
    pub(super) fn next_shown(&mut self, mut show: impl FnMut(Seen)) -> Option<Delivery<'a>> {
        loop {
            let (last, left, errno) = self.refused;
            if let Some(left) = left.checked_sub(1) {
                self.refused.1 = left;
                return Some(Delivery::Refused { id: self.id(last.wrapping_sub(left)), errno });
            }
            let Ok(message) = self.messages.next()? else { return Some(Delivery::Unreadable { id: None }) };
            if message.kind == PACKET {
                let delivery = read_packet(&message, |number| self.id(number));
                if let Delivery::Packet(packet) = &delivery {
                    show(Seen::Packet(number_of(packet.id), (packet.input_interface, packet.output_interface)));
                }
                return Some(delivery);
            }
            match Answer::read(&message) {
                Ok(Answer::Refused(errno, _)) => {
                    if errno != Errno::ENOENT {
                        show(Seen::Refused);
                    }
                    match refused_run(&message) {
                        // Nothing waited that had to be dropped, or each of a run is told.
                        Some(packets) => self.refused = (message.sequence, packets, errno),
                        None => return Some(Delivery::Refused { id: self.id(message.sequence), errno }),
                    }
                }
                Ok(_) => {}
                Err(_) => {
                    show(Seen::Refused);
                    return Some(Delivery::Unreadable { id: None });
                }
            }
        }
    }
}

/// What came with one call for many, to be taken one by one ([`Queue::take`](super::Queue::take)).
#[derive(Debug, Clone)]
pub struct ManyDeliveries<'b> {
    messages: Many<'b>,
    above: u64,
    is_full: bool,
    now: Option<Deliveries<'b>>,
}

impl<'b> ManyDeliveries<'b> {
    pub(super) const fn new(messages: Many<'b>, above: u64, is_full: bool) -> Self {
        Self { messages, above, is_full, now: None }
    }

    /// Whether as many came as the call had room for, so that more may be there.
    pub const fn is_full(&self) -> bool {
        self.is_full
    }

    /// Whether it came from the second queue.
    pub(super) const fn is_of_second(&self) -> bool {
        self.above != 0
    }

    /// The next one, shown before it is given.
    pub(super) fn next_shown(&mut self, mut show: impl FnMut(Seen)) -> Option<Delivery<'b>> {
        loop {
            if let Some(delivery) = self.now.as_mut().and_then(|now| now.next_shown(&mut show)) {
                return Some(delivery);
            }
            match self.messages.next()? {
                Ok(octets) => self.now = Some(Deliveries::new(octets, self.above)),
                Err(_) => return Some(Delivery::Unreadable { id: None }),
            }
        }
    }

    /// How many came.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether none came.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }
}

impl<'a> Iterator for Deliveries<'a> {
    type Item = Delivery<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_shown(|_| ())
    }
}

/// If what was refused is a message about several packets: how many.
fn refused_run(message: &Message<'_>) -> Option<u32> {
    const KIND_AT: usize = 4 + 4;
    let kind = message.body.get(KIND_AT..)?.first_chunk().copied().map(u16::from_ne_bytes)?;
    let packets = message.body.get(4 + PORT_AT..)?.first_chunk().copied().map(u32::from_ne_bytes)?;
    // No longer than any that is written.
    (kind == VERDICT_UP_TO).then_some(packets.min(MANY as u32))
}

fn read_packet<'a>(message: &Message<'a>, name: impl Fn(u32) -> PacketId) -> Delivery<'a> {
    let mut id = None;
    match read_attributes(message, name, &mut id) {
        Ok(packet) => Delivery::Packet(packet),
        Err(_) => Delivery::Unreadable { id },
    }
}

/// Reads a packet; `seen` keeps its id even if what follows cannot be read.
fn read_attributes<'a>(
    message: &Message<'a>,
    name: impl Fn(u32) -> PacketId,
    seen: &mut Option<PacketId>,
) -> Result<Packet<'a>, Malformed> {
    let mut packet = Packet {
        id: PacketId(0),
        hook: 0,
        mark: 0,
        input_interface: 0,
        output_interface: 0,
        user: None,
        is_unfinished: false,
        is_whole: false,
        payload: &[],
        len: 0,
    };
    let mut original_len = None;
    let mut header: Option<Attribute<'_>> = None;
    for attribute in attributes(message.after(FIXED_LEN)?) {
        let attribute = attribute?;
        match attribute.kind {
            PACKET_HEADER => {
                let [i0, i1, i2, i3, _, _, hook] = *attribute.value.first_chunk::<7>().ok_or(Malformed("packet header"))?;
                packet.id = name(u32::from_be_bytes([i0, i1, i2, i3]));
                packet.hook = hook;
                *seen = Some(packet.id);
                header = Some(attribute);
            }
            MARK => packet.mark = attribute.be32()?,
            INPUT_INTERFACE => packet.input_interface = attribute.be32()?,
            OUTPUT_INTERFACE => packet.output_interface = attribute.be32()?,
            PAYLOAD => packet.payload = attribute.value,
            USER => packet.user = Some(UserId(attribute.be32()?)),
            STATE => {
                let state = attribute.be32()?;
                packet.is_unfinished = state & CHECKSUM_OPEN != 0;
                packet.is_whole = state & SUPER_PACKET != 0;
            }
            ORIGINAL_LEN => original_len = Some(attribute.be32()?),
            _ => {}
        }
    }
    header.ok_or(Malformed("packet without header"))?;
    packet.len = original_len.map_or(packet.payload.len(), |len| usize::try_from(len).unwrap_or(usize::MAX));
    Ok(packet)
}

/// What a delivery is to who finds the runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// A packet of this number, and the interfaces that it comes by and leaves by.
    Packet(u32, Way),
    /// A verdict was refused though its packet may wait.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::super::message::fixed;
    use super::*;
    use crate::netlink::{Header, Writer};

    fn packet_message(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.message(Header { kind: PACKET, flags: 0, sequence: 0 }, &fixed(3), fill);
        writer.finish().unwrap()
    }

    #[test]
    fn a_packet_is_read_with_all_that_the_kernel_says_about_it() {
        let octets = packet_message(|writer| {
            writer.put(PACKET_HEADER, &[0, 0, 0, 7, 8, 0, 3]);
            writer.put_be32(MARK, 80);
            writer.put_be32(OUTPUT_INTERFACE, 2);
            writer.put_be32(USER, 1000);
            writer.put(PAYLOAD, &[0x45, 0, 0]);
        });
        let expected = Packet {
            id: PacketId(7),
            hook: 3,
            mark: 80,
            input_interface: 0,
            output_interface: 2,
            user: Some(UserId(1000)),
            is_unfinished: false,
            is_whole: false,
            payload: &[0x45, 0, 0],
            len: 3,
        };
        assert_eq!(Deliveries::new(&octets, 0).collect::<Vec<_>>(), [Delivery::Packet(expected)]);
        assert!(!expected.is_cut());
    }

    #[test]
    fn a_cut_packet_is_seen_to_be_cut() {
        let octets = packet_message(|writer| {
            writer.put(PACKET_HEADER, &[0, 0, 0, 7, 8, 0, 3]);
            writer.put(PAYLOAD, &[0x45, 0, 0]);
            writer.put_be32(ORIGINAL_LEN, 65_535);
        });
        assert!(Deliveries::new(&octets, 0).all(|delivery| matches!(delivery, Delivery::Packet(packet) if packet.is_cut())));
    }

    #[test]
    fn an_unreadable_packet_keeps_its_id_so_that_it_can_be_dropped() {
        let octets = packet_message(|writer| {
            writer.put(PACKET_HEADER, &[0, 0, 0, 7, 8, 0, 3]);
            writer.put(MARK, &[1]);
        });
        assert_eq!(Deliveries::new(&octets, 0).collect::<Vec<_>>(), [Delivery::Unreadable { id: Some(PacketId(7)) }]);
        let octets = packet_message(|writer| writer.put(PAYLOAD, &[0x45]));
        assert_eq!(Deliveries::new(&octets, 0).collect::<Vec<_>>(), [Delivery::Unreadable { id: None }]);
    }
}
