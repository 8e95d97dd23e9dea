//! TLS with the API server, as far as client-go and Go's `crypto/tls` have an opinion on it.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa};

use super::{
    Answer, FakeServer, Source,
    authority::{Authority, Signed, expired, params},
    service,
};
use crate::{
    model::Delta,
    source::kubernetes::access::tests::{Folder, kubeconfig},
};

/// A server with one Service.
fn server() -> FakeServer {
    let server = FakeServer::default();
    server.apply("services", service("a"));
    server
}

/// What comes first of a server with this certificate: its Services, or a problem.
async fn outcome(address: &str, own: &Signed, cluster: &str, folder: &Folder) -> Result<Vec<String>, String> {
    let running = server().start_tls(&format!("{address}:0"), own.server_config()).await;
    let cluster = format!("server: \"https://{address}:{}\", {cluster}", running.port());
    Source::of_kubeconfig(&folder.write("config", kubeconfig(&cluster, ""))).outcome().await
}

#[tokio::test]
async fn a_server_is_judged_as_go_judges_it() {
    let (authority, other) = (Authority::new(), Authority::new());
    let named_only_in_the_subject = {
        let mut params = params(&[]);
        params.distinguished_name.push(DnType::CommonName, "127.0.0.1");
        params
    };
    let as_authority = |mut params: CertificateParams| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Signed::by_itself(&params)
    };
    let own = [
        as_authority(params(&["127.0.0.1"])),
        as_authority(params(&["api.example"])),
        as_authority(expired(params(&["127.0.0.1"]))),
        Signed::by_itself(&params(&["127.0.0.1"])),
    ];
    let folder = Folder::new();
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    folder.write("ca.pem", format!("a word before\n{junk}{}{}", other.pem, authority.pem));
    folder.write("other.pem", &other.pem);
    for (at, signed) in own.iter().enumerate() {
        folder.write(&format!("own{at}.pem"), &signed.certificate);
    }
    let (trusted, insecure) = ("certificate-authority: ca.pem", "insecure-skip-tls-verify: true");
    for (address, signed, cluster, problem) in [
        ("127.0.0.1", &authority.server(&["127.0.0.1"]), trusted, None),
        ("[::1]", &authority.server(&["::1"]), trusted, None),
        ("localhost", &authority.server(&["localhost"]), trusted, None),
        ("127.0.0.1", &authority.server(&["api.example"]), trusted, Some("not valid for name \"127.0.0.1\"")),
        (
            "127.0.0.1",
            &authority.server(&["api.example"]),
            "certificate-authority: ca.pem, tls-server-name: api.example",
            None,
        ),
        (
            "127.0.0.1",
            &authority.server(&["10.9.9.9"]),
            "certificate-authority: ca.pem, tls-server-name: 10.9.9.9",
            None,
        ),
        (
            "127.0.0.1",
            &authority.server(&["*.a.example"]),
            "certificate-authority: ca.pem, tls-server-name: b.a.example",
            None,
        ),
        ("127.0.0.1", &authority.sign(&named_only_in_the_subject), trusted, Some("not valid for")),
        ("127.0.0.1", &authority.server(&["127.0.0.1"]), "certificate-authority: other.pem", Some("BadSignature")),
        ("127.0.0.1", &authority.sign(&expired(params(&["127.0.0.1"]))), trusted, Some("certificate expired")),
        ("127.0.0.1", &other.sign(&expired(params(&["x"]))), insecure, None),
        ("127.0.0.1", &own[0], "certificate-authority: own0.pem", None),
        ("127.0.0.1", &own[1], "certificate-authority: own1.pem", Some("not valid for name \"127.0.0.1\"")),
        ("127.0.0.1", &own[2], "certificate-authority: own2.pem", Some("certificate expired")),
        ("127.0.0.1", &own[0], "certificate-authority: own3.pem", Some("CaUsedAsEndEntity")),
        ("127.0.0.1", &own[3], "certificate-authority: own3.pem", None),
    ] {
        match (outcome(address, signed, cluster, &folder).await, problem) {
            (Ok(names), None) => assert_eq!(names, ["a"]),
            (Err(found), Some(expected)) => assert!(found.contains(expected), "{cluster}: {found}"),
            (found, expected) => panic!("{address} {cluster}: {found:?}, not {expected:?}"),
        }
    }
}

/// A user with the files `client.crt` and `client.key`.
const CLIENT: &str = "client-certificate: client.crt, client-key: client.key";

fn write_client(folder: &Folder, signed: &Signed) {
    folder.write("client.crt", &signed.certificate);
    folder.write("client.key", &signed.key);
}

#[tokio::test]
async fn a_client_certificate_that_is_replaced_on_disk_is_used() {
    let (authority, folder, server) = (Authority::new(), Folder::new(), server());
    let (first, second) = (authority.server(&["client"]), authority.server(&["client"]));
    write_client(&folder, &first);
    folder.write("ca.pem", &authority.pem);
    let running = server.start_tls("127.0.0.1:0", authority.asking(&authority.server(&["127.0.0.1"]))).await;
    let cluster = format!("server: \"https://127.0.0.1:{}\", certificate-authority: ca.pem", running.port());
    let mut source = Source::of_kubeconfig(&folder.write("config", kubeconfig(&cluster, CLIENT)));
    assert_eq!(source.listed().await, ["a"]);
    assert_eq!(server.requests().last().unwrap().certificate, Some(first.der()));

    write_client(&folder, &second);
    tokio::time::sleep(super::FRESH).await;
    server.end_watches(410, "Expired");
    assert_eq!(source.listed().await, ["a"]);
    assert_eq!(server.requests().last().unwrap().certificate, Some(second.der()));

    // Half of a pair is of no use: the last whole one stays.
    folder.write("client.key", &first.key);
    tokio::time::sleep(super::FRESH).await;
    server.end_watches(410, "Expired");
    assert_eq!(source.listed().await, ["a"]);
    assert_eq!(server.requests().last().unwrap().certificate, Some(second.der()));
}

#[tokio::test]
async fn an_authority_that_is_replaced_on_disk_is_used() {
    let (first, second, folder, server) = (Authority::new(), Authority::new(), Folder::new(), server());
    folder.write("ca.pem", &first.pem);
    let running = server.start_tls("127.0.0.1:0", first.server(&["127.0.0.1"]).server_config()).await;
    let (address, port) = (running.address.to_string(), running.port());
    let cluster = format!("server: \"https://127.0.0.1:{port}\", certificate-authority: ca.pem");
    let mut source = Source::of_kubeconfig(&folder.write("config", kubeconfig(&cluster, "")));
    assert_eq!(source.listed().await, ["a"]);
    running.stop().await;
    let _running = server.start_tls(&address, second.server(&["127.0.0.1"]).server_config()).await;
    assert!(source.problem().await.to_string().contains("cannot watch "));
    folder.write("ca.pem", &second.pem);
    server.apply("services", service("b"));
    assert!(matches!(source.services().await, Delta::Apply(service) if service.name.name == "b"));
}

#[tokio::test]
async fn a_key_that_belongs_to_another_certificate_is_named() {
    let (authority, folder) = (Authority::new(), Folder::new());
    write_client(&folder, &authority.server(&["client"]));
    folder.write("client.key", authority.server(&["client"]).key);
    let cluster = "server: \"https://127.0.0.1:1\", insecure-skip-tls-verify: true";
    let path = folder.write("config", kubeconfig(cluster, CLIENT));
    let problem = Source::of_kubeconfig(&path).problem().await.to_string();
    let expected = format!("kubeconfig {}: client-certificate and client-key: ", path.display());
    assert!(problem.contains(&expected) && problem.contains("KeyMismatch"), "{problem}");
}

#[tokio::test]
async fn a_client_certificate_that_is_over_is_named() {
    let (authority, folder) = (Authority::new(), Folder::new());
    write_client(&folder, &authority.sign(&expired(params(&["client"]))));
    folder.write("ca.pem", &authority.pem);
    let own = authority.server(&["127.0.0.1"]);
    // An API server answers; others end the handshake.
    for (config, expected) in [
        (own.server_config(), "401 Unauthorized: the client certificate is of no use: certificate expired"),
        (authority.asking(&own), "CertificateExpired"),
    ] {
        let server = server();
        server.script(|_| Answer::Status(401, "Unauthorized"));
        let running = server.start_tls("127.0.0.1:0", config).await;
        let cluster = format!("server: \"https://127.0.0.1:{}\", certificate-authority: ca.pem", running.port());
        let mut source = Source::of_kubeconfig(&folder.write("config", kubeconfig(&cluster, CLIENT)));
        let problem = source.problem().await.to_string();
        assert!(problem.contains(expected), "{problem}");
        write_client(&folder, &authority.server(&["client"]));
        server.script(|_| Answer::Usual);
        assert_eq!(source.listed().await, ["a"]);
        write_client(&folder, &authority.sign(&expired(params(&["client"]))));
    }
}
