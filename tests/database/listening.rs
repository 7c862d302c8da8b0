//! Notifications, and the loss of the connection.

use std::time::Duration;

use taskbay::{
    events::{Event, Events},
    listener::listen,
    migrate,
    queue::{NewJob, Notification},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::harness::postgres::TestDatabase;

const DEADLINE: Duration = Duration::from_secs(60);

async fn next(notifications: &mut mpsc::UnboundedReceiver<Notification>) -> Notification {
    tokio::time::timeout(DEADLINE, notifications.recv())
        .await
        .expect("a notification comes")
        .expect("the listener lives")
}

#[tokio::test]
async fn jobs_and_revisions_are_heard_of_also_after_the_connection_was_lost() {
    let test = TestDatabase::new().await;
    let database = test.database();
    migrate::prepare(&database).await.unwrap();
    let session = database.session().await.unwrap();
    let (sender, mut notifications) = mpsc::unbounded_channel();
    let events = Events::default();
    let mut announced = events.subscribe();
    let stop = CancellationToken::new();
    let hear = move |notification| sender.send(notification).expect("the test listens");
    let listener = tokio::spawn(listen(database.clone(), hear, events, stop.clone()));

    assert_eq!(next(&mut notifications).await, Notification::Connected);
    session.add_jobs(&[NewJob::new("t"), NewJob::new("t")]).await.unwrap();
    assert_eq!(next(&mut notifications).await, Notification::JobsAdded(2));

    let client = test.client().await;
    let told = "select pg_notify('worker:migrate', '{\"migrationNumber\":21,\"breaking\":true}')";
    client.batch_execute(told).await.unwrap();
    assert_eq!(next(&mut notifications).await, Notification::Migrated { number: 21, breaking: true });

    let kick = "select pg_terminate_backend(pid) from pg_stat_activity
                where query ilike '%listen%' and pid <> pg_backend_pid() and datname = current_database()";
    assert_eq!(client.query(kick, &[]).await.unwrap().len(), 1);
    assert_eq!(next(&mut notifications).await, Notification::Connected);
    session.add_job(&NewJob::new("t")).await.unwrap();
    assert_eq!(next(&mut notifications).await, Notification::JobsAdded(1));

    stop.cancel();
    tokio::time::timeout(DEADLINE, listener).await.expect("it ends when told to").unwrap();
    let mut seen = Vec::new();
    while let Ok(event) = announced.try_recv() {
        match &event {
            Event::DatabaseTrouble { what, error, .. } => {
                assert!(error.contains("57P01") && *what == "listen for new jobs", "{error}");
            }
            Event::ListenFailed { attempts, .. } => assert_eq!(*attempts, 1),
            _ => {}
        }
        seen.push(event.name());
    }
    assert_eq!(
        seen,
        [
            "pool:listen:connecting",
            "pool:listen:success",
            "pool:listen:notification",
            "pool:listen:notification",
            "pool:listen:error",
            "database:trouble",
            "pool:listen:connecting",
            "database:back",
            "pool:listen:success",
            "pool:listen:notification",
            "pool:listen:release",
        ]
    );
}

#[tokio::test]
async fn a_listener_without_a_database_goes_on_trying_until_it_is_told_to_end() {
    let test = TestDatabase::new().await;
    let mut settings = test.settings("graphile_worker");
    settings.config.dbname("nowhere");
    let database = taskbay::queue::Database::new(settings).unwrap();
    let events = Events::default();
    let mut announced = events.subscribe();
    let stop = CancellationToken::new();
    let listener = tokio::spawn(listen(database, drop, events, stop.clone()));
    for attempt in 1..=3 {
        for expected in ["pool:listen:connecting", "pool:listen:error", "database:trouble"] {
            let event =
                tokio::time::timeout(DEADLINE, announced.recv()).await.expect("it tells of the trouble").unwrap();
            assert_eq!(event.name(), expected, "{event:?}");
            if let Event::ListenConnecting { attempts } | Event::ListenFailed { attempts, .. } = event {
                assert_eq!(attempts, attempt);
            }
        }
    }
    stop.cancel();
    tokio::time::timeout(DEADLINE, listener).await.expect("it ends").unwrap();
}
