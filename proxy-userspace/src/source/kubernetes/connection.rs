use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Request, Response, Uri, uri::Scheme};
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::sync::watch;
use tower::{BoxError, Service, ServiceBuilder};

use super::{KubernetesConfig, servers::Servers};
use crate::source::SourceError;

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until the head of a response: connecting, the TLS handshake and the server's thinking.
    pub(super) response: Duration,
    /// Between two objects of a list that comes as a stream; for a whole page otherwise.
    pub(super) list_stall: Duration,
}

impl Limits {
    /// A list is asked for in pages and a watch answers at once, so that a server which takes longer hangs.
    pub(super) const PRODUCTION: Self = Self { response: Duration::from_secs(20), list_stall: Duration::from_secs(30) };
}

/// A watch may be silent for minutes. A server that lost its power is found out by TCP (see [`Servers`]); one that hangs
/// while its kernel goes on, or is behind something that does, by a ping of HTTP/2 without an answer: after 25 s, where
/// client-go takes 45 s. There is none in HTTP/1.1, where the watch has to be over first.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The least time from one watch to the next: a server, or what is between, may end every watch as soon as it begins.
pub(super) const WATCH_SPACING: Duration = Duration::from_millis(500);

/// A name that the certificate of every API server carries, whatever address it is reached at.
const SERVER_NAME: &str = "kubernetes.default.svc";

/// A client of the API server.
pub(super) struct Connection {
    config: KubernetesConfig,
    pub(super) client: Client,
    pub(super) servers: Servers,
    /// Changes whenever a server agrees to a watch.
    pub(super) watching: watch::Receiver<()>,
    pub(super) limits: Limits,
}

impl Connection {
    pub(super) async fn new(given: &KubernetesConfig, limits: Limits) -> Result<Self, SourceError> {
        let (config, addresses) = client_config(given).await?;
        if config.proxy_url.is_some() {
            return Err(SourceError::Proxy);
        }
        let servers = Servers::new(addresses);
        let (sender, watching) = watch::channel(());
        let https = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
        let https = match &config.tls_server_name {
            Some(name) => {
                let name = name.clone().try_into().map_err(|_| SourceError::ServerName(name.clone()))?;
                https.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => https,
        };
        // kube's own connector offers HTTP/1.1 alone.
        let https = https.enable_all_versions().wrap_connector(servers.connector());
        // No connection is kept for a later request: that one goes to the server that is preferred by then.
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            // hyper takes a connection for idle that is not in its pool any more, even if a watch is on it.
            .http2_keep_alive_while_idle(true)
            .build::<_, Body>(https);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer()?)
            .layer(config.extra_headers_layer()?)
            .service(Observed { http, watching: sender, response_limit: limits.response, last_watch: Arc::default() });
        Ok(Self { config: given.clone(), client: Client::new(service, "default"), servers, watching, limits })
    }

    /// Reads the credentials anew. By itself the client looks into a token's file once a minute.
    ///
    /// # Errors
    /// As at the start: a file is missing or of no use. The client stays as it was.
    pub(super) async fn renew(&mut self) -> Result<(), SourceError> {
        *self = Self::new(&self.config, self.limits).await?;
        Ok(())
    }
}

/// The servers that a connection would be made to.
pub(super) async fn addresses(config: &KubernetesConfig) -> Result<Servers, SourceError> {
    client_config(config).await.map(|(_, addresses)| Servers::new(addresses))
}

/// Credentials with the address to name in requests, and the addresses to connect to.
async fn client_config(config: &KubernetesConfig) -> Result<(Config, Vec<Uri>), SourceError> {
    let given = config.servers.iter().map(String::as_str).map(str::trim).filter(|server| !server.is_empty());
    let given = given.map(server_address).collect::<Result<Vec<Uri>, _>>()?;
    let in_pod;
    let mut client = match (&config.kubeconfig, given.first()) {
        (Some(path), _) => {
            in_pod = false;
            let unusable = |source| SourceError::Kubeconfig { path: path.clone(), source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(unusable)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(unusable)?
        }
        (None, Some(first)) if first.scheme() == Some(&Scheme::HTTP) => {
            in_pod = false;
            Config::new(first.clone())
        }
        (None, _) => {
            in_pod = true;
            Config::incluster()?
        }
    };
    let addresses = if given.is_empty() { vec![client.cluster_url.clone()] } else { given };
    if addresses.iter().any(|address| address.scheme() != addresses.first().and_then(Uri::scheme)) {
        return Err(SourceError::MixedSchemes);
    }
    if client.tls_server_name.is_none() && (addresses.len() > 1 || in_pod) {
        client.tls_server_name = Some(SERVER_NAME.to_owned());
    }
    if let Some(first) = addresses.first() {
        client.cluster_url = first.clone();
    }
    Ok((client, addresses))
}

/// As lenient as kube-proxy: an address without a scheme is https.
fn server_address(text: &str) -> Result<Uri, SourceError> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let address: Option<Uri> = full.parse().ok();
    address
        .filter(|address| matches!(address.scheme_str(), Some("http" | "https")) && address.host().is_some())
        .ok_or_else(|| SourceError::Server(text.to_owned()))
}

/// Sends requests, gives up on a server that does not answer, and tells when a watch begins.
#[derive(Clone)]
struct Observed<S> {
    http: S,
    watching: watch::Sender<()>,
    response_limit: Duration,
    last_watch: Arc<Mutex<Option<Instant>>>,
}

impl<S> Observed<S> {
    /// Notes that a watch is about to begin. Returns how long it has to wait.
    fn space_watches(&self) -> Duration {
        let now = Instant::now();
        let mut last = self.last_watch.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = last.map_or(now, |last| now.max(last + WATCH_SPACING));
        *last = Some(begin);
        begin.saturating_duration_since(now)
    }
}

impl<S, B> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.http.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let is_watch = query.split('&').any(|parameter| matches!(parameter, "watch=true" | "watch=1"));
        let wait = if is_watch { self.space_watches() } else { Duration::ZERO };
        let (watching, limit) = (self.watching.clone(), self.response_limit);
        // The one that was polled ready is the one to be called.
        let next = self.http.clone();
        let mut http = std::mem::replace(&mut self.http, next);
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            let response = match tokio::time::timeout(limit, http.call(request)).await {
                Ok(response) => response.map_err(Into::into)?,
                Err(_) => return Err(format!("no answer within {} s", limit.as_secs_f64()).into()),
            };
            if is_watch && response.status().is_success() {
                watching.send_replace(());
            }
            Ok(response)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(config: &KubernetesConfig) -> Result<(Config, Vec<Uri>), SourceError> {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(client_config(config))
    }

    #[test]
    fn the_name_in_the_certificate_is_kept_from_the_kubeconfig() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("kubeconfig");
        for (server_name, servers, expected) in [
            ("", &[][..], None),
            ("", &["10.0.0.1:6443"], None),
            ("", &["https://10.0.0.1:6443", "https://10.0.0.2:6443"], Some(SERVER_NAME)),
            ("tls-server-name: api.example", &["https://10.0.0.1:6443", "10.0.0.2"], Some("api.example")),
        ] {
            let text = format!(
                "{{apiVersion: v1, kind: Config, current-context: c, users: [{{name: u, user: {{}}}}], contexts: \
                 [{{name: c, context: {{cluster: k, user: u}}}}], clusters: [{{name: k, cluster: {{server: \
                 \"https://192.0.2.1:6443\", {server_name}}}}}]}}"
            );
            std::fs::write(&path, text).unwrap();
            let servers: Vec<String> = servers.iter().map(|&server| server.to_owned()).collect();
            let (client, addresses) =
                addresses(&KubernetesConfig { kubeconfig: Some(path.clone()), servers: servers.clone() }).unwrap();
            assert_eq!(client.tls_server_name.as_deref(), expected, "{server_name} {servers:?}");
            assert_eq!(addresses.len(), servers.len().max(1));
            assert_eq!(client.cluster_url, addresses[0]);
        }
    }

    #[test]
    fn addresses_that_cannot_be_used_are_named() {
        let given = |servers: &[&str]| {
            let servers = servers.iter().map(|&server| server.to_owned()).collect();
            addresses(&KubernetesConfig { kubeconfig: None, servers }).unwrap_err().to_string()
        };
        assert_eq!(given(&["ftp://a"]), "\"ftp://a\" is not the address of an API server; expected https://HOST:PORT");
        assert_eq!(given(&["http://a:1", "b"]), "the addresses of the API server mix http and https");
    }
}
