//! Tables as one atomic netlink batch.

use crate::netlink::{APPEND, Batch, CREATE, Writer};

use super::Role;
use super::expression::Expression;
use super::plan::{Base, Chain, Family, Rule, Set, Table};

/// Subsystem of nf_tables, in the upper half of a message's kind (`NFNL_SUBSYS_NFTABLES`).
pub(super) const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
/// Adds elements to a set.
pub(super) const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
/// Takes elements out of a set.
pub(super) const DELETE_ELEMENT: u16 = SUBSYSTEM << 8 | 14;

/// The table is the socket's that installs it, and goes with that (`NFT_TABLE_F_OWNER`).
pub(super) const OWNED: u32 = 0x2;
/// It stays nevertheless (`NFT_TABLE_F_PERSIST`).
pub(super) const PERSISTENT: u32 = 0x4;

/// Puts `tables` with these flags in place of those of the role that stand.
pub(super) fn replace(role: Role, flags: u32, tables: &[Table]) -> Batch {
    let mut batch = begin("set the filter rules");
    for table in tables {
        delete_table(&mut batch, role, table.family);
        new_table(&mut batch, role, table.family, Some(flags));
        // Rules name the sets that they use and the chains that they jump to, so these come first.
        for (set, id) in table.sets.iter().zip(1..) {
            new_set(&mut batch, role, table.family, set, id);
        }
        for chain in &table.chains {
            new_chain(&mut batch, role, table.family, chain);
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                new_rule(&mut batch, role, table.family, &chain.name, rule);
            }
        }
    }
    end(batch)
}

/// Removes the role's table in each of `families`.
pub(super) fn remove(role: Role, families: &[Family]) -> Batch {
    let mut batch = begin("remove the filter rules");
    for family in families {
        delete_table(&mut batch, role, *family);
    }
    end(batch)
}

/// The fixed part of every message: family, version 0, and a resource id in network order.
pub(super) fn fixed(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// The beginning of what the kernel is to treat as one.
pub(super) fn begin(name: &str) -> Batch {
    let mut batch = Batch::new(name);
    batch.unanswered(BATCH_BEGIN, &fixed(0, SUBSYSTEM));
    batch
}

/// Its end.
pub(super) fn end(mut batch: Batch) -> Batch {
    batch.unanswered(BATCH_END, &fixed(0, SUBSYSTEM));
    batch
}

/// Deleting a table that is not there is an error; creating it just before makes it be there.
fn delete_table(batch: &mut Batch, role: Role, family: Family) {
    new_table(batch, role, family, None);
    batch.request(format!("remove table {family} {}", role.table()), DELETE_TABLE, 0, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, role.table());
    });
}

/// Without flags one that stands keeps those it has.
fn new_table(batch: &mut Batch, role: Role, family: Family, flags: Option<u32>) {
    batch.request(format!("create table {family} {}", role.table()), NEW_TABLE, CREATE, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, role.table());
        if let Some(flags) = flags {
            writer.put_be32(2, flags);
        }
    });
}

fn new_chain(batch: &mut Batch, role: Role, family: Family, chain: &Chain) {
    let name = format!("create chain {family} {} {}", role.table(), chain.name);
    batch.request(name, NEW_CHAIN, CREATE, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, role.table());
        writer.put_text(3, &chain.name);
        if let Some(base) = &chain.base {
            hook(writer, base);
        }
    });
}

/// A set that rules fill from packets. `id` tells apart the sets of one family within the batch.
fn new_set(batch: &mut Batch, role: Role, family: Family, set: &Set, id: u32) {
    const TIMEOUTS: u32 = 0x10;
    const FILLED_BY_RULES: u32 = 0x20;
    const MAP: u32 = 0x08;
    // What stands with an element, as nft numbers kinds: an integer.
    const INTEGER: u32 = 4;
    let name = format!("create set {family} {} {}", role.table(), set.name);
    batch.request(name, NEW_SET, CREATE, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, role.table());
        writer.put_text(2, &set.name);
        writer.put_be32(3, TIMEOUTS | FILLED_BY_RULES | if set.is_map { MAP } else { 0 });
        writer.put_be32(4, set.key.kind(family));
        writer.put_be32(5, set.key.octets(family));
        if set.is_map {
            writer.put_be32(6, INTEGER);
            writer.put_be32(7, 4);
        }
        writer.nest(9, |description| description.put_be32(1, set.capacity));
        writer.put_be32(10, id);
        writer.put_be64(11, set.timeout);
    });
}

fn hook(writer: &mut Writer, base: &Base) {
    writer.nest(4, |hook| {
        hook.put_be32(1, base.hook.number());
        hook.put_be32(2, base.priority.cast_unsigned());
    });
    writer.put_be32(5, base.policy.number());
    writer.put_text(7, base.kind);
}

fn new_rule(batch: &mut Batch, role: Role, family: Family, chain: &str, rule: &Rule) {
    let needs = rule.expressions.iter().find_map(Expression::needs).map_or_else(String::new, |option| format!(" (it needs {option})"));
    let name = format!("add rule \"{}\" to chain {family} {} {chain}{needs}", rule.name, role.table());
    batch.request(name, NEW_RULE, CREATE | APPEND, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, role.table());
        writer.put_text(2, chain);
        writer.nest(4, |list| {
            for expression in &rule.expressions {
                expression.write(list);
            }
        });
        writer.put(7, &comment(&rule.name));
    });
}

/// The rule's name in the form in which nft keeps comments: kind 0, length, text, NUL.
fn comment(name: &str) -> Vec<u8> {
    let mut octets = vec![0, u8::try_from(name.len().saturating_add(1)).unwrap_or(u8::MAX)];
    octets.extend_from_slice(name.as_bytes());
    octets.push(0);
    octets
}
