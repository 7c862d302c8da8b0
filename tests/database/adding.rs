//! Jobs that the host adds, and what arrives of them.

use std::time::{Duration, SystemTime};

use taskbay::{
    migrate,
    queue::{Conditions, Database, JobKeyMode, NewJob, Session, TaskIds},
};

use crate::harness::postgres::TestDatabase;

async fn session(test: &TestDatabase) -> Session {
    let database = test.database();
    migrate::prepare(&database).await.unwrap();
    database.session().await.unwrap()
}

#[tokio::test]
async fn payloads_arrive_byte_for_byte() {
    let test = TestDatabase::new().await;
    let session = session(&test).await;
    let big = format!(r#"{{"text": "{}", "tail": [1,  2 ] }}"#, "ä😀x".repeat(150_000));
    assert!(big.len() > 1_000_000);
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    let payloads = [
        big.as_str(),
        deep.as_str(),
        "null",
        "[]",
        " {\"b\" : 1, \"a\": 2, \"b\": 3}\n",
        "12345678901234567890123456789.000100",
        r#""a NUL: \u0000, half a pair: \ud800""#,
        "\"grüße, 日本, \u{1F600}\"",
    ];
    let task = session.task_ids(&["t"]).await.unwrap();
    for (number, payload) in payloads.iter().enumerate() {
        let job = NewJob { payload: Some((*payload).to_owned()), ..NewJob::new("t") };
        let added = if number % 2 == 0 {
            session.add_job(&job).await.unwrap()
        } else {
            session.add_jobs(&[job]).await.unwrap().remove(0)
        };
        assert_eq!(added.payload, *payload);
        let claimed = session.get_jobs("w", &task, 1, Conditions::default()).await.unwrap().remove(0);
        assert_eq!(claimed.payload, *payload);
    }
}

#[tokio::test]
async fn every_field_is_stored() {
    let test = TestDatabase::new().await;
    let session = session(&test).await;
    let run_at = SystemTime::UNIX_EPOCH + Duration::from_micros(2_000_000_000_123_456);
    let job = NewJob {
        identifier: "mail/send:now-1".to_owned(),
        payload: Some("[1]".to_owned()),
        queue_name: Some("q".to_owned()),
        run_at: Some(run_at),
        max_attempts: Some(3),
        job_key: Some("k".to_owned()),
        job_key_mode: JobKeyMode::Replace,
        priority: Some(-7),
        flags: vec!["a".to_owned(), "b".to_owned()],
    };
    let stored = session.add_job(&job).await.unwrap();
    assert_eq!(stored.queue_name.as_deref(), Some("q"));
    assert_eq!((stored.run_at, stored.max_attempts, stored.priority), (run_at, 3, -7));
    assert_eq!((stored.key.as_deref(), stored.flags.as_deref()), (Some("k"), Some(r#"{"a": true, "b": true}"#)));
    let defaults = session.add_job(&NewJob::new("t")).await.unwrap();
    assert_eq!((defaults.payload.as_str(), defaults.max_attempts, defaults.priority), ("{}", 25, 0));
    assert_eq!((defaults.queue_name, defaults.key, defaults.flags), (None, None, None));
}

#[tokio::test]
async fn keys_replace_preserve_and_dedupe_one_by_one_and_together() {
    let test = TestDatabase::new().await;
    let session = session(&test).await;
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(2_000_000_000);
    let keyed = |key: &str, mode: JobKeyMode, payload: &str, run_at: Option<SystemTime>| NewJob {
        payload: Some(payload.to_owned()),
        job_key: Some(key.to_owned()),
        job_key_mode: mode,
        run_at,
        ..NewJob::new("t")
    };
    let modes = [JobKeyMode::Replace, JobKeyMode::PreserveRunAt, JobKeyMode::UnsafeDedupe];
    let first: Vec<NewJob> = modes.iter().map(|mode| keyed(mode.as_str(), *mode, "1", Some(later))).collect();
    let second: Vec<NewJob> = modes.iter().map(|mode| keyed(mode.as_str(), *mode, "2", None)).collect();
    let added = session.add_jobs(&first).await.unwrap();
    assert_eq!(added.len(), 3);
    let changed = session.add_jobs(&second).await.unwrap();
    assert_eq!(changed.iter().map(|job| job.revision).collect::<Vec<_>>(), [1, 1, 1]);
    let by_key = |mode: JobKeyMode| changed.iter().find(|job| job.key.as_deref() == Some(mode.as_str())).unwrap();
    assert_eq!((by_key(modes[0]).payload.as_str(), by_key(modes[0]).run_at < later), ("2", true));
    assert_eq!((by_key(modes[1]).payload.as_str(), by_key(modes[1]).run_at), ("2", later));
    assert_eq!((by_key(modes[2]).payload.as_str(), by_key(modes[2]).run_at), ("1", later));
    for job in &second {
        assert_eq!(session.add_job(job).await.unwrap().revision, 2);
    }
}

#[tokio::test]
async fn many_jobs_are_added_together_or_not_at_all() {
    let test = TestDatabase::new().await;
    let session = session(&test).await;
    let mut jobs: Vec<NewJob> = (0..1000)
        .map(|number| NewJob {
            payload: Some(number.to_string()),
            queue_name: (number % 2 == 0).then(|| format!("q{}", number % 10)),
            flags: if number % 3 == 0 {
                vec!["f,\"{}\\".to_owned(), "NULL".to_owned(), String::new()]
            } else {
                Vec::new()
            },
            ..NewJob::new("t")
        })
        .collect();
    let added = session.add_jobs(&jobs).await.unwrap();
    let payloads: Vec<String> = added.iter().map(|job| job.payload.clone()).collect();
    assert_eq!(payloads, (0..1000).map(|number| number.to_string()).collect::<Vec<_>>(), "in the order given");
    assert_eq!(added[4].queue_name.as_deref(), Some("q4"));
    assert_eq!(added[3].flags.as_deref(), Some(r#"{"": true, "NULL": true, "f,\"{}\\": true}"#));
    assert_eq!(session.add_jobs(&[]).await.unwrap(), []);
    assert_eq!(test.database().add_jobs_unread(&[]).await.unwrap(), 0);

    jobs.push(NewJob { max_attempts: Some(0), ..NewJob::new("t") });
    let error = session.add_jobs(&jobs).await.unwrap_err();
    assert!(error.to_string().contains("a job has at least one attempt"), "{error}");
    let count = "select count(*) from graphile_worker._private_jobs";
    assert_eq!(test.client().await.query_one(count, &[]).await.unwrap().get::<_, i64>(0), 1000);
}

#[tokio::test]
async fn what_the_database_refuses_is_said_in_plain_words() {
    let test = TestDatabase::new().await;
    let session = session(&test).await;
    let payload = |payload: &str| NewJob { payload: Some(payload.to_owned()), ..NewJob::new("t") };
    for (job, part) in [
        (NewJob::new("t").key(""), "a job key has 1 to 512 characters"),
        (NewJob::new("t".repeat(129)), "the name of a task has at most 128 characters"),
        (NewJob::new("t").queue("q".repeat(129)), "the name of a queue"),
        (NewJob::new("t").max_attempts(0), "a job has at least one attempt"),
        (payload("{nonsense"), "the payload is not JSON"),
        (payload("\"\0\""), "the payload is not JSON"),
    ] {
        let error = session.add_job(&job).await.unwrap_err();
        assert!(error.to_string().starts_with("could not add a job: ") && error.to_string().contains(part), "{error}");
        assert!(error.code().is_none() && !error.connection_lost() && !error.is_temporary(), "{error}");
    }
    session.add_job(&NewJob::new("t")).await.expect("the session goes on");
}

#[tokio::test]
async fn names_of_tasks_get_ids_once() {
    let test = TestDatabase::new().await;
    let session = session(&test).await;
    let first = session.task_ids(&["a", "b/c:d", "a"]).await.unwrap();
    let ids = |tasks: &TaskIds| ["a", "b/c:d"].map(|name| tasks.id(name).unwrap());
    assert_eq!(ids(&first), [1, 2]);
    for _ in 0..5 {
        assert_eq!(ids(&session.task_ids(&["b/c:d", "a"]).await.unwrap()), ids(&first));
    }
    let last = "select last_value from graphile_worker.tasks_id_seq";
    assert_eq!(test.client().await.query_one(last, &[]).await.unwrap().get::<_, i64>(0), 2, "no id is wasted");
    assert!(session.task_ids(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn connections_that_cannot_be_made_say_where_and_why() {
    let test = TestDatabase::new().await;
    let mut settings = test.settings("graphile_worker");
    settings.config.ssl_mode(tokio_postgres::config::SslMode::Require);
    let error = Database::new(settings).unwrap().session().await.unwrap_err().to_string();
    assert!(error.contains("does not offer TLS, which sslmode=require insists on"), "{error}");

    let mut settings = test.settings("graphile_worker");
    settings.config.dbname("nowhere");
    let error = Database::new(settings).unwrap().session().await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("3D000"));
    assert!(error.to_string().starts_with("could not connect to database nowhere at 127.0.0.1:"), "{error}");

    let mut closed = tokio_postgres::Config::new();
    closed.host("127.0.0.1").port(1).user("postgres").dbname("x").password("secret");
    let settings = taskbay::queue::DatabaseSettings { config: closed, ..test.settings("graphile_worker") };
    let error = Database::new(settings).unwrap().session().await.unwrap_err();
    assert!(
        error.to_string().contains("database x at 127.0.0.1:1: ") && error.to_string().contains("refused"),
        "{error}"
    );
    assert!(error.is_temporary() && !error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_missing_schema_names_the_remedy() {
    let test = TestDatabase::new().await;
    let installed = TestDatabase::new().await;
    let tasks = session(&installed).await.task_ids(&["t"]).await.unwrap();
    let session = test.database().session().await.unwrap();
    let error = session.get_jobs("w", &tasks, 1, Conditions::default()).await.unwrap_err().to_string();
    assert!(error.contains("`taskbay migrate` installs it"), "{error}");
}
