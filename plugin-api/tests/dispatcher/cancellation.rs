//! A job is told to stop, is stopped, or ends before either reaches it; each way it ends once.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use taskbay_abi::{CANCEL_ABORT, CANCEL_ASK, STATUS_CANCELLED, STATUS_ERROR, STATUS_OK};
use taskbay_plugin::{prelude::*, private::plugin_header};

use crate::fake_host::{DEADLINE, FakeHost};

#[task]
async fn polite(ctx: Context) -> TaskResult {
    info!("polite began");
    ctx.cancelled().await;
    bail!("stopped as told, {}", ctx.is_cancelled())
}

struct Dropped;

static DROPPED: AtomicBool = AtomicBool::new(false);

impl Drop for Dropped {
    fn drop(&mut self) {
        DROPPED.store(true, Ordering::SeqCst);
        info!("dropped");
    }
}

#[task]
async fn deaf() {
    let _guard = Dropped;
    info!("deaf began");
    std::future::pending::<()>().await;
}

#[task]
fn plain(ctx: Context) -> TaskResult {
    info!("plain began");
    while !ctx.is_cancelled() {
        std::thread::yield_now();
    }
    bail!("plain stopped")
}

#[task]
async fn quick() {}

#[test]
fn a_task_that_is_told_to_stop_ends_as_it_likes() {
    let host = FakeHost::serving(plugin_header!(polite, plain));
    for (task, message) in [("polite", "stopped as told, true"), ("plain", "plain stopped")] {
        let call = host.begin(task, "null");
        host.line(&format!("{task} began"));
        host.cancel(call, CANCEL_ASK);
        let ended = host.outcome(call);
        assert_eq!((ended.status, &*ended.message), (STATUS_ERROR, message));
    }
}

#[test]
fn an_aborted_task_is_dropped_before_its_end_is_reported() {
    let host = FakeHost::serving(plugin_header!(deaf));
    let call = host.begin("deaf", "null");
    host.line("deaf began");
    host.cancel(call, CANCEL_ASK);
    host.cancel(call, CANCEL_ABORT);
    let ended = host.outcome(call);
    assert_eq!((ended.status, &*ended.message), (STATUS_CANCELLED, "the host ended the job"));
    assert!(DROPPED.load(Ordering::SeqCst));
    assert_eq!(host.line("dropped").call, call);
}

#[test]
fn an_abort_does_not_cut_a_plain_task_short() {
    let host = FakeHost::serving(plugin_header!(plain));
    let call = host.begin("plain", "null");
    host.line("plain began");
    host.cancel(call, CANCEL_ABORT);
    let ended = host.outcome(call);
    assert_eq!((ended.status, &*ended.message), (STATUS_ERROR, "plain stopped"));
}

#[test]
fn a_cancellation_that_comes_late_or_for_no_call_does_nothing() {
    let host = FakeHost::serving(plugin_header!(quick));
    let call = host.begin("quick", "null");
    assert_eq!(host.outcome(call).status, STATUS_OK);
    for mode in [CANCEL_ASK, CANCEL_ABORT, 99] {
        host.cancel(call, mode);
        host.cancel(123_456, mode);
    }
    assert_eq!(host.run("quick", "null").status, STATUS_OK);
    assert_eq!(host.shutdown(DEADLINE), 0);
    assert_eq!((host.reports(call), host.reports(123_456)), (1, 0));
}

#[task]
async fn unending() {
    info!("unending began");
    std::future::pending::<()>().await;
}

#[test]
fn a_shutdown_ends_what_runs_and_reports_each_once() {
    let host = FakeHost::serving(plugin_header!(unending, plain));
    let calls = [host.begin("unending", "null"), host.begin("plain", "null")];
    host.line("unending began");
    host.line("plain began");
    assert_eq!(host.shutdown(DEADLINE), 0);
    let ended = host.outcome(calls[0]);
    assert_eq!((ended.status, &*ended.message), (STATUS_CANCELLED, "the plugin was shut down"));
    assert_eq!(host.outcome(calls[1]).message, "plain stopped");
    assert!(calls.iter().all(|call| host.reports(*call) == 1));
}

static LET_GO: AtomicBool = AtomicBool::new(false);

#[task]
fn stuck() {
    info!("stuck began");
    while !LET_GO.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    info!("stuck ends");
}

#[test]
fn a_shutdown_does_not_wait_for_ever_and_says_so() {
    let host = FakeHost::serving(plugin_header!(stuck));
    let call = host.begin("stuck", "null");
    host.line("stuck began");
    assert_eq!(host.shutdown(Duration::from_millis(100)), 1);
    let message = "the plugin was shut down, and the task did not stop";
    assert_eq!((host.outcome(call).status, &*host.outcome(call).message), (STATUS_CANCELLED, message));
    LET_GO.store(true, Ordering::SeqCst);
    host.line("stuck ends");
    assert_eq!(host.reports(call), 1);
}
