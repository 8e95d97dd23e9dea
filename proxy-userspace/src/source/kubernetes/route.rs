use std::{
    future::ready,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::{Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{
            Connected, Connection, HttpConnector,
            proxy::{SocksV5, Tunnel},
        },
        proxy::matcher::Intercept,
    },
    rt::TokioIo,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower::{BoxError, ServiceExt, service_fn};

use super::access::{Proxies, host_and_port};

/// Until a connection is refused or accepted. An address that swallows packets must not keep the next one waiting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A watch may be silent for minutes: without probes a server that lost its power is noticed when the watch is over.
/// With these, after about 11 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
/// The same for a server that dies while data is under way; the kernel would try for 15 minutes (RFC 5482).
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Where a SOCKS proxy listens that is given without a port (RFC 1928).
const SOCKS_PORT: u16 = 1080;

/// Ways to servers: straight, or through proxies.
#[derive(Clone, Debug)]
pub(super) struct Routes {
    /// To servers, and to proxies that are spoken to in plain text or in TLS.
    next: HttpsConnector<HttpConnector>,
    proxies: Proxies,
}

/// A connection to a server, or to a proxy that passes requests on.
pub(super) struct Stream {
    io: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// Requests name the server, which the proxy does not know otherwise.
    is_forwarded: bool,
}

impl Routes {
    /// `tls` is for proxies as well, as with Go.
    pub(super) fn new(tls: ClientConfig, proxies: Proxies) -> Self {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_keepalive(Some(KEEPALIVE_IDLE));
        http.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        http.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
        http.set_tcp_user_timeout(Some(USER_TIMEOUT));
        let next =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
        Self { next, proxies }
    }

    /// Opens a connection over which the server can be spoken to; TLS with it comes after.
    pub(super) async fn connect(&self, server: &Uri) -> Result<Stream, BoxError> {
        let (host, port) = host_and_port(server);
        let Some(proxy) = self.proxies.of(server) else {
            let io = self.next.clone().oneshot(url("http", host, port)?).await?;
            return Ok(Stream { io, is_forwarded: false });
        };
        let is_secure = server.scheme() == Some(&Scheme::HTTPS);
        let scheme = if is_secure { "https" } else { "http" };
        let stream = self.through(proxy, is_secure, url(scheme, host, port)?).await;
        stream.map_err(|error| format!("proxy {}: {}", proxy.uri(), super::failure::chain(&*error)).into())
    }

    async fn through(&self, proxy: &Intercept, is_secure: bool, server: Uri) -> Result<Stream, BoxError> {
        let (host, port) = host_and_port(proxy.uri());
        let is_socks = matches!(proxy.uri().scheme_str(), Some("socks5" | "socks5h"));
        let address = match proxy.uri().scheme_str() {
            _ if is_socks => url("http", host, proxy.uri().port_u16().unwrap_or(SOCKS_PORT))?,
            scheme => url(scheme.unwrap_or("http"), host, port)?,
        };
        let opened = self.next.clone().oneshot(address.clone()).await?;
        if !is_secure && !is_socks {
            return Ok(Stream { io: opened, is_forwarded: true });
        }
        // Opened by hand, since the error of a connector is hidden by what wraps it.
        let mut opened = Some(opened);
        let next = service_fn(move |_: Uri| ready(opened.take().ok_or(io::ErrorKind::NotConnected)));
        let next = next.map_err(io::Error::from);
        let io = if is_socks {
            // Names are resolved by the proxy, whichever of the two it is, as with Go.
            let socks = SocksV5::new(address, next);
            match proxy.raw_auth() {
                Some((user, password)) => socks.with_auth(user.to_owned(), password.to_owned()).oneshot(server).await?,
                None => socks.oneshot(server).await?,
            }
        } else {
            let tunnel = Tunnel::new(address, next);
            match proxy.basic_auth() {
                Some(password) => tunnel.with_auth(password.clone()).oneshot(server).await?,
                None => tunnel.oneshot(server).await?,
            }
        };
        Ok(Stream { io, is_forwarded: false })
    }
}

/// With a port, since connectors do not know the default of every scheme.
fn url(scheme: &str, host: &str, port: u16) -> Result<Uri, http::Error> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Uri::builder().scheme(scheme).authority(format!("{host}:{port}")).path_and_query("/").build()
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.is_forwarded)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
