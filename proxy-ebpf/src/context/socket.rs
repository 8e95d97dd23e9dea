//! The node's own sockets.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple, bpf_sock_tuple__bindgen_ty_1 as Addresses,
        bpf_sock_tuple__bindgen_ty_1__bindgen_ty_1 as Four, bpf_sock_tuple__bindgen_ty_1__bindgen_ty_2 as Six,
    },
    helpers::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release},
};
use proxy_common::datapath::SocketQuery;

/// Whether a socket is bound to exactly the address and port that the packet is for, or connected from there.
#[inline(always)]
pub fn is_bound(context: *mut c_void, query: &SocketQuery) -> bool {
    let v4 = query.destination.is_v4();
    let (addresses, size) = if v4 {
        let four = Four {
            saddr: query.source.0[3],
            daddr: query.destination.0[3],
            sport: query.source_port,
            dport: query.destination_port,
        };
        (Addresses { ipv4: four }, size_of::<Four>())
    } else {
        let six = Six {
            saddr: query.source.0,
            daddr: query.destination.0,
            sport: query.source_port,
            dport: query.destination_port,
        };
        (Addresses { ipv6: six }, size_of::<Six>())
    };
    let mut tuple = bpf_sock_tuple { __bindgen_anon_1: addresses };
    let netns = BPF_F_CURRENT_NETNS as i64 as u64;
    // SAFETY: `context` is the program's own; the kernel reads `size` bytes of `tuple`.
    let socket: *mut bpf_sock = unsafe {
        if query.tcp {
            bpf_sk_lookup_tcp(context, &raw mut tuple, size as u32, netns, 0)
        } else {
            bpf_sk_lookup_udp(context, &raw mut tuple, size as u32, netns, 0)
        }
    };
    if socket.is_null() {
        return false;
    }
    // A socket that is bound to all addresses is found too; it is not meant here.
    // SAFETY: a socket that is ours until it is released.
    let bound = unsafe {
        if v4 {
            (*socket).src_ip4 == query.destination.0[3]
        } else {
            let [a, b, c, d] = (*socket).src_ip6;
            let [e, f, g, h] = query.destination.0;
            (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
        }
    };
    // SAFETY: as above.
    unsafe { bpf_sk_release(socket.cast()) };
    bound
}
