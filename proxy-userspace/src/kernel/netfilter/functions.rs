use std::io;

use netlink_packet_core::{DefaultNla, Nla as _};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily, NetfilterSubsystem,
};

use super::{FastPath, Hook, Onlooker};
use crate::kernel::netlink::Netlink;
use crate::model::Family;

/// linux/netfilter/nfnetlink.h and linux/netfilter/nfnetlink_hook.h (Linux 5.14).
const NFNL_SUBSYS_HOOK: u8 = 12;
const NFNL_MSG_HOOK_GET: u8 = 0;
const NFNLA_HOOK_HOOKNUM: u16 = 1;
const NFNLA_HOOK_FUNCTION_NAME: u16 = 4;

/// Functions that decide nothing about packets that are forwarded, or only what the tables say that are looked at beside
/// this list. Names of Linux 6.1 to 6.18, without what compilers append.
const HARMLESS: &[&str] = &[
    // Connection tracking and defragmentation.
    "ipv4_confirm",
    "ipv4_conntrack_defrag",
    "ipv4_conntrack_in",
    "ipv6_confirm",
    "ipv6_conntrack_in",
    "ipv6_defrag",
    "nf_confirm",
    "nf_ct_bridge_post",
    "nf_ct_bridge_pre",
    // NAT: carries out what the first packet of a connection was told by chains of nftables or iptables.
    "nf_nat_ipv4_out",
    "nf_nat_ipv4_pre_routing",
    "nf_nat_ipv6_in",
    "nf_nat_ipv6_out",
    // The tables of the older iptables.
    "ip6t_do_table",
    "ip6table_mangle_hook",
    "ipt_do_table",
    "iptable_mangle_hook",
    // The chains of nftables.
    "nft_do_chain_bridge",
    "nft_do_chain_inet",
    "nft_do_chain_ipv4",
    "nft_do_chain_ipv6",
    "nft_nat_do_chain",
    // Shows packets of a bridge to the hooks of IP, and sees to it that they come there once only.
    "br_nf_forward",
    "br_nf_forward_arp",
    "br_nf_forward_ip",
    "br_nf_post_routing",
    "br_nf_pre_routing",
    "ip_sabotage_in",
    // AppArmor: judges packets by the local socket that sends them.
    "apparmor_ip_postroute",
];

/// The lists that are read: whose packets, the family to ask for, and the hook.
const HOOKS: [(&[Family], NetfilterProtoFamily, u8); 9] = {
    use NetfilterProtoFamily::{Bridge, IPv4, IPv6};
    [
        (&[Family::V4], IPv4, 0),
        (&[Family::V4], IPv4, 2),
        (&[Family::V4], IPv4, 4),
        (&[Family::V6], IPv6, 0),
        (&[Family::V6], IPv6, 2),
        (&[Family::V6], IPv6, 4),
        (&Family::ALL, Bridge, 0),
        (&Family::ALL, Bridge, 2),
        (&Family::ALL, Bridge, 4),
    ]
};

/// Who looks besides nftables and iptables.
///
/// # Errors
/// `EINVAL` where the kernel does not list its hooks.
pub fn look(netlink: &mut Netlink) -> io::Result<FastPath> {
    let mut path = FastPath::OPEN;
    for (families, family, number) in HOOKS {
        let Some(hook) = Hook::of_ip(number.into()) else { continue };
        let names = match netlink.list(&request(family, number), function) {
            // A kernel without hooks for bridges.
            Err(cause) if cause.raw_os_error() == Some(libc::EPROTONOSUPPORT) => Vec::new(),
            result => result?,
        };
        for name in names.into_iter().filter(|name| !is_harmless(name)) {
            path.add(families, &Onlooker::Function { hook, name });
        }
    }
    Ok(path)
}

fn request(family: NetfilterProtoFamily, hook: u8) -> NetfilterMessage {
    let number = DefaultNla::new(NFNLA_HOOK_HOOKNUM, u32::from(hook).to_be_bytes().to_vec());
    let inner = NetfilterMessageInner::Other {
        subsys: NetfilterSubsystem::Other(NFNL_SUBSYS_HOOK),
        message_type: NFNL_MSG_HOOK_GET,
        attributes: vec![number],
    };
    NetfilterMessage::new(NetfilterHeader::new(family, 0, 0), inner)
}

/// The name of a function at a hook; empty where the kernel knows none (`CONFIG_KALLSYMS`).
fn function(message: NetfilterMessage) -> Option<String> {
    let NetfilterMessageInner::Other { attributes, .. } = message.inner else { return None };
    let Some(name) = attributes.iter().find(|attribute| attribute.kind() == NFNLA_HOOK_FUNCTION_NAME) else {
        return Some(String::new());
    };
    let mut bytes = vec![0; name.value_len()];
    name.emit_value(&mut bytes);
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}

fn is_harmless(name: &str) -> bool {
    let name = name.split('.').next().unwrap_or_default();
    HARMLESS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compilers_append_is_no_part_of_a_name() {
        for name in ["ipv4_conntrack_in", "nf_nat_ipv4_out.llvm.7364982", "nft_do_chain_inet.isra.0"] {
            assert!(is_harmless(name), "{name}");
        }
        for name in ["", ".isra.0", "ipv4_conntrack", "ipv4_conntrack_in_2", "selinux_ip_forward", "nf_hook_run_bpf"] {
            assert!(!is_harmless(name), "{name}");
        }
    }
}
