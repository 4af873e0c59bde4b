//! Changes to inputs that are not messages of protocols: attributes of netlink, lines of configurations.

use crate::dice::Dice;

/// Octets of a netlink message's header, and of an attribute's.
const MESSAGE: usize = 16;
const ATTRIBUTE: usize = 4;
/// Octets of the fixed parts that there are behind the header.
const FIXED: [usize; 3] = [4, 12, 16];
/// How deep attributes lie in attributes, at the most.
const DEPTH: u64 = 4;

/// What lines of configurations are made of.
const LINES: [&str; 18] = [
    "[[path]]",
    "[[exempt]]",
    "[[grant]]",
    "[[ask]]",
    "[datapath]",
    "[gist]",
    "[relay]",
    "[[relay.admit]]",
    "name = \"\"",
    "volume = 0",
    "volume = 18446744073709551616",
    "destination = \"192.0.2.1/24\"",
    "destination = \"::/0\"",
    "ttl = \"1e99h\"",
    "refresh = \"0s\"",
    "port = 65536",
    "path_mark = 0xffffffff",
    "role = \"router\"",
];

/// Changes one attribute of the netlink message behind `at`, or of one that lies in another.
pub(super) fn change_attributes(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8], at: usize) {
    let fixed = FIXED.get(dice.below(FIXED.len() as u64) as usize).copied().unwrap_or(ATTRIBUTE);
    let begin = (at + MESSAGE + fixed).min(input.len());
    let list = input.split_off(begin);
    let depth = dice.below(DEPTH);
    let other = other.get(begin..).unwrap_or_default();
    input.extend(changed(dice, &list, other, depth));
}

/// Lets the message behind `at` say how long it is.
pub(super) fn count_message(input: &mut [u8], at: usize) {
    let length = (input.len().saturating_sub(at) as u32).to_ne_bytes();
    if let Some(field) = input.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) {
        *field = length;
    }
}

fn changed(dice: &mut Dice, list: &[u8], other: &[u8], depth: u64) -> Vec<u8> {
    let mut attributes = split(list);
    let place = dice.below(attributes.len() as u64 + 1) as usize;
    let Some(attribute) = attributes.get_mut(place) else {
        let others = split(other);
        attributes.extend(others.get(dice.below(others.len() as u64 + 1) as usize).cloned());
        return attributes.concat();
    };
    if depth > 0 && attribute.len() >= 2 * ATTRIBUTE {
        let value = attribute.split_off(ATTRIBUTE);
        attribute.extend(changed(dice, &value, other, depth - 1));
        count(attribute);
        return attributes.concat();
    }
    match dice.below(6) {
        0 => drop(attributes.remove(place)),
        1 => {
            let twice = attribute.clone();
            attributes.insert(place, twice);
        }
        // Its kind.
        2 => {
            let kind = dice.below(32) as u8;
            attribute.get_mut(2).into_iter().for_each(|octet| *octet = kind);
        }
        // Its length alone.
        3 => {
            let by = dice.below(9) as u8;
            attribute.first_mut().into_iter().for_each(|octet| *octet = octet.wrapping_add(by).wrapping_sub(4));
        }
        // A value that is longer or shorter, and says so.
        4 => {
            let length = dice.below(24) as usize;
            attribute.truncate(ATTRIBUTE);
            attribute.extend(dice.octets(length));
            count(attribute);
        }
        _ => {
            let last = attribute.len().saturating_sub(ATTRIBUTE) as u64;
            let (at, octet) = (ATTRIBUTE + dice.below(last + 1) as usize, dice.below(256) as u8);
            attribute.get_mut(at).into_iter().for_each(|place| *place = octet);
        }
    }
    attributes.concat()
}

/// Has an attribute say how long it is, and fills it up to the next one.
fn count(attribute: &mut Vec<u8>) {
    let length = (attribute.len() as u16).to_ne_bytes();
    if let Some(field) = attribute.first_chunk_mut::<2>() {
        *field = length;
    }
    attribute.resize(attribute.len().next_multiple_of(4), 0);
}

/// The attributes of a list with what fills them up; the last one may be cut short.
fn split(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    while let Some([low, high, ..]) = rest.first_chunk::<ATTRIBUTE>() {
        let length = usize::from(u16::from_ne_bytes([*low, *high])).max(ATTRIBUTE).next_multiple_of(4).min(rest.len());
        let (attribute, behind) = rest.split_at(length);
        found.push(attribute.to_vec());
        rest = behind;
    }
    found
}

/// Drops, doubles, moves or changes a line, or takes one from elsewhere.
pub(super) fn change_lines(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8]) {
    let mut lines: Vec<Vec<u8>> = input.split(|octet| *octet == b'\n').map(<[u8]>::to_vec).collect();
    let place = dice.below(lines.len() as u64) as usize;
    match dice.below(6) {
        0 => drop(lines.remove(place)),
        1 => {
            let to = dice.below(lines.len() as u64) as usize;
            lines.swap(place, to);
        }
        2 => {
            let line = LINES.get(dice.below(LINES.len() as u64) as usize).copied().unwrap_or_default();
            lines.insert(place, line.into());
        }
        3 => {
            let others: Vec<&[u8]> = other.split(|octet| *octet == b'\n').collect();
            let line = others.get(dice.below(others.len() as u64) as usize).copied().unwrap_or_default();
            lines.insert(place, line.to_vec());
        }
        // Another value.
        4 => {
            let value = VALUES.get(dice.below(VALUES.len() as u64) as usize).copied().unwrap_or_default();
            if let Some(line) = lines.get_mut(place)
                && let Some(at) = line.iter().position(|octet| *octet == b'=')
            {
                line.truncate(at + 1);
                line.extend(value.bytes());
            }
        }
        _ => {
            let line = lines.get(place).cloned().unwrap_or_default();
            lines.insert(place, line);
        }
    }
    *input = lines.join(&b'\n');
}

const VALUES: [&str; 20] = [
    " 0",
    " -1",
    " 1",
    " 18446744073709551615",
    " 4294967296",
    " true",
    " \"\"",
    " \"0s\"",
    " \"1us\"",
    " \"24h\"",
    " \"9999999999999999h\"",
    " []",
    " [[[[[[[[",
    " { a = 1 }",
    " \"255.255.255.255/33\"",
    " \"::ffff:1.2.3.4/128\"",
    " \"0-65535\"",
    " \"9-1\"",
    " 1979-05-27T07:32:00Z",
    " inf",
];
