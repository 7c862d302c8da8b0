//! Whatever the order in which threads come to do what they do, no end of a job stays unwritten or unheard, and no job begins
//! on a build that has ended.

use interleavings::{Child, Folder, Generation, JobEnd, Line, Stop, socket_pair};
use shuttle::{
    check_pct, check_random,
    sync::{Arc, Barrier, Mutex},
    thread::{self, JoinHandle},
};

/// Room for a frame and a bit, so that some are written in two.
const LITTLE: usize = 12;
/// Room for all that a test says.
const ENOUGH: usize = 500;

fn join<T>(thread: JoinHandle<T>) -> T {
    thread.join().expect("it does not panic")
}

/// Where one is missing, the host's end waits for ever, which the checker reports as a deadlock.
fn every_end_arrives(rounds: &[u64], room: usize) {
    let (host, socket) = socket_pair(room);
    let child = Child::new(&socket);
    let total: u64 = rounds.iter().sum();
    let host = thread::spawn(move || host.calls(total as usize));
    let jobs = child.work(rounds, None);
    let mut arrived = join(host);
    arrived.sort_unstable();
    assert_eq!(arrived, (1..=total).collect::<Vec<_>>());
    jobs.into_iter().for_each(join);
}

#[test]
fn no_end_of_a_job_stays_unwritten() {
    for room in [LITTLE, ENOUGH] {
        for rounds in [&[1][..], &[2], &[3], &[1, 2], &[2, 1, 1]] {
            check_random(move || every_end_arrives(rounds, room), 1_500);
            check_pct(move || every_end_arrives(rounds, room), 500, 3);
        }
    }
}

#[test]
fn no_end_of_a_job_waits_for_that_of_one_that_runs_on() {
    let runs_on = |rounds: &'static [u64]| {
        move || {
            let (host, socket) = socket_pair(ENOUGH);
            let child = Child::new(&socket);
            let total = rounds.iter().sum::<u64>() as usize;
            let may_end = Arc::new(Barrier::new(2));
            let host = {
                let may_end = Arc::clone(&may_end);
                thread::spawn(move || {
                    assert!(!host.calls(total - 1).contains(&1));
                    may_end.wait();
                    assert_eq!(host.calls(1), [1]);
                })
            };
            let jobs = child.work(rounds, Some(may_end));
            jobs.into_iter().chain([host]).for_each(join);
        }
    };
    for rounds in [&[2][..], &[3], &[1, 2], &[2, 1]] {
        check_random(runs_on(rounds), 2_000);
    }
}

#[test]
fn what_one_thread_says_arrives_in_its_order_and_before_a_flush_returns() {
    let said = || {
        let (host, socket) = socket_pair(LITTLE);
        let child = Child::new(&socket);
        let reading = {
            let host = host.clone();
            thread::spawn(move || host.calls(6))
        };
        let jobs = child.work(&[2], None);
        let other = {
            let child = child.clone();
            thread::spawn(move || [11, 12].iter().for_each(|call| child.log(*call)))
        };
        [21, 22].iter().for_each(|call| child.log(*call));
        let arrived = join(reading);
        for sender in [10, 20] {
            let of_sender: Vec<u64> =
                arrived.iter().copied().filter(|call| (sender..sender + 10).contains(call)).collect();
            assert_eq!(of_sender, [sender + 1, sender + 2]);
        }
        jobs.into_iter().chain([other]).for_each(join);
        child.log(99);
        child.flush();
        assert_eq!(host.arrived(), 9, "it is written when the flush returns");
    };
    check_random(said, 3_000);
}

/// Jobs go to a process and come to their end; meanwhile, `harm` is done.
fn jobs_come_to_their_end(room: usize, harm: impl FnOnce(&Child)) -> Vec<JobEnd> {
    let (host, socket) = socket_pair(room);
    let child = Child::new(&socket);
    child.serve();
    let line = Line::open(host);
    let slots: Vec<_> = (0..3)
        .map(|_| {
            let line = line.clone();
            thread::spawn(move || line.run(&Stop::default()))
        })
        .collect();
    harm(&child);
    slots.into_iter().map(join).collect()
}

#[test]
fn every_job_that_a_process_gets_ends_once_for_the_host() {
    for room in [LITTLE, ENOUGH] {
        let jobs = move || assert_eq!(jobs_come_to_their_end(room, |_| ()), [JobEnd::Reported; 3]);
        check_random(jobs, 3_000);
        check_pct(jobs, 1_000, 3);
    }
}

#[test]
fn no_job_waits_for_a_process_that_is_gone() {
    for room in [LITTLE, ENOUGH] {
        let seen = Arc::new(std::sync::Mutex::new(std::collections::HashSet::new()));
        let ends = Arc::clone(&seen);
        let jobs = move || {
            let ends_now = jobs_come_to_their_end(room, Child::die);
            assert!(!ends_now.contains(&JobEnd::Stopped));
            ends.lock().unwrap().extend(ends_now);
        };
        check_random(jobs.clone(), 3_000);
        check_pct(jobs, 1_000, 3);
        assert_eq!(seen.lock().unwrap().len(), 3, "some ended, some crashed, some did not begin: {seen:?}");
    }
}

#[test]
fn no_job_misses_the_word_to_stop_and_those_after_it_do_not_hear_it() {
    let stopped = |served: bool| {
        move || {
            let (host, socket) = socket_pair(LITTLE);
            let child = Child::new(&socket);
            if served {
                child.serve();
            }
            let (line, stop) = (Line::open(host), Stop::default());
            let slots: Vec<_> = (0..2)
                .map(|_| {
                    let (line, stop) = (line.clone(), stop.clone());
                    thread::spawn(move || {
                        let end = line.run(&stop);
                        assert!(end == JobEnd::Stopped || (served && end == JobEnd::Reported));
                        if served {
                            assert_eq!(line.run(&Stop::default()), JobEnd::Reported);
                        }
                    })
                })
                .collect();
            stop.give();
            slots.into_iter().for_each(join);
        }
    };
    for served in [true, false] {
        check_random(stopped(served), 4_000);
        check_pct(stopped(served), 2_000, 3);
    }
}

#[test]
fn a_job_is_run_by_a_build_that_lives_however_often_that_is_replaced() {
    let swaps = || {
        let folder = Arc::new(Folder::default());
        folder.serve("file", &Generation::of("task"));
        let slots: Vec<_> = (0..2)
            .map(|_| {
                let folder = Arc::clone(&folder);
                thread::spawn(move || folder.run("task"))
            })
            .collect();
        for _ in 0..2 {
            folder.serve("file", &Generation::of("task")).expect("there was one").retire();
        }
        slots.into_iter().for_each(|slot| assert_eq!(join(slot), Ok(())));
    };
    check_random(swaps, 10_000);
    check_pct(swaps, 5_000, 3);
}

#[test]
fn a_build_whose_process_is_gone_is_in_the_map_again_once_that_is_back() {
    let crash = || {
        let folder = Arc::new(Folder::default());
        let build = Generation::of("task");
        folder.serve("file", &build);
        let slot = {
            let folder = Arc::clone(&folder);
            thread::spawn(move || folder.run("task"))
        };
        let crashing = {
            let (folder, build) = (Arc::clone(&folder), Arc::clone(&build));
            thread::spawn(move || {
                for serves in [false, true] {
                    build.serves(serves);
                    folder.look_again();
                }
            })
        };
        // Another file's change has the reloader look, too.
        folder.serve("other", &Generation::of("another task"));
        join(crashing);
        assert!([Ok(()), Err("no plugin has this task any more")].contains(&join(slot)));
        assert_eq!(folder.run("task"), Ok(()));
        assert_eq!(folder.run("another task"), Ok(()));
    };
    check_random(crash, 5_000);
}

#[test]
fn whoever_follows_the_maps_sees_each_one_that_it_is_told_of_and_hears_of_the_last() {
    let publish = || {
        let folder = Arc::new(Folder::default());
        let follower = {
            let folder = Arc::clone(&folder);
            thread::spawn(move || folder.follow(4))
        };
        let numbers = Arc::new(Mutex::new(Vec::new()));
        let publishers: Vec<_> = (0..2)
            .map(|_| {
                let (folder, numbers) = (Arc::clone(&folder), Arc::clone(&numbers));
                thread::spawn(move || {
                    for _ in 0..2 {
                        let number = folder.publish();
                        numbers.lock().unwrap().push(number);
                    }
                })
            })
            .collect();
        publishers.into_iter().chain([follower]).for_each(join);
        let mut numbers = numbers.lock().unwrap().clone();
        numbers.sort_unstable();
        assert_eq!(numbers, [1, 2, 3, 4], "no two maps have one number");
    };
    check_random(publish, 5_000);
    check_pct(publish, 2_000, 3);
}
