//! Jobs begin whatever the jobs before them do with the threads of the plugin, and go on when they have waited.

use std::{
    sync::{Condvar, LazyLock, Mutex},
    time::Duration,
};

use taskbay_abi::STATUS_OK;
use taskbay_plugin::{
    prelude::*,
    private::plugin_header,
    tokio::{
        sync::Barrier,
        task::{block_in_place, yield_now},
    },
};

use crate::fake_host::{DEADLINE, FakeHost};

/// Opened by the job that comes last.
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    const fn new() -> Self {
        Self { open: Mutex::new(false), opened: Condvar::new() }
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn wait(&self) {
        let open = self.open.lock().unwrap();
        let (open, _) = self.opened.wait_timeout_while(open, Duration::from_secs(60), |open| !*open).unwrap();
        assert!(*open, "no later job began");
    }
}

static PLACE: Gate = Gate::new();

#[task]
async fn blocks_in_place() {
    block_in_place(|| PLACE.wait());
}

#[task]
async fn opens_place() {
    PLACE.open();
}

#[test]
fn jobs_that_tell_the_runtime_that_they_block_hold_up_no_other_on_one_thread() {
    let host = FakeHost::serving(plugin_header!(blocks_in_place, opens_place));
    let calls: Vec<u64> = (0..5).map(|_| host.begin("blocks_in_place", "null")).collect();
    assert_eq!(host.run("opens_place", "null").status, STATUS_OK);
    assert!(calls.iter().all(|call| host.outcome(*call).status == STATUS_OK));
    assert_eq!(host.shutdown(DEADLINE), 0);
}

static THREAD: Gate = Gate::new();

#[task]
async fn blocks_its_thread() {
    THREAD.wait();
}

#[task]
async fn opens_thread() {
    THREAD.open();
}

#[test]
fn a_job_that_blocks_its_thread_leaves_the_other_threads_to_the_others() {
    let plugin = plugin_header! { tasks: [blocks_its_thread, opens_thread], worker_threads: 2 };
    let host = FakeHost::serving(plugin);
    let call = host.begin("blocks_its_thread", "null");
    assert_eq!(host.run("opens_thread", "null").status, STATUS_OK);
    assert_eq!(host.outcome(call).status, STATUS_OK);
    assert_eq!(host.shutdown(DEADLINE), 0);
}

static TURNS: Mutex<(usize, usize)> = Mutex::new((0, 0));
static TURN: Condvar = Condvar::new();

#[task]
async fn waits_then_lets_go() {
    yield_now().await;
    TURNS.lock().unwrap().0 += 1;
    TURN.notify_all();
}

/// Keeps its thread until as many of the other kind have ended.
#[task]
async fn blocks_for_the_one_before() {
    let mut turns = TURNS.lock().unwrap();
    turns.1 += 1;
    let wanted = turns.1;
    let (turns, _) = TURN.wait_timeout_while(turns, Duration::from_secs(60), |turns| turns.0 < wanted).unwrap();
    let enough = turns.0 >= wanted;
    drop(turns);
    assert!(enough, "the job before does not go on");
}

#[test]
fn a_job_that_waits_goes_on_while_the_next_one_blocks_the_thread_that_began_both() {
    let plugin = plugin_header! { tasks: [waits_then_lets_go, blocks_for_the_one_before], worker_threads: 2 };
    let host = FakeHost::serving(plugin);
    for round in 0..300 {
        let calls = ["waits_then_lets_go", "blocks_for_the_one_before"].map(|task| host.begin(task, "null"));
        for call in calls {
            assert_eq!(host.outcome(call).status, STATUS_OK, "round {round}: {:?}", host.outcome(call));
        }
    }
    assert_eq!(host.shutdown(DEADLINE), 0);
}

const TOGETHER: usize = 200;
static ALL: LazyLock<Barrier> = LazyLock::new(|| Barrier::new(TOGETHER));

/// Ends when all of them have begun.
#[task]
async fn meets() {
    yield_now().await;
    ALL.wait().await;
}

#[test]
fn jobs_that_wait_go_on_each_by_itself_among_others_that_do_not() {
    let host = FakeHost::serving(plugin_header!(meets, does_nothing));
    let calls: Vec<u64> =
        (0..TOGETHER).flat_map(|_| [host.begin("meets", "null"), host.begin("does_nothing", "null")]).collect();
    assert!(calls.iter().all(|call| host.outcome(*call).status == STATUS_OK));
    assert!(calls.iter().all(|call| host.reports(*call) == 1));
    assert_eq!(host.shutdown(DEADLINE), 0);
}

#[task]
async fn does_nothing() {}
