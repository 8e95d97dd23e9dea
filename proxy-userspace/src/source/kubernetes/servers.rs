use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::Uri;
use hyper_util::{
    client::legacy::connect::{HttpConnector, dns::GaiResolver},
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceExt};

/// Until a connection is refused or accepted. An address that swallows packets must not keep the next one waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A watch may be silent for minutes: without probes a server that lost its power is noticed when the watch is over.
/// With these, after about 11 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
/// The same for a server that dies while data is under way; the kernel would try for 15 minutes (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses of the API servers of a cluster, and the one to try first.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    addresses: Arc<[Uri]>,
    preferred: Arc<AtomicUsize>,
}

/// Connects to the first server that accepts, whatever address it is asked for.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    servers: Servers,
    http: HttpConnector<GaiResolver>,
}

/// Why no server accepted a connection: one entry per address.
#[derive(Debug)]
struct NoneAccepts(Vec<(Uri, String)>);

impl Servers {
    /// `addresses` are of one scheme and at least one.
    pub(super) fn new(addresses: Vec<Uri>) -> Self {
        Self { addresses: addresses.into(), preferred: Arc::default() }
    }

    /// Begins with the next server from now on: the preferred one accepts connections but is of no use.
    pub(super) fn advance(&self) {
        self.preferred.fetch_add(1, Ordering::Relaxed);
    }

    /// All servers, the preferred one first.
    fn in_turn(&self) -> impl Iterator<Item = (usize, Uri)> {
        let (addresses, count) = (self.addresses.clone(), self.addresses.len().max(1));
        let first = self.preferred.load(Ordering::Relaxed) % count;
        (0..addresses.len()).filter_map(move |at| {
            let index = (first + at) % count;
            addresses.get(index).map(|address| (index, address.clone()))
        })
    }

    pub(super) fn connector(&self) -> Connector {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_keepalive(Some(KEEPALIVE_IDLE));
        http.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        http.set_tcp_user_timeout(Some(USER_TIMEOUT));
        Connector { servers: self.clone(), http }
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, address) in self.addresses.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(f, "{separator}{}", address.to_string().trim_end_matches('/'))?;
        }
        Ok(())
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { servers, http } = self.clone();
        Box::pin(async move {
            let mut refusals = Vec::new();
            for (index, address) in servers.in_turn() {
                match http.clone().oneshot(address.clone()).await {
                    Ok(connection) => {
                        servers.preferred.store(index, Ordering::Relaxed);
                        return Ok(connection);
                    }
                    Err(error) => refusals.push((address, super::trouble::chain(&error))),
                }
            }
            Err(NoneAccepts(refusals).into())
        })
    }
}

impl fmt::Display for NoneAccepts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(_, reason)] = self.0.as_slice() {
            return f.write_str(reason);
        }
        for (at, (address, reason)) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {reason}", address.to_string().trim_end_matches('/'))?;
        }
        Ok(())
    }
}

impl std::error::Error for NoneAccepts {}
