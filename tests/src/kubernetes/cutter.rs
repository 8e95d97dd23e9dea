use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context, Result};

use crate::cluster::Namespace;

/// A relay in front of an API server that can cut connections in the middle of an answer.
pub struct Cutter {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Bytes of answers that a connection may carry; 0 for no limit.
    limit: AtomicUsize,
    cuts: AtomicUsize,
    closed: AtomicBool,
}

impl Cutter {
    /// Listens at `address` in a namespace and relays to `server` there.
    pub fn start(namespace: &Namespace, address: SocketAddr, server: SocketAddr) -> Result<Self> {
        let listener =
            namespace.enter(|| TcpListener::bind(address))?.with_context(|| format!("listen at {address}"))?;
        let state = Arc::new(State::default());
        let (shared, namespace) = (Arc::clone(&state), namespace.clone());
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::Relaxed) {
                    return;
                }
                // A socket belongs to the namespace that its thread is in when it is made.
                if let Ok(Ok(server)) = namespace.enter(|| TcpStream::connect(server)) {
                    relay(client, server, &shared);
                }
            }
        });
        Ok(Self { address, state })
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on cuts every connection after so many bytes of answers; 0 lets everything pass.
    pub fn cut_after(&self, bytes: usize) {
        self.state.limit.store(bytes, Ordering::Relaxed);
    }

    /// Number of connections cut so far.
    pub fn cuts(&self) -> usize {
        self.state.cuts.load(Ordering::Relaxed)
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        // The thread ends with the next connection, or with the process.
        self.state.closed.store(true, Ordering::Relaxed);
    }
}

fn relay(client: TcpStream, server: TcpStream, state: &Arc<State>) {
    let (Ok(mut from_client), Ok(mut to_server)) = (client.try_clone(), server.try_clone()) else { return };
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Write);
    });
    let state = Arc::clone(state);
    thread::spawn(move || {
        let _ = answers(&server, &client, &state);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
    });
}

fn answers(mut server: &TcpStream, mut client: &TcpStream, state: &State) -> io::Result<()> {
    let mut buffer = [0; 4096];
    let mut carried = 0;
    loop {
        let read = server.read(&mut buffer)?;
        let limit = state.limit.load(Ordering::Relaxed);
        if read == 0 {
            return Ok(());
        }
        carried += read;
        if limit != 0 && carried > limit {
            state.cuts.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        client.write_all(buffer.get(..read).unwrap_or_default())?;
    }
}
