//! Changes of the sets of permissions as netlink messages.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use super::book::Association;
use super::{ADMITTED, FLOWS};
use crate::flow::Flow;
use crate::netlink::{Batch, CREATE, Writer};
use crate::rules::Role;
use crate::rules::batch;
use crate::rules::plan::Family;

/// Until when something stands, as far as the kernel has been told, and until when it is to.
pub(super) type Change = (Option<Instant>, Option<Instant>);

/// What is told the kernel at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// Permissions that have ended, and are told nobody but who stands before the rules.
    pub(super) ended: Vec<Association>,
    /// Permissions.
    pub(super) associations: BTreeMap<Association, Change>,
    /// Their flows.
    pub(super) flows: BTreeMap<Flow, Change>,
    /// Whether what the kernel has is not to be relied upon.
    pub(super) careful: bool,
}

/// The elements of one set in one family, by what is done with them.
#[derive(Debug, Default)]
struct Elements {
    /// Made sure to be there, so that they can be removed.
    there: Vec<Vec<u8>>,
    removed: Vec<Vec<u8>>,
    /// With the milliseconds that each is kept.
    added: Vec<(Vec<u8>, u64)>,
}

impl Elements {
    fn change(&mut self, key: Vec<u8>, (told, ends): Change, careful: bool, now: Instant) {
        if !careful && told == ends {
            return;
        }
        if careful {
            self.there.push(key.clone());
        }
        if careful || told.is_some() {
            // An element that is there would keep its end.
            self.removed.push(key.clone());
        }
        if let Some(ends) = ends {
            let lasts = ends.saturating_duration_since(now).as_nanos().div_ceil(1_000_000);
            self.added.push((key, u64::try_from(lasts).unwrap_or(u64::MAX)));
        }
    }
}

/// The transaction that carries the changes out. A host knows no flows.
pub(super) fn transaction(role: Role, changes: &Changes, now: Instant) -> Batch {
    let mut batch = batch::begin("change the permissions");
    for family in [Family::Ipv4, Family::Ipv6] {
        let mut sets = [(ADMITTED, Elements::default()), (FLOWS, Elements::default())];
        let [(_, associations), (_, flows)] = &mut sets;
        for (association, change) in &changes.associations {
            if let Some(key) = association_key(family, association) {
                associations.change(key, *change, changes.careful, now);
            }
        }
        for (flow, change) in changes.flows.iter().filter(|_| role == Role::Router) {
            if let Some(key) = flow_key(family, flow) {
                flows.change(key, *change, changes.careful, now);
            }
        }
        for (set, elements) in sets {
            let without_end = |keys: Vec<Vec<u8>>| keys.into_iter().map(|key| (key, None)).collect::<Vec<_>>();
            message(&mut batch, role, family, set, batch::NEW_ELEMENT, &without_end(elements.there));
            message(&mut batch, role, family, set, batch::DELETE_ELEMENT, &without_end(elements.removed));
            let added: Vec<_> = elements.added.into_iter().map(|(key, lasts)| (key, Some(lasts))).collect();
            message(&mut batch, role, family, set, batch::NEW_ELEMENT, &added);
        }
    }
    batch::end(batch)
}

fn message(batch: &mut Batch, role: Role, family: Family, set: &str, kind: u16, elements: &[(Vec<u8>, Option<u64>)]) {
    if elements.is_empty() {
        return;
    }
    let fill = |writer: &mut Writer| {
        writer.put_text(1, role.table());
        writer.put_text(2, set);
        writer.nest(3, |list| {
            for (key, lasts) in elements {
                list.nest(1, |element| {
                    element.nest(1, |data| data.put(1, key));
                    if let Some(lasts) = lasts {
                        element.put_be64(4, *lasts);
                    }
                });
            }
        });
    };
    let flags = if kind == batch::NEW_ELEMENT { CREATE } else { 0 };
    batch.request(format!("change set {family} {} {set}", role.table()), kind, flags, &batch::fixed(family.number(), 0), fill);
}

/// In the order of [`Key::Association`](crate::rules::key::Key::Association); `None` if it is of the other family, or of two.
fn association_key(family: Family, (source, destination, spi): &Association) -> Option<Vec<u8>> {
    Some([addresses(family, *source, *destination)?, spi.to_be_bytes().to_vec()].concat())
}

/// In the order of [`Key::Flow`](crate::rules::key::Key::Flow): each part begins at a multiple of 4 octets.
fn flow_key(family: Family, flow: &Flow) -> Option<Vec<u8>> {
    let ([a, b], [c, d]) = (flow.source_port.to_be_bytes(), flow.destination_port.to_be_bytes());
    let rest = [flow.protocol, 0, 0, 0, a, b, 0, 0, c, d, 0, 0];
    Some([addresses(family, flow.source, flow.destination)?, rest.to_vec()].concat())
}

fn addresses(family: Family, source: IpAddr, destination: IpAddr) -> Option<Vec<u8>> {
    match (family, source, destination) {
        (Family::Ipv4, IpAddr::V4(source), IpAddr::V4(destination)) => Some([source.octets(), destination.octets()].concat()),
        (Family::Ipv6, IpAddr::V6(source), IpAddr::V6(destination)) => Some([source.octets(), destination.octets()].concat()),
        _ => None,
    }
}
