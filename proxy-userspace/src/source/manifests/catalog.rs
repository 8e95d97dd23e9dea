use std::collections::{BTreeMap, BTreeSet};

use super::{
    document::{self, Contents, Document, Object},
    shelf::{Entry, Shelf},
};
use crate::{
    model::{Delta, EndpointSlice, Event, Node, ObjectName, Problem, Service},
    yaml,
};

/// What all files together say.
#[derive(Debug)]
pub(super) struct Catalog {
    services: Shelf<Service>,
    endpoint_slices: Shelf<EndpointSlice>,
    nodes: Shelf<Node>,
    /// What is wrong with each file.
    files: BTreeMap<String, FileState>,
    told: BTreeSet<Problem>,
}

#[derive(Debug, Default)]
struct FileState {
    /// Set while what is in force is what the file held before.
    broken: Option<Problem>,
    problems: Vec<Problem>,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            services: Shelf::new("Service"),
            endpoint_slices: Shelf::new("EndpointSlice"),
            nodes: Shelf::new("Node"),
            files: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }
}

impl Catalog {
    /// Takes in the new content of a file. If it cannot be used, what the file held before stays. Returns what to tell
    /// if it could not be used before and can now.
    pub(super) fn replace(&mut self, file: &str, text: Result<String, String>) -> Option<Problem> {
        let problem = |message: String| Problem { object: format!("file {file}"), message };
        let parsed = text.and_then(|text| document::parse(file, &text).map_err(|broken| broken.to_string()));
        let holds = self.services.holds(file) || self.endpoint_slices.holds(file) || self.nodes.holds(file);
        let state = self.files.entry(file.to_owned()).or_default();
        match parsed {
            Err(message) => {
                let consequence = if holds { "what it held before stays in force" } else { "it is left out" };
                state.broken = Some(problem(format!("{message}; {consequence}")));
                None
            }
            Ok(contents) => {
                let was_broken = state.broken.take().is_some();
                let problems = self.shelve(file, contents);
                self.files.entry(file.to_owned()).or_default().problems = problems;
                was_broken.then(|| problem("can be used again".into()))
            }
        }
    }

    pub(super) fn remove(&mut self, file: &str) {
        self.shelve(file, Contents::default());
        self.files.remove(file);
    }

    /// Returns what is wrong with the file apart from its objects.
    fn shelve(&mut self, file: &str, contents: Contents) -> Vec<Problem> {
        let (mut services, mut endpoint_slices, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        let mut others: BTreeMap<String, document::Place> = BTreeMap::new();
        for Document { place, object } in contents.documents {
            match object {
                Object::Service(mut object) => {
                    let name = name_object(&mut object.metadata, true);
                    let (object, problems) = Service::from_object(&object);
                    services.push((name, Entry { place, object, problems }));
                }
                Object::EndpointSlice(mut object) => {
                    let name = name_object(&mut object.metadata, true);
                    let (object, problems) = EndpointSlice::from_object(&object);
                    endpoint_slices.push((name, Entry { place, object, problems }));
                }
                Object::Node(mut object) => {
                    let name = name_object(&mut object.metadata, false);
                    let (object, problems) = Node::from_object(&object);
                    nodes.push((name, Entry { place, object, problems }));
                }
                Object::Other(kind) => {
                    others.entry(kind).or_insert(place);
                }
            }
        }
        let others = others
            .into_iter()
            .map(|(kind, place)| format!("{place}: objects of kind {kind} have no meaning here and are ignored"));
        let repeated = contents
            .repeated
            .into_iter()
            .filter_map(|(place, keys)| Some(format!("{place}: {}", yaml::about_repeated(&keys)?)));
        let problem = |message| Problem { object: format!("file {file}"), message };
        let mut problems: Vec<Problem> = others.chain(repeated).map(problem).collect();
        problems.extend(self.services.replace(file, services));
        problems.extend(self.endpoint_slices.replace(file, endpoint_slices));
        problems.extend(self.nodes.replace(file, nodes));
        problems
    }

    /// The first complete lists.
    pub(super) fn lists(&mut self) -> [Event; 3] {
        [
            Event::Services(self.services.list()),
            Event::EndpointSlices(self.endpoint_slices.list()),
            Event::Nodes(self.nodes.list()),
        ]
    }

    /// What is not as it was told.
    pub(super) fn changes(&mut self) -> Vec<Event> {
        fn events<T>(deltas: Vec<Delta<T>>, event: fn(Delta<T>) -> Event) -> impl Iterator<Item = Event> {
            deltas.into_iter().map(event)
        }
        events(self.services.changes(), Event::Services)
            .chain(events(self.endpoint_slices.changes(), Event::EndpointSlices))
            .chain(events(self.nodes.changes(), Event::Nodes))
            .collect()
    }

    /// Problems that have begun since the last call.
    pub(super) fn new_problems(&mut self) -> Vec<Problem> {
        let files = self.files.values().flat_map(|state| state.broken.iter().chain(&state.problems).cloned());
        let objects = self.services.problems().chain(self.endpoint_slices.problems()).chain(self.nodes.problems());
        let now: BTreeSet<Problem> = files.chain(objects).collect();
        let new = now.difference(&self.told).cloned().collect();
        self.told = now;
        new
    }
}

/// Names an object as `kubectl apply` would: a namespaced one without a namespace is in `default`.
fn name_object(
    metadata: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    is_namespaced: bool,
) -> ObjectName {
    let name = metadata.name.clone().unwrap_or_default();
    if !is_namespaced {
        return ObjectName::new("", name);
    }
    let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default");
    let namespace = namespace.to_owned();
    metadata.namespace = Some(namespace.clone());
    ObjectName::new(namespace, name)
}
