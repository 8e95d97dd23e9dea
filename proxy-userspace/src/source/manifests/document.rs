use std::fmt;

use k8s_openapi::{
    api::{core::v1 as core, discovery::v1 as discovery},
    serde::de::DeserializeOwned,
};
use serde::Deserialize;
use serde_json::Value;

use crate::yaml;

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

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) documents: Vec<Document>,
    /// Where keys stand several times in their mapping, and which; the last of each counts.
    pub(super) repeated: Vec<(Place, Vec<String>)>,
}

/// Reads every object of a file: YAML documents, or one of JSON if the name says so. Lists are taken apart.
pub(super) fn parse(file: &str, text: &str) -> Result<Contents, Broken> {
    let mut contents = Contents::default();
    if file.ends_with(".json") {
        let place = Place { document: 1, line: 1 };
        Section::new(place, text, Format::Json).objects(&mut contents)?;
        return Ok(contents);
    }
    for yaml::Document { number, line, text } in yaml::documents(text) {
        let place = Place { document: number, line };
        // JSON is YAML too, and read many times faster as what it is. YAML in braces need not be JSON.
        let begin = contents.documents.len();
        let is_read = text.trim_start().starts_with('{')
            && Section::new(place, text, Format::Json).objects(&mut contents).is_ok();
        if !is_read {
            contents.documents.truncate(begin);
            Section::new(place, text, Format::Yaml).objects(&mut contents)?;
        }
    }
    Ok(contents)
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
#[derive(Debug)]
struct Section<'a> {
    place: Place,
    text: &'a str,
    format: Format,
    repeated: Vec<String>,
}

impl<'a> Section<'a> {
    fn new(place: Place, text: &'a str, format: Format) -> Self {
        Self { place, text, format, repeated: Vec::new() }
    }

    fn objects(mut self, contents: &mut Contents) -> Result<(), Broken> {
        if let Format::Json = self.format {
            self.repeated = yaml::repeated_in_json(self.text);
            // The reader of JSON has no say in which one counts.
            self.format = if self.repeated.is_empty() { Format::Json } else { Format::Yaml };
        }
        self.read_objects(&mut contents.documents)?;
        if !self.repeated.is_empty() {
            contents.repeated.push((self.place, self.repeated));
        }
        Ok(())
    }

    fn read_objects(&mut self, found: &mut Vec<Document>) -> Result<(), Broken> {
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
    fn items(&mut self, version: &str, kind: &str, found: &mut Vec<Document>) -> Result<(), Broken> {
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

    fn read<T: DeserializeOwned>(&mut self) -> Result<T, Broken> {
        self.read_as(Booleans::ByType)
    }

    fn read_as<T: DeserializeOwned>(&mut self, booleans: Booleans) -> Result<T, Broken> {
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
                let read = yaml::read(self.text, options).map_err(|error| {
                    let line = error.location().map_or(1, |location| usize::try_from(location.line()).unwrap_or(1));
                    self.broken_at(line, &error.without_snippet().to_string())
                })?;
                if !read.repeated.is_empty() {
                    self.repeated = read.repeated;
                }
                Ok(read.value)
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
            Ok(contents) => contents.documents.iter().map(show).collect(),
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

    #[test]
    fn of_a_repeated_key_the_last_value_counts() {
        let yaml = "kind: Pod\napiVersion: v1\n---\nkind: Node\nkind: Service\napiVersion: v1\nmetadata: {name: a, name: b}\n\
                    spec:\n  ports:\n  - {port: 1, port: 80}\n---\nkind: List\napiVersion: v1\nitems:\n- {kind: Node, apiVersion: \
                    v1, metadata: {name: m, name: n}}\n";
        let json = r#"{"kind": "Service", "apiVersion": "v1", "metadata": {"name": "a", "name": "b"}}"#;
        for (file, text, expected, repeated) in [
            (
                "a.yaml",
                yaml,
                &["line 1 (document 1): v1 Pod", "line 3 (document 2): Service b", "line 11 (document 3): Node n"][..],
                &[
                    "line 3 (document 2): kind, metadata.name, spec.ports[0].port",
                    "line 11 (document 3): items[0].metadata.name",
                ][..],
            ),
            ("a.json", json, &["line 1 (document 1): Service b"], &["line 1 (document 1): metadata.name"]),
            ("a.yaml", json, &["line 1 (document 1): Service b"], &["line 1 (document 1): metadata.name"]),
        ] {
            assert_eq!(shown(file, text), expected, "{text}");
            let contents = parse(file, text).unwrap();
            let named = contents.repeated.iter().map(|(place, keys)| format!("{place}: {}", keys.join(", ")));
            assert_eq!(named.collect::<Vec<_>>(), repeated, "{text}");
        }
        let Object::Service(service) = &parse("a.yaml", yaml).unwrap().documents[1].object else {
            panic!("no Service")
        };
        assert_eq!(service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port, 80);
    }
}
