//! The permissions that rules know: fragments under their SPIs are made whole ([`super::fragments`]), and a router says of their packets
//! that they are too big whatever else it says that of ([`super::router`]).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::netlink::{Batch, CREATE, NetlinkError, Protocol, Socket, Writer};

use super::Role;
use super::batch;
use super::key::Key;
use super::plan::{Family, Set};

/// The live permissions, by addresses and SPI. Only their daemon fills it.
pub(super) const ADMITTED: &str = "permissions";
/// How long one is kept if its daemon does not say, in milliseconds.
const KEPT: u64 = 60_000;

/// The set that they stand in.
pub(super) fn set() -> Set {
    Set { name: ADMITTED.into(), key: Key::Association, is_map: false, timeout: KEPT }
}

/// Permissions held here at most; others share the buckets of what has none.
const MOST: usize = 65_536;
/// Elements of one batch.
const AT_ONCE: usize = 256;
/// A permission is kept longer than it lasts, so that the kernel is not told of each refresh.
const LONGER: Duration = Duration::from_secs(60);

/// The permissions that a daemon has told the rules of its role. Clones are the same.
///
/// What stands in the kernel decides only about room in its memory for fragments and about errors: a permission too many or too few lets
/// no packet pass that would not be verified. So nothing here fails a caller.
#[derive(Debug, Clone)]
pub struct Admitted(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    role: Role,
    socket: Socket,
    /// Until when the kernel keeps each that it has taken.
    kept: BTreeMap<Association, Instant>,
    refused: u64,
}

/// Source, destination, SPI.
type Association = (IpAddr, IpAddr, u32);

impl Admitted {
    /// None, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// No socket.
    pub fn open(role: Role) -> Result<Self, NetlinkError> {
        let socket = Socket::open(Protocol::Netfilter)?;
        Ok(Self(Arc::new(Mutex::new(Inner { role, socket, kept: BTreeMap::new(), refused: 0 }))))
    }

    /// Netlink port of the changes made here, by which a watch knows them.
    ///
    /// # Errors
    ///
    /// The socket does not tell.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        self.lock().socket.port()
    }

    /// Makes known the SPI of a flow's packets, for as long as its permission `lasts`, at the least.
    pub fn admit(&self, source: IpAddr, destination: IpAddr, spi: u32, lasts: Duration) {
        let mut inner = self.lock();
        let (association, now) = ((source, destination, spi), Instant::now());
        let Some(ends) = now.checked_add(lasts) else { return };
        if inner.kept.get(&association).is_some_and(|kept| *kept >= ends) {
            return;
        }
        if inner.kept.len() >= MOST && !inner.kept.contains_key(&association) {
            inner.kept.retain(|_, kept| *kept > now);
            if inner.kept.len() >= MOST {
                inner.refused = inner.refused.saturating_add(1);
                return;
            }
        }
        let kept = ends.checked_add(lasts).and_then(|kept| kept.checked_add(LONGER)).unwrap_or(ends);
        let former = inner.kept.insert(association, kept);
        if !inner.tell(&[(association, kept)], now)
            && let Some(former) = former
        {
            // The kernel takes a batch as a whole or not at all: what it has of before it keeps.
            inner.kept.insert(association, former);
        }
    }

    /// Ends what [`admit`](Self::admit) has begun. The kernel is told whatever is known of it here: a permission must not outlive its end
    /// there because an answer was lost.
    pub fn forget(&self, source: IpAddr, destination: IpAddr, spi: u32) {
        let mut inner = self.lock();
        let association = (source, destination, spi);
        inner.kept.remove(&association);
        let mut batch = batch::begin("forget a permission");
        element(&mut batch, inner.role, batch::DELETE_ELEMENT, association, None);
        // What is gone already need not be removed.
        let _ = inner.socket.transact(batch::end(batch));
    }

    /// Tells the rules of everything anew: they have been installed again.
    pub fn refill(&self) {
        let mut inner = self.lock();
        let now = Instant::now();
        inner.kept.retain(|_, kept| *kept > now);
        let all: Vec<_> = inner.kept.iter().map(|(association, kept)| (*association, *kept)).collect();
        for some in all.chunks(AT_ONCE) {
            // In a table that is new there is nothing of before.
            inner.tell(some, now);
        }
    }

    /// Permissions known to the rules, and how often one could not be made known.
    pub fn counts(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.kept.len(), inner.refused)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Whether the kernel has taken them. Those that it has not are not kept here either, so that the next refresh of each tries again.
    fn tell(&mut self, associations: &[(Association, Instant)], now: Instant) -> bool {
        let mut batch = batch::begin("admit a permission");
        for (association, kept) in associations {
            // An element that is there keeps its end: it goes first, and must be there for that.
            element(&mut batch, self.role, batch::NEW_ELEMENT, *association, None);
            element(&mut batch, self.role, batch::DELETE_ELEMENT, *association, None);
            element(&mut batch, self.role, batch::NEW_ELEMENT, *association, Some(kept.saturating_duration_since(now)));
        }
        let told = self.socket.transact(batch::end(batch));
        if let Err(error) = &told {
            for (association, _) in associations {
                self.kept.remove(association);
            }
            self.refused = self.refused.saturating_add(associations.len() as u64);
            tracing::debug!(%error, "a permission shares the buckets of what has none");
        }
        told.is_ok()
    }
}

/// One element of the set, in the order of [`Key::Association`](super::key::Key::Association).
fn element(batch: &mut Batch, role: Role, kind: u16, (source, destination, spi): Association, lasts: Option<Duration>) {
    let (family, addresses) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => (Family::Ipv4, [source.octets(), destination.octets()].concat()),
        (IpAddr::V6(source), IpAddr::V6(destination)) => (Family::Ipv6, [source.octets(), destination.octets()].concat()),
        // No flow is of two families.
        _ => return,
    };
    let key = [addresses, spi.to_be_bytes().to_vec()].concat();
    let fill = |writer: &mut Writer| {
        writer.put_text(1, role.table());
        writer.put_text(2, ADMITTED);
        writer.nest(3, |elements| {
            elements.nest(1, |element| {
                element.nest(1, |data| data.put(1, &key));
                if let Some(lasts) = lasts {
                    element.put_be64(4, u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX));
                }
            });
        });
    };
    let flags = if kind == batch::NEW_ELEMENT { CREATE } else { 0 };
    batch.request(format!("change set {family} {} {ADMITTED}", role.table()), kind, flags, &batch::fixed(family.number(), 0), fill);
}
