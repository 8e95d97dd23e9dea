//! What is asked of the kernel: everything at start and after messages were lost, and else only what messages leave open.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::LinkExtentMask;
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteType};
use rtnetlink::{Error, Handle};

use super::device::{Device, DeviceAddress};
use super::message;
use crate::kernel::KernelError;
use crate::model::Family;

/// All devices with their addresses, by index; what is known of their routes is not asked for.
pub async fn devices(netlink: &Handle) -> Result<Vec<Device>, KernelError> {
    let skip_statistics = vec![LinkExtentMask::SkipStats];
    let links = netlink.link().get().set_filter_mask(AddressFamily::Unspec, skip_statistics).execute();
    let mut devices: BTreeMap<u32, Device> = links
        .try_filter_map(async |link| Ok(message::device(&link).map(|device| (device.index, device))))
        .try_collect()
        .await
        .map_err(KernelError::netlink("listing devices"))?;
    for (index, address) in addresses(netlink, AddressMessage::default()).await? {
        if let Some(device) = devices.get_mut(&index) {
            device.addresses.push(address);
        }
    }
    Ok(devices.into_values().collect())
}

/// One device, without its addresses; `None`: it is gone.
pub async fn device(netlink: &Handle, index: u32) -> Result<Option<Device>, KernelError> {
    let mut links = std::pin::pin!(netlink.link().get().match_index(index).execute());
    match links.try_next().await {
        Ok(link) => Ok(link.as_ref().and_then(message::device)),
        Err(cause) if is_gone(&cause) => Ok(None),
        Err(cause) => Err(KernelError::netlink("asking for a device")(cause)),
    }
}

/// The addresses of one device, in the order of the kernel; none if it is gone. The connection has to check strictly:
/// otherwise the kernel lists those of all devices (Linux 4.20).
pub async fn addresses_of(netlink: &Handle, index: u32, family: Family) -> Result<Vec<DeviceAddress>, KernelError> {
    let mut request = AddressMessage::default();
    request.header.index = index;
    request.header.family = address_family(family);
    let found = addresses(netlink, request).await?;
    Ok(found.into_iter().filter(|(of, _)| *of == index).map(|(_, address)| address).collect())
}

async fn addresses(netlink: &Handle, request: AddressMessage) -> Result<Vec<(u32, DeviceAddress)>, KernelError> {
    let mut get = netlink.address().get();
    *get.message_mut() = request;
    let mut answers = std::pin::pin!(get.execute());
    let mut found = Vec::new();
    loop {
        match answers.try_next().await {
            Ok(Some(answer)) => found.extend(message::address(&answer)),
            Ok(None) => return Ok(found),
            Err(cause) if is_gone(&cause) => return Ok(Vec::new()),
            Err(cause) => return Err(KernelError::netlink("listing addresses")(cause)),
        }
    }
}

fn is_gone(cause: &Error) -> bool {
    matches!(cause, Error::NetlinkError(cause) if cause.raw_code() == -libc::ENODEV)
}

const fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// Indexes of the devices through which a route with a gateway leaves. A router may have a million routes: ask only
/// where a role depends on them.
pub async fn gateways(netlink: &Handle) -> Result<BTreeSet<u32>, KernelError> {
    let mut found = BTreeSet::new();
    for family in Family::ALL {
        let mut request = RouteMessage::default();
        request.header.address_family = address_family(family);
        // Leaves out what is local, broadcast or multicast, at least three routes for each address of the node.
        request.header.kind = RouteType::Unicast;
        let mut routes = std::pin::pin!(netlink.route().get(request).execute());
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
