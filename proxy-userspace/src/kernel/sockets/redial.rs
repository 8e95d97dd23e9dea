use std::collections::HashMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aya::programs::ProgramFd;
use proxy_common::wire::{Address, Backend, End, Frontend, FrontendKey, Peer, Peers, Scope, map};
use tokio::sync::{oneshot, watch};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::diag::Sockets;
use crate::kernel::KernelError;
use crate::kernel::lock::PinDir;
use crate::kernel::mapped::Mapped;
use crate::kernel::raw::link;
use crate::kernel::rows::Rows;
use crate::kernel::specs::Spec;
use crate::kernel::tables::{mapped, rows};
use crate::own_thread;

/// Changes that follow each other so closely are looked at together.
const PAUSE: Duration = Duration::from_millis(100);
/// For which the last look stands, if nothing changes.
const AGAIN: Duration = Duration::from_millis(200);

/// Ends the connected UDP sockets of the node's processes whose backend does not serve their frontend any more: nothing
/// else would tell a process to dial again, since its datagrams go straight to the backend.
pub struct Redialler {
    /// Lists what is in `peers`, which cannot be asked for without the socket itself.
    lister: ProgramFd,
    peers: Rows<i32, Peers>,
    frontends: Rows<FrontendKey, Frontend>,
    backends: Mapped<Backend>,
    /// Nobody else may end them.
    _pins: Arc<PinDir>,
}

impl Redialler {
    pub(in crate::kernel) fn open(
        lister: ProgramFd,
        directory: &Path,
        specs: &[Spec],
        pins: &Arc<PinDir>,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            lister,
            peers: rows(directory, specs, map::PEERS)?,
            frontends: rows(directory, specs, map::FRONTENDS)?,
            backends: mapped(directory, specs, map::BACKENDS)?,
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
            let mut fails = false;
            loop {
                // A second look is for sockets that were just being connected at the first one.
                for pause in [PAUSE, AGAIN] {
                    match self.look() {
                        Ok(0) => fails = false,
                        Ok(ended) => tracing::debug!(ended, "connected UDP sockets have to dial again"),
                        Err(cause) => {
                            if !std::mem::replace(&mut fails, true) {
                                tracing::warn!(%cause, "UDP sockets of the node's processes stay with backends that are gone");
                            }
                        }
                    }
                    tokio::time::sleep(pause).await;
                    if epochs.has_changed().unwrap_or(true) {
                        break;
                    }
                }
                if epochs.changed().await.is_err() {
                    return;
                }
            }
        };
        own_thread::spawn("redial", work).map_err(KernelError::Thread)
    }

    /// How many sockets were ended.
    fn look(&self) -> io::Result<usize> {
        let mut peers = self.peers()?;
        if peers.is_empty() {
            return Ok(0);
        }
        let mut sockets = Sockets::open()?;
        let mut ended = 0;
        for socket in sockets.connected()? {
            let dialled = peers.get_mut(&socket.cookie).and_then(|peers| peers.of_backend(&socket.end));
            let Some(&mut peer) = dialled else { continue };
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

    /// What sockets have dialled, by their cookies.
    fn peers(&self) -> io::Result<HashMap<u64, Peers>> {
        let mut bytes = Vec::new();
        link::iterate(self.lister.as_fd(), self.peers.fd())?.read_to_end(&mut bytes)?;
        let listed = bytes.chunks_exact(size_of::<Listed>()).flat_map(Listed::read_from_bytes);
        Ok(listed.map(|Listed { cookie, peers }| (u64::from_ne_bytes(cookie), peers)).collect())
    }

    /// Whether the backend still serves, for the service port that has the frontend now.
    fn is_current(&self, peer: &Peer) -> io::Result<bool> {
        let Some(backend) = self.backends.get(peer.id) else { return Ok(false) };
        for key in keys(&peer.frontend, backend.protocol) {
            if let Some(frontend) = self.frontends.get(&key)? {
                return Ok(backend.still_serves(frontend.service, peer.generation));
            }
        }
        Ok(false)
    }
}

/// What the lister writes for a socket.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Listed {
    cookie: [u8; 8],
    peers: Peers,
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
