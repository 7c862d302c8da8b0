//! Signals from outside become the host's controls.

use std::sync::{Arc, OnceLock};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
};

use crate::host::Control;

const SIGNALS: &str = "receiver of signals";

/// What a hangup means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hangup {
    /// Read the settings file again and list the tasks folder, as servers do.
    Reload,
    /// The terminal was closed: stop.
    Stop,
}

/// What was received.
#[derive(Debug, Clone, Default)]
pub(super) struct Received {
    end: Arc<OnceLock<i32>>,
    reload: Arc<Notify>,
}

impl Received {
    /// Which signal ended the host.
    pub(super) fn get(&self) -> Option<i32> {
        self.end.get().copied()
    }

    /// Waits for the next [`Hangup::Reload`].
    pub(super) async fn reload(&self) {
        self.reload.notified().await;
    }
}

/// From here on the first SIGTERM or SIGINT stops gracefully, and the second at once.
pub(super) fn listen(control: &Control, hangup: Hangup) -> std::io::Result<Received> {
    let received = Received::default();
    let stops = [SignalKind::terminate(), SignalKind::interrupt()];
    let stops = stops.into_iter().chain((hangup == Hangup::Stop).then(SignalKind::hangup));
    for kind in stops {
        let stop = stop_on(signal(kind)?, kind.as_raw_value(), control.clone(), received.clone());
        control.parts.spawn(SIGNALS, stop);
    }
    if hangup == Hangup::Reload {
        let mut hangups = signal(SignalKind::hangup())?;
        let reload = Arc::clone(&received.reload);
        control.parts.spawn(SIGNALS, async move {
            while hangups.recv().await.is_some() {
                reload.notify_one();
            }
        });
    }
    Ok(received)
}

async fn stop_on(mut signals: Signal, number: i32, control: Control, received: Received) {
    while signals.recv().await.is_some() {
        // Only the first one counts as the cause of the end.
        if received.end.set(number).is_ok() {
            control.stop.graceful.cancel();
        } else {
            control.stop.now.cancel();
        }
    }
}
