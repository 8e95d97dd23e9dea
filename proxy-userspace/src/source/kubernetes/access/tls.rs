use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};

/// Whose word is taken for it that a server is the right one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// The authorities that this machine trusts.
    System,
    /// These authorities, in PEM.
    Authorities(Vec<u8>),
    /// Anybody's.
    Anyone,
}

/// A client certificate with those that lead to its authority, and its key, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// TLS 1.2 and 1.3 with the ciphers of rustls; nothing is offered by ALPN yet.
pub(super) fn client_config(trust: &Trust, identity: Option<&Identity>) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Judge::new(trust)?));
    let Some(identity) = identity else { return Ok(builder.with_no_client_auth()) };
    let key = PrivateKeyDer::from_pem_slice(&identity.key).map_err(|error| format!("client-key: {error}"))?;
    builder
        .with_client_auth_cert(identity.certificates()?, key)
        .map_err(|error| format!("client-certificate and client-key: {error}"))
}

impl Identity {
    /// The client's own certificate comes first.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err("client-certificate: holds no certificate".into()),
            other => other.map_err(|error| format!("client-certificate: {error}")),
        }
    }

    /// Why a server that knows the time refuses it; `None` if it is valid now.
    pub(super) fn overdue(&self) -> Option<String> {
        let certificates = self.certificates().ok()?;
        let certificate = ParsedCertificate::try_from(certificates.first()?).ok()?;
        // Without an authority nothing is valid; but when it is valid is looked at first.
        let nobody = RootCertStore::empty();
        let algorithms = default_provider().signature_verification_algorithms.all;
        match verify_server_cert_signed_by_trust_anchor(&certificate, &nobody, &[], UnixTime::now(), algorithms) {
            Err(Error::InvalidCertificate(
                error @ (CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. }),
            )) => Some(format!("the client certificate is of no use: {error}")),
            _ => None,
        }
    }
}

/// Looks at the certificate of a server as Go does.
#[derive(Debug)]
enum Judge {
    /// Lets everything pass.
    Lenient,
    /// Has nothing to go by, for this reason.
    Helpless(String),
    Strict {
        inner: Arc<WebPkiServerVerifier>,
        authorities: Vec<CertificateDer<'static>>,
    },
}

impl Judge {
    fn new(trust: &Trust) -> Result<Self, String> {
        match trust {
            Trust::Anyone => Ok(Self::Lenient),
            Trust::System => {
                let found = rustls_native_certs::load_native_certs();
                let problem = found.errors.first().map(ToString::to_string);
                let problem = problem.unwrap_or_else(|| "this machine trusts no authority, and none is given".into());
                // It matters only if a server has to be judged.
                Ok(Self::strict(found.certs).unwrap_or(Self::Helpless(problem)))
            }
            Trust::Authorities(pem) => {
                let (found, problems): (Vec<_>, Vec<_>) = CertificateDer::pem_slice_iter(pem).partition(Result::is_ok);
                let problem = problems.into_iter().find_map(Result::err).map(|error| error.to_string());
                let problem = problem.unwrap_or_else(|| "holds no certificate".into());
                let found = found.into_iter().flatten().collect();
                Self::strict(found).ok_or_else(|| format!("certificate-authority: {problem}"))
            }
        }
    }

    /// Some are of no use to rustls, as some are to Go: those that are left may do. `None` if there are none.
    fn strict(authorities: Vec<CertificateDer<'static>>) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(authorities.iter().cloned());
        let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build();
        Some(Self::Strict { inner: inner.ok()?, authorities })
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (inner, authorities) = match self {
            Self::Lenient => return Ok(ServerCertVerified::assertion()),
            Self::Helpless(reason) => return Err(Error::General(reason.clone())),
            Self::Strict { inner, authorities } => (inner, authorities),
        };
        match inner.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            // A certificate that is its own authority, and trusted as such: RFC 5280 leaves it to us, webpki declines it
            // once its time is found to be right.
            Err(Error::InvalidCertificate(CertificateError::Other(error)))
                if error.0.to_string() == "CaUsedAsEndEntity" && authorities.contains(certificate) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_authorities_can_still_speak_in_plain_text() {
        assert!(Judge::strict(Vec::new()).is_none());
        let judge = Judge::Helpless("this machine trusts no authority".into());
        let certificate = CertificateDer::from(Vec::new());
        let name = ServerName::try_from("api.example").unwrap();
        let verdict = judge.verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()).unwrap_err();
        assert_eq!(verdict.to_string(), "unexpected error: this machine trusts no authority");
    }
}
