//! A Stack-Proposal with its Stack-Configuration-Data: each is checked against the other (RFC 5971 §5.7.1).

use super::object::padding;
use super::stack_configuration::{MaOptions, StackConfiguration};
use super::stack_proposal::{MaProtocol, Profile, StackProposal};

/// What a Query or a Response says about a messaging association to be set up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StackOffer {
    /// The stacks.
    pub proposal: StackProposal,
    /// Their options.
    pub configuration: StackConfiguration,
}

/// Where proposal and configuration contradict each other: byte positions within the two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StackMismatch {
    pub(super) proposal_offset: usize,
    pub(super) configuration_offset: usize,
}

impl StackOffer {
    /// Whether each option belongs to a listed profile with that protocol, and each TCP has its options.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.mismatch().is_none()
    }

    /// The options for `protocol` in the profile with this number, counted from 1: its own before those for all.
    #[must_use]
    pub fn options(&self, protocol: MaProtocol, profile: u8) -> Option<&MaOptions> {
        let of = |number| {
            let mut options = self.configuration.options.iter();
            options.find(|options| options.protocol == protocol && options.profile == number)
        };
        of(profile).or_else(|| of(0))
    }

    pub(super) fn mismatch(&self) -> Option<StackMismatch> {
        self.options_without_profile().or_else(|| self.tcp_without_options())
    }

    fn options_without_profile(&self) -> Option<StackMismatch> {
        let mut configuration_offset = 8;
        for options in &self.configuration.options {
            let profiles = &self.proposal.profiles;
            let known = match usize::from(options.profile).checked_sub(1) {
                None => profiles.iter().any(|profile| profile.contains(options.protocol)),
                Some(index) => profiles.get(index).is_some_and(|profile| profile.contains(options.protocol)),
            };
            if !known {
                return Some(StackMismatch { proposal_offset: 0, configuration_offset });
            }
            configuration_offset += 4 + options.data.len() + padding(options.data.len());
        }
        None
    }

    /// Forwards-TCP is the one known protocol that must come with options (RFC 5971 §5.7.2).
    fn tcp_without_options(&self) -> Option<StackMismatch> {
        let mut proposal_offset = 4;
        for (number, profile) in (1..=u8::MAX).zip(&self.proposal.profiles) {
            let is_missing = self.options(MaProtocol::ForwardsTcp, number).is_none();
            if profile.contains(MaProtocol::ForwardsTcp) && is_missing {
                return Some(StackMismatch { proposal_offset, configuration_offset: 0 });
            }
            proposal_offset += profile_length(profile);
        }
        None
    }
}

fn profile_length(Profile(protocols): &Profile) -> usize {
    1 + protocols.len() + padding(1 + protocols.len())
}
