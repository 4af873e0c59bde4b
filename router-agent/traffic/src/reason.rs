//! Why a packet was dropped: one closed list for counters, metrics, logs and tables.

/// A closed list of reasons, each with the word that is metric label, log field and column name.
macro_rules! reasons {
    ($(#[$about:meta])* $list:ident { $($(#[$doc:meta])* $name:ident = $word:literal,)* }) => {
        $(#[$about])*
        ///
        /// `Display` gives the word used as metric label, log field and column name; it never changes for a variant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $list {
            $($(#[$doc])* $name,)*
        }

        impl $list {
            /// Every reason, in the order of [`Self::index`].
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The reason's word, as `Display` prints it.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// Position in [`Self::ALL`], for arrays of counters.
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $list {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
pub(crate) use reasons;

reasons! {
/// Why a packet was dropped.
DropReason {
    /// No permission covers the packet's flow, and it claims none (P-147).
    NoPermission = "no_permission",
    /// The permission's time is over (TTL, lifetime or drain, whichever ended first).
    Expired = "expired",
    /// No security association under this destination and SPI; before a router's queue, none between these addresses.
    UnknownSpi = "unknown_spi",
    /// The association exists, but for another address pair, protocol or ports (P-153, INV-16).
    FlowMismatch = "flow_mismatch",
    /// The flow holds a permission that asks for AH, and the packet carries none (P-154).
    MissingAh = "missing_ah",
    /// Not a well-formed IP packet, or an AH of a length its algorithm cannot have.
    Malformed = "malformed",
    /// The integrity check value does not match (P-140).
    BadIcv = "bad_icv",
    /// The sequence number was seen before, is zero, or lies left of the window (P-157).
    Replayed = "replayed",
    /// The packet would take the flow past its allowed volume (P-161, X-37).
    OverBudget = "over_budget",
    /// An IP fragment, or a packet that still carries an IPv6 Fragment header, where only whole datagrams can be judged (P-160,
    ///
    FragmentNotReassembled = "fragment_not_reassembled",
    /// An IPv4 source route or an IPv6 routing header with segments left.
    SourceRoute = "source_route",
    /// Extended sequence numbers, which PBS does not use.
    ExtendedSequence = "extended_sequence",
    /// The datagram with its AH is longer than the packet queue can carry.
    TooLarge = "too_large",
    /// A bounded queue had no room left.
    QueueFull = "queue_full",
    /// Held for a permission that did not come in time.
    HeldTooLong = "held_too_long",
    /// The host's policy neither asks for nor exempts this traffic (FS-04).
    NotAsked = "not_asked",
    /// The sequence number lies further ahead than the rest of the allowed volume can reach; not verified.
    TooFarAhead = "too_far_ahead",
    /// More packets of one flow, or of all, than this node verifies signatures for (Solution 3, X-69).
    VerificationBudget = "verification_budget",
    /// The host's own key gave no signature for the packet (Solution 3).
    NotSigned = "not_signed",
    /// An ICMP error about a number that its flow has not used lately, or about a packet longer than any that it has sent, or with
    /// an MTU that cannot be true.
    ImplausibleError = "implausible_error",
    /// More ICMP errors of one kind about one flow than are passed on, or about flows that a router does not know than it looks at.
    ErrorRate = "error_rate",
    /// An ICMP error longer than one has to be, or one that would still be long when it is cut.
    ErrorTooLarge = "error_too_large",
    /// It was to pass, but the kernel did not take the verdict, or had let the packet go by then, as it does when a link goes down.
    VerdictFailed = "verdict_failed",
    /// It was to pass by the short way ([`crate::af_xdp`]), but the interface that it was to leave by, or the device by which it was to
    /// arrive, took no more then; or it was one of a
    /// super-packet's segments ([`crate::segments`]), and the kernel did not take it.
    NotTransmitted = "not_transmitted",
}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_index_and_word() {
        for (position, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), position);
            assert_eq!(DropReason::ALL.iter().filter(|other| other.word() == reason.word()).count(), 1);
        }
        assert_eq!(DropReason::FragmentNotReassembled.to_string(), "fragment_not_reassembled");
    }
}
