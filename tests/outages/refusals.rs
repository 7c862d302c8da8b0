//! A server that answers, and lets nobody in or nobody write; and the one that takes its place.

use std::sync::Mutex;

use rustix::process::Signal;
use serde_json::Value;

use super::{Place, survive};
use crate::harness::cluster::End;

/// Whoever was connected is cut off, and the server has no place for anybody else.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_has_too_many_clients() {
    let place = Place::new(&["-c", "max_connections=14", "-c", "superuser_reserved_connections=0"]).await;
    let host = place.host().await;
    let held = Mutex::new(Vec::new());
    let fill = async || {
        let mut clients = Vec::new();
        let kick = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'taskbay'";
        loop {
            let free = place.cluster.try_client("jobs").await;
            match free {
                Ok(client) => clients.push(client),
                Err(_) => {
                    let kicked: i64 = clients[0].query_one(kick, &[]).await.expect("end its connections").get(0);
                    if kicked == 0 && host.events("database_trouble").iter().any(full) {
                        *held.lock().unwrap() = clients;
                        return;
                    }
                }
            }
        }
    };
    survive(&place, &host, fill, async || held.lock().unwrap().clear(), &place.cluster).await;
    host.stop().await;
}

fn full(line: &Value) -> bool {
    line["message"].as_str().is_some_and(|message| message.contains("too many clients"))
}

/// It lets those go on that are there, and nobody in.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_shutting_down() {
    let place = Place::new(&[]).await;
    let host = place.host().await;
    let last = place.cluster.client().await;
    let away = async || {
        place.cluster.signal(Signal::TERM);
        let kick = "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = 'taskbay'";
        last.query_one(kick, &[]).await.expect("end its connections");
        host.event("database_trouble", |line| line["message"].as_str().is_some_and(|m| m.contains("shutting down")))
            .await;
    };
    let back = async || {
        let _ = last.batch_execute("select pg_terminate_backend(pg_backend_pid())").await;
        place.cluster.wait_until_ended().await;
        place.cluster.start_again().await;
    };
    survive(&place, &host, away, back, &place.cluster).await;
    host.stop().await;
}

/// It answers, and lets nobody in yet.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_starting_up() {
    let place = Place::new(&["-c", "hot_standby=off"]).await;
    let host = place.host().await;
    let away = async || {
        place.cluster.end(End::Fast).await;
        place.cluster.follow(true);
        place.cluster.begin().await;
        let starting = |line: &Value| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("57P03")
        };
        host.event("database_trouble", starting).await;
    };
    let back = async || {
        place.cluster.end(End::Fast).await;
        place.cluster.follow(false);
        place.cluster.start_again().await;
    };
    survive(&place, &host, away, back, &place.cluster).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_takes_over() {
    let place = Place::new(&[]).await;
    let standby = place.cluster.standby().await;
    let (one, other) = (place.cluster.port(), standby.port());
    let url = format!("postgres://postgres@127.0.0.1:{one},127.0.0.1:{other}/jobs?target_session_attrs=read-write");
    let host = place.command(&url).listening().await;
    let away = async || place.cluster.end(End::Kill).await;
    survive(&place, &host, away, async || standby.promote().await, &standby).await;
    host.stop().await;
}

/// As behind an address that moves before the server that it moves to may write.
#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_a_standby_for_a_while() {
    let place = Place::new(&[]).await;
    let standby = place.cluster.standby().await;
    let host = place.host().await;
    let away = async || {
        place.proxy.aim(standby.port());
        place.cluster.end(End::Fast).await;
        host.event("database_trouble", |line| line["message"].as_str().is_some_and(|m| m.contains("25006"))).await;
    };
    survive(&place, &host, away, async || standby.promote().await, &standby).await;
    host.stop().await;
}
