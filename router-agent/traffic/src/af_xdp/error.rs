//! Why there is no short way, and no shield before everything else.

use nix::errno::Errno;

use super::{MOST_INTERFACES, MOST_SOCKETS};
use crate::netlink::NetlinkError;

/// Why there is no short way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AfXdpError {
    /// Links cannot be listed or changed.
    #[error(transparent)]
    Link(#[from] NetlinkError),
    /// No interface has that name.
    #[error("there is no interface {0}")]
    NoInterface(String),
    /// Frames of another kind.
    #[error("interface {0} is no Ethernet link")]
    NotEthernet(String),
    /// Another program was there first.
    #[error("another XDP program runs on interface {0}, or one that this process may not ask about")]
    Taken(String),
    /// More interfaces or queues than there is room for.
    #[error("more than {MOST_INTERFACES} interfaces, or more than {MOST_SOCKETS} queues of all together")]
    TooMany,
    /// The kernel refuses something else.
    #[error("cannot {what}: {errno}{}", privileges(*.errno))]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// Its error.
        errno: Errno,
    },
    /// The kernel does not take the program.
    #[error("the kernel refuses the XDP program: {errno}: {said}{}", privileges(*.errno))]
    Program {
        /// Its error.
        errno: Errno,
        /// The last of what it says about it.
        said: String,
    },
}

const fn privileges(errno: Errno) -> &'static str {
    match errno {
        Errno::EPERM | Errno::EACCES => " (CAP_BPF, CAP_NET_ADMIN, CAP_NET_RAW and CAP_SYS_ADMIN are needed)",
        Errno::ENOBUFS | Errno::ENOMEM => " (is the limit of locked memory too low?)",
        _ => "",
    }
}

pub(super) fn refused(what: &'static str) -> impl Fn(Errno) -> AfXdpError {
    move |errno| AfXdpError::Refused { what, errno }
}
