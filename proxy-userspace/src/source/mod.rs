//! Where objects come from: an API server, or a directory of manifests. A source turns objects into
//! [`Event`](crate::model::Event)s and keeps at it whatever goes wrong on the way.

mod error;
mod kubernetes;
mod manifests;
mod reported;

use std::{path::PathBuf, time::Instant};

use tokio::sync::mpsc;

pub use error::SourceError;
pub use kubernetes::KubernetesConfig;

use crate::model::{Event, Problem};

/// A source, and what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceConfig {
    Kubernetes(KubernetesConfig),
    /// A directory of YAML and JSON files.
    Manifests(PathBuf),
}

/// What a source sends.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    Arrival(Arrival),
    /// Something that cannot be honoured, in an object or with the source itself. Sent when it begins; trouble that
    /// lasts is sent again at growing intervals.
    Problem(Problem),
    /// The source works again. The problem carries what it was and how long it took.
    Recovered(Problem),
}

/// A change, and when this process learned of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    pub event: Event,
    /// When the object was decoded from the watch, or the last object of a list; when the file was read.
    pub at: Instant,
}

impl SourceConfig {
    /// Where the objects come from, in words: the addresses of an API server, or a directory.
    pub async fn describe(&self) -> String {
        match self {
            Self::Kubernetes(config) => kubernetes::describe(config).await,
            Self::Manifests(directory) => directory.display().to_string(),
        }
    }

    /// Sends messages until the receiver is gone. Each of the three kinds begins with a complete list; a directory
    /// without Node objects sends an empty one.
    ///
    /// `node_name`: the only node that is watched.
    ///
    /// # Errors
    /// Mistakes of the command line, which no retry can mend: an address that is no URL, nothing to go by at all. An API
    /// server that cannot be reached, credentials that are missing or refused, and a directory that does not exist are
    /// waited for.
    pub async fn run(&self, node_name: &str, sender: mpsc::Sender<Message>) -> Result<(), SourceError> {
        match self {
            Self::Kubernetes(config) => kubernetes::run(config, node_name, sender).await,
            Self::Manifests(directory) => manifests::run(directory, sender).await,
        }
    }
}

/// The receiver is gone: nobody is interested any more.
#[derive(Clone, Copy, Debug)]
struct Closed;

/// The sending side of the channel to the agent.
#[derive(Clone, Debug)]
struct Outlet(mpsc::Sender<Message>);

impl Outlet {
    async fn send(&self, message: Message) -> Result<(), Closed> {
        self.0.send(message).await.map_err(|_| Closed)
    }

    /// Returns when the receiver is gone.
    async fn closed(&self) {
        self.0.closed().await;
    }

    async fn arrival(&self, event: Event, at: Instant) -> Result<(), Closed> {
        self.send(Message::Arrival(Arrival { event, at })).await
    }

    async fn problems(&self, problems: impl IntoIterator<Item = Problem>) -> Result<(), Closed> {
        for problem in problems {
            self.send(Message::Problem(problem)).await?;
        }
        Ok(())
    }
}
