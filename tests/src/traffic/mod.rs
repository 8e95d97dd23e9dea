//! Servers and clients as the workloads of a cluster have them, small enough to trust. The program `traffic` runs them
//! inside namespaces and prints what they saw as one line of JSON.

mod ask;
mod beside;
mod call;
mod connect;
mod failure;
mod flood;
mod http;
mod latency;
mod open;
mod percentiles;
mod raw;
pub mod server;
mod sessions;
mod stream;
mod udp;

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use ask::{AskOptions, EchoReport, Transport, ask};
pub use beside::{BesideOptions, BesideReport, Kind, beside};
pub use call::{CallOptions, Called, Manner, Resolutions, ResolveOptions, Resolved, call, resolve};
pub use connect::{Dialled, dial};
pub use failure::Failure;
pub use flood::{BEHIND_NOBODY4, BEHIND_NOBODY6, FloodOptions, FloodReport, Sources, flood};
pub use http::{HttpOptions, HttpReport, http};
pub use latency::{Exchange, LatencyOptions, LatencyReport, latency};
pub use open::{OpenOptions, Opened, now_us, open};
pub use percentiles::Percentiles;
pub use raw::Raw;
pub use sessions::{OPEN, SessionsOptions, SessionsReport, sessions};
pub use stream::{ConnectionReport, StreamOptions, StreamReport, stream};
pub use udp::{UdpOptions, UdpReport, udp};

/// Tells a client to end.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Set when standard input ends.
    pub fn when_stdin_closes() -> Self {
        let stop = Self::default();
        let setter = stop.clone();
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            setter.set();
        });
        stop
    }
}
