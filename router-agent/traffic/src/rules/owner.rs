//! Who may change a role's table while its daemon runs: nobody else.
//!
//! A table has the flags `owner` and `persist` (Linux 6.9). The kernel takes changes of it only from the socket through which it was
//! installed, and a flush of everything by somebody else passes it by. When that socket goes, with its process at the latest, the table
//! stays, with all its rules, and is nobody's: the next daemon replaces it in one batch. Without `persist` the kernel would take it away
//! with the socket, and traffic would pass. An older kernel refuses both together; the table then has no owner, and what others do to it
//! is put back ([`super::Watch`]).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::netlink::{Errno, NetlinkError, Protocol, Socket};

use super::plan::{Family, Table};
use super::{Installed, Role, batch, closed, dump, kept};

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// The one socket through which a daemon changes its table, shared by those of its threads that do. Whatever answers a request is read
/// before the next one is made.
#[derive(Debug, Clone)]
pub struct Owner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    socket: Mutex<Socket>,
    port: u32,
}

impl Owner {
    /// Opens the socket in the network namespace of the calling thread. It owns nothing yet.
    ///
    /// # Errors
    ///
    /// No socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open(Protocol::Netfilter)?;
        let port = socket.port()?;
        Ok(Self(Arc::new(Inner { socket: Mutex::new(socket), port })))
    }

    /// Removes the role's table as [`remove`](super::remove) does, also if this socket owns it.
    ///
    /// # Errors
    ///
    /// What the kernel refuses; the table then is as it was.
    pub fn remove(&self, role: Role) -> Result<(), NetlinkError> {
        self.with(|socket| remove_through(socket, role))
    }

    /// Netlink port of the changes made here.
    pub(super) fn port(&self) -> u32 {
        self.0.port
    }

    /// Does something through the socket that nobody else uses meanwhile.
    pub(super) fn with<T>(&self, work: impl FnOnce(&Socket) -> T) -> T {
        work(&self.0.socket.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where the role's table stands, and whether it is [`held`].
///
/// # Errors
///
/// The kernel does not say what stands.
pub fn standing(role: Role) -> Result<(Installed, bool), NetlinkError> {
    let flags = standing_flags(&Socket::open(Protocol::Netfilter)?, role)?;
    let [ipv4, ipv6] = flags.map(|flags| flags.is_some());
    Ok((Installed { ipv4, ipv6 }, are_held(flags)))
}

/// Whether the role's table stands.
///
/// # Errors
///
/// The kernel does not say what stands.
pub fn installed(role: Role) -> Result<Installed, NetlinkError> {
    standing(role).map(|(installed, _)| installed)
}

/// Whether a socket that is still open owns the role's table in both families, so that nobody else can change it.
///
/// # Errors
///
/// The kernel does not say what stands.
pub fn held(role: Role) -> Result<bool, NetlinkError> {
    standing(role).map(|(_, held)| held)
}

/// The flags of the role's table in each of [`FAMILIES`]; `None` where it does not stand.
fn standing_flags(socket: &Socket, role: Role) -> Result<[Option<u32>; 2], NetlinkError> {
    let [ipv4, ipv6] = FAMILIES.map(|family| dump::flags(socket, role, family));
    Ok([ipv4?, ipv6?])
}

fn are_held(flags: [Option<u32>; 2]) -> bool {
    flags.iter().all(|flags| flags.is_some_and(|flags| flags & batch::OWNED != 0))
}

/// Puts `tables` in place of those that stand. Rules that this kernel refuses, for example because it cannot tell sockets, leave the node
/// closed and not open.
pub(super) fn install(socket: &Socket, role: Role, owned: bool, tables: &[Table]) -> Result<(), NetlinkError> {
    let known = kept::Peers::standing(socket, role);
    replace(socket, role, owned, tables).inspect_err(|_| {
        // If even this is refused, the first refusal says more.
        let _ = close_through(socket, role, owned);
    })?;
    known.put_back(socket, role);
    Ok(())
}

/// See [`close`](super::close).
pub(super) fn close_through(socket: &Socket, role: Role, owned: bool) -> Result<bool, NetlinkError> {
    if standing_flags(socket, role)?.iter().all(Option::is_some) {
        return Ok(false);
    }
    replace(socket, role, owned, &FAMILIES.map(|family| closed::plan(role, family)))?;
    Ok(true)
}

/// See [`remove`](super::remove).
pub(super) fn remove_through(socket: &Socket, role: Role) -> Result<(), NetlinkError> {
    socket.transact(batch::remove(role, &FAMILIES)).map_err(|error| explained(socket, role, error))
}

fn replace(socket: &Socket, role: Role, owned: bool, tables: &[Table]) -> Result<(), NetlinkError> {
    /// Of the kernel, and so of all namespaces.
    static KNOWS_NO_OWNER: AtomicBool = AtomicBool::new(false);
    let with_flags = |flags| socket.transact(batch::replace(role, flags, tables));
    with_owner(owned, &KNOWS_NO_OWNER, with_flags).map_err(|error| explained(socket, role, error))
}

/// Asks for a table with an owner, if it is to have one and the kernel has not refused just that before.
fn with_owner(owned: bool, knows_no_owner: &AtomicBool, with_flags: impl Fn(u32) -> Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    if !owned || knows_no_owner.load(Ordering::Relaxed) {
        return with_flags(0);
    }
    match with_flags(batch::OWNED | batch::PERSISTENT) {
        // A kernel that does not know both flags. If it is something else that it refuses, it does so again, and nothing is known.
        Err(error) if matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EINVAL)) => {
            with_flags(0).inspect(|()| knows_no_owner.store(true, Ordering::Relaxed))
        }
        other => other,
    }
}

/// The kernel gives no more than "operation not permitted" to who would change what is another's.
fn explained(socket: &Socket, role: Role, error: NetlinkError) -> NetlinkError {
    match error {
        NetlinkError::Refused { what, errno: Errno::EPERM, detail: None } if standing_flags(socket, role).is_ok_and(are_held) => {
            NetlinkError::Refused { what, errno: Errno::EPERM, detail: Some("a running daemon holds the filter rules".to_owned()) }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Flags of each request, of a kernel that refuses some.
    fn asked(times: usize, owned: bool, refuses: impl Fn(u32) -> Option<Errno>) -> (Vec<u32>, Vec<bool>) {
        let (seen, memory) = (RefCell::new(Vec::new()), AtomicBool::new(false));
        let kernel = |flags| {
            seen.borrow_mut().push(flags);
            refuses(flags).map_or(Ok(()), |errno| Err(NetlinkError::Refused { what: "replace".to_owned(), errno, detail: None }))
        };
        let outcomes = (0..times).map(|_| with_owner(owned, &memory, kernel).is_ok()).collect();
        (seen.into_inner(), outcomes)
    }

    const BOTH: u32 = batch::OWNED | batch::PERSISTENT;

    #[test]
    fn a_kernel_without_owners_is_asked_for_one_once_and_one_that_refuses_all_the_same_each_time() {
        for errno in [Errno::EOPNOTSUPP, Errno::EINVAL] {
            let old = |flags| (flags != 0).then_some(errno);
            assert_eq!(asked(3, true, old), (vec![BOTH, 0, 0, 0], vec![true; 3]));
            assert_eq!(asked(2, true, |_| Some(errno)), (vec![BOTH, 0, BOTH, 0], vec![false; 2]));
        }
        assert_eq!(asked(2, true, |_| None), (vec![BOTH; 2], vec![true; 2]));
        assert_eq!(asked(2, true, |_| Some(Errno::EPERM)), (vec![BOTH; 2], vec![false; 2]), "another's is not taken without an owner");
        assert_eq!(asked(1, false, |_| None), (vec![0], vec![true]));
    }
}
