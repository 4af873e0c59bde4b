//! Programs and sockets on interfaces, and away from them.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

use super::error::{refused, refused_on};
use super::inlet::Inlet;
use super::kernel::{self, Binding, Frames, Map, MapKind, Program, ProgramKind, Socket};
use super::link::{self, Link, Links, Mode};
use super::neighbours::Neighbours;
use super::program::{self, ETHERNET_LEN, Parts, ShortWay, What};
use super::{AfXdp, AfXdpError, FRAMES_EACH, HEADROOM, Inward, MOST_INTERFACES, MOST_SOCKETS, Part, STRIDES, Shield, Taking};
use crate::netlink::NetlinkError;

/// How long the kernel may take to give a queue free that a socket had which is closed: it does so later, and by the way.
const FREE_WITHIN: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(20);

/// An Ethernet link that takes part, and its hardware address.
type Found<'l> = (&'l Link, [u8; 6]);

impl AfXdp {
    /// Opens sockets on every queue of these interfaces, and then sets a program on each, in the network namespace of the calling thread;
    /// `shield` says of what comes there who may pass at all. Gives also how each takes part, for who asks later.
    ///
    /// # Errors
    ///
    /// See [`AfXdpError`]. A program of ours may then be left on any interface, of this run or an earlier one. It drops what nobody takes,
    /// until [`restore`] takes it off.
    pub fn open(taking: &[Taking], shield: Option<&Shield>) -> Result<(Self, Standing), AfXdpError> {
        Self::set_up(taking.iter().map(|taking| &*taking.name), Ends::Others(taking), shield)
    }

    /// The same at a host, for what is for itself and has a permission that `shield` knows: what is judged right comes to its stack by
    /// `inlet`. All else goes the kernel's way.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn receive_at_host(names: &[String], shield: &Shield, inlet: Inlet) -> Result<(Self, Standing), AfXdpError> {
        let (open, standing) = Self::set_up(names.iter().map(|name| &**name), Ends::Host, Some(shield))?;
        Ok((Self { inward: Some(Box::new(Inward::new(inlet))), ..open }, standing))
    }

    fn set_up<'n>(
        names: impl ExactSizeIterator<Item = &'n str>,
        ends: Ends<'_>,
        shield: Option<&Shield>,
    ) -> Result<(Self, Standing), AfXdpError> {
        let links = Links::open()?;
        let listed = links.list()?;
        let found = find_all(&listed, names)?;
        let queues: Vec<u32> = found.iter().map(|(link, _)| kernel::queues(&link.name).unwrap_or(link.queues).max(1)).collect();
        let sockets = queues.iter().fold(0_u32, |sum, queues| sum.saturating_add(*queues));
        if sockets as usize > MOST_SOCKETS {
            return Err(AfXdpError::TooManyQueues(sockets));
        }
        let longest = found.iter().map(|(link, _)| link.mtu.saturating_add(ETHERNET_LEN as u32)).max().unwrap_or_default();
        let stride = STRIDES.into_iter().find(|stride| stride - HEADROOM >= longest).unwrap_or(STRIDES[1]);
        let only_receives = matches!(ends, Ends::Host);
        let bindings = |copies| {
            let of_one = move |((link, _), queues): (&Found<'_>, &u32)| {
                let (name, interface) = (link.name.clone(), link.index);
                (0..*queues).map(move |queue| (name.clone(), Binding { interface, queue, copies, only_receives }))
            };
            found.iter().zip(&queues).flat_map(of_one).collect::<Vec<_>>()
        };
        let until = Instant::now() + FREE_WITHIN;
        let memory = || {
            let count = FRAMES_EACH.saturating_mul(sockets);
            Frames::new(count, stride).map_err(refused("map memory for frames"))
        };
        // Without copies if every interface can.
        let mut mapped = memory()?;
        let sockets = match open_all(&mapped.0, &bindings(false), until) {
            Ok(sockets) => sockets,
            Err(error) => {
                tracing::info!(%error, "not every interface takes part without copying frames: trying with copies");
                // There is not memory for two of them.
                drop(mapped);
                mapped = memory()?;
                open_all(&mapped.0, &bindings(true), until)?
            }
        };
        let (frames, free) = mapped;
        let ready = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(refused("watch sockets"))?;
        let neighbours = Neighbours::open()?;
        let mut this = Self { sockets, frames, free, in_vain: 0, neighbours, ready, inward: None, _maps: Vec::new() };
        for (number, socket) in (0..).zip(&mut this.sockets) {
            socket.fill(&mut this.frames, &mut this.free);
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
            this.ready.add(&*socket, event).map_err(refused("watch an AF_XDP socket"))?;
        }
        let leaving = |taking: &[Taking]| -> Vec<u32> {
            taking.iter().zip(&found).filter(|(taking, _)| taking.leaves).map(|(_, (link, _))| link.index).collect()
        };
        let leaving = if let Ends::Others(taking) = ends { Some(leaving(taking)) } else { None };
        let what = leaving.as_deref().map_or(What::Permitted, What::Forwarded);
        let longest = u16::try_from(stride - HEADROOM).unwrap_or(u16::MAX);
        let attach = |found: &Found<'_>| this.attach(&links, found, (what, longest), shield);
        let parts = found.iter().map(attach).collect::<Result<_, _>>()?;
        leave_others(&links, &listed, &found);
        Ok((this, Standing { links, parts }))
    }

    /// Sets the program on a link whose sockets are open.
    fn attach(
        &mut self,
        links: &Links,
        (link, address): &Found<'_>,
        (what, longest): (What<'_>, u16),
        shield: Option<&Shield>,
    ) -> Result<Part, AfXdpError> {
        let own = || self.sockets.iter().filter(|socket| socket.binding().interface == link.index);
        let queues = own().map(|socket| socket.binding().queue.saturating_add(1)).max().unwrap_or_default();
        let no_map = refused_on("make a map of AF_XDP sockets", &link.name, None);
        let sockets = Map::new(MapKind::Sockets, (4, 4), queues.max(1)).map_err(no_map)?;
        for socket in own() {
            let (queue, descriptor) = (socket.binding().queue, socket.descriptor().to_ne_bytes());
            let not_listed = refused_on("list the AF_XDP socket", &link.name, Some(queue));
            sockets.set(&queue.to_ne_bytes(), &descriptor).map_err(not_listed)?;
        }
        let way = ShortWay { what, longest, sockets: sockets.descriptor(), queues };
        let program = load(link, &Parts { address: *address, shield: shield.map(Shield::part), short_way: Some(way) })?;
        let (queues, zero_copy) = (own().count(), own().all(Socket::is_zero_copy));
        // Where the kernel makes a packet of each frame anyway and copies it here, that costs less than to have virtual links make frames.
        let mode = if zero_copy || what != What::Permitted { Mode::Native } else { Mode::Generic };
        let mode = links.attach(link, program.descriptor(), mode)?;
        self._maps.push(sockets);
        Ok(Part { name: link.name.clone(), mode, queues, zero_copy, index: link.index, address: *address })
    }
}

/// Where what comes to the worker goes.
#[derive(Debug, Clone, Copy)]
enum Ends<'t> {
    /// By these interfaces, to others.
    Others(&'t [Taking]),
    /// To this host's stack.
    Host,
}

/// Has a shield stand on these interfaces, in the network namespace of the calling thread, and nothing else: what passes it goes the kernel's
/// way. Every interface of the router must be closed.
///
/// # Errors
///
/// As [`AfXdp::open`].
pub fn stand(names: &[String], shield: &Shield) -> Result<Standing, AfXdpError> {
    let links = Links::open()?;
    let listed = links.list()?;
    let found = find_all(&listed, names.iter().map(|name| &**name))?;
    let attach = |(link, address): &Found<'_>| {
        let program = load(link, &Parts { address: *address, shield: Some(shield.part()), short_way: None })?;
        let mode = links.attach(link, program.descriptor(), Mode::Native)?;
        Ok::<_, AfXdpError>(Part { name: link.name.clone(), mode, queues: 0, zero_copy: false, index: link.index, address: *address })
    };
    let parts = found.iter().map(attach).collect::<Result<_, _>>()?;
    leave_others(&links, &listed, &found);
    Ok(Standing { links, parts })
}

/// What stands on interfaces, for who is asked about it later.
#[derive(Debug)]
pub struct Standing {
    links: Links,
    parts: Vec<Part>,
}

impl Standing {
    /// Each interface, and whether it takes part still: not if it has gone since, even if another of its name has come, nor if somebody has
    /// taken the program off, or has given it another hardware address: its program lets by what is for that. `None` in its place if the
    /// kernel does not tell.
    pub fn show(&self) -> impl Iterator<Item = (&Part, Option<bool>)> {
        let listed = self.links.list().ok();
        let stands = move |part: &Part| {
            let link = listed.as_ref()?.iter().find(|link| link.index == part.index);
            Some(link.is_some_and(|link| link.is_ours() && link.address == Some(part.address)))
        };
        self.parts.iter().map(move |part| (part, stands(part)))
    }
}

/// Takes this project's programs off every link of the network namespace: packets go the kernel's way again.
///
/// # Errors
///
/// The first refusal of the kernel; everything else is done.
pub fn restore() -> Result<(), NetlinkError> {
    let links = Links::open()?;
    links.list()?.iter().map(|link| links.detach(link)).fold(Ok(()), Result::and)
}

/// What an earlier run has left on links that do not take part now would drop what nobody takes there.
fn leave_others(links: &Links, listed: &[Link], found: &[Found<'_>]) {
    for link in listed.iter().filter(|link| found.iter().all(|(own, _)| own.index != link.index)) {
        if let Err(error) = links.detach(link) {
            tracing::warn!(interface = link.name, %error, "an XDP program of an earlier run may be left: packets with AH may be lost there");
        }
    }
}

fn find_all<'l, 'n>(listed: &'l [Link], names: impl ExactSizeIterator<Item = &'n str>) -> Result<Vec<Found<'l>>, AfXdpError> {
    if names.len() > MOST_INTERFACES {
        return Err(AfXdpError::TooManyInterfaces(names.len()));
    }
    // Without CAP_SYS_ADMIN nobody is told whose a program is: one of ours that a run has left could never be taken off again, and would
    // drop what nobody takes. There is no program with this number.
    if let Err(errno @ (Errno::EPERM | Errno::EACCES)) = kernel::program_name(u32::MAX) {
        return Err(refused("know its own XDP program again")(errno));
    }
    names.map(|name| find(listed, name)).collect()
}

fn find<'l>(listed: &'l [Link], name: &str) -> Result<Found<'l>, AfXdpError> {
    let link = listed.iter().find(|link| link.name == name).ok_or_else(|| AfXdpError::NoInterface(name.to_owned()))?;
    let address = link.address.ok_or_else(|| AfXdpError::NotEthernet(name.to_owned()))?;
    if link.is_taken() {
        return Err(AfXdpError::Taken(name.to_owned()));
    }
    Ok((link, address))
}

/// A socket for each queue, with one memory. Of queues that a driver only says to have there is none.
fn open_all(frames: &Frames, bindings: &[(String, Binding)], until: Instant) -> Result<Vec<Socket>, AfXdpError> {
    let mut sockets: Vec<Socket> = Vec::new();
    for (interface, binding) in bindings {
        loop {
            match Socket::open(frames, *binding, sockets.first()) {
                Ok(socket) => sockets.push(socket),
                Err(Errno::EINVAL) if binding.queue > 0 => {}
                Err(Errno::EBUSY) if Instant::now() < until => {
                    std::thread::sleep(RETRY);
                    continue;
                }
                Err(errno) => return Err(refused_on("open an AF_XDP socket", interface, Some(binding.queue))(errno)),
            }
            break;
        }
    }
    Ok(sockets)
}

fn load(link: &Link, parts: &Parts<'_>) -> Result<Program, AfXdpError> {
    let refused = |(errno, said)| AfXdpError::Program { interface: link.name.clone(), errno, said };
    let code = program::assemble(parts).map_err(|astray| refused((Errno::EINVAL, astray.to_string())))?;
    Program::load(ProgramKind::Xdp, &code, link::PROGRAM_NAME).map_err(refused)
}
