//! Reads back what stands in the kernel.

use crate::netlink::{Attribute, Malformed, Message, NetlinkError, Socket};

use super::Role;
use super::batch::{SUBSYSTEM, fixed};
use super::plan::Family;

const NEW_TABLE: u16 = SUBSYSTEM << 8;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
/// Octets of the fixed part of a message.
const FIXED_LEN: usize = 4;

/// How often a rule was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleCounter {
    /// The family of the table.
    pub family: Family,
    /// The chain.
    pub chain: String,
    /// The rule's name.
    pub rule: String,
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets, from the IP header on.
    pub bytes: u64,
}

/// The flags of the role's table in `family`; `None` if it does not stand.
pub(super) fn flags(socket: &Socket, role: Role, family: Family) -> Result<Option<u32>, NetlinkError> {
    let tables = socket.dump("list the tables", GET_TABLE, &fixed(family.number(), 0), |_| {}, |message| flags_of_table(message, role))?;
    Ok(tables.first().copied())
}

/// The flags of the role's table, if a message says that it stands.
pub(super) fn flags_of_table(message: &Message<'_>, role: Role) -> Result<Option<u32>, Malformed> {
    if message.kind != NEW_TABLE {
        return Ok(None);
    }
    let name = find(message, 1)?.map(|attribute| attribute.text()).transpose()?;
    let flags = find(message, 2)?.map(|attribute| attribute.be32()).transpose()?;
    Ok((name == Some(role.table())).then_some(flags.unwrap_or_default()))
}

/// The counters of the role's table in `family`, in the order of the rules.
pub(super) fn counters(socket: &Socket, role: Role, family: Family) -> Result<Vec<RuleCounter>, NetlinkError> {
    socket.dump(
        "list the rules",
        GET_RULE,
        &fixed(family.number(), 0),
        |writer| writer.put_text(1, role.table()),
        |message| if message.kind == NEW_RULE { counter(message, role, family) } else { Ok(None) },
    )
}

pub(super) fn counter(message: &Message<'_>, role: Role, family: Family) -> Result<Option<RuleCounter>, Malformed> {
    // A kernel that does not know the filter by table lists the rules of all.
    if find(message, 1)?.map(|attribute| attribute.text()).transpose()? != Some(role.table()) {
        return Ok(None);
    }
    let Some(expressions) = find(message, 4)? else { return Ok(None) };
    for element in expressions.nested() {
        let element = element?;
        let name = element.nested().find(1)?.map(|name| name.text()).transpose()?;
        let (Some("counter"), Some(data)) = (name, element.nested().find(2)?) else { continue };
        let number = |kind| data.nested().find(kind)?.map_or(Ok(0), |value| value.be64());
        return Ok(Some(RuleCounter {
            family,
            chain: find(message, 2)?.map_or(Ok(""), |chain| chain.text())?.to_owned(),
            rule: find(message, 7)?.map(comment).unwrap_or_default(),
            packets: number(2)?,
            bytes: number(1)?,
        }));
    }
    Ok(None)
}

fn find<'a>(message: &Message<'a>, kind: u16) -> Result<Option<Attribute<'a>>, Malformed> {
    crate::netlink::attributes(message.after(FIXED_LEN)?).find(kind)
}

/// The name that `batch` gave the rule: kind, length, text, NUL.
fn comment(userdata: Attribute<'_>) -> String {
    let text = userdata.value.get(2..).unwrap_or_default();
    String::from_utf8_lossy(text.strip_suffix(&[0]).unwrap_or(text)).into_owned()
}
