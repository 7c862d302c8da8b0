//! What is measured. A new row is one more entry of [`ROWS`] and a function beside those of its kind.

mod backlog;
mod drain;
mod enqueue;
mod hosts;
mod latency;
mod start_stop;

use std::{future::Future, pin::Pin};

use anyhow::Result;

use crate::{bench::Bench, contender::Contender, figure::Figure};

/// Measures one contender once. A row may give several figures.
#[derive(Debug)]
pub struct Row {
    pub name: &'static str,
    /// For `--list`.
    pub about: &'static str,
    /// Whether it makes sense for a contender.
    pub suits: fn(&Contender) -> bool,
    pub measure: for<'a> fn(&'a Bench, &'a Contender) -> Measuring<'a>,
}

/// On its way to figures.
pub type Measuring<'a> = Pin<Box<dyn Future<Output = Result<Vec<Figure>>> + 'a>>;

/// In the order in which they are measured.
pub const ROWS: &[Row] = &[
    Row {
        name: "drain",
        about: "no-op jobs, until all are gone; also memory, and what it costs Postgres",
        suits: |_| true,
        measure: |bench, contender| Box::pin(drain::plain(bench, contender)),
    },
    Row {
        name: "sleep",
        about: "jobs that sleep for 1 ms, 100 at once",
        suits: Contender::runs_jobs,
        measure: |bench, contender| Box::pin(drain::sleeping(bench, contender)),
    },
    Row {
        name: "failing",
        about: "jobs of which one in ten fails, for good",
        suits: Contender::runs_jobs,
        measure: |bench, contender| Box::pin(drain::failing(bench, contender)),
    },
    Row {
        name: "queues",
        about: "a tenth as many no-op jobs in 100 named queues",
        suits: |contender| contender.runs_jobs() && contender.store.has_queues(),
        measure: |bench, contender| Box::pin(drain::queued(bench, contender)),
    },
    Row {
        name: "stuck",
        about: "no-op jobs behind half as many in two queues that somebody holds",
        suits: |contender| contender.store.has_queues(),
        measure: |bench, contender| Box::pin(drain::stuck(bench, contender)),
    },
    Row {
        name: "pinned",
        about: "no-op jobs, while a transaction elsewhere keeps dead rows from being removed",
        suits: |_| true,
        measure: |bench, contender| Box::pin(drain::pinned(bench, contender)),
    },
    Row {
        name: "hosts",
        about: "twice as many no-op jobs, drained by 1, 2, 4, 8 and 16 hosts",
        suits: |contender| ["taskbay", "taskbay-marked"].contains(&contender.name),
        measure: |bench, contender| Box::pin(hosts::measure(bench, contender)),
    },
    Row {
        name: "latency",
        about: "from before the call that adds a job, and from its commit, to the job's first instruction; one at a time",
        suits: latency::listens,
        measure: |bench, contender| Box::pin(latency::idle(bench, contender)),
    },
    Row {
        name: "latency-busy",
        about: "the same at 500 jobs a second",
        suits: Contender::runs_jobs,
        measure: |bench, contender| Box::pin(latency::busy(bench, contender)),
    },
    Row {
        name: "add-call",
        about: "the call that adds one job, with nobody to work it: what to subtract from a latency",
        suits: latency::adds_in_its_own_way,
        measure: |bench, contender| Box::pin(latency::bare_call(bench, contender)),
    },
    Row {
        name: "start-stop",
        about: "from the start of the process to the first job's first instruction, and from SIGTERM to the end when idle",
        suits: |contender| contender.runs_jobs() && contender.processes == 1,
        measure: |bench, contender| Box::pin(start_stop::measure(bench, contender)),
    },
    Row {
        name: "enqueue",
        about: "adding jobs, ten thousand a call",
        suits: enqueue::adds,
        measure: |bench, contender| Box::pin(enqueue::measure(bench, contender)),
    },
    Row {
        name: "backlog",
        about: "no-op jobs at three backlogs that are ten times larger each",
        suits: |contender| ["taskbay", "taskbay-marked", "bare-marked", "bare-express"].contains(&contender.name),
        measure: |bench, contender| Box::pin(backlog::measure(bench, contender)),
    },
];
