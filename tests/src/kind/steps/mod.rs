//! What `cargo xtask kind test` looks at, in order. Each says in a line what it saw.

mod nodes;
mod readiness;
mod removal;
mod rollouts;
mod services;

use anyhow::Result;

use super::cluster::Proxy;
use super::stage::Stage;

/// How much is done.
#[derive(clap::Args, Clone, Debug)]
pub struct Effort {
    /// Rolling updates of a deployment under load
    #[arg(long, default_value_t = 3)]
    pub rollouts: u32,
    /// Upgrades of the agents under load; an even number leaves them as they were
    #[arg(long, default_value_t = 2)]
    pub upgrades: u32,
    /// Also agents that cannot reach the API server, and agents that load slowly
    #[arg(long)]
    pub readiness: bool,
}

pub struct Step {
    pub name: &'static str,
    /// What it changes is Sheave's own, or it is about it.
    of_sheave: bool,
    look: fn(&Stage, &Effort) -> Result<String>,
}

impl Step {
    /// Says what was seen.
    ///
    /// # Errors
    /// It is not as it should be.
    pub fn look(&self, stage: &Stage, effort: &Effort) -> Result<String> {
        (self.look)(stage, effort)
    }

    /// Why it is left out, if it is.
    pub fn why_not(&self, proxy: Proxy, effort: &Effort) -> Option<&'static str> {
        match () {
            () if self.of_sheave && proxy != Proxy::Sheave => Some("about Sheave only"),
            () if self.name == READINESS && !effort.readiness => Some("with --full only"),
            () => None,
        }
    }
}

const READINESS: &str = "readiness";

pub const ALL: [Step; 12] = [
    Step { name: "name service", of_sheave: false, look: services::names },
    Step { name: "services", of_sheave: false, look: services::answers },
    Step { name: "no endpoints", of_sheave: false, look: services::refusals },
    Step { name: "hairpin", of_sheave: false, look: services::hairpins },
    Step { name: "port-forward", of_sheave: false, look: services::forward },
    Step { name: "rolling updates", of_sheave: false, look: rollouts::of_pods },
    Step { name: "restart of the proxy", of_sheave: false, look: rollouts::of_proxy },
    Step { name: "upgrades", of_sheave: true, look: rollouts::upgrades },
    Step { name: READINESS, of_sheave: true, look: readiness::is_true },
    Step { name: "removal", of_sheave: true, look: removal::leaves_nothing },
    Step { name: "restart of a node", of_sheave: false, look: nodes::restart },
    Step { name: "deletion", of_sheave: false, look: services::deletion },
];
