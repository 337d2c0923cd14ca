//! TLS towards servers: who is trusted, and under which names (RFC 5922 §7.2).
//!
//! Trust is the operating system's store plus the certificates named by `tls.ca`. A server is accepted if its
//! certificate carries one of the names that the core lists: the SIP domain, or a host inside it.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pipe::StreamFailure;

/// Reads the certificates of a PEM file (`tls.ca`).
///
/// # Errors
///
/// A sentence that names the file, if it cannot be read or holds no certificate.
pub fn read_ca(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let name = path.display();
    let pem = std::fs::read(path)
        .map_err(|error| format!("cannot read tls.ca {name}: {error}; check the path and its permissions"))?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match certificates {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(format!(
            "tls.ca {name} holds no certificate in PEM form; convert it, for example: openssl x509 -in {name} -out ca.pem"
        )),
        Err(error) => Err(format!("tls.ca {name} is not a PEM file: {error}")),
    }
}

/// Makes TLS connections for one account. The trust store is read at the first of them.
#[derive(Debug)]
pub struct TlsClient {
    extra_roots: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    trust: OnceLock<Result<Arc<Verifier>, StreamFailure>>,
}

impl TlsClient {
    /// Trusts the operating system's store and `extra_roots`.
    pub fn new(extra_roots: Vec<CertificateDer<'static>>) -> Self {
        Self { extra_roots, provider: Arc::new(aws_lc_rs::default_provider()), trust: OnceLock::new() }
    }

    /// Shakes hands on a connected stream; the certificate must carry one of `names`.
    ///
    /// # Errors
    ///
    /// [`StreamFailure::Certificate`] with a sentence if the certificate is not accepted, another failure otherwise.
    pub async fn handshake(
        &self,
        sni: &str,
        names: &[String],
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, StreamFailure> {
        let verifier = self.trust.get_or_init(|| self.load_trust()).clone()?;
        let names = names.iter().map(|name| server_name(name)).collect::<Result<Vec<_>, _>>()?;
        let verifier = Arc::new(AnyOfNames { names, inner: verifier });
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| StreamFailure::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
            .connect(server_name(sni)?, stream)
            .await
            .map_err(|error| StreamFailure::from_io(&error))
    }

    fn load_trust(&self) -> Result<Arc<Verifier>, StreamFailure> {
        Verifier::new_with_extra_roots(self.extra_roots.clone(), Arc::clone(&self.provider))
            .map(Arc::new)
            .map_err(|error| StreamFailure::Certificate(error.to_string()))
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, StreamFailure> {
    ServerName::try_from(name.to_owned()).map_err(|_| StreamFailure::Tls(format!("{name:?} is no host name")))
}

/// The platform's verifier, asked once per acceptable name.
#[derive(Debug)]
struct AnyOfNames {
    names: Vec<ServerName<'static>>,
    inner: Arc<Verifier>,
}

impl ServerCertVerifier for AnyOfNames {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut first_error = None;
        for name in &self.names {
            match self.inner.verify_server_cert(end_entity, intermediates, name, ocsp_response, now) {
                Ok(verified) => return Ok(verified),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| rustls::Error::from(CertificateError::NotValidForName)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tls_tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    struct Authority {
        root: CertificateDer<'static>,
        issuer: Issuer<'static, KeyPair>,
    }

    fn new_authority() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        Authority { root, issuer }
    }

    /// A server with a certificate for `name`; the verdict of a client that trusts `roots` and accepts `names`.
    async fn verdict(
        authority: &Authority,
        name: &str,
        roots: Vec<CertificateDer<'static>>,
        names: &[&str],
    ) -> Result<(), StreamFailure> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let _ = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
        });
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let stream = TcpStream::connect(address).await.unwrap();
        let client = TlsClient::new(roots);
        client.handshake("example.test", &names, stream).await.map(|_| ())
    }

    #[tokio::test]
    async fn a_certificate_for_any_of_the_names_is_accepted() {
        let authority = new_authority();
        let roots = || vec![authority.root.clone()];
        let names = ["example.test", "edge.example.test"];
        for name in names {
            let verdict = verdict(&authority, name, roots(), &names).await;
            assert_eq!(verdict, Ok(()), "certificate for {name}");
        }
    }

    #[tokio::test]
    async fn a_wrong_name_and_an_unknown_issuer_are_certificate_failures_with_a_reason() {
        let authority = new_authority();
        let roots = vec![authority.root.clone()];
        let wrong = verdict(&authority, "other.test", roots, &["example.test"]).await;
        let Err(StreamFailure::Certificate(text)) = wrong else {
            panic!("{wrong:?}");
        };
        assert!(text.contains("example.test"), "{text}");
        let own = vec![new_authority().root];
        let unknown = verdict(&authority, "example.test", own, &["example.test"]).await;
        assert!(matches!(&unknown, Err(StreamFailure::Certificate(_))), "{unknown:?}");
    }

    #[test]
    fn a_file_without_a_certificate_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = read_ca(file.path()).unwrap_err();
        assert!(error.contains("holds no certificate in PEM form"), "{error}");
    }
}
