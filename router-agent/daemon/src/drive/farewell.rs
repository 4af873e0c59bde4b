//! The orderly end of a daemon: neighbours are told what ends, and everything that was handed to them is written.

use std::time::Duration;

use gist::io::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Drive, DriveError, sleep_until_due};
use crate::datapath::Datapath;

/// How long the core may take: it waits for the last volumes of its packet workers, which answer at once.
const CORE: Duration = Duration::from_millis(500);
/// How long GIST may take: an association that its peer does not close is ended after 2 s.
const GIST: Duration = Duration::from_secs(3);

/// What the system says when somebody wants the daemon to end.
pub(super) struct Wishes {
    terminate: Signal,
    interrupt: Signal,
}

impl Wishes {
    pub(super) fn new() -> Result<Self, DriveError> {
        let listen = |kind| signal(kind).map_err(DriveError::Signals);
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for the next wish.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Drive {
    /// Tells neighbours what ends, for as long as that takes but not longer than [`CORE`] and [`GIST`]. A second wish to end cuts it
    /// short.
    pub(super) async fn say_farewell(mut self, wishes: &mut Wishes) -> Result<(), DriveError> {
        self.core.shut_down(self.clock.now());
        let end = Instant::now() + CORE;
        loop {
            self.perform().await?;
            if self.datapaths.iter().all(Datapath::is_idle) {
                break;
            }
            let due = self.core.poll_timeout().map(|instant| Instant::from_std(self.clock.at(instant)));
            tokio::select! {
                () = wishes.next() => return cut_short(),
                () = self.wake.notified() => self.hear_workers()?,
                () = sleep_until_due(due) => self.core.handle_timeout(self.clock.now()),
                () = sleep_until(end) => {
                    tracing::warn!("the packet workers have not answered in time: not every neighbour is told of the end");
                    break;
                }
            }
        }
        tokio::select! {
            () = wishes.next() => cut_short(),
            () = close(&self.gist) => Ok(()),
        }
    }
}

fn cut_short() -> Result<(), DriveError> {
    tracing::warn!("asked again: ending at once, not every neighbour is told");
    Ok(())
}

async fn close(gist: &Handle) {
    if timeout(GIST, gist.stop()).await.is_err() {
        tracing::warn!("the associations have not closed in time");
    }
}
