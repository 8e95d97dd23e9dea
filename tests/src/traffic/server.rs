//! One server for everything, at three addresses:
//!
//! - HTTP/1.1 on [`PORT`]: every request is answered with [`Answer`] as JSON;
//! - UDP on [`PORT`]: every datagram comes back with its first eight bytes, then [`Answer`] as JSON;
//! - TCP on the port after it: one line of [`Answer`], then every byte comes back.

use std::io::{self, BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;

use nix::cmsg_space;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt, sockopt,
};
use serde::{Deserialize, Serialize};

/// Where the server of a pod listens unless told otherwise.
pub const PORT: u16 = 8080;

/// Who answered, and whom it saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub server: String,
    pub client: SocketAddr,
}

impl Answer {
    fn new(name: &str, client: SocketAddr) -> Self {
        // A dual-stack socket shows IPv4 clients as ::ffff:a.b.c.d.
        Self { server: name.to_owned(), client: SocketAddr::new(client.ip().to_canonical(), client.port()) }
    }

    fn json(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(io::Error::from)
    }

    /// Of what a server sent.
    pub fn parse(bytes: &[u8]) -> io::Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Serves both families until the process ends.
///
/// # Errors
/// A port is taken.
pub fn serve(name: &str, port: u16) -> io::Result<()> {
    let address = Ipv6Addr::UNSPECIFIED;
    let name: Arc<str> = name.into();
    let http = TcpListener::bind((address, port))?;
    let echo = TcpListener::bind((address, port + 1))?;
    let datagrams = UdpSocket::bind((address, port))?;
    println!("listening on ports {port} and {}", port + 1);
    thread::scope(|scope| {
        scope.spawn(|| accept(&http, &name, answer_http));
        scope.spawn(|| accept(&echo, &name, echo_stream));
        answer_datagrams(&datagrams, &name)
    })
}

/// Serves HTTP and datagrams at one address until the process ends.
///
/// # Errors
/// The node has no such address, or its port is taken.
pub fn serve_at(name: &str, address: SocketAddr) -> io::Result<()> {
    let name: Arc<str> = name.into();
    let (http, datagrams) = (TcpListener::bind(address)?, UdpSocket::bind(address)?);
    println!("listening at {address}");
    thread::scope(|scope| {
        scope.spawn(|| accept(&http, &name, answer_http));
        let mut buffer = [0; 2048];
        loop {
            // Errors are ICMP's, about an earlier answer.
            let Ok((count, client)) = datagrams.recv_from(&mut buffer) else { continue };
            let _ = datagrams.send_to(&datagram(&buffer[..count], &name, client)?, client);
        }
    })
}

/// The answer to a datagram.
fn datagram(asked: &[u8], name: &str, client: SocketAddr) -> io::Result<Vec<u8>> {
    let mut answer = asked.get(..asked.len().min(8)).unwrap_or_default().to_vec();
    answer.extend(Answer::new(name, client).json()?);
    Ok(answer)
}

type Handler = fn(TcpStream, SocketAddr, &str) -> io::Result<()>;

fn accept(listener: &TcpListener, name: &Arc<str>, handle: Handler) {
    loop {
        let (stream, client) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) => {
                eprintln!("accept: {error}");
                thread::sleep(std::time::Duration::from_millis(10));
                continue;
            }
        };
        let name = name.clone();
        // A client that goes away is its own business.
        let work = move || drop(handle(stream, client, &name));
        if let Err(error) = thread::Builder::new().stack_size(256 * 1024).spawn(work) {
            eprintln!("thread: {error}");
        }
    }
}

fn answer_http(stream: TcpStream, client: SocketAddr, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let body = Answer::new(name, client).json()?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    loop {
        let Some(keep) = read_request(&mut reader)? else { return Ok(()) };
        let connection = if keep { "keep-alive" } else { "close" };
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: {connection}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        response.extend_from_slice(&body);
        writer.write_all(&response)?;
        if !keep {
            return Ok(());
        }
    }
}

/// Reads a request without a body; `None` at the end of the stream, else whether the connection is to be kept.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<bool>> {
    let mut line = String::new();
    let mut keep = true;
    let mut first = true;
    loop {
        line.clear();
        // A line that long is none of ours.
        if reader.by_ref().take(8192).read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let text = line.trim_end();
        if text.is_empty() && !first {
            return Ok(Some(keep));
        }
        if text.eq_ignore_ascii_case("connection: close") {
            keep = false;
        }
        first = false;
    }
}

fn echo_stream(mut stream: TcpStream, client: SocketAddr, name: &str) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut line = Answer::new(name, client).json()?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..count])?;
    }
}

/// Answers come from the address that was asked: a node has several, and a wildcard socket would take the one nearest
/// to the client.
fn answer_datagrams(socket: &UdpSocket, name: &str) -> io::Result<()> {
    setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    super::udp::hold_more(socket)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut control = cmsg_space!(libc::in6_pktinfo);
    loop {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let received = recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty());
        // An ICMP error about an earlier answer is reported here; it says nothing about the next request.
        let Ok(received) = received else { continue };
        let asked = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::Ipv6PacketInfo(info) => Some(libc::in6_pktinfo { ipi6_ifindex: 0, ..info }),
            _ => None,
        });
        let (count, Some(client)) = (received.bytes, received.address) else { continue };
        let answer = datagram(&buffer[..count], name, SocketAddr::from((client.ip(), client.port())))?;
        let messages: Vec<ControlMessage<'_>> = asked.iter().map(ControlMessage::Ipv6PacketInfo).collect();
        let parts = [IoSlice::new(&answer)];
        let _ = sendmsg(socket.as_raw_fd(), &parts, &messages, MsgFlags::empty(), Some(&client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_say_whether_to_keep_the_connection() {
        let mut stream: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n";
        assert_eq!(read_request(&mut stream).unwrap(), Some(true));
        assert_eq!(read_request(&mut stream).unwrap(), Some(false));
        assert_eq!(read_request(&mut stream).unwrap(), None);
    }

    #[test]
    fn mapped_clients_are_shown_as_ipv4() {
        let answer = Answer::new("a", "[::ffff:10.0.0.1]:5".parse().unwrap());
        assert_eq!(answer.client, "10.0.0.1:5".parse().unwrap());
        assert_eq!(Answer::parse(&answer.json().unwrap()).unwrap(), answer);
    }
}
