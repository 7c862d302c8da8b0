//! Several hosts, sockets, and what the server is told.

use super::*;
use crate::harness::postgres::TestDatabase;

fn port(database: &TestDatabase) -> u16 {
    database.config().get_ports()[0]
}

#[tokio::test]
async fn hosts_are_tried_in_turn_and_each_failure_is_told() {
    let database = TestDatabase::new().await;
    let name = database.config().get_dbname().expect("a name").to_owned();
    let port = port(&database);
    connect(&format!("postgres://postgres@127.0.0.1:1,127.0.0.1:{port}/{name}"), &[])
        .await
        .expect("the second answers");
    connect(&format!("host=127.0.0.1,127.0.0.1 port=1,{port} user=postgres dbname={name}"), &[])
        .await
        .expect("in this form, too");
    let refused = connect(&format!("postgres://postgres@127.0.0.1:1,localhost:2/{name}"), &[]).await.unwrap_err();
    assert!(refused.contains("127.0.0.1:1: ") && refused.contains("localhost:2"), "{refused}");
}

#[tokio::test]
async fn the_server_has_to_be_of_the_kind_that_was_asked_for() {
    let database = TestDatabase::new().await;
    for target in ["any", "read-write", "primary", "prefer-standby"] {
        let url = format!("{}?target_session_attrs={target}", database.url());
        connect(&url, &[]).await.unwrap_or_else(|error| panic!("{target}: {error}"));
    }
    for target in ["read-only", "standby"] {
        let refused = connect(&format!("{}?target_session_attrs={target}", database.url()), &[]).await.unwrap_err();
        assert!(refused.contains("which target_session_attrs does not want"), "{refused}");
    }
}

#[tokio::test]
async fn options_and_the_applications_name_reach_the_server() {
    let database = TestDatabase::new().await;
    let url = format!("{}?options=-c%20search_path%3Dpg_catalog&application_name=my%20worker", database.url());
    let connected = connect(&url, &[("PGAPPNAME", "not this")]).await.expect("connect");
    let sql = "select count(*) from pg_stat_activity where application_name = 'my worker'";
    assert_eq!(database.id_of(sql, &[]).await, 1);
    drop(connected);
}

#[tokio::test]
async fn a_socket_is_a_host_too() {
    let tls = TlsServer::ready().await;
    let folder = tls.server.folder.display().to_string();
    let port = tls.server.port;
    connect(&format!("host={folder} port={port} user=postgres dbname=postgres sslmode=require"), &[])
        .await
        .expect("as a value");
    let encoded = folder.replace('/', "%2F");
    connect(&format!("postgres://postgres@{encoded}:{port}/postgres"), &[]).await.expect("in a URL");
}
