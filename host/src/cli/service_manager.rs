//! Tells the service manager, which is systemd or one that does as it does, how the host is doing: units of `Type=notify`, with
//! or without `WatchdogSec=`.

use std::{env, time::Duration};

use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::host::Control;

/// From here on it hears when the host is ready and when it stops, and, where it wants to, again and again that it lives. `None`
/// if nobody asks.
pub(super) fn keep_informed(control: &Control) -> Option<AbortOnDropHandle<()>> {
    env::var_os("NOTIFY_SOCKET")?;
    let (ready, stopping) = (control.ready.clone(), control.stop.graceful.clone());
    // Twice as often as it is waited for, as its manual says.
    let pulse = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let (mut said_ready, mut said_stopping) = (false, false);
        loop {
            tokio::select! {
                () = ready.cancelled(), if !said_ready => {
                    said_ready = true;
                    say(NotifyState::Ready);
                }
                () = stopping.cancelled(), if !said_stopping => {
                    said_stopping = true;
                    say(NotifyState::Stopping);
                }
                () = beat(pulse) => say(NotifyState::Watchdog),
            }
        }
    })))
}

async fn beat(pulse: Option<Duration>) {
    match pulse {
        Some(pulse) => tokio::time::sleep(pulse).await,
        None => std::future::pending().await,
    }
}

fn say(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!(event = "service_manager_deaf", "could not tell the service manager how this goes: {error}");
    }
}
