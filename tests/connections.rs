//! The way to the database: encrypted or not, through several hosts, files of passwords and services, and a pooler.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use taskbay::{
    config::{Layer, database_settings},
    queue::Database,
};
use tokio_postgres::NoTls;

use crate::harness::postgres::PrivateServer;

mod files;
mod hosts;
mod limits;
mod pooler;
mod strings;
mod tls;
mod victims;

/// Connects as a user would who gives this string and has these variables, and says why it did not work.
async fn connect(string: &str, environment: &[(&str, &str)]) -> Result<Database, String> {
    let layer = Layer { connection: Some(string.to_owned()), ..Layer::default() };
    let environment: HashMap<&str, &str> = environment.iter().copied().collect();
    let settings = database_settings(&layer, |name| environment.get(name).map(|value| (*value).to_owned()))
        .map_err(|error| error.to_string())?;
    let database = Database::new(settings).map_err(|error| error.to_string())?;
    let session = database.session().await.map_err(|error| error.to_string())?;
    drop(session);
    Ok(database)
}

/// A server with TLS, and the files by which it can be told from others.
struct TlsServer {
    server: PrivateServer,
}

impl TlsServer {
    fn get() -> &'static Self {
        static SERVER: OnceLock<TlsServer> = OnceLock::new();
        SERVER.get_or_init(|| {
            let rules = "local all all trust\n\
                         hostssl all certified 127.0.0.1/32 cert\n\
                         hostssl all scrambled 127.0.0.1/32 scram-sha-256\n\
                         hostssl all secure 127.0.0.1/32 trust\n\
                         hostnossl all plain 127.0.0.1/32 trust\n\
                         host all postgres 127.0.0.1/32 trust\n";
            let server = PrivateServer::start(
                rules,
                &[
                    "-c",
                    "ssl=on",
                    "-c",
                    "ssl_cert_file=../server.crt",
                    "-c",
                    "ssl_key_file=../server.key",
                    "-c",
                    "ssl_ca_file=../ca.crt",
                    "-c",
                    "password_encryption=scram-sha-256",
                ],
                |folder| make_certificates(folder, 2100),
            );
            Self { server }
        })
    }

    /// The server with its roles.
    async fn ready() -> &'static Self {
        static ROLES: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        let this = Self::get();
        ROLES
            .get_or_init(|| async {
                let roles = "create role certified login; create role scrambled login password 'secret';
                             create role secure login; create role plain login";
                this.admin().await.batch_execute(roles).await.expect("create the roles");
            })
            .await;
        this
    }

    async fn admin(&self) -> tokio_postgres::Client {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.server.port).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await.expect("connect to the server");
        tokio::spawn(connection);
        client
    }

    /// A connection string for this server, by the name that is in its certificate.
    fn url(&self, user: &str, parameters: &str) -> String {
        format!("postgres://{user}@localhost:{}/postgres?hostaddr=127.0.0.1&{parameters}", self.server.port)
    }

    fn file(&self, name: &str) -> String {
        self.server.folder.join(name).display().to_string()
    }

    /// Whether the connection of this application is encrypted.
    async fn is_encrypted(&self, application: &str) -> bool {
        let sql = "select ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name = $1";
        self.admin().await.query_one(sql, &[&application]).await.expect("one connection").get(0)
    }
}

/// Two authorities, and certificates for the server, which ends with the year before `year`, and for a client.
fn make_certificates(folder: &Path, year: i32) {
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, text).expect("write a certificate");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set permissions");
    };
    let authority = |name: &str| {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate").pem();
        (Issuer::new(parameters, key), certificate)
    };
    let (ours, certificate) = authority("our authority");
    write("ca.crt", certificate);
    let (_, certificate) = authority("another authority");
    write("other.crt", certificate);

    let mut parameters = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    parameters.subject_alt_names.push(SanType::IpAddress("127.0.0.1".parse().expect("an address")));
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().expect("a key");
    write("server.crt", parameters.signed_by(&key, &ours).expect("a certificate").pem());
    write("server.key", key.serialize_pem());

    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, "certified");
    let key = KeyPair::generate().expect("a key");
    write("client.crt", parameters.signed_by(&key, &ours).expect("a certificate").pem());
    write("client.key", key.serialize_pem());
}

/// A file that only its owner may read, as libpq wants those with passwords.
fn private_file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, text).expect("write a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set permissions");
    path
}
