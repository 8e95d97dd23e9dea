use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proxy_common::wire::{Address, Backend, BackendFlags, End, Frontend, FrontendKey, Peer, Peers, Scope, map};
use tokio::sync::{oneshot, watch};

use super::diag::Sockets;
use crate::kernel::KernelError;
use crate::kernel::lock::PinDir;
use crate::kernel::mapped::Mapped;
use crate::kernel::rows::Rows;
use crate::kernel::specs::Spec;
use crate::own_thread;

/// Changes that follow each other so closely are looked at together.
const PAUSE: Duration = Duration::from_millis(100);

/// Ends the connected UDP sockets of the node's processes whose backend does not serve their frontend any more: nothing
/// else would tell a process to dial again, since its datagrams go straight to the backend.
pub struct Redialler {
    peers: Rows<i32, Peers>,
    frontends: Rows<FrontendKey, Frontend>,
    backends: Mapped<Backend>,
    /// Nobody else may end them.
    _pins: Arc<PinDir>,
}

impl Redialler {
    pub(in crate::kernel) fn open(directory: &Path, specs: &[Spec], pins: &Arc<PinDir>) -> Result<Self, KernelError> {
        let backends = Rows::<u32, Backend>::open(directory, Spec::of(specs, map::BACKENDS)?)?;
        let failed = |cause| KernelError::Map { name: map::BACKENDS, operation: "mapping into memory", cause };
        Ok(Self {
            peers: Rows::open(directory, Spec::of(specs, map::PEERS)?)?,
            frontends: Rows::open(directory, Spec::of(specs, map::FRONTENDS)?)?,
            backends: Mapped::new(backends.fd(), backends.max_entries).map_err(failed)?,
            _pins: Arc::clone(pins),
        })
    }

    /// Looks at the sockets now and at each new epoch ([`proxy_common::wire::Config::epoch`]), in a thread of its own,
    /// until what is returned is dropped.
    ///
    /// # Errors
    /// [`KernelError::Thread`] where no thread can be started.
    pub fn follow(self, mut epochs: watch::Receiver<u32>) -> Result<oneshot::Receiver<()>, KernelError> {
        let work = async move {
            loop {
                match self.look() {
                    Ok(0) => {}
                    Ok(ended) => tracing::debug!(ended, "connected UDP sockets have to dial again"),
                    Err(cause) => tracing::warn!(
                        %cause,
                        "UDP sockets of the node's processes that are connected to a backend which is gone stay so"
                    ),
                }
                tokio::time::sleep(PAUSE).await;
                if epochs.changed().await.is_err() {
                    return;
                }
            }
        };
        own_thread::spawn("redial", work).map_err(KernelError::Thread)
    }

    /// How many sockets were ended.
    fn look(&self) -> io::Result<usize> {
        let mut sockets = Sockets::open()?;
        let mut ended = 0;
        for mut socket in sockets.connected(self.peers.fd())? {
            let end = socket.end;
            let Some(&mut peer) = socket.peers.of_backend(&end) else { continue };
            if self.is_current(&peer)? {
                continue;
            }
            match sockets.destroy(&socket) {
                Ok(()) => ended += 1,
                // Its process was faster.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(cause),
            }
        }
        Ok(ended)
    }

    /// Whether the backend still serves, for the service port that has the frontend now.
    fn is_current(&self, peer: &Peer) -> io::Result<bool> {
        let Some(backend) = self.backends.get(peer.id) else { return Ok(false) };
        if backend.generation != peer.generation || backend.flags & BackendFlags::SERVING == 0 {
            return Ok(false);
        }
        for key in keys(&peer.frontend, backend.protocol) {
            if let Some(frontend) = self.frontends.get(&key)? {
                return Ok(frontend.service == backend.service);
            }
        }
        Ok(false)
    }
}

/// Under which a frontend can be found, in the order in which programs look.
fn keys(frontend: &End, protocol: u8) -> [FrontendKey; 2] {
    let End { address, port, .. } = *frontend;
    let scope = if address.is_v4() { Scope::NODE_PORT4 } else { Scope::NODE_PORT6 };
    [
        FrontendKey { address, port, protocol, scope: Scope::ADDRESS },
        FrontendKey { address: Address::ANY, port, protocol, scope },
    ]
}
