use std::time::Duration;

use anyhow::{Context, Result};

use super::Namespace;
use crate::patience::patience;

/// What a probe was answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    pub status: u16,
    pub body: String,
}

impl Probe {
    /// Asks the agent of a node, as the node's kubelet does.
    ///
    /// # Errors
    /// Nobody answers.
    pub(super) fn send(node: &Namespace, path: &str) -> Result<Self> {
        let url = format!("http://127.0.0.1:{}{path}", Self::PORT);
        node.enter(|| {
            let config = ureq::Agent::config_builder()
                .proxy(None)
                .http_status_as_error(false)
                .timeout_global(Some(patience(Duration::from_secs(10))));
            let mut response = config.build().new_agent().get(&url).call().with_context(|| format!("GET {url}"))?;
            let body = response.body_mut().read_to_string().with_context(|| format!("body of {url}"))?;
            Ok(Self { status: response.status().as_u16(), body })
        })?
    }

    /// Where agents answer if they are not told otherwise.
    pub const PORT: u16 = 10256;
}
