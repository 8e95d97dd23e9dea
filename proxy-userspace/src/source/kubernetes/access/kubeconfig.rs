use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::yaml::{self, Read};

/// A text that may be absent, null or empty, which all mean the same.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Text(Option<String>);

/// A kubeconfig, as far as it has a meaning here. Everything may be absent or null; unknown fields are skipped.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    #[serde(rename = "apiVersion")]
    api_version: Text,
    kind: Text,
    current_context: Text,
    clusters: Option<Vec<NamedCluster>>,
    contexts: Option<Vec<NamedContext>>,
    users: Option<Vec<NamedUser>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedCluster {
    name: Text,
    cluster: Option<Cluster>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedContext {
    name: Text,
    context: Option<Context>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NamedUser {
    name: Text,
    user: Option<User>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Context {
    cluster: Text,
    user: Text,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Cluster {
    pub(super) server: Text,
    pub(super) tls_server_name: Text,
    pub(super) insecure_skip_tls_verify: Option<bool>,
    pub(super) certificate_authority: Text,
    pub(super) certificate_authority_data: Text,
    pub(super) proxy_url: Text,
    pub(super) disable_compression: Option<bool>,
    pub(super) extensions: Option<Vec<Extension>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Extension {
    pub(super) name: Text,
    pub(super) extension: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct User {
    pub(super) username: Text,
    pub(super) password: Text,
    pub(super) token: Text,
    #[serde(rename = "tokenFile")]
    pub(super) token_file: Text,
    pub(super) client_certificate: Text,
    pub(super) client_certificate_data: Text,
    pub(super) client_key: Text,
    pub(super) client_key_data: Text,
    #[serde(rename = "as")]
    pub(super) impersonate: Text,
    #[serde(rename = "as-uid")]
    pub(super) impersonate_uid: Text,
    #[serde(rename = "as-groups")]
    pub(super) impersonate_groups: Option<Vec<String>>,
    #[serde(rename = "as-user-extra")]
    pub(super) impersonate_extra: Option<BTreeMap<String, Vec<String>>>,
    pub(super) auth_provider: Option<AuthProvider>,
    pub(super) exec: Option<Exec>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct AuthProvider {
    pub(super) name: Text,
}

/// A program that issues credentials.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Exec {
    pub(super) api_version: Text,
    pub(super) command: Text,
    pub(super) args: Option<Vec<String>>,
    pub(super) env: Option<Vec<Variable>>,
    pub(super) install_hint: Text,
    pub(super) interactive_mode: Text,
    pub(super) provide_cluster_info: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Variable {
    pub(super) name: Text,
    pub(super) value: Text,
}

/// What the current context of a kubeconfig names.
pub(super) struct Chosen {
    /// The cluster, or why there is none.
    pub(super) cluster: Result<Cluster, String>,
    pub(super) user: User,
    /// One line each, for whoever wrote the file.
    pub(super) warnings: Vec<String>,
}

impl Text {
    pub(super) fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// Takes a relative path for one from `folder`.
    fn resolve(&mut self, folder: &Path) {
        if let Some(path) = &mut self.0 {
            *path = folder.join(&*path).to_string_lossy().into_owned();
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Some(text.to_owned()).filter(|text| !text.is_empty()))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Self, D::Error> {
        Ok(Self(Option::deserialize(reader)?.filter(|text: &String| !text.is_empty())))
    }
}

/// Reads the file and follows its current context, as client-go does: users may be missing, clusters and contexts may
/// not; there is no way to do without a current context, and none of the others is looked at.
pub(super) fn read(path: &Path) -> Result<Chosen, String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    let text = yaml::text(bytes)?;
    let read: Read<Option<File>> = yaml::read_first(&text).map_err(|error| error.without_snippet().to_string())?;
    let mut warnings: Vec<String> = yaml::about_repeated(&read.repeated).into_iter().collect();
    if yaml::documents(&text).len() > 1 {
        warnings.push("only its first document is used".into());
    }
    let folder = std::path::absolute(path).map_err(|error| error.to_string())?;
    let mut chosen = read.value.unwrap_or_default().choose()?;
    chosen.resolve(folder.parent().unwrap_or(&folder));
    chosen.warnings = warnings;
    Ok(chosen)
}

impl File {
    fn choose(self) -> Result<Chosen, String> {
        for (field, found, expected) in [("apiVersion", &self.api_version, "v1"), ("kind", &self.kind, "Config")] {
            if let Some(found) = found.get().filter(|&found| found != expected) {
                return Err(format!("{field} is {found:?}; expected {expected:?}"));
            }
        }
        let contexts = unique("context", self.contexts, |entry| (entry.name, entry.context))?;
        let mut clusters = unique("cluster", self.clusters, |entry| (entry.name, entry.cluster))?;
        let mut users = unique("user", self.users, |entry| (entry.name, entry.user))?;
        let is_empty = clusters.is_empty();
        let current = self.current_context.get().unwrap_or_default();
        let context = match (contexts.get(current), current) {
            (Some(context), _) => context,
            (None, "") => &Context::default(),
            (None, name) => return Err(format!("current-context is {name:?}, which is none of its contexts")),
        };
        let cluster = context.cluster.get().unwrap_or_default();
        let user = users.remove(context.user.get().unwrap_or_default()).unwrap_or_default();
        let cluster = clusters.remove(cluster).ok_or_else(|| match (is_empty, current) {
            (true, _) => "names no cluster".to_owned(),
            (false, "") => "has no current-context".to_owned(),
            (false, _) => format!("its context {current:?} names the cluster {cluster:?}, which is not there"),
        });
        Ok(Chosen { cluster, user, warnings: Vec::new() })
    }
}

/// The entries of a list by their names.
fn unique<E, T: Default>(
    kind: &str,
    entries: Option<Vec<E>>,
    split: impl Fn(E) -> (Text, Option<T>),
) -> Result<BTreeMap<String, T>, String> {
    let mut named = BTreeMap::new();
    for entry in entries.unwrap_or_default() {
        let (name, value) = split(entry);
        let name = name.0.unwrap_or_default();
        if named.insert(name.clone(), value.unwrap_or_default()).is_some() {
            return Err(format!("has two entries for the {kind} {name:?}"));
        }
    }
    Ok(named)
}

impl Chosen {
    fn resolve(&mut self, folder: &Path) {
        if let Ok(cluster) = &mut self.cluster {
            cluster.certificate_authority.resolve(folder);
        }
        let User { client_certificate, client_key, token_file, exec, .. } = &mut self.user;
        for path in [client_certificate, client_key, token_file] {
            path.resolve(folder);
        }
        // A bare name is looked for in PATH.
        if let Some(exec) = exec.as_mut().filter(|exec| exec.command.get().is_some_and(|command| command.contains('/')))
        {
            exec.command.resolve(folder);
        }
    }
}
