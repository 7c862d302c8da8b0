//! A claimer's decision: claim now, by which lane and how many, or wait. It depends on nothing but its arguments, and the table
//! at the end specifies it.

use std::time::{Duration, Instant};

use super::{State, refetch::Refetch};
use crate::{config::LocalQueue, work::speed::Pace};

/// The most jobs that one statement claims or completes.
pub(in crate::work) const LARGEST_BATCH: usize = 1_000;
/// The limit of a marked claim where the express lane suits.
const PROBE: usize = 100;
/// The most marked jobs that wait for a slot.
const MOST_AHEAD: usize = 4 * LARGEST_BATCH;
/// One claim in this many is marked although the express lane suits: it sees the jobs in queues, too. Where a task could end
/// this process, all of that claim's jobs are marked, so that a job that kills the process uses up its attempts. (A process that
/// was started anew marks its first jobs in any case.)
const MARKED_TURN: usize = 16;

/// One of the two claimers of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::work) enum Role {
    Primary,
    /// Claims while the backlog is deep, or a transaction keeps the primary claimer busy.
    Overflow,
}

/// How jobs are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::work) enum Lane {
    /// Marked by one statement, deleted by a later one.
    Marked,
    /// Locked and deleted in one transaction.
    Express,
}

/// A claim to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::work) struct Claim {
    pub(in crate::work) lane: Lane,
    pub(in crate::work) limit: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::work) enum Decision {
    Claim(Claim),
    /// Until then, or `None`: until an event.
    Wait(Option<Instant>),
}

/// What the settings say of it.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) slots: usize,
    /// The express lane is allowed.
    pub(super) express: bool,
    pub(super) local_queue: Option<LocalQueue>,
    pub(super) poll_interval: Duration,
}

/// The pool at one moment.
#[derive(Debug, Clone, Copy)]
pub(in crate::work) struct Snapshot {
    pub(in crate::work) now: Instant,
    /// Others can see that the pool lives, it is not stopping, and the database takes its results.
    pub(in crate::work) may_claim: bool,
    /// Slots that run a job.
    pub(in crate::work) running: usize,
    /// Jobs that wait for a slot.
    pub(in crate::work) waiting: usize,
    pub(in crate::work) pace: Pace,
    /// The ids of the current map's tasks are known.
    pub(in crate::work) knows_task_ids: bool,
    /// A task runs in this process and could end it.
    pub(in crate::work) runs_tasks_itself: bool,
}

pub(super) fn decide(rules: &Rules, state: &State, seen: &Snapshot, role: Role) -> Decision {
    let lane = lane(rules, state);
    match limit(rules, state, seen, role, lane) {
        0 => Decision::Wait(wait_until(rules, state, seen)),
        limit => Decision::Claim(Claim { lane, limit }),
    }
}

/// By express, unless that is switched off, or most of the jobs that were claimed last could not have taken it.
fn lane(rules: &Rules, state: &State) -> Lane {
    let marked_turn = state.marked_next || state.express_claims >= MARKED_TURN - 1;
    if suits_express(rules, state) && !marked_turn { Lane::Express } else { Lane::Marked }
}

fn suits_express(rules: &Rules, state: &State) -> bool {
    rules.express && rules.local_queue.is_none() && state.prefers_express
}

/// How many jobs to claim; zero: none now.
fn limit(rules: &Rules, state: &State, seen: &Snapshot, role: Role, lane: Lane) -> usize {
    if !seen.may_claim || !state.poll {
        return 0;
    }
    // The primary claimer asks for the ids of a new map's tasks.
    if role == Role::Overflow && !(state.overflow_called && seen.knows_task_ids) {
        return 0;
    }
    let free = rules.slots.saturating_sub(seen.running);
    if free == 0 && state.resting {
        return 0;
    }
    let held = seen.waiting + state.asked;
    if let Some(queue) = &rules.local_queue {
        let waits = held >= free.max(1) || refetch_at(state, seen).is_some();
        return if waits { 0 } else { queue.size.max(free).min(MOST_AHEAD) };
    }
    match lane {
        Lane::Marked => {
            let ahead = ahead(rules, seen.pace);
            // A claim in between is to cost the express lane little.
            let probe = suits_express(rules, state) && !seen.runs_tasks_itself;
            let most = if probe { PROBE } else { LARGEST_BATCH };
            let enough = held > free && held > ahead / 2;
            if enough && !probe { 0 } else { (free + ahead).saturating_sub(held).min(most) }
        }
        // One batch runs while another one is stored and claimed.
        Lane::Express => {
            let batch = seen.pace.in_one_transaction(rules.slots).min(LARGEST_BATCH);
            if held > batch { 0 } else { batch }
        }
    }
}

/// When so few jobs wait for a slot, there is room for more.
pub(super) fn low_water(rules: &Rules, state: &State, pace: Pace) -> usize {
    match lane(rules, state) {
        Lane::Marked if rules.local_queue.is_none() => ahead(rules, pace) / 2,
        Lane::Marked | Lane::Express => 0,
    }
}

fn ahead(rules: &Rules, pace: Pace) -> usize {
    pace.ahead(rules.slots).min(MOST_AHEAD)
}

/// When the next claim is due although nothing happens.
fn wait_until(rules: &Rules, state: &State, seen: &Snapshot) -> Option<Instant> {
    if !seen.may_claim {
        return None;
    }
    let poll = (!state.poll).then(|| poll_at(rules, state));
    poll.into_iter().chain(refetch_at(state, seen)).min()
}

pub(super) fn poll_at(rules: &Rules, state: &State) -> Instant {
    let poll = state.last_claim + rules.poll_interval;
    state.again_at.map_or(poll, |again| again.min(poll))
}

fn refetch_at(state: &State, seen: &Snapshot) -> Option<Instant> {
    state.refetch.as_ref().map(Refetch::until).filter(|until| *until > seen.now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOTS: usize = 10;
    const POLL: Duration = Duration::from_secs(2);

    /// Ten slots end 1,000 of these within the time that is claimed ahead, and 100 in one transaction.
    fn fast() -> Pace {
        Pace::of(Duration::from_millis(1))
    }

    /// And so many of these: none.
    fn slow() -> Pace {
        Pace::of(Duration::from_secs(60))
    }

    fn rules() -> Rules {
        Rules { slots: SLOTS, express: true, local_queue: None, poll_interval: POLL }
    }

    fn with_local_queue(size: usize) -> Rules {
        Rules { local_queue: Some(LocalQueue { size, ttl: POLL, refetch: None }), ..rules() }
    }

    struct Case {
        rules: Rules,
        state: State,
        seen: Snapshot,
        role: Role,
    }

    /// There may be jobs, all slots are free, and the primary claimer decides.
    fn case() -> Case {
        let now = Instant::now();
        let seen = Snapshot {
            now,
            may_claim: true,
            running: 0,
            waiting: 0,
            pace: fast(),
            knows_task_ids: true,
            runs_tasks_itself: false,
        };
        Case { rules: rules(), state: State { poll: true, ..State::new(now) }, seen, role: Role::Primary }
    }

    /// The same where the jobs of the last claim were short.
    fn express() -> Case {
        let mut case = case();
        case.state.prefers_express = true;
        case
    }

    fn changed(mut case: Case, change: impl FnOnce(&mut Case)) -> Case {
        change(&mut case);
        case
    }

    #[test]
    fn each_situation_has_its_decision() {
        let marked = |limit| Decision::Claim(Claim { lane: Lane::Marked, limit });
        let by_express = |limit| Decision::Claim(Claim { lane: Lane::Express, limit });
        let for_an_event = Decision::Wait(None);
        let table = [
            // How many.
            (
                "before anything is known, what can start at once",
                changed(case(), |c| c.seen.pace = Pace::default()),
                marked(10),
            ),
            (
                "slow jobs: what can start at once",
                changed(case(), |c| (c.seen.pace, c.seen.running) = (slow(), 7)),
                marked(3),
            ),
            ("fast jobs: what is done within 100 ms, at most a batch", case(), marked(1_000)),
            ("less what waits already", changed(case(), |c| c.seen.waiting = 400), marked(610)),
            ("and what another claim asks for", changed(case(), |c| c.state.asked = 400), marked(610)),
            ("none while half of that waits", changed(case(), |c| c.seen.waiting = 501), for_an_event),
            (
                "none for slow jobs while all slots run",
                changed(case(), |c| (c.seen.pace, c.seen.running) = (slow(), 10)),
                for_an_event,
            ),
            // By which lane.
            ("short jobs: a transaction of 10 ms", express(), by_express(100)),
            ("a second one while the first one runs", changed(express(), |c| c.seen.waiting = 100), by_express(100)),
            ("and no third", changed(express(), |c| c.seen.waiting = 101), for_an_event),
            ("express is switched off", changed(express(), |c| c.rules.express = false), marked(1_000)),
            ("a job in a queue may be free", changed(express(), |c| c.state.marked_next = true), marked(100)),
            (
                "every sixteenth claim is marked, and small",
                changed(express(), |c| c.state.express_claims = 15),
                marked(100),
            ),
            (
                "as large as others where tasks could end the process",
                changed(express(), |c| (c.state.express_claims, c.seen.runs_tasks_itself) = (15, true)),
                marked(1_000),
            ),
            (
                "a marked claim between others is made however much waits",
                changed(express(), |c| (c.state.marked_next, c.seen.waiting) = (true, 600)),
                marked(100),
            ),
            // Whether at all.
            ("the pool may not claim", changed(case(), |c| c.seen.may_claim = false), for_an_event),
            (
                "jobs went back for want of a slot, and none is free",
                changed(case(), |c| (c.state.resting, c.seen.running) = (true, 10)),
                for_an_event,
            ),
            ("they did, and one is", changed(case(), |c| (c.state.resting, c.seen.running) = (true, 9)), marked(1_000)),
            // The overflow claimer.
            ("nobody has called it", changed(case(), |c| c.role = Role::Overflow), for_an_event),
            (
                "it was called",
                changed(case(), |c| (c.role, c.state.overflow_called) = (Role::Overflow, true)),
                marked(1_000),
            ),
            (
                "the primary claimer asks for ids first",
                changed(case(), |c| {
                    (c.role, c.state.overflow_called, c.seen.knows_task_ids) = (Role::Overflow, true, false)
                }),
                for_an_event,
            ),
            ("and does so with a claim", changed(case(), |c| c.seen.knows_task_ids = false), marked(1_000)),
            // graphile-worker's local queue.
            ("a local queue: its size, marked", changed(express(), |c| c.rules = with_local_queue(300)), marked(300)),
            ("at least what can start", changed(case(), |c| c.rules = with_local_queue(3)), marked(10)),
            (
                "none while jobs wait for all free slots",
                changed(case(), |c| (c.rules, c.seen.waiting) = (with_local_queue(300), 10)),
                for_an_event,
            ),
        ];
        for (situation, Case { rules, state, seen, role }, expected) in table {
            assert_eq!(decide(&rules, &state, &seen, role), expected, "{situation}");
        }
    }

    #[test]
    fn a_pool_without_news_polls_after_the_interval_or_sooner_where_its_last_claim_did_not_see_all() {
        let Case { rules, mut state, seen, role } = changed(case(), |c| c.state.poll = false);
        assert_eq!(decide(&rules, &state, &seen, role), Decision::Wait(Some(seen.now + POLL)));
        state.again_at = Some(seen.now + POLL / 2);
        assert_eq!(decide(&rules, &state, &seen, role), Decision::Wait(Some(seen.now + POLL / 2)));
        state.again_at = Some(seen.now + 2 * POLL);
        assert_eq!(decide(&rules, &state, &seen, role), Decision::Wait(Some(seen.now + POLL)));
    }

    #[test]
    fn after_few_jobs_a_local_queue_waits_for_more_of_them() {
        let settings = crate::config::Refetch { delay: POLL, threshold: 5, max_abort_threshold: 10 };
        let Case { rules, mut state, mut seen, role } = changed(case(), |c| c.rules = with_local_queue(300));
        state.refetch = Refetch::after(2, false, &settings, seen.now);
        let until = state.refetch.as_ref().map(Refetch::until);
        assert_eq!(decide(&rules, &state, &seen, role), Decision::Wait(until));
        seen.now += 2 * POLL;
        assert_eq!(decide(&rules, &state, &seen, role), Decision::Claim(Claim { lane: Lane::Marked, limit: 300 }));
    }
}
