//! Protocol stacks: what is offered, and what is taken of an offer (RFC 5971 §5.7.1).

use core::net::IpAddr;
use core::time::Duration;

use super::{AddressPrefix, Registration};
use crate::wire::{MaOptions, MaProtocol, Profile, StackConfiguration, StackOffer, StackProposal};

/// The value in IPv6 of an application that has none (RFC 5350 §3, experimental; X-27).
const IPV6_ROUTER_ALERT: u16 = 65503;

impl Registration {
    /// The router alert value of Queries to this address. In IPv6 the option is always there (RFC 5971 §5.3.2.2, G-177), in IPv4 unless it
    /// is configured away (G-173, G-174).
    pub(super) fn router_alert(&self, destination: IpAddr, without: &[AddressPrefix]) -> Option<u16> {
        match destination {
            IpAddr::V4(_) => self.rao.filter(|_| !without.iter().any(|prefix| prefix.contains(destination))),
            IpAddr::V6(_) => Some(self.rao.unwrap_or(IPV6_ROUTER_ALERT)),
        }
    }

    /// Whether nothing but mutually authenticated associations may carry this application's messages.
    pub(super) fn is_secure(&self) -> bool {
        !self.offer.is_empty() && self.offer.iter().all(|profile| profile.contains(MaProtocol::Tls))
    }

    /// The proposal exactly as registered; a constant, so that it need not be remembered to check its echo (§8.6).
    pub(super) fn proposal(&self) -> Option<StackProposal> {
        (!self.offer.is_empty()).then(|| StackProposal { profiles: self.offer.clone() })
    }

    /// What a Query offers: for messages that must be protected nothing without TLS (G-225).
    pub(super) fn query_offer(&self, hold_time: Duration, protected: bool) -> Option<StackOffer> {
        let fits = |profile: &&Profile| !protected || profile.contains(MaProtocol::Tls);
        let profiles: Vec<_> = self.offer.iter().filter(fits).cloned().collect();
        Self::offer_with(StackProposal { profiles }, hold_time, MaOptions::tcp_query(0))
    }

    /// What a Response offers, whatever the Query offered (G-226).
    pub(super) fn response_offer(&self, hold_time: Duration, port: u16) -> Option<StackOffer> {
        Self::offer_with(self.proposal()?, hold_time, MaOptions::tcp_response(0, port))
    }

    fn offer_with(proposal: StackProposal, hold_time: Duration, tcp: MaOptions) -> Option<StackOffer> {
        if proposal.profiles.is_empty() {
            return None;
        }
        let has_tcp = proposal.profiles.iter().any(|profile| profile.contains(MaProtocol::ForwardsTcp));
        let options = if has_tcp { vec![tcp] } else { Vec::new() };
        Some(StackOffer { proposal, configuration: StackConfiguration { hold_time, options } })
    }

    /// The port to connect to for the first of our own profiles which the peer offers too.
    ///
    /// Only TLS over TCP can be opened, so a stripped-down offer finds nothing (G-343). A protocol marked unusable is not
    /// used (G-221).
    pub(super) fn choose(&self, offer: &StackOffer) -> Option<u16> {
        let usable = self.offer.iter().filter(|profile| **profile == Profile::tls_over_tcp());
        usable.flat_map(|wanted| ports(offer, wanted)).next()
    }
}

fn ports<'a>(offer: &'a StackOffer, wanted: &'a Profile) -> impl Iterator<Item = u16> {
    let numbered = (1..=u8::MAX).zip(&offer.proposal.profiles);
    numbered.filter(move |(_, profile)| *profile == wanted).filter_map(move |(number, profile)| {
        let forbidden = |protocol: &MaProtocol| offer.options(*protocol, number).is_some_and(|options| options.forbidden);
        if profile.0.iter().any(forbidden) {
            return None;
        }
        offer.options(MaProtocol::ForwardsTcp, number)?.tcp_port()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NslpId;

    const HOLD: Duration = Duration::from_secs(30);

    fn secure() -> Registration {
        Registration::secure(NslpId(32704), None)
    }

    /// G-343: without TLS in the offer there is nothing to connect to.
    #[test]
    fn an_offer_without_tls_is_not_taken() {
        let plain = Registration { offer: vec![Profile::tcp()], ..secure() };
        let offer = plain.response_offer(HOLD, 4000).unwrap();
        assert_eq!(secure().choose(&offer), None);
        assert_eq!(plain.choose(&offer), None);
        assert_eq!(secure().choose(&secure().response_offer(HOLD, 4000).unwrap()), Some(4000));
    }

    /// G-221: D=1.
    #[test]
    fn a_protocol_marked_unusable_is_not_used() {
        let mut offer = secure().response_offer(HOLD, 4000).unwrap();
        offer.configuration.options[0].forbidden = true;
        assert_eq!(secure().choose(&offer), None);
    }

    #[test]
    fn the_port_of_the_right_profile_is_taken() {
        let mut offer = secure().response_offer(HOLD, 4000).unwrap();
        offer.proposal.profiles.insert(0, Profile::tcp());
        offer.configuration.options = vec![MaOptions::tcp_response(1, 1), MaOptions::tcp_response(2, 2)];
        assert_eq!(secure().choose(&offer), Some(2));
    }
}
