//! Who the nodes are, and what they are told.

use core::time::Duration;
use std::net::IpAddr;

use gist::wire::NslpId;
use pbs_nslp::flow::FlowId;
use pbs_nslp::node::NodeConfig;
use pbs_nslp::receiver::{GrantPolicy, GrantRule, ReceiverConfig, Terms};
use pbs_nslp::router::RouterConfig;
use pbs_nslp::selector::Selector;
use pbs_nslp::sender::{AskRule, SenderConfig};
use pbs_nslp::wire::Volume;

pub(crate) const NSLP_ID: NslpId = NslpId(32704);
pub(crate) const START_UNIX: u64 = 1_800_000_000;
pub(crate) const LATENCY: Duration = Duration::from_millis(10);
pub(crate) const T: Duration = Duration::from_secs(5);
/// L = 3.5 T.
pub(crate) const L: Duration = Duration::from_millis(17_500);
pub(crate) const VOLUME: u64 = 10_000;
pub(crate) const LIMIT: u64 = 30_000;
pub(crate) const TTL: Duration = Duration::from_secs(600);

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn sender_address() -> IpAddr {
    [192, 0, 2, 1].into()
}

pub(crate) fn receiver_address() -> IpAddr {
    [198, 51, 100, 1].into()
}

pub(crate) fn flow() -> FlowId {
    flow_to(9000)
}

pub(crate) fn flow_to(port: u16) -> FlowId {
    FlowId::new(sender_address(), receiver_address(), 17, 5000, port).unwrap()
}

pub(crate) fn terms() -> Terms {
    Terms { volume: Volume(VOLUME), limit: Volume(LIMIT), ttl: TTL, refresh: T }
}

pub(crate) fn node_config(address: IpAddr) -> NodeConfig {
    NodeConfig::new(NSLP_ID, address)
}

pub(crate) fn sender_config() -> SenderConfig {
    let rule =
        AskRule { selector: Selector { protocol: Some(17), ..Selector::default() }, volume: Volume(VOLUME), signed: false, mac: None };
    SenderConfig::new(node_config(sender_address()), vec![sender_address()], vec![rule])
}

pub(crate) fn router_config() -> RouterConfig {
    RouterConfig::new(node_config([203, 0, 113, 1].into()))
}

pub(crate) fn receiver_config() -> ReceiverConfig {
    let selector = Selector { destination_ports: Some(9000..=9099), ..Selector::default() };
    let policy = GrantPolicy { rules: vec![GrantRule { selector, terms: terms(), signed: false, mac: None }], ask: false };
    ReceiverConfig::new(node_config(receiver_address()), vec![receiver_address()], policy)
}
