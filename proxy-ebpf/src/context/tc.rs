use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{
    EbpfContext,
    bindings::{
        __sk_buff, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_redir_neigh,
        bpf_redir_neigh__bindgen_ty_1 as NextHop,
    },
    helpers::{bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_change_tail, bpf_skb_pull_data},
    programs::TcContext,
};
use proxy_common::{
    datapath::{ChecksumChange, Packet, Route, RouteQuery, SocketQuery},
    verdict::Verdict,
    wire::Address,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{
    fib::{self, AF_INET, AF_INET6},
    memory, socket,
};

/// `BPF_F_IPV6` of linux/bpf.h (Linux 6.16 and stable kernels): the checksum of an address change in IPv6, whose
/// header has no checksum of its own, does not change the sum over the whole packet.
const BPF_F_IPV6: u64 = 1 << 7;

/// Bytes that hold all headers which a reject reads and repeats, and the room for its own.
const HEADERS: usize = 192;
/// `PACKET_HOST` of linux/if_packet.h: to this host.
const PACKET_HOST: u32 = 0;
/// The VLAN's number in a tag (IEEE 802.1Q); 0: a priority alone.
const VLAN_ID: u32 = 0xfff;

/// A socket buffer at a tc hook. Its headers need not lie in the linear part, its transport checksum may be the
/// device's to fill in, and it may be a GSO packet of many segments.
pub struct TcPacket {
    skb: *mut __sk_buff,
    /// Device and next hop of the last route.
    device: u32,
    next_hop: Address,
}

impl TcPacket {
    /// The packet of a program's argument, its headers in the linear part from here on: an access that has two ways
    /// doubles the verifier's work.
    #[inline(always)]
    pub fn new(context: &TcContext) -> Self {
        let packet = Self::of(context.as_ptr().cast());
        packet.reach(HEADERS);
        packet
    }

    /// The same, in a part of the program that has made it.
    #[inline(always)]
    pub fn of(skb: *mut __sk_buff) -> Self {
        Self { skb, device: 0, next_hop: Address::ANY }
    }

    /// What tc is told. Never `TC_ACT_OK`, which would end the chain of programs at this hook for everyone else.
    #[inline(always)]
    pub fn action(&self, verdict: Verdict) -> i32 {
        match verdict {
            // Equals TCX_NEXT.
            Verdict::Pass | Verdict::Translate => TC_ACT_UNSPEC,
            Verdict::Back | Verdict::Reply => self.back(),
            Verdict::Inward => self.inward(),
            Verdict::Forward => forward(self.device, &self.next_hop),
            Verdict::Drop(_) => TC_ACT_SHOT,
        }
    }

    #[inline(always)]
    fn back(&self) -> i32 {
        // SAFETY: a helper without pointers; the buffer is valid as long as the program runs.
        unsafe { bpf_redirect((*self.skb).ifindex, 0) as i32 }
    }

    /// As if it had come by this device.
    #[inline(always)]
    fn inward(&self) -> i32 {
        // SAFETY: as in `back`.
        unsafe { bpf_redirect((*self.skb).ifindex, u64::from(BPF_F_INGRESS)) as i32 }
    }

    #[inline(always)]
    fn memory(&self, offset: usize, size: usize) -> Option<memory::Bytes> {
        const DATA: usize = offset_of!(__sk_buff, data);
        const END: usize = offset_of!(__sk_buff, data_end);
        // SAFETY: `skb` is the argument of the program.
        let (data, end) = unsafe { memory::bounds::<DATA, END>(self.skb.cast()) };
        memory::at(data, end, offset, size)
    }

    /// Whether the linear part has so many bytes.
    #[inline(always)]
    fn has(&self, end: usize) -> bool {
        const DATA: usize = offset_of!(__sk_buff, data);
        const END: usize = offset_of!(__sk_buff, data_end);
        // SAFETY: `skb` is the argument of the program.
        let (data, data_end) = unsafe { memory::bounds::<DATA, END>(self.skb.cast()) };
        data_end - data >= end
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: the buffer is valid as long as the program runs.
        unsafe { (*self.skb).len as usize }
    }

    #[inline(always)]
    fn replace(&self, offset: usize, change: u32, flags: u64) -> bool {
        // SAFETY: the helper checks the offset. With no size in the flags `to` is a difference and `from` has to be 0.
        unsafe { bpf_l4_csum_replace(self.skb, offset as u32, 0, u64::from(change), flags) == 0 }
    }
}

/// Through the neighbour table: resolves the next hop where it is not known yet.
#[inline(always)]
fn forward(device: u32, next_hop: &Address) -> i32 {
    let mut neighbour = if next_hop.is_v4() {
        bpf_redir_neigh { nh_family: AF_INET.into(), __bindgen_anon_1: NextHop { ipv6_nh: [next_hop.0[3], 0, 0, 0] } }
    } else {
        bpf_redir_neigh { nh_family: AF_INET6.into(), __bindgen_anon_1: NextHop { ipv6_nh: next_hop.0 } }
    };
    // SAFETY: the kernel reads `size_of` bytes of `neighbour`.
    unsafe { bpf_redirect_neigh(device, &raw mut neighbour, size_of::<bpf_redir_neigh>() as i32, 0) as i32 }
}

impl Packet for TcPacket {
    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.skb.cast()
    }

    #[inline(always)]
    fn load<T: FromBytes>(&self, offset: usize) -> Option<T> {
        self.memory(offset, size_of::<T>())?.load()
    }

    #[inline(always)]
    fn store<T: IntoBytes + Immutable>(&mut self, offset: usize, value: &T) -> Option<()> {
        self.memory(offset, size_of::<T>())?.store(value)
    }

    #[inline(always)]
    fn reach(&self, end: usize) {
        let length = self.len();
        let end = if length < end { length } else { end };
        if !self.has(end) {
            // What cannot be moved is found missing by the access.
            // SAFETY: the buffer is valid as long as the program runs.
            let _ = unsafe { bpf_skb_pull_data(self.skb, end as u32) };
        }
    }

    #[inline(always)]
    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()> {
        let mark = if change.udp { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        if change.addresses != 0 {
            let flags = mark | u64::from(BPF_F_PSEUDO_HDR);
            let done = if change.v6 {
                // A kernel that does not know the flag refuses it.
                self.replace(offset, change.addresses, flags | BPF_F_IPV6)
                    || self.replace(offset, change.addresses, flags)
            } else {
                self.replace(offset, change.addresses, flags)
            };
            done.then_some(())?;
        }
        if change.ports != 0 {
            self.replace(offset, change.ports, mark).then_some(())?;
        }
        Some(())
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> Option<()> {
        // SAFETY: the buffer is valid as long as the program runs.
        (unsafe { bpf_skb_change_tail(self.skb, len as u32, 0) } == 0).then_some(())
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery) -> Route {
        fib::route(self.skb.cast(), self.device(), query)
    }

    #[inline(always)]
    fn conceal(&self, offset: usize) -> usize {
        // SAFETY: the buffer is valid as long as the program runs.
        memory::conceal(offset, unsafe { (*self.skb).len })
    }

    #[inline(always)]
    fn segment(&self) -> usize {
        // SAFETY: the buffer is valid as long as the program runs.
        unsafe { (*self.skb).gso_size as usize }
    }

    #[inline(always)]
    fn send_by(&mut self, route: &Route) {
        self.device = route.device;
        self.next_hop = route.next_hop;
    }

    #[inline(always)]
    fn device(&self) -> u32 {
        // SAFETY: the buffer is valid as long as the program runs.
        unsafe { (*self.skb).ifindex }
    }

    #[inline(always)]
    fn is_to_us(&self) -> bool {
        // SAFETY: the buffer is valid as long as the program runs.
        unsafe { (*self.skb).pkt_type == PACKET_HOST }
    }

    #[inline(always)]
    fn is_forwarded(&self) -> bool {
        // SAFETY: the buffer is valid as long as the program runs.
        unsafe { (*self.skb).ingress_ifindex != 0 }
    }

    #[inline(always)]
    fn is_of_vlan(&self) -> bool {
        // The kernel has moved the tag from the bytes to the buffer by now (`skb_vlan_untag`).
        // SAFETY: the buffer is valid as long as the program runs.
        unsafe { (*self.skb).vlan_present != 0 && (*self.skb).vlan_tci & VLAN_ID != 0 }
    }

    #[inline(always)]
    fn has_own_socket(&self, query: &SocketQuery) -> bool {
        socket::is_bound(self.skb.cast(), query)
    }
}
