//! Tells the service manager, which is systemd or one that does as it does, how the host is doing: units of `Type=notify`, with
//! or without `WatchdogSec=`.

use std::{
    env,
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::{blocking::off_the_runtime, host::Control, parts::Parts};

/// A part of the host that has not moved for this long does not work any more.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// How often to look whether it moves again.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// From here on it hears when the host is ready and when it stops, and, where it wants to, again and again that it lives. `None`
/// if nobody asks.
pub(super) fn keep_informed(control: &Control) -> Option<AbortOnDropHandle<()>> {
    env::var_os("NOTIFY_SOCKET")?;
    let (ready, stopping) = (control.ready.clone(), control.stop.graceful.clone());
    // Twice as often as it is waited for, as its manual says.
    let mut pulse = sd_notify::watchdog_enabled().map(|limit| Pulse::new(limit / 2, control.parts.clone()));
    Some(AbortOnDropHandle::new(tokio::spawn(async move {
        let (mut said_ready, mut said_stopping) = (false, false);
        loop {
            tokio::select! {
                () = ready.cancelled(), if !said_ready => {
                    said_ready = true;
                    say(NotifyState::Ready).await;
                }
                () = stopping.cancelled(), if !said_stopping => {
                    said_stopping = true;
                    say(NotifyState::Stopping).await;
                }
                () = next_beat(pulse.as_ref()) => if let Some(pulse) = &mut pulse {
                    pulse.beat().await;
                },
            }
        }
    })))
}

/// What keeps the service manager from starting the host anew.
struct Pulse {
    every: Duration,
    next: Instant,
    parts: Parts,
    /// Whether it was said that the host does not work.
    is_stuck: bool,
}

impl Pulse {
    fn new(every: Duration, parts: Parts) -> Self {
        parts.watch();
        Self { every, next: Instant::now() + every, parts, is_stuck: false }
    }

    /// Says that the host works, if it does.
    async fn beat(&mut self) {
        let stuck = self.parts.stuck(STUCK_AFTER);
        if stuck.is_empty() {
            if std::mem::take(&mut self.is_stuck) {
                info!(event = "parts_move_again", "all parts of this host move again");
            }
            say(NotifyState::Watchdog).await;
            self.next = Instant::now() + self.every;
            return;
        }
        if !std::mem::replace(&mut self.is_stuck, true) {
            let parts: Vec<String> =
                stuck.iter().map(|stuck| format!("{} (for {} s)", stuck.part, stuck.since.as_secs())).collect();
            let parts = parts.join(", ");
            warn!(
                event = "parts_stuck",
                parts, "parts of this host do not move, so the service manager does not hear that it works: {parts}"
            );
        }
        self.next = Instant::now() + self.every.min(LOOK_AGAIN);
    }
}

async fn next_beat(pulse: Option<&Pulse>) {
    match pulse {
        Some(pulse) => tokio::time::sleep_until(pulse.next.into()).await,
        None => std::future::pending().await,
    }
}

/// One that does not read holds up nothing but this.
async fn say(state: NotifyState<'static>) {
    if let Err(error) = off_the_runtime(move || sd_notify::notify(&[state])).await {
        warn!(event = "service_manager_deaf", "could not tell the service manager how this goes: {error}");
    }
}
