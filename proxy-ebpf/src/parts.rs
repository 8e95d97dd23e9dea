//! The parts of the datapath as global functions, which the verifier checks by themselves (Linux 5.6): exported, since
//! bpf-linker makes all others static. Those that work on the packet are there for each type of context.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use proxy_common::datapath::{
    Family, Packet, Parse, Reject, Row, V4, V6,
    part::{Part, Work, run, work},
    rewrite::translate,
};
use proxy_ebpf::context::{TcPacket, XdpPacket};

use crate::tables::{self, Maps};

macro_rules! parts {
    ($($part:ident: $tc4:ident $tc6:ident $xdp4:ident $xdp6:ident;)+) => {
        $(
            parts!(@function $tc4, __sk_buff, TcPacket, V4, $part);
            parts!(@function $tc6, __sk_buff, TcPacket, V6, $part);
            parts!(@function $xdp4, xdp_md, XdpPacket, V4, $part);
            parts!(@function $xdp6, xdp_md, XdpPacket, V6, $part);
        )+

        /// Runs a part on the packet of `context`.
        #[inline(always)]
        pub fn on_packet<const PART: u8, F: Parse + Reject, P: Packet>(context: *mut c_void) -> u32 {
            // The verifier knows nothing of the answer, and the optimizer must not know more.
            black_box(match (PART, P::XDP, F::V6) {
                $(
                    (Part::$part, false, false) => $tc4(context.cast()),
                    (Part::$part, false, true) => $tc6(context.cast()),
                    (Part::$part, true, false) => $xdp4(context.cast()),
                    (Part::$part, true, true) => $xdp6(context.cast()),
                )+
                _ => 0,
            })
        }
    };
    (@function $name:ident, $context:ident, $packet:ident, $family:ty, $part:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name(context: *mut $context) -> u32 {
            // An argument that is not used is not passed, and the verifier looks at what is in its register.
            let context = black_box(context);
            let mut packet = $packet::of(context);
            run::<{ Part::$part }, $family, _, _>(&mut packet, &Maps)
        }
    };
}

parts! {
    MEET: tc_meet4 tc_meet6 xdp_meet4 xdp_meet6;
    ADDRESS: tc_address4 tc_address6 xdp_address4 xdp_address6;
    REJECT: tc_reject4 tc_reject6 xdp_reject4 xdp_reject6;
    DETOUR: tc_detour4 tc_detour6 xdp_detour4 xdp_detour6;
    SHORTCUT: tc_shortcut4 tc_shortcut6 xdp_shortcut4 xdp_shortcut6;
    STRAY: tc_stray4 tc_stray6 xdp_stray4 xdp_stray6;
}

macro_rules! works {
    ($($work:ident: $four:ident $six:ident;)+) => {
        $(
            works!(@function $four, V4, $work);
            works!(@function $six, V6, $work);
        )+

        /// Runs a part on the tables.
        #[inline(always)]
        pub fn on_tables<const WORK: u8, F: Family>() -> u32 {
            black_box(match (WORK, F::V6) {
                $(
                    (Work::$work, false) => $four(),
                    (Work::$work, true) => $six(),
                )+
                _ => 0,
            })
        }
    };
    (@function $name:ident, $family:ty, $work:ident) => {
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name() -> u32 {
            work::<{ Work::$work }, $family, _>(&Maps)
        }
    };
}

works! {
    CLAIM: claim4 claim6;
    MASK: mask4 mask6;
    ENTER: enter4 enter6;
    UNDO: undo4 undo6;
    ROOM: room4 room6;
    OWN: own4 own6;
    PROVE: prove4 prove6;
    JUDGE: judge4 judge6;
    END: end4 end6;
    REVIEW: review4 review6;
}

macro_rules! rewrites {
    ($($name:ident: $context:ident, $packet:ident, $family:ident;)+) => {
        $(
            #[unsafe(no_mangle)]
            #[inline(never)]
            pub extern "C" fn $name(context: *mut $context, row: *mut Row<$family>) -> u32 {
                let Some(row) = tables::given(row) else { return 0 };
                u32::from(translate::<$family, _>(&mut $packet::of(context), &row.headers, &row.flow))
            }
        )+
    };
}

rewrites! {
    tc_rewrite4: __sk_buff, TcPacket, V4;
    tc_rewrite6: __sk_buff, TcPacket, V6;
    xdp_rewrite4: xdp_md, XdpPacket, V4;
    xdp_rewrite6: xdp_md, XdpPacket, V6;
}

/// Rewrites the packet of `context`. Gets the row, which every packet of an established flow would have to look up again
/// otherwise.
#[inline(always)]
pub fn rewrite<F: Family, P: Packet>(context: *mut c_void, row: &Row<F>) -> bool {
    let row = core::ptr::from_ref(row).cast_mut();
    black_box(match (P::XDP, F::V6) {
        (false, false) => tc_rewrite4(context.cast(), row.cast()),
        (false, true) => tc_rewrite6(context.cast(), row.cast()),
        (true, false) => xdp_rewrite4(context.cast(), row.cast()),
        (true, true) => xdp_rewrite6(context.cast(), row.cast()),
    }) != 0
}
