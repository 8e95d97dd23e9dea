/// Why a source cannot be started: mistakes of the command line.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error(
        "not in a pod (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set); name the API server with \
         --kubeconfig, or a directory with --manifests"
    )]
    NotInPod,
    #[error("{0:?} is not the address of an API server; expected https://HOST:PORT")]
    Server(String),
    #[error("the addresses of the API server mix http and https")]
    MixedSchemes,
}
