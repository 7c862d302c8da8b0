//! All runs of all jobs, as the ledgers tell of them.

use std::collections::HashMap;

use super::{
    arena::Arena,
    load::{Kind, kind},
};
use crate::harness::ledger::Entry;

/// One run of a job.
#[derive(Debug)]
pub(super) struct Run {
    /// Which host; `None`: the Node worker.
    pub(super) slot: Option<usize>,
    pub(super) n: i64,
    pub(super) job: i64,
    pub(super) attempt: i16,
    pub(super) queue: Option<String>,
    pub(super) began_us: u64,
    /// `None`: it was ended with its process, or could not write that.
    pub(super) ended_us: Option<u64>,
    /// What the job's own row said when the run began, if it wrote a row.
    pub(super) stored: Option<Stored>,
}

#[derive(Debug)]
pub(super) struct Stored {
    owner: Option<String>,
    /// `None`: the job was not there any more.
    attempts: Option<i16>,
    /// By the clock of the database.
    pub(super) ended_before_it_began: bool,
}

impl Run {
    pub(super) fn succeeds(&self) -> bool {
        let fails = kind(self.n) == Kind::Hopeless || (kind(self.n) == Kind::FailsOnce && self.attempt == 1);
        self.ended_us.is_some() && !fails
    }

    /// Whether the job was this run's by its row: marked with its attempt by its host, which is one of the `owners` unless it is
    /// the Node worker, or left as it was by an express transaction.
    pub(super) fn was_its_owners(&self, owners: &HashMap<String, usize>) -> bool {
        self.stored.as_ref().is_none_or(|stored| match &stored.owner {
            Some(owner) => {
                let its_host = owners.get(owner).is_none_or(|slot| Some(*slot) == self.slot);
                stored.attempts == Some(self.attempt) && its_host
            }
            None => stored.attempts == Some(self.attempt - 1),
        })
    }
}

/// All runs, by the numbers of the jobs, in the order of their beginnings.
pub(super) async fn all_runs(arena: &Arena) -> HashMap<i64, Vec<Run>> {
    let mut runs: HashMap<i64, Vec<Run>> = HashMap::new();
    for run in in_files(arena).into_iter().chain(in_rows(arena).await) {
        runs.entry(run.n).or_default().push(run);
    }
    runs.values_mut().for_each(|runs| runs.sort_by_key(|run| run.began_us));
    runs
}

fn in_files(arena: &Arena) -> Vec<Run> {
    let mut runs = Vec::new();
    let ledgers = arena.ledgers.iter().enumerate().map(|(slot, ledger)| (Some(slot), ledger));
    for (slot, ledger) in ledgers.chain([(None, &arena.node_ledger)]) {
        // A process may run an attempt twice, after one that was given back. Which of the two has ended first does not show.
        let mut open: HashMap<(i64, i16, u32), Vec<Run>> = HashMap::new();
        for entry in ledger.entries() {
            let running = open.entry((entry.job, entry.attempt, entry.pid)).or_default();
            if entry.event == "began" {
                running.push(begin(slot, &entry));
            } else {
                let mut run = running.pop().unwrap_or_else(|| panic!("{entry:?} ended without a begin"));
                run.ended_us = Some(entry.now_us);
                runs.push(run);
            }
        }
        runs.extend(open.into_values().flatten());
    }
    runs
}

fn begin(slot: Option<usize>, entry: &Entry) -> Run {
    Run {
        slot,
        n: entry.n(),
        job: entry.job,
        attempt: entry.attempt,
        queue: entry.queue.clone(),
        began_us: entry.now_us,
        ended_us: None,
        stored: None,
    }
}

async fn in_rows(arena: &Arena) -> Vec<Run> {
    let sql = "select host, n, job, attempt::int2, queue, began_us, ended_us, owner, attempts,
                      coalesce(ended_at < began_at, false) from torture_runs";
    let rows = arena.place.cluster.client().await.query(sql, &[]).await.expect("read the ledger");
    let time = |us: i64| u64::try_from(us).expect("the machine was started before");
    let run = |row: &tokio_postgres::Row| Run {
        slot: row
            .get::<_, Option<&str>>(0)
            .map(|host| host.trim_start_matches("host").parse().expect("it has a number")),
        n: row.get(1),
        job: row.get(2),
        attempt: row.get(3),
        queue: row.get(4),
        began_us: time(row.get(5)),
        ended_us: row.get::<_, Option<i64>>(6).map(time),
        stored: Some(Stored { owner: row.get(7), attempts: row.get(8), ended_before_it_began: row.get(9) }),
    };
    rows.iter().map(run).collect()
}
