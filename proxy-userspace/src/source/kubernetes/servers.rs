use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use http::Uri;
use tower::{BoxError, Service};

use super::route::{Routes, Stream};

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
    routes: Routes,
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

    pub(super) fn connector(&self, routes: Routes) -> Connector {
        Connector { servers: self.clone(), routes }
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
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { servers, routes } = self.clone();
        Box::pin(async move {
            let mut refusals = Vec::new();
            for (index, address) in servers.in_turn() {
                match routes.connect(&address).await {
                    Ok(connection) => {
                        servers.preferred.store(index, Ordering::Relaxed);
                        return Ok(connection);
                    }
                    Err(error) => refusals.push((address, super::failure::chain(&*error))),
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
