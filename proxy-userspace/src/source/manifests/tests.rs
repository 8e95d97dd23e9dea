use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{LOOK, SETTLE, run};
use crate::{
    model::{Delta, Event, ObjectName, Service},
    source::{Arrival, Message, SourceError},
};

struct Source {
    root: TempDir,
    messages: mpsc::Receiver<Message>,
    task: JoinHandle<Result<(), SourceError>>,
}

/// Other programs may leave a test a tenth of the machine.
const PATIENCE: Duration = Duration::from_secs(120);

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Source {
    /// A source on a directory that `fill` makes, at `manifests` below the given path.
    fn new(fill: impl FnOnce(&Path)) -> Self {
        let root = tempfile::tempdir().unwrap();
        fill(root.path());
        let (sender, messages) = mpsc::channel(100);
        let path = root.path().join("manifests");
        let task = tokio::spawn(async move { run(&path, sender).await });
        Self { root, messages, task }
    }

    /// A source on a directory with these files, after its first lists.
    async fn with(files: &[(&str, &str)]) -> Self {
        let mut source = Self::new(|root| {
            fs::create_dir(root.join("manifests")).unwrap();
            for (name, text) in files {
                fs::write(root.join("manifests").join(name), text).unwrap();
            }
        });
        source.lists().await;
        source
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("manifests").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// As an editor does, and every careful program.
    fn write_and_rename(&self, name: &str, text: &str) {
        let temporary = self.path(".next");
        fs::write(&temporary, text).unwrap();
        fs::rename(temporary, self.path(name)).unwrap();
    }

    async fn next(&mut self) -> Message {
        timeout(PATIENCE, self.messages.recv()).await.expect("a message in time").unwrap()
    }

    async fn event(&mut self) -> Event {
        loop {
            if let Message::Arrival(Arrival { event, .. }) = self.next().await {
                return event;
            }
        }
    }

    /// The first lists, as the names of the Services, and how many slices and nodes.
    async fn lists(&mut self) -> (Vec<String>, usize, usize) {
        let (services, slices, nodes) = (self.event().await, self.event().await, self.event().await);
        let (
            Event::Services(Delta::Replace(services)),
            Event::EndpointSlices(Delta::Replace(slices)),
            Event::Nodes(Delta::Replace(nodes)),
        ) = (services, slices, nodes)
        else {
            panic!("no lists");
        };
        let mut names: Vec<String> = services.into_iter().map(|service| service.name.name).collect();
        names.sort();
        (names, slices.len(), nodes.len())
    }

    async fn applied(&mut self) -> Service {
        match self.event().await {
            Event::Services(Delta::Apply(service)) => service,
            other => panic!("{other:?}"),
        }
    }

    async fn deleted(&mut self) -> ObjectName {
        match self.event().await {
            Event::Services(Delta::Delete(name)) => name,
            other => panic!("{other:?}"),
        }
    }

    async fn problem(&mut self) -> String {
        match self.next().await {
            Message::Problem(problem) => problem.to_string(),
            other => panic!("{other:?}"),
        }
    }

    async fn recovered(&mut self) -> String {
        match self.next().await {
            Message::Recovered(problem) => problem.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Nothing is sent for longer than it takes to look at the directory again.
    async fn is_quiet(&mut self) {
        let message = timeout(LOOK + Duration::from_millis(300), self.messages.recv()).await;
        assert!(message.is_err(), "{message:?}");
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: 10.96.0.10\n  ports:\n  - port: \
         {port}\n    targetPort: http\n"
    )
}

const SLICE: &str = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\nmetadata: {name: a-1, \
                     labels: {kubernetes.io/service-name: a}}\nendpoints:\n- addresses: [10.0.0.1]\nports:\n- port: 80\n";

#[tokio::test]
async fn row_11_a_directory_is_three_lists_first() {
    let both = format!("{}---\n{SLICE}", service("a", 80));
    let mut source = Source::new(|root| {
        let directory = root.join("manifests");
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("all.yaml"), &both).unwrap();
        fs::write(directory.join("b.yml"), service("b", 80)).unwrap();
        for other in [".hidden.yaml", "README.md", "c.yaml.swp", "d.yaml~", "e"] {
            fs::write(directory.join(other), service("other", 80)).unwrap();
        }
        fs::create_dir(directory.join("folder.yaml")).unwrap();
    });
    assert_eq!(source.lists().await, (vec!["a".into(), "b".into()], 1, 0));
    source.is_quiet().await;
}

#[tokio::test]
async fn a_changed_file_is_picked_up() {
    let mut source = Source::with(&[("a.yaml", &service("a", 80)), ("b.yaml", &service("b", 80))]).await;
    // Woken by the change, and not by the next look. One of several is enough, since this thread may be held up.
    let mut soonest = PATIENCE;
    for port in 101..106 {
        let written = Instant::now();
        source.write("a.yaml", &service("a", port));
        assert_eq!(source.applied().await.ports[0].port, port);
        soonest = soonest.min(written.elapsed());
    }
    assert!(soonest < LOOK.mul_f32(0.8), "{soonest:?}");
    source.write_and_rename("a.yaml", &service("a", 82));
    assert_eq!(source.applied().await.ports[0].port, 82);
    source
        .write_and_rename("c.json", &serde_json::json!({"kind": "List", "apiVersion": "v1", "items": []}).to_string());
    fs::remove_file(source.path("a.yaml")).unwrap();
    assert_eq!(source.deleted().await, ObjectName::new("default", "a"));
    source.is_quiet().await;
}

/// The longest time between two of its calls.
struct Pauses {
    last: Instant,
    longest: Duration,
}

impl Pauses {
    fn new() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO }
    }

    fn call(&mut self) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }

    /// The writer was never held up for so long that its file could be taken for finished.
    fn are_short(&self) -> bool {
        self.longest < SETTLE
    }
}

/// How often a test begins anew that was held up.
const ATTEMPTS: usize = 30;

#[tokio::test]
async fn a_file_that_is_being_written_is_left_alone() {
    let text = service("a", 81);
    for _ in 0..ATTEMPTS {
        let mut source = Source::with(&[("a.yaml", &service("a", 80))]).await;
        let mut pauses = Pauses::new();
        for end in (10..text.len()).step_by(10).chain([text.len()]) {
            source.write("a.yaml", &text[..end]);
            pauses.call();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let message = source.next().await;
        if pauses.are_short() {
            assert!(matches!(message, Message::Arrival(_)), "a problem with half a file: {message:?}");
            return source.is_quiet().await;
        }
    }
    panic!("held up in each of {ATTEMPTS} attempts");
}

/// Changes a file every 10 ms for 3 s, and looks at what is sent meanwhile.
async fn without_a_pause(source: &mut Source, change: impl Fn(&Source, u16)) -> (Vec<Message>, Pauses) {
    let mut messages = Vec::new();
    let mut pauses = Pauses::new();
    for turn in 0..300 {
        change(source, 1000 + turn);
        pauses.call();
        if let Ok(message) = timeout(Duration::from_millis(10), source.messages.recv()).await {
            messages.extend(message);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    (messages, pauses)
}

#[tokio::test]
async fn a_file_that_is_replaced_without_a_pause_is_read() {
    let mut source = Source::with(&[("a.yaml", &service("a", 80))]).await;
    let (messages, _) =
        without_a_pause(&mut source, |source, port| source.write_and_rename("a.yaml", &service("a", port))).await;
    assert!(!messages.is_empty());
    assert!(messages.iter().all(|message| matches!(message, Message::Arrival(_))), "{messages:?}");
    let mut port = source.applied().await.ports[0].port;
    while port != 1299 {
        port = source.applied().await.ports[0].port;
    }
    source.is_quiet().await;
}

#[tokio::test]
async fn a_file_that_is_written_without_a_pause_is_reported() {
    let text = |port| format!("{}---\n{SLICE}", service("a", port));
    for _ in 0..ATTEMPTS {
        let mut source = Source::with(&[("a.yaml", &service("a", 80))]).await;
        let (messages, pauses) = without_a_pause(&mut source, |source, port| source.write("a.yaml", &text(port))).await;
        if !pauses.are_short() {
            continue;
        }
        let [Message::Problem(problem)] = &messages[..] else { panic!("{messages:?}") };
        assert_eq!(
            problem.to_string(),
            "file a.yaml: is written to without a pause of 50 ms; what it held before stays in force"
        );
        assert_eq!(source.recovered().await, "file a.yaml: can be used again");
        assert_eq!(source.applied().await.ports[0].port, 1299);
        return;
    }
    panic!("held up in each of {ATTEMPTS} attempts");
}

#[tokio::test]
async fn what_a_broken_file_held_stays_in_force() {
    let mut source = Source::with(&[("a.yaml", &service("a", 80)), ("b.yaml", &service("b", 80))]).await;
    source.write("a.yaml", &format!("{}---\nkind: Service\napiVersion: v1\nspec: [\n", service("a", 81)));
    let problem = source.problem().await;
    assert!(problem.starts_with("file a.yaml: line "), "{problem}");
    assert!(problem.contains(" (document 2): "), "{problem}");
    assert!(problem.ends_with("; what it held before stays in force"), "{problem}");
    source.write("b.yaml", &service("b", 81));
    assert_eq!(source.applied().await.name.name, "b");
    source.write("a.yaml", &service("a", 82));
    assert_eq!(source.recovered().await, "file a.yaml: can be used again");
    assert_eq!(source.applied().await.ports[0].port, 82);
}

#[tokio::test]
async fn a_file_that_is_broken_from_the_start_keeps_no_other_waiting() {
    let mut source = Source::new(|root| {
        fs::create_dir(root.join("manifests")).unwrap();
        fs::write(root.join("manifests/a.yaml"), service("a", 80)).unwrap();
        fs::write(root.join("manifests/b.yaml"), [b'a', b'\n', 0xff]).unwrap();
    });
    assert_eq!(source.lists().await.0, ["a"]);
    assert_eq!(source.problem().await, "file b.yaml: line 2: is not UTF-8; it is left out");
}

#[tokio::test]
async fn of_two_files_with_one_object_the_first_counts() {
    let mut source = Source::with(&[("b.yaml", &service("a", 80))]).await;
    source.write("c.yaml", &service("a", 81));
    let problem = source.problem().await;
    let expected = "Service default/a: is in b.yaml and in c.yaml (line 1 (document 1)); only the first is used";
    assert_eq!(problem, expected);
    source.write("a.yaml", &service("a", 82));
    assert_eq!(source.applied().await.ports[0].port, 82);
    for expected in ["b.yaml", "c.yaml"] {
        assert!(source.problem().await.contains(&format!("is in a.yaml and in {expected}")));
    }
    fs::remove_file(source.path("a.yaml")).unwrap();
    assert_eq!(source.applied().await.ports[0].port, 80);
}

#[tokio::test]
async fn what_has_no_meaning_is_named_once() {
    let pod = "kind: Pod\napiVersion: v1\n";
    let mut source = Source::with(&[("a.yaml", &format!("{pod}---\n{pod}"))]).await;
    let expected = "file a.yaml: line 1 (document 1): objects of kind v1 Pod have no meaning here and are ignored";
    assert_eq!(source.problem().await, expected);
    source.write("a.yaml", pod);
    source.is_quiet().await;
}

#[tokio::test]
async fn a_key_that_stands_twice_is_named() {
    let mut source = Source::with(&[("a.yaml", &service("a", 80))]).await;
    source.write("a.yaml", &format!("{}  type: ClusterIP\n  clusterIP: 10.96.0.11\n", service("a", 81)));
    let service = source.applied().await;
    assert_eq!((service.ports[0].port, service.cluster_ips[0].to_string().as_str()), (81, "10.96.0.11"));
    let expected = "file a.yaml: line 1 (document 1): set more than once, and the last value counts: spec.clusterIP";
    assert_eq!(source.problem().await, expected);
}

#[tokio::test]
async fn a_mounted_config_map_changes_by_one_link() {
    let mut source = Source::new(|root| {
        let directory = root.join("manifests");
        for (version, port) in [("..1", 80), ("..2", 81)] {
            fs::create_dir_all(directory.join(version)).unwrap();
            fs::write(directory.join(version).join("a.yaml"), service("a", port)).unwrap();
        }
        symlink("..1", directory.join("..data")).unwrap();
        symlink("..data/a.yaml", directory.join("a.yaml")).unwrap();
    });
    assert_eq!(source.lists().await.0, ["a"]);
    symlink("..2", source.path("..data_tmp")).unwrap();
    fs::rename(source.path("..data_tmp"), source.path("..data")).unwrap();
    assert_eq!(source.applied().await.ports[0].port, 81);
}

#[tokio::test]
async fn the_last_state_outlives_the_directory() {
    let mut source = Source::with(&[("a.yaml", &service("a", 80)), ("b.yaml", &service("b", 80))]).await;
    fs::remove_dir_all(source.path("")).unwrap();
    // It may be seen empty before it is seen gone; neither removes anything at once.
    let problem = source.problem().await;
    assert!(problem.ends_with("cannot be read: No such file or directory (os error 2); the last state stays in force"));
    source.is_quiet().await;

    fs::create_dir(source.path("")).unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    source.write("b.yaml", &service("b", 81));
    assert!(source.recovered().await.ends_with(": can be read again"));
    assert_eq!(source.applied().await.name.name, "b");
    assert_eq!(source.deleted().await.name, "a");
    source.write("b.yaml", &service("b", 82));
    assert_eq!(source.applied().await.ports[0].port, 82);
}

#[tokio::test]
async fn a_directory_may_come_later() {
    let mut source = Source::new(|_| {});
    assert!(source.problem().await.contains("cannot be read"));
    fs::create_dir(source.path("")).unwrap();
    source.write("a.yaml", &service("a", 80));
    assert!(source.recovered().await.ends_with(": can be read again"));
    assert_eq!(source.lists().await.0, ["a"]);
}
