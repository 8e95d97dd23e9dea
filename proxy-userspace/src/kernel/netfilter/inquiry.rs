use std::io;

use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_XFRM};

use super::nftables::Nftables;
use super::part::{NO_PROTOCOL, Part};
use super::{FastPath, Onlooker, functions, ipsec, legacy};
use crate::kernel::netlink::Netlink;

/// What netfilter's netlink says for a subsystem that the kernel does not have.
const NO_SUBSYSTEM: &[i32] = &[libc::EINVAL, libc::EOPNOTSUPP];

/// Asks the kernel who looks at forwarded packets, in the network namespace of the calling thread.
pub struct Inquiry {
    netfilter: Port,
    chains: Part,
    nftables: Nftables,
    functions: Part,
    lists_functions: bool,
    xfrm: Port,
}

impl Inquiry {
    #[expect(clippy::new_without_default, reason = "it opens sockets later on, in the namespace of its thread")]
    pub fn new() -> Self {
        Self {
            netfilter: Port::new(NETLINK_NETFILTER, "nfnetlink"),
            chains: Part::new("nf_tables"),
            nftables: Nftables::default(),
            functions: Part::new("nfnetlink_hook"),
            lists_functions: false,
            xfrm: Port::new(NETLINK_XFRM, "xfrm_user"),
        }
    }

    /// Who looks now. What the kernel does not answer counts as somebody who looks, what it does not have as nobody.
    pub fn look(&mut self) -> FastPath {
        let mut path = FastPath::OPEN;
        for (what, answer) in [
            ("nftables", self.nftables()),
            ("iptables-legacy", legacy::look()),
            ("functions at netfilter's hooks", self.functions()),
            ("IPsec policies", self.ipsec()),
        ] {
            let unknown = |cause: io::Error| FastPath::closed(&Onlooker::Unknown { what, cause: cause.to_string() });
            path.merge(&answer.unwrap_or_else(unknown));
        }
        path
    }

    /// Whether the kernel told the functions at its hooks when it was asked last (Linux 5.14 with
    /// `CONFIG_NETFILTER_NETLINK_HOOK`). If not, those of nftables and iptables are all that can be known.
    pub fn lists_functions(&self) -> bool {
        self.lists_functions
    }

    fn nftables(&mut self) -> io::Result<FastPath> {
        let Self { netfilter, chains, nftables, .. } = self;
        let found = netfilter.ask(|netlink| chains.ask(NO_SUBSYSTEM, || nftables.look(netlink)))?;
        Ok(found.flatten().unwrap_or(FastPath::OPEN))
    }

    fn functions(&mut self) -> io::Result<FastPath> {
        let Self { netfilter, functions, .. } = self;
        let found = netfilter.ask(|netlink| functions.ask(NO_SUBSYSTEM, || functions::look(netlink)))?.flatten();
        self.lists_functions = found.is_some();
        Ok(found.unwrap_or(FastPath::OPEN))
    }

    fn ipsec(&mut self) -> io::Result<FastPath> {
        Ok(self.xfrm.ask(ipsec::look)?.unwrap_or(FastPath::OPEN))
    }
}

/// A netlink protocol, and the socket that is kept as long as it works.
struct Port {
    protocol: isize,
    part: Part,
    socket: Option<Netlink>,
}

impl Port {
    const fn new(protocol: isize, module: &'static str) -> Self {
        Self { protocol, part: Part::new(module), socket: None }
    }

    /// `None`: the kernel does not have the protocol.
    fn ask<T>(&mut self, ask: impl FnOnce(&mut Netlink) -> io::Result<T>) -> io::Result<Option<T>> {
        let opened = match self.socket.take() {
            Some(socket) => Some(socket),
            None => self.part.ask(NO_PROTOCOL, || Netlink::open(self.protocol))?,
        };
        let Some(mut socket) = opened else { return Ok(None) };
        let answer = ask(&mut socket)?;
        self.socket = Some(socket);
        Ok(Some(answer))
    }
}
