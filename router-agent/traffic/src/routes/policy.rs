//! The routing rules: packets with the mark go through the same rules as they did without it, but to the second table where
//! those say the main one.
//!
//! ```text
//! 0           everybody's: the host's own addresses
//! 1 or 2      with the mark: go to the copies
//! …           everybody's own rules, for packets without the mark
//! 32766       main
//! 32767       default
//! 5042000 or
//! 5043000     copies of the rules above, blind to the mark; main becomes the second table, then main
//! ```
//!
//! The copies make that a program's own mark still counts: a rule such as WireGuard's "whatever has not my mark goes into the
//! tunnel" would else send the tunnel's own packets into the tunnel, and a rule before it would have the others leave beside
//! it. There are two places for them, so that a new set stands before the old one goes.

use crate::netlink::{Batch, CREATE, EXCLUSIVE, Errno, Malformed, Message, NetlinkError, Socket, attributes};

use super::route::{IPV4, MAIN_TABLE, OWN_PROTOCOL};
use super::{Left, MtuPlan, Why};

const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;
const GET_RULE: u16 = 34;
const FIXED_LEN: usize = 12;

// Attributes of a rule (`linux/fib_rules.h`).
const GOTO: u16 = 4;
const PRIORITY: u16 = 6;
const FIREWALL_MARK: u16 = 10;
/// The longest prefix that does not count; the kernel always reports it.
const SUPPRESS_PREFIX: u16 = 14;
const TABLE: u16 = 15;
const FIREWALL_MASK: u16 = 16;
const PROTOCOL: u16 = 21;
/// Transport protocol, source ports, destination ports.
const OF_TRANSPORT: [u16; 3] = [22, 23, 24];

// Actions.
const TO_TABLE: u8 = 1;
const TO_RULE: u8 = 2;
/// The flag that may be given: what does not match is meant. The others report states.
const INVERTED: u32 = 2;

const LOCAL_TABLE: u32 = 255;
const DEFAULT_TABLE: u32 = 253;

/// Where the rule stands that leads to the copies, and where these start.
const PLACES: [(u32, u32); 2] = [(1, 5_042_000), (2, 5_043_000)];
/// Copies at most; what is beyond is left out, and told.
const MOST: usize = 990;
/// Numbers that a place has for them.
const MOST_NUMBERS: u32 = 1000;

/// A rule of everybody's or one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    family: u8,
    destination_prefix: u8,
    source_prefix: u8,
    tos: u8,
    action: u8,
    inverted: bool,
    priority: u32,
    table: u32,
    target: Option<u32>,
    mark: u32,
    mask: u32,
    protocol: u8,
    /// Every other attribute.
    attributes: Vec<(u16, Vec<u8>)>,
}

/// Sets up the rules of one family. Answers what they cannot do.
pub(super) fn set_up(socket: &Socket, plan: &MtuPlan, family: u8) -> Result<Vec<Left>, NetlinkError> {
    let (own, others): (Vec<_>, Vec<_>) = Rule::list(socket, family)?.into_iter().partition(|rule| rule.protocol == OWN_PROTOCOL);
    let (copies, left) = copies(&others, plan);
    let stands = |(entry, base): &(u32, u32)| {
        let wanted = placed(&copies, plan, family, *entry, *base);
        own.len() == wanted.len() && wanted.iter().all(|rule| own.contains(rule))
    };
    if PLACES.iter().any(stands) {
        return Ok(left);
    }
    // The place that is not in use; whatever stands there is left over.
    let in_use = own.iter().find(|rule| rule.action == TO_RULE && PLACES.iter().any(|(entry, _)| *entry == rule.priority));
    let [first, second] = PLACES;
    let (entry, base) = if in_use.is_some_and(|rule| rule.priority == first.0) { second } else { first };
    let is_left_over = |rule: &&Rule| rule.priority == entry || (base..base.saturating_add(MOST_NUMBERS)).contains(&rule.priority);
    let (left_over, former): (Vec<&Rule>, Vec<&Rule>) = own.iter().partition(is_left_over);
    remove(socket, &left_over)?;
    for rule in placed(&copies, plan, family, entry, base).iter().rev() {
        socket.transact(rule.request("add", NEW_RULE, CREATE | EXCLUSIVE))?;
    }
    remove(socket, &former)?;
    Ok(left)
}

/// Takes the rules of one family away.
pub(super) fn remove_all(socket: &Socket, family: u8) -> Result<(), NetlinkError> {
    let rules = Rule::list(socket, family)?;
    let mut own: Vec<_> = rules.iter().filter(|rule| rule.protocol == OWN_PROTOCOL).collect();
    // What leads to the copies goes before them.
    own.sort_by_key(|rule| rule.priority);
    remove(socket, &own)
}

fn remove(socket: &Socket, rules: &[&Rule]) -> Result<(), NetlinkError> {
    for rule in rules {
        match socket.transact(rule.request("remove", DELETE_RULE, 0)) {
            Err(error) if error.errno() != Some(Errno::ENOENT) => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The copies in their order, each with the priority of its model and targets as the models have them.
fn copies(others: &[Rule], plan: &MtuPlan) -> (Vec<Rule>, Vec<Left>) {
    let (mut copies, mut left) = (Vec::new(), Vec::new());
    for rule in others.iter().filter(|rule| PLACES.iter().all(|(entry, base)| rule.priority > *entry && rule.priority < *base)) {
        let mut tell = |why| left.push(Left { route: format!("rule {}", rule.priority), why });
        if copies.len() >= MOST {
            tell(Why::TooMany);
            break;
        }
        if rule.mark & rule.mask & plan.mark != 0 {
            tell(Why::MarkTaken);
            continue;
        }
        if rule.action == TO_TABLE && ![LOCAL_TABLE, MAIN_TABLE, DEFAULT_TABLE].contains(&rule.table) {
            tell(Why::OtherTable(rule.table));
        }
        if rule.attributes.iter().any(|(kind, _)| OF_TRANSPORT.contains(kind)) {
            tell(Why::ByTransport);
        }
        let mut copy = Rule { protocol: OWN_PROTOCOL, mark: rule.mark & !plan.mark, mask: rule.mask & !plan.mark, ..rule.clone() };
        if !copy.inverted {
            copy.mark |= plan.mark;
            copy.mask |= plan.mark;
        }
        if copy.action == TO_TABLE && copy.table == MAIN_TABLE {
            copies.push(Rule { table: plan.table, ..copy.clone() });
        }
        copies.push(copy);
    }
    (copies, left)
}

/// The rules as they stand in one of the two places, the way to them first.
fn placed(copies: &[Rule], plan: &MtuPlan, family: u8, entry: u32, base: u32) -> Vec<Rule> {
    let number = |model: u32| {
        let at = copies.iter().position(|copy| copy.priority == model)?;
        base.checked_add(u32::try_from(at).ok()?)
    };
    let way = Rule {
        family,
        destination_prefix: 0,
        source_prefix: 0,
        tos: 0,
        action: TO_RULE,
        inverted: false,
        priority: entry,
        table: 0,
        target: Some(base),
        mark: plan.mark,
        mask: plan.mark,
        protocol: OWN_PROTOCOL,
        attributes: vec![(SUPPRESS_PREFIX, u32::MAX.to_ne_bytes().to_vec())],
    };
    let copies = copies.iter().zip(base..).filter_map(|(copy, priority)| {
        // A rule that leads nowhere does nothing.
        let target = copy.target.map(number);
        (target != Some(None)).then(|| Rule { priority, target: target.flatten(), ..copy.clone() })
    });
    std::iter::once(way).chain(copies).collect()
}

impl Rule {
    fn list(socket: &Socket, family: u8) -> Result<Vec<Self>, NetlinkError> {
        let mut fixed = [0; FIXED_LEN];
        if let Some(field) = fixed.first_mut() {
            *field = family;
        }
        socket.dump(
            "list the routing rules",
            GET_RULE,
            &fixed,
            |_| {},
            |message| if message.kind == NEW_RULE { Self::read(message, family) } else { Ok(None) },
        )
    }

    pub(super) fn read(message: &Message<'_>, of_family: u8) -> Result<Option<Self>, Malformed> {
        let [family, destination_prefix, source_prefix, tos, table, _, _, action, f0, f1, f2, f3] = *message.fixed::<FIXED_LEN>()?;
        let inverted = u32::from_ne_bytes([f0, f1, f2, f3]) & INVERTED != 0;
        let mut rule = Self {
            family,
            destination_prefix,
            source_prefix,
            tos,
            action,
            inverted,
            priority: 0,
            table: u32::from(table),
            target: None,
            mark: 0,
            mask: 0,
            protocol: 0,
            attributes: Vec::new(),
        };
        for attribute in attributes(message.after(FIXED_LEN)?) {
            let attribute = attribute?;
            match attribute.kind {
                GOTO => rule.target = Some(attribute.u32()?),
                PRIORITY => rule.priority = attribute.u32()?,
                FIREWALL_MARK => rule.mark = attribute.u32()?,
                FIREWALL_MASK => rule.mask = attribute.u32()?,
                TABLE => rule.table = attribute.u32()?,
                PROTOCOL => rule.protocol = attribute.u8()?,
                kind => rule.attributes.push((kind, attribute.value.to_vec())),
            }
        }
        Ok((rule.family == of_family).then_some(rule))
    }

    fn request(&self, what: &str, kind: u16, flags: u16) -> Batch {
        let [f0, f1, f2, f3] = if self.inverted { INVERTED.to_ne_bytes() } else { [0; 4] };
        let fixed = [self.family, self.destination_prefix, self.source_prefix, self.tos, 0, 0, 0, self.action, f0, f1, f2, f3];
        let name =
            format!("{what} the IPv{} routing rule {} for mark {:#x}", if self.family == IPV4 { 4 } else { 6 }, self.priority, self.mark);
        let mut batch = Batch::new("change the routing rules");
        batch.request(name, kind, flags, &fixed, |writer| {
            writer.put_u32(PRIORITY, self.priority);
            writer.put_u32(TABLE, self.table);
            if let Some(target) = self.target {
                writer.put_u32(GOTO, target);
            }
            if self.mask != 0 {
                writer.put_u32(FIREWALL_MARK, self.mark);
                writer.put_u32(FIREWALL_MASK, self.mask);
            }
            writer.put_u8(PROTOCOL, self.protocol);
            for (kind, value) in &self.attributes {
                writer.put(*kind, value);
            }
        });
        batch
    }
}
