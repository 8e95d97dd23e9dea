//! What client-go's own tests of its kubeconfig loader and its transports say, as far as it has a meaning here.

mod file;

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::*;

/// A folder with a kubeconfig, and the files that it points to.
pub(in super::super) struct Folder(pub(in super::super) TempDir);

impl Folder {
    pub(in super::super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(in super::super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(in super::super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), content).unwrap();
        self.path(name)
    }
}

/// A kubeconfig of one cluster and one user, whose fields are given as YAML in one line.
pub(in super::super) fn kubeconfig(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: k\n  cluster: {{{cluster}}}\ncontexts:\n- \
         name: c\n  context: {{cluster: k, user: u}}\nusers:\n- name: u\n  user: {{{user}}}\n"
    )
}

pub(in super::super) fn environment(variables: &[(&str, &str)], account: &Path) -> Environment {
    let variables: Vec<_> = variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    let variable = |wanted: &str| variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    Environment::new(Proxies::from_environment(variable).0, variable, account.to_owned())
}

const IN_POD: &[(&str, &str)] = &[("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];

/// Everything that is not as it is without a word, in a fixed order.
fn shown(draft: &Draft) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut parts: Vec<String> = draft.addresses.iter().map(ToString::to_string).collect();
    parts.extend(draft.server_name.as_ref().map(|name| format!("name {name}")));
    parts.extend(match &draft.trust {
        tls::Trust::System => None,
        tls::Trust::Anyone => Some("trusts anyone".to_owned()),
        tls::Trust::Authorities(pem) => Some(format!("trusts {}", text(pem))),
    });
    parts.extend(draft.identity.as_ref().map(|own| format!("is {} with {}", text(&own.certificate), text(&own.key))));
    parts.extend(draft.authorization.as_ref().map(|value| value.to_str().unwrap().to_owned()));
    let Impersonated { user, uid, groups, extra } = &draft.impersonated;
    parts.extend(user.as_ref().map(|user| format!("as {user} {uid:?} {groups:?} {extra:?}")));
    parts.extend(draft.proxy_url.as_ref().map(|url| format!("proxy {url}")));
    parts.extend(draft.plugin.as_ref().map(|plugin| format!("{plugin:?}")));
    parts.join("; ")
}

/// What a kubeconfig comes to, or why it comes to nothing; without the path of its folder.
fn read_in(folder: &Folder, text: impl AsRef<[u8]>) -> Result<String, String> {
    let path = folder.write("config", text);
    let told = |text: String| {
        let folder = folder.0.path().display().to_string();
        text.replace(&format!("kubeconfig {folder}/config: "), "").replace(&folder, "DIR")
    };
    let environment = environment(&[], &folder.path("account"));
    Draft::read(Some(&path), &[], &environment)
        .map(|draft| told(shown(&draft)))
        .map_err(|error| told(error.to_string()))
}

fn read(text: impl AsRef<[u8]>) -> Result<String, String> {
    read_in(&Folder::new(), text)
}

const SERVER: &str = "server: \"https://h:6443\"";

/// A cluster's fields beside its server, a user's fields, and what they come to.
fn check(rows: &[(&str, &str, Result<&str, &str>)]) {
    let folder = Folder::new();
    for (name, content) in
        [("ca.pem", "CA"), ("cert.pem", "CERT"), ("key.pem", "KEY"), ("token", " file \n"), ("blank", "\n")]
    {
        folder.write(name, content);
    }
    for (cluster, user, expected) in rows {
        let found = read_in(&folder, kubeconfig(&format!("{SERVER}, {cluster}"), user));
        let expected = expected.map(|parts| format!("https://h:6443/; {parts}").trim_end_matches("; ").to_owned());
        assert_eq!(found, expected.map_err(str::to_owned), "{cluster} {user}");
    }
}

#[test]
fn a_user_is_known_by_what_client_go_would_take() {
    check(&[
        ("", "", Ok("")),
        ("", "token: abc", Ok("Bearer abc")),
        ("", "token: \"\", username: \"\", tokenFile: \"\"", Ok("")),
        (
            "",
            "token: null, tokenFile: null, as-groups: null, exec: null, auth-provider: null, client-key: null",
            Ok(""),
        ),
        ("", "tokenFile: token", Ok("Bearer file")),
        // The file is read again and again, so that it is newer.
        ("", "tokenFile: token, token: abc", Ok("Bearer file")),
        ("", "tokenFile: none, token: abc", Ok("Bearer abc")),
        ("", "tokenFile: blank, token: abc", Ok("Bearer abc")),
        ("", "tokenFile: none", Err("cannot read the token DIR/none: No such file or directory (os error 2)")),
        ("", "tokenFile: blank", Err("the token DIR/blank is empty")),
        ("", "username: u, password: p", Ok("Basic dTpw")),
        ("", "username: u", Ok("Basic dTo=")),
        ("", "password: p", Ok("")),
        ("", "username: u, password: p, token: abc", Err("a token and a username are both given")),
        ("", "username: u, password: p, tokenFile: token", Err("a token and a username are both given")),
        ("", "token: \"a\\nb\"", Err("the token has characters that none can have")),
        ("", "client-certificate: cert.pem, client-key: key.pem", Ok("is CERT with KEY")),
        ("", "client-certificate-data: Q0VSVDI=, client-key-data: S0VZMg==", Ok("is CERT2 with KEY2")),
        ("", "client-certificate: cert.pem, client-key-data: S0VZMg==", Ok("is CERT with KEY2")),
        ("", "client-certificate: cert.pem, client-key: key.pem, token: abc", Ok("is CERT with KEY; Bearer abc")),
        ("", "client-certificate: cert.pem", Err("client-key is missing beside client-certificate")),
        ("", "client-key: key.pem", Ok("")),
        (
            "",
            "client-certificate: cert.pem, client-certificate-data: Q0VSVDI=, client-key: key.pem",
            Err("client-certificate and client-certificate-data are both given"),
        ),
        (
            "",
            "client-certificate: cert.pem, client-key: key.pem, client-key-data: S0VZMg==",
            Err("client-key and client-key-data are both given"),
        ),
        (
            "",
            "client-certificate: none, client-key: key.pem",
            Err("client-certificate: cannot read DIR/none: No such file or directory (os error 2)"),
        ),
        (
            "",
            "client-certificate: cert.pem, client-key: none",
            Err("client-key: cannot read DIR/none: No such file or directory (os error 2)"),
        ),
        (
            "",
            "client-certificate-data: \"?\", client-key: key.pem",
            Err("client-certificate-data: is not base64: Invalid symbol 63, offset 0."),
        ),
        (
            "",
            "auth-provider: {name: gcp, config: {a: b}}",
            Err("auth-provider \"gcp\" is not supported; use exec, or a token"),
        ),
        ("", "as: x", Ok("as x None None None")),
        (
            "",
            "as: x, as-uid: \"7\", as-groups: [g, h], as-user-extra: {a/b: [c, d]}",
            Ok("as x Some(\"7\") Some([\"g\", \"h\"]) Some({\"a/b\": [\"c\", \"d\"]})"),
        ),
        ("", "as-uid: \"7\"", Err("as-uid, as-groups and as-user-extra need as")),
        ("", "as-groups: [g]", Err("as-uid, as-groups and as-user-extra need as")),
        ("", "as-user-extra: {a: [b]}", Err("as-uid, as-groups and as-user-extra need as")),
        ("", "as-groups: [], as-user-extra: {}", Ok("")),
    ]);
}

#[test]
fn a_cluster_is_known_by_what_client_go_would_take() {
    check(&[
        ("certificate-authority: ca.pem", "", Ok("trusts CA")),
        ("certificate-authority-data: Q0Ey", "", Ok("trusts CA2")),
        ("certificate-authority: \"\", certificate-authority-data: \"\"", "", Ok("")),
        (
            "certificate-authority: ca.pem, certificate-authority-data: Q0Ey",
            "",
            Err("certificate-authority and certificate-authority-data are both given"),
        ),
        (
            "certificate-authority: none",
            "",
            Err("certificate-authority: cannot read DIR/none: No such file or directory (os error 2)"),
        ),
        ("insecure-skip-tls-verify: true", "", Ok("trusts anyone")),
        ("insecure-skip-tls-verify: yes", "", Ok("trusts anyone")),
        ("insecure-skip-tls-verify: false", "", Ok("")),
        ("insecure-skip-tls-verify: null", "", Ok("")),
        (
            "insecure-skip-tls-verify: true, certificate-authority: ca.pem",
            "",
            Err("certificate-authority and insecure-skip-tls-verify are both given"),
        ),
        ("tls-server-name: api.example", "", Ok("name api.example")),
        ("proxy-url: \"http://p:3128\"", "", Ok("proxy http://p:3128")),
        (
            "disable-compression: true, x: [1], extensions: [{name: a, extension: {b: 1}}, {name: y}]",
            "z: {a: 1}",
            Ok(""),
        ),
    ]);
}

#[test]
fn secrets_are_not_sent_in_plain_text() {
    let user = "token: abc, client-certificate: none, exec: {command: x}, as: x";
    assert_eq!(read(kubeconfig("server: \"http://h:8080\"", user)).unwrap(), "http://h:8080/; as x None None None");
    // As `DefaultServerURL` of client-go says: without a scheme it depends on whether TLS is spoken of.
    let folder = Folder::new();
    folder.write("ca.pem", "CA");
    folder.write("cert.pem", "CERT");
    for (cluster, user, expected) in [
        ("server: \"localhost:8080\"", "token: abc", "http://localhost:8080/"),
        ("server: h", "", "http://h/"),
        ("server: h, insecure-skip-tls-verify: true", "token: abc", "https://h/; trusts anyone; Bearer abc"),
        ("server: \"[fd00::1]:6443\", certificate-authority: ca.pem", "", "https://[fd00::1]:6443/; trusts CA"),
        ("server: h", "client-certificate: cert.pem, client-key: cert.pem", "https://h/; is CERT with CERT"),
    ] {
        assert_eq!(read_in(&folder, kubeconfig(cluster, user)).as_deref(), Ok(expected), "{cluster}");
    }
}

#[test]
fn a_server_may_have_a_path_and_a_password() {
    for (server, expected) in [
        ("https://h:6443/a/b/", Ok("https://h:6443/a/b/")),
        ("https://h/a?x=1#y", Ok("https://h/a")),
        ("https://name:p%40ss@h", Ok("https://h/; Basic bmFtZTpwQHNz")),
        ("h/a", Err("server \"h/a\" is neither a URL nor HOST:PORT")),
        ("ftp://h", Err("server \"ftp://h\" is neither a URL nor HOST:PORT")),
        ("https://", Err("server \"https://\" is neither a URL nor HOST:PORT")),
        ("", Err("its cluster has no server")),
    ] {
        let found = read(kubeconfig(&format!("server: \"{server}\""), ""));
        assert_eq!(found.as_deref().map_err(String::as_str), expected, "{server}");
    }
}

#[test]
fn a_pod_has_a_service_account() {
    let folder = Folder::new();
    folder.write("account/token", "secret");
    folder.write("account/ca.crt", "CA");
    let in_pod = environment(IN_POD, &folder.path("account"));
    let read = |kubeconfig: Option<&Path>, given: &[&str], environment: &Environment| {
        let given: Vec<Uri> = given.iter().map(|address| address.parse().unwrap()).collect();
        Draft::read(kubeconfig, &given, environment)
    };
    let account = "name kubernetes.default.svc; trusts CA; Bearer secret";
    assert_eq!(shown(&read(None, &[], &in_pod).unwrap()), format!("https://10.96.0.1:443/; {account}"));
    assert_eq!(shown(&read(None, &["https://a:1"], &in_pod).unwrap()), format!("https://a:1/; {account}"));
    assert_eq!(shown(&read(None, &["http://a:1"], &in_pod).unwrap()), "http://a:1/");
    let v6 = [("KUBERNETES_SERVICE_HOST", "fd00::1"), ("KUBERNETES_SERVICE_PORT", "6443")];
    let v6 = environment(&v6, &folder.path("account"));
    assert_eq!(shown(&read(None, &[], &v6).unwrap()), format!("https://[fd00::1]:6443/; {account}"));

    // A kubeconfig without a cluster leads to it, as with client-go; one with mistakes does not.
    let (empty, wrong) = (folder.write("empty", ""), folder.write("wrong", "kind: Foo"));
    let draft = read(Some(&empty), &[], &in_pod).unwrap();
    assert_eq!(shown(&draft), format!("https://10.96.0.1:443/; {account}"));
    let warning =
        format!("kubeconfig {}: names no cluster; the service account of this pod is used instead", empty.display());
    assert_eq!(draft.warnings, [warning]);
    assert!(read(Some(&wrong), &[], &in_pod).is_err());
    assert!(read(Some(&empty), &[], &environment(IN_POD, &folder.path("none"))).is_err());
    assert!(read(Some(&empty), &[], &environment(&IN_POD[..1], &folder.path("account"))).is_err());
    let error = read(None, &[], &environment(IN_POD, &folder.path("none"))).err().unwrap().to_string();
    assert!(error.starts_with("service account: "), "{error}");
}

#[test]
fn the_command_line_says_where_the_servers_are() {
    let folder = Folder::new();
    let given: [Uri; 2] = ["https://10.0.0.1:6443", "https://10.0.0.2"].map(|address| address.parse().unwrap());
    for (cluster, count, expected) in [
        (SERVER, 1, "https://10.0.0.1:6443/; Bearer abc"),
        (SERVER, 2, "https://10.0.0.1:6443/; https://10.0.0.2/; name kubernetes.default.svc; Bearer abc"),
        ("tls-server-name: api.example", 1, "https://10.0.0.1:6443/; name api.example; Bearer abc"),
        ("tls-server-name: api.example", 2, "https://10.0.0.1:6443/; https://10.0.0.2/; name api.example; Bearer abc"),
    ] {
        let path = folder.write("config", kubeconfig(cluster, "token: abc"));
        let draft = Draft::read(Some(&path), &given[..count], &environment(&[], folder.0.path())).unwrap();
        assert_eq!(shown(&draft), expected);
    }
    let path = folder.write("config", "users: [{name: \"\", user: {token: abc}}]");
    let draft = Draft::read(Some(&path), &given[..1], &environment(&[], folder.0.path())).unwrap();
    assert_eq!(shown(&draft), "https://10.0.0.1:6443/; Bearer abc");
}

#[test]
fn values_that_no_connection_can_be_made_of_are_named() {
    let folder = Folder::new();
    for (cluster, user, reason) in [
        ("", "as: \"a\\nb\"", "as: HttpError: failed to parse header value"),
        ("tls-server-name: \"a b\"", "", "tls-server-name \"a b\" is not a name that a certificate can have"),
        ("proxy-url: \"socks6://example.com\"", "", "proxy-url is not the URL of an http, https or socks5 proxy"),
        ("proxy-url: example.com", "", "proxy-url is not the URL of an http, https or socks5 proxy"),
        ("proxy-url: chewbacca@example.com", "", "proxy-url is not the URL of an http, https or socks5 proxy"),
        ("certificate-authority-data: Q0Ey", "", "certificate-authority: holds no certificate"),
    ] {
        let path = folder.write("config", kubeconfig(&format!("{SERVER}, {cluster}"), user));
        let environment = environment(&[], folder.0.path());
        let draft = Draft::read(Some(&path), &[], &environment).unwrap();
        let error = Access::new(&draft, None, &environment).err().unwrap();
        assert_eq!(error.to_string(), format!("kubeconfig {}: {reason}", path.display()));
    }
}
