//! One daemon a network namespace: a second one of the same kind would put its filter rules in place of the first one's, and of
//! two kinds each would drop what the other lets pass.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// TCP port 270, which GIST does not use: only a privileged process can hold it, each network namespace has its own, and the
/// kernel frees it with the process, however that ends. Nobody listens there.
const PORT: u16 = 270;

/// Why this network namespace cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another daemon runs here.
    #[error("TCP port {PORT} is held: another pbs or pbs-router runs in this network namespace; its filter rules are left alone")]
    Taken,
    /// The process may not hold the port.
    #[error("cannot hold TCP port {PORT}: root, or CAP_NET_BIND_SERVICE, is needed")]
    NotPrivileged,
    /// Anything else.
    #[error("cannot hold TCP port {PORT}: {0}")]
    System(std::io::Error),
}

/// The right to this network namespace's filter rules, for as long as it is held.
#[derive(Debug)]
pub struct Claim {
    _socket: Socket,
}

impl Claim {
    /// Claims the network namespace of the calling thread.
    pub fn take() -> Result<Self, ClaimError> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).map_err(ClaimError::System)?;
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        socket.bind(&address.into()).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => ClaimError::Taken,
            ErrorKind::PermissionDenied => ClaimError::NotPrivileged,
            _ => ClaimError::System(error),
        })?;
        Ok(Self { _socket: socket })
    }
}
