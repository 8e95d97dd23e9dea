use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::LinkExtentMask;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::{Handle, RouteMessageBuilder};

use super::device::{self, Device, Kind};
use crate::kernel::KernelError;

/// All devices of the network namespace with their addresses, by index.
///
/// Routes are only asked for where a role depends on them: a router may have a million.
pub async fn devices(netlink: &Handle) -> Result<Vec<Device>, KernelError> {
    let skip_statistics = vec![LinkExtentMask::SkipStats];
    let links = netlink.link().get().set_filter_mask(AddressFamily::Unspec, skip_statistics).execute();
    let mut devices: BTreeMap<u32, Device> = links
        .try_filter_map(async |link| Ok(Device::from_message(&link).map(|device| (device.index, device))))
        .try_collect()
        .await
        .map_err(KernelError::netlink("listing devices"))?;

    let mut addresses = netlink.address().get().execute();
    while let Some(message) = addresses.try_next().await.map_err(KernelError::netlink("listing addresses"))? {
        if let Some((index, address)) = device::address_of(&message)
            && let Some(device) = devices.get_mut(&index)
        {
            device.addresses.push(address);
        }
    }

    if devices.values().any(depends_on_routes) {
        for index in gateways(netlink).await? {
            if let Some(device) = devices.get_mut(&index) {
                device.gateway = true;
            }
        }
    }
    Ok(devices.into_values().collect())
}

fn depends_on_routes(device: &Device) -> bool {
    let has_address = device.global_addresses().next().is_some();
    match device.kind {
        Kind::Veth | Kind::Tap => has_address && device.controller.is_none(),
        Kind::Bridge => has_address,
        Kind::Hardware | Kind::Bond | Kind::Stacked => !has_address && device.controller.is_none(),
        Kind::Loopback | Kind::Tunnel | Kind::Other => false,
    }
}

/// Indexes of the devices through which a route with a gateway leaves.
async fn gateways(netlink: &Handle) -> Result<BTreeSet<u32>, KernelError> {
    let requests = [
        RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    ];
    let mut found = BTreeSet::new();
    for request in requests {
        let mut routes = netlink.route().get(request).execute();
        while let Some(route) = routes.try_next().await.map_err(KernelError::netlink("listing routes"))? {
            found.extend(devices_of(&route));
        }
    }
    Ok(found)
}

fn devices_of(route: &RouteMessage) -> Vec<u32> {
    let is_gateway =
        |attribute: &RouteAttribute| matches!(attribute, RouteAttribute::Gateway(_) | RouteAttribute::Via(_));
    let mut found = Vec::new();
    let mut device = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => device = Some(*index),
            RouteAttribute::MultiPath(hops) => {
                let through = hops.iter().filter(|hop| hop.attributes.iter().any(is_gateway));
                found.extend(through.map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    if route.attributes.iter().any(is_gateway) {
        found.extend(device);
    }
    found
}
