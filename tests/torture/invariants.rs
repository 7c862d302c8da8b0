//! What must hold when everything is over.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    adversary::Adversary,
    arena::Arena,
    harm::Harms,
    load::{Added, Kind, kind, writes_rows},
    runs::{Run, all_runs},
};

/// A job may have been taken from a host that much before its run began, which waited for a slot or a connection.
const BEFORE_US: u64 = 5_000_000;
/// So long after its end, what a job came to is stored, unless something is in the way.
const STORED_US: u64 = 5_000_000;
/// Of so many jobs that were done, at most one is done again. In bad times, nearly everything comes soon after some harm.
const DONE_AGAIN_OF: usize = 250;

pub(super) async fn check(arena: &Arena, adversary: &Adversary, added: &Added) {
    let runs = all_runs(arena).await;
    let left = left(arena).await;
    for n in runs.keys().chain(left.keys()) {
        assert!(added.certain.contains(n) || added.perhaps.contains(n), "nobody has added job {n}");
    }
    let none = Vec::new();
    let crashes: Vec<&Run> = runs.values().flatten().filter(|run| kind(run.n) == Kind::Crashes).collect();
    let (mut again, mut killed) = (0, 0);
    for n in &added.certain {
        let runs = runs.get(n).unwrap_or(&none);
        match left.get(n) {
            Some(error) => assert!(may_fail(kind(*n), error), "job {n} ({:?}) failed for good: {error}", kind(*n)),
            None => assert!(runs.iter().any(Run::succeeds), "job {n} ({:?}) is lost: {runs:?}", kind(*n)),
        }
        again += done_again(runs, &crashes, &adversary.harm);
        killed += runs.iter().filter(|run| run.ended_us.is_none()).count();
        attempts_rise(runs, &adversary.harm);
        assert!(runs.iter().all(|run| run.stored.is_some() == writes_rows(*n)), "the wrong task ran job {n}: {runs:?}");
    }
    let most = added.certain.len() / DONE_AGAIN_OF;
    assert!(again <= most, "{again} of {} jobs were done again, and at most {most} should be", added.certain.len());
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
    let owners = arena.owners();
    let taken = runs.values().flatten().filter(|run| !belongs_to_its_owner(run, &owners, &adversary.harm)).count();
    let rows = || runs.values().flatten().filter_map(|run| run.stored.as_ref());
    println!(
        "runs in the database: {}; that ended before they began, by its clock: {}; whose job was taken from them before they \
         began, inside the window: {taken}; runs in files: {}",
        rows().count(),
        rows().filter(|stored| stored.ended_before_it_began).count(),
        runs.values().map(Vec::len).sum::<usize>() - rows().count(),
    );
    println!(
        "jobs lost: 0; failed for good by the rules: {}; runs that were killed: {killed}; done again: {again}; at once with \
         another run, inside the window: {of_a_job} of a job, {of_a_queue} of a queue",
        left.len()
    );
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

/// Counts the runs that were repeated although they did well. What they came to must have been lost: something was done to their
/// host about then, or another job took their process down.
fn done_again(runs: &[Run], crashes: &[&Run], harm: &Harms) -> usize {
    let mut again = 0;
    for (place, run) in runs.iter().enumerate().filter(|(place, run)| run.succeeds() && place + 1 < runs.len()) {
        let Some(ended) = run.ended_us else { continue };
        let (from, to) = (run.began_us.saturating_sub(BEFORE_US), ended + STORED_US);
        let crashed = || crashes.iter().any(|crash| crash.slot == run.slot && (from..to).contains(&crash.began_us));
        // The npm package's worker goes by its own rules when it is stopped.
        let lost = run.slot.is_none() || harm.may_have_lost(run.slot, from, to) || crashed();
        assert!(lost, "it was done, and nothing was done to its host: {run:?}, then {:?}, {harm:?}", runs[place + 1]);
        again += 1;
    }
    again
}

/// The same number comes again only where the attempt did not count: it was given back, or its claim never became known. A smaller
/// one comes later only inside the window: a host that was taken for dead and does not know yet begins what it had claimed.
fn attempts_rise(runs: &[Run], harm: &Harms) {
    let most = runs.first().map_or(25, |run| if kind(run.n) == Kind::Hopeless { 1 } else { 25 });
    for run in runs {
        assert!((1..=most).contains(&run.attempt), "{run:?}");
        assert_eq!(run.job, runs[0].job, "a number has one job");
    }
    let ended: Vec<&Run> = runs.iter().filter(|run| run.ended_us.is_some()).collect();
    for two in ended.windows(2).filter(|two| two[0].attempt > two[1].attempt) {
        let inside = harm.was_done_to(two[1].slot, two[1].began_us.saturating_sub(BEFORE_US), two[1].began_us);
        assert!(inside, "attempts went back, and nothing was done to the host of the second: {two:?}, {harm:?}");
    }
}

/// A run that began although its job was somebody else's, by the job's row, must be inside the window. One that did not end may
/// have been given up before its row was written.
fn belongs_to_its_owner(run: &Run, owners: &HashMap<String, usize>, harm: &Harms) -> bool {
    let its_own = run.ended_us.is_none() || run.was_its_owners(owners);
    let inside = || harm.was_done_to(run.slot, run.began_us.saturating_sub(BEFORE_US), run.began_us);
    assert!(
        its_own || inside(),
        "it began although it was not its job, and nothing was done to its host: {run:?}, {harm:?}"
    );
    its_own
}

/// Counts the overlaps, each of which must be inside the window: something was done to the one that began first.
fn one_at_a_time<R: std::borrow::Borrow<Run>>(runs: &[R], harm: &Harms, of: &str) -> usize {
    let mut overlaps = 0;
    for (place, first) in runs.iter().enumerate() {
        let first = first.borrow();
        let Some(ended) = first.ended_us else { continue };
        for second in runs[place + 1..].iter().map(std::borrow::Borrow::borrow).take_while(|run| run.began_us < ended) {
            let inside = harm.was_done_to(first.slot, first.began_us, second.began_us);
            assert!(
                inside,
                "two at once of one {of}, and nothing was done to the first: {first:?} and {second:?}, {harm:?}"
            );
            overlaps += 1;
        }
    }
    overlaps
}
