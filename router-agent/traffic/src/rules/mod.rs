//! The packet filter rules that bring every packet before this project's queues.
//!
//! An own nf_tables table for each [`Role`], in the families ip and ip6, set through netlink in one atomic batch: either all
//! of it stands, or what stood before. Nothing outside the role's table is touched, the other role's table neither: both may
//! stand at once, and then a packet passes only what both let pass. The rules fail closed: the table outlives the process,
//! nobody else can change it while that runs (`owner`; before Linux 6.9 others can, and it is put back), there is no bypass (a queue
//! without listener drops), and where a chain decides about data, its policy is to drop. Only [`remove`] opens.
//!
//! What is exempted is the list of X-58, each entry with a token bucket of its own on each interface; a counter stands on
//! either side of each bucket. Segments of messaging associations are known by their socket ([`ASSOCIATION_MARK`],
//! [`LISTENER_MARK`]), not by their port alone, and each association has a bucket of its own, so that no flood of other segments
//! touches it. Whom the node knows opens associations and signals within buckets of its own, so that no flood in made-up names keeps it
//! out (`peers`). If the kernel cannot tell sockets, or refuses the rules for any other reason, installing fails with an
//! error that says so; nothing weaker is set, and a node that had no rules is closed altogether.

mod admitted;
mod asking;
mod batch;
mod class;
mod closed;
mod dump;
mod exempt;
mod expression;
mod fragments;
pub(crate) mod heard;
mod host;
mod kept;
mod key;
mod mode;
mod observe;
mod owner;
mod peers;
mod plan;
mod reassembly;
mod router;
mod shield;
mod spread;
mod watch;

use crate::netlink::{NetlinkError, Protocol, Socket};
use crate::spread::Spread;
use crate::table::DEFAULT_CAPACITY;

pub(crate) use admitted::room;
pub use admitted::{Admitted, Association, Front, Ticket};
pub use dump::RuleCounter;
pub use exempt::{At, Exempt, InvalidExempt, MOST_EXEMPT};
pub use mode::{MOST_INTERFACES, Mode, Modes};
pub use owner::{Owner, held, installed, standing};
pub use plan::{Bucket, Exemptions, Family};
pub use reassembly::{Memory, Reassembly, Share};
pub use watch::{Author, Watch};

/// Puts a role's rules in place through the given socket, at once or not at all. While that is open nobody else can change them
/// ([`Owner`]).
pub type Install = Box<dyn Fn(&Socket) -> Result<(), NetlinkError> + Send>;

/// Whose rules: each role has a table of its own, so that no daemon replaces or removes the other's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A router ([`RouterRules`]).
    Router,
    /// A host ([`HostRules`]).
    Host,
}

impl Role {
    /// Name of the role's table, the same in both families.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Router => "pbs-router",
            Self::Host => "pbs-host",
        }
    }
}

/// Packet mark by which the signalling queue's verdict lets a foreign Q-mode packet pass the router.
///
/// The mark counts only together with UDP destination port 270, and only inside the router that set it.
pub const SIGNALLING_PASSED: u32 = 0x5042_0001;

/// Mark of the sockets of messaging associations whose peer this node has called or authenticated, without which their port is
/// exempt from nothing.
///
/// Sockets must carry it as `SO_MARK`, and `IP_TRANSPARENT` too: setting either takes `CAP_NET_ADMIN` or `CAP_NET_RAW`. It is
/// neither [`SIGNALLING_PASSED`] nor the mark by which packets with AH are routed ([`crate::routes::MARK`]), so that
/// associations are routed like everything else, unless they have the bits of another way out besides.
pub const ASSOCIATION_MARK: u32 = 0x5042_0003;

/// Mark of the sockets on which messaging associations are awaited, and of accepted ones until their peer is authenticated: what
/// everybody can send to them has buckets apart. `IP_TRANSPARENT` as with [`ASSOCIATION_MARK`]. Listeners must be bound to all
/// addresses of their family: by that the rules tell what belongs to no connection from what belongs to one.
pub const LISTENER_MARK: u32 = 0x5042_0002;

/// Mark of the packets that a host sends on as a relay ([`crate::relay`]), which its own rules let out as they are. Setting it takes
/// `CAP_NET_ADMIN`. The bit by which packets with AH are routed ([`crate::routes::MARK`]) stands in it besides, so that they have
/// the whole of each link.
pub const RELAYED_MARK: u32 = 0x5042_0004;

/// Class (`skb->priority`) of packets that [`Ingress`](crate::af_xdp::ingress::Ingress) has let by, until they are forwarded. Nothing that comes
/// from a link has one by itself. Where it should stay, queueing disciplines that look at its last four bits take it for none.
pub const LET_BY: u32 = 0x5042_0050;

/// First number of the queues of workers behind the first, unless told otherwise.
pub const FURTHER_QUEUES: u16 = 1024;

/// UDP port of GIST (RFC 5971 §9).
const GIST_PORT: u16 = 270;

/// What becomes of what comes in fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fragments {
    /// The kernel makes datagrams whole before they are judged, as far as they are within the bucket of their permission, or within
    /// those for everything else ([`Reassembly`]).
    #[default]
    Reassemble,
    /// Dropped as they arrive, and counted by the rule `fragments`.
    Drop,
}

/// What a router filters: every forwarded packet, signalling on its way through, and what is for the router itself. What it
/// sends itself is left alone, but for a bound on ICMP errors and on resets from the port of associations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterRules {
    /// Queue for unfragmented UDP to port 270 whose destination is not this router.
    pub signalling_queue: u16,
    /// Queue for every other forwarded packet, whole datagrams only.
    pub data_queue: u16,
    /// The same for what leaves by interfaces that are observed: these packets pass if nobody listens to it, and if it is full where
    /// whoever listens has it so ([`QueueConfig::observed`](crate::queue::QueueConfig::observed)).
    pub observed_queue: u16,
    /// How packets are shared among workers. The first has the queues above.
    pub spread: Spread,
    /// Two queues for each of the others, one behind the other from this number on: for data, and for what is observed.
    pub further_queues: u16,
    /// Packets a second that may ask for the signalling queue; the excess is dropped.
    pub signalling: Bucket,
    /// Packets a second that the signalling queue may pass on.
    pub passed_signalling: Bucket,
    /// ICMP errors a second that the router sends, and once more as many "too big": its stack answers some packets before they are
    /// judged.
    pub own_errors: Bucket,
    /// TCP port of messaging associations, the same on every node.
    pub association_port: u16,
    /// What reaches the router itself.
    pub exemptions: Exemptions,
    /// What else does, by configuration; at most [`MOST_EXEMPT`], each [checked](Exempt::check).
    pub exempt: Vec<Exempt>,
    /// What becomes of forwarded packets without permission.
    pub modes: Modes,
    /// What becomes of what arrives in fragments.
    pub fragments: Fragments,
    /// How much of the kernel's memory for them each may take up.
    pub reassembly: Reassembly,
    /// Permissions that the rules have room for at the least.
    pub permissions: usize,
    /// Whether only what belongs to one of the permissions ([`Admitted`]) comes to the data queue, and everything else is dropped before
    /// it, or asks for its trickle. Otherwise whoever verifies judges everything. What is observed is judged in any case.
    pub shield: bool,
    /// Whether packets with AH that bear [`LET_BY`] are let by without being looked up again, where the shield stands first of all.
    pub ingress: bool,
    /// Whether nobody else can change them while the socket is open through which they are installed, if the kernel can do that
    /// ([`Owner`]).
    pub owned: bool,
}

/// What a host filters: everything that it sends and receives over a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRules {
    /// Queue for what the host sends, before fragmentation.
    pub outbound_queue: u16,
    /// Queue for what is for this host, whole datagrams only.
    pub inbound_queue: u16,
    /// TCP port of messaging associations, the same on every node.
    pub association_port: u16,
    /// The bits of the packet mark that say by which way a packet leaves ([`crate::paths`]): an association may have any besides
    /// its own mark. 0 if there are no ways.
    pub path_mark: u32,
    /// The links of ways, each with the bits of its way: IPv4 packets for this host that come back by them get those, so that the
    /// reverse path filter judges them by the route of the way ([`NextHops::set_up`](crate::paths::NextHops::set_up)).
    pub ways: Vec<(String, u32)>,
    /// Packets a second of each user that may ask for the outbound queue although their flow has sent nothing under a permission
    /// lately, on all interfaces; and the same once more, on each interface, for all packets that no user's socket sends. The
    /// excess is dropped.
    pub asking: Bucket,
    /// What does not go through the queues.
    pub exemptions: Exemptions,
    /// What else does not, by configuration; at most [`MOST_EXEMPT`], each [checked](Exempt::check).
    pub exempt: Vec<Exempt>,
    /// What becomes of what arrives in fragments.
    pub fragments: Fragments,
    /// How much of the kernel's memory for them each may take up.
    pub reassembly: Reassembly,
    /// As a relay: the whole mark of packets that leave in the names of others ([`RELAYED_MARK`] with the bit of [`crate::routes`]).
    /// Then nothing is forwarded by the kernel, whatever its settings say.
    pub relayed: Option<u32>,
    /// Whether nobody else can change them while the socket is open through which they are installed, if the kernel can do that
    /// ([`Owner`]).
    pub owned: bool,
    /// Where TCP of permitted flows comes whole, if it does. Otherwise it comes to the outbound queue as everything else.
    pub whole: Option<Whole>,
    /// The kernel's index of the device by which packets come that have been judged ([`Inlet`](crate::af_xdp::Inlet)), if there is one. Both
    /// this and its name tell it: whatever comes later has neither by chance.
    pub inlet: Option<u32>,
}

/// A queue of super-packets ([`QueueConfig::whole`](crate::queue::QueueConfig::whole)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// Its number.
    pub queue: u16,
    /// The bit in the mark of AH packets that are let out as they are: the one that packets get with AH ([`crate::routes::MARK`]). Setting
    /// it takes `CAP_NET_ADMIN` or `CAP_NET_RAW`, and with these anything can be sent.
    pub mark: u32,
}

impl RouterRules {
    /// Rules for these queues and this port of associations, with the default buckets and without a shield. What is observed has no queue of
    /// its own.
    pub fn new(signalling_queue: u16, data_queue: u16, association_port: u16) -> Self {
        Self {
            signalling_queue,
            data_queue,
            observed_queue: data_queue,
            spread: Spread::ALONE,
            further_queues: FURTHER_QUEUES,
            signalling: Bucket::new(2000, 500),
            passed_signalling: Bucket::new(200, 100),
            own_errors: Bucket::new(100, 50),
            association_port,
            exemptions: Exemptions::of_a_router(),
            exempt: Vec::new(),
            modes: Modes::CLOSED,
            fragments: Fragments::Reassemble,
            reassembly: Reassembly::default(),
            permissions: DEFAULT_CAPACITY,
            shield: false,
            ingress: false,
            owned: true,
        }
    }

    /// The data queue of a worker.
    pub const fn data_queue_of(&self, worker: u16) -> u16 {
        match worker {
            0 => self.data_queue,
            _ => self.further_queues.saturating_add((worker - 1).saturating_mul(2)),
        }
    }

    /// The queue of a worker for what is observed.
    pub const fn observed_queue_of(&self, worker: u16) -> u16 {
        match worker {
            0 => self.observed_queue,
            _ => self.data_queue_of(worker).saturating_add(1),
        }
    }

    /// Puts the rules in place of whatever the router's table held before, at once or not at all. They are nobody's.
    pub fn install(&self) -> Result<(), NetlinkError> {
        Self { owned: false, ..self.clone() }.install_through(&Socket::open(Protocol::Netfilter)?)
    }

    /// The same through a socket that is known to whoever watches the table.
    pub fn install_through(&self, socket: &Socket) -> Result<(), NetlinkError> {
        owner::install(socket, Role::Router, self.owned, &[router::plan(self, Family::Ipv4), router::plan(self, Family::Ipv6)])
    }
}

impl HostRules {
    /// Rules for these queues and this port of associations, with the default buckets.
    pub fn new(outbound_queue: u16, inbound_queue: u16, association_port: u16) -> Self {
        Self {
            outbound_queue,
            inbound_queue,
            association_port,
            path_mark: 0,
            ways: Vec::new(),
            asking: Bucket::new(1000, 1000),
            exemptions: Exemptions::default(),
            exempt: Vec::new(),
            fragments: Fragments::Reassemble,
            reassembly: Reassembly::default(),
            relayed: None,
            owned: true,
            whole: None,
            inlet: None,
        }
    }

    /// Puts the rules in place of whatever the host's table held before, at once or not at all. They are nobody's.
    pub fn install(&self) -> Result<(), NetlinkError> {
        Self { owned: false, ..self.clone() }.install_through(&Socket::open(Protocol::Netfilter)?)
    }

    /// The same through a socket that is known to whoever watches the table.
    pub fn install_through(&self, socket: &Socket) -> Result<(), NetlinkError> {
        owner::install(socket, Role::Host, self.owned, &[host::plan(self, Family::Ipv4), host::plan(self, Family::Ipv6)])
    }
}

/// In which families a table stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installed {
    /// The IPv4 half.
    pub ipv4: bool,
    /// The IPv6 half.
    pub ipv6: bool,
}

/// Removes the role's table with all its rules: from here on traffic passes unverified, unless the other role's table
/// stands too. Removing what is not there succeeds; what a running daemon holds ([`held`]) only its [`Owner`] can remove.
pub fn remove(role: Role) -> Result<(), NetlinkError> {
    owner::remove_through(&Socket::open(Protocol::Netfilter)?, role)
}

/// The counter of every rule of the role's table that has one, in the order of the rules.
pub fn counters(role: Role) -> Result<Vec<RuleCounter>, NetlinkError> {
    let socket = Socket::open(Protocol::Netfilter)?;
    let mut counters = dump::counters(&socket, role, Family::Ipv4)?;
    counters.extend(dump::counters(&socket, role, Family::Ipv6)?);
    Ok(counters)
}

/// Lets nothing pass a node whose rules nobody knows, unless the role's table stands already: what was closed by a
/// configuration that could be read stays so. `true` if the table was installed.
///
/// A router forwards and receives nothing, a host sends and receives nothing but its traffic with itself, and forwards nothing.
pub fn close(role: Role) -> Result<bool, NetlinkError> {
    owner::close_through(&Socket::open(Protocol::Netfilter)?, role, false)
}
