use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::document::Place;
use crate::model::{Delta, ObjectName, Problem};

/// The objects of one kind, with the files that hold them. Of two files with an object of one name, the first by file
/// name counts.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    kind: &'static str,
    /// By object, then by file.
    entries: HashMap<ObjectName, BTreeMap<String, Entry<T>>>,
    /// What each file holds.
    files: HashMap<String, Vec<ObjectName>>,
    /// Objects whose files changed, with what was told of them before.
    touched: BTreeMap<ObjectName, Option<T>>,
    /// Objects with a problem, or in several files.
    troubled: BTreeSet<ObjectName>,
}

/// An object in a file.
#[derive(Clone, Debug)]
pub(super) struct Entry<T> {
    pub(super) place: Place,
    /// `None`: an object for which nothing is to be programmed.
    pub(super) object: Option<T>,
    pub(super) problems: Vec<Problem>,
}

impl<T: Clone + PartialEq> Shelf<T> {
    pub(super) fn new(kind: &'static str) -> Self {
        Self {
            kind,
            entries: HashMap::new(),
            files: HashMap::new(),
            touched: BTreeMap::new(),
            troubled: BTreeSet::new(),
        }
    }

    /// Replaces what a file holds. Returns what it holds twice.
    pub(super) fn replace(&mut self, file: &str, objects: Vec<(ObjectName, Entry<T>)>) -> Vec<Problem> {
        let mut problems = Vec::new();
        let old = self.files.remove(file).unwrap_or_default();
        let names: BTreeSet<ObjectName> = old.iter().chain(objects.iter().map(|(name, _)| name)).cloned().collect();
        for name in &names {
            if !self.touched.contains_key(name) {
                let before = self.current(name).cloned();
                self.touched.insert(name.clone(), before);
            }
        }
        for name in old {
            if let Some(holders) = self.entries.get_mut(&name) {
                holders.remove(file);
                if holders.is_empty() {
                    self.entries.remove(&name);
                }
            }
        }
        let mut held = Vec::with_capacity(objects.len());
        for (name, entry) in objects {
            let holders = self.entries.entry(name.clone()).or_default();
            if let Some(first) = holders.get(file) {
                let message =
                    format!("{}: is in {file} before, at {}; only that one is used", entry.place, first.place);
                problems.push(Problem::new(self.kind, &name, message));
                continue;
            }
            holders.insert(file.to_owned(), entry);
            held.push(name);
        }
        if !held.is_empty() {
            self.files.insert(file.to_owned(), held);
        }
        for name in names {
            let holders = self.entries.get(&name);
            let has_problems = |holders: &BTreeMap<String, Entry<T>>| {
                holders.len() > 1 || holders.values().any(|entry| !entry.problems.is_empty())
            };
            if holders.is_some_and(has_problems) {
                self.troubled.insert(name);
            } else {
                self.troubled.remove(&name);
            }
        }
        problems
    }

    /// Everything, as the first complete list.
    pub(super) fn list(&mut self) -> Delta<T> {
        self.touched.clear();
        let first = |holders: &BTreeMap<String, Entry<T>>| holders.values().next()?.object.clone();
        Delta::Replace(self.entries.values().filter_map(first).collect())
    }

    /// What is not as it was told.
    pub(super) fn changes(&mut self) -> Vec<Delta<T>> {
        let touched = std::mem::take(&mut self.touched);
        let change = |(name, before): (ObjectName, Option<T>)| match (self.current(&name), before) {
            (now, before) if now == before.as_ref() => None,
            (Some(now), _) => Some(Delta::Apply(now.clone())),
            (None, _) => Some(Delta::Delete(name)),
        };
        touched.into_iter().filter_map(change).collect()
    }

    /// What is wrong with the objects that count, and with those that do not for that reason.
    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        let kind = self.kind;
        let troubled = self.troubled.iter().filter_map(|name| Some((name, self.entries.get(name)?)));
        troubled.flat_map(move |(name, holders)| {
            let mut holders = holders.iter();
            let first = holders.next();
            let own = first.into_iter().flat_map(|(_, entry)| entry.problems.iter().cloned());
            let used = first.map(|(file, _)| file.as_str()).unwrap_or_default();
            let others = holders.map(move |(file, entry)| {
                let message = format!("is in {used} and in {file} ({}); only the first is used", entry.place);
                Problem::new(kind, name, message)
            });
            own.chain(others)
        })
    }

    /// Whether anything of a file is in force.
    pub(super) fn holds(&self, file: &str) -> bool {
        self.files.contains_key(file)
    }

    fn current(&self, name: &ObjectName) -> Option<&T> {
        self.entries.get(name)?.values().next()?.object.as_ref()
    }
}
