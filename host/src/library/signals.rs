//! Signals that stop a host, for programs that ask for it.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    events::{Event, Events},
    host::Stop,
    parts::Parts,
};

/// Until this is dropped, the first SIGTERM or SIGINT stops gracefully, and the second at once.
///
/// tokio keeps the process from ending by these signals even after that: it is for the program to end when its host has.
#[derive(Debug)]
pub(super) struct Signals {
    _listeners: Vec<AbortOnDropHandle<()>>,
}

impl Signals {
    pub(super) fn listen(stop: &Stop, events: &Events, parts: &Parts) -> std::io::Result<Self> {
        let mut listeners = Vec::new();
        for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
            let listener = stop_on(signal(kind)?, kind.as_raw_value(), stop.clone(), events.clone());
            listeners.push(AbortOnDropHandle::new(parts.spawn("receiver of signals", listener)));
        }
        Ok(Self { _listeners: listeners })
    }
}

async fn stop_on(mut signals: Signal, number: i32, stop: Stop, events: Events) {
    while signals.recv().await.is_some() {
        let forceful = stop.graceful.is_cancelled();
        let obey: &CancellationToken = if forceful { &stop.now } else { &stop.graceful };
        events.emit(Event::SignalReceived { signal: number, forceful });
        obey.cancel();
    }
}
