//! Credentials that come late, change, or are refused. None of that ends a source.

use std::{path::Path, time::Duration};

use super::{Answer, FRESH, FakeServer, Source, fake_server::Running, service};
use crate::source::kubernetes::access::tests::{Folder, kubeconfig};

/// An insecure one is as good as any here.
async fn secure_server() -> (FakeServer, Running) {
    let own = super::authority::Authority::new().server(&["127.0.0.1"]);
    let server = FakeServer::default();
    server.apply("services", service("a"));
    let running = server.start_tls("127.0.0.1:0", own.server_config()).await;
    (server, running)
}

fn cluster(running: &Running) -> String {
    format!("server: \"https://127.0.0.1:{}\", insecure-skip-tls-verify: true", running.port())
}

/// What the last request was known by.
fn authorization(server: &FakeServer) -> String {
    server.requests().last().unwrap().headers.get("authorization").cloned().unwrap_or_default()
}

/// Only these tokens are known.
fn knowing(tokens: &'static [&'static str]) -> impl FnMut(&super::Request) -> Answer + Send + 'static {
    move |request| {
        let token = request.headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        match token {
            Some(token) if tokens.contains(&token) => Answer::Usual,
            _ => Answer::Status(401, "Unauthorized"),
        }
    }
}

#[tokio::test]
async fn a_kubeconfig_may_come_late_and_in_halves() {
    let (server, running) = secure_server().await;
    let folder = Folder::new();
    let (path, text) = (folder.path("config"), kubeconfig(&cluster(&running), "token: abc"));
    let mut source = Source::of_kubeconfig(&path);
    let problem = source.problem().await.to_string();
    let expected = format!(
        "API server: cannot watch services: kubeconfig {}: cannot be read: No such file or directory (os error 2); trying \
         again; the last state stays in force",
        path.display()
    );
    let kinds = ["services", "endpointslices", "nodes"];
    assert!(kinds.iter().any(|kind| problem == expected.replace("services", kind)), "{problem}");
    folder.write("config", &text[..text.len() / 2]);
    tokio::time::sleep(FRESH).await;
    assert!(!source.task.is_finished());
    folder.write("config", &text);
    assert_eq!(source.listed().await, ["a"]);
    assert!(source.recovered().await.to_string().contains("API server https://127.0.0.1:"));

    // What is read again and again may be half-written, or gone, while the agent runs.
    for text in [Some("a: ["), Some(""), None] {
        match text {
            Some(text) => folder.write("config", text),
            None => std::fs::remove_file(&path).map(|()| path.clone()).unwrap(),
        };
        tokio::time::sleep(FRESH).await;
        server.end_watches(410, "Expired");
        assert_eq!(source.listed().await, ["a"]);
        assert_eq!(authorization(&server), "Bearer abc");
    }
    folder.write("config", kubeconfig(&cluster(&running), "token: def"));
    tokio::time::sleep(FRESH).await;
    server.end_watches(410, "Expired");
    assert_eq!(source.listed().await, ["a"]);
    assert_eq!(authorization(&server), "Bearer def");
}

#[tokio::test]
async fn a_wrong_token_is_named_and_the_next_one_tried() {
    let (server, running) = secure_server().await;
    server.script(knowing(&["right"]));
    let folder = Folder::new();
    folder.write("token", "wrong\n");
    let path = folder.write("config", kubeconfig(&cluster(&running), "tokenFile: token"));
    let mut source = Source::of_kubeconfig(&path);
    let problem = source.problem().await.to_string();
    assert!(problem.contains(": 401 Unauthorized: Unauthorized; trying again"), "{problem}");
    folder.write("token", "right\n");
    assert_eq!(source.listed().await, ["a"]);
    // Gone again: who hides it after the start has a reason.
    std::fs::remove_file(folder.path("token")).unwrap();
    tokio::time::sleep(FRESH).await;
    server.end_watches(410, "Expired");
    assert_eq!(source.listed().await, ["a"]);
}

#[tokio::test]
async fn requests_carry_what_the_kubeconfig_says() {
    let (server, running) = secure_server().await;
    let folder = Folder::new();
    let text = kubeconfig(
        &cluster(&running).replace("\", insecure", "/a/b/\", insecure"),
        "username: u, password: p, as: x, as-uid: \"7\", as-groups: [g, h], as-user-extra: {a.b/c%2: [d, e]}",
    );
    let mut source = Source::of_kubeconfig(&folder.write("config", text));
    assert_eq!(source.listed().await, ["a"]);
    let requests = server.requests();
    let request = requests.iter().find(|request| request.plural == "services").unwrap();
    assert!(request.target.starts_with("/a/b/api/v1/services?"), "{}", request.target);
    for (name, value) in [
        ("authorization", "Basic dTpw"),
        ("impersonate-user", "x"),
        ("impersonate-uid", "7"),
        ("impersonate-group", "g,h"),
        ("impersonate-extra-a.b%2fc%252", "d,e"),
    ] {
        assert_eq!(request.headers.get(name).map(String::as_str), Some(value), "{:?}", request.headers);
    }
}

/// A plugin that notes each run in `runs`, with the question, and does what `script` says.
fn plugin(folder: &Folder, script: &str, fields: &str) -> String {
    let path = folder.write("plugin.sh", format!("printf '%s\\n' \"$KUBERNETES_EXEC_INFO\" >>runs\n{script}\n"));
    let path = path.display();
    format!(
        "exec: {{apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: [-c, \"cd \
         {} && . {path}\"], {fields}}}",
        folder.0.path().display()
    )
}

fn runs(folder: &Folder) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(folder.path("runs")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Issues the token in the file `token`, until `until` if that is given.
fn issuing(until: &str) -> String {
    format!(
        "echo \"{{\\\"kind\\\": \\\"ExecCredential\\\", \\\"apiVersion\\\": \\\"client.authentication.k8s.io/v1\\\", \
         \\\"status\\\": {{\\\"token\\\": \\\"$TOKEN$(cat token)\\\"{until}}}}}\""
    )
}

#[tokio::test]
async fn a_plugin_issues_a_token_until_it_is_refused() {
    let (server, running) = secure_server().await;
    server.script(knowing(&["one"]));
    let folder = Folder::new();
    folder.write("token", "ne");
    let env = "env: [{name: TOKEN, value: o}], provideClusterInfo: true";
    let text = kubeconfig(
        &format!(
            "{}, extensions: [{{name: client.authentication.k8s.io/exec, extension: {{a: 1}}}}]",
            cluster(&running)
        ),
        &plugin(&folder, &issuing(""), env),
    );
    let mut source = Source::of_kubeconfig(&folder.write("config", text));
    assert_eq!(source.listed().await, ["a"]);
    let question = serde_json::json!({
        "kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1",
        "spec": {"interactive": false, "cluster": {"server": format!("https://127.0.0.1:{}", running.port()),
            "insecure-skip-tls-verify": true, "config": {"a": 1}}},
    });
    assert_eq!(runs(&folder), [question], "once for all kinds");

    folder.write("token", "ther");
    server.end_watches(410, "Expired");
    assert_eq!(source.listed().await, ["a"]);
    assert_eq!(runs(&folder).len(), 1, "what was issued has no end");
    server.script(knowing(&["other"]));
    server.end_watches(410, "Expired");
    assert_eq!(source.listed().await, ["a"]);
    assert_eq!(authorization(&server), "Bearer other");
}

#[tokio::test]
async fn what_a_plugin_issued_may_end() {
    let (server, running) = secure_server().await;
    let folder = Folder::new();
    folder.write("token", "x");
    let until = ", \\\"expirationTimestamp\\\": \\\"2020-01-01T00:00:00Z\\\"";
    let text = kubeconfig(&cluster(&running), &plugin(&folder, &issuing(until), ""));
    let mut source = Source::of_kubeconfig(&folder.write("config", text));
    assert_eq!(source.listed().await, ["a"]);
    folder.write("token", "y");
    tokio::time::sleep(FRESH).await;
    server.end_watches(410, "Expired");
    assert_eq!(source.listed().await, ["a"]);
    assert_eq!(authorization(&server), "Bearer y");
    let runs = runs(&folder);
    assert!(runs.len() >= 2);
    assert_eq!(runs[0]["spec"], serde_json::json!({"interactive": false}), "of the cluster only if it asks");
}

#[tokio::test]
async fn a_plugin_may_issue_a_certificate() {
    let authority = super::authority::Authority::new();
    let issued = authority.server(&["client"]);
    let server = FakeServer::default();
    server.apply("services", service("a"));
    let running = server.start_tls("127.0.0.1:0", authority.asking(&authority.server(&["127.0.0.1"]))).await;
    let folder = Folder::new();
    folder.write(
        "answer",
        serde_json::json!({
            "apiVersion": "client.authentication.k8s.io/v1",
            "status": {"clientCertificateData": issued.certificate, "clientKeyData": issued.key},
        })
        .to_string(),
    );
    let text = kubeconfig(&cluster(&running), &plugin(&folder, "cat answer", ""));
    let mut source = Source::of_kubeconfig(&folder.write("config", text));
    assert_eq!(source.listed().await, ["a"]);
    assert_eq!(server.requests().last().unwrap().certificate, Some(issued.der()));
}

#[tokio::test]
async fn a_plugin_that_fails_is_named() {
    let (_server, running) = secure_server().await;
    let folder = Folder::new();
    let (old, new) = ("client.authentication.k8s.io/v1beta1", "client.authentication.k8s.io/v1");
    let answer = |status: &str| format!("echo '{{\"apiVersion\": \"{new}\"{status}}}'");
    for (script, user, expected) in [
        ("echo 'no session' >&2; exit 73".into(), String::new(), "exec: sh: exit status: 73: no session"),
        (":".into(), String::new(), "exec: sh: answers in version \"\"; expected \"client.authentication.k8s.io/v1\""),
        (answer(""), String::new(), "exec: sh: its answer has no status"),
        (answer(", \"status\": {}"), String::new(), "exec: sh: issued neither a token nor a certificate"),
        (
            answer(", \"status\": {\"clientKeyData\": \"x\"}"),
            String::new(),
            "exec: sh: issued only one of certificate and key",
        ),
        (
            answer(", \"status\": {\"clientKeyData\": \"x\", \"clientCertificateData\": \"x\"}"),
            String::new(),
            "client-key: no items found",
        ),
        (
            String::new(),
            format!("exec: {{apiVersion: {old}, command: ./none, installHint: \"Get it \\e[1m at\\nhome.\"}}"),
            "/./none: not found; Get it [1m at home.; trying again",
        ),
        (
            String::new(),
            format!("exec: {{apiVersion: {old}, command: x, interactiveMode: Always}}"),
            "is not a terminal",
        ),
        (String::new(), format!("exec: {{apiVersion: {new}, command: x}}"), "exec: interactiveMode is missing"),
        (
            String::new(),
            "exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: x}".into(),
            "exec: apiVersion \"client.authentication.k8s.io/v1alpha1\" is not supported",
        ),
        (String::new(), "exec: {command: x}".into(), "exec: apiVersion is missing"),
        (String::new(), format!("exec: {{apiVersion: {old}}}"), "exec: names no command"),
        (
            String::new(),
            format!("exec: {{apiVersion: {old}, command: x, env: [{{value: a}}]}}"),
            "exec: a variable of env has no name",
        ),
        (
            String::new(),
            format!("exec: {{apiVersion: {old}, command: x, interactiveMode: Sometimes}}"),
            "exec: interactiveMode \"Sometimes\" is none of Never, IfAvailable, Always",
        ),
        (
            String::new(),
            format!("exec: {{apiVersion: {old}, command: x}}, auth-provider: {{name: oidc}}"),
            "exec and auth-provider are both given",
        ),
    ] {
        let user = if user.is_empty() { plugin(&folder, &script, "") } else { user };
        let path = folder.write("config", kubeconfig(&cluster(&running), &user));
        let mut source = Source::of_kubeconfig(&path);
        let problem = source.problem().await.to_string();
        assert!(problem.contains(expected), "{user}: {problem}");
        assert!(!source.task.is_finished());
    }
}

#[tokio::test]
async fn a_plugin_that_failed_is_run_again() {
    let (_server, running) = secure_server().await;
    let useless = "{\"clientKeyData\": \"x\", \"clientCertificateData\": \"x\"}";
    let useless =
        format!("echo '{{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"status\": {useless}}}'; exit 0");
    for (failure, expected) in [("exit 1", "exec: sh: exit status: 1"), (&useless, "client-key: ")] {
        let folder = Folder::new();
        folder.write("token", "x");
        let user = plugin(&folder, &format!("test -e there || {{ {failure}; }}\n{}", issuing("")), "");
        let mut source = Source::of_kubeconfig(&folder.write("config", kubeconfig(&cluster(&running), &user)));
        let problem = source.problem().await.to_string();
        assert!(problem.contains(expected), "{problem}");
        folder.write("there", "");
        assert_eq!(source.listed().await, ["a"]);
    }
}

#[tokio::test]
async fn a_plugin_is_left_alone_where_there_is_something_else_to_be_known_by() {
    let (server, running) = secure_server().await;
    let folder = Folder::new();
    let user = format!("token: abc, {}", plugin(&folder, "exit 1", ""));
    let mut source = Source::of_kubeconfig(&folder.write("config", kubeconfig(&cluster(&running), &user)));
    assert_eq!(source.listed().await, ["a"]);
    assert_eq!((authorization(&server).as_str(), runs(&folder).len()), ("Bearer abc", 0));
}

#[tokio::test]
async fn a_command_line_that_names_nothing_ends_the_source() {
    let source = |servers: &[&str], kubeconfig: Option<&Path>| {
        let servers = servers.iter().map(|&server| server.to_owned()).collect();
        let config = super::KubernetesConfig { kubeconfig: kubeconfig.map(Path::to_owned), servers };
        Source::with(super::IMPATIENT, config, super::environment(&[], Path::new("/nonexistent")))
    };
    for (servers, reason) in [
        (&["ftp://a"][..], "\"ftp://a\" is not the address of an API server; expected https://HOST:PORT"),
        (&["http://a:1", "b"], "the addresses of the API server mix http and https"),
        (&[], "not in a pod (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set); "),
        (&["a:6443"], "not in a pod (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set); "),
    ] {
        let mut source = source(servers, None);
        let ended = tokio::time::timeout(Duration::from_secs(120), &mut source.task).await;
        let error = ended.expect("ended").unwrap().unwrap_err().to_string();
        assert!(error.starts_with(reason), "{error}");
    }
    let mut source = source(&["a:6443"], Some(Path::new("/nonexistent/config")));
    assert!(source.problem().await.to_string().contains("kubeconfig /nonexistent/config: cannot be read"));
}
