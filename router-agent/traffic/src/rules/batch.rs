//! Tables as one atomic netlink batch.

use crate::netlink::{APPEND, Batch, CREATE, Writer};

use super::TABLE;
use super::plan::{Base, Chain, Family, Rule, Table};

/// Subsystem of nf_tables, in the upper half of a message's kind (`NFNL_SUBSYS_NFTABLES`).
pub(super) const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;

/// Puts `tables` in place of those that stand.
pub(super) fn replace(tables: &[Table]) -> Batch {
    let mut batch = begin("set the filter rules");
    for table in tables {
        delete_table(&mut batch, table.family);
        new_table(&mut batch, table.family);
        // Rules name the chains that they jump to, so every chain comes first.
        for chain in &table.chains {
            new_chain(&mut batch, table.family, chain);
        }
        for chain in &table.chains {
            for rule in &chain.rules {
                new_rule(&mut batch, table.family, chain.name, rule);
            }
        }
    }
    end(batch)
}

/// Removes the table in each of `families`.
pub(super) fn remove(families: &[Family]) -> Batch {
    let mut batch = begin("remove the filter rules");
    for family in families {
        delete_table(&mut batch, *family);
    }
    end(batch)
}

/// The fixed part of every message: family, version 0, and a resource id in network order.
pub(super) fn fixed(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn begin(name: &str) -> Batch {
    let mut batch = Batch::new(name);
    batch.unanswered(BATCH_BEGIN, &fixed(0, SUBSYSTEM));
    batch
}

fn end(mut batch: Batch) -> Batch {
    batch.unanswered(BATCH_END, &fixed(0, SUBSYSTEM));
    batch
}

/// Deleting a table that is not there is an error; creating it just before makes it be there.
fn delete_table(batch: &mut Batch, family: Family) {
    new_table(batch, family);
    batch.request(format!("remove table {family} {TABLE}"), DELETE_TABLE, 0, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, TABLE);
    });
}

fn new_table(batch: &mut Batch, family: Family) {
    batch.request(format!("create table {family} {TABLE}"), NEW_TABLE, CREATE, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, TABLE);
        // No flags: with the owner flag the table would vanish with the process, and traffic would pass.
        writer.put_be32(2, 0);
    });
}

fn new_chain(batch: &mut Batch, family: Family, chain: &Chain) {
    let name = format!("create chain {family} {TABLE} {}", chain.name);
    batch.request(name, NEW_CHAIN, CREATE, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, TABLE);
        writer.put_text(3, chain.name);
        if let Some(base) = &chain.base {
            hook(writer, base);
        }
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

fn new_rule(batch: &mut Batch, family: Family, chain: &str, rule: &Rule) {
    let name = format!("add rule \"{}\" to chain {family} {TABLE} {chain}", rule.name);
    batch.request(name, NEW_RULE, CREATE | APPEND, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, TABLE);
        writer.put_text(2, chain);
        writer.nest(4, |list| {
            for expression in &rule.expressions {
                expression.write(list);
            }
        });
        writer.put(7, &comment(rule.name));
    });
}

/// The rule's name in the form in which nft keeps comments: kind 0, length, text, NUL.
fn comment(name: &str) -> Vec<u8> {
    let mut octets = vec![0, u8::try_from(name.len().saturating_add(1)).unwrap_or(u8::MAX)];
    octets.extend_from_slice(name.as_bytes());
    octets.push(0);
    octets
}
