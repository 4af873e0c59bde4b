//! Keeps a role's table as it was installed: whoever else removes or changes any of it finds it put back. Where the kernel keeps others
//! from it ([`super::Owner`]) there is nothing to put back, and this is the second lock.
//!
//! The kernel tells every change of the packet filter to whoever listens (`NFNLGRP_NFTABLES`), with the netlink port of the
//! socket that made it. What concerns this role's table and does not come from the owner's socket is a disturbance, after
//! which the whole table is installed again in one batch. Own changes carry the own port, so that there is no loop. Should a
//! message be lost (the kernel then says so) or never be sent, [`Watch::is_intact`] compares what stands with what stood after
//! the last installation: handles of table, chains and rules, which the kernel never gives twice, and the chains' policies.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::netlink::{Errno, Malformed, Message, NetlinkError, Protocol, Socket, attributes, messages};

use super::batch::{DELETE_ELEMENT, NEW_ELEMENT, SUBSYSTEM, fixed};
use super::plan::Family;
use super::{Install, Owner, Role};

/// Group of the notifications about nf_tables (`NFNLGRP_NFTABLES`).
const GROUP: u32 = 7;
const GET_TABLE: u16 = SUBSYSTEM << 8 | 1;
const GET_CHAIN: u16 = SUBSYSTEM << 8 | 4;
const GET_RULE: u16 = SUBSYSTEM << 8 | 7;
/// Ends every change, and tells who made it (`NFT_MSG_NEWGEN`).
const NEW_GENERATION: u16 = SUBSYSTEM << 8 | 15;
/// Octets of the fixed part of a message.
const FIXED_LEN: usize = 4;
/// Room for one received buffer.
const RECEIVE_LEN: usize = 64 * 1024;
/// Room for what is told of a whole rule set that goes at once, and of who made it go.
const NEWS_LEN: usize = 512 * 1024;
/// How often in a row a table that is disturbed while it is installed is installed anew before the caller is asked again.
const ATTEMPTS: usize = 16;

/// Who changed the packet filter, as far as the kernel tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Author {
    /// Name of the process, at most 15 octets of it.
    pub name: Option<String>,
    /// Number of its thread in the first process namespace.
    pub process: Option<u32>,
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.process) {
            (Some(name), Some(process)) => write!(f, "{name} (process {process})"),
            (Some(name), None) => f.write_str(name),
            (None, Some(process)) => write!(f, "process {process}"),
            (None, None) => f.write_str("an unknown process"),
        }
    }
}

/// Watches over one role's table. The table outlives it.
pub struct Watch {
    role: Role,
    install: Install,
    /// What makes every change.
    owner: Owner,
    /// What asks.
    requests: Socket,
    notifications: Socket,
    /// What stood after the last installation.
    expected: BTreeSet<Entry>,
    /// Something has been heard that has not been mended yet, and by whom it was.
    disturbed: Option<Author>,
    /// By whom it was what has been mended.
    culprit: Author,
    buffer: Vec<u8>,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("role", &self.role).field("disturbed", &self.disturbed).finish_non_exhaustive()
    }
}

impl Watch {
    /// Listens, in the network namespace of the calling thread, and installs the role's table.
    ///
    /// # Errors
    ///
    /// What the kernel refuses; the table then is as it was.
    pub fn start(role: Role, install: Install) -> Result<Self, NetlinkError> {
        Self::start_through(role, install, Owner::open()?)
    }

    /// The same through what others of this daemon change the table through.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_through(role: Role, install: Install, owner: Owner) -> Result<Self, NetlinkError> {
        let requests = Socket::open(Protocol::Netfilter)?;
        // Before the installation, so that nothing that happens after it is missed.
        let notifications = Socket::listen(Protocol::Netfilter, GROUP)?;
        notifications.hold(NEWS_LEN);
        let buffer = vec![0; RECEIVE_LEN];
        let (expected, disturbed, culprit) = (BTreeSet::new(), None, Author::default());
        let mut watch = Self { role, install, owner, requests, notifications, expected, disturbed, culprit, buffer };
        watch.restore()?;
        Ok(watch)
    }

    /// Waits until something has happened to the packet filter, whatever it is; `false` if nothing has within `timeout`.
    ///
    /// # Errors
    ///
    /// The socket does not work any more.
    pub fn wait(&self, timeout: Duration) -> Result<bool, NetlinkError> {
        Ok(self.disturbed.is_some() || self.notifications.wait(timeout).map_err(NetlinkError::Receive)?)
    }

    /// Reads what has happened. `true` if somebody else has laid hands on the table since its last installation.
    ///
    /// # Errors
    ///
    /// The socket does not work any more.
    pub fn is_disturbed(&mut self) -> Result<bool, NetlinkError> {
        loop {
            let received = match self.notifications.receive(&mut self.buffer) {
                Ok(received) => received,
                Err(Errno::EAGAIN) => return Ok(self.disturbed.is_some()),
                // Messages were missed, or one was longer than any of interest: what they said can be seen in the table.
                Err(Errno::ENOBUFS | Errno::EMSGSIZE) => {
                    if !self.is_intact()? {
                        self.disturbed.get_or_insert_default();
                    }
                    continue;
                }
                Err(errno) => return Err(NetlinkError::Receive(errno)),
            };
            for message in messages(received) {
                // What cannot be read may have said anything.
                match message.and_then(|message| News::read(&message, self.role, self.owner.port())).unwrap_or(News::Disturbed) {
                    News::Disturbed => drop(self.disturbed.get_or_insert_default()),
                    // Whatever was told before this has been mended by it.
                    News::Installed => self.culprit = self.disturbed.take().unwrap_or_else(|| std::mem::take(&mut self.culprit)),
                    News::ChangedBy(author) => {
                        if let Some(unknown) = self.disturbed.as_mut().filter(|disturbed| **disturbed == Author::default()) {
                            *unknown = author;
                        }
                    }
                    News::Irrelevant => {}
                }
            }
        }
    }

    /// Installs the table again, and once more if somebody laid hands on it meanwhile. Answers who made it necessary.
    ///
    /// # Errors
    ///
    /// What the kernel refuses; what stands is then as it was found.
    pub fn restore(&mut self) -> Result<Author, NetlinkError> {
        for _ in 0..ATTEMPTS {
            self.owner.with(&self.install)?;
            self.expected = standing(&self.requests, self.role)?;
            // Only now the whole of what came before is told for certain, its author too.
            if !self.is_disturbed()? {
                break;
            }
        }
        Ok(std::mem::take(&mut self.culprit))
    }

    /// Whether exactly that stands which stood after the last installation.
    ///
    /// # Errors
    ///
    /// The kernel does not say what stands.
    pub fn is_intact(&self) -> Result<bool, NetlinkError> {
        Ok(standing(&self.requests, self.role)? == self.expected)
    }
}

/// What a notification says to a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    /// Of another table.
    Irrelevant,
    /// Of this table, by the daemon's own request.
    Installed,
    /// Of this table, by somebody else's.
    Disturbed,
    /// Somebody else's change is complete.
    ChangedBy(Author),
}

impl News {
    pub(super) fn read(message: &Message<'_>, role: Role, own_port: u32) -> Result<Self, Malformed> {
        if message.kind >> 8 != SUBSYSTEM {
            return Ok(Self::Irrelevant);
        }
        let attributes = attributes(message.after(FIXED_LEN)?);
        if message.kind == NEW_GENERATION {
            if message.port == own_port {
                return Ok(Self::Irrelevant);
            }
            let process = attributes.clone().find(2)?.map(|process| process.be32()).transpose()?;
            let name = attributes.clone().find(3)?.map(|name| name.text()).transpose()?.map(str::to_owned);
            return Ok(Self::ChangedBy(Author { name, process }));
        }
        // The first attribute names the table, whatever the message is about.
        match attributes.clone().find(1)?.map(|table| table.text()).transpose()? {
            // Peers of before are put back, and permissions come and go, after the table is installed: that mends nothing which somebody
            // has done in between.
            Some(table) if table == role.table() && message.port == own_port => match message.kind {
                NEW_ELEMENT | DELETE_ELEMENT => Ok(Self::Irrelevant),
                _ => Ok(Self::Installed),
            },
            Some(table) if table == role.table() => Ok(Self::Disturbed),
            _ => Ok(Self::Irrelevant),
        }
    }
}

/// A table, chain or rule that stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    family: Family,
    kind: u16,
    /// Of a chain, and of the chain of a rule.
    chain: String,
    /// Never given twice within a table, nor to two tables of a network namespace.
    handle: u64,
    /// Flags of a table, policy of a chain.
    state: u32,
}

/// All entries of the role's table in both families.
fn standing(socket: &Socket, role: Role) -> Result<BTreeSet<Entry>, NetlinkError> {
    let mut entries = BTreeSet::new();
    for family in [Family::Ipv4, Family::Ipv6] {
        // Where each kind has its table's name, its chain's name, its handle and its state.
        for (name, kind, of_chain, handle, state) in [
            ("list the tables", GET_TABLE, None, 4, Some(2)),
            ("list the chains", GET_CHAIN, Some(3), 2, Some(5)),
            ("list the rules", GET_RULE, Some(2), 3, None),
        ] {
            let fill = |writer: &mut crate::netlink::Writer| {
                if kind == GET_RULE {
                    writer.put_text(1, role.table());
                }
            };
            let places = Places { of_chain, handle, state };
            let read = |message: &Message<'_>| Entry::read(message, role, (family, kind), places);
            entries.extend(socket.dump(name, kind, &fixed(family.number(), 0), fill, read)?);
        }
    }
    Ok(entries)
}

/// Where a kind of message has its chain's name, its handle and its state.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) of_chain: Option<u16>,
    pub(super) handle: u16,
    pub(super) state: Option<u16>,
}

impl Entry {
    pub(super) fn read(
        message: &Message<'_>,
        role: Role,
        (family, kind): (Family, u16),
        Places { of_chain, handle, state }: Places,
    ) -> Result<Option<Self>, Malformed> {
        let find = |attribute: u16| attributes(message.after(FIXED_LEN)?).find(attribute);
        if find(1)?.map(|table| table.text()).transpose()? != Some(role.table()) {
            return Ok(None);
        }
        let chain = of_chain.map(find).transpose()?.flatten().map(|chain| chain.text()).transpose()?;
        let state = state.map(find).transpose()?.flatten().map(|state| state.be32()).transpose()?;
        let handle = find(handle)?.map(|handle| handle.be64()).transpose()?;
        let (chain, state) = (chain.unwrap_or_default().to_owned(), state.unwrap_or_default());
        Ok(Some(Self { family, kind, chain, handle: handle.unwrap_or_default(), state }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Header, Writer};

    const OWN: u32 = 77;
    const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;

    /// A notification as the kernel writes it, `port` being that of whoever made the change.
    fn news(kind: u16, port: u32, fill: impl FnOnce(&mut Writer)) -> News {
        let mut writer = Writer::default();
        writer.message(Header { kind, flags: 0, sequence: 0 }, &[2, 0, 0, 0], fill);
        let mut octets = writer.finish().unwrap();
        octets[12..16].copy_from_slice(&port.to_ne_bytes());
        News::read(&messages(&octets).next().unwrap().unwrap(), Role::Router, OWN).unwrap()
    }

    #[test]
    fn only_others_changes_of_the_own_table_disturb() {
        let of = |table: &'static str| move |writer: &mut Writer| writer.put_text(1, table);
        assert_eq!(news(DELETE_TABLE, 5, of("pbs-router")), News::Disturbed);
        assert_eq!(news(DELETE_TABLE, OWN, of("pbs-router")), News::Installed);
        assert_eq!(news(NEW_ELEMENT, OWN, of("pbs-router")), News::Irrelevant, "peers put back");
        assert_eq!(news(DELETE_ELEMENT, OWN, of("pbs-router")), News::Irrelevant, "a permission that ends");
        assert_eq!(news(NEW_ELEMENT, 5, of("pbs-router")), News::Disturbed);
        assert_eq!(news(DELETE_TABLE, 5, of("pbs-host")), News::Irrelevant);
        assert_eq!(news(DELETE_TABLE, 5, |_| {}), News::Irrelevant);
        assert_eq!(news(2, 5, of("pbs-router")), News::Irrelevant, "another subsystem");
    }

    #[test]
    fn the_end_of_a_change_names_who_made_it() {
        let by = |writer: &mut Writer| {
            writer.put_be32(1, 9);
            writer.put_be32(2, 4711);
            writer.put_text(3, "nft");
        };
        let author = Author { name: Some("nft".into()), process: Some(4711) };
        assert_eq!(author.to_string(), "nft (process 4711)");
        assert_eq!(news(NEW_GENERATION, 5, by), News::ChangedBy(author));
        assert_eq!(news(NEW_GENERATION, OWN, by), News::Irrelevant);
    }
}
