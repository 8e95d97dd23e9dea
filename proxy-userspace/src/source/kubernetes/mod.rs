//! Objects from an API server: a list and then a watch of each kind, over a connection of its own.

mod connection;
mod resource;
mod servers;
mod trouble;
mod watch;

#[cfg(test)]
mod tests;

use std::path::PathBuf;

use tokio::sync::mpsc;

use self::{
    connection::{Connection, Limits},
    watch::watch,
};
use super::{Closed, Message, Outlet, SourceError};
use crate::model::{EndpointSlice, Node, Service};

/// How the API server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// `None`: the service account of the pod, or no credentials if `servers` are plain http.
    pub kubeconfig: Option<PathBuf>,
    /// Instead of the address that the kubeconfig or the environment of the pod has. Several are tried in turn, and
    /// are taken to be servers of one cluster with a certificate for `kubernetes.default.svc` each.
    pub servers: Vec<String>,
}

/// The addresses that are connected to, as far as they are known: what is wrong with the settings is not told here.
pub(super) async fn describe(config: &KubernetesConfig) -> String {
    match connection::addresses(config).await {
        Ok(servers) => servers.to_string(),
        Err(_) => "the API server".into(),
    }
}

/// Runs until the receiver is gone.
pub(super) async fn run(
    config: &KubernetesConfig,
    node_name: &str,
    sender: mpsc::Sender<Message>,
) -> Result<(), SourceError> {
    run_within(Limits::PRODUCTION, config, node_name, sender).await
}

async fn run_within(
    limits: Limits,
    config: &KubernetesConfig,
    node_name: &str,
    sender: mpsc::Sender<Message>,
) -> Result<(), SourceError> {
    let outlet = Outlet(sender);
    // With a client each, one kind's trouble is its own.
    let services = Connection::new(config, limits).await?;
    let endpoint_slices = Connection::new(config, limits).await?;
    let nodes = Connection::new(config, limits).await?;
    let Closed = tokio::select! {
        closed = watch::<Service>(services, node_name, outlet.clone()) => closed,
        closed = watch::<EndpointSlice>(endpoint_slices, node_name, outlet.clone()) => closed,
        closed = watch::<Node>(nodes, node_name, outlet) => closed,
    };
    Ok(())
}
