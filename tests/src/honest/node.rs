//! One node: its signalling core and its packet side, which answer each other at once.

use std::sync::Arc;

use daemon::translate;
use gist::api::{Indication, SendMessage};
use gist::time::Instant;
use pbs_nslp::datapath::{Command, Event, Protection};
use pbs_nslp::output::Output;
use pbs_nslp::receiver::Receiver;
use pbs_nslp::report::Report;
use pbs_nslp::router::Router;
use pbs_nslp::sender::Sender;
use traffic::algorithm::{IcvKey, MacAlgorithm, PacketSigner};
use traffic::processor::{PacketId, PacketProcessor, Released, Verdict};
use traffic::worker::Up;

/// A signalling core.
pub(super) enum Core {
    Sender(Box<Sender>),
    Router(Box<Router>),
    Receiver(Box<Receiver>),
}

/// What a node does that others see.
pub(super) enum Deed {
    /// A message leaves.
    Message(SendMessage),
    /// A packet that was held leaves.
    Packet(Vec<u8>),
    /// Something to be written down.
    Report(Report),
}

/// A node.
pub(super) struct Node {
    pub(super) core: Core,
    pub(super) packets: Box<dyn PacketProcessor>,
    own: Arc<dyn PacketSigner>,
    /// SPI and shared key of the newest permission: what somebody who has broken into this node knows.
    pub(super) known: Option<(u32, IcvKey)>,
}

/// What becomes of a packet.
pub(super) enum Fate {
    Goes(Vec<u8>),
    Waits,
    Dropped(&'static str),
}

impl Node {
    pub(super) fn new(core: Core, packets: Box<dyn PacketProcessor>, own: Arc<dyn PacketSigner>) -> Self {
        Self { core, packets, own, known: None }
    }

    pub(super) fn hear(&mut self, indication: Indication, now: Instant) {
        match &mut self.core {
            Core::Sender(sender) => sender.handle_gist(indication, now),
            Core::Router(router) => router.handle_gist(indication, now),
            Core::Receiver(receiver) => receiver.handle_gist(indication, now),
        }
    }

    /// Lets timers fire on both sides.
    pub(super) fn wake(&mut self, now: Instant) {
        self.packets.handle_timeout(translate::instant(now));
        match &mut self.core {
            Core::Sender(sender) => sender.handle_timeout(now),
            Core::Router(router) => router.handle_timeout(now),
            Core::Receiver(receiver) => receiver.handle_timeout(now),
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        let core = match &self.core {
            Core::Sender(sender) => sender.poll_timeout(),
            Core::Router(router) => router.poll_timeout(),
            Core::Receiver(receiver) => receiver.poll_timeout(),
        };
        let packets = self.packets.poll_timeout().map(|due| Instant::from_micros(due.total_micros().try_into().unwrap_or(0)));
        [core, packets].into_iter().flatten().min()
    }

    pub(super) fn judge(&mut self, id: u32, packet: &[u8], now: Instant) -> Fate {
        match self.packets.process(PacketId(id.into()), packet, translate::instant(now)) {
            Verdict::Accept => Fate::Goes(packet.to_vec()),
            Verdict::Replace { payload, .. } => Fate::Goes(payload.to_vec()),
            Verdict::Hold => Fate::Waits,
            Verdict::Drop(reason) => Fate::Dropped(reason.word()),
            Verdict::Taken => Fate::Dropped("taken"),
        }
    }

    /// Lets core and packet side answer each other until neither has anything left to say.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Deed> {
        let mut deeds = Vec::new();
        loop {
            let mut moved = false;
            while let Some(output) = self.poll() {
                moved = true;
                match output {
                    Output::Send(message) => deeds.push(Deed::Message(message)),
                    Output::Report(report) => deeds.push(Deed::Report(report)),
                    Output::Datapath(command) => {
                        self.learn(&command);
                        let token = command.token();
                        let event = match translate::update(command, &self.own) {
                            Ok(update) => match self.packets.apply(update, translate::instant(now)) {
                                Ok(applied) => translate::event(Up::Applied(applied)),
                                Err(refused) => translate::event(Up::Refused(refused)),
                            },
                            Err(error) => Some(Event::Failed { token, reason: error.to_string() }),
                        };
                        event.into_iter().for_each(|event| self.tell(event, now));
                    }
                    Output::Ask(_) | Output::SetPeering { .. } | Output::SetStateLifetime { .. } | Output::AdoptPeer { .. } => {}
                    #[allow(unreachable_patterns)]
                    _ => {}
                }
            }
            while let Some((_, released)) = self.packets.poll_released() {
                moved = true;
                if let Released::Replace { payload, .. } = released {
                    deeds.push(Deed::Packet(payload));
                }
            }
            while let Some(event) = self.packets.poll_event() {
                moved = true;
                translate::event(Up::Event(event)).into_iter().for_each(|event| self.tell(event, now));
            }
            if !moved {
                return deeds;
            }
        }
    }

    fn learn(&mut self, command: &Command) {
        if let Command::Install { grant, .. } = command
            && let Protection::Shared { key, .. } = &grant.protection
            && let Ok(key) = IcvKey::new(MacAlgorithm::HmacSha256_128, key.expose())
        {
            self.known = Some((grant.spi, key));
        }
    }

    fn poll(&mut self) -> Option<Output> {
        match &mut self.core {
            Core::Sender(sender) => sender.poll_output(),
            Core::Router(router) => router.poll_output(),
            Core::Receiver(receiver) => receiver.poll_output(),
        }
    }

    fn tell(&mut self, event: Event, now: Instant) {
        match &mut self.core {
            Core::Sender(sender) => sender.handle_datapath(event, now),
            Core::Router(router) => router.handle_datapath(event, now),
            Core::Receiver(receiver) => receiver.handle_datapath(event, now),
        }
    }
}
