//! The log, as a test hears it.

use std::cell::RefCell;
use std::sync::Once;

use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

type Ear = Box<dyn FnMut(&Event<'_>)>;

thread_local! {
    /// Who hears what this thread logs.
    static EAR: RefCell<Option<Ear>> = const { RefCell::new(None) };
}

/// Tells `ear` what this thread logs while `act` goes on. The subscriber is the whole process's: one of a single thread would hear nothing
/// of what another thread, without one, was the first to log.
pub fn hear(ear: impl FnMut(&Event<'_>) + 'static, act: impl FnOnce()) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| tracing::subscriber::set_global_default(Log).unwrap());
    // What other threads logged before was decided without it.
    tracing::callsite::rebuild_interest_cache();
    EAR.set(Some(Box::new(ear)));
    act();
    EAR.set(None);
}

struct Log;

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("gist")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        EAR.with_borrow_mut(|ear| {
            if let Some(ear) = ear {
                ear(event);
            }
        });
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
