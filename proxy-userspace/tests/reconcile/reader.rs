//! Programs that read the maps while they are written, one step between two writes or several, and that may take as long
//! as a grace period for it.

use std::time::Duration;

use proxy_common::wire::{Frontend, FrontendKey, Reach, Sets};
use proxy_userspace::{model::Family, reconcile::MemoryTables};

use crate::view::{self, Place};

#[derive(Clone, Debug)]
pub struct Reader {
    key: FrontendKey,
    reach: Reach,
    pub began: Duration,
    frontend: Frontend,
    /// The service port that the frontend belonged to when it was read.
    pub service: String,
    step: Step,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Frontend,
    Service(u32),
    Sets(Sets),
    Slot(u32),
}

/// What it came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    NotYet,
    Nobody,
    Endpoint(Place),
}

impl Reader {
    pub fn start(maps: &MemoryTables, key: FrontendKey, reach: Reach, now: Duration) -> Self {
        let frontend = maps.frontends[&key];
        let service = view::shown(&maps.names[&frontend.service]);
        Self { key, reach, began: now, frontend, service, step: Step::Frontend }
    }

    pub fn family(&self) -> Family {
        view::family(&self.key)
    }

    /// One read; `choice` is what the dice say.
    pub fn step(&mut self, maps: &MemoryTables, choice: u32) -> Found {
        let service = self.frontend.service;
        self.step = match self.step {
            Step::Frontend => {
                let row = maps.services[service as usize];
                Step::Service(if self.family() == Family::V4 { row.sets4 } else { row.sets6 })
            }
            Step::Service(index) => {
                let sets = maps.sets[index as usize];
                assert_eq!(sets.service, service, "{self:?}: the sets of another service port");
                Step::Sets(sets)
            }
            Step::Sets(sets) => {
                let set = if self.reach == Reach::Cluster { sets.cluster } else { sets.local };
                if set.count == 0 {
                    return Found::Nobody;
                }
                Step::Slot(if set.maglev_size == 0 {
                    maps.slots[(set.base + choice % set.count) as usize]
                } else {
                    maps.maglev[(set.maglev_base + choice % set.maglev_size) as usize]
                })
            }
            Step::Slot(id) => {
                let backend = maps.backends[id as usize];
                assert_eq!(backend.service, service, "{self:?}: the backend of another service port");
                return Found::Endpoint((backend.address.ip(), u16::from_be(backend.port)));
            }
        };
        Found::NotYet
    }
}
