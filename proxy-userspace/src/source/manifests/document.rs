use std::fmt;

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    serde::de::DeserializeOwned,
};
use serde::Deserialize;
use serde_json::Value;

/// An object of the API in a file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) place: Place,
    pub(super) object: Object,
}

/// Where in a file a document begins. Both count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) document: usize,
    pub(super) line: usize,
}

#[derive(Debug)]
pub(super) enum Object {
    Service(Box<core::Service>),
    EndpointSlice(Box<discovery::EndpointSlice>),
    Node(Box<core::Node>),
    /// One that has no meaning here, by its apiVersion and kind.
    Other(String),
}

/// Why a file cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub(super) struct Broken {
    pub(super) place: Place,
    pub(super) message: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Value>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} (document {})", self.line, self.document)
    }
}

/// Reads every object of a file: YAML documents, or one of JSON if the name says so. Lists are taken apart.
pub(super) fn parse(file: &str, text: &str) -> Result<Vec<Document>, Broken> {
    let mut found = Vec::new();
    // Removed by the YAML reader only at the very beginning, and not by the JSON reader.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if file.ends_with(".json") {
        let place = Place { document: 1, line: 1 };
        Section { place, text, format: Format::Json }.objects(&mut found)?;
        return Ok(found);
    }
    for section in sections(text) {
        // JSON is YAML too, and read many times faster as what it is. YAML in braces need not be JSON.
        let begin = found.len();
        let is_read = section.text.trim_start().starts_with('{')
            && Section { format: Format::Json, ..section }.objects(&mut found).is_ok();
        if !is_read {
            found.truncate(begin);
            section.objects(&mut found)?;
        }
    }
    Ok(found)
}

/// The documents of a YAML stream. A line that begins with three hyphens ends a document wherever it stands: no scalar
/// may contain it (YAML 1.2.2, 9.1.2). Reading them one by one keeps the limits that guard against a hostile document
/// from adding up over a large file.
fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections = Vec::new();
    let (mut begin, mut begin_line, mut offset) = (0, 1, 0);
    let mut cut = |begin: usize, end: usize, line: usize| {
        let text = text.get(begin..end).unwrap_or_default();
        let is_blank = |line: &str| {
            let line = line.trim();
            line.is_empty() || line.starts_with('#') || line == "---" || line == "..."
        };
        if !text.lines().all(is_blank) {
            let place = Place { document: sections.len() + 1, line };
            sections.push(Section { place, text, format: Format::Yaml });
        }
    };
    for (at, line) in text.split_inclusive('\n').enumerate() {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace));
        if marker && offset > begin {
            cut(begin, offset, begin_line);
            (begin, begin_line) = (offset, at + 1);
        }
        offset += line.len();
    }
    cut(begin, offset, begin_line);
    sections
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Yaml,
    Json,
}

/// Which plain YAML scalars are booleans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Booleans {
    /// Also `yes`, `on`, `n` and the like (YAML 1.1), where the type of the field is boolean.
    ByType,
    /// For what is read before its type is known: a Service may be named `n`.
    OnlyTrueAndFalse,
}

/// The text of a document.
#[derive(Clone, Copy, Debug)]
struct Section<'a> {
    place: Place,
    text: &'a str,
    format: Format,
}

impl Section<'_> {
    fn objects(&self, found: &mut Vec<Document>) -> Result<(), Broken> {
        let header: Header = self.read()?;
        let (version, kind) = (header.api_version.unwrap_or_default(), header.kind.unwrap_or_default());
        let object = match (version.as_str(), kind.as_str()) {
            (_, "") => return Err(self.broken("has no kind".into())),
            ("v1", "Service") => Object::Service(self.read()?),
            ("discovery.k8s.io/v1", "EndpointSlice") => Object::EndpointSlice(self.read()?),
            ("v1", "Node") => Object::Node(self.read()?),
            ("v1", "List" | "ServiceList" | "NodeList") | ("discovery.k8s.io/v1", "EndpointSliceList") => {
                let item_kind = kind.strip_suffix("List").unwrap_or_default();
                return self.items(&version, item_kind, found);
            }
            _ => Object::Other(format!("{version} {kind}")),
        };
        found.push(Document { place: self.place, object });
        Ok(())
    }

    /// The objects of a list. Those of a list of one kind need not repeat it.
    fn items(&self, version: &str, kind: &str, found: &mut Vec<Document>) -> Result<(), Broken> {
        let list: List = self.read_as(Booleans::OnlyTrueAndFalse)?;
        for (at, item) in list.items.into_iter().enumerate() {
            let text =
                |field: &str, default: &str| item.get(field).and_then(Value::as_str).unwrap_or(default).to_owned();
            let (version, kind) = (text("apiVersion", version), text("kind", kind));
            let object = match (version.as_str(), kind.as_str()) {
                ("v1", "Service") => self.item(at, item).map(Object::Service),
                ("discovery.k8s.io/v1", "EndpointSlice") => self.item(at, item).map(Object::EndpointSlice),
                ("v1", "Node") => self.item(at, item).map(Object::Node),
                (_, "") => Err(self.broken(format!("item {} has no kind", at + 1))),
                _ => Ok(Object::Other(format!("{version} {kind}"))),
            };
            found.push(Document { place: self.place, object: object? });
        }
        Ok(())
    }

    fn item<T: DeserializeOwned>(&self, at: usize, item: Value) -> Result<T, Broken> {
        serde_json::from_value(item).map_err(|error| self.broken(format!("item {}: {error}", at + 1)))
    }

    fn read<T: DeserializeOwned>(&self) -> Result<T, Broken> {
        self.read_as(Booleans::ByType)
    }

    fn read_as<T: DeserializeOwned>(&self, booleans: Booleans) -> Result<T, Broken> {
        match self.format {
            Format::Json => {
                serde_json::from_str(self.text).map_err(|error| self.broken_at(error.line(), &error.to_string()))
            }
            Format::Yaml => {
                // The guards against aliases that multiply stay; a list of all slices of a cluster is large in itself.
                let options = serde_saphyr::options! {
                    budget: serde_saphyr::budget! { max_events: 200_000_000, max_nodes: 100_000_000 },
                    with_snippet: false,
                    strict_booleans: booleans == Booleans::OnlyTrueAndFalse,
                };
                serde_saphyr::from_str_with_options(self.text, options).map_err(|error| {
                    let line = error.location().map_or(1, |location| usize::try_from(location.line()).unwrap_or(1));
                    self.broken_at(line, &error.without_snippet().to_string())
                })
            }
        }
    }

    /// `message` ends with the line within the document, which would contradict the line of the file.
    fn broken_at(&self, line: usize, message: &str) -> Broken {
        let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
        Broken { place: self.at_line(line), message: message.to_owned() }
    }

    fn broken(&self, message: String) -> Broken {
        Broken { place: self.place, message }
    }

    /// The line of the file that is line `line` of this document.
    fn at_line(&self, line: usize) -> Place {
        Place { line: self.place.line + line.saturating_sub(1), ..self.place }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(file: &str, text: &str) -> Vec<String> {
        match parse(file, text) {
            Err(broken) => vec![broken.to_string()],
            Ok(documents) => documents.iter().map(show).collect(),
        }
    }

    fn show(document: &Document) -> String {
        let name = match &document.object {
            Object::Service(object) => format!("Service {:?}", object.metadata.name),
            Object::EndpointSlice(object) => format!("EndpointSlice {:?}", object.metadata.name),
            Object::Node(object) => format!("Node {:?}", object.metadata.name),
            Object::Other(kind) => kind.clone(),
        };
        format!("{}: {name}", document.place).replace("Some(\"", "").replace("\")", "")
    }

    #[test]
    fn documents_know_where_they_begin() {
        let text = "# first\n---\n# nothing\n---\napiVersion: v1\nkind: Service\nmetadata:\n  name: a\n--- # next\n\
                    kind: Node\napiVersion: v1\nmetadata: {name: n}\n...\n---\nkind: Pod\napiVersion: v1\n";
        assert_eq!(
            shown("a.yaml", text),
            ["line 4 (document 1): Service a", "line 9 (document 2): Node n", "line 14 (document 3): v1 Pod"]
        );
        assert_eq!(shown("a.yaml", ""), [""; 0]);
    }

    #[test]
    fn lists_are_taken_apart() {
        let text = r#"{"kind": "List", "apiVersion": "v1", "items": [
            {"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80,
             "targetPort": "http"}]}},
            {"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": {"name": "b"},
             "addressType": "IPv4", "endpoints": []}]}"#;
        let expected = ["line 1 (document 1): Service a", "line 1 (document 1): EndpointSlice b"];
        assert_eq!(shown("a.json", text), expected);
        assert_eq!(shown("a.yaml", text), expected);
        let yaml = "{kind: Service, apiVersion: v1, metadata: {name: a}}";
        assert_eq!(shown("a.yaml", yaml), ["line 1 (document 1): Service a"]);
        let text = "apiVersion: v1\nkind: NodeList\nitems: [{metadata: {name: n}}]";
        assert_eq!(shown("a.yaml", text), ["line 1 (document 1): Node n"]);
    }

    #[test]
    fn mistakes_are_found_in_their_line() {
        for (file, text, line, message) in [
            ("a.yaml", "kind: Service\napiVersion: v1\n---\nkind: Service\napiVersion: [", 5, ""),
            ("a.yaml", "---\nkind: Node\n---\nkind: Service\napiVersion: v1\nspec:\n  ports:\n  - port: x\n", 8, "i32"),
            ("a.yaml", "kind: Service\nkind: Service\n", 2, "duplicate"),
            ("a.yaml", "\n\nmetadata: {}\n", 1, "has no kind"),
            ("a.json", "{\"kind\": \"Service\",\n \"apiVersion\": \"v1\",\n oops}", 3, "key must be a string"),
            ("a.json", "{\"kind\": \"Service\",\n\"apiVersion\": \"v1\",\n\"spec\": {\"ports\": 5}}", 3, "sequence"),
        ] {
            let broken = parse(file, text).unwrap_err();
            assert_eq!(broken.place.line, line, "{text:?}: {broken}");
            assert!(broken.message.contains(message), "{text:?}: {broken}");
            assert!(!broken.message.contains("line"), "{text:?}: {broken}");
        }
    }
}
