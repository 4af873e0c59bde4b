//! The short ways of a chain of hosts and a router: past the queue of whoever receives.

use std::io;
use std::sync::Arc;

use traffic::af_xdp::{AfXdp, Inlet, Shield, Taking};
use traffic::rules::Admitted;
use traffic::table::DEFAULT_CAPACITY;

use crate::network::namespace::Namespace;

/// Those of sender, router and receiver, as far as they are wanted: of hosts, and of the router. Each `admitted` must know of no permission
/// yet.
///
/// # Errors
///
/// The kernel refuses.
pub(super) fn open(
    [sender, router, receiver]: [&Namespace; 3],
    admitted: &[Admitted],
    [of_sender, of_receiver]: [Option<Inlet>; 2],
    [_, at_router]: [bool; 2],
) -> io::Result<[Option<AfXdp>; 3]> {
    let host = |node: &Namespace, interface: &str, inlet: Option<Inlet>, admitted: Option<&Admitted>| {
        let Some((inlet, admitted)) = inlet.zip(admitted) else { return Ok(None) };
        node.run(|| {
            let shield = Shield::new(DEFAULT_CAPACITY, true).map_err(io::Error::other)?;
            let (past, _) = AfXdp::receive_at_host(&[interface.to_owned()], &shield, inlet).map_err(io::Error::other)?;
            admitted.stand_behind(Arc::new(shield));
            Ok(Some(past))
        })
    };
    let taking = ["near1", "far0"].map(|name| Taking { name: name.to_owned(), leaves: true });
    let past_router = || {
        router.run(|| {
            let shield = Shield::new(DEFAULT_CAPACITY, true).map_err(io::Error::other)?;
            let (past, _) = AfXdp::open(&taking, Some(&shield)).map_err(io::Error::other)?;
            admitted.get(1).into_iter().for_each(|admitted| admitted.stand_behind(Arc::new(shield.clone())));
            Ok(past)
        })
    };
    Ok([
        host(sender, "near0", of_sender, admitted.first())?,
        at_router.then(past_router).transpose()?,
        host(receiver, "far1", of_receiver, admitted.get(2))?,
    ])
}
