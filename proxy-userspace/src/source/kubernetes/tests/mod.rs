mod authority;
mod changing;
mod dead_peer;
mod fake_proxy;
mod fake_server;
mod proxied;
mod secure;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use self::fake_server::{Answer, FakeServer, Request};
use super::{
    KubernetesConfig,
    access::{Environment, tests::environment},
    connection::{Patience, WATCH_SPACING},
    run_within,
};
use crate::{
    model::{Delta, Event, ObjectName, Problem, Service},
    source::{Arrival, Message, SourceError},
};

/// A watch that has to wait for its turn ([`WATCH_SPACING`]) has not stalled.
const IMPATIENT: Patience =
    Patience { response: Duration::from_millis(400), list_stall: WATCH_SPACING.saturating_mul(6) };

/// For tests that want to see the first thing that goes wrong, however slow the machine is.
const PATIENT: Patience = Patience { response: Duration::from_secs(20), list_stall: Duration::from_secs(20) };

/// For so long what was read of the credentials is taken for new, and a little more.
const FRESH: Duration = Duration::from_millis(1100);

/// A source under test, with what it sends.
struct Source {
    messages: mpsc::Receiver<Message>,
    task: JoinHandle<Result<(), SourceError>>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Source {
    fn new(servers: &[String]) -> Self {
        Self::within(IMPATIENT, servers)
    }

    fn within(patience: Patience, servers: &[String]) -> Self {
        let config = KubernetesConfig { kubeconfig: None, servers: servers.to_vec() };
        Self::with(patience, config, environment(&[], Path::new("/nonexistent")))
    }

    fn with(patience: Patience, config: KubernetesConfig, environment: Environment) -> Self {
        let (sender, messages) = mpsc::channel(100);
        let task = tokio::spawn(async move { run_within(patience, &config, environment, "n1", sender).await });
        Self { messages, task }
    }

    fn of_kubeconfig(path: &Path) -> Self {
        let config = KubernetesConfig { kubeconfig: Some(path.to_owned()), servers: Vec::new() };
        Self::with(PATIENT, config, environment(&[], Path::new("/nonexistent")))
    }

    /// What comes first: the names of the Services, or a problem.
    async fn outcome(&mut self) -> Result<Vec<String>, String> {
        loop {
            match self.next().await {
                Message::Problem(problem) => return Err(problem.to_string()),
                Message::Arrival(Arrival { event: Event::Services(Delta::Replace(services)), .. }) => {
                    return Ok(services.into_iter().map(|service| service.name.name).collect());
                }
                _ => {}
            }
        }
    }

    async fn next(&mut self) -> Message {
        timeout(Duration::from_secs(120), self.messages.recv()).await.expect("a message in time").unwrap()
    }

    /// The next change of a Service.
    async fn services(&mut self) -> Delta<Service> {
        loop {
            if let Message::Arrival(Arrival { event: Event::Services(delta), .. }) = self.next().await {
                return delta;
            }
        }
    }

    /// The next complete list of Services, as names.
    async fn listed(&mut self) -> Vec<String> {
        match self.services().await {
            Delta::Replace(services) => services.into_iter().map(|service| service.name.name).collect(),
            other => panic!("not a list: {other:?}"),
        }
    }

    async fn problem(&mut self) -> Problem {
        loop {
            if let Message::Problem(problem) = self.next().await {
                return problem;
            }
        }
    }

    async fn recovered(&mut self) -> Problem {
        loop {
            if let Message::Recovered(problem) = self.next().await {
                return problem;
            }
        }
    }
}

fn service(name: &str) -> Value {
    json!({"kind": "Service", "apiVersion": "v1", "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}})
}

fn name(name: &str) -> ObjectName {
    ObjectName::new("default", name)
}

/// A server with one Service, and how to reach it.
async fn server() -> (FakeServer, fake_server::Running) {
    let server = FakeServer::default();
    server.apply("services", service("a"));
    let running = server.start("127.0.0.1:0").await;
    (server, running)
}

/// Only requests for Services get `answer`.
fn for_services(mut answer: impl FnMut(&Request) -> Answer + Send + 'static) -> impl FnMut(&Request) -> Answer + Send {
    move |request| if request.plural == "services" { answer(request) } else { Answer::Usual }
}

#[tokio::test]
async fn row_11_lists_come_first_and_changes_after() {
    let (server, running) = server().await;
    server.apply("nodes", json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}}));
    let mut source = Source::new(&[running.url()]);
    let mut kinds = Vec::new();
    for _ in 0..3 {
        match source.next().await {
            Message::Arrival(Arrival { event: Event::Services(Delta::Replace(list)), at }) => {
                assert!(at.elapsed() < Duration::from_secs(120));
                kinds.push(("services", list.len()));
            }
            Message::Arrival(Arrival { event: Event::EndpointSlices(Delta::Replace(list)), .. }) => {
                kinds.push(("slices", list.len()));
            }
            Message::Arrival(Arrival { event: Event::Nodes(Delta::Replace(list)), .. }) => {
                kinds.push(("nodes", list.len()));
            }
            other => panic!("{other:?}"),
        }
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [("nodes", 1), ("services", 1), ("slices", 0)]);

    server.apply("services", service("b"));
    assert!(matches!(source.services().await, Delta::Apply(service) if service.name == name("b")));
    server.delete("services", "b");
    assert_eq!(source.services().await, Delta::Delete(name("b")));
}

#[tokio::test]
async fn row_1_objects_are_selected_by_the_server() {
    let (server, running) = server().await;
    let mut source = Source::new(&[running.url()]);
    for _ in 0..3 {
        source.next().await;
    }
    let requests = server.requests();
    let selectors = |plural: &str| {
        let request = requests.iter().find(|request| request.plural == plural).unwrap();
        let get = |name: &str| request.query.get(name).cloned().unwrap_or_default();
        (get("fieldSelector"), get("labelSelector"))
    };
    let no_proxy_name = "!service.kubernetes.io/service-proxy-name".to_owned();
    assert_eq!(selectors("services"), ("spec.clusterIP!=None".to_owned(), no_proxy_name));
    assert_eq!(selectors("endpointslices"), (String::new(), "!service.kubernetes.io/headless".to_owned()));
    assert_eq!(selectors("nodes"), ("metadata.name=n1".to_owned(), String::new()));
}

#[tokio::test]
async fn row_4_a_service_that_becomes_an_alias_is_deleted() {
    let (server, running) = server().await;
    let mut source = Source::new(&[running.url()]);
    assert_eq!(source.listed().await, ["a"]);
    let mut alias = service("a");
    alias["spec"]["type"] = "ExternalName".into();
    server.apply("services", alias);
    assert_eq!(source.services().await, Delta::Delete(name("a")));
}

#[tokio::test]
async fn a_change_made_right_after_the_servers_return_arrives_within_two_seconds() {
    let (server, running) = server().await;
    let (url, address) = (running.url(), running.address.to_string());
    let mut source = Source::new(std::slice::from_ref(&url));
    assert_eq!(source.listed().await, ["a"]);
    running.stop().await;
    let problem = source.problem().await.to_string();
    assert!(problem.starts_with(&format!("API server {url}: cannot watch ")), "{problem}");
    // Long enough for the pauses between the attempts to have grown to their longest.
    tokio::time::sleep(Duration::from_secs(4)).await;

    let _running = server.start(&address).await;
    server.apply("services", service("b"));
    let returned = Instant::now();
    assert!(matches!(source.services().await, Delta::Apply(service) if service.name == name("b")));
    assert!(returned.elapsed() < Duration::from_secs(2), "{:?}", returned.elapsed());
    let recovered = source.recovered().await.message;
    assert!(recovered.contains(" again, after "), "{recovered}");
}

#[tokio::test]
async fn an_expired_watch_lists_anew() {
    let (server, running) = server().await;
    server.apply("services", service("b"));
    let mut source = Source::new(&[running.url()]);
    assert_eq!(source.listed().await, ["a", "b"]);
    server.delete_silently("services", "a");
    server.end_watches(410, "Expired");
    assert_eq!(source.listed().await, ["b"]);
}

#[tokio::test]
async fn a_watch_that_cannot_be_resumed_lists_anew() {
    let (server, running) = server().await;
    server.apply("services", service("b"));
    let mut source = Source::new(&[running.url()]);
    assert_eq!(source.listed().await, ["a", "b"]);
    server.delete_silently("services", "a");
    server.script(for_services(|request| {
        if request.is_streamed_list() { Answer::Usual } else { Answer::Status(410, "too old resource version") }
    }));
    server.end_watches(500, "InternalError");
    assert_eq!(source.listed().await, ["b"]);
}

#[tokio::test]
async fn a_server_that_finds_every_list_too_old_is_not_asked_in_a_loop() {
    let (server, running) = server().await;
    server.script(for_services(|request| match request.is_streamed_list() {
        true => Answer::Status(422, "no"),
        false => Answer::Status(410, "too old resource version"),
    }));
    let mut source = Source::new(&[running.url()]);
    let problem = source.problem().await.message;
    assert!(problem.starts_with("cannot list services: 410 Gone: too old resource version"), "{problem}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let attempts = server.requests().iter().filter(|request| request.plural == "services").count();
    assert!((4..20).contains(&attempts), "{attempts} attempts");
    server.script(|_| Answer::Usual);
    assert_eq!(source.listed().await, ["a"]);
}

#[tokio::test]
async fn a_forbidden_list_is_told_once_and_retried() {
    let (server, running) = server().await;
    server.script(for_services(|_| Answer::Status(403, "services is forbidden: User \"x\" cannot list services")));
    let mut source = Source::new(&[running.url()]);
    let problem = source.problem().await;
    assert_eq!(
        problem.to_string(),
        format!(
            "API server {}: cannot watch services: 403 Forbidden: services is forbidden: User \"x\" cannot list \
             services; trying again; the last state stays in force",
            running.url()
        )
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    let attempts = server.requests().iter().filter(|request| request.plural == "services").count();
    assert!((4..20).contains(&attempts), "{attempts} attempts");
    server.script(|_| Answer::Usual);
    loop {
        match source.next().await {
            Message::Problem(problem) => panic!("told again: {problem}"),
            Message::Arrival(Arrival { event: Event::Services(delta), .. }) => {
                assert!(matches!(delta, Delta::Replace(_)));
                break;
            }
            Message::Arrival(_) | Message::Recovered(_) => {}
        }
    }
}

#[tokio::test]
async fn a_server_that_does_not_stream_lists_is_asked_for_pages() {
    for refusal in [
        || Answer::Status(422, "sendInitialEvents is forbidden for watch unless WatchList is enabled"),
        // Kubernetes 1.36 on etcd 3.4.23.
        || Answer::WatchError(500, "the required storage feature RequestWatchProgress is disabled"),
    ] {
        let (server, running) = server().await;
        server.script(move |request| if request.is_streamed_list() { refusal() } else { Answer::Usual });
        let mut source = Source::new(&[running.url()]);
        assert_eq!(source.listed().await, ["a"]);
        server.apply("services", service("b"));
        assert!(matches!(source.services().await, Delta::Apply(_)));
        let lists = server.requests().into_iter().filter(|request| !request.is_watch());
        assert!(lists.clone().count() >= 1 && lists.clone().all(|request| request.query.contains_key("limit")));
    }
}

#[tokio::test]
async fn an_interrupted_list_is_never_taken_for_the_whole() {
    for how in [|| Answer::Half, || Answer::Silence] {
        let (server, running) = server().await;
        let mut left = 2;
        server.script(for_services(move |request| {
            if request.is_streamed_list() {
                return Answer::Status(422, "no");
            }
            if !request.is_watch() && left > 0 {
                left -= 1;
                return how();
            }
            Answer::Usual
        }));
        let mut source = Source::new(&[running.url()]);
        assert!(source.problem().await.message.starts_with("cannot list services: "));
        assert_eq!(source.listed().await, ["a"]);
        source.recovered().await;
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_is_left_out() {
    let (server, running) = server().await;
    let mut broken = service("broken");
    broken["spec"]["ports"] = "eighty".into();
    server.apply("services", broken);
    let mut source = Source::new(&[running.url()]);
    let problem = source.problem().await.to_string();
    assert!(problem.starts_with("Service default/broken: cannot be decoded: "), "{problem}");
    assert_eq!(source.listed().await, ["a"]);
}

#[tokio::test]
async fn servers_are_tried_in_turn() {
    let (server, first) = server().await;
    let second = server.start("127.0.0.1:0").await;
    let (urls, first_address) = ([first.url(), second.url()], first.address.to_string());
    first.stop().await;
    let mut source = Source::new(&urls);
    assert_eq!(source.listed().await, ["a"]);

    let _first = server.start(&first_address).await;
    second.stop().await;
    server.apply("services", service("b"));
    let stopped = Instant::now();
    assert!(matches!(source.services().await, Delta::Apply(service) if service.name == name("b")));
    assert!(stopped.elapsed() < Duration::from_secs(2), "{:?}", stopped.elapsed());
}

#[tokio::test]
async fn a_server_that_accepts_and_is_silent_is_passed_over() {
    let (_, running) = server().await;
    let silent = FakeServer::default();
    silent.script(|_| Answer::Silence);
    let silent = silent.start("127.0.0.1:0").await;
    let mut source = Source::new(&[silent.url(), running.url()]);
    assert!(source.problem().await.message.contains("no answer within 0.4 s"));
    assert_eq!(source.listed().await, ["a"]);
}

#[tokio::test]
async fn watches_that_end_at_once_are_not_begun_in_a_loop() {
    let (server, running) = server().await;
    server.script(for_services(|request| match request.is_streamed_list() {
        true => Answer::Status(422, "no"),
        false if request.is_watch() => Answer::EmptyWatch,
        false => Answer::Usual,
    }));
    let mut source = Source::new(&[running.url()]);
    assert_eq!(source.listed().await, ["a"]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let watches = server.requests().iter().filter(|request| request.plural == "services").count();
    assert!((4..=10).contains(&watches), "{watches} requests");
}

#[tokio::test]
async fn a_source_ends_when_nobody_listens() {
    let (_, running) = server().await;
    let mut source = Source::new(&[running.url()]);
    source.listed().await;
    source.messages.close();
    while source.messages.recv().await.is_some() {}
    let ended = timeout(Duration::from_secs(120), &mut source.task).await;
    ended.expect("ended").unwrap().unwrap();
}
