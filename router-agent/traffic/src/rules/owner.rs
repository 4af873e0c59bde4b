//! Who may change a role's table while its daemon runs: nobody else.
//!
//! A table has the flags `owner` and `persist` (Linux 6.9). The kernel takes changes of it only from the socket through which it was
//! installed, and a flush of everything by somebody else passes it by. When that socket goes, with its process at the latest, the table
//! stays, with all its rules, and is nobody's: the next daemon replaces it in one batch. Without `persist` the kernel would take it away
//! with the socket, and traffic would pass. An older kernel refuses both together; the table then has no owner, and what others do to it
//! is put back ([`super::Watch`]).

use std::sync::{Arc, Mutex, PoisonError};

use crate::netlink::{Errno, NetlinkError, Protocol, Socket};

use super::plan::{Family, Table};
use super::{Role, batch, closed, dump, kept};

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

/// Whether a socket that is still open owns the role's table in both families, so that nobody else can change it.
///
/// # Errors
///
/// The kernel does not say what stands.
pub fn held(role: Role) -> Result<bool, NetlinkError> {
    is_held(&Socket::open(Protocol::Netfilter)?, role)
}

fn is_held(socket: &Socket, role: Role) -> Result<bool, NetlinkError> {
    for family in FAMILIES {
        if dump::flags(socket, role, family)?.is_none_or(|flags| flags & batch::OWNED == 0) {
            return Ok(false);
        }
    }
    Ok(true)
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
    if dump::flags(socket, role, Family::Ipv4)?.is_some() && dump::flags(socket, role, Family::Ipv6)?.is_some() {
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
    let with_flags = |flags| socket.transact(batch::replace(role, flags, tables));
    let replaced = match with_flags(if owned { batch::OWNED | batch::PERSISTENT } else { 0 }) {
        // A kernel that does not know both flags. If it is something else that it refuses, it does so again.
        Err(error) if owned && matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EINVAL)) => with_flags(0),
        other => other,
    };
    replaced.map_err(|error| explained(socket, role, error))
}

/// The kernel gives no more than "operation not permitted" to who would change what is another's.
fn explained(socket: &Socket, role: Role, error: NetlinkError) -> NetlinkError {
    match error {
        NetlinkError::Refused { what, errno: Errno::EPERM, detail: None } if is_held(socket, role).unwrap_or(false) => {
            NetlinkError::Refused { what, errno: Errno::EPERM, detail: Some("a running daemon holds the filter rules".to_owned()) }
        }
        other => other,
    }
}
