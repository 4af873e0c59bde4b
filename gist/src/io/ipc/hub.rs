//! Which program is which application.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::EVENTS;
use super::line::Event;
use crate::api::Indication;
use crate::wire::NslpId;

/// The applications of a node and the programs that have registered as them.
#[derive(Debug, Clone)]
pub(super) struct Hub(Arc<Mutex<BTreeMap<NslpId, Option<mpsc::Sender<Event>>>>>);

/// Why a program cannot be an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotRegistered {
    #[error("this node has no application {0}")]
    Unknown(NslpId),
    #[error("another program is application {0}")]
    Taken(NslpId),
    #[error("this program is application {0}")]
    Already(NslpId),
}

/// A program's hold on its application, which ends with this value.
#[derive(Debug)]
pub(super) struct Registered {
    hub: Hub,
    pub(super) nslp_id: NslpId,
    /// Ends when the program has left too much unread.
    pub(super) events: mpsc::Receiver<Event>,
}

impl Hub {
    pub(super) fn new(applications: &[NslpId]) -> Self {
        Self(Arc::new(Mutex::new(applications.iter().map(|nslp_id| (*nslp_id, None)).collect())))
    }

    pub(super) fn register(&self, nslp_id: NslpId) -> Result<Registered, NotRegistered> {
        match self.lock().get_mut(&nslp_id) {
            None => Err(NotRegistered::Unknown(nslp_id)),
            Some(Some(_)) => Err(NotRegistered::Taken(nslp_id)),
            Some(place) => {
                let (sender, events) = mpsc::channel(EVENTS);
                *place = Some(sender);
                Ok(Registered { hub: self.clone(), nslp_id, events })
            }
        }
    }

    /// Tells the program concerned, if there is one. One that reads too slowly is let go.
    pub(super) fn deliver(&self, indication: &Indication) {
        let (nslp_id, event) = Event::of(indication);
        let mut places = self.lock();
        let Some(place) = places.get_mut(&nslp_id) else { return };
        let Some(program) = place else {
            tracing::debug!(%nslp_id, "an indication for an application that no program has registered as");
            return;
        };
        if program.try_send(event).is_err() {
            tracing::warn!(%nslp_id, unread = EVENTS, "a program does not read what it is told, and is let go");
            *place = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NslpId, Option<mpsc::Sender<Event>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.events.close();
        // After a program was let go the place may be another's already.
        if let Some(place) = self.hub.lock().get_mut(&self.nslp_id) {
            place.take_if(|sender| sender.is_closed());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{MessageHandle, SendError};
    use crate::wire::{Direction, LooseEnd, Mri, SessionId};

    const OWN: NslpId = NslpId(32720);

    fn indication() -> Indication {
        let mri =
            Mri::LooseEnd(LooseEnd { direction: Direction::Downstream, source: [10, 0, 0, 1].into(), destination: [10, 0, 9, 1].into() });
        Indication::MessageStatus { handle: MessageHandle(1), nslp_id: OWN, session: SessionId([1; 16]), mri, error: SendError::NoResponse }
    }

    #[test]
    fn an_application_has_one_program_at_a_time() {
        let hub = Hub::new(&[OWN]);
        assert_eq!(hub.register(NslpId(1)).err(), Some(NotRegistered::Unknown(NslpId(1))));
        let first = hub.register(OWN).unwrap();
        assert_eq!(hub.register(OWN).err(), Some(NotRegistered::Taken(OWN)));
        drop(first);
        assert!(hub.register(OWN).is_ok());
    }

    #[test]
    fn a_program_that_does_not_read_is_let_go_and_another_may_take_its_place() {
        let hub = Hub::new(&[OWN]);
        let mut slow = hub.register(OWN).unwrap();
        for _ in 0..=EVENTS {
            hub.deliver(&indication());
        }
        let mut next = hub.register(OWN).unwrap();
        let told = std::iter::from_fn(|| slow.events.try_recv().ok()).count();
        assert_eq!((told, slow.events.try_recv()), (EVENTS, Err(mpsc::error::TryRecvError::Disconnected)));
        drop(slow);
        hub.deliver(&indication());
        assert!(next.events.try_recv().is_ok(), "the place is the other's");
    }
}
