//! What the association's machine wants done (RFC 5971 §6.4).

use core::time::Duration;

use super::association::{Association, AssociationInput};
use super::machines::association::{Action, Timer};
use super::machines::{querying, responding};
use super::querying::QueryingInput;
use super::responding::RespondingInput;
use super::routing_state::{RoutingKey, User};
use super::task::Task;
use super::{Node, Output};
use crate::api::AssociationId;
use crate::time::Instant;
use crate::wire::{Body, Hello, Message, NslpId};

/// A peer that gives up faster is not kept company as often as it would like.
const MIN_HOLD_TIME: Duration = Duration::from_secs(1);

/// What routing states are told.
#[derive(Debug, Clone, Copy)]
enum News {
    Connected,
    ConnectFailed,
    Failed,
    NotAuthorised,
}

impl Node {
    pub(super) fn association_action(&mut self, id: AssociationId, action: Action, input: &AssociationInput, now: Instant) {
        match action {
            Action::Start(timer) => self.start_association_timer(id, timer, now),
            Action::Stop(timer) => self.stop_association_timer(id, timer),
            Action::Connect => self.connect(id),
            Action::SendMessage => {
                if let AssociationInput::Raw(message) = input {
                    self.write(id, message.clone());
                }
            }
            Action::PassMessage => {
                if let AssociationInput::Message(received) = input {
                    self.tasks.push_back(Task::Message(received.clone()));
                }
            }
            Action::SendHello => self.send_hello(id, input),
            Action::SendHelloReply => {
                if let AssociationInput::Hello(hello) = input {
                    self.write_hello(id, Hello { request: false, id: hello.id });
                }
            }
            Action::ReportConnected => self.tell_users(id, News::Connected, input),
            Action::ReportConnectFailure => self.tell_users(id, News::ConnectFailed, input),
            Action::ReportFailure => self.tell_users(id, News::Failed, input),
            Action::ReportNotAuthorised => self.tell_users(id, News::NotAuthorised, input),
            Action::Close => self.outputs.push_back(Output::CloseAssociation { association: id }),
            Action::Destroy => {
                Timer::ALL.iter().for_each(|timer| self.stop_association_timer(id, *timer));
                self.associations.remove(id);
            }
        }
    }

    pub(super) fn start_association_timer(&mut self, id: AssociationId, timer: Timer, now: Instant) {
        let Some(association) = self.associations.get(id) else { return };
        let span = match timer {
            Timer::Connect => self.config.connect_timeout,
            Timer::SendHello => self.random.refresh_moment(&*self.backend.0, association.peer_hold_time.max(MIN_HOLD_TIME)),
            Timer::NoHello | Timer::Silence => self.config.hold_time,
            Timer::CertificateEnd => match association.certified_until {
                Some(until) => until.saturating_duration_since(now),
                None => return,
            },
            Timer::Unconfirmed => self.config.unconfirmed_timeout,
            // One request at a time: a later MA-Hello asks nothing and does not give the first one more time.
            Timer::HelloReply if self.timers.is_running(id, timer) => return,
            Timer::HelloReply => self.config.hello_timeout,
        };
        self.timers.start(id, timer, now + span);
    }

    fn stop_association_timer(&mut self, id: AssociationId, timer: Timer) {
        self.timers.stop(id, timer);
        if timer == Timer::HelloReply
            && let Some(association) = self.associations.get_mut(id)
        {
            association.hello = None;
        }
    }

    fn connect(&mut self, id: AssociationId) {
        let Some(association) = self.associations.get(id) else { return };
        let Association { remote, path, source, protected, .. } = *association;
        let peer_address_for_certificate = protected.then_some(remote.ip());
        self.outputs.push_back(Output::Connect { association: id, remote, peer_address_for_certificate, path, source });
    }

    /// One request at a time, but for those that prove something: these must come behind what they prove.
    fn send_hello(&mut self, id: AssociationId, input: &AssociationInput) {
        let number = self.hello_id();
        let Some(association) = self.associations.get_mut(id) else { return };
        let hello = match (input, association.hello) {
            (AssociationInput::Proof(number, key), _) => {
                association.proofs.insert(*number, RoutingKey::clone(key));
                Hello { request: true, id: *number }
            }
            (_, Some(_)) => Hello { request: false, id: 0 },
            (_, None) => Hello { request: true, id: number },
        };
        association.hello = association.hello.or(Some(hello.id));
        self.write_hello(id, hello);
    }

    /// A Hello-ID for a request; not 0.
    pub(super) fn hello_id(&mut self) -> u32 {
        (self.random.u64(&*self.backend.0) as u32).max(1)
    }

    fn write_hello(&mut self, id: AssociationId, hello: Hello) {
        let message = Message {
            hop_count: super::transmit::HOP_COUNT,
            nslp_id: NslpId::NONE,
            source_is_signalling: true,
            body: Body::Hello(hello),
            unknown: Vec::new(),
        };
        if let Some(bytes) = Self::encode(&message) {
            self.write(id, bytes);
        }
    }

    fn write(&mut self, id: AssociationId, message: bytes::Bytes) {
        self.counters.association_messages_sent += 1;
        if let Some(association) = self.associations.get_mut(id) {
            association.unwritten = association.unwritten.saturating_add(message.len());
        }
        self.outputs.push_back(Output::SendOnAssociation { association: id, message });
    }

    /// RFC 5971 §6.4: what happens to an association is told to the routing states that use it.
    fn tell_users(&mut self, id: AssociationId, news: News, input: &AssociationInput) {
        let Some(association) = self.associations.get_mut(id) else { return };
        let reason = if let AssociationInput::Reason(reason) = input { reason.as_str() } else { "" };
        let ended = || QueryingInput::Ended { association: id, reason: reason.to_owned() };
        if !matches!(news, News::Connected) {
            tracing::info!(%id, remote = %association.remote, reason, ?news, "association ended");
        }
        let users: Vec<_> = association.users().collect();
        for user in users {
            // An open association does not mean that its peer may serve this flow.
            if matches!(news, News::Connected | News::NotAuthorised) && !self.may_serve(id, &user.towards()) {
                self.counters.flows_refused += u64::from(matches!(news, News::Connected));
                self.tasks.push_back(user.not_authorised(id));
                continue;
            }
            let task = match user {
                User::Querying(key) => {
                    let (event, input) = match news {
                        News::Connected => (querying::Event::TgConnected, QueryingInput::Connected(id)),
                        News::ConnectFailed => (querying::Event::ErMAConnect, ended()),
                        News::Failed => (querying::Event::ErMAFailure, ended()),
                        News::NotAuthorised => (querying::Event::ErNotAuthorised, ended()),
                    };
                    Task::Querying(key, event, input)
                }
                User::Responding(key) => {
                    let event = match news {
                        News::Connected => continue,
                        News::ConnectFailed | News::Failed => responding::Event::ErMAFailure,
                        News::NotAuthorised => responding::Event::ErNotAuthorised,
                    };
                    Task::Responding(key, event, RespondingInput::Ended(id))
                }
            };
            self.tasks.push_back(task);
        }
    }
}
