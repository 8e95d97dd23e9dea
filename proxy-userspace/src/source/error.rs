use std::path::PathBuf;

/// Why a source cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("cannot use kubeconfig {}: {source}", path.display())]
    Kubeconfig { path: PathBuf, source: kube::config::KubeconfigError },
    #[error("not in a pod ({0}); name the API server with --kubeconfig or --master, or a directory with --manifests")]
    InCluster(#[from] kube::config::InClusterError),
    #[error("{0:?} is not the address of an API server; expected https://HOST:PORT")]
    Server(String),
    #[error("the addresses of the API server mix http and https")]
    MixedSchemes,
    #[error("kubeconfig: tls-server-name {0:?} is not a name that a certificate can have")]
    ServerName(String),
    #[error("kubeconfig: proxy-url is not supported: the node must reach the API server itself")]
    Proxy,
    #[error("cannot set up the connection to the API server: {0}")]
    Client(#[from] kube::Error),
    #[error("cannot watch files: {0}")]
    Notify(#[from] notify::Error),
}
