//! A network namespace for the thread that asks, so that the routing table under test is known and no packet can leave.

use std::process::Command;

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::rows::world::{Addresses, route};

/// Indexes of the devices in the namespace.
#[derive(Clone, Copy, Debug)]
pub struct Devices {
    pub uplink: u32,
    pub pod: u32,
}

/// Moves the calling thread into a new network namespace with an uplink, a pod link, and routes to everywhere through
/// the uplink's gateway. The namespace ends with the thread.
///
/// # Errors
/// Without root, or where `ip` (iproute2) is missing or refuses.
pub fn enter() -> anyhow::Result<Devices> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace needs root")?;
    let (four, six) = (Addresses::of(false).node, Addresses::of(true).node);
    let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
    let (uplink, pod) = (route::DEVICE, route::POD_DEVICE);
    ip("link set lo up")?;
    // Both ends of each pair stay here: nothing is ever sent.
    ip(&format!("link add {uplink} address {} type veth peer name {uplink}-end", mac(route::MAC)))?;
    ip(&format!("link add {pod} type veth peer name {pod}-end"))?;
    for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        std::fs::write(format!("/proc/sys/net/{key}"), "1").with_context(|| format!("setting {key}"))?;
    }
    ip(&format!("link set {uplink} up mtu {}", route::MTU))?;
    for name in [pod, "up0-end", "pod0-end"] {
        ip(&format!("link set {name} up"))?;
    }
    ip(&format!("address add {four}/24 dev {uplink}"))?;
    ip(&format!("address add {six}/64 dev {uplink} nodad"))?;
    ip(&format!("route add default via {}", route::GATEWAY4))?;
    ip(&format!("-6 route add default via {}", route::GATEWAY6))?;
    for gateway in [route::GATEWAY4.to_string(), route::GATEWAY6.to_string()] {
        ip(&format!("neighbour add {gateway} lladdr {} dev {uplink} nud permanent", mac(route::GATEWAY_MAC)))?;
    }
    let index = |name: &str| nix::net::if_::if_nametoindex(name).with_context(|| format!("no device {name}"));
    Ok(Devices { uplink: index(uplink)?, pod: index(pod)? })
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments.split(' ')).output().context("running ip (iproute2)")?;
    ensure!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
