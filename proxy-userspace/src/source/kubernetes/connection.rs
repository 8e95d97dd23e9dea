use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnectorBuilder};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::{
    Client,
    client::{Body, ConfigExt},
};
use tokio::sync::watch;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

use super::{access::Access, credentials::Credentials, route::Routes, servers::Servers};

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Until the head of a response: connecting, the TLS handshake and the server's thinking.
    pub(super) response: Duration,
    /// Between two objects of a list that comes as a stream; for a whole page otherwise.
    pub(super) list_stall: Duration,
}

impl Patience {
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

/// A client of the API server.
pub(super) struct Connection {
    pub(super) client: Client,
    way: Arc<Way>,
    /// Changes whenever a server agrees to a watch.
    pub(super) watching: watch::Receiver<()>,
    pub(super) patience: Patience,
}

impl Connection {
    /// Nothing is read or asked yet.
    pub(super) fn new(credentials: Arc<Credentials>, patience: Patience) -> Self {
        let (sender, watching) = watch::channel(());
        let way = Arc::new(Way { credentials, latest: Mutex::default() });
        let requests = Requests {
            way: way.clone(),
            watching: sender,
            response_limit: patience.response,
            last_watch: Arc::default(),
        };
        Self { client: Client::new(requests, "default"), way, watching, patience }
    }

    /// Begins with the next server from now on.
    pub(super) fn advance(&self) {
        if let Some(latest) = &*self.way.latest() {
            latest.servers.advance();
        }
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.way.latest() {
            Some(latest) => write!(f, "API server {}", latest.servers),
            None => f.write_str("API server"),
        }
    }
}

/// How requests get to the API server, made anew when the credentials change.
struct Way {
    credentials: Arc<Credentials>,
    latest: Mutex<Option<Latest>>,
}

struct Latest {
    access: Arc<Access>,
    servers: Servers,
    http: Http,
}

/// Sends a request, with all that every request carries.
type Http = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

impl Way {
    fn latest(&self) -> MutexGuard<'_, Option<Latest>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn http(&self) -> Result<(Arc<Access>, Http), BoxError> {
        let access = self.credentials.current().await?;
        let mut latest = self.latest();
        if let Some(latest) = &*latest
            && Arc::ptr_eq(&latest.access, &access)
        {
            return Ok((access, latest.http.clone()));
        }
        let servers = match latest.take() {
            Some(before) if before.access.addresses == access.addresses => before.servers,
            _ => Servers::new(access.addresses.clone()),
        };
        let http = http(&access, &servers)?;
        *latest = Some(Latest { access: access.clone(), servers, http: http.clone() });
        Ok((access, http))
    }
}

fn http(access: &Access, servers: &Servers) -> kube::Result<Http> {
    let https = HttpsConnectorBuilder::new().with_tls_config(access.tls.clone()).https_or_http();
    let https = match access.server_name.clone() {
        Some(name) => https.with_server_name_resolver(FixedServerNameResolver::new(name)),
        None => https,
    };
    // kube's own connector offers HTTP/1.1 alone.
    let routes = Routes::new(access.tls.clone(), access.proxies.clone());
    let https = https.enable_all_versions().wrap_connector(servers.connector(routes));
    // No connection is kept for a later request: that one goes to the server that is preferred by then.
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        // hyper takes a connection for idle that is not in its pool any more, even if a watch is on it.
        .http2_keep_alive_while_idle(true)
        .build::<_, Body>(https)
        .map_err(BoxError::from);
    let layers =
        ServiceBuilder::new().layer(access.client.base_uri_layer()).layer(access.client.extra_headers_layer()?);
    Ok(BoxCloneSyncService::new(layers.service(http)))
}

/// Sends requests, gives up on a server that does not answer, and tells when a watch begins.
#[derive(Clone)]
struct Requests {
    way: Arc<Way>,
    watching: watch::Sender<()>,
    response_limit: Duration,
    last_watch: Arc<Mutex<Option<Instant>>>,
}

impl Requests {
    /// Notes that a watch is about to begin. Returns how long it has to wait.
    fn space_watches(&self) -> Duration {
        let now = Instant::now();
        let mut last = self.last_watch.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = last.map_or(now, |last| now.max(last + WATCH_SPACING));
        *last = Some(begin);
        begin.saturating_duration_since(now)
    }

    async fn send(self, request: Request<Body>) -> Result<Response<Incoming>, BoxError> {
        let query = request.uri().query().unwrap_or_default();
        let is_watch = query.split('&').any(|parameter| matches!(parameter, "watch=true" | "watch=1"));
        if is_watch {
            tokio::time::sleep(self.space_watches()).await;
        }
        let (access, http) = self.way.http().await?;
        let limit = self.response_limit;
        let response = match tokio::time::timeout(limit, http.oneshot(request)).await {
            Ok(response) => response?,
            Err(_) => return Err(format!("no answer within {} s", limit.as_secs_f64()).into()),
        };
        if is_watch && response.status().is_success() {
            self.watching.send_replace(());
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            self.way.credentials.refused(&access).await;
        }
        match access.explain(response.status()) {
            Some(error) => Err(error.into()),
            None => Ok(response),
        }
    }
}

impl Service<Request<Body>> for Requests {
    type Response = Response<Incoming>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}
