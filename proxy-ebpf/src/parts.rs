//! The parts of the datapath as global functions, which the verifier checks by themselves (Linux 5.6): exported, since
//! bpf-linker makes all others static. A pair of each, for the two types of context.

use core::{ffi::c_void, hint::black_box};

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use proxy_common::datapath::{
    Packet, Parse, Reject, V4, V6,
    part::{Part, run},
};
use proxy_ebpf::context::{TcPacket, XdpPacket};

use crate::tables::Maps;

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
        pub fn call<const PART: u8, F: Parse + Reject, P: Packet>(context: *mut c_void) -> u32 {
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
            let mut packet = if Part::$part == Part::REJECT {
                $packet::pulled(context)
            } else {
                $packet::of(context)
            };
            run::<{ Part::$part }, $family, _, _>(&mut packet, &Maps)
        }
    };
}

parts! {
    MEET: tc_meet4 tc_meet6 xdp_meet4 xdp_meet6;
    PREPARE: tc_prepare4 tc_prepare6 xdp_prepare4 xdp_prepare6;
    CLAIM: tc_claim4 tc_claim6 xdp_claim4 xdp_claim6;
    ADDRESS: tc_address4 tc_address6 xdp_address4 xdp_address6;
    MASK: tc_mask4 tc_mask6 xdp_mask4 xdp_mask6;
    ENTER: tc_enter4 tc_enter6 xdp_enter4 xdp_enter6;
    UNDO: tc_undo4 tc_undo6 xdp_undo4 xdp_undo6;
    REJECT: tc_reject4 tc_reject6 xdp_reject4 xdp_reject6;
    END: tc_end4 tc_end6 xdp_end4 xdp_end6;
    OWN: tc_own4 tc_own6 xdp_own4 xdp_own6;
    PROVE: tc_prove4 tc_prove6 xdp_prove4 xdp_prove6;
    DETOUR: tc_detour4 tc_detour6 xdp_detour4 xdp_detour6;
}
