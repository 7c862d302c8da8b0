//! How events reach the log and those who subscribed.

use tokio::sync::broadcast;
use tracing::{Level, level_filters::LevelFilter};

use super::{Event, lines};
use crate::parts::Parts;

/// Where events are announced. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    subscribers: broadcast::Sender<Event>,
    /// The parts of the host whose events these are.
    parts: Parts,
}

impl Default for Events {
    fn default() -> Self {
        Self { subscribers: broadcast::Sender::new(1024), parts: Parts::default() }
    }
}

impl Events {
    /// Announces an event: to the log, and to whoever subscribed.
    pub fn emit(&self, event: Event) {
        lines::log(&event);
        if self.subscribers.receiver_count() > 0 {
            // An error would mean that the last subscriber has just gone.
            let _ = self.subscribers.send(event);
        }
    }

    /// Announces an event that is made only if somebody hears it, in the log at this level or as a subscriber: what happens
    /// with each job costs nothing otherwise.
    pub fn emit_if_heard(&self, level: Level, make: impl FnOnce() -> Event) {
        if self.is_heard(level) {
            self.emit(make());
        }
    }

    /// Whether somebody would hear an event whose line in the log has this level.
    pub fn is_heard(&self, level: Level) -> bool {
        self.subscribers.receiver_count() > 0 || LevelFilter::current() >= level
    }

    /// The events of a host with these parts, for the same subscribers.
    pub(crate) fn of_host(self, parts: Parts) -> Self {
        Self { parts, ..self }
    }

    /// What a task without which the host cannot work is a part of.
    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Hears of all events from here on. A subscriber that falls more than 1,024 behind misses the oldest.
    pub fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.subscribers.subscribe()
    }
}
