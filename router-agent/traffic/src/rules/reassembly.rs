//! The kernel's memory for datagrams that are not whole yet, and how much of it each may take up.
//!
//! The kernel's own bounds, 4 MiB in which a fragment waits for 30 s (IPv4) or 60 s (IPv6), leave a flow next to nothing if it is to have
//! no more than its share of them. So a daemon sets others for its network namespace; where it may not, the buckets are as small as
//! what is there demands.

use std::io;

use super::plan::{Bucket, Family};

/// What the kernel gives to datagrams of one IP version that are not whole yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// Octets in all (`net.ipv4.ipfrag_high_thresh`, `net.netfilter.nf_conntrack_frag6_high_thresh`).
    pub octets: u64,
    /// Seconds that a fragment waits for the rest (`net.ipv4.ipfrag_time`, `net.netfilter.nf_conntrack_frag6_timeout`).
    pub wait: u32,
}

impl Memory {
    /// What a daemon sets if it is told nothing else.
    pub const DEFAULT: Self = Self { octets: 64 << 20, wait: 2 };
    /// What the kernel has by itself; for IPv4 it waits half as long.
    const UNSET: Self = Self { octets: 4 << 20, wait: 60 };

    /// Sets it for the network namespace of the calling thread. On IPv6 there is nothing to set before the first rule that switches
    /// reassembly on.
    ///
    /// # Errors
    ///
    /// The kernel's settings are not there or cannot be written.
    pub fn set(self, family: Family) -> io::Result<()> {
        let [octets, wait] = settings(family);
        std::fs::write(octets, self.octets.to_string())?;
        std::fs::write(wait, self.wait.to_string())
    }

    /// What the network namespace of the calling thread has; `None` if it does not tell.
    pub fn read(family: Family) -> Option<Self> {
        let number = |setting| std::fs::read_to_string(setting).ok();
        let [octets, wait] = settings(family).map(number);
        Some(Self { octets: octets?.trim().parse().ok()?, wait: wait?.trim().parse().ok()? })
    }

    /// Fragments for which it has room, at 4 KiB each: more than the kernel counts for a frame of 1,500 octets in most drivers.
    pub const fn fragments(self) -> u64 {
        const EACH: u64 = 4096;
        self.octets / EACH
    }
}

fn settings(family: Family) -> [&'static str; 2] {
    match family {
        Family::Ipv4 => ["/proc/sys/net/ipv4/ipfrag_high_thresh", "/proc/sys/net/ipv4/ipfrag_time"],
        Family::Ipv6 => ["/proc/sys/net/netfilter/nf_conntrack_frag6_high_thresh", "/proc/sys/net/netfilter/nf_conntrack_frag6_timeout"],
    }
}

/// The memory of both IP versions, and the fragments a second that get into it. A bucket that would take up more than its share in the
/// time that a fragment waits is made smaller ([`Self::bucket`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reassembly {
    /// Of IPv4.
    pub ipv4: Memory,
    /// Of IPv6.
    pub ipv6: Memory,
    /// Fragments under one SPI of a live permission.
    pub permission: Bucket,
    /// Fragments under all permissions of one source address.
    pub permitted_source: Bucket,
    /// Fragments under all permissions.
    pub permitted: Bucket,
    /// Fragments that belong to no permission, of one source: an IPv4 address or an IPv6 /64.
    pub source: Bucket,
    /// The same on one interface.
    pub interface: Bucket,
    /// The same on all interfaces.
    pub node: Bucket,
}

/// One of the buckets of [`Reassembly`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Of one permission: a quarter.
    Permission,
    /// Of the permissions of one source address: half.
    PermittedSource,
    /// Of all permissions: three quarters, so that the last is left to what has none.
    Permitted,
    /// Of a source without permission: a quarter, like the two that follow. What all of these hold together is in the last.
    Source,
    /// Of an interface.
    Interface,
    /// Of the node.
    Node,
}

impl Default for Reassembly {
    fn default() -> Self {
        Self {
            ipv4: Memory::DEFAULT,
            ipv6: Memory::DEFAULT,
            permission: Bucket::new(1000, 2000),
            permitted_source: Bucket::new(2000, 4000),
            permitted: Bucket::new(3000, 6000),
            source: Bucket::new(10, 46),
            interface: Bucket::new(20, 64),
            node: Bucket::new(30, 96),
        }
    }
}

impl Reassembly {
    /// Sets the memory of both IP versions as `wanted`, as far as it may be set; what is then there is what counts.
    #[must_use]
    pub fn set_up(self, wanted: Memory) -> Self {
        let there = |family| {
            // What cannot be set shows in what is read.
            let _ = wanted.set(family);
            Memory::read(family).unwrap_or(Memory::UNSET)
        };
        Self { ipv4: there(Family::Ipv4), ipv6: there(Family::Ipv6), ..self }
    }

    /// The memory of one IP version.
    pub const fn memory(&self, family: Family) -> Memory {
        match family {
            Family::Ipv4 => self.ipv4,
            Family::Ipv6 => self.ipv6,
        }
    }

    /// A bucket as it stands in the rules of one IP version: what is wished, or if that would take up more than its share, so much
    /// that its share is held, half of it at once.
    pub fn bucket(&self, share: Share, family: Family) -> Bucket {
        let wished = self.wished(share);
        let memory = self.memory(family);
        let most = self.most(share, memory);
        if wished.at_most(memory.wait) <= most {
            return wished;
        }
        let number = |fragments: u64| u32::try_from(fragments).unwrap_or(u32::MAX);
        let slowly = Bucket::new(number(most / 2 / u64::from(memory.wait.max(1))), 1);
        Bucket::new(slowly.rate, number(most.saturating_sub(slowly.at_most(memory.wait).saturating_sub(1))))
    }

    /// Fragments that may wait within a share at most.
    pub const fn most(&self, share: Share, memory: Memory) -> u64 {
        match share {
            Share::PermittedSource => memory.fragments() / 2,
            Share::Permitted => memory.fragments() / 4 * 3,
            Share::Permission | Share::Source | Share::Interface | Share::Node => memory.fragments() / 4,
        }
    }

    const fn wished(&self, share: Share) -> Bucket {
        match share {
            Share::Permission => self.permission,
            Share::PermittedSource => self.permitted_source,
            Share::Permitted => self.permitted,
            Share::Source => self.source,
            Share::Interface => self.interface,
            Share::Node => self.node,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Share; 6] = [Share::Permission, Share::PermittedSource, Share::Permitted, Share::Source, Share::Interface, Share::Node];

    #[test]
    fn the_defaults_hold_as_they_are_in_the_memory_that_a_daemon_sets() {
        let default = Reassembly::default();
        for (share, family) in ALL.into_iter().flat_map(|share| [(share, Family::Ipv4), (share, Family::Ipv6)]) {
            assert_eq!(default.bucket(share, family), default.wished(share), "{share:?}");
        }
        // The longest datagram passes at once.
        assert!(ALL.into_iter().all(|share| default.wished(share).burst >= 46));
    }

    #[test]
    fn no_bucket_takes_up_more_than_its_share_of_whatever_memory_there_is() {
        for (octets, wait) in [(4 << 20, 30), (4 << 20, 60), (1 << 20, 1), (0, 0), (64 << 20, 3600)] {
            let memory = Memory { octets, wait };
            let here = Reassembly { ipv4: memory, ..Reassembly::default() };
            for share in ALL {
                let bucket = here.bucket(share, Family::Ipv4);
                // No bucket is empty: one in a second and one more is the least.
                assert!(bucket.at_most(wait) <= here.most(share, memory).max(1 + u64::from(wait)), "{memory:?} {bucket:?}");
            }
        }
        let unset = Reassembly { ipv6: Memory::UNSET, ..Reassembly::default() };
        assert_eq!(unset.bucket(Share::Permission, Family::Ipv6), Bucket::new(2, 136));
        // Whatever has a permission and whatever has none fit beside each other.
        assert!(unset.most(Share::Permitted, Memory::UNSET) + unset.most(Share::Node, Memory::UNSET) <= Memory::UNSET.fragments());
    }
}
