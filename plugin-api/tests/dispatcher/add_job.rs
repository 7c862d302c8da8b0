//! Tasks add jobs, and the host's answers come early, late, twice or not at all.

use std::time::Duration;

use taskbay_abi::{STATUS_ERROR, STATUS_OK};
use taskbay_plugin::{
    prelude::*,
    private::plugin_header,
    serde_json::Value,
    tokio::{self, task::block_in_place},
};

use crate::fake_host::{DEADLINE, FakeHost, deliver};

#[derive(Serialize)]
struct Mail<'a> {
    to: &'a str,
}

#[task]
async fn add(ctx: Context) -> TaskResult {
    let id = ctx.add_job("send_email", &Mail { to: "ada@example.org" }).await?;
    bail!("added {id}")
}

#[task]
async fn add_with_all(ctx: Context, payload: Box<RawJson>) -> TaskResult {
    let due = std::time::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_001);
    let job = ctx.add_job("mail/send", &payload).queue("mail").run_at(due).priority(-2).max_attempts(3);
    job.key("mail:1").key_mode(KeyMode::PreserveRunAt).flag("slow").flag("big").await?;
    Ok(())
}

#[task]
fn add_plain(ctx: Context) -> TaskResult {
    let id = ctx.add_job("send_email", &json!([1, 2])).wait()?;
    bail!("added {id}")
}

#[task]
async fn add_by_waiting(ctx: Context) -> TaskResult {
    ctx.add_job("send_email", &json!([1, 2])).wait()?;
    Ok(())
}

#[task]
async fn add_many_by_waiting(ctx: Context) -> TaskResult {
    ctx.add_jobs([ctx.add_job("send_email", &1), ctx.add_job("send_email", &2)]).wait()?;
    Ok(())
}

/// As tokio wants it done.
#[task]
async fn add_in_place(ctx: Context) -> TaskResult {
    let id = block_in_place(|| ctx.add_job("send_email", &json!([1, 2])).wait())?;
    bail!("added {id}")
}

/// A plain task may have a runtime of its own, whose code must not be blocked either.
#[task]
fn add_by_waiting_within(ctx: Context) -> TaskResult {
    tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
        ctx.add_job("send_email", &json!([1, 2])).wait()?;
        Ok(())
    })
}

#[task]
async fn add_impossible(ctx: Context) -> TaskResult {
    let not_json = std::collections::BTreeMap::from([((1, 2), 3)]);
    ctx.add_job("send_email", &not_json).await?;
    Ok(())
}

#[test]
fn an_answer_that_comes_before_the_request_has_returned_is_taken() {
    let host = FakeHost::serving(plugin_header!(add, add_plain));
    host.answer_at_once(|spec, reply| {
        assert!(spec.contains("send_email"));
        deliver(reply, STATUS_OK, None, Some("77"));
        deliver(reply, STATUS_OK, None, Some("78"));
    });
    assert_eq!(host.run("add", "null").message, "added 77");
    assert_eq!(host.run("add_plain", "null").message, "added 77");
}

#[test]
fn an_async_task_that_waits_instead_of_awaiting_is_told_so_and_adds_nothing() {
    let host = FakeHost::serving(plugin_header!(
        add_by_waiting,
        add_many_by_waiting,
        add_by_waiting_within,
        add_in_place,
        add_plain
    ));
    host.answer_at_once(|_, reply| deliver(reply, STATUS_OK, None, Some("77")));
    for (task, what) in [
        ("add_by_waiting", "a job for `send_email`"),
        ("add_many_by_waiting", "2 jobs"),
        ("add_by_waiting_within", "a job for `send_email`"),
    ] {
        let ended = host.run(task, "null");
        let expected =
            format!("cannot add {what}: `.wait()` would block the thread of an async task; write `.await` instead");
        assert_eq!((ended.status, ended.message), (STATUS_ERROR, expected), "{task}");
    }
    assert_eq!(host.requests(), 0);
    assert_eq!(host.lines(), [], "nothing is said of a panic");
    for task in ["add_plain", "add_in_place"] {
        assert_eq!(host.run(task, "null").message, "added 77", "{task}");
    }
}

#[test]
fn an_answer_from_another_thread_is_taken_and_a_second_one_is_not() {
    let host = FakeHost::serving(plugin_header!(add, add_plain));
    for task in ["add", "add_plain"] {
        let call = host.begin(task, "null");
        let (_, reply) = host.request();
        let thread = std::thread::spawn(move || deliver(reply, STATUS_OK, None, Some("5")));
        assert_eq!(host.outcome(call).message, "added 5");
        thread.join().unwrap();
        deliver(reply, STATUS_OK, None, Some("6"));
    }
    assert_eq!(host.shutdown(DEADLINE), 0);
}

#[test]
fn an_answer_for_a_task_that_is_gone_does_nothing() {
    let host = FakeHost::serving(plugin_header!(add));
    let call = host.begin("add", "null");
    let (_, reply) = host.request();
    host.cancel(call, taskbay_abi::CANCEL_ABORT);
    host.outcome(call);
    deliver(reply, STATUS_OK, None, Some("5"));
    assert_eq!(host.shutdown(DEADLINE), 0);
    deliver(reply, STATUS_OK, None, Some("5"));
}

#[test]
fn a_refusal_is_the_tasks_error() {
    let host = FakeHost::serving(plugin_header!(add, add_plain, add_impossible));
    host.answer_at_once(|_, reply| deliver(reply, STATUS_ERROR, Some("the database is gone"), None));
    for task in ["add", "add_plain"] {
        assert_eq!(host.run(task, "null").message, "cannot add a job for `send_email`: the database is gone");
    }
    let message = host.run("add_impossible", "null").message;
    assert!(message.starts_with("cannot write the payload of the new job `send_email` as JSON: key must be a string"));
}

#[test]
fn everything_about_the_new_job_reaches_the_host() {
    let host = FakeHost::serving(plugin_header!(add, add_with_all));
    host.begin("add", "null");
    let (spec, _) = host.request();
    assert_eq!(spec, json!({ "identifier": "send_email", "payload": { "to": "ada@example.org" } }));

    host.begin("add_with_all", r#"{"n": 9007199254740993}"#);
    let (spec, _) = host.request();
    let expected: Value = json!({
        "identifier": "mail/send",
        "payload": { "n": 9_007_199_254_740_993_u64 },
        "queue_name": "mail",
        "run_at": 1_700_000_000_000_001_u64,
        "max_attempts": 3,
        "job_key": "mail:1",
        "job_key_mode": "preserve_run_at",
        "priority": -2,
        "flags": ["slow", "big"],
    });
    assert_eq!(spec, expected);
    let known = taskbay_abi::ADD_JOB_SPEC;
    assert!(spec.as_object().unwrap().keys().all(|field| known.contains(&field.as_str())));
    assert_eq!(spec.as_object().unwrap().len(), known.len());
}

#[task]
async fn add_many(ctx: Context, tasks: Vec<String>) -> TaskResult {
    let jobs = tasks.iter().map(|task| NewJob::new(task, &json!({ "of": task })).priority(3));
    let ids = ctx.add_jobs(jobs).await?;
    bail!("added {ids:?}")
}

#[task]
fn add_many_plain(ctx: Context, tasks: Vec<String>) -> TaskResult {
    let jobs: Vec<NewJob> = tasks.iter().map(|task| NewJob::new(task, &())).collect();
    bail!("added {:?}", ctx.add_jobs(jobs).wait()?)
}

#[task]
async fn add_many_impossible(ctx: Context) -> TaskResult {
    let not_json = std::collections::BTreeMap::from([((1, 2), 3)]);
    ctx.add_jobs([ctx.add_job("good", &1), ctx.add_job("bad", &not_json)]).await?;
    Ok(())
}

#[test]
fn many_jobs_are_asked_for_at_once_and_their_ids_come_back_in_order() {
    let host = FakeHost::serving(plugin_header!(add_many, add_many_plain, add_many_impossible));
    host.answer_at_once(|_, reply| deliver(reply, STATUS_OK, None, Some("[12, 11]")));
    assert_eq!(host.run("add_many", r#"["b", "a"]"#).message, "added [12, 11]");
    let (spec, _) = host.request();
    assert_eq!(
        spec,
        json!([
            { "identifier": "b", "payload": { "of": "b" }, "priority": 3 },
            { "identifier": "a", "payload": { "of": "a" }, "priority": 3 },
        ])
    );
    assert_eq!(host.run("add_many_plain", r#"["b", "a"]"#).message, "added [12, 11]");
    assert_eq!(
        host.request().0,
        json!([{ "identifier": "b", "payload": null }, { "identifier": "a", "payload": null }])
    );
    let message = host.run("add_many_impossible", "null").message;
    assert!(message.starts_with("cannot write the payload of the new job `bad` as JSON"), "{message}");
}

#[test]
fn no_jobs_are_added_without_asking_and_refusals_and_nonsense_are_errors() {
    let host = FakeHost::serving(plugin_header!(add_many, add_many_plain));
    for task in ["add_many", "add_many_plain"] {
        // Nobody would answer.
        assert_eq!(host.run(task, "[]").message, "added []");
    }
    host.answer_at_once(|_, reply| deliver(reply, STATUS_ERROR, Some("the database is gone"), None));
    assert_eq!(host.run("add_many", r#"["b", "a"]"#).message, "cannot add 2 jobs: the database is gone");
    host.answer_at_once(|_, reply| deliver(reply, STATUS_OK, None, Some("7")));
    let message = host.run("add_many_plain", r#"["b", "a"]"#).message;
    assert_eq!(message, "cannot add 2 jobs: the host answered 7 instead of an id");
}
