//! Doing what the node asks for.

use std::net::IpAddr;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::association::{Course, NotQueued};
use super::super::query_mode::QueryModePacket;
use super::Shell;
use crate::api::{AssociationId, Indication, PathId};
use crate::node::{AssociationEvent, Output, Transmit};

impl Shell {
    /// Does everything the node asks for; nothing in here waits.
    pub(super) fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Transmit(transmit) => self.transmit(transmit),
                Output::Connect { association, remote, peer_address_for_certificate, path, source } => {
                    let course = Course { remote, path, source };
                    let opened = self.context.connect(&mut self.tasks, association, course, peer_address_for_certificate);
                    self.associations.insert(association, opened);
                }
                Output::SendOnAssociation { association, message } => self.send_on_association(association, message),
                Output::CloseAssociation { association } => {
                    if let Some(association) = self.associations.remove(&association) {
                        association.close();
                    }
                }
                Output::Indicate(indication) => self.indicate(indication),
            }
        }
    }

    fn transmit(&mut self, transmit: Transmit) {
        match transmit {
            Transmit::Normal { destination, source, payload } => {
                if let Err(error) = self.udp.send(destination, source, &payload) {
                    self.counters.send_errors += 1;
                    tracing::debug!(%destination, %error, "datagram not sent");
                }
            }
            Transmit::QueryMode { source, destination, source_port, ip_ttl, ds_field, flow_label, router_alert, path, payload } => {
                let packet =
                    QueryModePacket { source, destination, source_port, ip_ttl, ds_field, flow_label, router_alert, payload: &payload };
                if let Err(error) = self.send_query_mode(packet, destination, path) {
                    self.counters.query_mode_errors += 1;
                    tracing::debug!(%source, %destination, %error, "Q-mode packet not sent");
                }
            }
        }
    }

    fn send_query_mode(&self, packet: QueryModePacket<'_>, destination: IpAddr, path: PathId) -> std::io::Result<()> {
        let packet = packet.build().map_err(std::io::Error::other)?;
        let mark = self.context.bind.mark_of(path).ok_or(std::io::ErrorKind::AddrNotAvailable)?;
        self.raw.send(&packet, destination, mark)
    }

    fn send_on_association(&mut self, association: AssociationId, message: Bytes) {
        match self.associations.get(&association).map(|open| open.send(message)) {
            // Its end has been reported or will be.
            None | Some(Ok(()) | Err(NotQueued::Ended)) => {}
            Some(Err(NotQueued::Full)) => {
                tracing::error!(%association, "more messages are unwritten than the node should leave");
                if let Some(full) = self.associations.remove(&association) {
                    full.abort();
                }
                let reason = "its write queue is full".to_owned();
                self.node.handle_association(association, AssociationEvent::Failed(reason), self.clock.now());
            }
        }
    }

    fn indicate(&mut self, indication: Indication) {
        let indication = if self.pending.is_empty() {
            match self.indications.try_send(indication) {
                Err(mpsc::error::TrySendError::Full(indication)) => indication,
                // If the application has gone, the next turn ends the shell.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        } else {
            indication
        };
        if matches!(&indication, Indication::Received(message) if message.association.is_none()) {
            self.counters.indications_dropped += 1;
        } else {
            self.pending.push_back(indication);
        }
    }
}
