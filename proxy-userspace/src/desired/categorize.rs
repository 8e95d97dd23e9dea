use super::gather::Candidate;
use crate::model::Cluster;

/// The endpoints of one service port and family that new flows may go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Categories {
    /// For policy `Cluster`: positions in the list of candidates.
    pub cluster: Vec<usize>,
    /// For policy `Local`.
    pub local: Vec<usize>,
    /// Somebody somewhere could serve.
    pub any: bool,
}

/// Sorts endpoints as kube-proxy does. Ready ones come first, terminating ones that still serve are the last resort;
/// the two sets decide that independently, and hints never narrow the local one.
pub fn categorize(candidates: &[Candidate<'_>], cluster: &Cluster) -> Categories {
    let preference = Preference::of(candidates, cluster);
    let mut categories = Categories {
        cluster: select(candidates, |candidate| candidate.is_ready() && preference.takes(candidate)),
        local: select(candidates, |candidate| candidate.is_ready() && candidate.local),
        any: candidates.iter().any(|candidate| candidate.is_ready() || candidate.is_last_resort()),
    };
    if categories.cluster.is_empty() {
        categories.cluster = select(candidates, |candidate| candidate.is_last_resort());
    }
    if categories.local.is_empty() {
        categories.local = select(candidates, |candidate| candidate.is_last_resort() && candidate.local);
    }
    categories
}

fn select<'a>(candidates: &[Candidate<'a>], wanted: impl Fn(&Candidate<'a>) -> bool) -> Vec<usize> {
    candidates.iter().enumerate().filter(|(_, candidate)| wanted(candidate)).map(|(at, _)| at).collect()
}

/// Which ready endpoints the hints of the controller leave over.
enum Preference<'a> {
    None,
    SameNode(&'a str),
    SameZone(&'a str),
}

impl<'a> Preference<'a> {
    /// A level counts only if every ready endpoint has hints of it and one of them means this node: a half-hinted list
    /// is one that the controller is still writing.
    fn of(candidates: &[Candidate<'_>], cluster: &'a Cluster) -> Self {
        let usable = |hints: &dyn Fn(&Candidate<'_>) -> Hinted| {
            let mut mine = false;
            for candidate in candidates.iter().filter(|candidate| candidate.is_ready()) {
                match hints(candidate) {
                    Hinted::No => return false,
                    Hinted::Elsewhere => {}
                    Hinted::Here => mine = true,
                }
            }
            mine
        };
        let node = cluster.node_name();
        if usable(&|candidate| Hinted::at(&candidate.endpoint.for_nodes, node)) {
            return Self::SameNode(node);
        }
        let zone = cluster.node().and_then(|node| node.zone.as_deref());
        match zone {
            Some(zone) if usable(&|candidate| Hinted::at(&candidate.endpoint.for_zones, zone)) => Self::SameZone(zone),
            _ => Self::None,
        }
    }

    fn takes(&self, candidate: &Candidate<'_>) -> bool {
        let has = |hints: &[Box<str>], own: &str| hints.iter().any(|hint| **hint == *own);
        match self {
            Self::None => true,
            Self::SameNode(own) => has(&candidate.endpoint.for_nodes, own),
            Self::SameZone(own) => has(&candidate.endpoint.for_zones, own),
        }
    }
}

enum Hinted {
    No,
    Elsewhere,
    Here,
}

impl Hinted {
    fn at(hints: &[Box<str>], own: &str) -> Self {
        match hints {
            [] => Self::No,
            hints if hints.iter().any(|hint| **hint == *own) => Self::Here,
            _ => Self::Elsewhere,
        }
    }
}
