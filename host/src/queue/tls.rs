//! Encrypted connections: how much is asked of the server's certificate, and the files that say whom to trust.
//!
//! The files are read for each connection, so that certificates which are renewed while the host runs are used.

use std::{
    env,
    error::Error,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    version::{TLS12, TLS13},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::certificates::{Unverified, Verified};

/// When to encrypt, and what to ask of the server, as libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// Never.
    Disable,
    /// Only if the server refuses a connection without.
    Allow,
    /// If the server can; without, otherwise.
    #[default]
    Prefer,
    /// Always, whoever the server is; if there is a file of root certificates, as [`TlsMode::VerifyCa`].
    Require,
    /// Always, and the server's certificate comes from an authority that is trusted.
    VerifyCa,
    /// As before, and it is made out for the host that was asked for.
    VerifyFull,
}

/// Which authorities are trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RootCertificates {
    /// Those in `~/.postgresql/root.crt`, if there is one.
    #[default]
    Default,
    /// Those in this file.
    File(PathBuf),
    /// Those that this system trusts.
    System,
}

/// How connections are secured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// `None`: as the driver's configuration says, which knows `disable`, `prefer` and `require`.
    pub mode: Option<TlsMode>,
    pub roots: RootCertificates,
    /// This side's certificate; unless set, `~/.postgresql/postgresql.crt` if there is one.
    pub certificate: Option<PathBuf>,
    /// The key of this side's certificate; unless set, `~/.postgresql/postgresql.key`.
    pub key: Option<PathBuf>,
    /// Whether this side's certificate is shown at all.
    pub send_certificate: bool,
    /// Whether the server is told the host's name that was asked for.
    pub send_name: bool,
    /// The protocol's versions that may be used.
    pub versions: TlsVersions,
    /// The folder behind `~`; `None`: there is none.
    pub home: Option<PathBuf>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            mode: None,
            roots: RootCertificates::Default,
            certificate: None,
            key: None,
            send_certificate: true,
            send_name: true,
            versions: TlsVersions::default(),
            home: env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
        }
    }
}

/// The protocol's versions that may be used. Older ones than these never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsVersions {
    pub tls12: bool,
    pub tls13: bool,
}

impl Default for TlsVersions {
    fn default() -> Self {
        Self { tls12: true, tls13: true }
    }
}

/// Why a connection cannot be secured as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{what} {} cannot be used: {reason}", path.display())]
    File { what: &'static str, path: PathBuf, reason: String },
    #[error(
        "there is no file of root certificates{}, so the server's certificate cannot be verified; \
         name one with sslrootcert, use sslrootcert=system for the authorities that this system trusts, \
         or use sslmode=require where anyone may answer",
        .0.as_ref().map(|path| format!(" at {}", path.display())).unwrap_or_default()
    )]
    NoRoots(Option<PathBuf>),
    #[error("this system's root certificates cannot be read: {0}")]
    System(String),
    #[error("the settings of TLS do not fit together: {0}")]
    Settings(String),
}

impl TlsSettings {
    /// What encrypts one connection. `direct`: without asking the server first, as `sslnegotiation=direct`.
    pub(super) fn connector(&self, mode: TlsMode, direct: bool) -> Result<MakeRustlsConnect, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions.list())
            .map_err(|error| TlsError::Settings(error.to_string()))?;
        let builder = match self.roots(mode)? {
            Some(roots) => {
                let names = mode == TlsMode::VerifyFull;
                builder.dangerous().with_custom_certificate_verifier(verified(roots, names, provider)?)
            }
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unverified::new(&provider))),
        };
        let mut config = match self.identity()? {
            Some((chain, key, path)) => builder.with_client_auth_cert(chain, key).map_err(|error| TlsError::File {
                what: "the client certificate",
                path,
                reason: format!("it does not go with its key: {error}"),
            })?,
            None => builder.with_no_client_auth(),
        };
        config.enable_sni = self.send_name;
        if direct {
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(MakeRustlsConnect::new(config))
    }

    /// What encrypts nothing, for connections without TLS: no file is read for it.
    pub(super) fn nothing() -> Result<MakeRustlsConnect, TlsError> {
        let plain = Self { roots: RootCertificates::Default, send_certificate: false, home: None, ..Self::default() };
        plain.connector(TlsMode::Disable, false)
    }

    /// The authorities to verify with, or `None` where nothing is verified.
    fn roots(&self, mode: TlsMode) -> Result<Option<Vec<CertificateDer<'static>>>, TlsError> {
        let must_verify = matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
        match &self.roots {
            RootCertificates::System => system_roots().map(Some),
            RootCertificates::File(path) if must_verify || path.exists() => {
                read_certificates("the file of root certificates", path).map(Some)
            }
            // As libpq: a file that was named but is not there is missed by those who verify, and only by those.
            RootCertificates::File(_) => Ok(None),
            RootCertificates::Default => match self.in_home("root.crt") {
                Some(path) if path.exists() => read_certificates("the file of root certificates", &path).map(Some),
                missing if must_verify => Err(TlsError::NoRoots(missing)),
                _ => Ok(None),
            },
        }
    }

    /// This side's certificate with its key, and the certificate's file.
    #[allow(clippy::type_complexity, reason = "three things that are used once, at once")]
    fn identity(&self) -> Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, PathBuf)>, TlsError> {
        if !self.send_certificate {
            return Ok(None);
        }
        let certificate = match &self.certificate {
            Some(path) => path.clone(),
            None => match self.in_home("postgresql.crt").filter(|path| path.exists()) {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        let chain = read_certificates("the client certificate", &certificate)?;
        let Some(key) = self.key.clone().or_else(|| self.in_home("postgresql.key")) else {
            return Err(TlsError::Settings("there is a client certificate but no sslkey".to_owned()));
        };
        Ok(Some((chain, read_key(&key)?, certificate)))
    }

    fn in_home(&self, name: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(".postgresql").join(name))
    }
}

impl TlsVersions {
    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        [(self.tls12, &TLS12), (self.tls13, &TLS13)].into_iter().filter(|(wanted, _)| *wanted).map(|(_, v)| v).collect()
    }
}

impl fmt::Display for TlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Allow => "allow",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        })
    }
}

/// Why a handshake failed, for people. `None`: it was something else that failed.
pub(super) fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(current) = cause {
        let inner = current.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let failed = inner
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
            .or_else(|| current.downcast_ref::<rustls::Error>());
        if let Some(failed) = failed {
            return Some(explain_failure(failed));
        }
        cause = current.source();
    }
    None
}

fn explain_failure(failed: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Wrong, Error::*};
    let plain = match failed {
        InvalidCertificate(Wrong::Expired | Wrong::ExpiredContext { .. }) => {
            "the server's certificate has expired; it has to be renewed there"
        }
        InvalidCertificate(Wrong::NotValidYet | Wrong::NotValidYetContext { .. }) => {
            "the server's certificate is not valid yet; compare the clocks of this machine and of the server's"
        }
        InvalidCertificate(Wrong::UnknownIssuer) => {
            "the server's certificate comes from an unknown authority; name the file with that authority's certificate \
             with sslrootcert"
        }
        InvalidCertificate(Wrong::NotValidForName | Wrong::NotValidForNameContext { .. }) => {
            "the server's certificate is made out for another host name; connect by the name that is in it, or use \
             sslmode=verify-ca if any server of that authority will do"
        }
        InvalidCertificate(_) => "the server's certificate cannot be used",
        AlertReceived(
            Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnknownCA
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::AccessDenied,
        ) => "the server does not accept this side's certificate (sslcert)",
        InvalidMessage(_) => "the server does not answer as TLS wants it",
        _ => "TLS could not be set up with the server",
    };
    format!("{plain} ({failed})")
}

fn verified(
    trusted: Vec<CertificateDer<'static>>,
    names: bool,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<Verified>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| TlsError::Settings(format!("none of the root certificates can be used: {error}")))?;
    Ok(Arc::new(Verified::new(inner, trusted, names)))
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(TlsError::System(if reasons.is_empty() {
            "there are none".to_owned()
        } else {
            reasons.join("; ")
        }));
    }
    Ok(found.certs)
}

fn read_certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::File { what, path: path.to_owned(), reason };
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match found.map_err(|error| wrong(error.to_string()))? {
        found if found.is_empty() => Err(wrong("it holds no certificate in PEM format".to_owned())),
        found => Ok(found),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let wrong = |reason: String| TlsError::File { what: "the client's key", path: path.to_owned(), reason };
    let metadata = fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
    // As libpq: a key is for its owner alone, or root lets a group have it.
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.is_file() && metadata.mode() & forbidden != 0 {
        return Err(wrong("others may read it; take that from them with chmod 600".to_owned()));
    }
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let is_encrypted = ["ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| text.windows(mark.len()).any(|window| window == mark.as_bytes()));
    if is_encrypted {
        return Err(wrong(
            "it is encrypted, and keys with a passphrase are not supported; \
             write it without one (openssl pkey -in KEY -out NEW), readable for its user alone"
                .to_owned(),
        ));
    }
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| wrong(format!("it holds no private key in PEM format: {error}")))
}
