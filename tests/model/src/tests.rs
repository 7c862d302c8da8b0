//! The model as the code is holds what is promised; with any one of the guards taken out, the checker says what goes wrong.

use stateright::{Checker, HasDiscoveries, Model};

use crate::{Setup, checks};

/// Checks every state, or those up to a discovery, and says which promises were found broken, and by which steps.
fn broken(setup: Setup, threads: usize, until: HasDiscoveries) -> Vec<(&'static str, String)> {
    let about = format!("{setup:?}");
    let checker = setup.checker().threads(threads).finish_when(until).spawn_bfs().join();
    println!("{} states of {about}", checker.unique_state_count());
    let mut broken: Vec<_> = checker
        .discoveries()
        .into_iter()
        .map(|(promise, path)| {
            let steps: Vec<String> = path.into_actions().iter().map(|step| format!("{step:?}")).collect();
            (promise, steps.join(", "))
        })
        .collect();
    broken.sort_unstable();
    broken
}

#[track_caller]
fn holds(setup: Setup) {
    let broken = broken(setup, 2, HasDiscoveries::All);
    assert!(broken.is_empty(), "{broken:#?}");
}

#[track_caller]
fn breaks(setup: Setup, promise: &'static str) {
    // One thread alone finds the shortest way.
    let broken = broken(setup, 1, HasDiscoveries::AllOf([promise].into()));
    let found = broken.iter().find(|(name, _)| *name == promise);
    let (_, steps) =
        found.unwrap_or_else(|| panic!("the checker has not found that {promise:?} is broken: {broken:#?}"));
    println!("{promise}: {steps}");
}

#[test]
fn what_is_promised_holds_in_every_state() {
    holds(Setup::of_the_code());
}

#[test]
fn it_holds_where_more_goes_wrong_for_one_job() {
    holds(Setup { jobs: 1, faults: 3, ..Setup::of_the_code() });
}

#[test]
fn it_holds_for_one_job_among_three_hosts() {
    holds(Setup { hosts: 3, jobs: 1, faults: 2, ..Setup::of_the_code() });
}

#[test]
fn it_holds_without_the_express_lane() {
    holds(Setup { express: false, faults: 2, ..Setup::of_the_code() });
}

#[test]
fn a_result_that_did_not_name_its_attempt_would_end_another_run() {
    let setup = Setup { jobs: 1, faults: 2, fenced_by_attempt: false, fenced_by_time: false, ..Setup::of_the_code() };
    breaks(setup.clone(), checks::OWN_ROWS);
    breaks(setup, checks::ONE_RUN);
}

#[test]
fn it_holds_where_another_server_takes_over_that_lags_behind() {
    let lags = Setup { jobs: 1, failovers: true, ..Setup::of_the_code() };
    holds(lags.clone());
    holds(Setup { hosts: 1, faults: 2, stops: true, ..lags });
}

/// The claim had reached the server that takes over, and the result had not.
#[test]
fn a_host_that_did_not_look_after_it_lost_its_connections_would_leave_a_job_locked() {
    let lags = Setup { jobs: 1, failovers: true, express: false, ..Setup::of_the_code() };
    breaks(Setup { looks_after_reconnects: false, ..lags.clone() }, checks::ENDS);
    breaks(
        Setup { stops: true, faults: 2, looks_before_it_ends: false, looks_after_reconnects: false, ..lags },
        checks::LEFT,
    );
}

/// Nor had the claim, so that the same host begins the same attempt once more, or another job that has the same id.
#[test]
fn a_result_that_did_not_name_the_time_of_its_claim_would_end_another_run() {
    let lags = Setup { jobs: 1, failovers: true, express: false, fenced_by_time: false, ..Setup::of_the_code() };
    breaks(lags.clone(), checks::OWN_ROWS);
    breaks(lags, checks::ONE_RUN);
}

#[test]
fn a_renewed_lock_that_did_not_name_its_claim_would_lose_results() {
    let renews = Setup { jobs: 1, faults: 2, renewals: true, ..Setup::of_the_code() };
    holds(renews.clone());
    breaks(Setup { renewals_name_claims: false, ..renews }, checks::KEPT);
}

/// One host that watches, one that ends, and one that is well.
fn watch() -> Setup {
    Setup { hosts: 3, jobs: 1, faults: 2, express: false, watches: true, ..Setup::of_the_code() }
}

#[test]
fn nobody_is_taken_for_dead_who_was_not_missing_for_long_enough() {
    holds(watch());
}

/// A release that was due released everybody who had no lock at that moment.
#[test]
fn a_release_that_did_not_judge_each_owner_would_take_jobs_from_a_host_that_had_lost_its_connection() {
    breaks(Setup { judges_each_owner: false, ..watch() }, checks::PATIENCE);
}

#[test]
fn a_host_that_did_not_wait_after_an_outage_would_take_jobs_from_those_who_come_back() {
    breaks(Setup { waits_after_outages: false, ..watch() }, checks::PATIENCE);
}

#[test]
fn a_host_that_starts_and_did_not_hear_of_an_outage_would_take_jobs_from_those_who_come_back() {
    breaks(Setup { hears_of_outages: false, ..watch() }, checks::PATIENCE);
}

#[test]
fn a_takeover_without_the_lock_would_release_the_jobs_of_the_living() {
    breaks(Setup { jobs: 1, faults: 2, takeover_holds_lock: false, ..Setup::of_the_code() }, checks::LIVING);
}

#[test]
fn an_unknown_commit_that_was_repeated_blindly_would_end_a_job_that_somebody_else_has() {
    breaks(Setup { jobs: 1, faults: 2, locks_again: false, ..Setup::of_the_code() }, checks::OWN_EXPRESS);
}

/// One host runs a job without knowing that another one has claimed it; that one gives it back, the first one claims it once
/// more, and the attempt has the same number.
#[test]
fn a_run_that_was_not_disowned_would_end_a_later_one_with_the_same_number() {
    breaks(Setup { jobs: 1, faults: 2, disowns: false, ..Setup::of_the_code() }, checks::OWN_ROWS);
}

/// Another host ran the job meanwhile, so that what the batch knows of it is outdated, and what was refused is a new attempt.
/// (What is locked for nobody is looked for since, which makes good for this.)
#[test]
fn a_batch_that_refused_what_it_does_not_have_would_keep_a_job_locked_for_nobody() {
    let setup = Setup { jobs: 1, faults: 2, refuses_by_attempt: false, ..Setup::of_the_code() };
    breaks(Setup { looks_for_unheard: false, ..setup }, checks::ENDS);
}

#[test]
fn it_holds_where_answers_to_claims_and_returns_get_lost() {
    let lost = Setup { claims_get_lost: true, returns_get_lost: true, ..Setup::of_the_code() };
    holds(Setup { jobs: 1, faults: 2, ..lost });
    holds(Setup { express: false, ..lost });
}

/// A claim of the marked lane whose answer is lost while its host lives on has locked jobs of which nobody knows.
#[test]
fn a_claim_that_nobody_looked_for_would_keep_its_jobs_until_the_host_ends() {
    let setup = Setup { jobs: 1, claims_get_lost: true, looks_for_unheard: false, ..Setup::of_the_code() };
    breaks(setup.clone(), checks::ENDS);
    holds(Setup { hosts_are_restarted: true, ..setup });
}

/// If a return was stored without anybody hearing of it, and the same host has claimed the job since, the attempt has the same
/// number once more, and a second return would take the job from under its run.
#[test]
fn a_return_that_was_repeated_would_give_back_what_was_claimed_since() {
    let setup = Setup { jobs: 1, returns_get_lost: true, fenced_by_time: false, ..Setup::of_the_code() };
    breaks(setup, checks::OWN_RETURNS);
}

/// A lock is renewed while its job waits, and any answer may be lost.
#[test]
fn a_host_that_stops_leaves_nothing_locked() {
    let stops = Setup { jobs: 1, faults: 2, renewals: true, stops: true, ..Setup::of_the_code() };
    holds(stops.clone());
    holds(Setup { faults: 3, express: false, claims_get_lost: true, returns_get_lost: true, ..stops });
}

#[test]
fn a_host_that_did_not_look_before_it_ends_would_leave_jobs_locked() {
    let setup = Setup { jobs: 1, faults: 2, stops: true, looks_before_it_ends: false, ..Setup::of_the_code() };
    breaks(Setup { claims_get_lost: true, ..setup }, checks::LEFT);
}

/// A job was taken away from a host and claimed again by it unheard. For as long as the first run goes on, a look takes the job
/// for a known one.
#[test]
fn a_host_that_did_not_look_after_a_late_word_would_leave_a_job_locked() {
    let lost = Setup { jobs: 1, faults: 2, claims_get_lost: true, ..Setup::of_the_code() };
    breaks(Setup { looks_after_late_words: false, ..lost }, checks::ENDS);
}
