//! An API server that does what a test tells it to. It knows lists, watches and lists that come as a watch.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

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
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let decode = |text: &str| text.replace("%21", "!").replace("%3D", "=").replace("%2F", "/");
        let query = query.split('&').filter_map(|pair| pair.split_once('='));
        Some(Self {
            plural: path.rsplit('/').next()?.to_owned(),
            query: query.map(|(name, value)| (name.to_owned(), decode(value))).collect(),
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

    /// Ends it for certain, so that its port is free.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl FakeServer {
    pub(super) async fn start(&self, address: &str) -> Running {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                connections.spawn(async move {
                    let _ = server.serve(stream).await;
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

    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(read_byte(&stream).await?);
        }
        let Some(request) = Request::parse(&String::from_utf8_lossy(&head)) else {
            return Ok(());
        };
        let answer = {
            let mut store = self.store.lock().unwrap();
            store.requests.push(request.clone());
            store.script.as_mut().map_or(Answer::Usual, |script| script(&request))
        };
        match answer {
            Answer::Silence => {
                let _ = read_byte(&stream).await;
                Ok(())
            }
            Answer::Status(code, message) => {
                write_all(&stream, &response(code, &status(code, message).to_string())).await
            }
            Answer::WatchError(code, message) => {
                let event = json!({"type": "ERROR", "object": status(code, message)});
                write_all(&stream, &response(200, &format!("{event}\n"))).await
            }
            Answer::Half => {
                let whole = response(200, &self.list(&request.plural).to_string());
                write_all(&stream, &whole[..whole.len() - 20]).await
            }
            Answer::EmptyWatch => write_all(&stream, &response(200, "")).await,
            Answer::Usual if request.is_watch() => self.watch(stream, &request).await,
            Answer::Usual => write_all(&stream, &response(200, &self.list(&request.plural).to_string())).await,
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

    async fn watch(&self, stream: TcpStream, request: &Request) -> io::Result<()> {
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
        write_all(&stream, head).await?;
        while let Some(event) = events.recv().await {
            let line = format!("{event}\n");
            write_all(&stream, format!("{:x}\r\n{line}\r\n", line.len()).as_bytes()).await?;
        }
        write_all(&stream, b"0\r\n\r\n").await
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

async fn read_byte(stream: &TcpStream) -> io::Result<u8> {
    let mut byte = [0];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(byte[0]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn status(code: u16, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": "Because", "code": code})
}
