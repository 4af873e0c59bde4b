//! Why a shell does not start, and what a caller hears when it is gone.

use std::net::SocketAddr;

/// Why [`spawn`](super::spawn) failed. Each names what and where.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// Neither IP version is wanted.
    #[error("no address to bind: neither IPv4 nor IPv6 is configured")]
    NoAddress,
    /// A socket cannot be bound: the address does not exist here, the port is taken or privileged.
    #[error("cannot bind {what} {address}: {source}{}", hint(source))]
    Bind {
        /// The transport.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// No raw socket for Q-mode packets.
    #[error("cannot open a raw {version} socket for Query packets: {source}{}", hint(source))]
    RawSocket {
        /// The IP version.
        version: &'static str,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The operating system gives no random seed.
    #[error("the system gives no random numbers")]
    NoRandomness,
    /// The port that the node announces for associations is 0.
    #[error("the association port must not be 0")]
    NoAssociationPort,
    /// An application offers TLS, and the node has no certificate.
    #[error("an application offers TLS, and the node has no certificate")]
    NoTls,
    /// NSLPID 0 is GIST's own and no application's.
    #[error("an application is registered as NSLPID 0, which is no application's")]
    NoApplication,
    /// There is no tokio runtime with sockets and timers around the caller.
    #[error("not called inside a tokio runtime")]
    NoRuntime,
}

/// The shell has ended; nothing can be asked of it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the GIST shell has ended")]
pub struct Stopped;

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The shell has ended.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The application has left too many indications untaken; it has to take some first.
    #[error("too many indications wait for the application")]
    Backlog,
}

fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::PermissionDenied => " (root, or CAP_NET_RAW and CAP_NET_BIND_SERVICE, is needed)",
        std::io::ErrorKind::AddrNotAvailable => " (no interface has this address)",
        std::io::ErrorKind::AddrInUse => " (another program uses it)",
        _ => "",
    }
}
