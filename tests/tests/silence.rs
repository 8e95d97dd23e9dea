//! One direction silent: a flow lasts for as long as either end sends. Times are the configuration's, made short. Needs
//! root and the agent.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proxy_tests::cluster::{AgentOptions, Cluster, Cni, Endpoint, Family, Place, Service, ServicePort, Stage};
use proxy_tests::patience::patience;

const PORT: u16 = 9000;
const BACKENDS: [&str; 4] = ["b", "c", "d", "e"];
/// Flows of each kind: one in 4⁸ times chance alone sends all of them where they were.
const FLOWS: usize = 8;
/// Five times the two seconds of the configuration, as ten minutes are five times conntrack's two minutes.
const SILENCE: Duration = Duration::from_secs(10);
const CONFIG: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
conntrack: {udpTimeout: 1s, udpStreamTimeout: 2s, tcpEstablishedTimeout: 2s, tcpCloseWaitTimeout: 2s}
";

fn service() -> Service {
    let port = |name: &str, protocol: &str| ServicePort {
        name: name.into(),
        protocol: protocol.into(),
        port: PORT,
        target_port: PORT,
        node_port: 0,
    };
    Service { ports: vec![port("datagrams", "UDP"), port("stream", "TCP")], ..Service::new("feed", 1) }
}

fn stage() -> Result<Stage> {
    let mut builder = Cluster::builder().nodes(2).cni(Cni::Routed).pod(1, "client");
    for (pod, node) in BACKENDS.iter().zip([1, 1, 2, 2]) {
        builder = builder.pod(node, pod);
    }
    let cluster = builder.build()?;
    let file = cluster.directory().join("config.conf");
    std::fs::write(&file, CONFIG)?;
    cluster.manifests().apply(&service(), &BACKENDS.map(|pod| Endpoint::of(cluster.pod(pod))))?;
    let agents = cluster.start_agents(&AgentOptions::default().with(&["--config", &file.display().to_string()]))?;
    Ok(Stage { agents, servers: Vec::new(), cluster })
}

/// What a client has sent to a backend.
struct Heard {
    backend: usize,
    from: SocketAddr,
    text: String,
}

/// A server of datagrams that tells whatever it hears, and sends to everybody who has subscribed, all the time.
fn serve(socket: &UdpSocket, backend: usize, tell: impl Fn(Heard), done: &AtomicBool) -> std::io::Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut subscribers = Vec::new();
    let mut buffer = [0; 64];
    while !done.load(Ordering::Relaxed) {
        if let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text == "subscribe" && !subscribers.contains(&from) {
                subscribers.push(from);
            }
            tell(Heard { backend, from, text });
        }
        for to in &subscribers {
            let _ = socket.send_to(b"news", to);
        }
    }
    Ok(())
}

/// The backend that hears `text` from this port next.
fn heard(from: &Receiver<Heard>, port: u16, text: &str) -> Result<usize> {
    let deadline = Instant::now() + patience(Duration::from_secs(10));
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let heard = from.recv_timeout(left).with_context(|| format!("nobody heard {text:?} from port {port}"))?;
        if heard.from.port() == port && heard.text == text {
            return Ok(heard.backend);
        }
    }
}

/// The server sends and the client does not, or the other way round: what the client sends in the end goes where it went
/// in the beginning.
#[test]
fn datagrams_go_where_they_went() -> Result<()> {
    let stage = stage()?;
    let client = stage.cluster.pod("client");
    let bind = |pod| Ok(stage.cluster.pod(pod).namespace().enter(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, PORT)))??);
    let sockets: Vec<UdpSocket> = BACKENDS.into_iter().map(bind).collect::<Result<_>>()?;
    let done = AtomicBool::new(false);
    let (sender, receiver) = channel();
    std::thread::scope(|scope| {
        for (backend, socket) in sockets.into_iter().enumerate() {
            let (sender, done) = (sender.clone(), &done);
            scope.spawn(move || serve(&socket, backend, |heard| drop(sender.send(heard)), done));
        }
        let result = Family::BOTH.into_iter().try_for_each(|family| {
            let to = SocketAddr::new(service().cluster_ips.of(family), PORT);
            go_silent(client, to, &receiver).with_context(|| format!("{family:?}\n{}", stage.evidence()))
        });
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn go_silent(client: &impl Place, to: SocketAddr, receiver: &Receiver<Heard>) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let open = || -> Result<UdpSocket> {
        let socket = client.namespace().enter(|| UdpSocket::bind(any).and_then(|socket| socket.connect(to).map(|()| socket)))?;
        Ok(socket?)
    };
    let say = |socket: &UdpSocket, text: &str| -> Result<usize> {
        socket.send(text.as_bytes())?;
        heard(receiver, socket.local_addr()?.port(), text)
    };
    let listening: Vec<UdpSocket> = (0..FLOWS).map(|_| open()).collect::<Result<_>>()?;
    let talking: Vec<UdpSocket> = (0..FLOWS).map(|_| open()).collect::<Result<_>>()?;
    let subscribed: Vec<usize> = listening.iter().map(|socket| say(socket, "subscribe")).collect::<Result<_>>()?;
    let talked: Vec<usize> = talking.iter().map(|socket| say(socket, "hello")).collect::<Result<_>>()?;
    let began = Instant::now();
    while began.elapsed() < SILENCE {
        std::thread::sleep(Duration::from_millis(250));
        for (socket, backend) in talking.iter().zip(&talked) {
            ensure!(say(socket, "log")? == *backend, "a client that sends all the time was sent elsewhere");
        }
    }
    for (socket, backend) in listening.iter().zip(&subscribed) {
        socket.set_nonblocking(true)?;
        let mut news = 0;
        while socket.recv(&mut [0; 64]).is_ok() {
            news += 1;
        }
        ensure!(news > 10, "{news} datagrams are no stream: the test is none");
        ensure!(say(socket, "more")? == *backend, "a silent client of a server that sends was sent elsewhere");
    }
    Ok(())
}

/// A connection on which one end sends and the other does not lasts as well.
#[test]
fn connections_with_one_silent_end_go_on() -> Result<()> {
    let stage = stage()?;
    let client = stage.cluster.pod("client");
    for family in Family::BOTH {
        // Whichever backend it is: all of them listen.
        let listeners = BACKENDS.map(|pod| {
            stage.cluster.pod(pod).namespace().enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)))
        });
        let to = SocketAddr::new(service().cluster_ips.of(family), PORT);
        std::thread::scope(|scope| -> Result<()> {
            let (sender, accepted) = channel();
            for listener in listeners {
                let (listener, sender) = (listener??, sender.clone());
                listener.set_nonblocking(true)?;
                scope.spawn(move || {
                    while sender.send(None).is_ok() {
                        if let Ok((stream, _)) = listener.accept() {
                            let _ = sender.send(Some(stream));
                        }
                        std::thread::sleep(Duration::from_millis(10));
                    }
                });
            }
            for server_sends in [true, false] {
                let near = client.namespace().enter(|| TcpStream::connect(to))?.context("connect")?;
                let far = accepted.iter().flatten().next().context("nobody accepted")?;
                far.set_nonblocking(false)?;
                let (from, other) = if server_sends { (&far, &near) } else { (&near, &far) };
                talk(from, other).with_context(|| format!("{family:?}, server sends: {server_sends}\n{}", stage.evidence()))?;
            }
            drop(accepted);
            Ok(())
        })?;
    }
    Ok(())
}

/// One end sends for some time; then the other one says something too.
fn talk(mut from: &TcpStream, mut other: &TcpStream) -> Result<()> {
    let limit = Some(patience(Duration::from_secs(10)));
    from.set_read_timeout(limit)?;
    other.set_read_timeout(limit)?;
    let began = Instant::now();
    let mut buffer = [0; 4];
    while began.elapsed() < SILENCE {
        from.write_all(b"news")?;
        other.read_exact(&mut buffer).context("the one that sends")?;
        std::thread::sleep(Duration::from_millis(100));
    }
    other.write_all(b"more")?;
    from.read_exact(&mut buffer).context("the one that was silent")?;
    ensure!(&buffer == b"more", "{buffer:?}");
    Ok(())
}
