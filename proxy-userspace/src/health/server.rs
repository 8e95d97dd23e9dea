use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt::Ipv6V6Only};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::heartbeat::Heartbeat;
use super::status::Status;

/// After an address could not be used, or no connection could be accepted.
const RETRY: Duration = Duration::from_secs(1);

/// Anybody can connect. So that no stranger uses up the descriptors that the watches need, there are at most so many
/// connections, and each is over in time.
const CONNECTIONS: usize = 256;
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// What probes are answered with.
#[derive(Clone)]
pub(super) struct Probes {
    pub(super) status: watch::Receiver<Status>,
    pub(super) heartbeat: Arc<Heartbeat>,
}

/// Serves until it is dropped.
pub(super) async fn run(address: SocketAddr, probes: Probes) {
    let listener = listen_at_last(address).await;
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let probes = probes.clone();
                tokio::spawn(async move {
                    // What a client does wrong is its own affair.
                    let _ = timeout(TIME_LIMIT, serve(stream, probes)).await;
                    drop(place);
                });
            }
            Err(cause) => {
                tracing::warn!(%cause, "probes cannot be accepted; trying again");
                sleep(RETRY).await;
            }
        }
    }
}

/// Another process may have the port: kube-proxy, or the agent that this one takes over from.
async fn listen_at_last(address: SocketAddr) -> TcpListener {
    let mut told = None;
    loop {
        match listen(address) {
            Ok(listener) => {
                tracing::info!(%address, "/readyz and /livez are served");
                return listener;
            }
            Err(cause) => {
                let cause = cause.to_string();
                if told.as_ref() != Some(&cause) {
                    tracing::warn!(%address, cause, "/readyz and /livez cannot be served; trying again");
                    told = Some(cause);
                }
            }
        }
        sleep(RETRY).await;
    }
}

/// `[::]` means both families, and where the kernel has no IPv6 the other one.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let both = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => match TcpSocket::new_v6() {
            Err(cause) if both && cause.raw_os_error() == Some(libc::EAFNOSUPPORT) => {
                return listen((Ipv4Addr::UNSPECIFIED, address.port()).into());
            }
            result => result?,
        },
    };
    if both {
        setsockopt(&socket, Ipv6V6Only, &false)?;
    }
    // A port whose connections of before are in TIME_WAIT is free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(128)
}

async fn serve(stream: TcpStream, probes: Probes) -> hyper::Result<()> {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = probes.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).keep_alive(false);
    http.serve_connection(TokioIo::new(stream), service).await
}

impl Probes {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let (status, text) = match path {
            _ if ![Method::GET, Method::HEAD].contains(method) => {
                (StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD".into())
            }
            "/readyz" => {
                let status = self.status.borrow();
                (health(status.is_ready()), status.to_string())
            }
            "/livez" => match self.heartbeat.check() {
                Ok(()) => (health(true), "alive".into()),
                Err(trouble) => (health(false), trouble),
            },
            _ => (StatusCode::NOT_FOUND, "there are /readyz and /livez".into()),
        };
        let mut response = Response::new(Full::from(text + "\n"));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

fn health(is_well: bool) -> StatusCode {
    if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Awaited;

    fn probes(status: Status) -> Probes {
        Probes { status: watch::channel(status).1, heartbeat: Arc::new(Heartbeat::start()) }
    }

    #[test]
    fn readiness_is_what_was_published_and_liveness_is_not() {
        let (publish, status) = watch::channel(Status::default());
        let probes = Probes { status, heartbeat: Arc::new(Heartbeat::start()) };
        let code = |path: &str| probes.answer(&Method::GET, path).status().as_u16();
        assert_eq!((code("/readyz"), code("/livez")), (503, 200));
        publish.send_replace(Status { awaited: vec![] });
        assert_eq!((code("/readyz"), code("/livez")), (200, 200));
        let device = Awaited::Device { name: "eth0".into(), cause: "no".into() };
        publish.send_replace(Status { awaited: vec![device] });
        assert_eq!((code("/readyz"), code("/livez")), (503, 200));
    }

    #[test]
    fn other_questions_are_refused() {
        let probes = probes(Status { awaited: vec![] });
        let code = |method: Method, path: &str| probes.answer(&method, path).status().as_u16();
        assert_eq!(code(Method::GET, "/"), 404);
        assert_eq!(code(Method::GET, "/readyz/"), 404);
        assert_eq!(code(Method::POST, "/readyz"), 405);
        assert_eq!(code(Method::HEAD, "/readyz"), 200);
    }

    #[tokio::test]
    async fn both_families_are_served_until_one_is_named() {
        let everywhere = listen((Ipv6Addr::UNSPECIFIED, 0).into()).unwrap();
        let port = everywhere.local_addr().unwrap().port();
        for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            TcpStream::connect((address, port)).await.unwrap();
        }
        let one = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, one.local_addr().unwrap().port())).await.is_err());
    }

    #[tokio::test]
    async fn an_address_in_use_is_taken_when_it_is_free() {
        let taken = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = taken.local_addr().unwrap();
        let server = tokio::spawn(run(address, probes(Status::default())));
        sleep(Duration::from_millis(50)).await;
        assert!(!server.is_finished());
        drop(taken);
        while TcpStream::connect(address).await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
        server.abort();
    }
}
