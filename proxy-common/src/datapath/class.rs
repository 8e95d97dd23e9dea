use super::Lookup;
use crate::wire::{Address, Class, Config, ConfigFlags, DeviceFlags};

/// Who sends through the link with index `device`, from an address of which [`Config::is_pod`] says `by_address`. A pod is
/// what the configuration says (kube-proxy's `detectLocalMode`): behind a pod link there may as well be a virtual machine, or
/// a container of another kind.
#[inline(always)]
pub fn classify<L: Lookup>(
    lookup: &L,
    config: &Config,
    by_address: Option<bool>,
    device: u32,
    by_pod_link: bool,
) -> Class {
    if !by_pod_link {
        return Class::Outside;
    }
    let is_pod = match by_address {
        Some(is_pod) => is_pod,
        None if config.flags & ConfigFlags::PODS_BY_DEVICE != 0 => {
            lookup.device(device).is_some_and(|device| device.flags & DeviceFlags::PODS != 0)
        }
        None => true,
    };
    if is_pod { Class::Pod } else { Class::Outside }
}

/// Whether an address is in the cluster's networks of pods, as far as they are known.
#[inline(always)]
pub fn is_pod_address<L: Lookup>(lookup: &L, address: &Address) -> bool {
    lookup.config().is_some_and(|config| config.is_pod(address) == Some(true))
}
