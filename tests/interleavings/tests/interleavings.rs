//! Whatever the order in which threads come to do what they do, no end of a job stays unwritten, and no job begins on a build
//! that has ended.

use interleavings::{
    Child, ChildSocket,
    task_map::{LiveMap, Order},
};
use shuttle::{
    check_pct, check_random,
    sync::{Arc, Barrier},
    thread,
};

/// The calls of the frames that arrive until there are so many, in their order.
fn calls(socket: &ChildSocket, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < 2 * count {
        bytes.extend(socket.read());
    }
    bytes.chunks(2).map(|frame| frame[1]).collect()
}

/// Where one is missing, the host's end waits for ever, which the checker reports as a deadlock.
fn every_end_arrives(rounds: &[u64], room: usize) {
    let socket = ChildSocket::with_room(room);
    let child = Child::new(&socket);
    let total: u64 = rounds.iter().sum();
    let host = thread::spawn(move || calls(&socket, total as usize));
    let jobs = child.work(rounds, None);
    let mut arrived = host.join().expect("the host's end does not panic");
    arrived.sort_unstable();
    assert_eq!(arrived, (1..=total as u8).collect::<Vec<_>>());
    for job in jobs {
        job.join().expect("a job's thread does not panic");
    }
}

#[test]
fn no_end_of_a_job_stays_unwritten() {
    for room in [3, 64] {
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
            let socket = ChildSocket::with_room(64);
            let child = Child::new(&socket);
            let total = rounds.iter().sum::<u64>() as usize;
            let may_end = Arc::new(Barrier::new(2));
            let host = {
                let may_end = Arc::clone(&may_end);
                thread::spawn(move || {
                    assert!(!calls(&socket, total - 1).contains(&1));
                    may_end.wait();
                    assert_eq!(calls(&socket, 1), [1]);
                })
            };
            let jobs = child.work(rounds, Some(may_end));
            for thread in jobs.into_iter().chain([host]) {
                thread.join().expect("a thread does not panic");
            }
        }
    };
    for rounds in [&[2][..], &[3], &[1, 2], &[2, 1]] {
        check_random(runs_on(rounds), 2_000);
    }
}

#[test]
fn what_one_thread_says_arrives_in_its_order_and_before_a_flush_returns() {
    let said = || {
        let socket = ChildSocket::with_room(5);
        let child = Child::new(&socket);
        let host = {
            let socket = socket.clone();
            thread::spawn(move || calls(&socket, 6))
        };
        let jobs = child.work(&[2], None);
        let other = {
            let child = child.clone();
            thread::spawn(move || [11, 12].iter().for_each(|call| child.log(*call)))
        };
        [21, 22].iter().for_each(|call| child.log(*call));
        let arrived = host.join().expect("the host's end does not panic");
        for sender in [10, 20] {
            let of_sender: Vec<u8> =
                arrived.iter().copied().filter(|call| (sender..sender + 10).contains(call)).collect();
            assert_eq!(of_sender, [sender + 1, sender + 2]);
        }
        other.join().expect("a thread does not panic");
        for job in jobs {
            job.join().expect("a job's thread does not panic");
        }
        child.log(99);
        child.flush();
        assert_eq!(socket.arrived(), 2, "it is written when the flush returns");
    };
    check_random(said, 3_000);
}

#[test]
fn a_job_begins_on_a_build_that_lives_or_sees_that_it_takes_no_more() {
    let swap = |order| {
        move || {
            let map = Arc::new(LiveMap::new());
            let slots: Vec<_> = (0..2)
                .map(|_| {
                    let map = Arc::clone(&map);
                    thread::spawn(move || map.perform(order))
                })
                .collect();
            map.publish(Arc::default()).retire();
            for slot in slots {
                assert!(slot.join().expect("a slot does not panic"), "the build in force takes it");
            }
        }
    };
    check_random(swap(Order::TokenFirst), 20_000);
    check_pct(swap(Order::TokenFirst), 5_000, 3);
    // The checker is to see what would go wrong if it did.
    let wrong = std::panic::catch_unwind(|| check_random(swap(Order::LookFirst), 20_000));
    assert!(wrong.is_err(), "a job that looks before it counts itself in begins on a build that has ended");
}
