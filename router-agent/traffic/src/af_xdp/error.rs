//! Why XDP does not what is wanted of it.

use nix::errno::Errno;

use super::{MOST_INTERFACES, MOST_SOCKETS};
use crate::netlink::NetlinkError;

/// Why there is no short way, or no shield before everything else.
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
    /// More interfaces than there is room for.
    #[error("{0} interfaces are to take part: more than {MOST_INTERFACES}")]
    TooManyInterfaces(usize),
    /// More queues than there is room for.
    #[error("the interfaces have {0} queues together: more than {MOST_SOCKETS}")]
    TooManyQueues(u32),
    /// The kernel refuses something else.
    #[error("cannot {what}{}: {errno}{}", place(.interface.as_deref(), *.queue), privileges(*.errno))]
    Refused {
        /// What was asked of it.
        what: &'static str,
        /// Of which interface, if of one.
        interface: Option<String>,
        /// Of which of its queues, if of one.
        queue: Option<u32>,
        /// Its error.
        errno: Errno,
    },
    /// The system is set up otherwise.
    #[error("{0}")]
    Setting(&'static str),
    /// The kernel does not take the program.
    #[error("the kernel refuses the XDP program of interface {interface}: {errno}: {said}{}", privileges(*.errno))]
    Program {
        /// Whose it was to be.
        interface: String,
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

fn place(interface: Option<&str>, queue: Option<u32>) -> String {
    match (interface, queue) {
        (Some(interface), Some(queue)) => format!(" on queue {queue} of interface {interface}"),
        (Some(interface), None) => format!(" on interface {interface}"),
        (None, _) => String::new(),
    }
}

pub(super) fn refused(what: &'static str) -> impl Fn(Errno) -> AfXdpError {
    move |errno| AfXdpError::Refused { what, interface: None, queue: None, errno }
}

/// The same of one interface, or of one of its queues.
pub(super) fn refused_on(what: &'static str, interface: &str, queue: Option<u32>) -> impl Fn(Errno) -> AfXdpError {
    move |errno| AfXdpError::Refused { what, interface: Some(interface.to_owned()), queue, errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_privileges_are_missing_is_said_once_and_where_something_was_refused() {
        let error = refused("know its own XDP program again")(Errno::EPERM);
        assert_eq!(error.to_string().matches("CAP_SYS_ADMIN").count(), 1, "{error}");
        let said = |interface: Option<&str>, queue| {
            let interface = interface.map(str::to_owned);
            AfXdpError::Refused { what: "do it", interface, queue, errno: Errno::EBUSY }.to_string()
        };
        assert!(said(None, None).starts_with("cannot do it: EBUSY"));
        assert!(said(Some("eth0"), None).starts_with("cannot do it on interface eth0: EBUSY"));
        assert!(said(Some("eth0"), Some(3)).starts_with("cannot do it on queue 3 of interface eth0: EBUSY"));
    }
}
