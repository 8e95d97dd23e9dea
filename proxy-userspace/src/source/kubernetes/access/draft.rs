use std::{collections::BTreeMap, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri, uri::Scheme};
use serde_json::{Value, json};

use super::{
    AccessError, Environment, address,
    authorization::{self, authorization},
    kubeconfig::{self, Cluster, User},
    plugin::Plugin,
    secret,
    tls::{Identity, Trust},
};
/// A name that the certificate of every API server carries, whatever address it is reached at.
const SERVER_NAME: &str = "kubernetes.default.svc";

/// The extension of a cluster that is meant for plugins.
const PLUGIN_EXTENSION: &str = "client.authentication.k8s.io/exec";

/// What the files say, before anything is made of it.
#[derive(Clone, PartialEq)]
pub(in super::super) struct Draft {
    /// Where it is from, for messages.
    pub(super) origin: String,
    pub(super) addresses: Vec<Uri>,
    pub(super) server_name: Option<String>,
    pub(super) trust: Trust,
    pub(super) identity: Option<Identity>,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) impersonated: Impersonated,
    pub(super) proxy_url: Option<String>,
    pub(in super::super) plugin: Option<Plugin>,
    /// One line each, for whoever wrote the files.
    pub(in super::super) warnings: Vec<String>,
}

/// Who requests are made as.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Impersonated {
    pub(super) user: Option<String>,
    pub(super) uid: Option<String>,
    pub(super) groups: Option<Vec<String>>,
    pub(super) extra: Option<BTreeMap<String, Vec<String>>>,
}

impl Draft {
    pub(in super::super) fn error(&self, reason: String) -> AccessError {
        AccessError::new(&self.origin, reason)
    }

    /// Reads whatever there is to read, anew each time.
    ///
    /// # Errors
    /// What is missing, cannot be read, or contradicts itself: the cases that client-go refuses.
    pub(in super::super) fn read(
        kubeconfig: Option<&Path>,
        given: &[Uri],
        environment: &Environment,
    ) -> Result<Self, AccessError> {
        let Some(path) = kubeconfig else {
            return match given.first() {
                Some(first) if first.scheme() == Some(&Scheme::HTTP) => {
                    Self::of("--master", &Cluster::default(), &User::default(), given)
                }
                _ => Self::of_service_account(environment, given),
            };
        };
        let origin = format!("kubeconfig {}", path.display());
        let failed = |reason| AccessError::new(&origin, reason);
        let chosen = kubeconfig::read(path).map_err(failed)?;
        let mut draft = match chosen.cluster {
            Ok(cluster) => Self::of(&origin, &cluster, &chosen.user, given)?,
            Err(_) if !given.is_empty() => Self::of(&origin, &Cluster::default(), &chosen.user, given)?,
            // As with client-go.
            Err(reason) if environment.has_service_account() => {
                let mut draft = Self::of_service_account(environment, given)?;
                draft.warnings.push(format!("{reason}; the service account of this pod is used instead"));
                draft
            }
            Err(reason) => return Err(failed(reason)),
        };
        draft.warnings.extend(chosen.warnings);
        for warning in &mut draft.warnings {
            *warning = format!("{origin}: {warning}");
        }
        Ok(draft)
    }

    fn of_service_account(environment: &Environment, given: &[Uri]) -> Result<Self, AccessError> {
        let file = |name: &str| environment.account.join(name).to_string_lossy().into_owned();
        let authority = file("ca.crt");
        let cluster = Cluster {
            server: environment.service.as_deref().unwrap_or_default().into(),
            tls_server_name: SERVER_NAME.into(),
            certificate_authority: authority.as_str().into(),
            ..Cluster::default()
        };
        let user = User { token_file: file("token").as_str().into(), ..User::default() };
        Self::of("service account", &cluster, &user, given)
    }

    fn of(origin: &str, cluster: &Cluster, user: &User, given: &[Uri]) -> Result<Self, AccessError> {
        Self::combine(origin, cluster, user, given).map_err(|reason| AccessError::new(origin, reason))
    }

    fn combine(origin: &str, cluster: &Cluster, user: &User, given: &[Uri]) -> Result<Self, String> {
        let is_insecure = cluster.insecure_skip_tls_verify.unwrap_or_default();
        let has_authority = [&cluster.certificate_authority, &cluster.certificate_authority_data];
        let has_authority = has_authority.iter().any(|field| field.get().is_some());
        let has_certificate = [&user.client_certificate, &user.client_certificate_data];
        let has_certificate = has_certificate.iter().any(|field| field.get().is_some());
        let mut password = None;
        let addresses = if given.is_empty() {
            let server = cluster.server.get().ok_or("its cluster has no server")?;
            password = authorization::in_url(server);
            let scheme = if has_authority || has_certificate || is_insecure { "https" } else { "http" };
            let address = address::parse(server, scheme);
            vec![address.ok_or_else(|| format!("server {server:?} is neither a URL nor HOST:PORT"))?]
        } else {
            given.to_vec()
        };
        let is_secure = addresses.first().is_some_and(|address| address.scheme() == Some(&Scheme::HTTPS));
        let server_name = cluster.tls_server_name.get().or((addresses.len() > 1).then_some(SERVER_NAME));
        let mut draft = Self {
            origin: origin.to_owned(),
            server_name: server_name.filter(|_| is_secure).map(str::to_owned),
            trust: Trust::System,
            identity: None,
            authorization: password,
            impersonated: impersonated(user)?,
            proxy_url: cluster.proxy_url.get().map(str::to_owned),
            plugin: None,
            warnings: Vec::new(),
            addresses,
        };
        // Nobody is told a secret that everybody on the way could read.
        if !is_secure {
            return Ok(draft);
        }
        let authority = &cluster.certificate_authority;
        let authority = secret::bytes("certificate-authority", &cluster.certificate_authority_data, authority)?;
        draft.trust = match authority {
            Some(_) if is_insecure => {
                return Err("certificate-authority and insecure-skip-tls-verify are both given".into());
            }
            None if is_insecure => Trust::Anyone,
            Some(pem) => Trust::Authorities(pem),
            None => Trust::System,
        };
        if has_certificate {
            draft.identity = identity(user)?;
        }
        draft.authorization = draft.authorization.or(authorization(user)?);
        draft.plugin = draft.plugin(cluster, user)?;
        Ok(draft)
    }

    /// A plugin counts only where there is nothing else to be known by.
    fn plugin(&self, cluster: &Cluster, user: &User) -> Result<Option<Plugin>, String> {
        let provider = user.auth_provider.as_ref().map(|provider| provider.name.get().unwrap_or_default());
        let Some(exec) = &user.exec else {
            return match provider {
                // client-go takes such plugins out one by one, and kube-proxy is built with none.
                Some(name) => Err(format!("auth-provider {name:?} is not supported; use exec, or a token")),
                None => Ok(None),
            };
        };
        if provider.is_some() {
            return Err("exec and auth-provider are both given".into());
        }
        let plugin = Plugin::new(exec, Some(self.told(cluster)))?;
        Ok((self.authorization.is_none() && self.identity.is_none()).then_some(plugin))
    }

    /// What a plugin is told of the cluster (`Cluster` of client.authentication.k8s.io/v1).
    fn told(&self, cluster: &Cluster) -> Value {
        let server = self.addresses.first().map(ToString::to_string).unwrap_or_default();
        let mut told = json!({"server": server.trim_end_matches('/')});
        if let Trust::Authorities(pem) = &self.trust {
            told["certificate-authority-data"] = STANDARD.encode(pem).into();
        }
        for (field, text) in [("tls-server-name", &cluster.tls_server_name), ("proxy-url", &cluster.proxy_url)] {
            if let Some(text) = text.get() {
                told[field] = text.into();
            }
        }
        for (field, flag) in [
            ("insecure-skip-tls-verify", cluster.insecure_skip_tls_verify),
            ("disable-compression", cluster.disable_compression),
        ] {
            if flag == Some(true) {
                told[field] = true.into();
            }
        }
        let extensions = cluster.extensions.iter().flatten();
        let mut own = extensions.filter(|extension| extension.name.get() == Some(PLUGIN_EXTENSION));
        if let Some(config) = own.next().and_then(|extension| extension.extension.clone()) {
            told["config"] = config;
        }
        told
    }
}

fn identity(user: &User) -> Result<Option<Identity>, String> {
    let certificate = secret::bytes("client-certificate", &user.client_certificate_data, &user.client_certificate)?;
    let key = secret::bytes("client-key", &user.client_key_data, &user.client_key)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Identity { certificate, key })),
        (Some(_), None) => Err("client-key is missing beside client-certificate".into()),
        (None, _) => Ok(None),
    }
}

fn impersonated(user: &User) -> Result<Impersonated, String> {
    let impersonated = Impersonated {
        user: user.impersonate.get().map(str::to_owned),
        uid: user.impersonate_uid.get().map(str::to_owned),
        groups: user.impersonate_groups.clone().filter(|groups| !groups.is_empty()),
        extra: user.impersonate_extra.clone().filter(|extra| !extra.is_empty()),
    };
    if impersonated.user.is_none() && impersonated != Impersonated::default() {
        return Err("as-uid, as-groups and as-user-extra need as".into());
    }
    Ok(impersonated)
}
