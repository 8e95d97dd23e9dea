use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// Who holds this token may do everything.
pub const ADMIN_TOKEN: &str = "admin";

/// Keys and certificates of a control plane, as files.
pub struct Credentials {
    pub authority: PathBuf,
    pub server_certificate: PathBuf,
    pub server_key: PathBuf,
    pub service_account_key: PathBuf,
    pub service_account_public_key: PathBuf,
    pub tokens: PathBuf,
}

impl Credentials {
    /// Makes them below `dir`, for an API server at these addresses.
    pub fn create(dir: &Path, addresses: &[IpAddr]) -> Result<Self> {
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.distinguished_name.push(DnType::CommonName, "sheave test authority");
        let authority_certificate = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);

        let names = ["kubernetes.default.svc".to_owned(), "localhost".to_owned(), "127.0.0.1".to_owned()];
        let names = names.into_iter().chain(addresses.iter().map(IpAddr::to_string));
        let server_key = KeyPair::generate()?;
        let mut server = CertificateParams::new(names.collect::<Vec<_>>())?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        let server_certificate = server.signed_by(&server_key, &issuer)?;
        let service_account_key = KeyPair::generate()?;

        let write = |name: &str, content: String| {
            let path = dir.join(name);
            fs::write(&path, content).with_context(|| format!("write {}", path.display())).map(|()| path)
        };
        Ok(Self {
            authority: write("authority.crt", authority_certificate.pem())?,
            server_certificate: write("server.crt", server_certificate.pem())?,
            server_key: write("server.key", server_key.serialize_pem())?,
            service_account_key: write("service-account.key", service_account_key.serialize_pem())?,
            service_account_public_key: write("service-account.pub", service_account_key.public_key_pem())?,
            tokens: write("tokens.csv", format!("{ADMIN_TOKEN},admin,admin,system:masters\n"))?,
        })
    }

    /// A kubeconfig (JSON is YAML) for the holder of `token`.
    pub fn kubeconfig(&self, server: &str, token: &str) -> Result<String> {
        let config = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": server,
                "certificate-authority": self.authority.to_str().context("a path in UTF-8")?,
            }}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        });
        Ok(serde_json::to_string_pretty(&config)?)
    }
}
