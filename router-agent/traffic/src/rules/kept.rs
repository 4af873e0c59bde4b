//! The peers that a table knows outlive it: a daemon that starts again installs its rules anew, and just then its neighbours have to
//! come back, through whatever flood there is.

use crate::netlink::{CREATE, Malformed, Message, NetlinkError, Socket, attributes};

use super::Role;
use super::batch::{self, NEW_ELEMENT, fixed};
use super::peers::PEERS;
use super::plan::Family;

const GET_ELEMENTS: u16 = batch::SUBSYSTEM << 8 | 13;
/// Octets of the fixed part of a message.
const FIXED_LEN: usize = 4;
/// Elements of one batch.
const AT_ONCE: usize = 256;
/// Peers that are kept at most, of each family, so that no start takes long.
const MOST: usize = 16_384;

/// A peer's address, and for how many milliseconds more it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    address: Vec<u8>,
    lasts: u64,
}

/// The peers that stand in a role's table.
#[derive(Debug)]
pub(super) struct Peers(Vec<(Family, Vec<Peer>)>);

impl Peers {
    /// Those that stand now; none if there is no such table, or one that knows no peers.
    pub(super) fn standing(socket: &Socket, role: Role) -> Self {
        Self([Family::Ipv4, Family::Ipv6].map(|family| (family, standing(socket, role, family).unwrap_or_default())).into())
    }

    /// Puts them into a table that has just been installed. Whom the kernel refuses opens as a stranger does, so nothing here fails.
    pub(super) fn put_back(&self, socket: &Socket, role: Role) {
        for (family, peers) in &self.0 {
            for some in peers.chunks(AT_ONCE) {
                if let Err(error) = put_back(socket, role, *family, some) {
                    tracing::debug!(%error, "peers of before are strangers");
                    return;
                }
            }
        }
    }
}

fn standing(socket: &Socket, role: Role, family: Family) -> Result<Vec<Peer>, NetlinkError> {
    let of_set = |writer: &mut crate::netlink::Writer| {
        writer.put_text(1, role.table());
        writer.put_text(2, PEERS);
    };
    let listed = socket.dump("list the peers", GET_ELEMENTS, &fixed(family.number(), 0), of_set, |message| peers(message).map(Some))?;
    Ok(listed.into_iter().flatten().take(MOST).collect())
}

pub(super) fn peers(message: &Message<'_>) -> Result<Vec<Peer>, Malformed> {
    let mut found = Vec::new();
    let Some(elements) = attributes(message.after(FIXED_LEN)?).find(3)? else { return Ok(found) };
    for element in elements.nested() {
        let element = element?;
        let key = element.nested().find(1)?.map(|key| key.nested().find(1)).transpose()?.flatten();
        let lasts = element.nested().find(5)?.map(|lasts| lasts.be64()).transpose()?;
        if let (Some(key), Some(lasts @ 1..)) = (key, lasts) {
            found.push(Peer { address: key.value.to_vec(), lasts });
        }
    }
    Ok(found)
}

fn put_back(socket: &Socket, role: Role, family: Family, peers: &[Peer]) -> Result<(), NetlinkError> {
    let mut batch = batch::begin("put peers back");
    batch.request(format!("fill set {family} {} {PEERS}", role.table()), NEW_ELEMENT, CREATE, &fixed(family.number(), 0), |writer| {
        writer.put_text(1, role.table());
        writer.put_text(2, PEERS);
        writer.nest(3, |elements| {
            for peer in peers {
                elements.nest(1, |element| {
                    element.nest(1, |data| data.put(1, &peer.address));
                    element.put_be64(4, peer.lasts);
                });
            }
        });
    });
    socket.transact(batch::end(batch))
}
