//! Async tasks that block are named, and the other jobs of their plugin go on meanwhile.

use std::{
    sync::{
        Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use taskbay_abi::{INIT_CALL, LEVEL_WARN, STATUS_OK};
use taskbay_plugin::{
    prelude::*,
    private::plugin_header,
    tokio::{self, time::sleep},
};

use crate::fake_host::{DEADLINE, FakeHost};

/// How many jobs block, and whether they may go on.
struct Door {
    before: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Door {
    const fn new() -> Self {
        Self { before: Mutex::new((0, false)), changed: Condvar::new() }
    }

    fn block(&self) {
        let mut before = self.before.lock().unwrap();
        before.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(before, |(_, open)| !*open).unwrap());
    }

    /// Waits until so many jobs block.
    fn wait_for(&self, jobs: usize) {
        drop(self.changed.wait_while(self.before.lock().unwrap(), |(before, _)| *before < jobs).unwrap());
    }

    fn open(&self) {
        self.before.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

fn warnings(host: &FakeHost) -> Vec<u64> {
    let lines = host.lines();
    lines.iter().filter(|line| line.level == LEVEL_WARN).map(|line| line.call).collect()
}

static ONE: Door = Door::new();
static GO_ON: AtomicBool = AtomicBool::new(false);

#[task]
async fn blocks() {
    ONE.block();
}

/// Waits for a timer of the runtime again and again.
#[task]
async fn waits_in_between() {
    info!("waiting");
    while !GO_ON.load(Ordering::SeqCst) {
        sleep(Duration::from_millis(5)).await;
    }
}

#[task]
async fn quick() {}

#[test]
fn jobs_begin_and_go_on_while_an_async_task_blocks_the_only_thread() {
    let host = FakeHost::serving(plugin_header!(blocks, waits_in_between, quick));
    let waiting: Vec<u64> = (0..5).map(|_| host.begin("waits_in_between", "null")).collect();
    let blocked = host.begin("blocks", "null");
    let others: Vec<u64> = (0..20).map(|_| host.begin("quick", "null")).collect();
    ONE.wait_for(1);
    assert!(others.iter().all(|call| host.outcome(*call).status == STATUS_OK));
    GO_ON.store(true, Ordering::SeqCst);
    assert!(waiting.iter().all(|call| host.outcome(*call).status == STATUS_OK));
    assert_eq!(host.reports(blocked), 0, "it still blocks");

    let line = host.line("blocks its thread");
    assert_eq!((line.call, line.level), (blocked, LEVEL_WARN));
    assert!(line.message.contains("the async task `blocks` of job 42") && line.message.contains("spawn_blocking"));
    ONE.open();
    assert_eq!(host.outcome(blocked).status, STATUS_OK);
    assert_eq!(host.run("quick", "null").status, STATUS_OK);
    assert_eq!(warnings(host), [blocked], "each is named once, and nobody else");
    assert_eq!(host.shutdown(DEADLINE), 0);
}

static MANY: Door = Door::new();

#[task]
async fn blocks_as_well() {
    MANY.block();
}

#[test]
fn as_many_may_block_as_there_are_spare_threads_and_the_next_one_is_named_too() {
    let host = FakeHost::serving(plugin_header!(blocks_as_well, quick));
    let mut blocked: Vec<u64> = (0..4).map(|_| host.begin("blocks_as_well", "null")).collect();
    MANY.wait_for(4);
    assert_eq!(host.run("quick", "null").status, STATUS_OK);
    blocked.push(host.begin("blocks_as_well", "null"));
    let line = host.line("No spare thread is left");
    assert_eq!(line.call, blocked[4]);
    let late = host.begin("quick", "null");
    MANY.open();
    assert_eq!(host.outcome(late).status, STATUS_OK);
    assert!(blocked.iter().all(|call| host.outcome(*call).status == STATUS_OK));
    assert_eq!(warnings(host), blocked);
    assert_eq!(host.shutdown(DEADLINE), 0);
}

static ELSEWHERE: Door = Door::new();

#[task]
async fn blocks_one_of_two() {
    ELSEWHERE.block();
}

#[test]
fn jobs_begin_on_the_thread_that_is_left_whatever_the_blocked_one_was_to_do_next() {
    let plugin = plugin_header! { tasks: [blocks_one_of_two, quick], worker_threads: 2 };
    let host = FakeHost::serving(plugin);
    for _ in 0..50 {
        host.begin("quick", "null");
    }
    let blocked = host.begin("blocks_one_of_two", "null");
    for _ in 0..50 {
        host.begin("quick", "null");
    }
    ELSEWHERE.wait_for(1);
    for _ in 0..50 {
        assert_eq!(host.run("quick", "null").status, STATUS_OK);
    }
    ELSEWHERE.open();
    assert_eq!(host.outcome(blocked).status, STATUS_OK);
    assert_eq!(host.shutdown(DEADLINE), 0);
}

static UNKNOWN: Door = Door::new();

/// What it leaves behind belongs to no job.
#[task]
async fn spawns_what_blocks() {
    tokio::spawn(async { UNKNOWN.block() });
}

#[test]
fn what_a_task_has_spawned_holds_nothing_up_either() {
    let host = FakeHost::serving(plugin_header!(spawns_what_blocks, waits_in_turn, quick));
    assert_eq!(host.run("spawns_what_blocks", "null").status, STATUS_OK);
    UNKNOWN.wait_for(1);
    assert_eq!(host.run("quick", "null").status, STATUS_OK);
    assert_eq!(host.line("have spawned").call, INIT_CALL);
    UNKNOWN.open();
    assert_eq!(host.run("waits_in_turn", "null").status, STATUS_OK);
    assert_eq!(host.shutdown(DEADLINE), 0);
}

#[task]
async fn waits_in_turn() {
    sleep(Duration::from_millis(1)).await;
}

static PLAIN: Door = Door::new();

#[task]
fn blocks_plainly() {
    PLAIN.block();
}

/// Works for longer than a task may block, and lets others have their turn.
#[task]
async fn works_in_turn() {
    for _ in 0..40 {
        thread::sleep(Duration::from_millis(50));
        tokio::task::yield_now().await;
    }
}

#[test]
fn who_blocks_where_that_is_right_or_only_for_a_moment_is_not_named() {
    let host = FakeHost::serving(plugin_header!(blocks_plainly, works_in_turn, quick));
    let plain = host.begin("blocks_plainly", "null");
    PLAIN.wait_for(1);
    assert_eq!(host.run("works_in_turn", "null").status, STATUS_OK);
    PLAIN.open();
    assert_eq!(host.outcome(plain).status, STATUS_OK);
    assert!(warnings(host).is_empty());
    assert_eq!(host.shutdown(DEADLINE), 0);
}
