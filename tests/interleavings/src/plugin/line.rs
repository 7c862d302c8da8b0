//! The host's side of the line to a plugin's process: `Connection` without what is said beside calls and their ends.

use std::sync::Arc;

use super::{
    HostSocket,
    calls::{CallEnd, Calls},
    frames::{CANCEL, RUN, take_frames},
    host_outbox::HostOutbox,
    stop_signal::StopSignal,
};

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobEnd {
    /// Its process said that it ended.
    Reported,
    /// Its process is gone.
    Crashed,
    /// The process was gone before.
    NotStarted,
    /// It was to be stopped.
    Stopped,
}

/// The word to stop.
#[derive(Debug, Clone, Default)]
pub struct Stop(StopSignal);

impl Stop {
    /// Gives it.
    pub fn give(&self) {
        self.0.cancel();
    }
}

/// A line with its two tasks.
#[derive(Debug, Clone)]
pub struct Line {
    calls: Arc<Calls>,
    outbox: Arc<HostOutbox>,
}

impl Line {
    /// Over this socket.
    pub fn open(socket: HostSocket) -> Self {
        let line = Self { calls: Arc::default(), outbox: Arc::new(HostOutbox::new(socket)) };
        let (reader, writer) = (line.clone(), line.clone());
        drop(shuttle::future::spawn(async move { reader.read().await }));
        drop(shuttle::future::spawn(async move { writer.outbox.write().await }));
        line
    }

    async fn read(&self) {
        let (mut bytes, mut space) = (Vec::new(), [0; 64]);
        loop {
            for (_, call) in take_frames(&mut bytes) {
                let end = CallEnd::Reported { status: 0, message: None, detail: None };
                // Nobody waits for the end of one that was stopped.
                self.calls.finish(call, end);
            }
            match self.outbox.read(&mut space).await {
                Ok(count) if count > 0 => bytes.extend_from_slice(&space[..count]),
                _ => break,
            }
        }
        self.outbox.close();
        self.calls.close("gone");
    }

    /// A job from its begin to its end.
    pub fn run(&self, stop: &Stop) -> JobEnd {
        shuttle::future::block_on(async {
            while let Some(false) = self.outbox.has_room() {
                self.outbox.room().await;
            }
            let Some(mut call) = self.calls.begin(1, 0) else { return JobEnd::NotStarted };
            self.send(RUN, call.id);
            match call.end_unless(&[&stop.0]).await {
                Some(CallEnd::Reported { .. }) => JobEnd::Reported,
                Some(CallEnd::Crashed(_)) => JobEnd::Crashed,
                None => {
                    self.send(CANCEL, call.id);
                    JobEnd::Stopped
                }
            }
        })
    }

    fn send(&self, kind: u8, call: u64) {
        self.outbox.send(kind, call, self.calls.running() <= 1, |_| ()).expect("it is short");
    }
}
