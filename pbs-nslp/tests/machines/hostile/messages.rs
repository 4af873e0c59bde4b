//! What the honest nodes would say next in a setting: each is taken as it is, so that what is refused is refused for what an attacker
//! has made of it.

use std::time::Duration;

use gist::api::ReceivedMessage;
use gist::wire::SessionId;
use pbs_nslp::datapath::Protection;
use pbs_nslp::wire::{Defense, NotifyCode, Permission, PublicKeyAlgorithm, Query, SaParameters, Volume, VolumeContext};

use super::settings::{RECEIVER, ROUTER, Setting, bystander, sessions_of};
use crate::forge::{self, denial, notice_from, permission, permission_from, query, query_from};
use crate::world::{Place, SENDER, World, flow};

/// A message, and who could sign it.
#[derive(Clone)]
pub(super) struct Genuine {
    pub(super) name: &'static str,
    /// The node that it is for.
    pub(super) place: Place,
    pub(super) received: ReceivedMessage,
    pub(super) content: Content,
}

/// What it says, to be said by others.
#[derive(Clone)]
pub(super) enum Content {
    Query(Query),
    Permission(Permission),
    Notice,
}

impl Genuine {
    pub(super) fn is_notice(&self) -> bool {
        matches!(self.content, Content::Notice)
    }
}

/// A number that each node takes from each signer.
pub(super) fn later(world: &World) -> u32 {
    u32::try_from(world.unix()).unwrap() + 12
}

/// Everything that the ends of the attacked flow, and nodes between them, might say to each node now.
pub(super) fn next(setting: &Setting) -> Vec<Genuine> {
    let world = &setting.world;
    let mut all = Vec::new();
    for place in [ROUTER, RECEIVER] {
        for session in sessions_of(world, place) {
            all.extend(queries(world).into_iter().map(|(name, query)| of_query(name, place, session, query)));
        }
    }
    for place in [SENDER, ROUTER] {
        for session in sessions_of(world, place) {
            all.extend(permissions(world).into_iter().map(|(name, permission)| of_permission(name, place, session, permission)));
            all.extend(NotifyCode::ALL.map(|code| {
                let received = notice_from(place + 1, session, flow(), code);
                Genuine { name: "notice", place, received, content: Content::Notice }
            }));
        }
    }
    all
}

fn of_query(name: &'static str, place: Place, session: SessionId, query: Query) -> Genuine {
    let received = query_from(place - 1, session, &query, &forge::sender());
    Genuine { name, place, received, content: Content::Query(query) }
}

fn of_permission(name: &'static str, place: Place, session: SessionId, permission: Permission) -> Genuine {
    let received = permission_from(place + 1, session, &permission, &forge::receiver());
    Genuine { name, place, received, content: Content::Permission(permission) }
}

fn queries(world: &World) -> Vec<(&'static str, Query)> {
    let number = later(world);
    let (spi, _) = live(world);
    let context = Some(VolumeContext { spi, highest: 1, permission: number - 12 });
    vec![
        ("question", query(number)),
        ("refresh", Query { requested: None, sent: Some(Volume(100)), context, ..query(number) }),
        ("report without context", Query { requested: None, sent: Some(Volume(100)), ..query(number) }),
        ("release", Query { requested: Some(Volume::ZERO), sent: Some(Volume(100)), context, ..query(number) }),
    ]
}

fn permissions(world: &World) -> Vec<(&'static str, Permission)> {
    let number = later(world);
    let (spi, defense) = live(world);
    let sa = Some(SaParameters { spi, drain: Duration::from_millis(500), new_epoch: true });
    let allowed = Volume(20_000_000);
    vec![
        ("grant or refresh", Permission { defense: Some(defense), sa, allowed, ..permission(number) }),
        ("new epoch", Permission { allowed, ..permission(number) }),
        ("denial", denial(number)),
        ("advice to change the path", Permission { defense: Some(Defense::ChangePath), sa: None, allowed, ..permission(number) }),
    ]
}

/// SPI and Defense of the flow's association in use, or of one that might come.
fn live(world: &World) -> (u32, Defense) {
    let entry = world.datapaths.iter().rev().flat_map(|datapath| &datapath.table);
    let entry = entry.filter(|((of, _), entry)| *of == flow() && !entry.draining).map(|((_, spi), entry)| (*spi, &entry.grant.protection));
    match entry.take(1).next() {
        Some((spi, Protection::Shared { algorithm, key })) => (spi, Defense::SymmetricKey { algorithm: *algorithm, key: key.clone() }),
        Some((spi, Protection::SignedBy(_) | Protection::Signing)) => {
            (spi, Defense::PublicKey { algorithm: PublicKeyAlgorithm::FromCertificate })
        }
        None => (0x6000, forge::key(3)),
    }
}

/// The SPI of the flow's association in use, or of one that might come.
pub(super) fn live_spi(world: &World) -> u32 {
    live(world).0
}

/// The SPI of the flow beside the attacked one.
pub(super) fn bystanders_spi(world: &World) -> u32 {
    let mut permissions = world.datapaths[RECEIVER].table.keys();
    permissions.find(|(of, _)| *of == bystander()).unwrap_or_else(|| panic!("it has lost its permission: {}", world.story())).1
}
