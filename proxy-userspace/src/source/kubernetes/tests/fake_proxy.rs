//! A proxy that leads to one server, whatever it is asked for, and notes what it was asked for.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::fake_server::read_head;

pub(super) struct FakeProxy {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for FakeProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeProxy {
    /// Speaks HTTP and SOCKS5, in TLS if `tls` is given.
    pub(super) async fn start(server: SocketAddr, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = asked.clone();
        let tls = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (notes, tls) = (notes.clone(), tls.clone());
                connections.spawn(async move {
                    match tls {
                        Some(tls) => lead(tls.accept(stream).await?, server, &notes).await,
                        None => lead(stream, server, &notes).await,
                    }
                });
            }
        });
        Self { address, asked, task }
    }

    /// The first thing that it was asked for.
    pub(super) fn first(&self) -> Option<String> {
        self.asked.lock().unwrap().first().cloned()
    }
}

async fn lead<S>(mut stream: S, server: SocketAddr, notes: &Mutex<Vec<String>>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let note = |text: String| notes.lock().unwrap().push(text);
    let first = stream.read_u8().await?;
    let mut onward = TcpStream::connect(server).await?;
    if first == 5 {
        note(socks(&mut stream).await?);
    } else {
        let head = format!("{}{}", char::from(first), read_head(&mut stream).await?);
        let line = head.lines().next().unwrap_or_default().to_owned();
        let password = head.lines().find_map(|line| line.strip_prefix("Proxy-Authorization: "));
        let password = password.or_else(|| head.lines().find_map(|line| line.strip_prefix("proxy-authorization: ")));
        note(format!("{line} {}", password.unwrap_or_default()).trim_end().to_owned());
        if line.starts_with("CONNECT") {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        } else {
            onward.write_all(head.as_bytes()).await?;
        }
    }
    copy_bidirectional(&mut stream, &mut onward).await?;
    Ok(())
}

/// Goes through the handshake (RFC 1928, RFC 1929) after its first byte.
async fn socks<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<String> {
    let mut methods = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut methods).await?;
    let mut user = String::new();
    if methods.contains(&2) {
        stream.write_all(&[5, 2]).await?;
        stream.read_u8().await?;
        user = format!(" {}:{}", text(stream).await?, text(stream).await?);
        stream.write_all(&[1, 0]).await?;
    } else {
        stream.write_all(&[5, 0]).await?;
    }
    let mut command = [0; 4];
    stream.read_exact(&mut command).await?;
    let host = match command[3] {
        1 => std::net::Ipv4Addr::from(stream.read_u32().await?).to_string(),
        4 => std::net::Ipv6Addr::from(stream.read_u128().await?).to_string(),
        _ => text(stream).await?,
    };
    let port = stream.read_u16().await?;
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    Ok(format!("SOCKS {host}:{port}{user}"))
}

async fn text<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<String> {
    let mut bytes = vec![0; stream.read_u8().await?.into()];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
