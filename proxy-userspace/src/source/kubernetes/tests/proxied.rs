//! An API server behind a proxy. Its address, of a range for documentation (RFC 5737), is dialled by nobody.

use std::process::Command;

use super::{
    FakeServer, KubernetesConfig, PATIENT, Source, authority::Authority, environment, fake_proxy::FakeProxy, service,
};
use crate::source::kubernetes::access::tests::{Folder, kubeconfig};

const SERVER: &str = "192.0.2.1:6443";

fn server() -> FakeServer {
    let server = FakeServer::default();
    server.apply("services", service("a"));
    server
}

#[tokio::test]
async fn requests_go_through_the_proxy_that_is_named() {
    let (authority, folder) = (Authority::new(), Folder::new());
    folder.write("ca.pem", &authority.pem);
    let own = authority.server(&["192.0.2.1", "api.example"]);
    let running = server().start_tls("127.0.0.1:0", own.server_config()).await;
    let for_proxy = authority.server(&["127.0.0.1"]);
    for (scheme, password, host, asked) in [
        ("http://", "", SERVER, "CONNECT 192.0.2.1:6443 HTTP/1.1"),
        ("http://", "u:p%40@", "api.example", "CONNECT api.example:443 HTTP/1.1 Basic dTpwQA=="),
        ("https://", "", SERVER, "CONNECT 192.0.2.1:6443 HTTP/1.1"),
        ("socks5://", "", SERVER, "SOCKS 192.0.2.1:6443"),
        ("socks5://", "u:p@", "api.example", "SOCKS api.example:443 u:p"),
    ] {
        for how in ["proxy-url", "HTTPS_PROXY", "https_proxy"] {
            let tls = (scheme == "https://").then(|| for_proxy.server_config());
            let proxy = FakeProxy::start(running.address, tls).await;
            let url = format!("{scheme}{password}{}", proxy.address);
            let cluster = format!("server: \"https://{host}\", certificate-authority: ca.pem");
            let (cluster, variables) = match how {
                "proxy-url" => (
                    format!("{cluster}, proxy-url: \"{url}\""),
                    vec![("HTTPS_PROXY", "http://192.0.2.9:1"), ("NO_PROXY", "*")],
                ),
                variable => (cluster, vec![(variable, url.as_str())]),
            };
            let kubeconfig = Some(folder.write("config", kubeconfig(&cluster, "")));
            let config = KubernetesConfig { kubeconfig, servers: Vec::new() };
            let mut source = Source::with(PATIENT, config, environment(&variables, folder.0.path()));
            assert_eq!(source.outcome().await.as_deref(), Ok(&["a".to_owned()][..]), "{how} {url}");
            assert_eq!(proxy.first().as_deref(), Some(asked), "{how} {url}");
        }
    }
}

#[tokio::test]
async fn a_request_in_plain_text_is_passed_on_by_the_proxy() {
    let running = server().start("127.0.0.1:0").await;
    for (password, suffix) in [("", ""), ("u:p@", " Basic dTpw")] {
        let proxy = FakeProxy::start(running.address, None).await;
        let url = format!("http://{password}{}", proxy.address);
        let config = KubernetesConfig { kubeconfig: None, servers: vec!["http://192.0.2.1:8080".into()] };
        let mut source = Source::with(PATIENT, config, environment(&[("HTTP_PROXY", &url)], "/nonexistent".as_ref()));
        assert_eq!(source.outcome().await.as_deref(), Ok(&["a".to_owned()][..]));
        let asked = proxy.first().unwrap();
        assert!(
            asked.starts_with("GET http://192.0.2.1:8080/api") || asked.starts_with("GET http://192.0.2.1:8080/apis/")
        );
        assert!(asked.ends_with(&format!(" HTTP/1.1{suffix}")), "{asked}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named() {
    let folder = Folder::new();
    for (url, expected) in [
        ("http://127.0.0.1:1", "proxy http://127.0.0.1:1/: "),
        ("http://u:secret@127.0.0.1:1", "proxy http://127.0.0.1:1/: "),
        ("socks5://127.0.0.1:1", "proxy socks5://127.0.0.1:1/: "),
    ] {
        let cluster = format!("server: \"https://{SERVER}\", insecure-skip-tls-verify: true, proxy-url: \"{url}\"");
        let mut source = Source::of_kubeconfig(&folder.write("config", kubeconfig(&cluster, "")));
        let problem = source.problem().await.to_string();
        assert!(problem.contains(expected) && problem.contains("Connection refused"), "{problem}");
        assert!(!problem.contains("secret"), "{problem}");
    }
}

#[tokio::test]
async fn what_is_on_this_machine_is_asked_directly() {
    let running = server().start("127.0.0.1:0").await;
    let nowhere = [("HTTP_PROXY", "http://192.0.2.9:1"), ("HTTPS_PROXY", "http://192.0.2.9:1")];
    let config = KubernetesConfig { kubeconfig: None, servers: vec![running.url()] };
    let mut source = Source::with(PATIENT, config, environment(&nowhere, "/nonexistent".as_ref()));
    assert_eq!(source.listed().await, ["a"]);
}

/// kubeadm gives kube-proxy the variables of the shell that it ran in. This takes an address that is not a loopback
/// one, and so a network of its own.
#[test]
fn an_address_in_no_proxy_is_asked_directly() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: a network namespace can be made by root only");
        return;
    }
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        for arguments in ["link set lo up", "address add 192.0.2.1/32 dev lo"] {
            assert!(Command::new("ip").args(arguments.split(' ')).status().unwrap().success());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = Folder::new();
            let own = Authority::new().server(&["192.0.2.1"]);
            let running = server().start_tls(SERVER, own.server_config()).await;
            let cluster = format!("server: \"https://{}\", insecure-skip-tls-verify: true", running.address);
            let kubeconfig = Some(folder.write("config", kubeconfig(&cluster, "")));
            let outcome = async |no_proxy| {
                let variables = [
                    ("HTTP_PROXY", "http://127.0.0.1:1"),
                    ("HTTPS_PROXY", "http://127.0.0.1:1"),
                    ("NO_PROXY", no_proxy),
                ];
                let config = KubernetesConfig { kubeconfig: kubeconfig.clone(), servers: Vec::new() };
                Source::with(PATIENT, config, environment(&variables, folder.0.path())).outcome().await
            };
            for no_proxy in ["192.0.2.1", "10.96.0.0/12,192.0.2.0/24,.svc", "192.0.2.1:6443", "*"] {
                assert_eq!(outcome(no_proxy).await.as_deref(), Ok(&["a".to_owned()][..]), "{no_proxy}");
            }
            let problem = outcome("192.0.2.1:443,192.0.3.0/24").await.unwrap_err();
            assert!(problem.contains("proxy http://127.0.0.1:1/: "), "{problem}");
        });
    });
    thread.join().unwrap();
}
