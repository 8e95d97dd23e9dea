//! Calls of processes on their sockets, as the kernel hands them to a program at a control group.

use aya_ebpf::{EbpfContext as _, bindings::bpf_sock_addr, helpers::generated, programs::SockAddrContext};
use proxy_common::{
    datapath::{SocketQuery, socket::Socket},
    wire::{Address, End},
};

use super::socket::is_bound;

/// A call whose address is of IPv6 or not, which the hook knows.
pub struct SocketCall<const V6: bool> {
    context: SockAddrContext,
}

impl<const V6: bool> SocketCall<V6> {
    pub const fn new(context: SockAddrContext) -> Self {
        Self { context }
    }

    pub const fn context(&self) -> &SockAddrContext {
        &self.context
    }

    const fn call(&self) -> *mut bpf_sock_addr {
        self.context.sock_addr
    }

    /// The cookie of the socket's network namespace (Linux 5.7).
    #[inline(always)]
    pub fn namespace(&self) -> u64 {
        // SAFETY: the program's own context.
        unsafe { generated::bpf_get_netns_cookie(self.context.as_ptr()) }
    }

    /// What the call returns instead of going on, a number of errno.h (Linux 6.1 for these hooks).
    #[inline(always)]
    pub fn fail(&self, errno: i32) {
        // SAFETY: a helper without pointers.
        unsafe { generated::bpf_set_retval(-errno) };
    }
}

/// Each field is read by itself: the verifier allows a program no other reads of this context.
macro_rules! read {
    ($call:expr, $($field:tt)+) => {
        // SAFETY: the program's own context, in which the verifier allows this field.
        unsafe { (&raw const (*$call).$($field)+).read_volatile() }
    };
}

macro_rules! write {
    ($call:expr, $($field:tt)+) => { |value: u32| {
        // SAFETY: as for reading.
        unsafe { (&raw mut (*$call).$($field)+).write_volatile(value) }
    } };
}

impl<const V6: bool> Socket for SocketCall<V6> {
    #[inline(always)]
    fn end(&self) -> End {
        let call = self.call();
        let address = if V6 {
            Address([
                read!(call, user_ip6[0]),
                read!(call, user_ip6[1]),
                read!(call, user_ip6[2]),
                read!(call, user_ip6[3]),
            ])
        } else {
            Address::from_v4(read!(call, user_ip4))
        };
        End::new(address, read!(call, user_port) as u16)
    }

    #[inline(always)]
    fn set_end(&mut self, end: &End) {
        let call = self.call();
        let [a, b, c, d] = end.address.0;
        if V6 {
            write!(call, user_ip6[0])(a);
            write!(call, user_ip6[1])(b);
            write!(call, user_ip6[2])(c);
            write!(call, user_ip6[3])(d);
        } else {
            write!(call, user_ip4)(d);
        }
        write!(call, user_port)(u32::from(end.port));
    }

    #[inline(always)]
    fn protocol(&self) -> u8 {
        read!(self.call(), protocol) as u8
    }

    #[inline(always)]
    fn is_connected(&self) -> bool {
        /// `TCP_ESTABLISHED` of net/tcp_states.h, which a connected UDP socket has as well.
        const ESTABLISHED: u32 = 1;
        let socket = read!(self.call(), __bindgen_anon_1.sk);
        // SAFETY: the socket of the call, in which the verifier allows this field.
        !socket.is_null() && unsafe { (&raw const (*socket).state).read_volatile() } == ESTABLISHED
    }

    #[inline(always)]
    fn has_own_socket(&self, query: &SocketQuery) -> bool {
        is_bound(self.context.as_ptr(), query)
    }
}
