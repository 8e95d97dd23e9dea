//! One direction silent: a flow lasts for as long as either end sends. Times are the configuration's, made short. Needs
//! root and the agent.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use proxy_tests::cluster::{AgentOptions, Cluster, Cni, Endpoint, Family, Place, Pod, Service, ServicePort, Stage};
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
    let bind = |pod, family| {
        let pod = stage.cluster.pod(pod);
        Ok(pod.namespace().enter(|| UdpSocket::bind((pod.ip(family), PORT)))??)
    };
    let servers = |family| BACKENDS.into_iter().map(|pod| bind(pod, family)).collect::<Result<Vec<_>>>();
    let servers = [servers(Family::V4)?, servers(Family::V6)?];
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let run = |family: Family, servers: Vec<UdpSocket>| {
            let (sender, receiver) = channel();
            for (backend, socket) in servers.into_iter().enumerate() {
                let sender = sender.clone();
                scope.spawn(move || serve(&socket, backend, |heard| drop(sender.send(heard)), done));
            }
            let to = SocketAddr::new(service().cluster_ips.of(family), PORT);
            scope.spawn(move || go_silent(client, to, &receiver))
        };
        let clients: Vec<_> =
            Family::BOTH.into_iter().zip(servers).map(|(family, servers)| (family, run(family, servers))).collect();
        let ends: Vec<_> = clients.into_iter().map(|(family, client)| (family, client.join())).collect();
        done.store(true, Ordering::Relaxed);
        ends.into_iter().try_for_each(|(family, end)| {
            end.map_err(|_| anyhow!("panicked"))?.with_context(|| format!("{family:?}\n{}", stage.evidence()))
        })
    })
}

fn go_silent(client: &Pod, to: SocketAddr, receiver: &Receiver<Heard>) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let bind = || UdpSocket::bind(any).and_then(|socket| socket.connect(to).map(|()| socket));
    let open = || -> Result<UdpSocket> { Ok(client.namespace().enter(bind)??) };
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
    let mut pairs = Vec::new();
    for family in Family::BOTH {
        // Whichever backend it is: all of them listen.
        let listen = |pod| {
            let pod = stage.cluster.pod(pod);
            Ok(pod.namespace().enter(|| TcpListener::bind((pod.ip(family), PORT)))??)
        };
        let listeners = BACKENDS.into_iter().map(listen).collect::<Result<Vec<TcpListener>>>()?;
        let to = SocketAddr::new(service().cluster_ips.of(family), PORT);
        for server_sends in [true, false] {
            let near = client.namespace().enter(|| TcpStream::connect(to))?.context("connect")?;
            let far = accept(&listeners)?;
            pairs.push((family, server_sends, near, far));
        }
    }
    std::thread::scope(|scope| {
        let talks: Vec<_> = pairs
            .iter()
            .map(|(family, server_sends, near, far)| {
                let (from, other) = if *server_sends { (far, near) } else { (near, far) };
                (family, server_sends, scope.spawn(move || talk(from, other)))
            })
            .collect();
        talks.into_iter().try_for_each(|(family, server_sends, talk)| {
            let what = || format!("{family:?}, server sends: {server_sends}\n{}", stage.evidence());
            talk.join().map_err(|_| anyhow!("panicked"))?.with_context(what)
        })
    })
}

/// The connection that one of the listeners has got, which is made already.
fn accept(listeners: &[TcpListener]) -> Result<TcpStream> {
    let mut ready: Vec<PollFd<'_>> =
        listeners.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)).collect();
    poll(&mut ready, PollTimeout::from(60_000_u16))?;
    let got = listeners.iter().zip(&ready).find(|(_, ready)| ready.any().unwrap_or(false));
    Ok(got.context("nobody was connected to")?.0.accept()?.0)
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
