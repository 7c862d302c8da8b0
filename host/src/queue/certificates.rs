//! Judges the server's certificate as libpq with OpenSSL does, where that differs from what browsers ask.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use x509_cert::{
    Certificate,
    der::{
        Decode, Tag, Tagged,
        asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef},
        oid::db::{rfc4519::CN, rfc5280::ID_CE_SUBJECT_ALT_NAME},
    },
};

/// Takes any certificate: the connection is secret, but nobody knows with whom.
#[derive(Debug)]
pub(super) struct Unverified {
    schemes: Vec<SignatureScheme>,
}

impl Unverified {
    pub(super) fn new(provider: &CryptoProvider) -> Self {
        Self { schemes: provider.signature_verification_algorithms.supported_schemes() }
    }
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    // Whoever stands between could sign with a certificate of their own, so a signature says nothing here; and servers
    // have certificates of the first version that could not even be read for it.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

/// Takes certificates of trusted authorities, and the trusted certificates themselves.
#[derive(Debug)]
pub(super) struct Verified {
    inner: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    /// Whether the certificate has to be made out for the host.
    names: bool,
}

impl Verified {
    pub(super) fn new(inner: Arc<WebPkiServerVerifier>, trusted: Vec<CertificateDer<'static>>, names: bool) -> Self {
        Self { inner, trusted, names }
    }

    /// Many servers have a certificate that they signed themselves and that says of itself to be an authority, as the
    /// recipe in Postgres' manual makes it. It is trusted if it is among the trusted ones, byte for byte.
    fn judge_trusted(&self, shown: &CertificateDer<'_>, host: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
        let certificate = read(shown)?;
        let validity = &certificate.tbs_certificate.validity;
        let now = now.as_secs();
        if now < validity.not_before.to_unix_duration().as_secs() {
            return Err(CertificateError::NotValidYet.into());
        }
        if now > validity.not_after.to_unix_duration().as_secs() {
            return Err(CertificateError::Expired.into());
        }
        if !self.names {
            return Ok(());
        }
        let named = rustls::server::ParsedCertificate::try_from(shown)
            .and_then(|parsed| rustls::client::verify_server_name(&parsed, host));
        named.or_else(|error| if has_common_name(&certificate, host) { Ok(()) } else { Err(error) })
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.trusted.iter().any(|trusted| trusted == shown) {
            return self.judge_trusted(shown, host, now).map(|()| ServerCertVerified::assertion());
        }
        match self.inner.verify_server_cert(shown, intermediates, host, ocsp, now) {
            // The name is looked at last: whoever fails by it alone has passed all else.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names || has_common_name(&read(shown)?, host) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, shown, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, shown, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn read(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

/// Old certificates name the host in their subject. As in libpq that counts if there are no other names in them.
fn has_common_name(certificate: &Certificate, host: &ServerName<'_>) -> bool {
    let tbs = &certificate.tbs_certificate;
    let has_others = tbs.extensions.iter().flatten().any(|extension| extension.extn_id == ID_CE_SUBJECT_ALT_NAME);
    if has_others {
        return false;
    }
    let host = host.to_str();
    let mut attributes = tbs.subject.0.iter().flat_map(|names| names.0.iter());
    let Some(name) = attributes.find(|attribute| attribute.oid == CN).map(|attribute| &attribute.value) else {
        return false;
    };
    let text = match name.tag() {
        Tag::Utf8String => name.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned()),
        Tag::PrintableString => name.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()),
        Tag::TeletexString => name.decode_as::<TeletexStringRef<'_>>().map(|text| text.as_str().to_owned()),
        _ => name.decode_as::<Ia5StringRef<'_>>().map(|text| text.as_str().to_owned()),
    };
    text.is_ok_and(|name| matches_host(&name, &host))
}

/// A star stands for the first part of a host's name, and for no more.
fn matches_host(pattern: &str, host: &str) -> bool {
    let host = host.trim_end_matches('.');
    match pattern.strip_prefix("*.") {
        Some(rest) => {
            host.split_once('.').is_some_and(|(first, domain)| !first.is_empty() && domain.eq_ignore_ascii_case(rest))
        }
        None => pattern.eq_ignore_ascii_case(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_part_of_a_name() {
        assert!(matches_host("*.example.com", "db.example.com") && matches_host("DB.example.com", "db.example.com."));
        for (pattern, host) in [
            ("*.example.com", "example.com"),
            ("*.example.com", "a.b.example.com"),
            ("*", "db"),
            ("d*.example.com", "db.example.com"),
        ] {
            assert!(!matches_host(pattern, host), "{pattern} {host}");
        }
    }
}
