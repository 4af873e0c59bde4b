//! `[datapath.reassembly]`: the kernel's memory for datagrams in fragments, and how much of it each may take up.

use std::sync::OnceLock;
use std::time::Duration;

use serde::Deserialize;
use traffic::netlink::{NetlinkError, Socket};
use traffic::rules::{self, Bucket, Family, Fragments, Install, Memory, Share};

use crate::config::Span;
use crate::source::{ConfigError, Source};

/// Octets that may be named: what the kernel has by itself, and what nobody should need.
const OCTETS: std::ops::RangeInclusive<u64> = (4 << 20)..=(1 << 30);
/// Seconds that may be named.
const WAIT: std::ops::RangeInclusive<u64> = 1..=60;
/// Fragments of the longest datagram on a link of 1,500 octets: it passes at once.
const OF_A_DATAGRAM: u32 = 46;

/// What the kernel is set to, and the fragments a second that get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reassembly {
    /// Octets for each IP version.
    pub memory: u64,
    /// How long a fragment waits for the rest of its datagram, in whole seconds.
    pub wait: Span,
    /// Under one SPI of a live permission.
    pub permission: Rate,
    /// Under all permissions of one source address.
    pub permitted_source: Rate,
    /// Under all permissions.
    pub permitted: Rate,
    /// Of no permission, from one source.
    pub source: Rate,
    /// The same on one interface.
    pub interface: Rate,
    /// The same in all.
    pub node: Rate,
}

/// Fragments a second, and at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    rate: u32,
    burst: u32,
}

impl From<Bucket> for Rate {
    fn from(Bucket { rate, burst }: Bucket) -> Self {
        Self { rate, burst }
    }
}

impl Default for Reassembly {
    fn default() -> Self {
        let (memory, buckets) = (Memory::DEFAULT, rules::Reassembly::default());
        Self {
            memory: memory.octets,
            wait: Span(Duration::from_secs(memory.wait.into())),
            permission: buckets.permission.into(),
            permitted_source: buckets.permitted_source.into(),
            permitted: buckets.permitted.into(),
            source: buckets.source.into(),
            interface: buckets.interface.into(),
            node: buckets.node.into(),
        }
    }
}

impl Reassembly {
    /// Refuses what lets no datagram pass, or lets one permission, one source or what has no permission take up more than its share.
    ///
    /// # Errors
    ///
    /// The key that cannot be used.
    pub fn check(&self, source: &Source) -> Result<(), ConfigError> {
        let wrong = |key: &str, message: String| Err(source.wrong(&format!("datapath.reassembly.{key}"), message));
        if !OCTETS.contains(&self.memory) {
            return wrong("memory", format!("{} is outside {}-{} octets", self.memory, OCTETS.start(), OCTETS.end()));
        }
        if !WAIT.contains(&self.wait.0.as_secs()) || self.wait.0.subsec_nanos() != 0 {
            return wrong("wait", format!("is no whole number of seconds from {} to {}", WAIT.start(), WAIT.end()));
        }
        let (memory, buckets) = (self.wanted(), self.buckets());
        for (key, share, Rate { rate, burst }) in [
            ("permission", Share::Permission, self.permission),
            ("permitted_source", Share::PermittedSource, self.permitted_source),
            ("permitted", Share::Permitted, self.permitted),
            ("source", Share::Source, self.source),
            ("interface", Share::Interface, self.interface),
            ("node", Share::Node, self.node),
        ] {
            if rate == 0 || burst < OF_A_DATAGRAM {
                return wrong(
                    key,
                    format!("needs a rate of 1 and a burst of {OF_A_DATAGRAM} at least: so many fragments has the longest datagram"),
                );
            }
            let (waiting, most) = (Bucket::new(rate, burst).at_most(memory.wait), buckets.most(share, memory));
            if waiting > most {
                let message = format!(
                    "lets {waiting} fragments wait in {} s (burst + rate * wait), and its share of {} octets is {most}",
                    memory.wait, memory.octets
                );
                return wrong(key, message);
            }
        }
        Ok(())
    }

    /// Installs rules through `install`, which is told what the kernel really has. It is set before the rules stand: a network namespace
    /// whose kernel does not know of reassembly over IPv6 yet has it once they do, so there they are put in place twice.
    pub fn installing<F>(self, fragments: Fragments, install: F) -> Install
    where
        F: Fn(rules::Reassembly, &Socket) -> Result<(), NetlinkError> + Send + 'static,
    {
        let found = OnceLock::new();
        Box::new(move |socket| {
            if fragments == Fragments::Drop {
                return install(self.buckets(), socket);
            }
            if found.get().is_none() {
                let there = self.buckets().set_up(self.wanted());
                install(there, socket)?;
                let later = self.buckets().set_up(self.wanted());
                self.warn_if_smaller(&later);
                let _ = found.set(later);
                if later == there {
                    return Ok(());
                }
            }
            install(found.get().copied().unwrap_or_default(), socket)
        })
    }

    fn warn_if_smaller(&self, there: &rules::Reassembly) {
        for family in [Family::Ipv4, Family::Ipv6] {
            let memory = there.memory(family);
            if memory != self.wanted() {
                let permission = there.bucket(Share::Permission, family);
                tracing::warn!(%family, wanted = ?self.wanted(), ?memory, ?permission,
                    "the kernel's memory for fragments cannot be set as configured; each has its share of what there is");
            }
        }
    }

    fn wanted(&self) -> Memory {
        Memory { octets: self.memory, wait: u32::try_from(self.wait.0.as_secs()).unwrap_or(u32::MAX) }
    }

    fn buckets(&self) -> rules::Reassembly {
        let bucket = |Rate { rate, burst }| Bucket::new(rate, burst);
        rules::Reassembly {
            ipv4: self.wanted(),
            ipv6: self.wanted(),
            permission: bucket(self.permission),
            permitted_source: bucket(self.permitted_source),
            permitted: bucket(self.permitted),
            source: bucket(self.source),
            interface: bucket(self.interface),
            node: bucket(self.node),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn complaint(text: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct File {
            datapath: Datapath,
        }
        #[derive(Deserialize)]
        struct Datapath {
            reassembly: Reassembly,
        }
        let source = Source::new(Path::new("x.toml"), format!("[datapath.reassembly]\n{text}\n"));
        source.parse::<File>().and_then(|file| file.datapath.reassembly.check(&source)).err().map(|error| error.to_string())
    }

    ///
    #[test]
    fn what_would_let_one_take_up_more_than_its_share_is_refused_by_its_key() {
        assert_eq!(complaint(""), None);
        assert_eq!(complaint("memory = 268435456\npermission = { rate = 4000, burst = 8000 }"), None);
        for (text, expected) in [
            ("memory = 4194303", "memory: 4194303 is outside 4194304-1073741824 octets"),
            ("wait = \"0s\"", "wait: is no whole number of seconds from 1 to 60"),
            ("wait = \"1500ms\"", "wait: is no whole number of seconds"),
            (
                "wait = \"30s\"",
                "permission: lets 32000 fragments wait in 30 s (burst + rate * wait), and its share of 67108864 octets is 4096",
            ),
            ("permitted_source = { rate = 4000, burst = 4000 }", "permitted_source: lets 12000 fragments wait"),
            ("permitted = { rate = 4000, burst = 6000 }", "permitted: lets 14000 fragments wait"),
            ("node = { rate = 30, burst = 45 }", "node: needs a rate of 1 and a burst of 46 at least"),
            ("source = { rate = 0, burst = 46 }", "source: needs a rate of 1"),
        ] {
            let found = complaint(text).unwrap();
            assert!(found.contains(&format!(": datapath.reassembly.{expected}")), "{found}");
        }
        assert!(complaint("interface = { rate = 1 }").unwrap().contains("missing field `burst`"));
    }
}
