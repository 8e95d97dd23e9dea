//! Sheave's kernel object: one program for each hook and kind of link ([`proxy_common::programs`]), all of them the
//! datapath of proxy-common.
#![no_std]
#![no_main]

mod log;
mod parts;
mod tables;

use core::ffi::c_void;

use aya_ebpf::{
    macros::{cgroup_sock_addr, classifier, xdp},
    programs::{SockAddrContext, TcContext, XdpContext},
};
use proxy_common::{
    datapath::{
        Link, egress, ingress,
        socket::{Dialled, Remember, dial, recall},
    },
    reason::Hook,
    wire::Peers,
};
use proxy_ebpf::context::{SocketCall, StorageElement, TcPacket, XdpPacket};

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

macro_rules! sockets {
    ($($name:ident: $answer:ident, $v6:literal $(, $sends:literal)?;)+) => {
        $(#[cgroup_sock_addr($name)]
        pub fn $name(context: SockAddrContext) -> i32 {
            $answer(SocketCall::<$v6>::new(context) $(, $sends)?)
        })+
    };
}

sockets! {
    connect4: dialling, false, false;
    connect6: dialling, true, false;
    sendmsg4: dialling, false, true;
    sendmsg6: dialling, true, true;
    recvmsg4: recalling, false;
    recvmsg6: recalling, true;
    getpeername4: recalling, false;
    getpeername6: recalling, true;
}

/// What programs at control groups answer.
const REFUSE: i32 = 0;
const GO_ON: i32 = 1;

/// Numbers of errno.h.
const ENOBUFS: i32 = 105;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

#[inline(always)]
fn dialling<const IPV6: bool>(mut call: SocketCall<IPV6>, sends: bool) -> i32
where
    Maps: Remember<SocketCall<IPV6>>,
{
    let errno = match dial(&mut call, &Maps, sends) {
        Dialled::On => return GO_ON,
        Dialled::Refused => ECONNREFUSED,
        Dialled::Unreachable => EHOSTUNREACH,
        Dialled::NoRoom => ENOBUFS,
    };
    call.fail(errno);
    REFUSE
}

/// The kernel takes no other answer.
#[inline(always)]
fn recalling<const IPV6: bool>(mut call: SocketCall<IPV6>) -> i32
where
    Maps: Remember<SocketCall<IPV6>>,
{
    recall(&mut call, &Maps);
    GO_ON
}

/// Tells what each socket has dialled.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/bpf_sk_storage_map")]
pub extern "C" fn list_peers(context: *const c_void) -> i32 {
    StorageElement::new(context).tell::<Peers>();
    0
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
