//! The lab's own certificate authority, and the one certificate that all its servers show.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use tokio_rustls::TlsAcceptor;

/// A fresh authority: its certificate for `ca.pem`, and an acceptor for the servers. The keys live in memory only.
pub struct Certificates {
    /// The authority, PEM.
    pub ca_pem: String,
    /// Shows the servers' certificate.
    pub acceptor: TlsAcceptor,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Certificates")
    }
}

/// Makes both for these names and addresses.
///
/// # Errors
///
/// A sentence: a name that no certificate can carry.
pub fn make(names: &[String], addresses: &[IpAddr]) -> Result<Certificates, String> {
    let sentence = |error: rcgen::Error| format!("cannot make the lab's certificate: {error}");
    let mut authority = CertificateParams::new(Vec::new()).map_err(sentence)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "icephone lab");
    let authority_key = KeyPair::generate().map_err(sentence)?;
    let ca_pem = authority.self_signed(&authority_key).map_err(sentence)?.pem();
    let issuer = Issuer::new(authority, authority_key);

    let subjects: Vec<String> = names.iter().cloned().chain(addresses.iter().map(IpAddr::to_string)).collect();
    let mut server = CertificateParams::new(subjects).map_err(sentence)?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.distinguished_name.push(DnType::CommonName, names.first().map_or("lab", String::as_str));
    let key = KeyPair::generate().map_err(sentence)?;
    let certificate = server.signed_by(&key, &issuer).map_err(sentence)?;

    let wrong = |error: String| format!("cannot use the lab's certificate: {error}");
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| wrong(error.to_owned()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)
        .map_err(|error| wrong(error.to_string()))?;
    Ok(Certificates { ca_pem, acceptor: TlsAcceptor::from(Arc::new(config)) })
}
