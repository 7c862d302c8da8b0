//! Each `sslmode`, against a server with TLS and one without.

use super::*;

#[tokio::test]
async fn each_mode_encrypts_when_it_says_so() {
    let tls = TlsServer::ready().await;
    let root = format!("&sslrootcert={}", tls.file("ca.crt"));
    for (mode, more, encrypted) in [
        ("disable", "", false),
        ("allow", "", false),
        ("prefer", "", true),
        ("require", "", true),
        ("verify-ca", root.as_str(), true),
        ("verify-full", root.as_str(), true),
    ] {
        let application = format!("mode {mode}");
        let url = tls.url("postgres", &format!("sslmode={mode}&application_name=mode%20{mode}{more}"));
        let database = connect(&url, &[]).await.unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert_eq!(tls.is_encrypted(&application).await, encrypted, "{mode}");
        drop(database);
    }
}

#[tokio::test]
async fn allow_and_prefer_try_the_other_way_where_the_server_wants_it() {
    let tls = TlsServer::ready().await;
    connect(&tls.url("secure", "sslmode=allow"), &[]).await.expect("the server refuses it without TLS");
    connect(&tls.url("plain", "sslmode=prefer"), &[]).await.expect("the server refuses it with TLS");
    let refused = connect(&tls.url("plain", "sslmode=require"), &[]).await.unwrap_err();
    assert!(refused.contains("pg_hba.conf"), "{refused}");
}

#[tokio::test]
async fn a_server_that_is_not_who_it_should_be_is_refused_with_the_reason() {
    let tls = TlsServer::ready().await;
    let (ours, other) = (tls.file("ca.crt"), tls.file("other.crt"));
    let refused =
        connect(&tls.url("secure", &format!("sslmode=verify-ca&sslrootcert={other}")), &[]).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
    // As libpq does: a file of authorities makes `require` look at them.
    connect(&tls.url("secure", &format!("sslmode=require&sslrootcert={other}")), &[]).await.unwrap_err();
    let elsewhere =
        tls.url("secure", &format!("sslmode=verify-full&sslrootcert={ours}")).replace("localhost", "db.example");
    let refused = connect(&elsewhere, &[]).await.unwrap_err();
    assert!(refused.contains("db.example") || refused.contains("name"), "{refused}");
    connect(&elsewhere.replace("verify-full", "verify-ca"), &[]).await.expect("verify-ca asks for no name");
    let refused =
        connect(&tls.url("secure", "sslmode=verify-full&sslrootcert=/nowhere/ca.crt"), &[]).await.unwrap_err();
    assert!(refused.contains("/nowhere/ca.crt"), "{refused}");
    let refused = connect(&tls.url("secure", "sslmode=verify-full"), &[("HOME", "/nowhere")]).await.unwrap_err();
    assert!(refused.contains("no file of root certificates") && refused.contains("sslrootcert"), "{refused}");
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_the_server_asks_for_one() {
    let tls = TlsServer::ready().await;
    let without = connect(&tls.url("certified", "sslmode=require"), &[("HOME", "/nowhere")]).await.unwrap_err();
    assert!(without.contains("certificate"), "{without}");
    let files = format!("sslmode=require&sslcert={}&sslkey={}", tls.file("client.crt"), tls.file("client.key"));
    connect(&tls.url("certified", &files), &[]).await.expect("the certificate is shown");
    // By variables, too.
    let (certificate, key) = (tls.file("client.crt"), tls.file("client.key"));
    let variables = [("PGSSLCERT", certificate.as_str()), ("PGSSLKEY", &key), ("PGSSLMODE", "require")];
    connect(&tls.url("certified", "").replace("?hostaddr=127.0.0.1&", "?hostaddr=127.0.0.1"), &variables)
        .await
        .expect("the variables name the files");
}

#[tokio::test]
async fn passwords_are_bound_to_the_channel() {
    let tls = TlsServer::ready().await;
    for binding in ["disable", "prefer", "require"] {
        let url = tls.url("scrambled:secret", &format!("sslmode=require&channel_binding={binding}"));
        connect(&url, &[]).await.unwrap_or_else(|error| panic!("{binding}: {error}"));
    }
    let refused = connect(&tls.url("scrambled:wrong", "sslmode=require"), &[]).await.unwrap_err();
    assert!(refused.contains("password authentication failed") && !refused.contains("wrong"), "{refused}");
}

/// The server of all tests has no TLS.
#[tokio::test]
async fn a_server_without_tls_is_refused_only_where_it_is_insisted_on() {
    let database = crate::harness::postgres::TestDatabase::new().await;
    for mode in ["disable", "allow", "prefer"] {
        connect(&format!("{}?sslmode={mode}", database.url()), &[])
            .await
            .unwrap_or_else(|error| panic!("{mode}: {error}"));
    }
    let refused = connect(&format!("{}?sslmode=require", database.url()), &[]).await.unwrap_err();
    assert!(refused.contains("does not offer TLS, which sslmode=require insists on"), "{refused}");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_where_it_is_looked_at() {
    let arguments = ["-c", "ssl=on", "-c", "ssl_cert_file=../server.crt", "-c", "ssl_key_file=../server.key"];
    let server =
        PrivateServer::start("host all all 127.0.0.1/32 trust\n", &arguments, |folder| make_certificates(folder, 2001));
    let url = format!(
        "postgres://postgres@localhost:{}/postgres?hostaddr=127.0.0.1&sslrootcert={}&sslmode=",
        server.port,
        server.folder.join("ca.crt").display()
    );
    let refused = connect(&format!("{url}verify-full"), &[]).await.unwrap_err();
    assert!(refused.contains("expired"), "{refused}");
    connect(&format!("{url}disable"), &[]).await.expect("nobody looks at it");
}
