//! What is stored, once, also when the database is away or does not take it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use taskbay::events::{Event, RefusedTick};

use super::{Setup, at, eventually};
use crate::harness::{postgres::TestDatabase, program::Taskbay};

/// Makes the database refuse the jobs of a task, as a constraint of the application may.
async fn refuse(database: &TestDatabase, task: &str) {
    let sql = format!(
        "create function public.refuse() returns trigger language plpgsql as $$
         begin
           if (select identifier from graphile_worker._private_tasks where id = new.task_id) = '{task}' then
             raise exception 'no such jobs here';
           end if;
           return new;
         end $$;
         create trigger refuse before insert on graphile_worker._private_jobs
         for each row execute function public.refuse()"
    );
    database.execute(&sql).await;
}

#[tokio::test]
async fn a_job_is_made_as_its_line_says() {
    let database = TestDatabase::installed().await;
    let crontab = r#"0 4 * * * mail ?id=early&max=3&queue=q&priority=-5&jobKey=k {n: 1, _cron: "mine", "größe": [1]}"#;
    let mut host = Setup::at("2021-01-01T03:59:30Z").crontab(crontab).start(&database).await;
    host.clock.set("2021-01-01T04:00:00Z");
    host.scheduled("2021-01-01T04:00Z").await;
    let job = database.only_job().await;
    assert_eq!((job.task.as_str(), job.max_attempts, job.priority), ("mail", 3, -5));
    assert_eq!((job.queue.as_deref(), job.key.as_deref()), (Some("q"), Some("k")));
    let payload: Value = serde_json::from_str(&job.payload).unwrap();
    let cron = json!({"ts": "2021-01-01T04:00:00.000Z", "backfilled": false});
    assert_eq!(payload, json!({"n": 1, "größe": [1], "_cron": cron}));
    assert!(database.known("early").await.is_some() && database.known("mail").await.is_none());
}

#[tokio::test]
async fn a_schedule_whose_name_the_encoding_of_the_database_lacks_costs_only_itself_its_tick() {
    let database = TestDatabase::in_encoding("LATIN1").await;
    let installed = Taskbay::command("migrate").env("DATABASE_URL", database.url()).output();
    assert!(installed.status.success(), "{installed:?}");
    let crontab = "* * * * * first\n* * * * * other ?id=日本\n* * * * * last";
    let mut host = Setup::at("2021-01-01T03:58:30Z").crontab(crontab).start(&database).await;
    host.clock.set("2021-01-01T03:59:00Z");
    let (event, _) = host.event(|event| matches!(event, Event::CronItemFailed(_))).await;
    let Event::CronItemFailed(RefusedTick { identifier, reason, .. }) = event else { panic!("{event:?}") };
    assert!(identifier == "日本" && reason.contains("encoding"), "{identifier}: {reason}");
    host.scheduled("2021-01-01T03:59Z").await;
    for task in ["first", "last"] {
        assert_eq!(database.minutes_of(task).await, ["03:59"]);
    }
    host.stop().await;
}

#[tokio::test]
async fn a_schedule_that_the_database_refuses_costs_only_itself_its_tick() {
    let database = TestDatabase::installed().await;
    refuse(&database, "bad").await;
    let crontab = "* * * * * first\n* * * * * bad\n* * * * * last";
    let mut host = Setup::at("2021-01-01T03:58:30Z").crontab(crontab).start(&database).await;
    for minute in ["2021-01-01T03:59Z", "2021-01-01T04:00Z"] {
        host.clock.set(&minute.replace('Z', ":00Z"));
        let (event, _) = host.event(|event| matches!(event, Event::CronItemFailed(_))).await;
        let Event::CronItemFailed(RefusedTick { identifier, timestamp, reason, .. }) = event else {
            panic!("{event:?}")
        };
        assert_eq!((identifier.as_str(), timestamp), ("bad", at(minute)));
        assert!(reason.contains("no such jobs here"), "{reason}");
        host.scheduled(minute).await;
    }
    for task in ["first", "last"] {
        assert_eq!(database.minutes_of(task).await, ["03:59", "04:00"]);
    }
    assert_eq!(database.known("bad").await.unwrap().1, None, "fill can make up for it");
}

#[tokio::test]
async fn ticks_stay_due_while_the_database_is_away_and_are_stored_in_their_order() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T10:00:30Z").crontab("* * * * * often").start(&database).await;
    host.clock.set("2021-01-01T10:01:00Z");
    host.scheduled("2021-01-01T10:01Z").await;
    database.set_away(true).await;
    for minute in 2..6 {
        host.clock.set(&format!("2021-01-01T10:0{minute}:00Z"));
        host.event(|event| matches!(event, Event::DatabaseTrouble { what: "add the jobs of schedules", .. })).await;
    }
    database.set_away(false).await;
    host.event(|event| matches!(event, Event::DatabaseBack { what: "add the jobs of schedules", .. })).await;
    host.scheduled("2021-01-01T10:05Z").await;
    assert_eq!(database.minutes_of("often").await, ["10:01", "10:02", "10:03", "10:04", "10:05"]);
    assert!(database.scheduled().await.iter().all(|job| !job.backfilled));
}

#[tokio::test]
async fn ticks_wait_for_a_schema_that_is_not_there_for_a_while() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T10:00:30Z").crontab("* * * * * often").start(&database).await;
    database.execute("alter schema graphile_worker rename to moved").await;
    host.clock.set("2021-01-01T10:02:00Z");
    host.event(|event| matches!(event, Event::DatabaseTrouble { .. })).await;
    database.execute("alter schema moved rename to graphile_worker").await;
    host.scheduled("2021-01-01T10:02Z").await;
    assert_eq!(database.minutes_of("often").await, ["10:01", "10:02"]);
}

#[tokio::test]
async fn an_outage_of_more_than_a_day_is_left_to_fill() {
    let database = TestDatabase::installed().await;
    let crontab = "0 * * * * hourly\n0 * * * * filled ?fill=7d";
    let mut host = Setup::at("2021-01-01T00:30:00Z").crontab(crontab).start(&database).await;
    database.set_away(true).await;
    // Day by day, so that it is the waiting ticks that grow old.
    for day in 2..5 {
        host.clock.set(&format!("2021-01-0{day}T00:30:00Z"));
        host.event(|event| matches!(event, Event::DatabaseTrouble { .. })).await;
    }
    database.set_away(false).await;
    host.scheduled("2021-01-04T00:00Z").await;
    let jobs = database.scheduled().await;
    let of = |task: &str| jobs.iter().filter(|job| job.task == task).count();
    assert_eq!((of("hourly"), of("filled")), (24, 72));
}

#[tokio::test]
async fn many_hosts_add_each_job_once() {
    let database = TestDatabase::installed().await;
    let crontab: String = (0..20).map(|number| format!("* * * * * t{number}\n")).collect();
    let mut hosts = Vec::new();
    for host in 0..4 {
        // Not all of them read their lines in the same order.
        let mut lines: Vec<&str> = crontab.lines().collect();
        lines.rotate_left(host * 5);
        hosts.push(Setup::at("2021-01-01T10:00:30Z").crontab(&lines.join("\n")).start(&database).await);
    }
    for host in &hosts {
        host.clock.set("2021-01-01T10:10:00Z");
    }
    for host in &mut hosts {
        host.scheduled("2021-01-01T10:10Z").await;
    }
    assert_eq!(database.scheduled().await.len(), 200);
    let twice = "select count(*) from (select task_id, run_at from graphile_worker._private_jobs
                 group by 1, 2 having count(*) > 1) as twice";
    assert_eq!(database.id_of(twice, &[]).await, 0);
}

#[tokio::test]
async fn a_stop_is_heard_at_once_even_between_two_tries() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T10:00:30Z").crontab("* * * * * often").start(&database).await;
    database.set_away(true).await;
    host.clock.set("2021-01-01T10:01:00Z");
    // Until the waits are long.
    let long =
        |event: &Event| matches!(event, Event::DatabaseTrouble { retry_in, .. } if *retry_in > Duration::from_secs(1));
    host.event(long).await;
    let told = Instant::now();
    host.stop().await;
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
}

#[tokio::test]
async fn a_stop_is_heard_at_once_even_while_the_database_does_not_answer() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T10:00:30Z").crontab("* * * * * often").start(&database).await;
    let client = database.client().await;
    client.batch_execute("begin; lock table graphile_worker._private_known_crontabs").await.unwrap();
    host.clock.set("2021-01-01T10:01:00Z");
    host.event(|event| matches!(event, Event::CronSchedule { .. })).await;
    host.stop().await;
    client.batch_execute("rollback").await.unwrap();
}

#[tokio::test]
async fn a_keyed_job_is_added_although_a_worker_takes_the_one_under_its_key_in_that_moment() {
    let database = TestDatabase::installed().await;
    let mut host = Setup::at("2021-01-01T03:59:30Z").crontab("* * * * * often ?jobKey=k").start(&database).await;
    host.clock.set("2021-01-01T04:00:00Z");
    host.scheduled("2021-01-01T04:00Z").await;
    let worker = database.client().await;
    worker
        .batch_execute("begin; update graphile_worker._private_jobs set locked_at = now(), locked_by = 'w'")
        .await
        .unwrap();
    host.clock.set("2021-01-01T04:01:00Z");
    let waiting = "select count(*) from pg_stat_activity
                   where datname = current_database() and wait_event_type = 'Lock'";
    eventually(async || database.id_of(waiting, &[]).await == 1).await;
    worker.batch_execute("commit").await.unwrap();
    host.scheduled("2021-01-01T04:01Z").await;
    assert_eq!(database.minutes_of("often").await, ["04:00", "04:01"]);
}
