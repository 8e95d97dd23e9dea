//! How a kubeconfig may be written, and what of it counts.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Draft, Folder, SERVER, environment, kubeconfig, read, read_in, shown};

#[test]
fn base64_may_be_wrapped_and_binary() {
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", "QUJD".repeat(60));
    let line = STANDARD.encode(&pem);
    let lines: Vec<&str> = line.as_bytes().chunks(76).map(|chunk| std::str::from_utf8(chunk).unwrap()).collect();
    let block = |indent: &str, end: &str| lines.iter().map(|line| format!("{indent}{line}{end}")).collect::<String>();
    let field = |value: &str| {
        format!(
            "kind: Config\ncurrent-context: c\ncontexts: [{{name: c, context: {{cluster: k}}}}]\nclusters:\n- name: k\n  \
                 cluster:\n    server: https://h\n    certificate-authority-data: {value}\n"
        )
    };
    for value in [
        line.clone(),
        format!("|\n{}", block("      ", "\n")),
        format!("|-\n{}", block("      ", "\n")),
        format!(">-\n{}", block("      ", "\n")),
        format!("\n{}", block("      ", "\n")),
        format!("\"{}\"", lines.join("\\n")),
        format!("\"{}\"", lines.join("\\r\\n")),
        format!("!!binary {line}"),
        format!("!!binary |\n{}", block("      ", "\n")),
        // What kubectl makes of `!!binary`: base64 of what the field would hold otherwise.
        format!("!!binary {}", STANDARD.encode(&line)),
        format!("|\n{}", pem.lines().map(|line| format!("      {line}\n")).collect::<String>()),
    ] {
        let text = field(&value);
        let expected = Ok(format!("https://h/; trusts {pem}"));
        assert_eq!(read(&text), expected, "{text}");
        assert_eq!(read(text.replace('\n', "\r\n")).map(|text| text.replace("\r\n", "\n")), expected, "CRLF: {text}");
    }
    assert_eq!(read(kubeconfig(SERVER, "token: !!binary YWJj")).unwrap(), "https://h:6443/; Bearer abc");
    for value in ["\"?\"", "QQ", "Q"] {
        assert!(read(field(value)).unwrap_err().starts_with("certificate-authority-data: is not base64: "), "{value}");
    }
}

#[test]
fn the_current_context_is_followed() {
    let whole = kubeconfig(SERVER, "token: abc");
    let with = |from: &str, to: &str| read(whole.replace(from, to));
    let ok = Ok("https://h:6443/; Bearer abc".to_owned());
    assert_eq!(with("", ""), ok);
    assert_eq!(with("kind: Config\n", ""), ok);
    assert_eq!(with("apiVersion: v1\n", ""), ok);
    assert_eq!(with("current-context: c\n", "current-context: c\npreferences: {}\nextensions: null\nx: 1\n"), ok);
    // Others may be as wrong as they like.
    assert_eq!(
        with("users:\n", "users:\n- name: other\n  user: {exec: {}, as-uid: x, client-certificate: none}\n"),
        ok
    );
    assert_eq!(with("clusters:\n", "clusters:\n- name: other\n- name: null\n  cluster: null\n"), ok);
    for context in ["{cluster: k, user: nobody}", "{cluster: k}", "{cluster: k, user: null, namespace: \"\"}"] {
        assert_eq!(with("{cluster: k, user: u}", context).as_deref(), Ok("https://h:6443/"), "{context}");
    }
    for (from, to, reason) in [
        ("current-context: c\n", "", "has no current-context"),
        ("current-context: c\n", "current-context: \"\"\n", "has no current-context"),
        ("current-context: c\n", "current-context: d\n", "current-context is \"d\", which is none of its contexts"),
        ("{cluster: k,", "{cluster: l,", "its context \"c\" names the cluster \"l\", which is not there"),
        ("{cluster: k,", "{", "its context \"c\" names the cluster \"\", which is not there"),
        ("kind: Config", "kind: config", "kind is \"config\"; expected \"Config\""),
        ("apiVersion: v1", "apiVersion: v2", "apiVersion is \"v2\"; expected \"v1\""),
        ("clusters:\n", "clusters:\n- name: k\n", "has two entries for the cluster \"k\""),
        ("contexts:\n", "contexts:\n- name: c\n", "has two entries for the context \"c\""),
        ("users:\n", "users:\n- name: u\n", "has two entries for the user \"u\""),
    ] {
        assert_eq!(with(from, to).unwrap_err(), reason);
    }
}

#[test]
fn a_file_that_is_not_all_there_is_named() {
    let whole = kubeconfig(SERVER, "token: abc");
    for nothing in ["", "---\n", "null\n", "{}", "# c\n", "Clusters: []\n"] {
        assert_eq!(read(nothing).unwrap_err(), "names no cluster", "{nothing}");
    }
    for (text, reason) in
        [("[]", "mapping"), ("abc", "mapping"), ("{\"apiVersion\": \"v1\", \"kind\"", ""), ("a: [", "")]
    {
        let found = read(text).unwrap_err();
        assert!(found.contains(reason) && found.contains("line 1"), "{text}: {found}");
    }
    assert_eq!(read(b"a: \xff".as_slice()).unwrap_err(), "line 1: is not UTF-8");
    for end in 0..whole.len() - 1 {
        // Half of it is of no use, or harmless; it is never a server that the file does not name.
        match read(&whole[..end]) {
            Err(reason) => assert!(!reason.contains('\n'), "{reason}"),
            Ok(shown) => {
                assert!(["https://h:6443/", "https://h:6443/; Bearer abc"].contains(&shown.as_str()), "{shown}")
            }
        }
    }
    let folder = Folder::new();
    folder.write("folder/file", "");
    for (name, reason) in
        [("none", "No such file or directory (os error 2)"), ("folder", "Is a directory (os error 21)")]
    {
        let path = folder.path(name);
        let error = Draft::read(Some(&path), &[], &environment(&[], folder.0.path())).err().unwrap();
        assert_eq!(error.to_string(), format!("kubeconfig {}: cannot be read: {reason}", path.display()));
    }
}

#[test]
fn what_kubectl_reads_leniently_is_read_with_a_word() {
    let folder = Folder::new();
    let whole = kubeconfig(SERVER, "token: abc");
    let wide = |unit: fn(u16) -> [u8; 2]| format!("\u{feff}{whole}").encode_utf16().flat_map(unit).collect::<Vec<u8>>();
    let json = r#"{"clusters": [{"name": "k", "cluster": {"server": "https://h:6443"}}], "current-context": "c", "contexts":
        [{"name": "c", "context": {"cluster": "k", "user": "u"}}], "users": [{"name": "u", "user": {"token": "abc"}}]}"#;
    let anchors = "current-context: c\nx: &x {server: \"https://a\", insecure-skip-tls-verify: false}\nclusters: [{name: k, \
                   cluster: {<<: *x, server: \"https://h:6443\"}}]\ncontexts: [{name: c, context: {cluster: k, user: \
                   u}}]\nusers: [{name: u, user: {token: abc}}]\n";
    let repeated = "set more than once, and the last value counts";
    for (text, warnings) in [
        (whole.replace('\n', "\r\n").into_bytes(), vec![]),
        (format!("\u{feff}{whole}").into_bytes(), vec![]),
        (wide(u16::to_le_bytes), vec![]),
        (wide(u16::to_be_bytes), vec![]),
        (json.into(), vec![]),
        (anchors.into(), vec![]),
        (whole.replace("token: abc", "token:\tabc").into_bytes(), vec![]),
        (format!("---\n{whole}---\na: [").into_bytes(), vec!["only its first document is used".to_owned()]),
        (
            whole.replace("token: abc", "token: a, token: abc").into_bytes(),
            vec![format!("{repeated}: users[0].user.token")],
        ),
        (format!("current-context: d\n{whole}").into_bytes(), vec![format!("{repeated}: current-context")]),
        (format!("users: []\n{whole}").into_bytes(), vec![format!("{repeated}: users")]),
    ] {
        let path = folder.write("config", &text);
        let draft = Draft::read(Some(&path), &[], &environment(&[], folder.0.path()));
        let draft = draft.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&text)));
        assert_eq!(shown(&draft), "https://h:6443/; Bearer abc", "{}", String::from_utf8_lossy(&text));
        let expected: Vec<String> =
            warnings.iter().map(|warning| format!("kubeconfig {}: {warning}", path.display())).collect();
        assert_eq!(draft.warnings, expected);
    }
}

#[test]
fn paths_are_relative_to_the_kubeconfig() {
    let folder = Folder::new();
    for name in ["a/pki/ca.pem", "a/cert.pem", "key.pem", "a/token"] {
        folder.write(name, name);
    }
    let plugin = "exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: COMMAND}";
    let text = kubeconfig(
        &format!("{SERVER}, certificate-authority: pki/ca.pem"),
        &format!(
            "client-certificate: {}, client-key: ../key.pem, tokenFile: ./token",
            folder.path("a/cert.pem").display()
        ),
    );
    let path = folder.write("a/config", text);
    let draft = Draft::read(Some(&path), &[], &environment(&[], folder.0.path())).unwrap();
    let expected = "https://h:6443/; trusts a/pki/ca.pem; is a/cert.pem with key.pem; Bearer a/token";
    assert_eq!(shown(&draft), expected);
    for (command, expected) in [
        ("plugin", "plugin"),
        ("./plugin", "DIR/./plugin"),
        ("bin/plugin", "DIR/bin/plugin"),
        ("/bin/plugin", "/bin/plugin"),
    ] {
        let shown = read_in(&folder, kubeconfig(SERVER, &plugin.replace("COMMAND", command))).unwrap();
        assert!(shown.contains(&format!("command: \"{expected}\"")), "{shown}");
    }
}
