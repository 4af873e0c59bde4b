//! Packets that a node takes off their way.

use gist::io::{forwarded, intercepted};

use crate::fuzz::mark;

/// What is taken is what was there; what is passed on differs in GIST hop count and UDP checksum alone, and is taken by the next node too.
pub(super) fn take(input: &[u8]) -> u64 {
    let seen = intercepted(input, 7);
    let passed = forwarded(input);
    let Ok(seen) = seen else {
        assert!(passed.is_err(), "passed on as what it is not");
        return mark(&seen.err().map(|error| error.to_string()));
    };
    assert!(input.ends_with(&seen.datagram.payload) && seen.datagram.query_mode && seen.datagram.interface == 7);
    let Ok(passed) = passed else { return mark(&passed.err().map(|error| std::mem::discriminant(&error))) };
    assert_eq!(passed.len(), input.len());
    let changed = passed.iter().zip(input).filter(|(after, before)| after != before).count();
    assert!((1..=3).contains(&changed), "{changed} octets changed");
    let Ok(again) = intercepted(&passed, 7) else { panic!("the next node does not know it any more") };
    assert_eq!(again.hop_count + 1, seen.hop_count);
    assert_eq!((again.nslp_id, again.router_alert, again.datagram.source), (seen.nslp_id, seen.router_alert, seen.datagram.source));
    mark(&(seen.datagram.source.is_ipv4(), seen.router_alert.is_some(), input.len() / 16))
}
