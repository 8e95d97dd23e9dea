//! Sheave's kernel object: one program for each hook and kind of link ([`proxy_common::programs`]), all of them the
//! datapath of proxy-common.
#![no_std]
#![no_main]

mod log;
mod parts;
mod tables;

use aya_ebpf::{
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use proxy_common::{
    datapath::{Link, egress, ingress},
    reason::Hook,
};
use proxy_ebpf::context::{TcPacket, XdpPacket};

use tables::Maps;

macro_rules! tc {
    ($($name:ident: $way:ident, $hook:ident, $link:ident;)+) => {
        $(#[classifier]
        pub fn $name(context: TcContext) -> i32 {
            let mut packet = TcPacket::new(&context);
            let verdict = $way(&mut packet, &Maps, Hook::$hook, Link::$link);
            packet.action(verdict)
        })+
    };
}

tc! {
    pod_in: ingress, PodIngress, Ethernet;
    pod_out: egress, PodEgress, Ethernet;
    uplink_in: ingress, UplinkIngress, Ethernet;
    uplink_out: egress, UplinkEgress, Ethernet;
    overlay_in: ingress, OverlayIngress, Ethernet;
    overlay_out: egress, OverlayEgress, Ethernet;
    pod_in_l3: ingress, PodIngress, Ip;
    pod_out_l3: egress, PodEgress, Ip;
    uplink_in_l3: ingress, UplinkIngress, Ip;
    uplink_out_l3: egress, UplinkEgress, Ip;
    overlay_in_l3: ingress, OverlayIngress, Ip;
    overlay_out_l3: egress, OverlayEgress, Ip;
}

#[xdp]
pub fn uplink_xdp(context: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&context);
    let verdict = ingress(&mut packet, &Maps, Hook::Xdp, Link::Ethernet);
    packet.action(verdict)
}

/// A panic that can be reached is a loop without an end, which the verifier refuses.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The kernel's helpers are for GPL-compatible programs: of the two licences of this package it gets that one.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
