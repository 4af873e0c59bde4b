//! Q-mode packets read from the path: which packets are Q-mode, and how one is passed on.
//!
//! Whatever does not match the encapsulation exactly is no business of GIST and stays ordinary traffic
//! (RFC 5971 §4.3.4 case 1, §5.3.2). The reading stops at the GIST common header; malformed messages
//! behind it are the node's to refuse.

use std::net::SocketAddr;

use bytes::Bytes;

use super::checksum::{corrected, udp_checksum};
use super::ip_headers::{IpHeaders, array};
use super::query_mode::UDP_HEADER_LENGTH;
use crate::node::Datagram;
use crate::wire::datagram::{GIST_PORT, LONGEST_MESSAGE, MAGIC, MAGIC_LENGTH};
use crate::wire::{CommonHeader, MessageType, NslpId, VERSION};

/// A Q-mode packet taken from the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intercepted {
    /// What GIST needs of it, ready for [`Node::handle_datagram`](crate::node::Node::handle_datagram).
    pub datagram: Datagram,
    /// Signalling application of the message; decides between taking and passing on (G-030).
    pub nslp_id: NslpId,
    /// GIST hop count as it arrived.
    pub hop_count: u8,
    /// Value of the router alert option, `None` if an IPv4 packet has none (G-175).
    pub router_alert: Option<u16>,
}

/// Why a packet is not a Q-mode packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotQueryMode {
    /// The bytes end before a header or the stated length does.
    #[error("the packet is cut short")]
    Truncated,
    /// The first four bits are neither 4 nor 6.
    #[error("IP version {0} is unknown")]
    Version(u8),
    /// A header length, option or checksum of the IP header is wrong.
    #[error("the IP header is malformed")]
    IpHeader,
    /// A fragment, the first one included (G-394).
    #[error("the packet is a fragment")]
    Fragment,
    /// A source route that has not yet been completed.
    #[error("the packet is source-routed")]
    SourceRouted,
    /// The last header before the payload is not UDP, or a header other than hop-by-hop, routing and
    /// destination options stands before it (G-179, G-180).
    #[error("IP protocol {0} is not allowed in a Q-mode packet")]
    Protocol(u8),
    /// An IPv6 packet without router alert in a hop-by-hop header (G-177, G-178).
    #[error("the IPv6 packet carries no router alert")]
    NoRouterAlert,
    /// UDP to another port than GIST's.
    #[error("UDP destination port {0} is not GIST's")]
    Port(u16),
    /// UDP length or checksum is wrong, or there is no checksum (G-166).
    #[error("the UDP header is malformed")]
    UdpHeader,
    /// No magic number, or no GIST common header behind it (G-004).
    #[error("the payload is not a GIST message")]
    NoMessage,
    /// A GIST message in normal encapsulation that happens to pass by (G-154).
    #[error("the message is not in Q-mode encapsulation")]
    NormalEncapsulation,
}

/// Why a Q-mode packet was not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The packet is not a Q-mode packet.
    #[error(transparent)]
    NotQueryMode(#[from] NotQueryMode),
    /// Neither Query nor Data, which alone travel in Q-mode (RFC 5971 §5.5).
    #[error("a message of this type does not travel in Q-mode")]
    MessageType,
    /// The datagram does not hold exactly the message that the common header announces, or that message is longer than 512
    /// bytes (RFC 5971 §4.3.3: 576 less 64, the next peer and so the path to it being unknown).
    #[error("{held} bytes behind the magic number, where the header announces {announced} and 512 is the most")]
    MessageLength {
        /// Bytes behind the magic number.
        held: usize,
        /// Bytes by the common header.
        announced: usize,
    },
    /// IP and UDP headers and magic number take more than the 64 bytes that RFC 5971 §4.3.3 allows for them: options that no
    /// Q-mode packet needs.
    #[error("{0} bytes before the message, where 64 are the most")]
    Headers(usize),
    /// The GIST hop count would reach 0 (G-070).
    #[error("the GIST hop count is used up")]
    HopCountExhausted,
}

/// Reads a whole IP packet that arrived on `interface` (an interface index).
///
/// Accepts exactly the encapsulation of RFC 5971 §5.3.2; the error says what made it ordinary traffic.
pub fn intercepted(packet: &[u8], interface: u32) -> Result<Intercepted, NotQueryMode> {
    let located = Located::find(packet)?;
    Ok(Intercepted {
        datagram: Datagram {
            source: SocketAddr::new(located.ip.source, located.source_port),
            destination: located.ip.destination,
            ip_ttl: Some(located.ip.ttl),
            interface,
            query_mode: true,
            router_alert: located.ip.router_alert,
            payload: Bytes::copy_from_slice(located.payload),
        },
        nslp_id: located.header.nslp_id,
        hop_count: located.header.hop_count,
        router_alert: located.ip.router_alert,
    })
}

/// The same packet with the GIST hop count lowered by one and the UDP checksum corrected for it.
///
/// For messages of signalling applications not hosted here (G-066). The IP TTL is not touched: the
/// operating system lowers it when it forwards the packet (G-065), and nothing else may change (G-040).
///
/// Only the common header is looked at, as is a bypassing node's part (RFC 5971 §4.3.4, G-074): what a message of the right
/// type and length holds is its application's business. Whatever merely begins like one is refused, so that a foreign
/// application's number opens no way for data.
pub fn forwarded(packet: &[u8]) -> Result<Vec<u8>, ForwardError> {
    let located = Located::find(packet)?;
    if !matches!(located.header.message_type, Ok(MessageType::Query | MessageType::Data)) {
        return Err(ForwardError::MessageType);
    }
    let (held, announced) = (located.payload.len().saturating_sub(MAGIC_LENGTH), located.header.message_length());
    if held != announced || held > LONGEST_MESSAGE {
        return Err(ForwardError::MessageLength { held, announced });
    }
    let before = packet.len().saturating_sub(held);
    if before > LONGEST_HEADERS {
        return Err(ForwardError::Headers(before));
    }
    let hop_count = located.header.hop_count.checked_sub(1).filter(|left| *left > 0);
    let hop_count = hop_count.ok_or(ForwardError::HopCountExhausted)?;
    // Version and hop count share a 16-bit word of the checksum.
    let old_word = u16::from_be_bytes([located.header.version, located.header.hop_count]);
    let new_word = u16::from_be_bytes([located.header.version, hop_count]);
    let checksum = corrected(located.checksum, old_word, new_word);
    let udp_at = located.ip.payload_at;
    let mut out = packet.to_vec();
    put(&mut out, udp_at + UDP_HEADER_LENGTH + MAGIC_LENGTH, new_word.to_be_bytes());
    put(&mut out, udp_at + UDP_CHECKSUM, checksum.to_be_bytes());
    Ok(out)
}

/// Whether the payload of a datagram to this node is a GIST message in Q-mode encapsulation (G-154).
pub(super) fn is_query_mode(payload: &[u8]) -> bool {
    common_header(payload).is_some_and(|header| header.context_free)
}

/// The common header behind a magic number, if it is of the version that is known.
fn common_header(payload: &[u8]) -> Option<CommonHeader> {
    let message = payload.strip_prefix(&MAGIC.to_be_bytes())?;
    array(message, 0).map(CommonHeader::from_bytes).filter(|header| header.version == VERSION)
}

/// Where everything is in a packet that is known to be Q-mode.
struct Located<'a> {
    ip: IpHeaders,
    source_port: u16,
    checksum: u16,
    header: CommonHeader,
    payload: &'a [u8],
}

impl<'a> Located<'a> {
    fn find(packet: &'a [u8]) -> Result<Self, NotQueryMode> {
        let ip = IpHeaders::read(packet)?;
        let udp = packet.get(ip.payload_at..).ok_or(NotQueryMode::Truncated)?;
        let ports: [u8; UDP_HEADER_LENGTH] = array(udp, 0).ok_or(NotQueryMode::UdpHeader)?;
        let [source_high, source_low, high, low, length_high, length_low, sum_high, sum_low] = ports;
        let port = u16::from_be_bytes([high, low]);
        if port != GIST_PORT {
            return Err(NotQueryMode::Port(port));
        }
        let checksum = u16::from_be_bytes([sum_high, sum_low]);
        let whole = usize::from(u16::from_be_bytes([length_high, length_low])) == udp.len();
        if !whole || checksum == 0 || udp_checksum(ip.source, ip.destination, &[udp]) != 0xffff {
            return Err(NotQueryMode::UdpHeader);
        }
        let payload = udp.get(UDP_HEADER_LENGTH..).unwrap_or_default();
        let header = common_header(payload).ok_or(NotQueryMode::NoMessage)?;
        if !header.context_free {
            return Err(NotQueryMode::NormalEncapsulation);
        }
        let source_port = u16::from_be_bytes([source_high, source_low]);
        Ok(Self { ip, source_port, checksum, header, payload })
    }
}

fn put(out: &mut [u8], at: usize, bytes: [u8; 2]) {
    if let Some(place) = out.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = bytes;
    }
}

/// What RFC 5971 §4.3.3 allows for the encapsulation of a D-mode message.
const LONGEST_HEADERS: usize = 64;
/// Offset of the checksum in a UDP header.
const UDP_CHECKSUM: usize = 6;
