//! Message sequence numbers: based on the clock and compared as serial numbers (RFC 1982, X-62, X-63).

/// How far behind the clock a number may be at a node without state, in seconds.
pub const WINDOW_PAST: u32 = 300;

/// How far ahead of the clock a number may be at a node without state, in seconds.
pub const WINDOW_FUTURE: u32 = 30;

/// How far ahead of the clock a number may be at a node with state, in seconds. Numbers follow the clock; one that runs ahead
/// of it by more is no repetition in haste but would have to be remembered until the clock has caught up.
pub const AHEAD_WITH_STATE: u32 = 300;

/// Whether a number is strictly newer than another (RFC 1982 §3.2). Two numbers exactly 2³¹ apart have no order: neither
/// is newer.
pub fn is_newer(number: u32, than: u32) -> bool {
    let ahead = number.wrapping_sub(than);
    0 < ahead && ahead < 1 << 31
}

/// The number of an originator's next message: the clock, or one more than the last number if that is newer (P-050).
///
/// `unix_seconds` is reduced to 32 bits. 0 is left out, because an Echo of 0 means "unsolicited".
pub fn next(previous: Option<u32>, unix_seconds: u64) -> u32 {
    let clock = at(unix_seconds);
    let number = match previous.map(|previous| previous.wrapping_add(1)) {
        Some(following) if !is_newer(clock, following) => following,
        Some(_) | None => clock,
    };
    number.max(1)
}

/// Whether a number lies in the freshness window around the clock, ends included (P-049).
pub fn is_fresh(number: u32, unix_seconds: u64) -> bool {
    let clock = at(unix_seconds);
    let earliest = clock.wrapping_sub(WINDOW_PAST);
    number.wrapping_sub(earliest) <= WINDOW_PAST + WINDOW_FUTURE
}

/// Whether a number lies before the freshness window; one from the future does not.
pub fn is_outdated(number: u32, unix_seconds: u64) -> bool {
    is_newer(at(unix_seconds).wrapping_sub(WINDOW_PAST), number)
}

/// Whether a number lies too far ahead of the clock even for a node with state ([`AHEAD_WITH_STATE`]).
pub fn runs_ahead(number: u32, unix_seconds: u64) -> bool {
    is_newer(number, at(unix_seconds).wrapping_add(AHEAD_WITH_STATE))
}

/// The time in Unix seconds that a number stands for, of all those it may stand for the one nearest to the clock.
pub fn as_unix(number: u32, unix_seconds: u64) -> u64 {
    let clock = at(unix_seconds);
    if is_newer(number, clock) {
        unix_seconds.saturating_add(u64::from(number.wrapping_sub(clock)))
    } else {
        unix_seconds.saturating_sub(u64::from(clock.wrapping_sub(number)))
    }
}

/// The number that the clock stands for: its seconds modulo 2³².
pub fn at(unix_seconds: u64) -> u32 {
    (unix_seconds & u64::from(u32::MAX)) as u32
}
