//! The authorised peer database's judgement (RFC 5971 §4.4.2, §5.7.3.1).

use core::net::IpAddr;

use super::{ApdEntry, IdentityPattern, PeerCredentials, PeerRole};

/// As what the peer with these credentials, reached at `address`, may hold an association: the first entry that matches
/// decides, and without one the answer is not at all (G-093).
pub(super) fn judge(entries: &[ApdEntry], credentials: &PeerCredentials, address: IpAddr) -> Option<PeerRole> {
    let entry = entries.iter().find(|entry| matches(&entry.pattern, credentials, address))?;
    entry.allow.then_some(entry.role)
}

/// Whether the peer may hold an association at all.
pub(super) fn is_authorised(entries: &[ApdEntry], credentials: &PeerCredentials, address: IpAddr) -> bool {
    judge(entries, credentials, address).is_some()
}

fn matches(pattern: &IdentityPattern, credentials: &PeerCredentials, address: IpAddr) -> bool {
    match pattern {
        IdentityPattern::DnsName(pattern) => credentials.dns_names.iter().any(|name| names_match(pattern, name)),
        IdentityPattern::Address(prefix) => prefix.contains(address) && credentials.addresses.contains(&address),
        IdentityPattern::Any => true,
    }
}

/// Compares two DNS names, either of which may have `*` as its leftmost label; letter case does not count (G-242…G-244).
fn names_match(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.trim_end_matches('.'), name.trim_end_matches('.'));
    if pattern.is_empty() {
        return false;
    }
    if pattern.eq_ignore_ascii_case(name) {
        return true;
    }
    match (pattern.split_once('.'), name.split_once('.')) {
        (Some((first, rest)), Some((other_first, other_rest))) => {
            let wild = first == "*" && !other_first.is_empty() || other_first == "*" && !first.is_empty();
            wild && rest.eq_ignore_ascii_case(other_rest)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str) -> PeerCredentials {
        PeerCredentials { dns_names: vec![name.to_owned()], ..PeerCredentials::default() }
    }

    fn here() -> IpAddr {
        "192.168.20.2".parse().unwrap()
    }

    fn dns(pattern: &str, allow: bool) -> ApdEntry {
        ApdEntry { pattern: IdentityPattern::DnsName(pattern.to_owned()), role: PeerRole::Host, allow }
    }

    /// G-244, the RFC's own example names; G-243.
    #[test]
    fn a_wildcard_stands_for_one_label_on_either_side() {
        for name in ["a.example.com", "foo.Example.COM", "*.example.com", "foo.example.com."] {
            assert!(names_match("*.example.com", name), "{name}");
            assert!(names_match(name, "*.example.com"), "{name}");
        }
        for name in ["example.com", "a.b.example.com", ".example.com", "a.example.org", "com", "", "*"] {
            assert!(!names_match("*.example.com", name), "{name}");
            assert!(!names_match(name, "*.example.com"), "{name}");
        }
        assert!(!names_match("", ""));
        assert!(!names_match("a.*.com", "a.b.com"));
    }

    /// G-093, G-094.
    #[test]
    fn the_first_entry_that_matches_decides() {
        let entries = [
            dns("evil.pbs.test", false),
            dns("*.pbs.test", true),
            ApdEntry { pattern: IdentityPattern::Any, role: PeerRole::Host, allow: false },
        ];
        assert!(is_authorised(&entries, &named("r1.pbs.test"), here()));
        assert!(!is_authorised(&entries, &named("evil.pbs.test"), here()));
        assert!(!is_authorised(&entries, &named("r1.example.com"), here()));
        assert!(!is_authorised(&[], &named("r1.pbs.test"), here()));
    }

    /// G-092, G-093: the entry that decides also says for which flows; a router of a domain of hosts is named first.
    #[test]
    fn the_entry_that_decides_gives_the_role() {
        let router = ApdEntry { role: PeerRole::Router, ..dns("router.pbs.test", true) };
        let entries = [router, dns("*.pbs.test", true)];
        assert_eq!(judge(&entries, &named("router.pbs.test"), here()), Some(PeerRole::Router));
        assert_eq!(judge(&entries, &named("host.pbs.test"), here()), Some(PeerRole::Host));
        assert_eq!(judge(&entries, &named("host.example.com"), here()), None);
    }

    /// a host speaks for its own address only.
    #[test]
    fn an_address_entry_wants_the_peers_own_address() {
        let pattern = IdentityPattern::Address("192.168.20.0/24".parse().unwrap());
        let entries = [ApdEntry { pattern, role: PeerRole::Host, allow: true }];
        let with = |address: &str| PeerCredentials { addresses: vec![address.parse().unwrap()], ..PeerCredentials::default() };
        assert!(is_authorised(&entries, &with("192.168.20.2"), here()));
        assert!(!is_authorised(&entries, &with("192.168.20.3"), here()));
        assert!(!is_authorised(&entries, &with("10.0.0.1"), "10.0.0.1".parse().unwrap()));
    }

    proptest! {
        /// G-093 against a scan written differently.
        #[test]
        fn the_scan_is_in_order(entries in proptest::collection::vec((0_u8..4, any::<bool>()), 0..12), who in 0_u8..4) {
            let list: Vec<_> = entries.iter().map(|(name, allow)| dns(&format!("{name}.test"), *allow)).collect();
            let mut verdict = false;
            for (name, allow) in entries.iter().rev() {
                if *name == who {
                    verdict = *allow;
                }
            }
            prop_assert_eq!(is_authorised(&list, &named(&format!("{who}.test")), here()), verdict);
        }
    }
}
