//! Files of passwords and of services.

use super::*;

#[tokio::test]
async fn the_password_is_found_in_the_file_by_host_port_database_and_user() {
    let tls = TlsServer::ready().await;
    let home = tempfile::tempdir().expect("a folder");
    let port = tls.server.port;
    let text = format!("# a comment\nelsewhere:*:*:*:wrong\nlocalhost:{port}:*:scrambled:secret\n*:*:*:*:also wrong\n");
    let file = private_file(home.path(), ".pgpass", &text);
    let variables = [("HOME", home.path().to_str().expect("a path"))];
    let url = tls.url("scrambled", "sslmode=require");
    connect(&url, &variables).await.expect("the password is in the file");
    connect(&url, &[("PGPASSFILE", file.to_str().expect("a path"))]).await.expect("by the variable");
    // Others may read it: libpq does not use it then, and says so.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("open it to others");
    let refused = connect(&url, &variables).await.unwrap_err();
    assert!(refused.contains(".pgpass") && !refused.contains("secret"), "{refused}");
}

#[tokio::test]
async fn a_service_names_the_database_and_what_the_string_says_counts_first() {
    let tls = TlsServer::ready().await;
    let home = tempfile::tempdir().expect("a folder");
    let text = format!(
        "[jobs]\nhost=localhost\nport={}\nuser=scrambled\npassword=secret\ndbname=postgres\nsslmode=require\n[other]\nhost=nowhere\n",
        tls.server.port
    );
    private_file(home.path(), ".pg_service.conf", &text);
    let variables = [("HOME", home.path().to_str().expect("a path"))];
    connect("service=jobs", &variables).await.expect("the service is found");
    connect("postgres://secure@/?service=jobs", &variables).await.expect("the user of the string counts");
    let refused = connect("service=job", &variables).await.unwrap_err();
    assert!(refused.contains("\"job\"") && refused.contains(".pg_service.conf"), "{refused}");
}
