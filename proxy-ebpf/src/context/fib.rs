//! The routing table, asked for a packet that has not been rewritten yet.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LOOKUP_OUTPUT,
        bpf_fib_lookup as Params, bpf_fib_lookup__bindgen_ty_1 as Length, bpf_fib_lookup__bindgen_ty_2 as Tos,
        bpf_fib_lookup__bindgen_ty_3 as Source, bpf_fib_lookup__bindgen_ty_4 as Destination,
        bpf_fib_lookup__bindgen_ty_5 as Vlan,
    },
    helpers::bpf_fib_lookup,
};
use proxy_common::{
    datapath::{Route, RouteQuery},
    wire::Address,
};

pub const AF_INET: u8 = 2;
pub const AF_INET6: u8 = 10;

/// The route of a packet that came in through `device`, or, where the query names one, that leaves by that.
#[inline(always)]
pub fn route(context: *mut c_void, device: u32, query: &RouteQuery) -> Route {
    let v4 = query.destination.is_v4();
    let mut params = Params {
        family: if v4 { AF_INET } else { AF_INET6 },
        l4_protocol: query.protocol,
        sport: query.source_port,
        dport: query.destination_port,
        __bindgen_anon_1: Length { tot_len: query.length },
        ifindex: if query.by == 0 { device } else { query.by },
        __bindgen_anon_2: Tos { flowinfo: 0 },
        // An IPv4 address takes the first word; the kernel looks at no other.
        __bindgen_anon_3: Source { ipv6_src: words(&query.source, v4) },
        __bindgen_anon_4: Destination { ipv6_dst: words(&query.destination, v4) },
        __bindgen_anon_5: Vlan { tbid: 0 },
        smac: [0; 6],
        dmac: [0; 6],
    };
    let flags = if query.by == 0 { 0 } else { BPF_FIB_LOOKUP_OUTPUT };
    // SAFETY: `context` is the program's own; the kernel writes within `params` only.
    let answer = unsafe { bpf_fib_lookup(context, &raw mut params, size_of::<Params>() as i32, flags) };
    let answer = answer as u32;
    let reachable = answer == BPF_FIB_LKUP_RET_SUCCESS || answer == BPF_FIB_LKUP_RET_NO_NEIGH;
    // Asked without a length, the kernel measures the packet itself after it has found the device.
    let too_long = answer == BPF_FIB_LKUP_RET_FRAG_NEEDED && query.length == 0;
    if !reachable && !too_long {
        return Route::NONE;
    }
    // SAFETY: all members are plain words, written by us or by the kernel.
    let next_hop = unsafe { params.__bindgen_anon_4.ipv6_dst };
    let same_family = params.family == if v4 { AF_INET } else { AF_INET6 };
    let half = |mac: [u8; 6], at: usize| u16::from_ne_bytes([mac[at], mac[at + 1]]);
    let hardware = if answer == BPF_FIB_LKUP_RET_SUCCESS {
        let (to, from) = (params.dmac, params.smac);
        [half(to, 0), half(to, 2), half(to, 4), half(from, 0), half(from, 2), half(from, 4)]
    } else {
        [0; 6]
    };
    Route {
        device: params.ifindex,
        // An IPv4 route through an IPv6 gateway (RFC 5549) is left to the stack.
        usable: u32::from(reachable && same_family),
        next_hop: if v4 { Address::from_v4(next_hop[0]) } else { Address(next_hop) },
        hardware,
    }
}

#[inline(always)]
fn words(address: &Address, v4: bool) -> [u32; 4] {
    if v4 { [address.0[3], 0, 0, 0] } else { address.0 }
}
