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

    /// What a Query offers. For a message that demands protection nothing less (G-225).
    pub(super) fn query_offer(&self, hold_time: Duration, demanding: bool) -> Option<StackOffer> {
        let mut proposal = self.proposal()?;
        proposal.profiles.retain(|profile| !demanding || profile.contains(MaProtocol::Tls));
        let has_tcp = proposal.profiles.iter().any(|profile| profile.contains(MaProtocol::ForwardsTcp));
        let options = if has_tcp { vec![MaOptions::tcp_query(0)] } else { Vec::new() };
        (!proposal.profiles.is_empty()).then_some(StackOffer { proposal, configuration: StackConfiguration { hold_time, options } })
    }

    /// What a Response offers, whatever the Query offered (G-226), at these ports.
    pub(super) fn response_offer(&self, hold_time: Duration, ports: Ports) -> Option<StackOffer> {
        let proposal = self.proposal()?;
        let of = |profile: &Profile| if profile.contains(MaProtocol::Tls) { ports.tls } else { ports.plain };
        let with_tcp: Vec<(u8, u16)> = (1..=u8::MAX)
            .zip(&proposal.profiles)
            .filter(|(_, profile)| profile.contains(MaProtocol::ForwardsTcp))
            .map(|(number, profile)| (number, of(profile)))
            .collect();
        // One port for all is said once.
        let options = match with_tcp.split_first() {
            Some(((_, port), rest)) if rest.iter().all(|(_, other)| other == port) => vec![MaOptions::tcp_response(0, *port)],
            _ => with_tcp.into_iter().map(|(number, port)| MaOptions::tcp_response(number, port)).collect(),
        };
        Some(StackOffer { proposal, configuration: StackConfiguration { hold_time, options } })
    }

    /// The first of our own profiles which the peer offers too, and the port to connect to.
    ///
    /// TLS over TCP and TCP alone can be opened; for a message that demands protection TCP alone is none, and an application that does not
    /// offer it itself finds nothing in a stripped-down offer (G-343). A protocol marked unusable is not used (G-221).
    pub(super) fn choose(&self, offer: &StackOffer, demanding: bool) -> Option<Choice> {
        let usable = self.offer.iter().filter(|profile| {
            let is_protected = **profile == Profile::tls_over_tcp();
            is_protected || !demanding && **profile == Profile::tcp()
        });
        let choices = usable.flat_map(|wanted| ports(offer, wanted).map(|port| Choice { port, protected: *wanted != Profile::tcp() }));
        choices.into_iter().next()
    }
}

/// Where associations are accepted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) tls: u16,
    pub(super) plain: u16,
}

/// How an association is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) port: u16,
    /// Over TLS; else over TCP alone.
    pub(super) protected: bool,
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

    const PORTS: Ports = Ports { tls: 4000, plain: 4001 };
    const TLS: Choice = Choice { port: 4000, protected: true };
    const PLAIN: Choice = Choice { port: 4001, protected: false };

    fn plain() -> Registration {
        Registration { offer: vec![Profile::tcp()], ..secure() }
    }

    fn either() -> Registration {
        Registration { offer: vec![Profile::tls_over_tcp(), Profile::tcp()], ..secure() }
    }

    /// G-233: TCP alone is taken where both ends offer it and nothing demands more, at the port that is for it.
    #[test]
    fn tcp_alone_is_taken_where_both_offer_it_and_nobody_demands_more() {
        let offers = [plain(), either(), secure()].map(|peer| peer.response_offer(HOLD, PORTS).unwrap());
        assert!(offers.iter().all(StackOffer::is_consistent));
        let chosen = |own: Registration, demanding| offers.each_ref().map(|offer| own.choose(offer, demanding));
        assert_eq!(chosen(plain(), false), [Some(PLAIN), Some(PLAIN), None]);
        assert_eq!(chosen(either(), false), [Some(PLAIN), Some(TLS), Some(TLS)]);
        assert_eq!(chosen(either(), true), [None, Some(TLS), Some(TLS)]);
        assert_eq!(chosen(plain(), true), [None, None, None]);
    }

    /// G-225: what cannot carry the message is not offered; G-226: a Response offers everything.
    #[test]
    fn a_query_for_what_demands_protection_does_not_offer_tcp_alone() {
        let profiles = |offer: Option<StackOffer>| offer.map(|offer| offer.proposal.profiles);
        assert_eq!(profiles(either().query_offer(HOLD, true)), Some(vec![Profile::tls_over_tcp()]));
        assert_eq!(profiles(either().query_offer(HOLD, false)), Some(either().offer));
        assert_eq!(profiles(plain().query_offer(HOLD, true)), None);
        assert_eq!(profiles(either().response_offer(HOLD, PORTS)), Some(either().offer));
    }

    /// G-343: without TLS in the offer there is nothing to connect to.
    #[test]
    fn an_offer_without_tls_is_not_taken() {
        let offer = plain().response_offer(HOLD, PORTS).unwrap();
        assert_eq!(secure().choose(&offer, false), None);
        assert_eq!(secure().choose(&secure().response_offer(HOLD, PORTS).unwrap(), true), Some(TLS));
    }

    /// G-221: D=1.
    #[test]
    fn a_protocol_marked_unusable_is_not_used() {
        let mut offer = secure().response_offer(HOLD, PORTS).unwrap();
        offer.configuration.options[0].forbidden = true;
        assert_eq!(secure().choose(&offer, true), None);
    }

    #[test]
    fn the_port_of_the_right_profile_is_taken() {
        let mut offer = secure().response_offer(HOLD, PORTS).unwrap();
        offer.proposal.profiles.insert(0, Profile::tcp());
        offer.configuration.options = vec![MaOptions::tcp_response(1, 1), MaOptions::tcp_response(2, 2)];
        assert_eq!(secure().choose(&offer, true), Some(Choice { port: 2, protected: true }));
    }
}
