//! What a node with a good certificate may say that is not so.

use std::net::IpAddr;

use bytes::Bytes;
use gist::api::{MessageHandle, SendMessage};
use gist::wire::Direction;
use pbs_nslp::flow::FlowId;
use pbs_nslp::wire::{self, Notify, NotifyCode};

/// How often each notice is said with one message that passes: once, and twice more as it was.
const TIMES: usize = 3;

/// Marks what is said beside the node's own messages.
const HANDLE: MessageHandle = MessageHandle(u64::MAX);

/// What a router would have the ends of a message's flow believe: notices of every code, each with every detail that has a meaning, in
/// the name of another node, towards the sender; and the same towards the receiver, where no notice ever goes.
pub(crate) fn notices(about: &SendMessage, reporter: IpAddr) -> Vec<SendMessage> {
    let Ok(flow) = FlowId::from_mri(&about.mri) else { return Vec::new() };
    let number = read_number(about).unwrap_or(0);
    let all = NotifyCode::ALL.into_iter().chain([NotifyCode::Other(77)]).flat_map(|code| (0..3).map(move |detail| (code, detail)));
    let notice = |(code, detail): (NotifyCode, u16)| {
        let notify = Notify { flow, class: code.class(), code, detail, number, reporter, challenge: None };
        wire::build_notify(&notify).ok()
    };
    let once: Vec<Bytes> = all.filter_map(notice).collect();
    let towards = |direction| {
        let mri = about.mri.with_direction(direction);
        once.iter().map(move |payload| SendMessage { payload: payload.clone(), mri: mri.clone(), handle: HANDLE, ..about.clone() })
    };
    let upstream = std::iter::repeat_n((), TIMES).flat_map(|()| towards(Direction::Upstream));
    upstream.chain(towards(Direction::Downstream)).collect()
}

fn read_number(message: &SendMessage) -> Option<u32> {
    match wire::decode(message.payload.clone(), message.session, message.nslp_id).ok()? {
        wire::Message::Query(query) => Some(query.message.number),
        wire::Message::Permission(permission) => Some(permission.message.number),
        wire::Message::Notify(_) => None,
    }
}
