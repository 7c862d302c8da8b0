//! What must hold when everything is over.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Arena,
    adversary::{Adversary, Harm},
    load::{Added, Kind, kind},
};
use crate::harness::ledger::Entry;

/// One run of a job.
#[derive(Debug)]
struct Run {
    /// Which host; `None`: the Node worker.
    slot: Option<usize>,
    n: i64,
    job: i64,
    attempt: i16,
    queue: Option<String>,
    began_us: u64,
    /// `None`: it was ended with its process.
    ended_us: Option<u64>,
}

pub(super) async fn check(arena: &Arena, adversary: &Adversary, added: &Added) {
    let runs = runs(arena);
    let left = left(arena).await;
    for n in runs.keys().chain(left.keys()) {
        assert!(added.certain.contains(n) || added.perhaps.contains(n), "nobody has added job {n}");
    }
    let none = Vec::new();
    let (mut again, mut killed) = (0, 0);
    for n in &added.certain {
        let runs = runs.get(n).unwrap_or(&none);
        match left.get(n) {
            Some(error) => assert!(may_fail(kind(*n), error), "job {n} ({:?}) failed for good: {error}", kind(*n)),
            None => assert!(runs.iter().any(succeeds), "job {n} ({:?}) is lost: {runs:?}", kind(*n)),
        }
        again += runs.iter().filter(|run| succeeds(run)).count().saturating_sub(1);
        killed += runs.iter().filter(|run| run.ended_us.is_none()).count();
        attempts_rise(runs);
    }
    let of_a_job = runs.values().map(|runs| one_at_a_time(runs, &adversary.harm, "job")).sum::<usize>();
    let mut queues: HashMap<&str, Vec<&Run>> = HashMap::new();
    for run in runs.values().flatten() {
        if let Some(queue) = &run.queue {
            queues.entry(queue).or_default().push(run);
        }
    }
    let mut of_a_queue = 0;
    for runs in queues.values_mut() {
        runs.sort_by_key(|run| run.began_us);
        of_a_queue += one_at_a_time(runs, &adversary.harm, "queue");
    }
    println!(
        "jobs lost: 0; failed for good by the rules: {}; runs that were killed: {killed}; done again: {again}; at once with \
         another run, inside the window: {of_a_job} of a job, {of_a_queue} of a queue",
        left.len()
    );
}

/// All runs, by the numbers of the jobs, in the order of their beginnings.
fn runs(arena: &Arena) -> HashMap<i64, Vec<Run>> {
    let mut runs: HashMap<i64, Vec<Run>> = HashMap::new();
    let ledgers = arena.ledgers.iter().enumerate().map(|(slot, ledger)| (Some(slot), ledger));
    for (slot, ledger) in ledgers.chain([(None, &arena.node_ledger)]) {
        let mut open: HashMap<(i64, i16, u32), Run> = HashMap::new();
        for entry in ledger.entries() {
            let key = (entry.job, entry.attempt, entry.pid);
            if entry.event == "began" {
                if let Some(run) = open.insert(key, begin(slot, &entry)) {
                    runs.entry(run.n).or_default().push(run);
                }
            } else {
                let mut run = open.remove(&key).unwrap_or_else(|| panic!("{entry:?} ended without a begin"));
                run.ended_us = Some(entry.now_us);
                runs.entry(run.n).or_default().push(run);
            }
        }
        for (_, run) in open {
            runs.entry(run.n).or_default().push(run);
        }
    }
    runs.values_mut().for_each(|runs| runs.sort_by_key(|run| run.began_us));
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
    }
}

/// What has failed for good, by the numbers of the jobs, with the reasons.
async fn left(arena: &Arena) -> HashMap<i64, String> {
    let sql = "select payload::text, coalesce(last_error, 'no reason') from graphile_worker._private_jobs";
    let rows = arena.place.cluster.client().await.query(sql, &[]).await.expect("read the jobs");
    let number = |payload: String| {
        let payload: Value = serde_json::from_str(&payload).expect("the payload is JSON");
        payload["n"].as_i64().expect("it has a number")
    };
    rows.iter().map(|row| (number(row.get(0)), row.get(1))).collect()
}

/// By the rules: with its last attempt, or after three crashes in a row.
fn may_fail(kind: Kind, error: &str) -> bool {
    let crashes = error.rsplit_once("(crash ").and_then(|(_, rest)| rest.trim_end_matches(')').parse::<u32>().ok());
    kind == Kind::Hopeless || crashes.is_some_and(|crashes| crashes >= 3)
}

fn succeeds(run: &Run) -> bool {
    let fails = kind(run.n) == Kind::Hopeless || (kind(run.n) == Kind::FailsOnce && run.attempt == 1);
    run.ended_us.is_some() && !fails
}

/// The same number comes again only where the attempt did not count: it was given back, or its claim never became known.
fn attempts_rise(runs: &[Run]) {
    let most = runs.first().map_or(25, |run| if kind(run.n) == Kind::Hopeless { 1 } else { 25 });
    for run in runs {
        assert!((1..=most).contains(&run.attempt), "{run:?}");
        assert_eq!(run.job, runs[0].job, "a number has one job");
    }
    // Where two overlap, the later one may have begun sooner.
    let ordered = runs.iter().filter(|run| run.ended_us.is_some());
    let attempts: Vec<(u64, i16)> = ordered.map(|run| (run.began_us, run.attempt)).collect();
    assert!(attempts.is_sorted_by_key(|(_, attempt)| *attempt), "attempts went back: {runs:?}");
}

/// Counts the overlaps, each of which must be inside the window: something was done to the one that began first.
fn one_at_a_time<R: std::borrow::Borrow<Run>>(runs: &[R], harm: &[Harm], of: &str) -> usize {
    let mut overlaps = 0;
    for (place, first) in runs.iter().enumerate() {
        let first = first.borrow();
        let Some(ended) = first.ended_us else { continue };
        for second in runs[place + 1..].iter().map(std::borrow::Borrow::borrow).take_while(|run| run.began_us < ended) {
            let inside = harm.iter().any(|harm| {
                let of_first = harm.slot.is_none_or(|slot| first.slot == Some(slot));
                of_first && harm.from_us <= second.began_us && harm.to_us >= first.began_us
            });
            assert!(inside, "two at once of one {of}, and nothing was done to the first: {first:?} and {second:?}");
            overlaps += 1;
        }
    }
    overlaps
}
