//! Who may take the outbound queue's time: packets of flows that have a permission come first, and of all others each user has so
//! many a second.
//!
//! Every packet that goes up to the queue costs ten times what it costs to drop it here. Which flows have a permission this table
//! learns by itself: what the queue has let pass leaves with AH, and is seen once more behind it. So nothing has to be told or
//! put back, and a flow whose permission has ended loses its preference soon.

use super::expression::{Expression, protocol};
use super::host::OUTBOUND;
use super::key::{Key, NEXT_HEADER_OF_AH, flow_behind_ah, flow_without_ports};
use super::plan::{Base, Bucket, Chain, Family, Hook, Interface, Policy, Rule, Set, Table};
use crate::ah;
use crate::algorithm::{IcvAlgorithm, MacAlgorithm, SignatureAlgorithm};

const TCP: u8 = 6;
const UDP: u8 = 17;
const AH: u8 = 51;

/// The flows of which a packet has left with AH lately.
const PERMITTED: &str = "permitted";
/// How long a flow is preferred after such a packet, in milliseconds.
const PREFERRED: u64 = 10_000;

/// With what this host protects packets.
const ALGORITHMS: [IcvAlgorithm; 8] = [
    IcvAlgorithm::Mac(MacAlgorithm::HmacSha256_128),
    IcvAlgorithm::Mac(MacAlgorithm::HmacSha1_96),
    IcvAlgorithm::Mac(MacAlgorithm::Aes128Gmac),
    IcvAlgorithm::Signature(SignatureAlgorithm::Ed25519),
    IcvAlgorithm::Signature(SignatureAlgorithm::EcdsaP256),
    // Of keys with 2048, 3072 and 4096 bits. Others share what may ask.
    IcvAlgorithm::Signature(SignatureAlgorithm::RsaPss { octets: 256 }),
    IcvAlgorithm::Signature(SignatureAlgorithm::RsaPss { octets: 384 }),
    IcvAlgorithm::Signature(SignatureAlgorithm::RsaPss { octets: 512 }),
];

/// Adds the chains that hand packets to the queue, those of permitted TCP flows to that where they come whole if there is one, and answers
/// the name of the first.
pub(super) fn chains(queue: u16, whole: Option<u16>, bucket: Bucket, table: &mut Table) -> &'static str {
    const FIRST: &str = "out-flow";
    const OF_A_USER: &str = "out-asking";
    const OF_NOBODY: &str = "out-asking-others";
    table.sets.push(Set::new(PERMITTED.into(), Key::Flow, PREFERRED));
    table.add_bucket(OF_NOBODY, bucket, Interface::Leaving, Expression::Queue(queue));
    table.add_buckets(OF_A_USER, bucket, Key::Owner, Expression::Queue(queue), Some(OF_NOBODY));
    let family = table.family;
    let permitted = |load, queue| {
        Rule::new("permitted lately", [load, vec![Expression::Known(PERMITTED.into()), Expression::Counter, Expression::Queue(queue)]])
    };
    let with_ports = |of, queue| permitted([protocol(of), Key::Flow.load(family)].concat(), queue);
    let rules = vec![
        with_ports(TCP, whole.unwrap_or(queue)),
        with_ports(UDP, queue),
        permitted(flow_without_ports(family, false), queue),
        Rule::new("asks", [vec![Expression::Jump(OF_A_USER.into())]]),
    ];
    table.chains.push(Chain { name: FIRST.into(), base: None, rules });
    table.chains.push(behind_the_queue(family));
    FIRST
}

/// Sees what the queue has let pass, and keeps its flow. Nothing is decided here.
fn behind_the_queue(family: Family) -> Chain {
    let mut lengths = ALGORITHMS.map(|algorithm| ah::overhead(algorithm, family == Family::Ipv6)).to_vec();
    lengths.sort_unstable();
    lengths.dedup();
    let keep = || vec![Expression::Remember { set: PERMITTED.into(), timeout: PREFERRED }, Expression::Accept];
    let mut rules = vec![Rule::new("not under AH", [vec![Expression::LoadProtocol, Expression::Unequal(vec![AH]), Expression::Accept]])];
    for of in [TCP, UDP] {
        for length in lengths.iter().filter_map(|length| u32::try_from(*length).ok()) {
            // RFC 4302 §2.2: in 32-bit words, minus 2.
            let Ok(words) = u8::try_from((length / 4).saturating_sub(2)) else { continue };
            let test = vec![
                NEXT_HEADER_OF_AH,
                Expression::Equal(vec![of]),
                Expression::LoadTransport { offset: 1, len: 1 },
                Expression::Equal(vec![words]),
            ];
            rules.push(Rule::new("permitted", [test, flow_behind_ah(family, length), keep()]));
        }
    }
    rules.push(Rule::new("permitted", [flow_without_ports(family, true), keep()]));
    let base = Base { hook: Hook::Output, priority: OUTBOUND + 1, kind: "filter", policy: Policy::Accept };
    Chain { name: "behind-the-queue".into(), base: Some(base), rules }
}
