//! An API server that does what a test tells it to. It knows lists, watches and lists that come as a watch.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// What a request is answered with.
pub(super) enum Answer {
    /// As the objects are.
    Usual,
    Status(u16, &'static str),
    /// The head of an answer and half of its body.
    Half,
    /// Nothing, on an open connection.
    Silence,
    /// A watch that is over at once.
    EmptyWatch,
    /// A watch that begins well, and then has only an error to tell.
    WatchError(u16, &'static str),
}

type Script = Box<dyn FnMut(&Request) -> Answer + Send>;

#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) plural: String,
    pub(super) query: BTreeMap<String, String>,
    /// The whole target.
    pub(super) target: String,
    /// Names in lower case; all values of a name, joined by commas.
    pub(super) headers: BTreeMap<String, String>,
    /// The client's own certificate, in DER.
    pub(super) certificate: Option<Vec<u8>>,
}

impl Request {
    pub(super) fn is_watch(&self) -> bool {
        self.query.contains_key("watch")
    }

    pub(super) fn is_streamed_list(&self) -> bool {
        self.query.contains_key("sendInitialEvents")
    }

    fn parse(head: &str) -> Option<Self> {
        let target = head.split(' ').nth(1)?;
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
            let values = headers.entry(name.to_lowercase()).or_default();
            *values = if values.is_empty() { value.to_owned() } else { format!("{values},{value}") };
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decode = |text: &str| text.replace("%21", "!").replace("%3D", "=").replace("%2F", "/");
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        Some(Self {
            plural: path.rsplit('/').next()?.to_owned(),
            query: query.map(|(name, value)| (name.to_owned(), decode(value))).collect(),
            target: target.to_owned(),
            headers,
            certificate: None,
        })
    }
}

#[derive(Default)]
struct Store {
    revision: u64,
    /// By plural and name.
    objects: BTreeMap<(String, String), Value>,
    watchers: Vec<(String, mpsc::UnboundedSender<Value>)>,
    requests: Vec<Request>,
    script: Option<Script>,
}

#[derive(Clone, Default)]
pub(super) struct FakeServer {
    store: Arc<Mutex<Store>>,
}

/// The server while it can be reached. Dropping it resets every connection.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends it for certain, so that its port is free.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl FakeServer {
    pub(super) async fn start(&self, address: &str) -> Running {
        self.start_with(address, None).await
    }

    /// Speaks TLS, and asks clients for a certificate if `tls` says so.
    pub(super) async fn start_tls(&self, address: &str, tls: ServerConfig) -> Running {
        self.start_with(address, Some(TlsAcceptor::from(Arc::new(tls)))).await
    }

    async fn start_with(&self, address: &str, tls: Option<TlsAcceptor>) -> Running {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (server, tls) = (server.clone(), tls.clone());
                connections.spawn(async move {
                    let Some(tls) = tls else { return server.serve(stream, None).await };
                    let stream = tls.accept(stream).await?;
                    let chain = stream.get_ref().1.peer_certificates();
                    let certificate = chain.and_then(|chain| chain.first()).map(|certificate| certificate.to_vec());
                    server.serve(stream, certificate).await
                });
            }
        });
        Running { address, task }
    }

    pub(super) fn script(&self, script: impl FnMut(&Request) -> Answer + Send + 'static) {
        self.store.lock().unwrap().script = Some(Box::new(script));
    }

    pub(super) fn requests(&self) -> Vec<Request> {
        self.store.lock().unwrap().requests.clone()
    }

    pub(super) fn apply(&self, plural: &str, mut object: Value) {
        let mut store = self.store.lock().unwrap();
        store.revision += 1;
        object["metadata"]["resourceVersion"] = store.revision.to_string().into();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let known = store.objects.insert((plural.to_owned(), name), object.clone()).is_some();
        store.tell(plural, json!({"type": if known { "MODIFIED" } else { "ADDED" }, "object": object}));
    }

    pub(super) fn delete(&self, plural: &str, name: &str) {
        let mut store = self.store.lock().unwrap();
        store.revision += 1;
        let mut object = store.objects.remove(&(plural.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = store.revision.to_string().into();
        store.tell(plural, json!({"type": "DELETED", "object": object}));
    }

    /// Removes an object without a word to those who watch, as if it went while they were away.
    pub(super) fn delete_silently(&self, plural: &str, name: &str) {
        self.store.lock().unwrap().objects.remove(&(plural.to_owned(), name.to_owned())).unwrap();
    }

    /// Ends every watch with an error event.
    pub(super) fn end_watches(&self, code: u16, reason: &str) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "too old resource version", "reason": reason, "code": code});
        for (_, watcher) in self.store.lock().unwrap().watchers.drain(..) {
            let _ = watcher.send(json!({"type": "ERROR", "object": status}));
        }
    }

    async fn serve<S>(&self, mut stream: S, certificate: Option<Vec<u8>>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(request) = Request::parse(&read_head(&mut stream).await?) else {
            return Ok(());
        };
        let request = Request { certificate, ..request };
        let answer = {
            let mut store = self.store.lock().unwrap();
            store.requests.push(request.clone());
            store.script.as_mut().map_or(Answer::Usual, |script| script(&request))
        };
        match answer {
            Answer::Silence => {
                let _ = stream.read_u8().await;
                Ok(())
            }
            Answer::Status(code, message) => {
                write(&mut stream, &response(code, &status(code, message).to_string())).await
            }
            Answer::WatchError(code, message) => {
                let event = json!({"type": "ERROR", "object": status(code, message)});
                write(&mut stream, &response(200, &format!("{event}\n"))).await
            }
            Answer::Half => {
                let whole = response(200, &self.list(&request.plural).to_string());
                write(&mut stream, &whole[..whole.len() - 20]).await
            }
            Answer::EmptyWatch => write(&mut stream, &response(200, "")).await,
            Answer::Usual if request.is_watch() => self.watch(stream, &request).await,
            Answer::Usual => write(&mut stream, &response(200, &self.list(&request.plural).to_string())).await,
        }
    }

    fn list(&self, plural: &str) -> Value {
        let store = self.store.lock().unwrap();
        let (kind, version) = kind(plural);
        let items: Vec<&Value> =
            store.objects.iter().filter(|((of, _), _)| of == plural).map(|(_, object)| object).collect();
        json!({"kind": format!("{kind}List"), "apiVersion": version, "items": items,
            "metadata": {"resourceVersion": store.revision.to_string()}})
    }

    async fn watch(&self, mut stream: impl AsyncWrite + Unpin, request: &Request) -> io::Result<()> {
        let (sender, mut events) = mpsc::unbounded_channel();
        {
            let mut store = self.store.lock().unwrap();
            let since: u64 = request.query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
            for (_, object) in store.objects.iter().filter(|((plural, _), _)| *plural == request.plural) {
                let version: u64 = object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
                if version > since {
                    sender.send(json!({"type": "ADDED", "object": object})).unwrap();
                }
            }
            if request.is_streamed_list() {
                let (kind, version) = kind(&request.plural);
                let metadata = json!({"resourceVersion": store.revision.to_string(),
                    "annotations": {"k8s.io/initial-events-end": "true"}});
                let object = json!({"kind": kind, "apiVersion": version, "metadata": metadata});
                sender.send(json!({"type": "BOOKMARK", "object": object})).unwrap();
            }
            store.watchers.push((request.plural.clone(), sender));
        }
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        write(&mut stream, head).await?;
        while let Some(event) = events.recv().await {
            let line = format!("{event}\n");
            write(&mut stream, format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await?;
        }
        write(&mut stream, b"0\r\n\r\n").await
    }
}

impl Store {
    fn tell(&mut self, plural: &str, event: Value) {
        self.watchers.retain(|(of, watcher)| of != plural || watcher.send(event.clone()).is_ok());
    }
}

fn kind(plural: &str) -> (&'static str, &'static str) {
    match plural {
        "services" => ("Service", "v1"),
        "endpointslices" => ("EndpointSlice", "discovery.k8s.io/v1"),
        _ => ("Node", "v1"),
    }
}

fn response(code: u16, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// What comes before the body of a request.
pub(super) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Because", "code": code})
}
