use core::{ffi::c_void, mem::offset_of};

use aya_ebpf::{
    EbpfContext,
    bindings::{xdp_action, xdp_md},
    helpers::{bpf_redirect, bpf_xdp_adjust_tail},
    programs::XdpContext,
};
use proxy_common::{
    checksum,
    datapath::{ChecksumChange, Packet, Route, RouteQuery, SocketQuery},
    verdict::Verdict,
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{fib, memory, socket};

/// A frame before it becomes a socket buffer: whole in memory, its checksum complete.
pub struct XdpPacket {
    context: *mut xdp_md,
    /// Hardware addresses of the last route, destination first, as they lie in a frame.
    next_hop: [u16; 6],
    /// Its device.
    next_device: u32,
}

impl XdpPacket {
    #[inline(always)]
    pub fn new(context: &XdpContext) -> Self {
        Self::of(context.as_ptr().cast())
    }

    /// The frame of a program's argument.
    #[inline(always)]
    pub fn of(context: *mut xdp_md) -> Self {
        Self { context, next_hop: [0; 6], next_device: 0 }
    }

    /// What XDP is told. Everything that is not decided here goes on to tc.
    #[inline(always)]
    pub fn action(&mut self, verdict: Verdict) -> u32 {
        match verdict {
            Verdict::Pass | Verdict::Translate => xdp_action::XDP_PASS,
            Verdict::Back | Verdict::Reply => xdp_action::XDP_TX,
            Verdict::Forward => self.forward(),
            // Said of what leaves, which XDP does not see.
            Verdict::Inward | Verdict::Drop(_) => xdp_action::XDP_DROP,
        }
    }

    #[inline(always)]
    fn forward(&mut self) -> u32 {
        let next_hop = self.next_hop;
        if self.store(0, &next_hop).is_none() {
            return xdp_action::XDP_DROP;
        }
        if self.next_device == self.device() {
            return xdp_action::XDP_TX;
        }
        // SAFETY: a helper without pointers.
        unsafe { bpf_redirect(self.next_device, 0) as u32 }
    }

    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        const DATA: usize = offset_of!(xdp_md, data);
        const END: usize = offset_of!(xdp_md, data_end);
        // SAFETY: `context` is the argument of the program.
        unsafe { memory::bounds::<DATA, END>(self.context.cast()) }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        let (data, end) = self.bounds();
        end - data
    }

    #[inline(always)]
    fn memory(&self, offset: usize, size: usize) -> Option<memory::Bytes> {
        let (data, end) = self.bounds();
        memory::at(data, end, offset, size)
    }
}

impl Packet for XdpPacket {
    const XDP: bool = true;

    #[inline(always)]
    fn context(&self) -> *mut c_void {
        self.context.cast()
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
    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()> {
        let bytes = self.memory(offset, size_of::<u16>())?;
        let old: u16 = bytes.load()?;
        if change.udp && old == 0 {
            return Some(());
        }
        let new = checksum::update(old, checksum::add(change.addresses, change.ports));
        bytes.store(&if change.udp { checksum::udp(new) } else { new })
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> Option<()> {
        let delta = len as i32 - self.len() as i32;
        // SAFETY: the context is valid as long as the program runs.
        (unsafe { bpf_xdp_adjust_tail(self.context, delta) } == 0).then_some(())
    }

    #[inline(always)]
    fn route(&self, query: &RouteQuery) -> Route {
        let mut route = fib::route(self.context.cast(), self.device(), query);
        // A frame is sent as it is: the next hop has to be known.
        if route.hardware == [0; 6] {
            route.usable = 0;
        }
        route
    }

    #[inline(always)]
    fn conceal(&self, offset: usize) -> usize {
        memory::conceal(offset, self.device())
    }

    #[inline(always)]
    fn segment(&self) -> usize {
        0
    }

    #[inline(always)]
    fn send_by(&mut self, route: &Route) {
        self.next_hop = route.hardware;
        self.next_device = route.device;
    }

    #[inline(always)]
    fn device(&self) -> u32 {
        // SAFETY: the context is valid as long as the program runs.
        unsafe { (*self.context).ingress_ifindex }
    }

    /// Not known here: a frame for another address is one that the device was asked to take in all the same.
    #[inline(always)]
    fn is_to_us(&self) -> bool {
        true
    }

    #[inline(always)]
    fn is_forwarded(&self) -> bool {
        false
    }

    /// A tag lies in the bytes, where it is no protocol that is looked into.
    #[inline(always)]
    fn is_of_vlan(&self) -> bool {
        false
    }

    #[inline(always)]
    fn has_own_socket(&self, query: &SocketQuery) -> bool {
        socket::is_bound(self.context.cast(), query)
    }
}
