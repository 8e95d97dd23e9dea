use std::collections::{HashMap, HashSet};

use crate::model::{ObjectName, Problem};

/// The problems of objects that were reported, so that an object which changes a hundred times with the same mistake
/// in it is reported once.
#[derive(Debug, Default)]
pub(super) struct Reported {
    by_object: HashMap<ObjectName, Vec<Problem>>,
}

impl Reported {
    /// Notes what is wrong with an object now. Returns what was not wrong with it before.
    pub(super) fn update(&mut self, name: &ObjectName, problems: Vec<Problem>) -> Vec<Problem> {
        let before = if problems.is_empty() {
            self.by_object.remove(name)
        } else {
            self.by_object.insert(name.clone(), problems.clone())
        };
        let before = before.unwrap_or_default();
        problems.into_iter().filter(|problem| !before.contains(problem)).collect()
    }

    /// Forgets objects that do not exist any more.
    pub(super) fn retain(&mut self, listed: &HashSet<ObjectName>) {
        self.by_object.retain(|name, _| listed.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_reported_when_it_begins() {
        let mut reported = Reported::default();
        let name = ObjectName::new("default", "web");
        let problem = |message: &str| Problem::new("Service", &name, message);
        assert_eq!(reported.update(&name, vec![problem("a")]), [problem("a")]);
        assert_eq!(reported.update(&name, vec![problem("a"), problem("b")]), [problem("b")]);
        assert_eq!(reported.update(&name, vec![]), []);
        assert_eq!(reported.update(&name, vec![problem("a")]), [problem("a")]);
        reported.retain(&HashSet::new());
        assert_eq!(reported.update(&name, vec![problem("a")]), [problem("a")]);
    }
}
