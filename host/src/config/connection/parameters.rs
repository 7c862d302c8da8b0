//! The parameters of libpq, each with its variable and its treatment here.

/// A parameter of a connection.
#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// The variable that sets it by default.
    pub(super) variable: Option<&'static str>,
    pub(super) use_of_it: Use,
}

/// The treatment of a parameter.
#[derive(Debug)]
pub(super) enum Use {
    /// The same effect as in libpq.
    Obeyed,
    /// No effect.
    Ignored,
    /// Only these values are supported; the sentence explains why others are not.
    Only(&'static [&'static str], &'static str),
}

/// The parameter with this name.
pub(super) fn find(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

/// The name that was probably meant.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    if name.len() > 40 {
        return None;
    }
    let name = name.to_lowercase();
    // Names in other drivers.
    let synonym = match name.as_str() {
        "database" | "db" => Some("dbname"),
        "username" => Some("user"),
        "pass" | "pwd" => Some("password"),
        "server" | "hostname" => Some("host"),
        "ssl" => Some("sslmode"),
        "timeout" => Some("connect_timeout"),
        "search_path" | "schema" | "currentschema" => Some("options"),
        _ => None,
    };
    let known: Vec<&str> = PARAMETERS.iter().map(|parameter| parameter.name).collect();
    synonym.or_else(|| crate::config::nearest(&name, &known))
}

const fn obeyed(name: &'static str, variable: &'static str) -> Parameter {
    Parameter { name, variable: Some(variable), use_of_it: Use::Obeyed }
}

const fn without_variable(name: &'static str) -> Parameter {
    Parameter { name, variable: None, use_of_it: Use::Obeyed }
}

const fn ignored(name: &'static str) -> Parameter {
    Parameter { name, variable: None, use_of_it: Use::Ignored }
}

const fn only(
    name: &'static str,
    variable: Option<&'static str>,
    values: &'static [&'static str],
    why: &'static str,
) -> Parameter {
    Parameter { name, variable, use_of_it: Use::Only(values, why) }
}

const NO_CRL: &str = "lists of revoked certificates are not supported; have the authority give out short-lived ones";
const NO_GSS: &str = "connections encrypted by GSSAPI are not supported; use sslmode instead";
const NO_OAUTH: &str = "logging in by OAuth is not supported";
const NO_KEYS: &str = "only passwords are supported for SCRAM, not its keys";

pub(super) static PARAMETERS: &[Parameter] = &[
    // Address and user.
    obeyed("service", "PGSERVICE"),
    obeyed("servicefile", "PGSERVICEFILE"),
    obeyed("host", "PGHOST"),
    obeyed("hostaddr", "PGHOSTADDR"),
    obeyed("port", "PGPORT"),
    obeyed("dbname", "PGDATABASE"),
    obeyed("user", "PGUSER"),
    obeyed("password", "PGPASSWORD"),
    obeyed("passfile", "PGPASSFILE"),
    // Choice among several servers.
    obeyed("target_session_attrs", "PGTARGETSESSIONATTRS"),
    obeyed("load_balance_hosts", "PGLOADBALANCEHOSTS"),
    // Time limits.
    obeyed("connect_timeout", "PGCONNECT_TIMEOUT"),
    without_variable("keepalives"),
    without_variable("keepalives_idle"),
    without_variable("keepalives_interval"),
    without_variable("keepalives_count"),
    without_variable("tcp_user_timeout"),
    // Session.
    obeyed("application_name", "PGAPPNAME"),
    without_variable("fallback_application_name"),
    obeyed("options", "PGOPTIONS"),
    only("client_encoding", None, &["utf8", "utf-8", "unicode", "auto"], "the program speaks UTF-8 with the server"),
    only("replication", None, &["0", "off", "no", "false"], "jobs cannot be worked over a connection for replication"),
    // Encryption.
    obeyed("sslmode", "PGSSLMODE"),
    obeyed("sslnegotiation", "PGSSLNEGOTIATION"),
    obeyed("sslrootcert", "PGSSLROOTCERT"),
    obeyed("sslcert", "PGSSLCERT"),
    obeyed("sslkey", "PGSSLKEY"),
    obeyed("sslcertmode", "PGSSLCERTMODE"),
    obeyed("sslsni", "PGSSLSNI"),
    obeyed("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"),
    obeyed("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    only("sslcompression", Some("PGSSLCOMPRESSION"), &["0"], "compression within TLS is not safe, and not supported"),
    only("sslpassword", None, &[], "client keys with a passphrase are not supported; store the key without one"),
    only("sslcrl", Some("PGSSLCRL"), &[], NO_CRL),
    only("sslcrldir", Some("PGSSLCRLDIR"), &[], NO_CRL),
    only("sslkeylogfile", None, &[], "keys of connections are not written to files"),
    // Authentication.
    obeyed("channel_binding", "PGCHANNELBINDING"),
    only(
        "require_auth",
        Some("PGREQUIREAUTH"),
        &[],
        "it is not supported; channel_binding=require makes sure that the password is not given to a false server",
    ),
    only("requirepeer", Some("PGREQUIREPEER"), &[], "the server's account is not checked"),
    only("gssencmode", Some("PGGSSENCMODE"), &["disable", "prefer"], NO_GSS),
    only("gssdelegation", Some("PGGSSDELEGATION"), &["0"], NO_GSS),
    ignored("krbsrvname"),
    ignored("gsslib"),
    only("scram_client_key", None, &[], NO_KEYS),
    only("scram_server_key", None, &[], NO_KEYS),
    only("oauth_issuer", None, &[], NO_OAUTH),
    only("oauth_client_id", None, &[], NO_OAUTH),
    only("oauth_client_secret", None, &[], NO_OAUTH),
    only("oauth_scope", None, &[], NO_OAUTH),
    // The protocol.
    only(
        "min_protocol_version",
        Some("PGMINPROTOCOLVERSION"),
        &["3.0"],
        "the program speaks version 3.0 of the protocol",
    ),
    ignored("max_protocol_version"),
    // Obsolete, but still accepted.
    ignored("authtype"),
    ignored("tty"),
];
