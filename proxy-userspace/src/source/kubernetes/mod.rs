//! Objects from an API server: a list and then a watch of each kind, over a connection of its own.

mod access;
mod connection;
mod credentials;
mod failure;
mod resource;
mod route;
mod servers;
mod trouble;
mod watch;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use http::{Uri, uri::Scheme};
use tokio::sync::mpsc;

use self::{
    access::{Environment, parse_address},
    connection::{Connection, Patience},
    credentials::Credentials,
    servers::Servers,
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
    let environment = Environment::of_process();
    let Ok(given) = config.addresses(&environment) else { return UNKNOWN.to_owned() };
    match Credentials::new(config.kubeconfig.clone(), given, environment).current().await {
        Ok(access) => Servers::new(access.addresses.clone()).to_string(),
        Err(_) => UNKNOWN.to_owned(),
    }
}

const UNKNOWN: &str = "the API server";

/// Runs until the receiver is gone.
pub(super) async fn run(
    config: &KubernetesConfig,
    node_name: &str,
    sender: mpsc::Sender<Message>,
) -> Result<(), SourceError> {
    run_within(Patience::PRODUCTION, config, Environment::of_process(), node_name, sender).await
}

async fn run_within(
    patience: Patience,
    config: &KubernetesConfig,
    environment: Environment,
    node_name: &str,
    sender: mpsc::Sender<Message>,
) -> Result<(), SourceError> {
    let given = config.addresses(&environment)?;
    let credentials = Arc::new(Credentials::new(config.kubeconfig.clone(), given, environment));
    let outlet = Outlet(sender);
    // With a client each, one kind's trouble is its own.
    let connection = || Connection::new(credentials.clone(), patience);
    let Closed = tokio::select! {
        closed = watch::<Service>(connection(), node_name, outlet.clone()) => closed,
        closed = watch::<EndpointSlice>(connection(), node_name, outlet.clone()) => closed,
        closed = watch::<Node>(connection(), node_name, outlet) => closed,
    };
    Ok(())
}

impl KubernetesConfig {
    /// Where the command line says that the servers are.
    ///
    /// # Errors
    /// Mistakes of the command line, which no retry would mend.
    fn addresses(&self, environment: &Environment) -> Result<Vec<Uri>, SourceError> {
        let given = self.servers.iter().map(|server| server.trim()).filter(|server| !server.is_empty());
        let addresses: Result<Vec<Uri>, _> = given
            .map(|server| parse_address(server, "https").ok_or_else(|| SourceError::Server(server.to_owned())))
            .collect();
        let addresses = addresses?;
        let first = addresses.first().and_then(Uri::scheme);
        if addresses.iter().any(|address| address.scheme() != first) {
            return Err(SourceError::MixedSchemes);
        }
        if self.kubeconfig.is_none() && first != Some(&Scheme::HTTP) && !environment.is_pod() {
            return Err(SourceError::NotInPod);
        }
        Ok(addresses)
    }
}
