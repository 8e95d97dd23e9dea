//! The yardstick of the packet benchmark: the least that destination translation of IPv4 and TCP can do with the same
//! helpers. Parse, one lookup in an LRU table, rewrite. What the real programs cost is told as a multiple of it.
#![no_std]
#![no_main]

use aya_ebpf::{
    btf_maps::LruHashMap,
    macros::{btf_map, classifier},
    programs::TcContext,
};
use proxy_common::{
    checksum,
    datapath::{ChecksumChange, Packet},
    header::{ETHERNET_LEN, EtherType, IpProto, Ipv4, Tcp},
    verdict::Verdict,
    wire::{Flow4, FlowKey4},
};
use proxy_ebpf::context::TcPacket;

#[btf_map]
static FLOWS: LruHashMap<FlowKey4, Flow4, 65536> = LruHashMap::new();

#[classifier]
pub fn calibrator(context: TcContext) -> i32 {
    let mut packet = TcPacket::new(&context);
    let verdict = translate(&mut packet).map_or(Verdict::Pass, |()| Verdict::Translate);
    packet.action(verdict)
}

#[inline(always)]
fn translate(packet: &mut TcPacket) -> Option<()> {
    let kind: u16 = packet.load(ETHERNET_LEN - 2)?;
    let ip: Ipv4 = packet.load(ETHERNET_LEN)?;
    if kind != EtherType::Ipv4 as u16 || ip.version_ihl != 0x45 || ip.protocol != IpProto::Tcp as u8 {
        return None;
    }
    let l4 = ETHERNET_LEN + Ipv4::LEN;
    let [source_port, destination_port]: [u16; 2] = packet.load(l4)?;
    let key = FlowKey4 {
        source: ip.source,
        destination: ip.destination,
        source_port,
        destination_port,
        protocol: ip.protocol,
        ..FlowKey4::default()
    };
    // SAFETY: nothing is inserted or removed while the value is in use.
    let flow = unsafe { FLOWS.get(&key) }?;
    let addresses = checksum::difference(ip.destination, flow.destination);
    let ports = checksum::difference(u32::from(destination_port), u32::from(flow.destination_port));
    packet.store(ETHERNET_LEN + Ipv4::ADDRESSES + 4, &flow.destination)?;
    packet.store(ETHERNET_LEN + Ipv4::CHECKSUM, &checksum::update(ip.checksum, addresses))?;
    packet.store(l4 + 2, &flow.destination_port)?;
    packet.fix_checksum(l4 + Tcp::CHECKSUM, ChecksumChange { addresses, ports, udp: false, v6: false })
}

/// A panic that can be reached is a loop without an end, which the verifier refuses.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
