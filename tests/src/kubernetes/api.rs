use std::ops::AsyncFnOnce;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::ControlPlane;
use crate::cluster::Place as _;

impl ControlPlane<'_> {
    /// Runs `work` with an administrator's client on a thread inside the control plane's namespace. For what kubectl is
    /// too slow for.
    pub fn with_client<T: Send>(&self, work: impl AsyncFnOnce(kube::Client) -> Result<T> + Send) -> Result<T> {
        let kubeconfig = self.admin_kubeconfig();
        self.machine.namespace().enter(|| {
            // One thread, so that every socket is made in the namespace that this thread is in.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start tokio")?;
            runtime.block_on(async {
                let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
                let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
                work(kube::Client::try_from(config)?).await
            })
        })?
    }
}
