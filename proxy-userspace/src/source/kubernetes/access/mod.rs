//! Where the API server is, how it is known, and as whom it is asked: a kubeconfig, read as leniently as client-go reads
//! it, or the service account of a pod.

mod address;
mod authorization;
mod draft;
mod kubeconfig;
mod plugin;
mod proxy;
mod secret;
mod tls;

#[cfg(test)]
pub(super) mod tests;

use std::{env, path::PathBuf};

use http::{
    StatusCode, Uri,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
    uri::Scheme,
};
use kube::client::ConfigExt;
use rustls::{ClientConfig, pki_types::ServerName};

pub(super) use self::{
    address::{host_and_port, parse as parse_address},
    draft::Draft,
    plugin::{Issued, Plugin},
    proxy::Proxies,
};
use self::{draft::Impersonated, tls::Identity};

/// What the process is told by its environment.
#[derive(Clone, Debug)]
pub(super) struct Environment {
    proxies: Proxies,
    /// The Service of the API server, in a pod.
    service: Option<String>,
    /// Where a pod has its service account.
    account: PathBuf,
}

/// Why the API server cannot be asked now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {reason}")]
pub(super) struct AccessError {
    origin: String,
    reason: String,
}

/// A way to ask the API server.
pub(super) struct Access {
    /// At least one, all of one scheme. The path of the first is a prefix of every request.
    pub(super) addresses: Vec<Uri>,
    pub(super) tls: ClientConfig,
    /// Instead of the host of the address.
    pub(super) server_name: Option<ServerName<'static>>,
    pub(super) proxies: Proxies,
    /// Has what every request carries.
    pub(super) client: kube::Config,
    identity: Option<Identity>,
    origin: String,
}

impl Environment {
    /// Reads the environment of this process, and says what in it cannot be used.
    pub(super) fn of_process() -> Self {
        let variable = |name: &str| env::var(name).ok();
        let (proxies, unusable) = Proxies::from_environment(variable);
        for line in unusable {
            tracing::warn!("{line}; it is ignored");
        }
        Self::new(proxies, variable, "/var/run/secrets/kubernetes.io/serviceaccount".into())
    }

    fn new(proxies: Proxies, variable: impl Fn(&str) -> Option<String>, account: PathBuf) -> Self {
        let given = |name| variable(name).filter(|value| !value.is_empty());
        let service = given("KUBERNETES_SERVICE_HOST").zip(given("KUBERNETES_SERVICE_PORT"));
        let service = service.map(|(host, port)| {
            let host = if host.contains(':') { format!("[{host}]") } else { host };
            format!("https://{host}:{port}")
        });
        Self { proxies, service, account }
    }

    /// Whether it names an API server, as in every pod.
    pub(super) fn is_pod(&self) -> bool {
        self.service.is_some()
    }

    fn has_service_account(&self) -> bool {
        self.is_pod() && self.account.join("token").is_file()
    }
}

impl AccessError {
    pub(super) fn new(origin: &str, reason: String) -> Self {
        Self { origin: origin.to_owned(), reason }
    }
}

impl Access {
    /// # Errors
    /// Values that no request and no connection can be made of.
    pub(super) fn new(draft: &Draft, issued: Option<&Issued>, environment: &Environment) -> Result<Self, AccessError> {
        Self::make(draft, issued, environment).map_err(|reason| draft.error(reason))
    }

    fn make(draft: &Draft, issued: Option<&Issued>, environment: &Environment) -> Result<Self, String> {
        let first = draft.addresses.first().ok_or("no server is given")?;
        let identity = draft.identity.as_ref().or_else(|| issued?.identity.as_ref()).cloned();
        let token = issued.and_then(|issued| issued.token.as_deref());
        let server_name = draft.server_name.as_ref().map(|name| {
            let parsed = ServerName::try_from(name.clone());
            parsed.map_err(|_| format!("tls-server-name {name:?} is not a name that a certificate can have"))
        });
        let proxies = match &draft.proxy_url {
            None => environment.proxies.clone(),
            Some(url) => {
                let proxies = environment.proxies.clone().with_fixed(url);
                proxies.ok_or("proxy-url is not the URL of an http, https or socks5 proxy")?
            }
        };
        let mut client = kube::Config::new(first.clone());
        let Impersonated { user, uid, groups, extra } = draft.impersonated.clone();
        client.auth_info.impersonate = user;
        client.auth_info.impersonate_uid = uid;
        client.auth_info.impersonate_groups = groups;
        client.auth_info.impersonate_user_extra = extra.map(|extra| extra.into_iter().collect());
        let authorization = draft.authorization.clone();
        let authorization =
            authorization.map_or_else(|| token.map(authorization::bearer).transpose(), |it| Ok(Some(it)))?;
        client.headers.extend(authorization.map(|value| (AUTHORIZATION, value)));
        if first.scheme() == Some(&Scheme::HTTP) {
            // A tunnel takes it when it is opened; these requests carry it themselves, if all of them go to a proxy.
            let proxied: Option<Vec<_>> = draft.addresses.iter().map(|address| proxies.of(address)).collect();
            let password = proxied.and_then(|proxied| proxied.first()?.basic_auth().cloned());
            client.headers.extend(password.map(|value| (PROXY_AUTHORIZATION, value)));
        }
        client.extra_headers_layer().map_err(|error| format!("as: {error}"))?;
        Ok(Self {
            addresses: draft.addresses.clone(),
            tls: tls::client_config(&draft.trust, identity.as_ref())?,
            server_name: server_name.transpose()?,
            proxies,
            client,
            identity,
            origin: draft.origin.clone(),
        })
    }

    /// Why the server answers with `status`, if this side knows better than to say so.
    pub(super) fn explain(&self, status: StatusCode) -> Option<AccessError> {
        let reason = self.identity.as_ref().filter(|_| status == StatusCode::UNAUTHORIZED)?.overdue()?;
        Some(AccessError::new(&self.origin, format!("{status}: {reason}")))
    }
}
