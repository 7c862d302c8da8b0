//! A plugin's process as its threads see it: `child_main` with nothing behind it.

use shuttle::{
    rand::Rng,
    sync::{Arc, Barrier},
    thread::{self, JoinHandle},
};

use super::{
    ChildSocket,
    child_outbox::Outbox,
    frames::{ENDED, LOG, RUN, take_frames},
};

/// An outbox with its thread.
#[derive(Debug, Clone)]
pub struct Child {
    outbox: Arc<Outbox>,
    socket: ChildSocket,
}

impl Child {
    /// Says what it says into this socket.
    pub fn new(socket: &ChildSocket) -> Self {
        let outbox = Arc::new(Outbox::new(socket.clone()));
        let source = Arc::clone(&outbox);
        // It never ends. The checker lets a future be that, and not a thread; to it, both are one that waits for locks.
        drop(shuttle::future::spawn(async move { source.write_what_is_handed_over() }));
        Self { outbox, socket: socket.clone() }
    }

    /// A log line from any thread.
    pub fn log(&self, call: u64) {
        self.outbox.wait_for_room();
        self.outbox.send(LOG, call, |_| ());
    }

    /// Returns when all is written that was added before.
    pub fn flush(&self) {
        self.outbox.flush();
    }

    /// As the loop of `serve` does: jobs come in, so many at once, and each ends on a thread of its own, or in place. Nothing
    /// comes after the last of them. The first job runs on until it may end, if that is given.
    pub fn work(&self, rounds: &[u64], first_may_end: Option<Arc<Barrier>>) -> Vec<JoinHandle<()>> {
        Outbox::this_thread_begins_jobs();
        let (mut jobs, mut call) = (Vec::new(), 0);
        for (round, count) in (1..).zip(rounds) {
            self.outbox.expect(*count as usize);
            for _ in 0..*count {
                call += 1;
                let waits = first_may_end.clone().filter(|_| call == 1);
                jobs.extend(self.begin(call, waits));
            }
            self.release_after_a_while(|| round < rounds.len());
        }
        jobs
    }

    /// The same, of jobs that a host sends.
    pub fn serve(&self) {
        let child = self.clone();
        drop(shuttle::future::spawn(async move {
            Outbox::this_thread_begins_jobs();
            let mut bytes = Vec::new();
            loop {
                let mut jobs = take_frames(&mut bytes);
                jobs.retain(|(kind, _)| *kind == RUN);
                child.outbox.expect(jobs.len());
                jobs.into_iter().for_each(|(_, call)| drop(child.begin(call, None)));
                child.release_after_a_while(|| child.socket.is_readable());
                match child.socket.read() {
                    end if end.is_empty() => return,
                    more => bytes.extend(more),
                }
            }
        }));
    }

    /// The process is gone.
    pub fn die(&self) {
        self.socket.end();
    }

    fn begin(&self, call: u64, waits: Option<Arc<Barrier>>) -> Option<JoinHandle<()>> {
        if waits.is_none() && shuttle::rand::thread_rng().gen_bool(0.2) {
            self.outbox.send_end(ENDED, call, |_| ());
            return None;
        }
        let outbox = Arc::clone(&self.outbox);
        Some(thread::spawn(move || {
            if let Some(barrier) = waits {
                barrier.wait();
            }
            outbox.send_end(ENDED, call, |_| ());
        }))
    }

    fn release_after_a_while(&self, more: impl FnOnce() -> bool) {
        if self.outbox.all_begun() {
            let more = more() && shuttle::rand::thread_rng().gen_bool(0.5);
            self.outbox.release(!more);
        }
    }
}
