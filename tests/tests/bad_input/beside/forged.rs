//! What can be written by who has seen a flow's messages and has none of its keys.

use bytes::{Bytes, BytesMut};
use std::net::IpAddr;

use gist::wire::{
    Body, Confirm, Cookie, Data, ErrorBody, ErrorCause, GistError, HEADER_LENGTH, Hello, Message, Nli, NslpId, PeerIdentity, Query,
    SessionId, datagram,
};

/// One kind of message, and under which of GIST's reasons each of it is counted.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) payloads: Vec<Vec<u8>>,
    pub(super) counted: &'static [&'static str],
}

/// What somebody may say about the session of a captured Query and of the Response to it, with `address` as the one that he says is his;
/// payloads of datagrams.
pub(super) struct Forger {
    asked: Message,
    query: Query,
    response: Vec<u8>,
    nli: Nli,
    is_responder: bool,
}

impl Forger {
    /// In the name of the Query's own sender, or of whoever has answered, as `address` says, or of somebody else.
    pub(super) fn new(query: &[u8], response: &[u8], address: IpAddr) -> Self {
        let asked = datagram::decode(Bytes::copy_from_slice(query)).unwrap();
        let Body::Query(query) = asked.body.clone() else { panic!("{asked:?}") };
        let answered = datagram::decode(Bytes::copy_from_slice(response)).unwrap();
        let known = [Some(&query.nli), answered.nli()].into_iter().flatten().find(|nli| nli.address == address);
        let nli = known.cloned().unwrap_or_else(|| Nli { address, peer: PeerIdentity::new(vec![0xee; 16]).unwrap(), ..query.nli.clone() });
        let is_responder = answered.nli().is_some_and(|nli| nli.address == address);
        Self { is_responder, asked, query, response: response.to_vec(), nli }
    }

    /// GIST errors of every cause about the session.
    pub(super) fn errors(&self) -> Vec<Vec<u8>> {
        let error = |cause| {
            let about = GistError {
                session: Some(self.query.session),
                mri: Some(self.query.mri.clone()),
                datagram_mode: true,
                query_mode: true,
                ..GistError::new(cause, self.header())
            };
            write(NslpId::NONE, Body::Error(ErrorBody { nat: None, nli: Some(self.nli.clone()), error: about }))
        };
        ErrorCause::ALL.into_iter().map(error).collect()
    }

    /// The Query's own common header.
    fn header(&self) -> [u8; HEADER_LENGTH] {
        self.asked.to_bytes().unwrap()[..HEADER_LENGTH].try_into().unwrap()
    }

    /// A Confirm with a cookie of his own making.
    pub(super) fn confirm(&self) -> Vec<u8> {
        let confirm = Confirm {
            mri: self.query.mri.clone(),
            session: self.query.session,
            nli: self.nli.clone(),
            responder_cookie: Some(cookie()),
            proposal: self.query.stack.as_ref().map(|offer| offer.proposal.clone()),
            configuration: self.query.stack.as_ref().map(|offer| offer.configuration.clone()),
            payload: None,
        };
        write(self.asked.nslp_id, Body::Confirm(confirm))
    }

    /// The same, without what the first Confirm on an association must tell.
    pub(super) fn confirm_without_hold_time(&self) -> Vec<u8> {
        let mut message = datagram::decode(self.confirm().into()).unwrap();
        let Body::Confirm(confirm) = &mut message.body else { panic!("a Confirm") };
        confirm.configuration = None;
        datagram_of(&message)
    }

    /// The Response as it was, once more.
    pub(super) fn replayed_response(&self) -> Vec<u8> {
        self.response.clone()
    }

    /// The Response in his own name, with the cookie of a Query that nobody has sent.
    pub(super) fn response(&self) -> Vec<u8> {
        let mut message = datagram::decode(Bytes::copy_from_slice(&self.response)).unwrap();
        let Body::Response(response) = &mut message.body else { panic!("{message:?}") };
        response.query_cookie = cookie();
        response.nli = self.nli.clone();
        datagram_of(&message)
    }

    /// A payload for the application in the session, or in one that there is not, the way that he would say it.
    pub(super) fn data(&self, session: Option<SessionId>) -> Vec<u8> {
        let data = Data {
            nat: None,
            mri: if self.is_responder { self.query.mri.inverted() } else { self.query.mri.clone() },
            session: session.unwrap_or(self.query.session),
            nli: Some(self.nli.clone()),
            payload: Bytes::from_static(&[1; 64]),
            explicit: false,
            context_free: false,
        };
        write(self.asked.nslp_id, Body::Data(data))
    }

    /// What belongs on an association.
    pub(super) fn hello() -> Vec<u8> {
        write(NslpId::NONE, Body::Hello(Hello { request: true, id: 7 }))
    }

    /// A Confirm that has no hop left.
    pub(super) fn used_up(&self) -> Vec<u8> {
        let mut payload = self.confirm();
        payload[5] = 0;
        payload
    }
}

fn cookie() -> Cookie {
    Cookie::new(vec![0x5a; 16]).unwrap()
}

fn write(nslp_id: NslpId, body: Body) -> Vec<u8> {
    datagram_of(&Message { hop_count: 10, nslp_id, source_is_signalling: true, body, unknown: Vec::new() })
}

fn datagram_of(message: &Message) -> Vec<u8> {
    let mut out = BytesMut::new();
    datagram::encode(message, &mut out).unwrap();
    out.to_vec()
}
